// SPDX-License-Identifier: Apache-2.0

package notify_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/notify"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

var mary, john, rose = id.User{15: 2}, id.User{15: 3}, id.User{15: 4}

// owners are the services that own what notices refer to: everything is to be seen but
// what is gone.
type owners struct {
	mu   sync.Mutex
	gone map[string]bool // guarded by mu; comments, likers and posts
}

func (o *owners) lose(what string, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone[what] = gone
}

func (o *owners) Show(_ context.Context, req *momentsv1.ShowRequest) (*momentsv1.ShowResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	res := new(momentsv1.ShowResponse)
	for _, a := range req.GetActs() {
		shown := !o.gone[a.GetPostId()] && !o.gone[a.GetCommentId()] && !o.gone[a.GetUserId()]
		s := &momentsv1.ShownAct{Shown: shown}
		if shown && a.GetCommentId() != "" {
			s.Text = "text of " + a.GetCommentId()
		}
		res.Acts = append(res.Acts, s)
	}
	return res, nil
}

func (o *owners) GetMany(_ context.Context, req *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	res := new(momentsv1.GetPostsResponse)
	for _, p := range req.GetIds() {
		if !o.gone[p] {
			res.Posts = append(res.Posts, &momentsv1.Post{Id: p})
		}
	}
	return res, nil
}

func (o *owners) ShowFriendActs(_ context.Context, req *momentsv1.ShowFriendActsRequest) (*momentsv1.ShowFriendActsResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	res := new(momentsv1.ShowFriendActsResponse)
	for _, a := range req.GetActs() {
		res.Shown = append(res.Shown, !o.gone[a.GetActorId()] && !o.gone[fmt.Sprint(a.GetRound(), a.GetAccepted())])
	}
	return res, nil
}

type world struct {
	t      *testing.T
	store  *memkv.Store
	owners *owners
	keep   int
	c      momentsv1.NotifyServiceClient
}

func build(t *testing.T, keep int) *world {
	w := &world{t: t, store: memkv.New(), owners: &owners{gone: map[string]bool{}}, keep: keep}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	s, err := notify.New(notify.Config{Store: w.store, Account: w.owners, Comment: w.owners, Post: w.owners, Keep: w.keep})
	if err != nil {
		w.t.Fatal(err)
	}
	w.c = momentsv1.NewNotifyServiceClient(rpctest.Local(w.t, func(r rpc.Registrar) { momentsv1.RegisterNotifyServiceServer(r, s) }))
}

func (w *world) crash() {
	w.t.Helper()
	w.store.Crash()
	var err error
	if w.store, err = w.store.Reopen(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

var post = id.Post{1}

// comment is the event of comment n.
func comment(n int, actor id.User, readers ...id.User) *momentsv1.NoticeEvent {
	c := id.Comment{14: byte(n >> 8), 15: byte(n)}.String()
	e := &momentsv1.NoticeEvent{
		OperationId: c, Kind: momentsv1.NoticeKind_NOTICE_KIND_COMMENT, ActorId: actor.String(),
		PostId: post.String(), CommentId: c, HappenedMs: int64(n),
	}
	for _, r := range readers {
		e.ReaderIds = append(e.ReaderIds, r.String())
	}
	return e
}

func (w *world) record(events ...*momentsv1.NoticeEvent) error {
	_, err := w.c.Record(w.t.Context(), &momentsv1.RecordRequest{Events: events})
	return err
}

func (w *world) must(events ...*momentsv1.NoticeEvent) {
	w.t.Helper()
	if err := w.record(events...); err != nil {
		w.t.Fatal(err)
	}
}

// all gives a reader's notices by pages of two.
func (w *world) all(u id.User) (all []*momentsv1.Notice) {
	w.t.Helper()
	cursor := ""
	for {
		res, err := w.c.ListNotices(w.t.Context(), &momentsv1.ListNoticesRequest{UserId: u.String(), Cursor: cursor, Limit: 2})
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, res.GetNotices()...)
		if cursor = res.GetNextCursor(); cursor == "" {
			return all
		}
		if len(res.GetNotices()) != 2 {
			w.t.Fatalf("a page of %d before the last", len(res.GetNotices()))
		}
	}
}

// has checks what happened when, newest first, and that as many are unread.
func (w *world) has(u id.User, unread int, want ...int64) {
	w.t.Helper()
	var got []int64
	n := 0
	for _, e := range w.all(u) {
		got = append(got, e.GetHappenedMs())
		if !e.GetRead() {
			n++
		}
	}
	res, err := w.c.CountUnread(w.t.Context(), &momentsv1.CountUnreadRequest{UserId: u.String()})
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(got, want) || n != unread || int(res.GetUnread()) != unread || (res.GetNewestNoticeId() == "") != (unread == 0) {
		w.t.Errorf("%v has %v with %d unread, counted %v; want %v with %d", u, got, n, res, want, unread)
	}
}

func TestNotices(t *testing.T) {
	w := build(t, 0)
	w.has(mary, 0)
	w.must(comment(1, john, mary, john, rose), comment(2, rose, mary))
	w.has(mary, 2, 2, 1)
	w.has(rose, 1, 1)
	w.has(john, 0) // nobody is told of his own acts
	// Told again, in another order or with others: nothing is doubled.
	w.must(comment(2, rose, mary), comment(1, john, rose, mary), comment(1, john, mary))
	w.crash()
	w.must(comment(1, john, mary), comment(3, john, mary))
	w.has(mary, 3, 3, 2, 1)
	if got := w.all(mary)[0]; got.GetText() != "text of "+got.GetCommentId() || got.GetActorId() != john.String() || got.GetPostId() != post.String() {
		t.Errorf("a notice says %v", got)
	}
}

func TestReadingIsUpToANotice(t *testing.T) {
	w := build(t, 0)
	for n := range 5 {
		w.must(comment(n+1, john, mary))
	}
	mark := func(at *momentsv1.Notice, want uint32) {
		t.Helper()
		res, err := w.c.MarkRead(t.Context(), &momentsv1.MarkReadRequest{UserId: mary.String(), UpToNoticeId: at.GetNoticeId()})
		if err != nil || res.GetUnread() != want {
			t.Errorf("%v, %v; want %d unread", res, err, want)
		}
	}
	all := w.all(mary)
	mark(all[3], 3)
	w.has(mary, 3, 5, 4, 3, 2, 1)
	mark(all[4], 3) // an older one takes nothing back
	mark(all[0], 0)
	w.must(comment(6, john, mary))
	w.crash()
	w.has(mary, 1, 6, 5, 4, 3, 2, 1)
	mark(&momentsv1.Notice{NoticeId: id.Notice{8: 1}.String()}, 0) // one that is not there yet
	w.must(comment(7, john, mary))
	w.has(mary, 1, 7, 6, 5, 4, 3, 2, 1)
	if _, err := w.c.MarkRead(t.Context(), &momentsv1.MarkReadRequest{UserId: mary.String(), UpToNoticeId: id.Notice{1}.String()}); rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Errorf("a foreign id: %v", err)
	}
}

// TestWhatIsGoneIsNotCounted: a notice is shown and counted while its reader may see
// what it tells of, and has no text of its own.
func TestWhatIsGoneIsNotCounted(t *testing.T) {
	w := build(t, 0)
	like := comment(2, rose, mary)
	like.Kind, like.CommentId = momentsv1.NoticeKind_NOTICE_KIND_LIKE, ""
	remind := comment(3, john, mary)
	remind.Kind, remind.CommentId, remind.PostId = momentsv1.NoticeKind_NOTICE_KIND_REMIND, "", id.Post{2}.String()
	request := comment(4, rose, mary)
	request.Kind, request.CommentId, request.PostId, request.FriendRound = momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST, "", "", 7
	accepted := comment(5, rose, mary)
	accepted.Kind, accepted.CommentId, accepted.PostId, accepted.FriendRound = momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED, "", "", 8
	w.must(comment(1, john, mary), like, remind, request, accepted)
	w.has(mary, 5, 5, 4, 3, 2, 1)
	w.owners.lose("7 false", true) // she takes her request back
	w.has(mary, 4, 5, 3, 2, 1)
	w.owners.lose("8 true", true) // and ends the friendship
	w.has(mary, 3, 3, 2, 1)
	w.owners.lose(comment(1, john).GetCommentId(), true)
	w.has(mary, 2, 3, 2)
	w.owners.lose(rose.String(), true) // her like is taken back
	w.has(mary, 1, 3)
	w.owners.lose(id.Post{2}.String(), true)
	w.has(mary, 0)
	w.owners.lose(rose.String(), false) // and given again: nothing new, but there again
	w.owners.lose("8 true", false)
	w.has(mary, 2, 5, 2)
	for slot := range kv.Slot(kv.Slots) {
		items, _, err := w.store.Scan(t.Context(), slot, kv.Range{}, kv.Local)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			if slices.Contains([]byte("text"), it.Key[0]) {
				t.Errorf("a row of text: %x", it.Key)
			}
		}
	}
}

// TestForget: of a reader whose account is deleted nothing stays, and nothing of others
// goes.
func TestForget(t *testing.T) {
	w := build(t, 0)
	w.must(comment(1, john, mary, rose), comment(2, john, mary))
	forget := func(dry bool, want uint32) {
		t.Helper()
		res, err := w.c.Forget(t.Context(), &momentsv1.ForgetRequest{UserId: mary.String(), DryRun: dry})
		if err != nil || res.GetFound() != want {
			t.Errorf("dry %v: found %d, %v, want %d", dry, res.GetFound(), err, want)
		}
	}
	forget(true, 3) // two notices and where she stands
	forget(false, 3)
	forget(true, 0)
	forget(false, 0)
	w.has(mary, 0)
	w.has(rose, 1, 1)
	if _, err := w.c.Forget(t.Context(), &momentsv1.ForgetRequest{UserId: "x"}); rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Errorf("nobody: %v", err)
	}
}

func TestKeepsTheNewest(t *testing.T) {
	w := build(t, 5)
	var want []int64
	for n := range 100 {
		w.must(comment(n+1, john, mary))
	}
	for n := 100; n > 95; n-- {
		want = append(want, int64(n))
	}
	w.has(mary, 5, want...)
	var rest []*momentsv1.NoticeEvent
	for n := 100; n < 280; n++ { // many in one batch, more than are kept
		rest = append(rest, comment(n+1, john, mary))
	}
	w.must(rest...)
	w.must(comment(1, john, mary)) // one that is long gone
	w.has(mary, 5, 280, 279, 278, 277, 276)
	items, _, err := w.store.Scan(t.Context(), kv.SlotOf(mary[:]), kv.Prefix([]byte{'n'}, 0), kv.Local)
	if err != nil || len(items) > 5+32 {
		t.Errorf("%d rows are kept, %v", len(items), err)
	}
}

// TestStorm: events come from many sides at once, each more than once, while the store
// loses outcomes and readers read: each is there once, and the count is exact.
func TestStorm(t *testing.T) {
	w := build(t, 0)
	var writes atomic.Int32
	w.store.SetFaults(func(c memkv.Call) memkv.Fault {
		if c.Method == memkv.Apply {
			switch writes.Add(1) % 11 {
			case 3:
				return memkv.UnknownApplied
			case 7:
				return memkv.UnknownLost
			}
		}
		return memkv.None
	})
	const sides, each = 8, 20
	var wg sync.WaitGroup
	for side := range sides {
		for range 2 {
			wg.Go(func() {
				for n := range each {
					if err := w.record(comment(side*each+n, john, mary, rose)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for _, n := range w.all(rose) {
				if _, err := w.c.MarkRead(t.Context(), &momentsv1.MarkReadRequest{UserId: rose.String(), UpToNoticeId: n.GetNoticeId()}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.store.SetFaults(nil)
	w.crash()
	seen := map[string]bool{}
	for _, n := range w.all(mary) {
		seen[n.GetCommentId()] = true
	}
	if all := w.all(mary); len(all) != sides*each || len(seen) != len(all) {
		t.Errorf("%d notices of %d comments, want %d", len(all), len(seen), sides*each)
	}
	res, err := w.c.CountUnread(t.Context(), &momentsv1.CountUnreadRequest{UserId: mary.String()})
	if err != nil || res.GetUnread() != sides*each {
		t.Errorf("%v, %v; want %d unread", res, err, sides*each)
	}
}

func TestWatch(t *testing.T) {
	w := build(t, 0)
	stamps := func() []uint64 {
		t.Helper()
		res, err := w.c.Watch(t.Context(), &momentsv1.WatchNoticesRequest{UserIds: []string{mary.String(), rose.String()}})
		if err != nil || len(res.GetStamps()) != 2 {
			t.Fatal(res, err)
		}
		return res.GetStamps()
	}
	before := stamps()
	w.must(comment(1, john, mary))
	after := stamps()
	if before[0] == after[0] || before[1] != after[1] {
		t.Errorf("before %v, after a notice of Mary's %v", before, after)
	}
	w.must(comment(1, john, mary))
	if again := stamps(); !slices.Equal(again, after) {
		t.Errorf("a repetition changes %v to %v", after, again)
	}
	if _, err := w.c.MarkRead(t.Context(), &momentsv1.MarkReadRequest{UserId: mary.String(), UpToNoticeId: w.all(mary)[0].GetNoticeId()}); err != nil {
		t.Fatal(err)
	}
	if stamps()[0] == after[0] {
		t.Error("reading does not change the stamp: other devices do not hear of it")
	}
}

func TestBadRequests(t *testing.T) {
	w := build(t, 0)
	good := comment(1, john, mary)
	for name, change := range map[string]func(*momentsv1.NoticeEvent){
		"operation": func(e *momentsv1.NoticeEvent) { e.OperationId = "" },
		"kind":      func(e *momentsv1.NoticeEvent) { e.Kind = 77 },
		"actor":     func(e *momentsv1.NoticeEvent) { e.ActorId = "x" },
		"post":      func(e *momentsv1.NoticeEvent) { e.PostId = "" },
		"comment":   func(e *momentsv1.NoticeEvent) { e.CommentId = "-" },
		"reader":    func(e *momentsv1.NoticeEvent) { e.ReaderIds = []string{"x"} },
		"round": func(e *momentsv1.NoticeEvent) {
			e.Kind = momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST
		},
	} {
		e := comment(1, john, mary)
		change(e)
		if err := w.record(good, e); rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("a bad %s: %v", name, err)
		}
	}
	many := make([]*momentsv1.NoticeEvent, 201)
	for i := range many {
		many[i] = comment(i, john, mary)
	}
	if err := w.record(many...); rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Errorf("%d events: %v", len(many), err)
	}
	w.has(mary, 0)
	for _, cursor := range []string{"x", fmt.Sprint(good.GetCommentId())} {
		_, err := w.c.ListNotices(t.Context(), &momentsv1.ListNoticesRequest{UserId: mary.String(), Cursor: cursor})
		if rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}
