// SPDX-License-Identifier: Apache-2.0

package media_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/media"
	"github.com/sluice-rpc/sluice/app/media/photo"
	"github.com/sluice-rpc/sluice/app/media/probe"
	"github.com/sluice-rpc/sluice/app/media/probe/probetest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	photoKind = momentsv1.MediaKind_MEDIA_KIND_PHOTO
	videoKind = momentsv1.MediaKind_MEDIA_KIND_VIDEO
	ok        = rpc.Code(0)
)

var (
	mary = id.User{1}.String()
	john = id.User{2}.String()
	post = id.Post{1}.String()
	noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
)

// world is a service with what is around it.
type world struct {
	*media.Service
	t     testing.TB
	blobs *media.Blobs
	store *memkv.Store

	mu       sync.Mutex
	now      time.Time                     // guarded by mu
	posts    map[string]bool               // that are there; guarded by mu
	profiles map[string]*momentsv1.Profile // guarded by mu
	away     error                         // of those who are asked; guarded by mu
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := (&url.URL{Scheme: "file", Path: filepath.ToSlash(t.TempDir())}).String()
	blobs, err := media.OpenBlobs(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := blobs.Close(); err != nil {
			t.Error(err)
		}
	})
	return worldOn(t, blobs)
}

func worldOn(t testing.TB, blobs *media.Blobs) *world {
	t.Helper()
	w := &world{t: t, blobs: blobs, store: memkv.New(), now: noon, posts: map[string]bool{}, profiles: map[string]*momentsv1.Profile{}}
	var err error
	w.Service, err = media.New(t.Context(), media.Config{
		Store: w.store, Blobs: blobs, Region: 1, Posts: w, Profiles: w,
		Log: slog.New(slog.DiscardHandler), Now: w.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
}

func (w *world) GetMany(_ context.Context, req *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	res := new(momentsv1.GetPostsResponse)
	for _, p := range req.GetIds() {
		if w.posts[p] {
			res.Posts = append(res.Posts, &momentsv1.Post{Id: p})
		}
	}
	return res, w.away
}

func (w *world) GetProfile(_ context.Context, req *momentsv1.GetProfileRequest) (*momentsv1.GetProfileResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away != nil {
		return nil, w.away
	}
	if p, ok := w.profiles[req.GetUserId()]; ok {
		return &momentsv1.GetProfileResponse{Profile: p}, nil
	}
	return nil, rpc.Errorf(rpc.NotFound, "no such user")
}

// start opens an upload of data.
func (w *world) start(owner string, kind momentsv1.MediaKind, data []byte) string {
	w.t.Helper()
	sum := sha256.Sum256(data)
	res, err := w.StartUpload(w.t.Context(), &momentsv1.StartUploadRequest{OwnerId: owner, Kind: kind, Size: int64(len(data)), Sha256: sum[:]})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetUploadId()
}

func (w *world) part(owner, upload string, index int, data []byte) error {
	sum := sha256.Sum256(data)
	_, err := w.PutPart(w.t.Context(), &momentsv1.PutPartRequest{OwnerId: owner, UploadId: upload, Index: uint32(index), Data: data, Sha256: sum[:]})
	return err
}

func split(data []byte) [][]byte {
	return slices.Collect(slices.Chunk(data, media.PartSize))
}

// send uploads all parts, in an order by chance, and gives what completion says.
func (w *world) send(owner string, kind momentsv1.MediaKind, data []byte) (*momentsv1.Media, error) {
	w.t.Helper()
	upload := w.start(owner, kind, data)
	parts := split(data)
	for _, i := range rand.Perm(len(parts)) {
		if err := w.part(owner, upload, i, parts[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.complete(owner, upload)
}

func (w *world) complete(owner, upload string) (*momentsv1.Media, error) {
	res, err := w.CompleteUpload(w.t.Context(), &momentsv1.CompleteUploadRequest{OwnerId: owner, UploadId: upload})
	return res.GetMedia(), err
}

func (w *world) mustSend(owner string, kind momentsv1.MediaKind, data []byte) *momentsv1.Media {
	w.t.Helper()
	m, err := w.send(owner, kind, data)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// read gives a form in full.
func (w *world) read(m string, v momentsv1.MediaVariant) ([]byte, error) {
	var all []byte
	for {
		res, err := w.ReadRange(w.t.Context(), &momentsv1.ReadRangeRequest{MediaId: m, Variant: v, Offset: int64(len(all)), Length: 100_000})
		if err != nil {
			return nil, err
		}
		if all = append(all, res.GetData()...); int64(len(all)) == res.GetSize() {
			return all, nil
		}
	}
}

func (w *world) attach(owner, post string, ids ...string) error {
	_, err := w.Attach(w.t.Context(), &momentsv1.AttachRequest{OwnerId: owner, PostId: post, MediaIds: ids})
	return err
}

func (w *world) collect() {
	w.t.Helper()
	if err := w.Collect(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// files counts what is stored, in a directory.
func (w *world) files() int {
	w.t.Helper()
	n := 0
	err := filepath.WalkDir(w.blobs.Dir(), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// alive counts the media that are there.
func (w *world) alive(ids ...string) int {
	w.t.Helper()
	res, err := w.GetMedia(w.t.Context(), &momentsv1.GetMediaRequest{MediaIds: ids})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(res.GetMedia())
}

// plant stores an object that nothing names.
func (w *world) plant(key string) {
	w.t.Helper()
	path := filepath.Join(w.blobs.Dir(), filepath.FromSlash(key))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// unplant removes the objects of a medium behind the service's back.
func (w *world) unplant(m string) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(w.blobs.Dir(), "media", m)); err != nil {
		w.t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, want rpc.Code) {
	t.Helper()
	if rpc.CodeOf(err) != want {
		t.Errorf("it gave %v (%v), want %v", rpc.CodeOf(err), err, want)
	}
}

// kindOf gives the stable type of a problem.
func kindOf(err error) string {
	var p momentsv1.Problem
	rpc.Detail(err, &p)
	return p.GetType()
}

// picture is a photo with noise, so that it is not small.
func picture(tb testing.TB, w, h int) []byte {
	tb.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	r := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 0xff
	}
	img.SetRGBA(0, 0, color.RGBA{255, 0, 0, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestAPhotoIsMadeOver(t *testing.T) {
	w := newWorld(t)
	m := w.mustSend(mary, photoKind, picture(t, 1500, 600))
	if m.GetKind() != photoKind || m.GetOwnerId() != mary || len(m.GetForms()) != 3 || m.GetCreatedMs() != noon.UnixMilli() {
		t.Errorf("it is %v", m)
	}
	for _, f := range m.GetForms() {
		data, err := w.read(m.GetMediaId(), f.GetVariant())
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%v is no JPEG: %v", f.GetVariant(), err)
		}
		want := map[momentsv1.MediaVariant]int{1: 1500, 2: 360, 3: 1080}[f.GetVariant()]
		if img.Bounds().Dx() != want || int(f.GetWidth()) != want || int(f.GetHeight()) != img.Bounds().Dy() ||
			f.GetSize() != int64(len(data)) || f.GetContentType() != "image/jpeg" {
			t.Errorf("%v is %v, want %d wide", f, img.Bounds(), want)
		}
	}
	if n := w.files(); n != 3 {
		t.Errorf("%d files are kept, want the three forms", n)
	}
}

func TestAVideoLosesAllButPictureAndSound(t *testing.T) {
	w := newWorld(t)
	data := probetest.Movie{Place: "+31.2304+121.4737/", Padding: 3 * media.PartSize, Seconds: 12}.Bytes()
	m := w.mustSend(mary, videoKind, data)
	got, err := w.read(m.GetMediaId(), momentsv1.MediaVariant_MEDIA_VARIANT_FULL)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(data) || bytes.Contains(got, []byte("121.4737")) || !bytes.Contains(got, []byte(probetest.Pictures)) {
		t.Error("it is not what is left of it")
	}
	if m.GetDurationMs() != 12_000 || len(m.GetForms()) != 1 || m.GetForms()[0].GetWidth() != 640 || m.GetForms()[0].GetContentType() != "video/mp4" {
		t.Errorf("it is %v", m)
	}
}

func TestAnUploadGoesOnAfterABreak(t *testing.T) {
	w := newWorld(t)
	data := picture(t, 900, 700)
	parts := split(data)
	if len(parts) < 3 {
		t.Fatalf("%d parts are too few for this test", len(parts))
	}
	upload := w.start(mary, photoKind, data)
	for _, i := range []int{2, 0, 0} {
		if err := w.part(mary, upload, i, parts[i]); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.complete(mary, upload)
	wantCode(t, err, rpc.FailedPrecondition)
	res, err := w.GetUpload(t.Context(), &momentsv1.GetUploadRequest{OwnerId: mary, UploadId: upload})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range res.GetMissing() {
		if i == 0 || i == 2 {
			t.Errorf("part %d has come and is missing", i)
		}
		if err := w.part(mary, upload, int(i), parts[i]); err != nil {
			t.Fatal(err)
		}
	}
	first, err := w.complete(mary, upload)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.complete(mary, upload)
	if err != nil || again.GetMediaId() != first.GetMediaId() || first.GetMediaId() != upload {
		t.Errorf("completing again: %v, %v; before %v", again, err, first)
	}
	if err := w.part(mary, upload, 1, parts[1]); err != nil {
		t.Errorf("a late part: %v", err)
	}
	if n := w.files(); n != 3 {
		t.Errorf("%d files are kept, want the three forms", n)
	}
}

func TestCompletionsSideBySideMakeOneMedium(t *testing.T) {
	w := newWorld(t)
	data := picture(t, 300, 300)
	upload := w.start(mary, photoKind, data)
	for i, p := range split(data) {
		if err := w.part(mary, upload, i, p); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if m, err := w.complete(mary, upload); err != nil || m.GetMediaId() != upload {
				t.Errorf("%v, %v", m, err)
			}
		})
	}
	all.Wait()
	if n := w.files(); n != 3 {
		t.Errorf("%d files are kept, want the three forms", n)
	}
}

func TestStartUploadIsOnceForAKey(t *testing.T) {
	w := newWorld(t)
	start := func(owner, key string, size int64) (string, error) {
		res, err := w.StartUpload(t.Context(), &momentsv1.StartUploadRequest{
			OwnerId: owner, Kind: photoKind, Size: size, Sha256: make([]byte, 32), IdempotencyKey: key,
		})
		return res.GetUploadId(), err
	}
	first, err := start(mary, "k", 10)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := start(mary, "k", 10); err != nil || again != first {
		t.Errorf("again: %v, %v; first %v", again, err, first)
	}
	if _, err := start(mary, "k", 11); kindOf(err) != "idempotency-conflict" {
		t.Errorf("another request: %v", err)
	}
	if other, err := start(john, "k", 10); err != nil || other == first {
		t.Errorf("another user: %v, %v", other, err)
	}
}

func TestLimitsAtTheStart(t *testing.T) {
	w := newWorld(t)
	for name, req := range map[string]*momentsv1.StartUploadRequest{
		"no kind":         {OwnerId: mary, Size: 1, Sha256: make([]byte, 32)},
		"no bytes":        {OwnerId: mary, Kind: photoKind, Sha256: make([]byte, 32)},
		"fewer than none": {OwnerId: mary, Kind: photoKind, Size: -1, Sha256: make([]byte, 32)},
		"a large photo":   {OwnerId: mary, Kind: photoKind, Size: photo.MaxBytes + 1, Sha256: make([]byte, 32)},
		"a large video":   {OwnerId: mary, Kind: videoKind, Size: probe.MaxBytes + 1, Sha256: make([]byte, 32)},
		"no checksum":     {OwnerId: mary, Kind: photoKind, Size: 1},
		"nobody's":        {OwnerId: "../etc", Kind: photoKind, Size: 1, Sha256: make([]byte, 32)},
		"a long key":      {OwnerId: mary, Kind: photoKind, Size: 1, Sha256: make([]byte, 32), IdempotencyKey: strings.Repeat("k", 65)},
	} {
		_, err := w.StartUpload(t.Context(), req)
		if rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUploadsWithoutEnd(t *testing.T) {
	w := newWorld(t)
	start := func(size int64) error {
		_, err := w.StartUpload(t.Context(), &momentsv1.StartUploadRequest{OwnerId: mary, Kind: videoKind, Size: size, Sha256: make([]byte, 32)})
		return err
	}
	for range 5 {
		if err := start(probe.MaxBytes); err != nil {
			t.Fatal(err)
		}
	}
	if err := start(probe.MaxBytes); kindOf(err) != "limit" {
		t.Errorf("more than a gigabyte: %v", err)
	}
	for range 45 {
		if err := start(1); err != nil {
			t.Fatal(err)
		}
	}
	if err := start(1); kindOf(err) != "limit" {
		t.Errorf("more than fifty: %v", err)
	}
	w.pass(25 * time.Hour)
	w.collect()
	if err := start(probe.MaxBytes); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestPartsAreChecked(t *testing.T) {
	w := newWorld(t)
	data := bytes.Repeat([]byte("x"), media.PartSize+10)
	upload := w.start(mary, photoKind, data)
	sum := sha256.Sum256(data[:media.PartSize])
	for name, c := range map[string]struct {
		index int
		data  []byte
		sum   []byte
		want  rpc.Code
	}{
		"short":            {0, data[:10], nil, rpc.InvalidArgument},
		"long":             {1, data[:11], nil, rpc.InvalidArgument},
		"beyond the end":   {2, data[:10], nil, rpc.InvalidArgument},
		"far beyond":       {1<<32 - 1, data[:10], nil, rpc.InvalidArgument},
		"damaged":          {0, bytes.Repeat([]byte("y"), media.PartSize), sum[:], rpc.InvalidArgument},
		"without checksum": {0, data[:media.PartSize], []byte{}, rpc.InvalidArgument},
	} {
		req := &momentsv1.PutPartRequest{OwnerId: mary, UploadId: upload, Index: uint32(c.index), Data: c.data, Sha256: c.sum}
		if c.sum == nil {
			s := sha256.Sum256(c.data)
			req.Sha256 = s[:]
		}
		if _, err := w.PutPart(t.Context(), req); rpc.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := w.files(); n != 0 {
		t.Errorf("%d files of refused parts are kept", n)
	}
}

func TestWhatIsNoPhotoOrVideo(t *testing.T) {
	movie := probetest.Movie{}.Bytes()
	for name, c := range map[string]struct {
		kind momentsv1.MediaKind
		data []byte
		want string
	}{
		"a script":                {photoKind, []byte("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"), "media-refused"},
		"a page":                  {videoKind, []byte("<!doctype html><script>alert(1)</script>"), "media-refused"},
		"a video as a photo":      {photoKind, movie, "media-refused"},
		"a photo as a video":      {videoKind, picture(t, 10, 10), "media-refused"},
		"a video that is longer":  {videoKind, probetest.Movie{Seconds: 61}.Bytes(), "media-refused"},
		"half a photo":            {photoKind, picture(t, 100, 100)[:5000], "media-refused"},
		"a program":               {photoKind, []byte("\x7fELF\x02\x01\x01"), "media-refused"},
		"a page that is a GIF":    {photoKind, []byte("GIF89a/*<script>alert(1)</script>*/=1;"), "media-refused"},
		"a photo that is a page":  {photoKind, append([]byte("\xff\xd8\xff\xe0"), "<script>alert(1)</script>"...), "media-refused"},
		"a photo of many pixels":  {photoKind, huge(), "media-refused"},
		"a video within pictures": {photoKind, append(append([]byte{}, movie...), picture(t, 10, 10)...), "media-refused"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			upload := w.start(mary, c.kind, c.data)
			for i, p := range split(c.data) {
				if err := w.part(mary, upload, i, p); err != nil {
					t.Fatal(err)
				}
			}
			_, err := w.complete(mary, upload)
			wantCode(t, err, rpc.InvalidArgument)
			if kindOf(err) != c.want {
				t.Errorf("the problem is %q: %v", kindOf(err), err)
			}
			_, err = w.complete(mary, upload)
			wantCode(t, err, rpc.NotFound)
			w.collect()
			if n := w.files(); n != 0 {
				t.Errorf("%d files are left", n)
			}
		})
	}
}

// huge is the head of a PNG of 60,000 x 60,000 pixels.
func huge() []byte {
	return []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xea\x60\x00\x00\xea\x60\x08\x02\x00\x00\x00\x00\x00\x00\x00")
}

func TestTheWholeMustBeWhatWasAnnounced(t *testing.T) {
	w := newWorld(t)
	data := picture(t, 50, 50)
	res, err := w.StartUpload(t.Context(), &momentsv1.StartUploadRequest{OwnerId: mary, Kind: photoKind, Size: int64(len(data)), Sha256: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.part(mary, res.GetUploadId(), 0, data); err != nil {
		t.Fatal(err)
	}
	_, err = w.complete(mary, res.GetUploadId())
	wantCode(t, err, rpc.InvalidArgument)
	if n := w.files(); n != 1 {
		t.Errorf("%d files are kept, want the part", n)
	}
}

func TestSomebodyElsesUploadIsNotThere(t *testing.T) {
	w := newWorld(t)
	data := picture(t, 50, 50)
	upload := w.start(mary, photoKind, data)
	ready := w.mustSend(mary, photoKind, data).GetMediaId()
	missing := id.Media{9}.String()
	sum := sha256.Sum256(data)
	for _, other := range []string{upload, ready, missing, "../../etc/passwd", ""} {
		for door, err := range map[string]error{
			"put": func() error {
				_, err := w.PutPart(t.Context(), &momentsv1.PutPartRequest{OwnerId: john, UploadId: other, Data: data, Sha256: sum[:]})
				return err
			}(),
			"get": func() error {
				_, err := w.GetUpload(t.Context(), &momentsv1.GetUploadRequest{OwnerId: john, UploadId: other})
				return err
			}(),
			"complete": func() error { _, err := w.complete(john, other); return err }(),
			"abort": func() error {
				_, err := w.AbortUpload(t.Context(), &momentsv1.AbortUploadRequest{OwnerId: john, UploadId: other})
				return err
			}(),
			"attach": w.attach(john, post, other),
		} {
			if rpc.CodeOf(err) != rpc.NotFound || strings.Contains(err.Error(), other) && other != "" {
				t.Errorf("%s of %q: %v", door, other, err)
			}
		}
	}
	if w.attach(mary, post, upload) == nil {
		t.Error("an upload that is not complete was attached")
	}
	if err := w.attach(mary, post, ready); err != nil {
		t.Errorf("its owner: %v", err)
	}
}

func TestAttach(t *testing.T) {
	w := newWorld(t)
	var photos []string
	for range 10 {
		photos = append(photos, w.mustSend(mary, photoKind, picture(t, 8, 8)).GetMediaId())
	}
	clips := []string{
		w.mustSend(mary, videoKind, probetest.Movie{}.Bytes()).GetMediaId(),
		w.mustSend(mary, videoKind, probetest.Movie{Seconds: 2}.Bytes()).GetMediaId(),
	}
	second, third := id.Post{2}.String(), id.Post{3}.String()
	for _, c := range []struct {
		name string
		post string
		ids  []string
		want rpc.Code
	}{
		{"none", post, nil, rpc.InvalidArgument},
		{"ten photos", post, photos, rpc.InvalidArgument},
		{"one twice", post, []string{photos[0], photos[0]}, rpc.InvalidArgument},
		{"photo and video", post, []string{photos[0], clips[0]}, rpc.InvalidArgument},
		{"two videos", post, clips, rpc.InvalidArgument},
		{"for nothing", "", photos[:1], rpc.InvalidArgument},
		{"for no post", "x", photos[:1], rpc.InvalidArgument},
		{"one that is not there", post, []string{photos[0], id.Media{9}.String()}, rpc.NotFound},
		{"nine photos", post, photos[:9], ok},
		{"again", post, photos[:9], ok},
		{"in another order", post, []string{photos[1], photos[0]}, ok},
		{"used by another post", second, photos[:1], rpc.NotFound},
		{"all or none", second, []string{photos[9], photos[1]}, rpc.NotFound},
		{"a video", third, clips[:1], ok},
		{"the one that was left", second, photos[9:], ok},
	} {
		if err := w.attach(mary, c.post, c.ids...); rpc.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestReleasedMediaAreGone(t *testing.T) {
	w := newWorld(t)
	mine := w.mustSend(mary, photoKind, picture(t, 30, 30)).GetMediaId()
	kept := w.mustSend(mary, photoKind, picture(t, 31, 30)).GetMediaId()
	for p, m := range map[string]string{post: mine, id.Post{2}.String(): kept} {
		if err := w.attach(mary, p, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, owner := range []string{john, mary, mary} {
		if _, err := w.Release(t.Context(), &momentsv1.ReleaseRequest{OwnerId: owner, PostId: post}); err != nil {
			t.Fatal(err)
		}
		if there := w.alive(mine) == 1; there != (owner == john) {
			t.Errorf("after %v released it, it is there: %v", owner, there)
		}
	}
	_, err := w.read(mine, momentsv1.MediaVariant_MEDIA_VARIANT_FULL)
	wantCode(t, err, rpc.NotFound)
	wantCode(t, w.attach(mary, post, mine), rpc.NotFound)
	w.collect()
	if n := w.files(); n != 3 || w.alive(kept) != 1 {
		t.Errorf("%d files are left, want the three of the other", n)
	}
}

func TestUnusedIsCollectedAfterADay(t *testing.T) {
	w := newWorld(t)
	data := picture(t, 800, 800)
	upload := w.start(mary, photoKind, data)
	if err := w.part(mary, upload, 0, split(data)[0]); err != nil {
		t.Fatal(err)
	}
	unused := w.mustSend(mary, photoKind, picture(t, 20, 20)).GetMediaId()
	used := w.mustSend(mary, photoKind, picture(t, 21, 20)).GetMediaId()
	lost := w.mustSend(mary, photoKind, picture(t, 22, 20)).GetMediaId()
	if err := errors.Join(w.attach(mary, post, used), w.attach(mary, id.Post{2}.String(), lost)); err != nil {
		t.Fatal(err)
	}
	w.posts[post] = true // the other was never stored
	w.pass(23 * time.Hour)
	w.collect()
	if n := w.alive(unused, used, lost); n != 3 {
		t.Errorf("%d of 3 are there after 23 hours", n)
	}
	w.pass(2 * time.Hour)
	w.away = rpc.Errorf(rpc.Unavailable, "away")
	if w.Collect(t.Context()) == nil || w.alive(used, lost) != 2 {
		t.Error("nobody could say whether they are used, and they are gone")
	}
	w.away = nil
	w.collect()
	if w.alive(unused, lost) != 0 || w.alive(used) != 1 {
		t.Errorf("a day later: %d unused, %d used", w.alive(unused, lost), w.alive(used))
	}
	_, err := w.GetUpload(t.Context(), &momentsv1.GetUploadRequest{OwnerId: mary, UploadId: upload})
	wantCode(t, err, rpc.NotFound)
	if n := w.files(); n != 3 {
		t.Errorf("%d files are left, want three", n)
	}
}

func TestProfilePhotos(t *testing.T) {
	w := newWorld(t)
	first := w.mustSend(mary, photoKind, picture(t, 20, 20)).GetMediaId()
	second := w.mustSend(mary, photoKind, picture(t, 21, 20)).GetMediaId()
	clip := w.mustSend(mary, videoKind, probetest.Movie{}.Bytes()).GetMediaId()
	avatar := func(ids ...string) error {
		_, err := w.Attach(t.Context(), &momentsv1.AttachRequest{OwnerId: mary, Place: momentsv1.ProfilePlace_PROFILE_PLACE_AVATAR, MediaIds: ids})
		return err
	}
	wantCode(t, avatar(clip), rpc.InvalidArgument)
	wantCode(t, avatar(first, second), rpc.InvalidArgument)
	if err := errors.Join(avatar(first), avatar(first), avatar(second)); err != nil {
		t.Fatal(err)
	}
	w.profiles[mary] = &momentsv1.Profile{UserId: mary, AvatarMediaId: second}
	w.pass(25 * time.Hour)
	w.collect()
	if w.alive(first) != 0 || w.alive(second) != 1 {
		t.Error("the old picture stays, or the new one does not")
	}
	delete(w.profiles, mary) // the account was deleted
	w.pass(25 * time.Hour)
	w.collect()
	if w.alive(second) != 0 {
		t.Error("the picture outlives its account")
	}
}

// TestForget: the pictures of a deleted account go at once, its unused uploads too; those
// of its posts go with the posts, and nobody else's go.
func TestForget(t *testing.T) {
	w := newWorld(t)
	face := w.mustSend(mary, photoKind, picture(t, 20, 20)).GetMediaId()
	unused := w.mustSend(mary, photoKind, picture(t, 21, 20)).GetMediaId()
	posted := w.mustSend(mary, photoKind, picture(t, 22, 20)).GetMediaId()
	others := w.mustSend(john, photoKind, picture(t, 23, 20)).GetMediaId()
	w.start(mary, photoKind, picture(t, 24, 20))
	post := id.Post{1}.String()
	_, err := w.Attach(t.Context(), &momentsv1.AttachRequest{OwnerId: mary, Place: momentsv1.ProfilePlace_PROFILE_PLACE_AVATAR, MediaIds: []string{face}})
	if err := errors.Join(err, w.attach(mary, post, posted)); err != nil {
		t.Fatal(err)
	}
	w.posts[post] = true
	for _, c := range []struct {
		dry  bool
		want uint32
	}{{true, 3}, {false, 3}, {true, 0}, {false, 0}} {
		res, err := w.Forget(t.Context(), &momentsv1.ForgetRequest{UserId: mary, DryRun: c.dry})
		if err != nil || res.GetFound() != c.want {
			t.Errorf("dry %v: found %d, %v, want %d", c.dry, res.GetFound(), err, c.want)
		}
	}
	w.collect()
	if w.alive(face, unused) != 0 || w.alive(posted, others) != 2 {
		t.Error("a picture outlives its account, or more than that is gone")
	}
}

func TestCheckBlobs(t *testing.T) {
	w := newWorld(t)
	m := w.mustSend(mary, photoKind, picture(t, 20, 20))
	broken := w.mustSend(mary, photoKind, picture(t, 21, 20))
	check := func(mend bool) (orphans, missing []string) {
		req := &momentsv1.CheckBlobsRequest{Mend: mend}
		for {
			res, err := w.CheckBlobs(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			orphans, missing = append(orphans, res.GetOrphans()...), append(missing, res.GetMissing()...)
			if req.Cursor = res.GetNextCursor(); req.GetCursor() == "" {
				return orphans, missing
			}
		}
	}
	if o, n := check(false); len(o)+len(n) != 0 {
		t.Errorf("all is well, but %v, %v", o, n)
	}
	w.plant("stray")
	w.plant("parts/" + id.Media{9}.String() + "/0")
	w.plant("media/" + m.GetMediaId() + "/othertoken/full")
	w.unplant(broken.GetMediaId())
	// Files are as old as they are: the service's clock says how long ago that is.
	w.mu.Lock()
	w.now = time.Now().Add(2 * time.Hour)
	w.mu.Unlock()
	o, n := check(true)
	if len(o) != 3 || !slices.Equal(n, []string{broken.GetMediaId()}) {
		t.Errorf("orphans %v, missing %v", o, n)
	}
	w.pass(25 * time.Hour)
	check(true)
	if o, _ := check(false); len(o) != 0 {
		t.Errorf("after mending: %v", o)
	}
	for _, cursor := range []string{"x", "m-1", "m99999", "b!"} {
		_, err := w.CheckBlobs(t.Context(), &momentsv1.CheckBlobsRequest{Cursor: cursor})
		wantCode(t, err, rpc.InvalidArgument)
	}
}

func TestReadRange(t *testing.T) {
	w := newWorld(t)
	m := w.mustSend(mary, photoKind, picture(t, 20, 20))
	full := momentsv1.MediaVariant_MEDIA_VARIANT_FULL
	size := m.GetForms()[0].GetSize()
	for _, c := range []struct {
		id      string
		variant momentsv1.MediaVariant
		offset  int64
		length  uint32
		want    rpc.Code
	}{
		{m.GetMediaId(), full, 0, 10, ok},
		{m.GetMediaId(), full, size - 1, 10, ok},
		{m.GetMediaId(), full, size, 10, rpc.InvalidArgument},
		{m.GetMediaId(), full, -1, 10, rpc.InvalidArgument},
		{m.GetMediaId(), full, 0, 0, rpc.InvalidArgument},
		{m.GetMediaId(), full, 0, 1<<20 + 1, rpc.InvalidArgument},
		{m.GetMediaId(), 99, 0, 10, rpc.NotFound},
		{"../../etc", full, 0, 10, rpc.NotFound},
		{id.Media{9}.String(), full, 0, 10, rpc.NotFound},
	} {
		_, err := w.ReadRange(t.Context(), &momentsv1.ReadRangeRequest{MediaId: c.id, Variant: c.variant, Offset: c.offset, Length: c.length})
		if rpc.CodeOf(err) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRunCollects(t *testing.T) {
	w := newWorld(t)
	m := w.mustSend(mary, photoKind, picture(t, 20, 20)).GetMediaId()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	if _, err := w.AbortUpload(ctx, &momentsv1.AbortUploadRequest{OwnerId: mary, UploadId: m}); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for w.files() > 0 {
		<-tick.C // go test bounds it
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
