// SPDX-License-Identifier: Apache-2.0

package queuetest_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/queuetest"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/notify"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/timeline"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// region is all services of one region.
type region struct {
	account  momentsv1.AccountServiceClient
	post     momentsv1.PostServiceClient
	timeline momentsv1.TimelineServiceClient
	comment  momentsv1.CommentServiceClient
	notify   momentsv1.NotifyServiceClient

	accounts, posts, comments queuetest.End
}

// open starts all services of a region, and their background work until the test ends.
func open(t *testing.T, number, peer id.Region) *region {
	t.Helper()
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	srv := framework.NewServer(framework.ServerConfig{Service: "region", Admin: "127.0.0.1:0"}, framework.WithoutSignals(), framework.WithLogger(log))
	conn := framework.DialLocal(srv)
	t.Cleanup(func() { _ = conn.Close() })
	r := &region{
		account: momentsv1.NewAccountServiceClient(conn), post: momentsv1.NewPostServiceClient(conn),
		timeline: momentsv1.NewTimelineServiceClient(conn), comment: momentsv1.NewCommentServiceClient(conn),
		notify: momentsv1.NewNotifyServiceClient(conn),
	}
	peers := []id.Region{peer}
	stores := [5]kv.Store{memkv.New(), memkv.New(), memkv.New(), memkv.New(), memkv.New()}
	ac, err := account.New(ctx, account.Config{
		Store: stores[0], Region: number, Peers: peers, Timeline: r.timeline, Posts: r.post, Comments: r.comment, Notify: r.notify,
		PasswordCost: account.CheapestCost, Logger: log,
	})
	check(t, err)
	po, err := post.New(ctx, post.Config{
		Store: stores[1], Region: number, Peers: peers, Account: r.account, Timeline: r.timeline, Notify: r.notify, Log: log,
	})
	check(t, err)
	cm, err := comment.New(ctx, comment.Config{
		Store: stores[2], Region: number, Peers: peers, Account: r.account, Post: r.post, Notify: r.notify, Log: log,
	})
	check(t, err)
	tl, err := timeline.New(timeline.Config{Store: stores[3], Home: number, Account: r.account, Post: r.post, Comment: r.comment})
	check(t, err)
	no, err := notify.New(notify.Config{Store: stores[4], Account: r.account, Comment: r.comment, Post: r.post, Log: log})
	check(t, err)
	momentsv1.RegisterAccountServiceServer(srv, ac)
	momentsv1.RegisterPostServiceServer(srv, po)
	momentsv1.RegisterCommentServiceServer(srv, cm)
	momentsv1.RegisterTimelineServiceServer(srv, tl)
	momentsv1.RegisterNotifyServiceServer(srv, no)
	check(t, srv.Check())
	r.accounts = queuetest.End{Region: number, Store: stores[0], Box: ac.Outbox(), Side: ac.Side()}
	r.posts = queuetest.End{Region: number, Store: stores[1], Box: po.Outbox(), Side: po.Side()}
	r.comments = queuetest.End{Region: number, Store: stores[2], Box: cm.Outbox(), Side: cm.Side()}

	run, stop := context.WithCancel(ctx)
	var g errgroup.Group
	for _, works := range []interface{ Run(context.Context) error }{ac, po, cm} {
		g.Go(func() error { return works.Run(run) })
	}
	t.Cleanup(func() {
		stop()
		check(t, g.Wait())
	})
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// strait is two regions and the lines of their services.
type strait struct {
	t                         *testing.T
	a, b                      *region
	accounts, posts, comments [2]*queuetest.Line
}

func newStrait(t *testing.T) *strait {
	t.Helper()
	s := &strait{t: t, a: open(t, 1, 2), b: open(t, 2, 1)}
	both := func(a, b queuetest.End) [2]*queuetest.Line {
		return [2]*queuetest.Line{{From: a, To: b, Twice: true}, {From: b, To: a, Twice: true}}
	}
	s.accounts, s.posts, s.comments = both(s.a.accounts, s.b.accounts), both(s.a.posts, s.b.posts), both(s.a.comments, s.b.comments)
	return s
}

// carry carries everything once.
func (s *strait) carry() {
	s.t.Helper()
	for _, lines := range [][2]*queuetest.Line{s.accounts, s.posts, s.comments} {
		for _, l := range lines {
			l.Carry(s.t)
			if len(l.Refused) > 0 {
				s.t.Fatalf("refused: %v", l.Refused)
			}
		}
	}
}

// until carries until something holds.
func (s *strait) until(what string, holds func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		s.carry()
		if holds() {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s does not come true", what)
		}
		tick := time.NewTimer(10 * time.Millisecond)
		select {
		case <-tick.C:
		case <-s.t.Context().Done():
		}
	}
}

func (r *region) register(t *testing.T, name string) string {
	t.Helper()
	res, err := r.account.Register(t.Context(), &momentsv1.RegisterRequest{Name: name, Password: "correct horse"})
	check(t, err)
	return res.GetProfile().GetUserId()
}

func (r *region) publish(t *testing.T, author, text string) string {
	t.Helper()
	res, err := r.post.Publish(t.Context(), &momentsv1.PublishRequest{
		AuthorId: author, IdempotencyKey: text, Text: text, Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
	})
	check(t, err)
	return res.GetPost().GetId()
}

// home gives the texts of a reader's timeline, with those of the comments.
func (r *region) home(t *testing.T, reader string) (texts []string) {
	t.Helper()
	res, err := r.timeline.Home(t.Context(), &momentsv1.HomeRequest{ViewerId: reader, Limit: 20})
	check(t, err)
	for _, e := range res.GetItems() {
		texts = append(texts, e.GetPost().GetText())
		for _, c := range e.GetThread().GetComments() {
			texts = append(texts, c.GetText())
		}
	}
	return texts
}

func (r *region) notices(t *testing.T, reader string) (kinds []momentsv1.NoticeKind) {
	t.Helper()
	res, err := r.notify.ListNotices(t.Context(), &momentsv1.ListNoticesRequest{UserId: reader, Limit: 50})
	check(t, err)
	for _, n := range res.GetNotices() {
		kinds = append(kinds, n.GetKind())
	}
	return kinds
}

func (r *region) friends(t *testing.T, u, other string) bool {
	t.Helper()
	res, err := r.account.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: u, AuthorIds: []string{other}})
	check(t, err)
	return res.GetRelations()[0].GetFriends()
}

// TestTwoRegions goes through what two people in two regions do together, with all
// services, and everything that goes between the regions coming twice.
func TestTwoRegions(t *testing.T) {
	s := newStrait(t)
	a, b := s.a, s.b
	mary, kate := a.register(t, "Mary"), b.register(t, "Kate")
	s.until("that the regions know each other's people", func() bool {
		_, err := a.account.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: kate})
		_, err2 := b.account.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: mary})
		return err == nil && err2 == nil
	})
	early := a.publish(t, mary, "before they met")
	_, err := a.account.RequestFriend(t.Context(), &momentsv1.RequestFriendRequest{UserId: mary, OtherId: kate})
	check(t, err)
	s.until("Kate's notice of the request", func() bool {
		return slices.Equal(b.notices(t, kate), []momentsv1.NoticeKind{momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST})
	})
	_, err = b.account.AcceptFriend(t.Context(), &momentsv1.AcceptFriendRequest{UserId: kate, OtherId: mary})
	check(t, err)
	s.until("Mary's notice of the answer", func() bool {
		return slices.Equal(a.notices(t, mary), []momentsv1.NoticeKind{momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED})
	})
	s.until("that a new friend's timeline is filled", func() bool { return slices.Equal(b.home(t, kate), []string{"before they met"}) })

	hello := a.publish(t, mary, "hello")
	if got := a.home(t, mary); !slices.Equal(got, []string{"hello", "before they met"}) {
		t.Errorf("Mary's own timeline at once: %q", got)
	}
	s.until("Kate's timeline", func() bool { return slices.Equal(b.home(t, kate), []string{"hello", "before they met"}) })
	index, err := a.timeline.ListIndex(t.Context(), &momentsv1.ListIndexRequest{ReaderId: kate})
	check(t, err)
	if len(index.GetPostIds()) != 0 {
		t.Errorf("Mary's region keeps %d entries of Kate's timeline", len(index.GetPostIds()))
	}

	_, err = b.comment.Add(t.Context(), &momentsv1.AddCommentRequest{WriterId: kate, PostId: hello, Text: "hi Mary", IdempotencyKey: "k"})
	check(t, err)
	s.until("that Mary sees the comment, and is told", func() bool {
		return slices.Equal(a.home(t, mary), []string{"hello", "hi Mary", "before they met"}) && len(a.notices(t, mary)) == 2
	})
	if got := b.notices(t, mary); len(got) != 0 {
		t.Errorf("Kate's region tells Mary of %v", got)
	}

	hide := true
	_, err = a.account.UpdateFriendSettings(t.Context(), &momentsv1.UpdateFriendSettingsRequest{UserId: mary, OtherId: kate, HideMine: &hide})
	check(t, err)
	secret := a.publish(t, mary, "not for Kate")
	s.posts[0].Carry(t) // the post is quicker than what Mary has settled
	seen, err := b.post.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: kate, Ids: []string{secret, hello}})
	check(t, err)
	if len(seen.GetPosts()) != 1 || seen.GetPosts()[0].GetId() != hello {
		t.Errorf("before Mary's settings have come, Kate sees %v, want what she saw before", seen)
	}
	s.until("that Mary's settings act", func() bool { return len(b.home(t, kate)) == 0 })
	s.until("that the post has its place", func() bool {
		own, err := b.post.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: mary, Ids: []string{secret}})
		check(t, err)
		return len(own.GetPosts()) == 1
	})
	if got := b.home(t, kate); len(got) != 0 {
		t.Errorf("Kate sees %q", got)
	}
	hide = false
	_, err = a.account.UpdateFriendSettings(t.Context(), &momentsv1.UpdateFriendSettingsRequest{UserId: mary, OtherId: kate, HideMine: &hide})
	check(t, err)
	s.until("that it is taken back", func() bool { return len(b.home(t, kate)) == 4 })

	_, err = a.post.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: mary, PostId: early})
	check(t, err)
	s.until("that a deleted post is gone", func() bool { return len(b.home(t, kate)) == 3 })
	_, err = b.account.Unfriend(t.Context(), &momentsv1.UnfriendRequest{UserId: kate, OtherId: mary})
	check(t, err)
	if got := b.home(t, kate); len(got) != 0 {
		t.Errorf("after Kate has ended it she sees %q", got)
	}
	s.until("that both are strangers everywhere", func() bool {
		return !a.friends(t, mary, kate) && !b.friends(t, mary, kate) && !a.friends(t, kate, mary)
	})
	if got := a.home(t, mary); !slices.Equal(got, []string{"not for Kate", "hello"}) {
		t.Errorf("Mary sees %q, want her own posts without Kate's words", got)
	}
	for _, lines := range [][2]*queuetest.Line{s.accounts, s.posts, s.comments} {
		for _, l := range lines {
			l.Replay(t)
		}
	}
	s.carry()
	if got := b.home(t, kate); len(got) != 0 || b.friends(t, kate, mary) {
		t.Errorf("after all has come again Kate sees %q", got)
	}
}
