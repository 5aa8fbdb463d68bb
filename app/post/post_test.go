// SPDX-License-Identifier: Apache-2.0

package post_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/post"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var mary, john, rose = user(1), user(2), user(3)

func user(n int) id.User { return id.User{14: byte(n >> 8), 15: byte(n)} }

// nowhere takes fan-out and drops it.
type nowhere struct{}

func (nowhere) FanOut(context.Context, *momentsv1.FanOutRequest) (*momentsv1.FanOutResponse, error) {
	return &momentsv1.FanOutResponse{}, nil
}

// start gives a client of a new service over a store. Mary and John are friends.
func start(t *testing.T, store *memkv.Store) (momentsv1.PostServiceClient, *relationstest.Account) {
	t.Helper()
	c, _, account := startAt(t, store, nil)
	return c, account
}

// startAt is start with a clock and the service itself.
func startAt(t *testing.T, store *memkv.Store, now func() time.Time) (momentsv1.PostServiceClient, *post.Service, *relationstest.Account) {
	t.Helper()
	account := new(relationstest.Account)
	account.Befriend(mary, john)
	s, err := post.New(t.Context(), post.Config{Store: store, Region: 1, Account: account, Timeline: nowhere{}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	conn := rpctest.Local(t, func(r rpc.Registrar) { momentsv1.RegisterPostServiceServer(r, s) })
	return momentsv1.NewPostServiceClient(conn), s, account
}

func request(author id.User, key, text string) *momentsv1.PublishRequest {
	return &momentsv1.PublishRequest{AuthorId: author.String(), IdempotencyKey: key, Text: text, Audience: momentsv1.Audience_AUDIENCE_FRIENDS}
}

func publish(t *testing.T, c momentsv1.PostServiceClient, author id.User, key, text string) *momentsv1.Post {
	t.Helper()
	res, err := c.Publish(t.Context(), request(author, key, text))
	if err != nil {
		t.Fatal(err)
	}
	return res.GetPost()
}

func seen(t *testing.T, c momentsv1.PostServiceClient, viewer id.User, ids ...string) []string {
	t.Helper()
	res, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: viewer.String(), Ids: ids})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, p := range res.GetPosts() {
		out = append(out, p.GetId())
	}
	return out
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func problemOf(t *testing.T, err error) (rpc.Code, string, string) {
	t.Helper()
	var p momentsv1.Problem
	rpc.Detail(err, &p)
	return rpc.CodeOf(err), p.GetType(), p.GetField()
}

func TestWhoSeesWhat(t *testing.T) {
	c, account := start(t, memkv.New())
	p := publish(t, c, mary, "k", "  hello\n")
	if p.GetText() != "  hello\n" || p.GetAuthorId() != mary.String() || p.GetTimeMs() == 0 {
		t.Errorf("post %v", p)
	}
	never := id.Post{1, 2, 3}.String()
	want(t, "author", seen(t, c, mary, never, p.GetId(), p.GetId()), []string{p.GetId(), p.GetId()})
	want(t, "friend", seen(t, c, john, p.GetId(), never), []string{p.GetId()})
	want(t, "stranger", seen(t, c, rose, p.GetId(), never), []string{})
	account.Part(mary, john)
	want(t, "no longer a friend", seen(t, c, john, p.GetId()), []string{})
	account.Befriend(mary, john)
	want(t, "friend again", seen(t, c, john, p.GetId()), []string{p.GetId()})
	own, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: mary.String(), Ids: []string{p.GetId()}})
	if err != nil || own.GetPosts()[0].GetAudience() != momentsv1.Audience_AUDIENCE_FRIENDS {
		t.Errorf("the author sees %v, %v; want the audience told", own, err)
	}
	others, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: john.String(), Ids: []string{p.GetId()}})
	if err != nil || others.GetPosts()[0].GetAudience() != 0 {
		t.Errorf("a friend sees %v, %v; want the audience untold", others, err)
	}
}

func TestDeleteIsFinal(t *testing.T) {
	store := memkv.New()
	c, _ := start(t, store)
	p := publish(t, c, mary, "k", "hello")
	remove := func(user id.User, p string) error {
		_, err := c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: user.String(), PostId: p})
		return err
	}
	for name, err := range map[string]error{
		"a friend's":         remove(john, p.GetId()),
		"one that never was": remove(mary, id.Post{5}.String()),
	} {
		if code, typ, _ := problemOf(t, err); code != rpc.NotFound || typ != "not-found" {
			t.Errorf("deleting %s: %v, want not found", name, err)
		}
	}
	for range 2 {
		if err := remove(mary, p.GetId()); err != nil {
			t.Fatal(err)
		}
		want(t, "author", seen(t, c, mary, p.GetId()), []string{})
		want(t, "friend", seen(t, c, john, p.GetId()), []string{})
	}
	// A late repetition of the publishing brings nothing back.
	if again := publish(t, c, mary, "k", "hello"); !proto.Equal(again, p) {
		t.Errorf("repeated: %v, want %v", again, p)
	}
	want(t, "after a repetition", seen(t, c, mary, p.GetId()), []string{})
	album, err := c.Album(t.Context(), &momentsv1.AlbumRequest{ViewerId: mary.String(), AuthorId: mary.String()})
	if err != nil || len(album.GetPosts()) != 0 {
		t.Errorf("album %v, %v; want it empty", album, err)
	}
}

func TestIdempotency(t *testing.T) {
	store := memkv.New()
	c, _ := start(t, store)
	p := publish(t, c, mary, "k", "caf\u00e9")
	if again := publish(t, c, mary, "k", "cafe\u0301"); !proto.Equal(again, p) {
		t.Errorf("the same text in another form: %v, want %v", again, p)
	}
	_, err := c.Publish(t.Context(), request(mary, "k", "tea"))
	if code, typ, _ := problemOf(t, err); code != rpc.FailedPrecondition || typ != "idempotency-conflict" {
		t.Errorf("another text under the key: %v", err)
	}
	if other := publish(t, c, john, "k", "tea"); other.GetId() == p.GetId() {
		t.Error("another user's key is not one's own")
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	reopened, err := store.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	c, _ = start(t, reopened)
	if again := publish(t, c, mary, "k", "caf\u00e9"); !proto.Equal(again, p) {
		t.Errorf("after a restart: %v, want %v", again, p)
	}
}

// TestKeysEnd: a key is good for a day and forgotten in the next two, by the service's
// own background work.
func TestKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c, s, _ := startAt(t, store, time.Now)
		p := publish(t, c, mary, "k", "tea")
		time.Sleep(24 * time.Hour)
		if again := publish(t, c, mary, "k", "tea"); !proto.Equal(again, p) {
			t.Errorf("a day later: %v, want %v", again, p)
		}
		_, err := c.Publish(t.Context(), request(mary, "k", "coffee"))
		if _, typ, _ := problemOf(t, err); typ != "idempotency-conflict" {
			t.Errorf("another text a day later: %v", err)
		}
		time.Sleep(25 * time.Hour)
		ctx, stop := context.WithTimeout(t.Context(), 75*time.Minute)
		defer stop()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		items, _, err := store.Scan(t.Context(), kv.SlotOf(mary[:]), kv.Prefix([]byte{once.Table}, 0), kv.Local)
		if err != nil || len(items) != 0 {
			t.Errorf("%d records are kept, %v", len(items), err)
		}
		if other := publish(t, c, mary, "k", "coffee"); other.GetId() == p.GetId() {
			t.Error("a forgotten key made no new post")
		}
	})
}

// TestCrashBeforeTheAnswer: the post is stored, its author never hears of it, and the
// process dies; repeated, it is the same post.
func TestCrashBeforeTheAnswer(t *testing.T) {
	store := memkv.New()
	c, _ := start(t, store)
	var stored atomic.Bool
	store.SetFaults(func(c memkv.Call) memkv.Fault {
		if stored.Load() {
			return memkv.Unavailable
		}
		if c.Method == memkv.Apply {
			stored.Store(true)
			return memkv.UnknownApplied
		}
		return memkv.None
	})
	if _, err := c.Publish(t.Context(), request(mary, "k", "tea")); rpc.CodeOf(err) != rpc.Unavailable {
		t.Fatalf("got %v, want it to fail", err)
	}
	store.Crash()
	store, err := store.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	c, _ = start(t, store)
	p := publish(t, c, mary, "k", "tea")
	album, err := c.Album(t.Context(), &momentsv1.AlbumRequest{ViewerId: mary.String(), AuthorId: mary.String()})
	if err != nil || len(album.GetPosts()) != 1 || album.GetPosts()[0].GetId() != p.GetId() {
		t.Errorf("album %v, %v; want %v alone", album, err, p)
	}
}

// TestStorm: many writers of one author, each request twice at once, make each post
// once; the outbox stays dense, which the fan-out tests of timeline rely on.
func TestStorm(t *testing.T) {
	store := memkv.New()
	// Every few writes the outcome is lost, of a batch that was applied or was not.
	n := 0
	var mu sync.Mutex
	store.SetFaults(func(c memkv.Call) memkv.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Method != memkv.Apply {
			return memkv.None
		}
		switch n++; n % 7 {
		case 3:
			return memkv.UnknownApplied
		case 5:
			return memkv.UnknownLost
		}
		return memkv.None
	})
	c, _ := start(t, store)
	var wg sync.WaitGroup
	ids := make([][2]string, 200)
	for i := range ids {
		for j := range 2 {
			wg.Go(func() {
				res, err := c.Publish(t.Context(), request(mary, fmt.Sprint("k", i), fmt.Sprint("text ", i)))
				if err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				ids[i][j] = res.GetPost().GetId()
			})
		}
	}
	wg.Wait()
	all := map[string]bool{}
	for _, pair := range ids {
		if pair[0] != pair[1] {
			t.Errorf("one key made %v and %v", pair[0], pair[1])
		}
		all[pair[0]] = true
	}
	list, err := c.ListAlbum(t.Context(), &momentsv1.ListAlbumRequest{AuthorId: mary.String()})
	if err != nil || len(list.GetPostIds()) != len(ids) || len(all) != len(ids) {
		t.Errorf("album of %d posts, %d ids, %v; want %d", len(list.GetPostIds()), len(all), err, len(ids))
	}
}

func TestAlbumPages(t *testing.T) {
	c, account := start(t, memkv.New())
	var all []*momentsv1.Post
	for i := range 25 {
		p := publish(t, c, mary, fmt.Sprint(i), fmt.Sprint("text ", i))
		if i%5 == 4 {
			if _, err := c.Delete(t.Context(), &momentsv1.DeletePostRequest{AuthorId: mary.String(), PostId: p.GetId()}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		all = append(all, p)
	}
	slices.Reverse(all)
	album := func(viewer id.User, limit uint32, from, to int64) (ids []string) {
		t.Helper()
		for cursor := ""; ; {
			res, err := c.Album(t.Context(), &momentsv1.AlbumRequest{
				ViewerId: viewer.String(), AuthorId: mary.String(), Cursor: cursor, Limit: limit, FromMs: from, ToMs: to,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range res.GetPosts() {
				ids = append(ids, p.GetId())
			}
			if cursor = res.GetNextCursor(); cursor == "" {
				return ids
			}
		}
	}
	within := func(from, to int64) (ids []string) {
		for _, p := range all {
			if p.GetTimeMs() >= from && (to == 0 || p.GetTimeMs() < to) {
				ids = append(ids, p.GetId())
			}
		}
		return ids
	}
	first, last := all[len(all)-1].GetTimeMs(), all[0].GetTimeMs()
	for _, tc := range []struct {
		name     string
		from, to int64
	}{{"all", 0, 0}, {"from the last", last, 0}, {"before the last", 0, last}, {"after all", last + 1, 0}, {"before all", 0, first}, {"one moment", first, first + 1}} {
		for _, limit := range []uint32{1, 3, 20, 100} {
			want(t, fmt.Sprint(tc.name, " by ", limit), album(john, limit, tc.from, tc.to), within(tc.from, tc.to))
		}
	}
	account.Part(mary, john)
	want(t, "no longer a friend", album(john, 5, 0, 0), nil)
	if got := album(mary, 7, 0, 0); len(got) != len(all) {
		t.Errorf("the owner sees %d, want %d", len(got), len(all))
	}
}

func TestOwnWindow(t *testing.T) {
	c, _ := start(t, memkv.New())
	var ids []string
	for i := range 6 {
		ids = append(ids, publish(t, c, mary, fmt.Sprint(i), "x").GetId())
	}
	for _, tc := range []struct {
		name   string
		asked  []string
		window *momentsv1.OwnWindow
		want   []string
	}{
		{"all", nil, &momentsv1.OwnWindow{Limit: 10}, []string{ids[5], ids[4], ids[3], ids[2], ids[1], ids[0]}},
		{"bounds are not within", nil, &momentsv1.OwnWindow{BeforeId: ids[4], AfterId: ids[1], Limit: 10}, []string{ids[3], ids[2]}},
		{"newest first up to the limit", nil, &momentsv1.OwnWindow{Limit: 2}, []string{ids[5], ids[4]}},
		{"less those asked for", []string{ids[5], ids[3]}, &momentsv1.OwnWindow{AfterId: ids[2], Limit: 10}, []string{ids[4]}},
		{"bounds crossed", nil, &momentsv1.OwnWindow{BeforeId: ids[1], AfterId: ids[4], Limit: 10}, []string{}},
	} {
		res, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: mary.String(), Ids: tc.asked, Own: tc.window})
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, p := range res.GetOwn() {
			got = append(got, p.GetId())
		}
		want(t, tc.name, got, tc.want)
	}
}

func TestBadRequests(t *testing.T) {
	c, _ := start(t, memkv.New())
	change := func(f func(*momentsv1.PublishRequest)) error {
		req := request(mary, "k", "text")
		f(req)
		_, err := c.Publish(t.Context(), req)
		return err
	}
	for _, tc := range []struct {
		name, field string
		err         error
	}{
		{"author", "author_id", change(func(r *momentsv1.PublishRequest) { r.AuthorId = "mary" })},
		{"no key", "idempotency_key", change(func(r *momentsv1.PublishRequest) { r.IdempotencyKey = "" })},
		{"long key", "idempotency_key", change(func(r *momentsv1.PublishRequest) { r.IdempotencyKey = strings.Repeat("k", 65) })},
		{"no text", "text", change(func(r *momentsv1.PublishRequest) { r.Text = "" })},
		{"blank text", "text", change(func(r *momentsv1.PublishRequest) { r.Text = " \u200b\n" })},
		{"long text", "text", change(func(r *momentsv1.PublishRequest) { r.Text = strings.Repeat("友", 2001) })},
		{"NUL", "text", change(func(r *momentsv1.PublishRequest) { r.Text = "a\x00b" })},
		{"no audience", "audience", change(func(r *momentsv1.PublishRequest) { r.Audience = 0 })},
		{"unknown audience", "audience", change(func(r *momentsv1.PublishRequest) { r.Audience = 99 })},
		{"deny list", "deny_ids", change(func(r *momentsv1.PublishRequest) { r.DenyIds = []string{john.String()} })},
		{"post of GetMany", "ids", func() error {
			_, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: mary.String(), Ids: []string{"x"}})
			return err
		}()},
		{"too many", "ids", func() error {
			_, err := c.GetMany(t.Context(), &momentsv1.GetPostsRequest{ViewerId: mary.String(), Ids: make([]string, 201)})
			return err
		}()},
		{"album's cursor", "cursor", func() error {
			_, err := c.Album(t.Context(), &momentsv1.AlbumRequest{ViewerId: mary.String(), AuthorId: mary.String(), Cursor: "x"})
			return err
		}()},
		{"album's time", "to_ms", func() error {
			_, err := c.Album(t.Context(), &momentsv1.AlbumRequest{ViewerId: mary.String(), AuthorId: mary.String(), FromMs: 5, ToMs: 4})
			return err
		}()},
	} {
		if code, typ, field := problemOf(t, tc.err); code != rpc.InvalidArgument || typ != "invalid" || field != tc.field {
			t.Errorf("%s: %v; want field %s invalid", tc.name, tc.err, tc.field)
		}
	}
	longest := strings.Repeat("友", 2000)
	if p := publish(t, c, mary, strings.Repeat("k", 64), longest); p.GetText() != longest {
		t.Error("the longest text was not kept")
	}
}
