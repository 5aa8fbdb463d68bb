// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// TestCrashes loses power again and again while people post: every acknowledged post
// is in its author's album, no id is given twice, and after fan-out every timeline is
// exactly the albums of its reader's friends and his own.
func TestCrashes(t *testing.T) {
	account := new(relationstest.Account)
	people := []id.User{user(1), user(2), user(3), user(4), user(5)}
	for i, x := range people {
		for _, y := range people[i+1:] {
			if (x[15]+y[15])%3 != 0 {
				account.Befriend(x, y)
			}
		}
	}
	posts, timelines, comments := memkv.New(), memkv.New(), memkv.New()
	acked := map[string]id.User{}
	for round := range 12 {
		h := rebuild(t, houseConfig{cap: 1 << 20}, account, posts, timelines, comments)
		stop := h.run()
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, author := range people {
			wg.Go(func() {
				for n := 0; ; n++ {
					res, err := h.Post.Publish(t.Context(), &momentsv1.PublishRequest{
						AuthorId: author.String(), IdempotencyKey: fmt.Sprint(round, "/", n), Text: "x", Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
					})
					if err != nil {
						return // the power is gone
					}
					p := res.GetPost().GetId()
					mu.Lock()
					if _, twice := acked[p]; twice {
						t.Errorf("id %v given twice", p)
					}
					acked[p] = author
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		if rand.IntN(2) == 0 { // with writes on their way to the disk
			posts.Hold()
			time.Sleep(time.Millisecond)
		}
		crash(t, &posts)
		if rand.IntN(2) == 0 {
			timelines.Hold()
			crash(t, &timelines)
		}
		wg.Wait()
		stop()
		_ = timelines.Close()
		timelines = reopen(t, timelines)
	}

	h := rebuild(t, houseConfig{cap: 1 << 20}, account, posts, timelines, comments)
	h.drain()
	albums := map[id.User][]string{}
	for _, author := range people {
		albums[author] = h.album(author)
		for p, a := range acked {
			if a == author && !slices.Contains(albums[author], p) {
				t.Errorf("acknowledged post %v is lost", p)
			}
		}
	}
	for _, reader := range people {
		all := map[string]bool{}
		for _, author := range people {
			if author == reader || account.Friends(reader, author) {
				for _, p := range albums[author] {
					all[p] = true
				}
			}
		}
		want(t, "index", h.stored(reader), sorted(all))
	}
	t.Logf("%d posts acknowledged", len(acked))
}

func crash(t *testing.T, s **memkv.Store) {
	t.Helper()
	(*s).Crash()
	*s = reopen(t, *s)
}

func reopen(t *testing.T, s *memkv.Store) *memkv.Store {
	t.Helper()
	next, err := s.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// album gives an album as it is stored.
func (h *house) album(author id.User) (ids []string) {
	h.t.Helper()
	for before := ""; ; {
		res, err := h.Post.ListAlbum(h.t.Context(), &momentsv1.ListAlbumRequest{AuthorId: author.String(), BeforeId: before})
		if err != nil {
			h.t.Fatalf("album: %v", err)
		}
		ids = append(ids, res.GetPostIds()...)
		if !res.GetMore() {
			return ids
		}
		before = ids[len(ids)-1]
	}
}

// stored gives a whole timeline as it is stored.
func (h *house) stored(reader id.User) (ids []string) {
	h.t.Helper()
	for before := ""; ; {
		res, err := h.Timeline.ListIndex(h.t.Context(), &momentsv1.ListIndexRequest{ReaderId: reader.String(), BeforeId: before})
		if err != nil {
			h.t.Fatalf("index: %v", err)
		}
		ids = append(ids, res.GetPostIds()...)
		if !res.GetMore() {
			return ids
		}
		before = ids[len(ids)-1]
	}
}

// TestFanOutGoesOnAfterFailures: what fails is repeated, and the outbox is trimmed.
func TestFanOutGoesOnAfterFailures(t *testing.T) {
	posts, timelines := memkv.New(), memkv.New()
	h := rebuild(t, houseConfig{}, new(relationstest.Account), posts, timelines, memkv.New())
	h.account.Befriend(mary, john)
	h.account.Fail(fmt.Errorf("planted"))
	stop := h.run()
	p1 := h.publish(john, "one")
	for {
		if res, err := h.Post.FanOutStatus(t.Context(), &momentsv1.FanOutStatusRequest{}); err != nil || res.GetFailures() > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	h.account.Fail(nil)
	var all []string
	for i := range 300 {
		all = append(all, h.publish(john, fmt.Sprint(i)))
	}
	h.settle()
	stop()
	slices.Reverse(all)
	want(t, "timeline", h.stored(mary), append(all, p1))
	slot := kv.SlotOf(john[:])
	items, _, err := posts.Scan(t.Context(), slot, kv.Prefix([]byte{'o'}, 0), kv.Linearizable)
	if err != nil || len(items) > 128 {
		t.Errorf("outbox still holds %d records, %v; want it trimmed", len(items), err)
	}
	// A start with nothing to do does nothing.
	h = rebuild(t, houseConfig{}, h.account, posts, timelines, memkv.New())
	h.drain()
	if res, err := h.Post.FanOutStatus(t.Context(), &momentsv1.FanOutStatusRequest{}); err != nil || res.GetPosts() != 0 {
		t.Errorf("after a restart %v, %v; want nothing fanned out again", res, err)
	}
}
