// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/app/timeline"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is post, timeline and comment, each on its own store, calling each other
// through the framework within the process.
type house struct {
	t                          tb
	account                    *relationstest.Account
	posts, timelines, comments kv.Store
	Post                       momentsv1.PostServiceClient
	Timeline                   momentsv1.TimelineServiceClient
	Comment                    momentsv1.CommentServiceClient
	service                    *post.Service
	keys                       atomic.Int64
	config                     houseConfig
}

// tb is what rapid's tests and the ordinary ones have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Context() context.Context
	Cleanup(func())
}

type houseConfig struct {
	cap       int
	bare      bool // local calls without clones, as in production
	cacheSize int
	now       func() time.Time
}

func build(t tb, cfg houseConfig) *house {
	return rebuild(t, cfg, new(relationstest.Account), memkv.New(), memkv.New(), memkv.New())
}

func rebuild(t tb, cfg houseConfig, account *relationstest.Account, posts, timelines, comments kv.Store) *house {
	t.Helper()
	h := &house{t: t, account: account, posts: posts, timelines: timelines, comments: comments, config: cfg}
	log := slog.New(slog.DiscardHandler)
	opts := []framework.ServerOption{framework.WithoutSignals(), framework.WithLogger(log)}
	if !cfg.bare {
		opts = append(opts, framework.WithClonedLocalCalls())
	}
	srv := framework.NewServer(framework.ServerConfig{Service: "moments-test", Admin: "127.0.0.1:0"}, opts...)
	conn := framework.DialLocal(srv)
	t.Cleanup(func() { _ = conn.Close() })
	accounts := momentsv1.NewAccountServiceClient(conn)
	h.Post = momentsv1.NewPostServiceClient(conn)
	h.Timeline = momentsv1.NewTimelineServiceClient(conn)
	h.Comment = momentsv1.NewCommentServiceClient(conn)
	var err error
	h.service, err = post.New(t.Context(), post.Config{
		Store: posts, Region: 1, Account: accounts, Timeline: h.Timeline, Log: log, Now: cfg.now, CachedFacts: cfg.cacheSize, CachedBytes: cfg.cacheSize,
	})
	if err != nil {
		t.Fatalf("post: %v", err)
	}
	tl, err := timeline.New(timeline.Config{
		Store: timelines, Account: accounts, Post: h.Post, Comment: h.Comment, Near: cfg.bare, Cap: cfg.cap, CachedFriends: cfg.cacheSize,
	})
	if err != nil {
		t.Fatalf("timeline: %v", err)
	}
	cm, err := comment.New(t.Context(), comment.Config{
		Store: comments, Region: 1, Account: accounts, Post: h.Post, Now: cfg.now, CachedItems: cfg.cacheSize, CachedFacts: cfg.cacheSize,
	})
	if err != nil {
		t.Fatalf("comment: %v", err)
	}
	momentsv1.RegisterAccountServiceServer(srv, account)
	momentsv1.RegisterPostServiceServer(srv, h.service)
	momentsv1.RegisterTimelineServiceServer(srv, tl)
	momentsv1.RegisterCommentServiceServer(srv, cm)
	if err := srv.Check(); err != nil {
		t.Fatalf("%v", err)
	}
	return h
}

// run starts the fan-out; stop, or the end of the test, ends it and waits for it.
func (h *house) run() (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.service.Run(ctx); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	h.t.Cleanup(stop)
	return stop
}

// drain runs the fan-out until nothing is left to do.
func (h *house) drain() {
	h.t.Helper()
	stop := h.run()
	defer stop()
	h.settle()
}

// settle waits until a running fan-out has nothing left to do.
func (h *house) settle() {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		res, err := h.Post.FanOutStatus(h.t.Context(), &momentsv1.FanOutStatusRequest{})
		if err == nil && res.GetPending() == 0 {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("fan-out does not end: %v, %v", res, err)
		}
	}
}

func user(n int) id.User { return id.User{13: 1, 14: byte(n >> 8), 15: byte(n)} }

func (h *house) key() string { return fmt.Sprintf("key-%d", h.keys.Add(1)) }

func (h *house) publish(author id.User, text string) string {
	h.t.Helper()
	res, err := h.Post.Publish(h.t.Context(), &momentsv1.PublishRequest{
		AuthorId: author.String(), IdempotencyKey: h.key(), Text: text, Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
	})
	if err != nil {
		h.t.Fatalf("publish: %v", err)
	}
	return res.GetPost().GetId()
}

func (h *house) remove(author id.User, p string) {
	h.t.Helper()
	if _, err := h.Post.Delete(h.t.Context(), &momentsv1.DeletePostRequest{AuthorId: author.String(), PostId: p}); err != nil {
		h.t.Fatalf("delete: %v", err)
	}
}

func (h *house) comment(writer id.User, p, parent, text string) string {
	h.t.Helper()
	res, err := h.Comment.Add(h.t.Context(), &momentsv1.AddCommentRequest{
		WriterId: writer.String(), IdempotencyKey: h.key(), PostId: p, ParentId: parent, Text: text,
	})
	if err != nil {
		h.t.Fatalf("comment: %v", err)
	}
	return res.GetComment().GetId()
}

func (h *house) page(viewer id.User, cursor string, limit int) *momentsv1.HomeResponse {
	h.t.Helper()
	res, err := h.Timeline.Home(h.t.Context(), &momentsv1.HomeRequest{ViewerId: viewer.String(), Cursor: cursor, Limit: uint32(limit)})
	if err != nil {
		h.t.Fatalf("home: %v", err)
	}
	return res
}

// home gives the ids of a whole timeline, page by page.
func (h *house) home(viewer id.User, limit int) []string {
	h.t.Helper()
	ids := []string{}
	for cursor := ""; ; {
		res := h.page(viewer, cursor, limit)
		for _, it := range res.GetItems() {
			ids = append(ids, it.GetPost().GetId())
		}
		if cursor = res.GetNextCursor(); cursor == "" {
			return ids
		}
		if len(res.GetItems()) != limit {
			h.t.Fatalf("a page of %d is not the last, want %d posts", len(res.GetItems()), limit)
		}
	}
}

// index gives a timeline as it is stored.
func (h *house) index(reader id.User) []string {
	h.t.Helper()
	res, err := h.Timeline.ListIndex(h.t.Context(), &momentsv1.ListIndexRequest{ReaderId: reader.String()})
	if err != nil {
		h.t.Fatalf("index: %v", err)
	}
	return res.GetPostIds()
}
