// SPDX-License-Identifier: Apache-2.0

package post_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// others stand for the media and the notice service.
type others struct {
	mu       sync.Mutex
	attached map[string]string // guarded by mu; the post of each medium
	released []string          // guarded by mu; posts
	told     []*momentsv1.NoticeEvent
	failures int // guarded by mu; calls still to fail
}

func (o *others) fail() error {
	if o.failures == 0 {
		return nil
	}
	o.failures--
	return rpc.Errorf(rpc.Unavailable, "not now")
}

func (o *others) Attach(_ context.Context, req *momentsv1.AttachRequest) (*momentsv1.AttachResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	res := &momentsv1.AttachResponse{}
	for _, m := range req.GetMediaIds() {
		if p := o.attached[m]; p != "" && p != req.GetPostId() {
			return nil, rpc.WithDetails(rpc.Errorf(rpc.NotFound, "used already"), &momentsv1.Problem{Type: "not-found", Field: "media_ids"})
		}
		o.attached[m] = req.GetPostId()
		res.Media = append(res.Media, &momentsv1.Media{MediaId: m, Forms: []*momentsv1.MediaForm{
			{Variant: momentsv1.MediaVariant_MEDIA_VARIANT_FULL, ContentType: "image/jpeg", Width: 800, Height: 600},
		}})
	}
	return res, nil
}

func (o *others) Release(_ context.Context, req *momentsv1.ReleaseRequest) (*momentsv1.ReleaseResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.fail(); err != nil {
		return nil, err
	}
	o.released = append(o.released, req.GetPostId())
	return &momentsv1.ReleaseResponse{}, nil
}

func (o *others) Record(_ context.Context, req *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.fail(); err != nil {
		return nil, err
	}
	o.told = append(o.told, req.GetEvents()...)
	return &momentsv1.RecordResponse{}, nil
}

// open gives a service that has everything. Mary and John are friends.
func open(t *testing.T, store kv.Store, account *relationstest.Account, o *others) (momentsv1.PostServiceClient, *post.Service) {
	t.Helper()
	s, err := post.New(t.Context(), post.Config{
		Store: store, Region: 1, Account: account, Timeline: nowhere{}, Media: o, Notify: o, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	conn := rpctest.Local(t, func(r rpc.Registrar) { momentsv1.RegisterPostServiceServer(r, s) })
	return momentsv1.NewPostServiceClient(conn), s
}

func friends() *relationstest.Account {
	account := new(relationstest.Account)
	account.Befriend(mary, john)
	return account
}

// work runs a service until done, which is asked with the lock of the others held.
func work(t *testing.T, s *post.Service, o *others, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		ok := done()
		o.mu.Unlock()
		if ok {
			break
		}
		if time.Now().After(end) {
			t.Error("the errands are not run in 20 s")
			break
		}
	}
	cancel()
	wg.Wait()
}

func mediaID(n byte) string { return id.Media{0: 1, 15: n}.String() }

// TestMediaOverACut: a post whose request was cut off between the two services, or whose
// answer was lost, is made once by a repeated request, with its media.
func TestMediaOverACut(t *testing.T) {
	for _, fault := range []memkv.Fault{memkv.Unavailable, memkv.UnknownLost, memkv.UnknownApplied} {
		store, o := memkv.New(), &others{attached: map[string]string{}}
		c, _ := open(t, store, friends(), o)
		req := request(mary, "k", "")
		req.MediaIds = []string{mediaID(2), mediaID(1)}
		attached := false
		store.SetFaults(func(call memkv.Call) memkv.Fault {
			o.mu.Lock()
			defer o.mu.Unlock()
			if attached = attached || len(o.attached) > 0; attached && call.Method == memkv.Apply {
				return fault
			}
			return memkv.None
		})
		if _, err := c.Publish(t.Context(), req); err == nil && fault != memkv.UnknownApplied { // which is found to be done
			t.Fatalf("fault %v: no error", fault)
		}
		store.SetFaults(nil)
		var first *momentsv1.Post
		for range 2 {
			res, err := c.Publish(t.Context(), req)
			if err != nil {
				t.Fatalf("fault %v: repeated: %v", fault, err)
			}
			if first == nil {
				first = res.GetPost()
			}
			if res.GetPost().GetId() != first.GetId() || len(res.GetPost().GetMedia()) != 2 {
				t.Errorf("fault %v: %v, want %v", fault, res.GetPost(), first)
			}
		}
		got, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: john.String(), Ids: []string{first.GetId()}})
		if err != nil || len(got.GetPosts()) != 1 {
			t.Fatalf("fault %v: %v, %v", fault, got, err)
		}
		m := got.GetPosts()[0].GetMedia()
		if len(m) != 2 || m[0].GetMediaId() != mediaID(2) || m[1].GetMediaId() != mediaID(1) || m[0].GetWidth() != 800 || m[0].GetContentType() != "image/jpeg" {
			t.Errorf("fault %v: media %v", fault, m)
		}
		if o.attached[mediaID(1)] != first.GetId() {
			t.Errorf("fault %v: attached to %v, want %s", fault, o.attached, first.GetId())
		}
		album, err := c.ListAlbum(t.Context(), &momentsv1.ListAlbumRequest{AuthorId: mary.String()})
		if err != nil || len(album.GetPostIds()) != 1 {
			t.Errorf("fault %v: album %v, %v", fault, album, err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMediaAreNotSwitchedOn(t *testing.T) {
	c, _ := start(t, memkv.New())
	req := request(mary, "k", "with a photo")
	req.MediaIds = []string{mediaID(1)}
	_, err := c.Publish(t.Context(), req)
	if code, kind, field := problemOf(t, err); code != rpc.FailedPrecondition || kind != "no-media" || field != "media_ids" {
		t.Errorf("%v %s %s", code, kind, field)
	}
}

// TestErrands: reminders and the release of media are run after the write, again after a
// failure, and by the next start after a crash; none of one who may not see the post.
func TestErrands(t *testing.T) {
	store, o, account := memkv.New(), &others{attached: map[string]string{}}, friends()
	account.Befriend(mary, rose)
	c, _ := open(t, store, account, o)
	req := request(mary, "k", "look")
	req.RemindIds = []string{rose.String(), john.String()}
	req.MediaIds = []string{mediaID(1)}
	res, err := c.Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.GetPost().GetRemindIds(); !slices.Equal(got, req.GetRemindIds()) {
		t.Errorf("reminded %v", got)
	}
	account.Deny(mary, rose, true) // after the post, before the notice
	store.Crash()
	store, err = store.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	o.failures = 2
	c, s := open(t, store, account, o)
	work(t, s, o, func() bool { return len(o.told) > 0 })
	if len(o.told) == 0 {
		t.FailNow()
	}
	event := o.told[0]
	if !slices.Equal(event.GetReaderIds(), []string{john.String()}) || event.GetPostId() != res.GetPost().GetId() ||
		event.GetActorId() != mary.String() || event.GetKind() != momentsv1.NoticeKind_NOTICE_KIND_REMIND {
		t.Errorf("told %v", event)
	}
	seen, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: john.String(), Ids: []string{res.GetPost().GetId()}})
	if err != nil || !slices.Equal(seen.GetPosts()[0].GetRemindIds(), []string{john.String()}) {
		t.Errorf("John sees %v, %v; want himself reminded alone", seen, err)
	}

	if _, err := c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: mary.String(), PostId: res.GetPost().GetId()}); err != nil {
		t.Fatal(err)
	}
	c, s = open(t, store, account, o)
	work(t, s, o, func() bool { return len(o.released) > 0 })
	if !slices.Equal(o.released, []string{res.GetPost().GetId()}) {
		t.Errorf("released %v", o.released)
	}
	_ = c
}

// TestTagsAreResolvedOnce: the same request, repeated after the tag has changed, is the
// same post.
func TestTagsAreResolvedOnce(t *testing.T) {
	account := friends()
	account.Befriend(mary, rose)
	tag := id.Tag{1}
	account.Tag(mary, tag, john)
	c, _ := open(t, memkv.New(), account, &others{})
	req := request(mary, "k", "for a tag")
	req.Audience, req.AllowTagIds = momentsv1.Audience_AUDIENCE_ALLOW, []string{tag.String()}
	first, err := c.Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	account.Tag(mary, tag, rose)
	again, err := c.Publish(t.Context(), req)
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("repeated: %v, %v, want %v", again, err, first)
	}
	p := first.GetPost().GetId()
	want(t, "John", seen(t, c, john, p), []string{p})
	want(t, "Rose", seen(t, c, rose, p), []string{})
}

// TestWindow moves the clock past the edge of a window.
func TestWindow(t *testing.T) {
	now := time.UnixMilli(time.Now().UnixMilli())
	c, _, account := startAt(t, memkv.New(), func() time.Time { return now })
	p := publish(t, c, mary, "k", "old one day")
	account.Settings(mary, momentsv1.AlbumWindow_ALBUM_WINDOW_THREE_DAYS, false)
	album := func(viewer id.User) []string {
		t.Helper()
		res, err := c.Album(t.Context(), &momentsv1.AlbumRequest{ViewerId: viewer.String(), AuthorId: mary.String()})
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, post := range res.GetPosts() {
			ids = append(ids, post.GetId())
		}
		return ids
	}
	merged := func() []string {
		t.Helper()
		res, err := c.MergeAlbums(t.Context(), &momentsv1.MergeAlbumsRequest{ViewerId: john.String(), AuthorIds: []string{mary.String()}, Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, post := range res.GetPosts() {
			ids = append(ids, post.GetId())
		}
		return ids
	}
	at := time.UnixMilli(p.GetTimeMs())
	for _, step := range []struct {
		name string
		now  time.Time
		want []string
	}{
		{"at the edge", at.Add(72 * time.Hour), []string{p.GetId()}},
		{"past the edge", at.Add(72*time.Hour + time.Millisecond), []string{}},
	} {
		now = step.now
		want(t, step.name+", by its link", seen(t, c, john, p.GetId()), step.want)
		want(t, step.name+", in the album", album(john), step.want)
		want(t, step.name+", in the timeline", merged(), step.want)
		want(t, step.name+", for its author", album(mary), []string{p.GetId()})
	}
	account.Settings(mary, momentsv1.AlbumWindow_ALBUM_WINDOW_ALL, false)
	want(t, "without a window", album(john), []string{p.GetId()})
}

// TestSameWorkForHiddenAndMissing: a post that may not be seen and one that never was
// cost the same calls, whatever is known already.
func TestSameWorkForHiddenAndMissing(t *testing.T) {
	c, account := start(t, memkv.New())
	p := publish(t, c, mary, "k", "a post").GetId()
	never := id.Post{1, 2, 3, 15: 9}.String()
	for name, hide := range map[string]func(){
		"a stranger": func() { account.Part(mary, john) },
		"denied":     func() { account.Befriend(mary, john); account.Deny(mary, john, true) },
		"chat-only":  func() { account.Deny(mary, john, false); account.ChatOnly(mary, john, true) },
	} {
		hide()
		for range 3 {
			before := account.Calls.Load()
			want(t, name, seen(t, c, john, p), []string{})
			hidden := account.Calls.Load() - before
			want(t, "never", seen(t, c, john, never), []string{})
			if missing := account.Calls.Load() - before - hidden; missing != hidden {
				t.Errorf("%s: %d calls for what is hidden, %d for what never was", name, hidden, missing)
			}
		}
		account.ChatOnly(mary, john, false)
	}
}
