// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
	"net/http"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/media/probe/probetest"
)

// Photos and videos through the public API and all services, the edge included.

// medium is a photo or video as the API describes it.
type medium struct {
	ID          string            `json:"id"`
	ContentType string            `json:"content_type"`
	Width       int               `json:"width"`
	DurationMS  int               `json:"duration_ms"`
	URLs        map[string]string `json:"urls"`
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// upload sends all parts and gives the last answer.
func (p person) upload(kind string, data []byte) answer {
	p.t.Helper()
	var up struct {
		ID       string `json:"id"`
		PartSize int    `json:"part_size"`
	}
	p.call("POST", "/uploads", map[string]any{"kind": kind, "size": len(data), "sha256": hexSum(data)}).want(p.t, 201, &up)
	index := 0
	for part := range slices.Chunk(data, up.PartSize) {
		p.part(up.ID, index, part).want(p.t, 204, nil)
		index++
	}
	return p.call("POST", "/uploads/"+up.ID+"/complete", nil)
}

func (p person) part(upload string, index int, data []byte) answer {
	p.t.Helper()
	return p.call("PUT", fmt.Sprintf("/uploads/%s/parts/%d", upload, index), string(data),
		"Content-Type", "application/octet-stream", "Content-SHA256", hexSum(data))
}

func (p person) photo(w int) medium {
	p.t.Helper()
	var m medium
	p.upload("photo", photograph(p.t, w, w/2)).want(p.t, 200, &m)
	return m
}

func photograph(tb testing.TB, w, h int) []byte {
	tb.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = byte(i * 2654435761 >> 13)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// fetch reads a link without a session, as a picture on a page does.
func fetch(t *testing.T, h http.Handler, link string, headers ...string) answer {
	t.Helper()
	return (&client{t: t, h: h}).call("GET", link, nil, headers...)
}

// refused holds an answer against the problem that it should be; an empty kind or field
// may be any.
func (a answer) refused(t *testing.T, status int, kind, field string) {
	t.Helper()
	p := a.problem(t)
	if p.Status != status || kind != "" && p.Type != kind || field != "" && p.Field != field {
		t.Errorf("it is %d %q of %q (%s), want %d %q of %q", p.Status, p.Type, p.Field, p.Detail, status, kind, field)
	}
}

// detail is a post with its media.
type detail struct {
	post
	Media []medium `json:"media"`
}

func TestPhotosOfAPostAreForThoseWhoSeeIt(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, john, eve := newPerson(t, g, "mary"), newPerson(t, g, "john"), newPerson(t, g, "eve")
	mary.befriend(john)
	photos := []medium{mary.photo(600), mary.photo(500), mary.photo(400)}
	ids := []string{photos[2].ID, photos[0].ID, photos[1].ID}
	var made detail
	mary.call("POST", "/posts", map[string]any{"text": "the sea", "media": ids}).want(t, 201, &made)
	john.arrived(made.ID)
	var seen page[detail]
	john.call("GET", "/timeline", nil).want(t, 200, &seen)
	got := seen.Items[0].Media
	if len(got) != 3 || got[0].ID != ids[0] || got[1].ID != ids[1] || got[2].ID != ids[2] || got[1].Width != 600 || got[1].ContentType != "image/jpeg" {
		t.Fatalf("john sees %+v, want %v", got, ids)
	}
	for form, most := range map[string]int{"thumbnail": 360, "feed": 1080, "full": 2560} {
		res := fetch(t, g, got[1].URLs[form])
		img, err := jpeg.Decode(bytes.NewReader(res.text))
		if res.StatusCode != 200 || err != nil || img.Bounds().Dx() != min(600, most) {
			t.Errorf("%s: %d, %v", form, res.StatusCode, err)
		}
		etag := res.Header.Get("Etag")
		if again := fetch(t, g, got[1].URLs[form], "If-None-Match", etag); again.StatusCode != 304 {
			t.Errorf("%s again: %d", form, again.StatusCode)
		}
		if part := fetch(t, g, got[1].URLs[form], "Range", "bytes=10-19"); part.StatusCode != 206 || !bytes.Equal(part.text, res.text[10:20]) {
			t.Errorf("a range of %s: %d with %d bytes", form, part.StatusCode, len(part.text))
		}
	}
	if eve.sees(made.ID) {
		t.Error("a stranger sees the post and so its links")
	}
	// The link of one medium opens no other, and nothing opens without one.
	_, query, _ := strings.Cut(got[0].URLs["full"], "?")
	for name, link := range map[string]string{
		"another medium's link": "/media/" + got[1].ID + "/full?" + query,
		"no link":               "/media/" + got[1].ID + "/full",
		"no such medium":        "/media/" + id.Media{1}.String() + "/full?" + query,
		"a path that climbs":    "/media/..%2f..%2fetc/passwd?" + query,
	} {
		fetch(t, g, link).refused(t, 404, "not-found", "")
		_ = name
	}
	// Once used, a photo is in no other post.
	mary.call("POST", "/posts", map[string]any{"text": "again", "media": ids[:1]}).refused(t, 404, "not-found", "media")
	// What is deleted is gone, also from where it was kept near.
	mary.call("DELETE", "/posts/"+made.ID, nil).want(t, 204, nil)
	eventually(t, "the end of the media", func() bool {
		mary.call("GET", "/uploads/"+ids[0], nil)
		return mary.call("GET", "/uploads/"+ids[0], nil).StatusCode == 404
	})
}

func TestAVideoOfAPost(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary := newPerson(t, g, "mary")
	movie := probetest.Movie{Place: "+31.2304+121.4737/", Padding: 3 << 20, Seconds: 7}.Bytes()
	var clip medium
	mary.upload("video", movie).want(t, 200, &clip)
	if clip.DurationMS != 7000 || clip.ContentType != "video/mp4" || clip.Width != 640 || clip.URLs["thumbnail"] != "" {
		t.Errorf("it is %+v", clip)
	}
	photo := mary.photo(100)
	mary.call("POST", "/posts", map[string]any{"text": "", "media": []string{clip.ID, photo.ID}}).refused(t, 400, "invalid", "media")
	var made detail
	mary.call("POST", "/posts", map[string]any{"text": "", "media": []string{clip.ID}}).want(t, 201, &made)
	res := fetch(t, g, made.Media[0].URLs["full"])
	if len(res.text) != len(movie) || bytes.Contains(res.text, []byte("121.4737")) || res.Header.Get("Content-Type") != "video/mp4" {
		t.Errorf("%d with %d bytes", res.StatusCode, len(res.text))
	}
	tail := fetch(t, g, made.Media[0].URLs["full"], "Range", "bytes=2000000-")
	if tail.StatusCode != 206 || !bytes.Equal(tail.text, res.text[2_000_000:]) {
		t.Errorf("the tail: %d with %d bytes", tail.StatusCode, len(tail.text))
	}
}

func TestUploadsOfOthers(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, john := newPerson(t, g, "mary"), newPerson(t, g, "john")
	photo := mary.photo(50)
	var up struct{ ID string }
	mary.call("POST", "/uploads", map[string]any{"kind": "photo", "size": 4, "sha256": hexSum([]byte("abcd"))}).want(t, 201, &up)
	for _, other := range []string{photo.ID, up.ID, id.Media{1}.String(), "x"} {
		john.call("GET", "/uploads/"+other, nil).refused(t, 404, "not-found", "")
		john.call("DELETE", "/uploads/"+other, nil).refused(t, 404, "not-found", "")
		john.call("POST", "/uploads/"+other+"/complete", nil).refused(t, 404, "not-found", "")
		john.part(other, 0, []byte("abcd")).refused(t, 404, "not-found", "")
		if other != "x" {
			john.call("POST", "/posts", map[string]any{"text": "mine", "media": []string{other}}).refused(t, 404, "not-found", "media")
			john.call("PATCH", "/me", map[string]any{"avatar_media_id": other}).refused(t, 400, "invalid", "avatar_media_id")
		}
	}
}

func TestAvatarAndCover(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary, john := newPerson(t, g, "mary"), newPerson(t, g, "john")
	avatar, cover := mary.photo(500), mary.photo(600)
	mary.call("PATCH", "/me", map[string]any{"avatar_media_id": avatar.ID, "cover_media_id": cover.ID}).want(t, 200, nil)
	var seen struct {
		Avatar string `json:"avatar_url"`
		Cover  string `json:"cover_url"`
	}
	john.call("GET", "/users/"+mary.user.ID, nil).want(t, 200, &seen)
	for name, link := range map[string]string{"avatar": seen.Avatar, "cover": seen.Cover} {
		if res := fetch(t, g, link); res.StatusCode != 200 || res.Header.Get("Content-Type") != "image/jpeg" {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	mary.call("PATCH", "/me", map[string]any{"avatar_media_id": ""}).want(t, 200, nil)
	seen.Avatar = ""
	john.call("GET", "/users/"+mary.user.ID, nil).want(t, 200, &seen)
	if seen.Avatar != "" {
		t.Error("the picture is still there")
	}
}

func TestUploadsThatAreWrong(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary := newPerson(t, g, "mary")
	sum := hexSum([]byte("abcd"))
	for name, c := range map[string]struct {
		body  map[string]any
		field string
	}{
		"no kind":       {map[string]any{"size": 4, "sha256": sum}, "kind"},
		"another kind":  {map[string]any{"kind": "svg", "size": 4, "sha256": sum}, "kind"},
		"no size":       {map[string]any{"kind": "photo", "sha256": sum}, "size"},
		"too large":     {map[string]any{"kind": "photo", "size": 20<<20 + 1, "sha256": sum}, "size"},
		"no sum":        {map[string]any{"kind": "photo", "size": 4}, "sha256"},
		"a short sum":   {map[string]any{"kind": "photo", "size": 4, "sha256": sum[:10]}, "sha256"},
		"another thing": {map[string]any{"kind": "photo", "size": 4, "sha256": sum, "name": "../../etc/passwd"}, "name"},
	} {
		t.Run(name, func(t *testing.T) { mary.call("POST", "/uploads", c.body).refused(t, 400, "", c.field) })
	}
	var up struct{ ID string }
	mary.call("POST", "/uploads", map[string]any{"kind": "photo", "size": 4, "sha256": sum}).want(t, 201, &up)
	path := "/uploads/" + up.ID + "/parts/"
	octets := []string{"Content-Type", "application/octet-stream"}
	mary.call("PUT", path+"0", "abcd", octets...).refused(t, 400, "invalid", "Content-SHA256")
	mary.call("PUT", path+"0", "abcd", append(octets, "Content-SHA256", hexSum([]byte("abce")))...).refused(t, 400, "invalid", "Content-SHA256")
	mary.call("PUT", path+"x", "abcd", append(octets, "Content-SHA256", sum)...).refused(t, 400, "invalid", "index")
	mary.call("PUT", path+"7", "abcd", append(octets, "Content-SHA256", sum)...).refused(t, 400, "invalid", "index")
	mary.call("PUT", path+"0", "abc", append(octets, "Content-SHA256", hexSum([]byte("abc")))...).refused(t, 400, "invalid", "")
	mary.call("PUT", path+"0", strings.Repeat("a", 100<<20), append(octets, "Content-SHA256", sum)...).refused(t, 413, "too-large", "")
	mary.call("POST", "/uploads/"+up.ID+"/complete", nil).refused(t, 409, "failed-precondition", "")
}

// TestBombs sends what is made to cost memory, and looks how much it costs all services
// together, which run in this process.
func TestBombs(t *testing.T) {
	g := at(t, clustertest.Start(t))
	mary := newPerson(t, g, "mary")
	plain := photograph(t, 64, 64)
	frame := bytes.Index(plain, []byte("\xff\xc0"))
	sized := func(w, h uint16, marker byte) []byte {
		b := bytes.Clone(plain)
		b[frame+1] = marker
		binary.BigEndian.PutUint16(b[frame+5:], h)
		binary.BigEndian.PutUint16(b[frame+7:], w)
		return b
	}
	bombs := map[string][]byte{
		"JPEG of 60,000 x 60,000":           sized(60_000, 60_000, 0xc0),
		"JPEG of 7,000 x 7,000":             sized(7_000, 7_000, 0xc0),
		"progressive JPEG of 7,000 x 7,000": sized(7_000, 7_000, 0xc2),
		"PNG of 60,000 x 60,000":            []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xea\x60\x00\x00\xea\x60\x08\x02\x00\x00\x00\x00\x00\x00\x00"),
		"WebP of 16,384 x 16,384":           []byte("RIFF\x1c\x00\x00\x00WEBPVP8L\x0f\x00\x00\x00\x2f\xff\xff\xff\x0f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		"SVG with a script":                 []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`),
		"a page that begins like a GIF":     []byte("GIF89a/*<script>alert(1)</script>*/=1;"),
		"20 MB of nothing":                  make([]byte, 20<<20),
		"20 MB of passes":                   append(bytes.Clone(plain[:len(plain)-2]), bytes.Repeat(plain[bytes.Index(plain, []byte("\xff\xda")):len(plain)-2], 20_000)[:19<<20]...),
	}
	flat := flatPNG(t, 7_000)
	stop := watchMemory()
	for name, data := range bombs {
		if res := mary.upload("photo", data); res.StatusCode != 400 || !strings.Contains(string(res.text), `"media-refused"`) {
			t.Errorf("%s: %d %s", name, res.StatusCode, res.text)
		}
	}
	res := mary.upload("photo", append(bytes.Clone(plain), "<script>alert(1)</script>"...))
	var m medium
	res.want(t, 200, &m)
	if shown := fetch(t, g, m.URLs["full"]); bytes.Contains(shown.text, []byte("script")) || shown.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("a page that is a photo, too, is still a page")
	}
	// 49 megapixels are allowed, also when 147 MB of them come in 143 KB.
	mary.upload("photo", flat).want(t, 200, &m)
	if m.Width != 2560 {
		t.Errorf("the large one is %d wide", m.Width)
	}
	for range 60 { // without end
		mary.call("POST", "/uploads", map[string]any{"kind": "video", "size": 200 << 20, "sha256": hexSum(nil)})
	}
	mary.call("POST", "/uploads", map[string]any{"kind": "video", "size": 200 << 20, "sha256": hexSum(nil)}).refused(t, 409, "limit", "size")
	const most = 200 << 20
	if grown := stop(); grown > most {
		t.Errorf("memory grew by %d MB, at most %d may be", grown>>20, most>>20)
	} else {
		t.Logf("memory grew by %d MB", grown>>20)
	}
}

// flatPNG is a black square, which is a thousandth of its pixels.
func flatPNG(tb testing.TB, side int) []byte {
	tb.Helper()
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	row := make([]byte, 1+3*side)
	for range side {
		if _, err := z.Write(row); err != nil {
			tb.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	chunk := func(kind string, body []byte) []byte {
		b := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind...)
		b = append(b, body...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(side)), uint32(side))
	return slices.Concat([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(head, 8, 2, 0, 0, 0)), chunk("IDAT", packed.Bytes()), chunk("IEND", nil))
}

// watchMemory looks at what the process takes of the system's memory until stop, which
// says by how much it has grown at most.
func watchMemory() (stop func() int64) {
	read := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
	}
	debug.FreeOSMemory() // of earlier tests
	first := read()
	var peak atomic.Int64
	peak.Store(first)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				peak.Store(max(peak.Load(), read()))
			}
		}
	}()
	return func() int64 {
		close(end)
		<-ended
		return peak.Load() - first
	}
}
