// SPDX-License-Identifier: Apache-2.0

package post_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// citizen is somebody who is at home in a region.
func citizen(region id.Region, n int) id.User {
	return id.User{6: byte(region >> 8), 7: byte(region), 15: byte(n)}
}

var wang, kate = citizen(1, 1), citizen(2, 2)

// fanned remembers what was fanned out, and who was told.
type fanned struct {
	mu    sync.Mutex
	posts []string // guarded by mu
	told  []string // guarded by mu
}

func (f *fanned) FanOut(_ context.Context, req *momentsv1.FanOutRequest) (*momentsv1.FanOutResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range req.GetPosts() {
		f.posts = append(f.posts, p.GetPostId())
	}
	return &momentsv1.FanOutResponse{}, nil
}

func (f *fanned) Record(_ context.Context, req *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range req.GetEvents() {
		f.told = append(f.told, e.GetReaderIds()...)
	}
	return &momentsv1.RecordResponse{}, nil
}

// has gives what has come. An errand may be run twice, which the notice service makes one of:
// who was told is told here once.
func (f *fanned) has() (posts, told []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.posts), slices.Compact(slices.Clone(f.told))
}

// place is one region.
type place struct {
	number  id.Region
	store   *memkv.Store
	account *relationstest.Account
	service *post.Service
	c       momentsv1.PostServiceClient
	fanned  *fanned
}

// places makes regions 1 and 2, in which Wang of 1 and Kate of 2 are friends, and lines
// from 1 to 2 and back.
func places(t *testing.T, now func() time.Time) (a, b *place, there, back *queuetest.Line) {
	t.Helper()
	a, b = settle(t, 1, 2, now), settle(t, 2, 1, nil)
	return a, b, &queuetest.Line{From: a.end(), To: b.end()}, &queuetest.Line{From: b.end(), To: a.end()}
}

func settle(t *testing.T, number, peer id.Region, now func() time.Time, change ...func(*post.Config)) *place {
	t.Helper()
	p := &place{number: number, store: memkv.New(), account: new(relationstest.Account), fanned: new(fanned)}
	p.account.Befriend(wang, kate)
	p.account.Befriend(wang, citizen(1, 7))
	cfg := post.Config{
		Store: p.store, Region: number, Peers: []id.Region{peer}, Account: p.account, Timeline: p.fanned, Notify: p.fanned, Now: now,
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := post.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.service = s
	p.c = momentsv1.NewPostServiceClient(rpctest.Local(t, func(r rpc.Registrar) { momentsv1.RegisterPostServiceServer(r, s) }))
	return p
}

func (p *place) end() queuetest.End {
	return queuetest.End{Region: p.number, Store: p.store, Box: p.service.Outbox(), Side: p.service.Side()}
}

// run does a service's background work until the test ends.
func (p *place) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.service.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// until waits for something that background work does.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
		tick := time.NewTimer(5 * time.Millisecond)
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// TestRegionsGetPosts: a post is seen elsewhere as it is at home, through all its changes.
func TestRegionsGetPosts(t *testing.T) {
	a, b, there, _ := places(t, nil)
	b.run(t)
	p := publish(t, a.c, wang, "k", "hello").GetId()
	want(t, "before it came", seen(t, b.c, kate, p), []string{})
	there.Carry(t)
	want(t, "a friend elsewhere", seen(t, b.c, kate, p), []string{p})
	want(t, "a stranger elsewhere", seen(t, b.c, citizen(2, 3), p), []string{})
	until(t, "the fan-out", func() bool { posts, _ := b.fanned.has(); return slices.Contains(posts, p) })

	for _, to := range []momentsv1.Audience{momentsv1.Audience_AUDIENCE_ONLY_ME, momentsv1.Audience_AUDIENCE_FRIENDS} {
		if _, err := a.c.SetAudience(t.Context(), &momentsv1.SetAudienceRequest{AuthorId: wang.String(), PostId: p, Audience: to}); err != nil {
			t.Fatal(err)
		}
		there.Carry(t)
		if got := len(seen(t, b.c, kate, p)); got != 1 == (to == momentsv1.Audience_AUDIENCE_FRIENDS) {
			t.Errorf("as %v, a friend elsewhere sees %d posts", to, got)
		}
	}
	if _, err := a.c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: wang.String(), PostId: p}); err != nil {
		t.Fatal(err)
	}
	there.Carry(t)
	want(t, "deleted", seen(t, b.c, wang, p), []string{})
	if len(there.Refused) != 0 {
		t.Errorf("refused: %v", there.Refused)
	}
}

// TestRegionsEndEqual: whatever comes again, late, or as a whole, the rows are those of
// the home region, and what is deleted stays deleted.
func TestRegionsEndEqual(t *testing.T) {
	a, b, there, back := places(t, nil)
	there.Twice = true
	var posts []string
	for i := range 20 {
		posts = append(posts, publish(t, a.c, wang, string(rune('a'+i)), strings.Repeat("x", i+1)).GetId())
		if i%3 == 0 {
			there.Carry(t)
		}
		if i%4 == 0 {
			if _, err := a.c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: wang.String(), PostId: posts[i/2]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	equal := func(when string) {
		t.Helper()
		if x, y := queuetest.Rows(t, a.store, "ab"), queuetest.Rows(t, b.store, "ab"); !maps.Equal(x, y) {
			t.Errorf("%s: the regions have %d and %d rows, and not the same", when, len(x), len(y))
		}
	}
	there.Carry(t)
	equal("after all has come twice")
	there.Replay(t)
	equal("after all has come again from the start")
	there.Snapshot(t)
	equal("after a snapshot")
	if n := back.Carry(t); n != 0 {
		t.Errorf("%d records go back", n)
	}
	c := settle(t, 2, 1, nil)
	fresh := &queuetest.Line{From: a.end(), To: c.end()}
	fresh.Snapshot(t)
	if x, y := queuetest.Rows(t, a.store, "ab"), queuetest.Rows(t, c.store, "ab"); !maps.Equal(x, y) {
		t.Errorf("a new region has %d rows of %d", len(y), len(x))
	}
}

// TestForeignPostsAreRefused: what is not the other region's own does not get in, and the
// rest goes on.
func TestForeignPostsAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(rec *momentsv1.PostRecord)
		says   string
	}{
		{"another region's post", func(r *momentsv1.PostRecord) { r.PostId[7] = 9 }, "is not region 1's"},
		{"another region's author", func(r *momentsv1.PostRecord) { r.AuthorId = kate[:] }, "is not region 1's"},
		{"another author's slot", func(r *momentsv1.PostRecord) { r.AuthorId[15]++ }, "does not belong into slot"},
		{"a year ahead", func(r *momentsv1.PostRecord) { r.PostId[0], r.PostId[1] = 0x03, 0 }, "ahead"},
		{"half a person", func(r *momentsv1.PostRecord) { r.DenyIds = []byte{1} }, "half an id"},
		{"no ids", func(r *momentsv1.PostRecord) { r.PostId = nil }, "no ids"},
		{"an id given twice", func(r *momentsv1.PostRecord) { r.Text = "other words" }, "given twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b, there, _ := places(t, nil)
			p := publish(t, a.c, wang, "k", "hello").GetId()
			there.Carry(t)
			rec := new(momentsv1.PostRecord)
			if err := proto.Unmarshal(there.Bodies()[0], rec); err != nil {
				t.Fatal(err)
			}
			test.change(rec)
			body, err := proto.Marshal(rec)
			if err != nil {
				t.Fatal(err)
			}
			there.Deliver(t, kv.SlotOf(wang[:]), body)
			if len(there.Refused) != 1 || !strings.Contains(there.Refused[0].Error(), test.says) {
				t.Errorf("refused %v, want one that says %q", there.Refused, test.says)
			}
			if x, y := queuetest.Rows(t, a.store, "ab"), queuetest.Rows(t, b.store, "ab"); !maps.Equal(x, y) {
				t.Error("it got in")
			}
			next := publish(t, a.c, wang, "k2", "more").GetId()
			there.Carry(t)
			want(t, "afterwards", seen(t, b.c, kate, p, next), []string{p, next})
		})
	}
}

// TestPostAYearAhead: a post that a bad clock has made stays outside until an operator lets
// it pass; then it changes, and goes, as any other.
func TestPostAYearAhead(t *testing.T) {
	a, b, there, _ := places(t, func() time.Time { return time.Now().AddDate(1, 0, 0) })
	p := publish(t, a.c, wang, "k", "hello").GetId()
	refused := func(n int) {
		t.Helper()
		if there.Carry(t); len(there.Refused) != n || n > 0 && !strings.Contains(there.Refused[n-1].Error(), "ahead") {
			t.Errorf("refused %v, want %d for being ahead", there.Refused, n)
		}
	}
	refused(1)
	want(t, "before", seen(t, b.c, kate, p), nil)
	there.Released = true
	there.Replay(t)
	there.Released = false
	want(t, "let pass", seen(t, b.c, kate, p), []string{p})
	if _, err := a.c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: wang.String(), PostId: p, IdempotencyKey: "d"}); err != nil {
		t.Fatal(err)
	}
	refused(1)
	want(t, "deleted", seen(t, b.c, kate, p), nil)
	publish(t, a.c, wang, "k2", "hello again")
	refused(2)
}

// TestAheadIsConfigured: how far is for operators to say.
func TestAheadIsConfigured(t *testing.T) {
	a, _, there, _ := places(t, func() time.Time { return time.Now().Add(2 * time.Hour) })
	b := settle(t, 2, 1, nil, func(c *post.Config) { c.Ahead = time.Hour })
	there.To = b.end()
	publish(t, a.c, wang, "k", "hello")
	if there.Carry(t); len(there.Refused) != 1 || !strings.Contains(there.Refused[0].Error(), "more than 1h0m0s ahead") {
		t.Errorf("refused %v, want one that is two hours ahead", there.Refused)
	}
}

// TestRefusedInASnapshot: of a part with a post that is refused, all others are taken.
func TestRefusedInASnapshot(t *testing.T) {
	a, b, _, _ := places(t, nil)
	first, second := publish(t, a.c, wang, "k1", "hello").GetId(), publish(t, a.c, wang, "k2", "more").GetId()
	slot := kv.SlotOf(wang[:])
	rows, _, err := a.service.Side().Rows(t.Context(), 2, slot, nil)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, want 2: %v", len(rows), err)
	}
	rec := new(momentsv1.PostRecord)
	if err := proto.Unmarshal(rows[0].Value, rec); err != nil {
		t.Fatal(err)
	}
	spoiled := id.Post(rec.GetPostId()).String()
	rec.DenyIds = []byte{1}
	if rows[0].Value, err = proto.Marshal(rec); err != nil {
		t.Fatal(err)
	}
	merge := func() (more bool, err error) {
		out, err := b.service.Outbox().Open(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		part := &idcqueue.Part{From: 1, Slot: slot, Rows: rows, Batch: new(kv.Batch), Out: out}
		if more, err = b.service.Side().Merge(t.Context(), part); err != nil {
			return more, err
		}
		if err := out.Seal(part.Batch); err != nil {
			t.Fatal(err)
		}
		ver, err := b.store.Apply(t.Context(), slot, part.Batch)
		if err != nil {
			t.Fatal(err)
		}
		out.Applied(ver)
		part.Applied(ver)
		return more, nil
	}
	if more, err := merge(); !more || err != nil {
		t.Fatalf("%v, %v, want that more is to be done", more, err)
	}
	if _, err := merge(); !errors.Is(err, idcqueue.ErrRefused) {
		t.Errorf("%v, want that the rest is refused", err)
	}
	good := slices.DeleteFunc([]string{first, second}, func(p string) bool { return p == spoiled })
	want(t, "of the part", seen(t, b.c, kate, first, second), good)
}

// TestPostWaitsForItsAuthorsSettings: a region that has not heard yet what the author had
// settled does not show the post, to nobody, until it has.
func TestPostWaitsForItsAuthorsSettings(t *testing.T) {
	a, b, there, _ := places(t, nil)
	b.run(t)
	a.account.Part(wang, citizen(1, 7)) // one version more than region 2 knows of
	p := publish(t, a.c, wang, "k", "hello").GetId()
	gone := publish(t, a.c, wang, "k2", "gone").GetId()
	there.Carry(t)
	there.Replay(t)
	want(t, "too early", seen(t, b.c, kate, p, gone), []string{})
	if posts, _ := b.fanned.has(); len(posts) != 0 {
		t.Errorf("fanned out: %v", posts)
	}
	if _, err := a.c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: wang.String(), PostId: gone}); err != nil {
		t.Fatal(err)
	}
	there.Carry(t)
	b.account.Part(wang, citizen(1, 7))
	until(t, "the post", func() bool { return len(seen(t, b.c, kate, p)) == 1 })
	until(t, "the fan-out", func() bool { posts, _ := b.fanned.has(); return slices.Equal(posts, []string{p}) })
	want(t, "deleted while it waited", seen(t, b.c, kate, gone), []string{})
	until(t, "the veil's end", func() bool { return len(queuetest.Rows(t, b.store, "vj")) == 0 })
	if x, y := queuetest.Rows(t, a.store, "ab"), queuetest.Rows(t, b.store, "ab"); !maps.Equal(x, y) {
		t.Error("the regions have not the same rows")
	}
}

// TestRemindedAtHome: who is reminded of a post is told in his own region.
func TestRemindedAtHome(t *testing.T) {
	a, b, there, _ := places(t, nil)
	a.run(t)
	b.run(t)
	req := request(wang, "k", "hello")
	req.RemindIds = []string{kate.String(), citizen(1, 7).String()}
	if _, err := a.c.Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	there.Carry(t)
	until(t, "the notice here", func() bool { _, told := a.fanned.has(); return slices.Equal(told, req.RemindIds[1:]) })
	until(t, "the notice there", func() bool { _, told := b.fanned.has(); return slices.Equal(told, req.RemindIds[:1]) })
}
