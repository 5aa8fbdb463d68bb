// SPDX-License-Identifier: Apache-2.0

package comment_test

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

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/relations/relationstest"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

var (
	author, mary, john, rose = user(1), user(2), user(3), user(4)
	thePost, another         = id.Post{1, 15: 1}, id.Post{1, 15: 2}
)

func user(n int) id.User { return id.User{14: byte(n >> 8), 15: byte(n)} }

// posts are two posts of one author that he and his friends see.
type posts struct{ account *relationstest.Account }

func (p posts) GetMany(_ context.Context, req *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	viewer, err := id.ParseUser(req.GetViewerId())
	if err != nil {
		return nil, err
	}
	res := new(momentsv1.GetPostsResponse)
	for _, v := range req.GetIds() {
		if (v == thePost.String() || v == another.String()) && (viewer == author || p.account.Friends(author, viewer)) {
			res.Posts = append(res.Posts, &momentsv1.Post{Id: v, AuthorId: author.String()})
		}
	}
	return res, nil
}

// world is a comment service with an author whose friends are Mary, John and Rose, of
// whom Mary and John are friends.
type world struct {
	t       *testing.T
	c       momentsv1.CommentServiceClient
	account *relationstest.Account
	store   *memkv.Store
	service *comment.Service
	notices *notices
	keys    int
}

// notices is a notify service that remembers what it was told.
type notices struct {
	mu   sync.Mutex
	fail bool            // guarded by mu
	told map[string]bool // guarded by mu; "kind operation reader"
	all  []string        // guarded by mu; as they came first
}

func (n *notices) Record(_ context.Context, req *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range req.GetEvents() {
		for _, r := range e.GetReaderIds() {
			line := fmt.Sprint(e.GetKind(), " ", e.GetOperationId(), " ", r)
			if !n.told[line] {
				n.told[line] = true
				n.all = append(n.all, line)
			}
		}
	}
	if n.fail { // after it was recorded, which is the worst
		return nil, rpc.Errorf(rpc.Unavailable, "the answer is lost")
	}
	return &momentsv1.RecordResponse{}, nil
}

func build(t *testing.T) *world {
	w := &world{t: t, account: new(relationstest.Account), store: memkv.New(), notices: &notices{told: map[string]bool{}}}
	for _, f := range []id.User{mary, john, rose} {
		w.account.Befriend(author, f)
	}
	w.account.Befriend(mary, john)
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	s, err := comment.New(w.t.Context(), comment.Config{Store: w.store, Region: 1, Account: w.account, Post: posts{w.account}, Notify: w.notices, CachedItems: 20})
	if err != nil {
		w.t.Fatal(err)
	}
	w.service = s
	w.c = momentsv1.NewCommentServiceClient(rpctest.Local(w.t, func(r rpc.Registrar) { momentsv1.RegisterCommentServiceServer(r, s) }))
}

func (w *world) restart() {
	w.t.Helper()
	w.store.Crash()
	var err error
	if w.store, err = w.store.Reopen(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

func (w *world) request(writer id.User, parent, text string) *momentsv1.AddCommentRequest {
	w.keys++
	return &momentsv1.AddCommentRequest{
		WriterId: writer.String(), IdempotencyKey: fmt.Sprint("k", w.keys), PostId: thePost.String(), ParentId: parent, Text: text,
	}
}

func (w *world) add(writer id.User, parent, text string) string {
	w.t.Helper()
	res, err := w.c.Add(w.t.Context(), w.request(writer, parent, text))
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetComment().GetId()
}

func (w *world) remove(user id.User, c string) error {
	_, err := w.c.Delete(w.t.Context(), &momentsv1.DeleteCommentRequest{UserId: user.String(), PostId: thePost.String(), CommentId: c})
	return err
}

func (w *world) like(user id.User, key string) {
	w.t.Helper()
	if _, err := w.c.Like(w.t.Context(), &momentsv1.LikeRequest{UserId: user.String(), PostId: thePost.String(), IdempotencyKey: key}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) unlike(user id.User, key string) {
	w.t.Helper()
	if _, err := w.c.Unlike(w.t.Context(), &momentsv1.UnlikeRequest{UserId: user.String(), PostId: thePost.String(), IdempotencyKey: key}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) thread(viewer id.User) *momentsv1.Thread {
	w.t.Helper()
	var res *momentsv1.ListCommentsResponse
	err := patiently(func() (err error) {
		res, err = w.c.ListMany(w.t.Context(), &momentsv1.ListCommentsRequest{ViewerId: viewer.String(), PostIds: []string{another.String(), thePost.String()}})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(res.GetThreads()) == 0 {
		return &momentsv1.Thread{}
	}
	return res.GetThreads()[0]
}

// patiently calls again while there is no answer in time: on a busy machine many calls on
// one post may wait for each other for longer than the contract allows.
func patiently(call func() error) error {
	for {
		if err := call(); rpc.CodeOf(err) != rpc.DeadlineExceeded {
			return err
		}
	}
}

// sees checks a viewer's comments, written as text, "-" for a deleted mark.
func (w *world) sees(viewer id.User, want ...string) {
	w.t.Helper()
	th := w.thread(viewer)
	var got []string
	live := 0
	for _, c := range th.GetComments() {
		if c.GetDeleted() {
			if c.GetText() != "" || c.GetWriterId() != "" {
				w.t.Errorf("a deleted mark tells %v", c)
			}
			got = append(got, "-")
			continue
		}
		live++
		got = append(got, c.GetText())
	}
	if !slices.Equal(got, want) || int(th.GetCommentCount()) != live {
		w.t.Errorf("%v sees %q and the count %d, want %q", viewer, got, th.GetCommentCount(), want)
	}
}

func (w *world) likes(viewer id.User, want ...id.User) {
	w.t.Helper()
	th := w.thread(viewer)
	var texts []string
	for _, u := range want {
		texts = append(texts, u.String())
	}
	if !slices.Equal(th.GetLikeIds(), texts) || int(th.GetLikeCount()) != len(want) || th.GetLiked() != slices.Contains(want, viewer) {
		w.t.Errorf("%v sees likes %v, want %v", viewer, th, texts)
	}
}

func TestWhoSeesWhat(t *testing.T) {
	w := build(t)
	m := w.add(mary, "", "from Mary")
	w.add(john, m, "John to Mary")
	w.add(rose, "", "from Rose")
	a := w.add(author, m, "author to Mary")
	w.add(john, a, "John to author")
	w.like(mary, "")
	w.like(rose, "")
	sam := user(5)
	w.account.Befriend(sam, author)
	w.account.Befriend(sam, john)
	w.sees(author, "from Mary", "John to Mary", "from Rose", "author to Mary", "John to author")
	w.sees(mary, "from Mary", "John to Mary", "author to Mary", "John to author")
	w.sees(john, "from Mary", "John to Mary", "author to Mary", "John to author")
	w.sees(rose, "from Rose")
	w.sees(user(9))
	w.likes(author, mary, rose)
	w.likes(john, mary)
	w.likes(rose, rose)
	// Sam knows John and the author, but not Mary, whom the author answers there.
	w.sees(sam, "John to author")
	if c := w.thread(sam).GetComments()[0]; c.GetParentId() != "" || c.GetReplyToId() != author.String() {
		t.Errorf("Sam is told of a comment he does not see: %v", c)
	}
	if _, err := w.c.Add(t.Context(), w.request(rose, a, "hm?")); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("a reply to what one does not see: %v, want not found", err)
	}
}

func TestUnfriendActsAtOnce(t *testing.T) {
	w := build(t)
	w.add(mary, "", "from Mary")
	w.like(mary, "")
	w.sees(john, "from Mary")
	w.account.Part(mary, john)
	w.sees(john)
	w.likes(john)
	w.account.Befriend(mary, john)
	w.sees(john, "from Mary")
	w.account.Part(author, john)
	w.sees(john)
	if _, err := w.c.Add(t.Context(), w.request(john, "", "still here?")); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("a comment on a post one does not see: %v, want not found", err)
	}
}

func TestDelete(t *testing.T) {
	w := build(t)
	m := w.add(mary, "", "secret of Mary")
	j := w.add(john, m, "John to Mary")
	r := w.add(rose, "", "from Rose")
	for name, err := range map[string]error{
		"a friend's":         w.remove(john, m),
		"an invisible one":   w.remove(rose, m),
		"one that never was": w.remove(mary, id.Comment{1}.String()),
		"a stranger":         w.remove(user(9), m),
	} {
		if rpc.CodeOf(err) != rpc.NotFound {
			t.Errorf("deleting %s: %v, want not found", name, err)
		}
	}
	for range 2 {
		if err := w.remove(mary, m); err != nil { // her own
			t.Fatal(err)
		}
		w.sees(author, "-", "John to Mary", "from Rose")
		w.sees(rose, "from Rose")
	}
	if _, err := w.c.Add(t.Context(), w.request(john, m, "more")); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("replying to a deleted comment: %v, want not found", err)
	}
	if err := w.remove(author, r); err != nil { // on the author's own post
		t.Fatal(err)
	}
	w.sees(rose)
	if err := w.remove(john, j); err != nil {
		t.Fatal(err)
	}
	w.sees(author) // the mark goes with the last reply
	w.restart()
	w.sees(author)
	w.sees(mary)
	// The text is nowhere in the store.
	for slot := range kv.Slot(kv.Slots) {
		items, _, err := w.store.Scan(t.Context(), slot, kv.Range{}, kv.Linearizable)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			if strings.Contains(string(it.Value), "secret") {
				t.Errorf("the deleted text is still under %x", it.Key)
			}
		}
	}
}

func TestLikes(t *testing.T) {
	w := build(t)
	w.like(john, "")
	w.like(mary, "")
	w.like(john, "") // twice is once, and keeps its place
	w.likes(author, john, mary)
	w.unlike(john, "")
	w.unlike(john, "")
	w.likes(author, mary)
	w.like(john, "a")
	w.likes(author, mary, john)
	w.unlike(john, "b")
	w.like(john, "a") // a late repetition does nothing
	w.likes(author, mary)
	w.restart()
	w.likes(author, mary)
	_, err := w.c.Unlike(t.Context(), &momentsv1.UnlikeRequest{UserId: john.String(), PostId: thePost.String(), IdempotencyKey: "a"})
	if rpc.CodeOf(err) != rpc.FailedPrecondition {
		t.Errorf("the key of a like on an unlike: %v, want a conflict", err)
	}
}

func TestIdempotency(t *testing.T) {
	w := build(t)
	m := w.add(mary, "", "from Mary")
	req := w.request(john, m, "caf\u00e9")
	first, err := w.c.Add(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	w.restart()
	if err := w.remove(mary, m); err != nil {
		t.Fatal(err)
	}
	w.account.Part(author, john) // a repetition is answered whatever has changed
	req.Text = "cafe\u0301"
	if again, err := w.c.Add(t.Context(), req); err != nil || !proto.Equal(again.GetComment(), first.GetComment()) {
		t.Errorf("repeated: %v, %v; want %v", again, err, first)
	}
	w.account.Befriend(author, john)
	for name, change := range map[string]func(*momentsv1.AddCommentRequest){
		"another text":   func(r *momentsv1.AddCommentRequest) { r.Text = "tea" },
		"another parent": func(r *momentsv1.AddCommentRequest) { r.ParentId = "" },
		"another post":   func(r *momentsv1.AddCommentRequest) { r.PostId, r.ParentId = another.String(), "" },
	} {
		other := proto.CloneOf(req)
		change(other)
		_, err := w.c.Add(t.Context(), other)
		var p momentsv1.Problem
		if rpc.CodeOf(err) != rpc.FailedPrecondition || !rpc.Detail(err, &p) || p.GetType() != "idempotency-conflict" {
			t.Errorf("%s under the key: %v, want a conflict", name, err)
		}
	}
	mine := proto.CloneOf(req)
	mine.WriterId, mine.ParentId = mary.String(), ""
	if _, err := w.c.Add(t.Context(), mine); err != nil {
		t.Errorf("another user's same key: %v", err)
	}
	w.sees(author, "-", "café", "café")
}

// TestNewKeyIsLookedUpOnce counts what an Add reads of its post's slot.
func TestNewKeyIsLookedUpOnce(t *testing.T) {
	w := build(t)
	w.add(mary, "", "first") // the thread is in memory from here on
	gets := 0
	w.store.SetFaults(func(c memkv.Call) memkv.Fault {
		if c.Method == memkv.Get && c.Slot == kv.SlotOf(thePost[:]) {
			gets++
		}
		return memkv.None
	})
	w.add(mary, "", "second")
	if gets != 3 {
		t.Errorf("%d rows read, want 3: the thread's head, and the two places of the key", gets)
	}
}

// TestKeysEnd: a key is good for a day and forgotten in the next two, claim and record,
// by the service's own background work.
func TestKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := build(t)
		req := w.request(mary, "", "tea")
		first, err := w.c.Add(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		w.like(john, "k")
		time.Sleep(24 * time.Hour)
		if again, err := w.c.Add(t.Context(), req); err != nil || !proto.Equal(again.GetComment(), first.GetComment()) {
			t.Errorf("a day later: %v, %v; want %v", again, err, first)
		}
		elsewhere := proto.CloneOf(req)
		elsewhere.PostId = another.String()
		_, err = w.c.Add(t.Context(), elsewhere)
		var p momentsv1.Problem
		if !rpc.Detail(err, &p) || p.GetType() != "idempotency-conflict" {
			t.Errorf("on another post a day later: %v, want a conflict", err)
		}
		time.Sleep(25 * time.Hour)
		ctx, stop := context.WithTimeout(t.Context(), 75*time.Minute)
		defer stop()
		if err := w.service.Run(ctx); err != nil {
			t.Error(err)
		}
		for slot := range kv.Slot(kv.Slots) {
			items, _, err := w.store.Scan(t.Context(), slot, kv.Prefix([]byte{once.Table}, 0), kv.Local)
			if err != nil || len(items) != 0 {
				t.Errorf("slot %d keeps %d records, %v", slot, len(items), err)
			}
		}
		if _, err := w.c.Add(t.Context(), elsewhere); err != nil {
			t.Errorf("with a forgotten key: %v", err)
		}
	})
}

// TestCrashBeforeTheAnswer: a process dies after each write of a comment, the claim of
// its key and the comment itself, without an answer; repeated, it is there once.
func TestCrashBeforeTheAnswer(t *testing.T) {
	for writes := int32(1); writes <= 2; writes++ {
		t.Run(fmt.Sprint("after write ", writes), func(t *testing.T) {
			w := build(t)
			var done atomic.Int32
			w.store.SetFaults(func(c memkv.Call) memkv.Fault {
				if done.Load() == writes {
					return memkv.Unavailable
				}
				if c.Method == memkv.Apply && done.Add(1) == writes {
					return memkv.UnknownApplied
				}
				return memkv.None
			})
			req := w.request(mary, "", "tea")
			if _, err := w.c.Add(t.Context(), req); rpc.CodeOf(err) != rpc.Unavailable {
				t.Fatalf("got %v, want it to fail", err)
			}
			w.restart()
			for range 2 {
				if _, err := w.c.Add(t.Context(), req); err != nil {
					t.Fatal(err)
				}
			}
			w.sees(author, "tea")
		})
	}
}

// TestStorm: many write on one post at once, each request twice, while the store loses
// outcomes. All is there once, in one order for all.
func TestStorm(t *testing.T) {
	w := build(t)
	const people, each = 20, 10
	for n := range people {
		w.account.Befriend(author, user(100+n))
	}
	var mu sync.Mutex
	writes := 0
	w.store.SetFaults(func(c memkv.Call) memkv.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Method != memkv.Apply || c.Slot != kv.SlotOf(thePost[:]) {
			return memkv.None
		}
		switch writes++; writes % 9 {
		case 3:
			return memkv.UnknownApplied
		case 6:
			return memkv.UnknownLost
		}
		return memkv.None
	})
	var wg sync.WaitGroup
	for n := range people {
		for range 2 {
			wg.Go(func() {
				for i := range each {
					err := patiently(func() error {
						_, err := w.c.Add(t.Context(), &momentsv1.AddCommentRequest{
							WriterId: user(100 + n).String(), IdempotencyKey: fmt.Sprint(i), PostId: thePost.String(), Text: fmt.Sprintf("%d/%d", n, i),
						})
						return err
					})
					if err != nil {
						t.Errorf("add: %v", err)
					}
					err = patiently(func() error {
						_, err := w.c.Like(t.Context(), &momentsv1.LikeRequest{UserId: user(100 + n).String(), PostId: thePost.String()})
						return err
					})
					if err != nil {
						t.Errorf("like: %v", err)
					}
				}
			})
		}
		wg.Go(func() { w.thread(author) })
	}
	wg.Wait()
	w.store.SetFaults(nil)
	before := w.thread(author)
	w.restart()
	after := w.thread(author)
	if !proto.Equal(before, after) {
		t.Error("after a restart the thread is another")
	}
	seen := map[string]int{}
	for i, c := range after.GetComments() {
		seen[c.GetText()]++
		if i > 0 && after.GetComments()[i-1].GetId() >= c.GetId() {
			t.Errorf("comments are out of order at %d", i)
		}
	}
	if len(seen) != people*each || len(after.GetComments()) != people*each || after.GetLikeCount() != people {
		t.Errorf("%d comments, %d texts, %d likes; want %d once each and %d likes",
			len(after.GetComments()), len(seen), after.GetLikeCount(), people*each, people)
	}
	t.Logf("%d writes", writes)
}

func TestBadRequests(t *testing.T) {
	w := build(t)
	change := func(f func(*momentsv1.AddCommentRequest)) error {
		req := w.request(mary, "", "text")
		f(req)
		_, err := w.c.Add(t.Context(), req)
		return err
	}
	for _, tc := range []struct {
		name, field string
		err         error
	}{
		{"writer", "writer_id", change(func(r *momentsv1.AddCommentRequest) { r.WriterId = "" })},
		{"post", "post_id", change(func(r *momentsv1.AddCommentRequest) { r.PostId = "x" })},
		{"parent", "parent_id", change(func(r *momentsv1.AddCommentRequest) { r.ParentId = "x" })},
		{"no key", "idempotency_key", change(func(r *momentsv1.AddCommentRequest) { r.IdempotencyKey = "" })},
		{"blank", "text", change(func(r *momentsv1.AddCommentRequest) { r.Text = "\u3000" })},
		{"too long", "text", change(func(r *momentsv1.AddCommentRequest) { r.Text = strings.Repeat("友", 501) })},
		{"comment", "comment_id", w.remove(mary, "x")},
	} {
		var p momentsv1.Problem
		if rpc.CodeOf(tc.err) != rpc.InvalidArgument || !rpc.Detail(tc.err, &p) || p.GetField() != tc.field {
			t.Errorf("%s: %v; want field %s invalid", tc.name, tc.err, tc.field)
		}
	}
	w.add(mary, "", strings.Repeat("友", 500))
}

func TestLimit(t *testing.T) {
	w := build(t)
	for i := range 8 {
		w.add(mary, "", fmt.Sprint(i))
	}
	res, err := w.c.ListMany(t.Context(), &momentsv1.ListCommentsRequest{ViewerId: john.String(), PostIds: []string{thePost.String()}, Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	th := res.GetThreads()[0]
	if len(th.GetComments()) != 3 || th.GetComments()[2].GetText() != "7" || th.GetCommentCount() != 8 {
		t.Errorf("%v, want the newest 3 of 8", th)
	}
}
