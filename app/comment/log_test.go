// SPDX-License-Identifier: Apache-2.0

package comment_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// run does the service's background work for a while.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), d)
	defer stop()
	if err := w.service.Run(ctx); err != nil {
		w.t.Error(err)
	}
}

// TestEveryOperationIsToldOnce: what was acknowledged is told though the process dies
// at any moment and answers are lost, and what is told of what is as it should be.
func TestEveryOperationIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := build(t)
		w.notices.fail = true
		m := w.add(mary, "", "from Mary")
		w.like(john, "")
		w.run(time.Second)
		w.restart() // before any cursor was saved, for nothing was ever answered
		j := w.add(john, m, "John to Mary")
		w.notices.fail = false
		w.run(time.Second)
		w.restart()
		w.unlike(john, "")
		w.like(john, "") // is told nobody again
		r := w.add(rose, "", "from Rose")
		gone := w.add(rose, "", "gone")
		if err := w.remove(rose, gone); err != nil {
			t.Fatal(err)
		}
		w.add(author, "", "from the author")
		w.run(time.Second)
		like := ""
		for _, line := range w.notices.all {
			if strings.HasPrefix(line, "NOTICE_KIND_LIKE") {
				like = strings.Fields(line)[1]
			}
		}
		var want []string
		tell := func(kind, op string, to ...id.User) {
			for _, u := range to {
				want = append(want, fmt.Sprint("NOTICE_KIND_", kind, " ", op, " ", u))
			}
		}
		tell("COMMENT", m, author)
		tell("LIKE", like, mary, author)
		tell("COMMENT", j, author)
		tell("REPLY", j, mary)
		tell("COMMENT", r, author)
		last := ""
		for _, line := range w.notices.all {
			last = strings.Fields(line)[1]
		}
		tell("COMMENT", last, mary, john, rose)
		got := slices.Clone(w.notices.all)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		st, err := w.c.OutboxStatus(t.Context(), &momentsv1.OutboxStatusRequest{})
		if err != nil || st.GetPending() != 0 {
			t.Errorf("the outbox says %v, %v", st, err)
		}
		for slot := range kv.Slot(kv.Slots) {
			if items, _, err := w.store.Scan(t.Context(), slot, kv.Prefix([]byte{'c'}, 0), kv.Local); err != nil || len(items) > 1 {
				t.Errorf("slot %d has %d cursors, %v", slot, len(items), err)
			}
		}
	})
}

// TestSnapshots: a long log is folded from its snapshot, with what came after, and a
// deleted text is in none.
func TestSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := build(t)
		var ids []string
		for n := range 700 {
			text := fmt.Sprint("text ", n)
			if n == 3 {
				text = "secret"
			}
			ids = append(ids, w.add(mary, "", text))
		}
		w.like(john, "")
		w.run(time.Minute)
		w.add(mary, "", "after")
		before := w.thread(author)
		w.restart()
		scanned := 0
		w.store.SetFaults(func(c memkv.Call) memkv.Fault {
			if c.Method == memkv.Scan {
				scanned++
			}
			return memkv.None
		})
		after := w.thread(author)
		w.store.SetFaults(nil)
		if len(after.GetComments()) != 701 || after.GetCommentCount() != 701 || after.GetLikeCount() != 1 || after.String() != before.String() {
			t.Errorf("from a snapshot: %d comments, %d likes", len(after.GetComments()), after.GetLikeCount())
		}
		if scanned != 2 {
			t.Errorf("%d scans, want 2: of the snapshot, and of what came after it", scanned)
		}
		if err := w.remove(mary, ids[3]); err != nil {
			t.Fatal(err)
		}
		texts := func(what string) (n int) {
			for slot := range kv.Slot(kv.Slots) {
				items, _, err := w.store.Scan(t.Context(), slot, kv.Range{}, kv.Linearizable)
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range items {
					n += strings.Count(string(it.Value), what)
				}
			}
			return n
		}
		if n := texts("secret"); n != 0 {
			t.Errorf("%d rows have the deleted text", n)
		}
		w.restart()
		if got := w.thread(author); len(got.GetComments()) != 700 {
			t.Errorf("%d comments, want 700", len(got.GetComments()))
		}
		w.run(time.Minute)
		w.restart()
		if got := w.thread(author); len(got.GetComments()) != 700 || got.GetComments()[3].GetText() != "text 4" {
			t.Errorf("%d comments, want 700", len(got.GetComments()))
		}
	})
}

// TestPages: pages of comments and likes have all that one sees, once, though others
// write meanwhile.
func TestPages(t *testing.T) {
	w := build(t)
	var want []string
	for n := range 23 {
		want = append(want, w.add(mary, "", fmt.Sprint(n)))
		w.add(rose, "", "hidden from John")
	}
	var likers []string
	for n := range 9 {
		u := user(100 + n)
		w.account.Befriend(author, u)
		w.account.Befriend(john, u)
		w.like(u, "")
		likers = append(likers, u.String())
	}
	var got []string
	for cursor := ""; ; {
		res, err := w.c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: john.String(), PostId: thePost.String(), Cursor: cursor, Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		var page []string
		for _, c := range res.GetComments() {
			page = append(page, c.GetId())
		}
		got = append(page, got...)
		w.add(mary, "", "new") // newer than all pages to come
		if cursor = res.GetNextCursor(); cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages have %v, want %v", got, want)
	}
	got = nil
	for cursor := ""; ; {
		res, err := w.c.ListLikes(t.Context(), &momentsv1.ListLikesRequest{ViewerId: john.String(), PostId: thePost.String(), Cursor: cursor, Limit: 2})
		if err != nil || res.GetLikeCount() != 9 {
			t.Fatal(res, err)
		}
		got = append(slices.Clone(res.GetLikeIds()), got...)
		if cursor = res.GetNextCursor(); cursor == "" {
			break
		}
	}
	if !slices.Equal(got, likers) {
		t.Errorf("pages of likes have %v, want %v", got, likers)
	}
	for name, err := range map[string]error{
		"a foreign cursor": func() error {
			res, err := w.c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: john.String(), PostId: thePost.String(), Limit: 1})
			if err != nil {
				return err
			}
			_, err = w.c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: author.String(), PostId: another.String(), Cursor: res.GetNextCursor()})
			return err
		}(),
		"too much": func() error {
			_, err := w.c.ListLikes(t.Context(), &momentsv1.ListLikesRequest{ViewerId: john.String(), PostId: thePost.String(), Limit: 1001})
			return err
		}(),
	} {
		if rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.c.ListPage(t.Context(), &momentsv1.ListPageRequest{ViewerId: user(9).String(), PostId: thePost.String()}); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("a stranger reads: %v", err)
	}
}

// TestSessions: a session's token lets no server answer that has not seen what the
// session has; it is its user's, says nothing to him and stays short.
func TestSessions(t *testing.T) {
	w := build(t)
	list := func(u id.User, session string) (string, error) {
		res, err := w.c.ListMany(t.Context(), &momentsv1.ListCommentsRequest{ViewerId: u.String(), PostIds: []string{thePost.String()}, Session: session})
		return res.GetSession(), err
	}
	req := w.request(mary, "", "tea")
	res, err := w.c.Add(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	token := res.GetSession()
	if token == "" || len(token) > 1024 {
		t.Fatalf("token %q", token)
	}
	read, err := list(mary, token)
	if err != nil || read == "" || read == token {
		t.Errorf("her own token: %q, %v", read, err)
	}
	for name, bad := range map[string]string{
		"another's": token, "mangled": token[:len(token)-1] + "_", "short": "AQ", "long": strings.Repeat("A", 1025), "nonsense": "??",
	} {
		if _, err := list(john, bad); rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A server whose disk was set back is behind the token: it says so, and writes
	// nothing.
	key, err := w.store.Get(t.Context(), kv.SlotOf([]byte("k/session")), []byte("k/session"), kv.Linearizable)
	if err != nil {
		t.Fatal(err)
	}
	w.store = memkv.New()
	if _, err := w.store.Apply(t.Context(), kv.SlotOf(key.Key), new(kv.Batch).Put(key.Key, key.Value)); err != nil {
		t.Fatal(err)
	}
	w.start()
	behind := func(name string, err error) {
		t.Helper()
		var p momentsv1.Problem
		if rpc.CodeOf(err) != rpc.Unavailable || !rpc.Detail(err, &p) || p.GetType() != "behind" {
			t.Errorf("%s: %v, want it to be behind", name, err)
		}
	}
	_, err = list(mary, token)
	behind("reading", err)
	late := w.request(mary, "", "late")
	late.Session = token
	_, err = w.c.Add(t.Context(), late)
	behind("writing", err)
	_, err = w.c.Like(t.Context(), &momentsv1.LikeRequest{UserId: mary.String(), PostId: thePost.String(), Session: token})
	behind("liking", err)
	w.sees(author)
	late.Session = ""
	if _, err := w.c.Add(t.Context(), late); err != nil {
		t.Errorf("without the token: %v", err)
	}
	// It stays short however many posts are seen.
	session := ""
	for n := range 40 {
		res, err := w.c.ListMany(t.Context(), &momentsv1.ListCommentsRequest{
			ViewerId: mary.String(), PostIds: []string{id.Post{9, 15: byte(n)}.String()}, Session: session, PostsChecked: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			add, err := w.c.Like(t.Context(), &momentsv1.LikeRequest{UserId: mary.String(), PostId: thePost.String()})
			if err != nil {
				t.Fatal(err)
			}
			session = add.GetSession()
			continue
		}
		if session = res.GetSession(); len(session) > 1024 {
			t.Fatalf("a token of %d bytes", len(session))
		}
	}
	if _, err := list(mary, session); err != nil {
		t.Errorf("after many posts: %v", err)
	}
}

// TestHotPost: very many writers of one post at once, each acknowledged, are counted
// exactly, in far fewer writes.
func TestHotPost(t *testing.T) {
	w := build(t)
	const people = 1000
	for n := range people {
		w.account.Befriend(author, user(1000+n))
	}
	var mu sync.Mutex
	writes := 0
	w.store.SetFaults(func(c memkv.Call) memkv.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Method == memkv.Apply && c.Slot == kv.SlotOf(thePost[:]) {
			writes++
		}
		return memkv.None
	})
	var wg sync.WaitGroup
	for n := range people {
		wg.Go(func() {
			for { // a busy machine may take longer than the contract allows
				_, err := w.c.Like(t.Context(), &momentsv1.LikeRequest{UserId: user(1000 + n).String(), PostId: thePost.String()})
				if err == nil {
					return
				}
				if c := rpc.CodeOf(err); c != rpc.DeadlineExceeded && c != rpc.Unavailable {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	w.restart()
	if got := w.thread(author); got.GetLikeCount() != people {
		t.Errorf("%d likes, want %d", got.GetLikeCount(), people)
	}
	t.Logf("%d writes of %d likes", writes, people)
}
