// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (w *world) session(token string) string {
	w.t.Helper()
	res, err := w.Authenticate(w.t.Context(), &momentsv1.AuthenticateRequest{Token: token})
	if err != nil {
		w.t.Fatalf("authenticate: %v", err)
	}
	return res.GetSessionId()
}

func (w *world) alive(token string) bool {
	w.t.Helper()
	_, err := w.Authenticate(w.t.Context(), &momentsv1.AuthenticateRequest{Token: token})
	if err != nil && rpc.CodeOf(err) != rpc.Unauthenticated {
		w.t.Fatalf("authenticate: %v", err)
	}
	return err == nil
}

func (w *world) sessions(user string) []*momentsv1.Session {
	w.t.Helper()
	res, err := w.ListSessions(w.t.Context(), &momentsv1.ListSessionsRequest{UserId: user})
	if err != nil {
		w.t.Fatalf("list sessions: %v", err)
	}
	return res.GetSessions()
}

func (w *world) tryLogIn(name, password, source string) error {
	_, err := w.LogIn(w.t.Context(), &momentsv1.LogInRequest{Name: name, Password: password, Source: source})
	return err
}

func TestSessionList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, stop := running(t)
		defer stop()
		mary, john := w.register("Mary"), w.register("John")
		log := func(device string) string {
			time.Sleep(time.Minute)
			res, err := w.LogIn(t.Context(), &momentsv1.LogInRequest{Name: "Mary", Password: password, Device: device})
			if err != nil {
				t.Fatal(err)
			}
			return res.GetToken()
		}
		phone, pad, desk := log("phone"), log("pad"), log("desk")
		johns := w.logIn("John")
		devices := func() (all []string) {
			for _, s := range w.sessions(mary) {
				all = append(all, s.GetDevice())
			}
			return all
		}
		if got := devices(); !slices.Equal(got, []string{"desk", "pad", "phone"}) {
			t.Errorf("sessions on %v, want the newest first", got)
		}

		{ // the last use is known to the hour
			time.Sleep(5 * time.Hour)
			w.session(pad)
			synctest.Wait()
			for _, s := range w.sessions(mary) {
				idle := time.Since(time.UnixMilli(s.GetLastUsedMs()))
				if used := idle < 2*time.Hour; used != (s.GetDevice() == "pad") || s.GetLastUsedMs() < s.GetCreatedMs() {
					t.Errorf("%s was used %v ago", s.GetDevice(), idle)
				}
			}
		}
		{ // another's session stays
			_, err := w.EndSessions(t.Context(), &momentsv1.EndSessionsRequest{UserId: mary, SessionId: w.session(johns)})
			if err != nil || !w.alive(johns) {
				t.Errorf("ending it: %v; alive %v", err, w.alive(johns))
			}
		}
		{ // one
			for range 2 { // twice is fine
				if _, err := w.EndSessions(t.Context(), &momentsv1.EndSessionsRequest{UserId: mary, SessionId: idOf(w, mary, "pad")}); err != nil {
					t.Fatal(err)
				}
			}
			if w.alive(pad) || !w.alive(phone) || !w.alive(desk) {
				t.Error("not exactly the one has ended")
			}
		}
		{ // all others
			if _, err := w.EndSessions(t.Context(), &momentsv1.EndSessionsRequest{UserId: mary, KeepSessionId: w.session(phone)}); err != nil {
				t.Fatal(err)
			}
			if w.alive(desk) || !w.alive(phone) || !w.alive(johns) {
				t.Error("not exactly the others have ended")
			}
		}
		{ // all
			if _, err := w.EndSessions(t.Context(), &momentsv1.EndSessionsRequest{UserId: mary}); err != nil {
				t.Fatal(err)
			}
			if w.alive(phone) || !w.alive(johns) || len(w.sessions(mary)) != 0 || len(w.sessions(john)) != 1 {
				t.Error("not exactly hers have ended")
			}
		}
		for _, c := range []struct {
			name string
			req  *momentsv1.EndSessionsRequest
		}{
			{"no user", &momentsv1.EndSessionsRequest{UserId: "x"}},
			{"no session", &momentsv1.EndSessionsRequest{UserId: mary, SessionId: "x"}},
			{"no session to keep", &momentsv1.EndSessionsRequest{UserId: mary, KeepSessionId: "x"}},
		} {
			_, err := w.EndSessions(t.Context(), c.req)
			if rpc.CodeOf(err) != rpc.InvalidArgument {
				t.Errorf("%s: %v, want invalid", c.name, err)
			}
		}
	})
}

// idOf gives the session that was opened on a device.
func idOf(w *world, user, device string) string {
	for _, s := range w.sessions(user) {
		if s.GetDevice() == device {
			return s.GetSessionId()
		}
	}
	return newUser()
}

// newUser gives an id that nobody has.
func newUser() string { return strings.Repeat("0", 25) + "7" }

// running is a world whose background work runs, in the same service.
func running(t *testing.T, change ...func(*account.Config)) (w *world, stop func()) {
	t.Helper()
	store := memkv.New()
	t.Cleanup(func() { _ = store.Close() })
	return runOn(t, store, change...)
}

func runOn(t *testing.T, store *memkv.Store, change ...func(*account.Config)) (w *world, stop func()) {
	t.Helper()
	cfg := config(store)
	cfg.Logger = slog.New(slog.DiscardHandler)
	for _, c := range change {
		c(&cfg)
	}
	svc, err := account.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	return serve(t, store, svc), func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestChangePassword(t *testing.T) {
	const fresh = "battery staple"
	w := newWorld(t)
	mary := w.register("Mary")
	here, there := w.logIn("Mary"), w.logIn("Mary")
	change := func(old, fresh, key string) error {
		_, err := w.ChangePassword(t.Context(), &momentsv1.ChangePasswordRequest{
			UserId: mary, SessionId: w.session(here), OldPassword: old, NewPassword: fresh, IdempotencyKey: key,
		})
		return err
	}
	wantProblem(t, change("wrong password", fresh, ""), rpc.PermissionDenied, "wrong-password")
	wantProblem(t, change("x", fresh, ""), rpc.PermissionDenied, "wrong-password")
	err := change(password, "short", "")
	var p momentsv1.Problem
	if rpc.Detail(err, &p); rpc.CodeOf(err) != rpc.InvalidArgument || p.GetField() != "new_password" {
		t.Errorf("a short password: %v about %q", err, p.GetField())
	}
	if !w.alive(there) || w.tryLogIn("Mary", password, "") != nil {
		t.Error("a refused change has changed something")
	}
	for range 2 { // repeated with its key it is answered alike
		if err := change(password, fresh, "k"); err != nil {
			t.Fatal(err)
		}
	}
	wantProblem(t, change(fresh, "something else", "k"), rpc.FailedPrecondition, "idempotency-conflict")
	if !w.alive(here) || w.alive(there) {
		t.Errorf("alive: here %v, there %v; want here alone", w.alive(here), w.alive(there))
	}
	wantProblem(t, w.tryLogIn("Mary", password, ""), rpc.Unauthenticated, "bad-credentials")
	if err := w.tryLogIn("Mary", fresh, ""); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}

// TestLogInRacesPasswordChange: a log-in whose password was right when it was looked
// at opens no session once another one holds.
func TestLogInRacesPasswordChange(t *testing.T) {
	store := &scanned{}
	w := newWorld(t, func(c *account.Config) { store.Store, c.Store = c.Store, store })
	mary := w.register("Mary")
	sess := w.session(w.logIn("Mary"))
	var changed atomic.Bool
	store.first = func() { // the log-in has checked the password and is about to open its session
		if !changed.CompareAndSwap(false, true) {
			return
		}
		if _, err := w.ChangePassword(t.Context(), &momentsv1.ChangePasswordRequest{
			UserId: mary, SessionId: sess, OldPassword: password, NewPassword: "battery staple",
		}); err != nil {
			t.Errorf("change: %v", err)
		}
	}
	wantProblem(t, w.tryLogIn("Mary", password, ""), rpc.Unauthenticated, "bad-credentials")
	if n := len(w.sessions(mary)); n != 1 {
		t.Errorf("%d sessions, want the one that changed the password", n)
	}
}

// scanned is a store that does something before each scan.
type scanned struct {
	kv.Store
	first func() // may be nil
}

func (s *scanned) Scan(ctx context.Context, slot kv.Slot, r kv.Range, mode kv.ReadMode) ([]kv.Item, bool, error) {
	if s.first != nil {
		s.first()
	}
	return s.Store.Scan(ctx, slot, r, mode)
}

func TestBrakes(t *testing.T) {
	braked := func(err error) bool {
		e, ok := errors.AsType[*rpc.Error](err)
		return ok && e.Code == rpc.ResourceExhausted && e.Retry > 0
	}
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"Mary", "Nobody", "."} { // known or not, it is alike
			w := newWorld(t)
			w.register("Mary")
			tries := 0
			for ; tries < 1000 && !braked(w.tryLogIn(name, "wrong password", "192.0.2.1")); tries++ {
			}
			if tries != 20 {
				t.Errorf("%s: %d tries from one place, want 20", name, tries)
			}
			if err := w.tryLogIn(strings.ToUpper(name), password, "192.0.2.1"); !braked(err) {
				t.Errorf("%s: the right password after too many wrong ones: %v, want braked", name, err)
			}
			wantProblem(t, w.tryLogIn(name, password, "192.0.2.1"), rpc.ResourceExhausted, "rate-limited")
			if err := w.tryLogIn(name, "wrong password", "192.0.2.2"); braked(err) {
				t.Errorf("%s: from elsewhere: %v", name, err)
			}
			time.Sleep(time.Minute)
			if err := w.tryLogIn(name, "wrong password", "192.0.2.1"); braked(err) {
				t.Errorf("%s: a minute later: %v, want one more try", name, err)
			}
			if err := w.tryLogIn(name, "wrong password", "192.0.2.1"); !braked(err) {
				t.Errorf("%s: after that: %v, want braked", name, err)
			}
		}
		{ // a name from many places
			w := newWorld(t)
			tries := 0
			for ; tries < 1000 && !braked(w.tryLogIn("Mary", "wrong password", strconv.Itoa(tries))); tries++ {
			}
			if tries != 100 {
				t.Errorf("%d tries, want 100", tries)
			}
		}
		{ // many names from a place
			w := newWorld(t)
			tries := 0
			for ; tries < 1000 && !braked(w.tryLogIn("name"+strconv.Itoa(tries), "wrong password", "192.0.2.1")); tries++ {
			}
			if tries != 100 {
				t.Errorf("%d tries, want 100", tries)
			}
		}
		{ // right ones do not count
			w := newWorld(t)
			w.register("Mary")
			for i := range 200 {
				if err := w.tryLogIn("Mary", password, "192.0.2.1"); err != nil {
					t.Fatalf("log-in %d: %v", i, err)
				}
			}
		}
		{ // the password of a session
			w := newWorld(t)
			mary := w.register("Mary")
			tries := 0
			for ; tries < 1000; tries++ {
				if _, err := w.DeleteAccount(t.Context(), &momentsv1.DeleteAccountRequest{UserId: mary, Password: "wrong password"}); braked(err) {
					break
				}
			}
			if tries != 20 {
				t.Errorf("%d tries, want 20", tries)
			}
			if err := w.tryLogIn("Mary", password, ""); err != nil {
				t.Errorf("log-in: %v: those tries are counted apart", err)
			}
		}
		_, err := newWorld(t).LogIn(t.Context(), &momentsv1.LogInRequest{Name: "Mary", Password: password, Source: strings.Repeat("x", 65)})
		wantProblem(t, err, rpc.InvalidArgument, "invalid")
	})
}

// leftovers is a post and a comment service that hold what a user has left.
type leftovers struct {
	mu       sync.Mutex
	posts    []string
	comments int
	things   map[string]bool // at other services
	fail     int             // so many calls fail first
}

func (l *leftovers) trouble() error {
	if l.fail > 0 {
		l.fail--
		return rpc.Errorf(rpc.Unavailable, "down")
	}
	return nil
}

type leftPosts struct {
	momentsv1.PostServiceClient
	*leftovers
}

func (l leftPosts) ListAlbum(_ context.Context, req *momentsv1.ListAlbumRequest) (*momentsv1.ListAlbumResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := &momentsv1.ListAlbumResponse{}
	for _, p := range l.posts { // newest first
		if req.GetBeforeId() != "" && p >= req.GetBeforeId() {
			continue
		}
		if len(res.PostIds) == 3 {
			res.More = true
			break
		}
		res.PostIds = append(res.PostIds, p)
	}
	return res, l.trouble()
}

func (l leftPosts) Delete(_ context.Context, req *momentsv1.DeletePostRequest) (*momentsv1.DeletePostResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.trouble(); err != nil {
		return nil, err
	}
	l.posts = slices.DeleteFunc(l.posts, func(p string) bool { return p == req.GetPostId() })
	return &momentsv1.DeletePostResponse{}, nil
}

type leftComments struct {
	momentsv1.CommentServiceClient
	*leftovers
}

func (l leftComments) DeleteAllOf(context.Context, *momentsv1.DeleteAllOfRequest) (*momentsv1.DeleteAllOfResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.trouble(); err != nil {
		return nil, err
	}
	if l.comments > 0 {
		l.comments--
		return &momentsv1.DeleteAllOfResponse{NextCursor: "more"}, nil
	}
	return &momentsv1.DeleteAllOfResponse{}, nil
}

func (l *leftovers) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posts) + l.comments + len(l.things)
}

// leftThings is what of the others is called here: each has one thing of somebody.
type leftThings struct {
	momentsv1.TimelineServiceClient
	*leftovers
	what string
}

func (l leftThings) Forget(_ context.Context, req *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.things, l.what+" "+req.GetUserId())
	return &momentsv1.ForgetResponse{}, l.trouble()
}

func (l leftThings) Record(context.Context, *momentsv1.RecordRequest) (*momentsv1.RecordResponse, error) {
	return &momentsv1.RecordResponse{}, nil
}

func (l leftThings) Backfill(context.Context, *momentsv1.BackfillRequest) (*momentsv1.BackfillResponse, error) {
	return &momentsv1.BackfillResponse{}, nil
}

func TestDeleteAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := &leftovers{comments: 3, things: map[string]bool{}}
		for i := range 10 {
			left.posts = append(left.posts, id.Post{15: byte(200 - i)}.String())
		}
		with := func(c *account.Config) {
			c.Posts, c.Comments = leftPosts{leftovers: left}, leftComments{leftovers: left}
			c.Timeline = leftThings{leftovers: left, what: "timeline"}
			c.Notify, c.Media = leftThings{leftovers: left, what: "notices"}, leftThings{leftovers: left, what: "pictures"}
		}
		w, stop := running(t, with)
		mary, john, rose := w.register("Mary"), w.register("John"), w.register("Rose")
		w.must("request", mary, john)
		w.must("accept", john, mary)
		w.must("request", rose, mary) // waits for her answer, for ever
		token := w.logIn("Mary")

		_, err := w.DeleteAccount(t.Context(), &momentsv1.DeleteAccountRequest{UserId: mary, Password: "wrong password"})
		wantProblem(t, err, rpc.PermissionDenied, "wrong-password")
		if !w.alive(token) {
			t.Fatal("a wrong password ended the session")
		}
		left.mu.Lock()
		for _, what := range []string{"timeline", "notices", "pictures"} {
			left.things[what+" "+mary] = true
		}
		left.fail = 5
		left.mu.Unlock()
		if _, err := w.DeleteAccount(t.Context(), &momentsv1.DeleteAccountRequest{UserId: mary, Password: password}); err != nil {
			t.Fatal(err)
		}
		if w.alive(token) {
			t.Error("a session outlived its account")
		}
		_, err = w.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: mary})
		wantProblem(t, err, rpc.NotFound, "not-found")
		_, err = w.FindUser(t.Context(), &momentsv1.FindUserRequest{Name: "Mary"})
		wantProblem(t, err, rpc.NotFound, "not-found")
		wantProblem(t, w.tryLogIn("Mary", password, ""), rpc.Unauthenticated, "bad-credentials")
		_, err = w.Register(t.Context(), &momentsv1.RegisterRequest{Name: "mary", Password: password})
		wantProblem(t, err, rpc.AlreadyExists, "name-taken")
		if names := w.users(0); slices.Contains(names, "Mary") {
			t.Errorf("users %v, want none of her", names)
		}

		// The process ends in the middle and another one goes on.
		stop()
		w, stop = runOn(t, w.store, with)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := left.left(); n != 0 {
			t.Errorf("%d things are left", n)
		}
		gone, err := w.ListUsers(t.Context(), &momentsv1.ListUsersRequest{Deleted: true, Limit: 1000})
		for err == nil && gone.GetNextCursor() != "" && len(gone.GetProfiles()) == 0 {
			gone, err = w.ListUsers(t.Context(), &momentsv1.ListUsersRequest{Deleted: true, Limit: 1000, Cursor: gone.GetNextCursor()})
		}
		if err != nil || len(gone.GetProfiles()) != 1 || gone.GetProfiles()[0].GetUserId() != mary {
			t.Errorf("deleted accounts: %v, %v, want hers", gone.GetProfiles(), err)
		}
		if _, err := w.DeleteAccount(t.Context(), &momentsv1.DeleteAccountRequest{UserId: mary, Password: password}); err != nil {
			t.Errorf("deleted again: %v", err)
		}
		for _, other := range []string{john, rose} {
			res, err := w.ListFriends(t.Context(), &momentsv1.ListFriendsRequest{UserId: other})
			if err != nil || len(res.GetUserIds()) != 0 {
				t.Errorf("friends of %s: %v, %v, want none", other, res.GetUserIds(), err)
			}
		}
		stop()
		for kind, want := range map[string]int{"x": 1, "s": 0, "f": 0, "v": 0, "u": 2, "n": 3} {
			if n := rows(t, w.store, kind); n != want {
				t.Errorf("%d rows of kind %s, want %d", n, kind, want)
			}
		}
		if _, err := w.act(t.Context(), "request", john, mary, ""); rpc.CodeOf(err) != rpc.NotFound {
			t.Errorf("asking who is gone: %v, want not found", err)
		}
	})
}
