// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	none      = momentsv1.FriendState_FRIEND_STATE_NONE
	friends   = momentsv1.FriendState_FRIEND_STATE_FRIENDS
	requested = momentsv1.FriendState_FRIEND_STATE_REQUESTED
	invited   = momentsv1.FriendState_FRIEND_STATE_INVITED
)

// act makes one step of a user towards another.
func (w *world) act(ctx context.Context, step, user, other, key string) (momentsv1.FriendState, error) {
	switch step {
	case "request":
		res, err := w.RequestFriend(ctx, &momentsv1.RequestFriendRequest{UserId: user, OtherId: other, IdempotencyKey: key})
		return res.GetState(), err
	case "accept":
		res, err := w.AcceptFriend(ctx, &momentsv1.AcceptFriendRequest{UserId: user, OtherId: other, IdempotencyKey: key})
		return res.GetState(), err
	case "decline":
		res, err := w.DeclineFriend(ctx, &momentsv1.DeclineFriendRequest{UserId: user, OtherId: other, IdempotencyKey: key})
		return res.GetState(), err
	case "unfriend":
		res, err := w.Unfriend(ctx, &momentsv1.UnfriendRequest{UserId: user, OtherId: other, IdempotencyKey: key})
		return res.GetState(), err
	case "block":
		res, err := w.Block(ctx, &momentsv1.BlockRequest{UserId: user, OtherId: other, IdempotencyKey: key})
		return res.GetState(), err
	case "unblock":
		res, err := w.Unblock(ctx, &momentsv1.UnblockRequest{UserId: user, OtherId: other, IdempotencyKey: key})
		return res.GetState(), err
	}
	return 0, fmt.Errorf("no step %q", step)
}

func (w *world) must(step, user, other string) momentsv1.FriendState {
	w.t.Helper()
	state, err := w.act(w.t.Context(), step, user, other, "")
	if err != nil {
		w.t.Fatalf("%s: %v", step, err)
	}
	return state
}

// areFriends asks each side, by list and by relations, and wants all to agree.
func (w *world) areFriends(a, b string) bool {
	w.t.Helper()
	var answers []bool
	for _, side := range [][2]string{{a, b}, {b, a}} {
		list, err := w.ListFriends(w.t.Context(), &momentsv1.ListFriendsRequest{UserId: side[0]})
		if err != nil {
			w.t.Fatal(err)
		}
		answers = append(answers, slices.Contains(list.GetUserIds(), side[1]))
		rel, err := w.Relations(w.t.Context(), &momentsv1.RelationsRequest{ViewerId: side[0], AuthorIds: []string{side[1]}})
		if err != nil {
			w.t.Fatal(err)
		}
		answers = append(answers, rel.GetRelations()[0].GetFriends())
	}
	if len(slices.Compact(answers)) != 1 {
		w.t.Errorf("list and relations of both sides do not agree: %v", answers)
	}
	return answers[0]
}

func (w *world) requests(user string) []string {
	w.t.Helper()
	res, err := w.ListFriendRequests(w.t.Context(), &momentsv1.ListFriendRequestsRequest{UserId: user})
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, r := range res.GetRequests() {
		ids = append(ids, r.GetUserId())
	}
	return ids
}

func TestFriendship(t *testing.T) {
	type step struct {
		who  string // a or b
		does string
		want momentsv1.FriendState
	}
	for _, c := range []struct {
		name    string
		steps   []step
		friends bool
		waits   string // whose answer is waited for, "" for nobody's
	}{
		{"a request alone", []step{{"a", "request", requested}}, false, "b"},
		{"asking twice", []step{{"a", "request", requested}, {"a", "request", requested}}, false, "b"},
		{"accepted", []step{{"a", "request", requested}, {"b", "accept", friends}}, true, ""},
		{"accepted twice", []step{{"a", "request", requested}, {"b", "accept", friends}, {"b", "accept", friends}}, true, ""},
		{"both ask", []step{{"a", "request", requested}, {"b", "request", friends}}, true, ""},
		{"asking a friend", []step{{"a", "request", requested}, {"b", "accept", friends}, {"b", "request", friends}}, true, ""},
		{"declined", []step{{"a", "request", requested}, {"b", "decline", none}}, false, ""},
		{"a decline looks like waiting, and asking again is a new request", []step{{"a", "request", requested}, {"b", "decline", none}, {"a", "request", requested}}, false, "b"},
		{"declined, then asked by the other", []step{{"a", "request", requested}, {"b", "decline", none}, {"b", "request", requested}}, false, "a"},
		{"withdrawn", []step{{"a", "request", requested}, {"a", "unfriend", none}}, false, ""},
		{"unfriended by one", []step{{"a", "request", requested}, {"b", "accept", friends}, {"b", "unfriend", none}}, false, ""},
		{"the other's old half does not make friends again", []step{{"a", "request", requested}, {"b", "accept", friends}, {"b", "unfriend", none}, {"b", "request", requested}}, false, "a"},
		{"friends again", []step{{"a", "request", requested}, {"b", "accept", friends}, {"a", "unfriend", none}, {"b", "request", requested}, {"a", "accept", friends}}, true, ""},
		{"both unfriend", []step{{"a", "request", requested}, {"b", "accept", friends}, {"a", "unfriend", none}, {"b", "unfriend", none}}, false, ""},
		{"blocking ends it", []step{{"a", "request", requested}, {"b", "accept", friends}, {"b", "block", none}}, false, ""},
		{"who is blocked asks into the void", []step{{"b", "block", none}, {"a", "request", requested}}, false, ""},
		{"unblocking does not bring back what was asked", []step{{"b", "block", none}, {"a", "request", requested}, {"b", "unblock", none}}, false, ""},
		{"asking after the unblocking", []step{{"b", "block", none}, {"a", "request", requested}, {"b", "unblock", none}, {"a", "request", requested}}, false, "b"},
		{"nothing to decline", []step{{"b", "decline", none}}, false, ""},
		{"nothing to take back", []step{{"b", "unfriend", none}}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			ids := map[string]string{"a": w.register("aa"), "b": w.register("bb")}
			other := map[string]string{"a": ids["b"], "b": ids["a"]}
			for i, s := range c.steps {
				if got := w.must(s.does, ids[s.who], other[s.who]); got != s.want {
					t.Fatalf("step %d: %s does %s: %v, want %v", i, s.who, s.does, got, s.want)
				}
			}
			if got := w.areFriends(ids["a"], ids["b"]); got != c.friends {
				t.Errorf("friends: %v, want %v", got, c.friends)
			}
			for _, who := range []string{"a", "b"} {
				if got := len(w.requests(ids[who])) > 0; got != (c.waits == who) {
					t.Errorf("a request waits for %s: %v, want %v", who, got, c.waits == who)
				}
			}
		})
	}
}

func TestFriendErrors(t *testing.T) {
	w := newWorld(t)
	a, b := w.register("aa"), w.register("bb")
	nobody := "0000000000000000000000000" + "7"
	w.must("block", b, a)
	for _, c := range []struct {
		name, step, user, other string
		code                    rpc.Code
		problem                 string
	}{
		{"oneself", "request", a, a, rpc.InvalidArgument, "invalid"},
		{"nobody", "request", a, nobody, rpc.NotFound, "not-found"},
		{"by nobody", "request", nobody, a, rpc.NotFound, "not-found"},
		{"no id", "request", a, "x", rpc.InvalidArgument, "invalid"},
		{"no request to accept", "accept", a, b, rpc.FailedPrecondition, "no-request"},
		{"whom one blocks", "request", b, a, rpc.FailedPrecondition, "blocked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.act(t.Context(), c.step, c.user, c.other, "")
			wantProblem(t, err, c.code, c.problem)
		})
	}
}

func TestFriendKeys(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.register("aa"), w.register("bb"), w.register("cc")
	do := func(step, user, other, key string) momentsv1.FriendState {
		t.Helper()
		state, err := w.act(t.Context(), step, user, other, key)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	do("request", a, b, "k1")
	do("accept", b, a, "k1") // another user's same key is unrelated
	do("unfriend", a, b, "k2")
	if got := do("request", a, b, "k1"); got != requested || w.areFriends(a, b) || len(w.requests(b)) != 0 {
		t.Errorf("the repeated request: %v, and it acted, want the first answer and nothing done", got)
	}
	_, err := w.act(t.Context(), "request", a, c, "k1")
	wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
	_, err = w.act(t.Context(), "unfriend", a, b, "k1")
	wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
}

// TestKeysEnd: a key is good for a day and forgotten in the next two, by the service's
// own background work.
func TestKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		svc, err := account.New(t.Context(), config(store))
		if err != nil {
			t.Fatal(err)
		}
		conn := rpctest.Local(t, func(r rpc.Registrar) { momentsv1.RegisterAccountServiceServer(r, svc) })
		w := &world{AccountServiceClient: momentsv1.NewAccountServiceClient(conn), t: t, store: store}
		a, b, c := w.register("aa"), w.register("bb"), w.register("cc")
		if _, err := w.act(t.Context(), "request", a, b, "k"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if got, err := w.act(t.Context(), "request", a, b, "k"); got != requested || err != nil {
			t.Errorf("a day later: %v, %v", got, err)
		}
		_, err = w.act(t.Context(), "request", a, c, "k")
		wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
		time.Sleep(25 * time.Hour)
		ctx, stop := context.WithTimeout(t.Context(), 75*time.Minute)
		defer stop()
		if err := svc.Run(ctx); err != nil {
			t.Error(err)
		}
		for slot := range kv.Slot(kv.Slots) {
			items, _, err := store.Scan(t.Context(), slot, kv.Prefix([]byte{once.Table}, 0), kv.Local)
			if err != nil || len(items) != 0 {
				t.Errorf("slot %d keeps %d records, %v", slot, len(items), err)
			}
		}
		if _, err := w.act(t.Context(), "request", a, c, "k"); err != nil {
			t.Errorf("with a forgotten key: %v", err)
		}
	})
}

func TestFriendLimit(t *testing.T) {
	const limit = 3
	w := newWorld(t, func(c *account.Config) { c.MaxFriends = limit })
	a := w.register("aa")
	var others []string
	for i := range limit + 2 {
		others = append(others, w.register(fmt.Sprintf("other%d", i)))
	}
	w.must("request", others[limit+1], a)
	for _, other := range others[:limit] {
		w.must("request", a, other)
	}
	_, err := w.act(t.Context(), "request", a, others[limit], "")
	wantProblem(t, err, rpc.FailedPrecondition, "limit")
	_, err = w.act(t.Context(), "accept", a, others[limit+1], "")
	wantProblem(t, err, rpc.FailedPrecondition, "limit")
	w.must("decline", others[0], a) // a declined request takes no room
	w.must("request", a, others[limit])
	w.must("unfriend", a, others[1])
	if got := w.must("accept", a, others[limit+1]); got != friends {
		t.Errorf("after making room: %v, want friends", got)
	}
}

func TestFriendPagesAndVersions(t *testing.T) {
	w := newWorld(t)
	a := w.register("aa")
	version := func() uint64 {
		res, err := w.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: a})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetVersion()
	}
	before := version()
	var want []string
	for i := range 12 {
		other := w.register(fmt.Sprintf("other%d", i))
		w.must("request", other, a)
		w.must("accept", a, other)
		if now := version(); now <= before {
			t.Fatalf("the version went from %d to %d with a new friend", before, now)
		} else {
			before = now
		}
		want = append(want, other)
	}
	slices.Sort(want)
	for _, limit := range []uint32{1, 5, 12, 500} {
		var got []string
		for cursor := ""; ; {
			res, err := w.ListFriends(t.Context(), &momentsv1.ListFriendsRequest{UserId: a, Cursor: cursor, Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, res.GetUserIds()...)
			if cursor = res.GetNextCursor(); cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v", limit, got, want)
		}
	}
	res, err := w.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: a, AuthorIds: []string{want[3], a, want[5]}, KnownVersion: before})
	if err != nil || !res.GetUnchanged() || len(res.GetRelations()) != 0 {
		t.Errorf("of a known version: %v, %v, want unchanged", res, err)
	}
	res, err = w.Relations(t.Context(), &momentsv1.RelationsRequest{ViewerId: a, AuthorIds: []string{want[3], a, want[5]}})
	if err != nil || len(res.GetRelations()) != 3 || !res.GetRelations()[0].GetFriends() || res.GetRelations()[1].GetFriends() || !res.GetRelations()[2].GetFriends() {
		t.Errorf("relations: %v, %v, want friends, self, friends", res, err)
	}
	_, err = w.ListFriends(t.Context(), &momentsv1.ListFriendsRequest{UserId: a, Limit: 501})
	wantProblem(t, err, rpc.InvalidArgument, "invalid")
	page, err := w.ListFriends(t.Context(), &momentsv1.ListFriendsRequest{UserId: a, Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]*momentsv1.ListFriendsRequest{
		"somebody else's": {UserId: want[0], Cursor: page.GetNextCursor()},
		"a user's id":     {UserId: a, Cursor: want[1]},
		"cut":             {UserId: a, Cursor: page.GetNextCursor()[1:]},
	} {
		if _, err := w.ListFriends(t.Context(), req); rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("a cursor that is %s: %v, want it refused", name, err)
		}
	}
	_, err = w.ListFriendRequests(t.Context(), &momentsv1.ListFriendRequestsRequest{UserId: a, Cursor: page.GetNextCursor()})
	wantProblem(t, err, rpc.InvalidArgument, "invalid")
}

// TestFriendsOverFailures makes every write of a friendship fail in every way, at
// every place, and wants both sides to agree in the end and nothing acknowledged to
// be lost.
func TestFriendsOverFailures(t *testing.T) {
	for _, fault := range []memkv.Fault{memkv.Unavailable, memkv.UnknownLost, memkv.UnknownApplied} {
		for at := range 6 {
			t.Run(fmt.Sprintf("fault %d at write %d", fault, at), func(t *testing.T) {
				w := newWorld(t)
				a, b := w.register("aa"), w.register("bb")
				var mu sync.Mutex
				writes := 0
				w.store.SetFaults(func(c memkv.Call) memkv.Fault {
					if c.Method != memkv.Apply {
						return memkv.None
					}
					mu.Lock()
					defer mu.Unlock()
					writes++
					if writes == at+1 {
						return fault
					}
					return memkv.None
				})
				_, asked := w.act(t.Context(), "request", a, b, "k1")
				_, accepted := w.act(t.Context(), "accept", b, a, "k2")
				w.store.SetFaults(nil)

				// A start of the service brings over what was left, and then repeating what
				// failed works.
				w = restarted(t, w)
				if asked == nil && accepted == nil && !w.areFriends(a, b) {
					t.Error("an acknowledged friendship is lost")
				}
				w.areFriends(a, b)
				if _, err := w.act(t.Context(), "request", a, b, "k1"); err != nil {
					t.Errorf("repeat the request: %v", err)
				}
				if _, err := w.act(t.Context(), "accept", b, a, "k2"); err != nil {
					t.Errorf("repeat the answer: %v", err)
				}
				if !w.areFriends(a, b) {
					t.Error("not friends after repeating everything")
				}
			})
		}
	}
}

// restarted crashes the store and starts the service again on what survived, and
// waits until its background work has found nothing left to do.
func restarted(t *testing.T, w *world, change ...func(*account.Config)) *world {
	t.Helper()
	w.store.Crash()
	store, err := w.store.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	settle(t, store, change...)
	return open(t, store)
}

// settle runs a service until nothing waits in the store.
func settle(t *testing.T, store *memkv.Store, change ...func(*account.Config)) {
	t.Helper()
	cfg := config(store)
	cfg.Timeline = &timelines{}
	for _, c := range change {
		c(&cfg)
	}
	svc, err := account.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	deadline := time.Now().Add(time.Minute)
	for waiting(t, store) > 0 {
		if time.Now().After(deadline) {
			t.Error("work is left after a minute")
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// waiting counts what waits in the store for Run.
func waiting(t *testing.T, store *memkv.Store) int {
	t.Helper()
	return rows(t, store, "m") + rows(t, store, "b") + rows(t, store, "w")
}

// timelines stands for the timeline service.
type timelines struct {
	momentsv1.TimelineServiceClient
	mu     sync.Mutex
	filled map[string]int // guarded by mu; by reader and author
	fail   int            // guarded by mu; calls still to fail
}

func (f *timelines) Backfill(_ context.Context, req *momentsv1.BackfillRequest) (*momentsv1.BackfillResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail > 0 {
		f.fail--
		return nil, rpc.Errorf(rpc.Unavailable, "not now")
	}
	if f.filled == nil {
		f.filled = map[string]int{}
	}
	f.filled[req.GetReaderId()+" "+req.GetAuthorId()]++
	return &momentsv1.BackfillResponse{}, nil
}

func TestBackfillOfNewFriends(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.register("aa"), w.register("bb"), w.register("cc")
	for _, other := range []string{b, c} {
		w.must("request", a, other)
		w.must("accept", other, a)
	}
	w.must("unfriend", a, c) // before anything was filled
	filler := &timelines{fail: 1}
	settle(t, w.store, func(cfg *account.Config) { cfg.Timeline = filler })
	filler.mu.Lock()
	defer filler.mu.Unlock()
	if len(filler.filled) != 2 || filler.filled[a+" "+b] == 0 || filler.filled[b+" "+a] == 0 {
		t.Errorf("filled %v, want both directions of %s and %s", filler.filled, a, b)
	}
}

func TestConcurrentSteps(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 4 {
		ids = append(ids, w.register(fmt.Sprintf("user%d", i)))
	}
	steps := []string{"request", "accept", "decline", "unfriend", "block", "unblock"}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 100 {
				i, j := rng.IntN(4), rng.IntN(3)
				if j >= i {
					j++
				}
				_, err := w.act(t.Context(), steps[rng.IntN(len(steps))], ids[i], ids[j], "")
				switch rpc.CodeOf(err) {
				case 0, rpc.FailedPrecondition, rpc.DeadlineExceeded:
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
	settle(t, w.store)
	for i := range ids {
		for j := range i {
			w.areFriends(ids[i], ids[j])
		}
	}
}
