// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "correct horse"

// world is an account service on a store in memory, reached through the framework.
type world struct {
	momentsv1.AccountServiceClient
	t     *testing.T
	store *memkv.Store
}

func config(store *memkv.Store) account.Config {
	return account.Config{Store: store, Region: 1, PasswordCost: account.CheapestCost, PasswordWorkers: 2}
}

func newWorld(t *testing.T, change ...func(*account.Config)) *world {
	t.Helper()
	store := memkv.New()
	t.Cleanup(func() { _ = store.Close() })
	return open(t, store, change...)
}

func open(t *testing.T, store *memkv.Store, change ...func(*account.Config)) *world {
	t.Helper()
	cfg := config(store)
	for _, c := range change {
		c(&cfg)
	}
	svc, err := account.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, store, svc)
}

func serve(t *testing.T, store *memkv.Store, svc *account.Service) *world {
	t.Helper()
	conn := rpctest.Local(t, func(r rpc.Registrar) { momentsv1.RegisterAccountServiceServer(r, svc) })
	return &world{AccountServiceClient: momentsv1.NewAccountServiceClient(conn), t: t, store: store}
}

func (w *world) register(name string) string {
	w.t.Helper()
	res, err := w.Register(w.t.Context(), &momentsv1.RegisterRequest{Name: name, Password: password})
	if err != nil {
		w.t.Fatalf("register %s: %v", name, err)
	}
	return res.GetProfile().GetUserId()
}

func (w *world) logIn(name string) string {
	w.t.Helper()
	res, err := w.LogIn(w.t.Context(), &momentsv1.LogInRequest{Name: name, Password: password})
	if err != nil {
		w.t.Fatalf("log in %s: %v", name, err)
	}
	return res.GetToken()
}

func wantProblem(t *testing.T, err error, code rpc.Code, kind string) {
	t.Helper()
	var p momentsv1.Problem
	rpc.Detail(err, &p)
	if rpc.CodeOf(err) != code || p.GetType() != kind {
		t.Errorf("error %v with problem %q, want %v with problem %q", err, p.GetType(), code, kind)
	}
}

func TestRegister(t *testing.T) {
	w := newWorld(t)
	w.register("Mary")
	for _, c := range []struct {
		name    string
		req     *momentsv1.RegisterRequest
		problem string
		field   string
	}{
		{"the same name", &momentsv1.RegisterRequest{Name: "Mary", Password: password}, "name-taken", "name"},
		{"another case", &momentsv1.RegisterRequest{Name: "mARY", Password: password}, "name-taken", "name"},
		{"full-width letters", &momentsv1.RegisterRequest{Name: "Ｍａｒｙ", Password: password}, "name-taken", "name"},
		{"too short a name", &momentsv1.RegisterRequest{Name: "a", Password: password}, "invalid", "name"},
		{"too long a name", &momentsv1.RegisterRequest{Name: strings.Repeat("a", 33), Password: password}, "invalid", "name"},
		{"a space in the name", &momentsv1.RegisterRequest{Name: "Mary Jane", Password: password}, "invalid", "name"},
		{"a name that begins with a dot", &momentsv1.RegisterRequest{Name: ".mary", Password: password}, "invalid", "name"},
		{"a NUL in the name", &momentsv1.RegisterRequest{Name: "ma\x00ry", Password: password}, "invalid", "name"},
		{"a short password", &momentsv1.RegisterRequest{Name: "John", Password: "1234567"}, "invalid", "password"},
		{"a long password", &momentsv1.RegisterRequest{Name: "John", Password: strings.Repeat("p", 129)}, "invalid", "password"},
		{"a control character in the display name", &momentsv1.RegisterRequest{Name: "John", Password: password, DisplayName: "a\nb"}, "invalid", "display_name"},
		{"a display name that turns text around", &momentsv1.RegisterRequest{Name: "John", Password: password, DisplayName: "a\u202eb"}, "invalid", "display_name"},
		{"a blank display name", &momentsv1.RegisterRequest{Name: "John", Password: password, DisplayName: "  "}, "invalid", "display_name"},
		{"a long key", &momentsv1.RegisterRequest{Name: "John", Password: password, IdempotencyKey: strings.Repeat("k", 65)}, "invalid", "idempotency_key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.Register(t.Context(), c.req)
			var p momentsv1.Problem
			if !rpc.Detail(err, &p) || p.GetType() != c.problem || p.GetField() != c.field {
				t.Errorf("error %v with problem %v, want problem %s of field %s", err, &p, c.problem, c.field)
			}
		})
	}
	t.Run("Chinese and emoji", func(t *testing.T) {
		res, err := w.Register(t.Context(), &momentsv1.RegisterRequest{Name: "小明_2", Password: "пароль密码密码", DisplayName: " 小明 👨‍👩‍👧 "})
		if err != nil || res.GetProfile().GetDisplayName() != "小明 👨‍👩‍👧" {
			t.Errorf("got %v, %v", res, err)
		}
	})
}

func TestRegisterOnceByKey(t *testing.T) {
	w := newWorld(t)
	req := &momentsv1.RegisterRequest{Name: "Mary", Password: password, IdempotencyKey: "k1"}
	first, err := w.Register(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.Register(t.Context(), req)
	if err != nil || again.GetProfile().GetUserId() != first.GetProfile().GetUserId() {
		t.Errorf("repeated: %v, %v, want the first account %v", again, err, first)
	}
	_, err = w.Register(t.Context(), &momentsv1.RegisterRequest{Name: "Mary", Password: "another password", IdempotencyKey: "k1"})
	wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
	_, err = w.Register(t.Context(), &momentsv1.RegisterRequest{Name: "Mary", Password: password, IdempotencyKey: "k2"})
	wantProblem(t, err, rpc.AlreadyExists, "name-taken")
}

func TestRegisterRace(t *testing.T) {
	w := newWorld(t)
	const racers = 8
	var wg sync.WaitGroup
	won := make(chan string, racers)
	for i := range racers {
		wg.Go(func() {
			name := "Mary"
			if i%2 == 1 {
				name = "mary"
			}
			res, err := w.Register(t.Context(), &momentsv1.RegisterRequest{Name: name, Password: password})
			if err == nil {
				won <- res.GetProfile().GetUserId()
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d accounts have the name, want 1", len(won))
	}
	found, err := w.FindUser(t.Context(), &momentsv1.FindUserRequest{Name: "MARY"})
	if want := <-won; err != nil || found.GetProfile().GetUserId() != want {
		t.Errorf("found %v, %v, want user %s", found, err, want)
	}
}

func TestSessions(t *testing.T) {
	w := newWorld(t)
	mary := w.register("Mary")
	for _, c := range []struct{ name, user, password string }{
		{"a wrong password", "Mary", "wrong password"},
		{"an unknown name", "John", password},
		{"what can be no password", "Mary", "x"},
		{"what can be no name", "\x00", password},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.LogIn(t.Context(), &momentsv1.LogInRequest{Name: c.user, Password: c.password})
			wantProblem(t, err, rpc.Unauthenticated, "bad-credentials")
		})
	}
	token := w.logIn("mary")
	got, err := w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token})
	if err != nil || got.GetUserId() != mary || got.GetMaxAgeMs() == 0 || got.GetMaxAgeMs() > 1000 {
		t.Fatalf("authenticate: %v, %v, want user %s and an age of 1 to 1000 ms", got, err, mary)
	}
	for i := range len(token) {
		forged := []byte(token)
		if forged[i]++; forged[i] == '{' || forged[i] == '[' {
			forged[i] = 'A'
		}
		if _, err := w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: string(forged)}); rpc.CodeOf(err) != rpc.Unauthenticated {
			t.Fatalf("a token changed at %d: %v, want unauthenticated", i, err)
		}
	}
	stampNow := func() (process, stamp uint64) {
		res, err := w.Stamps(t.Context(), &momentsv1.StampsRequest{})
		if err != nil || len(res.GetStamps()) != kv.Slots {
			t.Fatalf("stamps of %d slots, %v", len(res.GetStamps()), err)
		}
		return res.GetProcess(), res.GetStamps()[got.GetSlot()]
	}
	if process, stamp := stampNow(); stamp == 0 || stamp != got.GetStamp() || process != got.GetProcess() || got.GetLastsMs() == 0 {
		t.Fatalf("stamp %d of process %d, for %v", stamp, process, got)
	}
	other := w.logIn("Mary")
	if _, stamp := stampNow(); stamp == got.GetStamp() {
		t.Fatal("the stamp is the same after a session has been written beside it")
	}
	if _, err := w.LogOut(t.Context(), &momentsv1.LogOutRequest{Token: token}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token})
	wantProblem(t, err, rpc.Unauthenticated, "unauthenticated")
	if _, err := w.LogOut(t.Context(), &momentsv1.LogOutRequest{Token: token}); err != nil {
		t.Errorf("log out twice: %v", err)
	}
	if _, err := w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: other}); err != nil {
		t.Errorf("the other session: %v", err)
	}

	t.Run("known after a start", func(t *testing.T) {
		w.store.Crash()
		store, err := w.store.Reopen()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		again := open(t, store)
		if _, err := again.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: other}); err != nil {
			t.Errorf("session after a crash: %v", err)
		}
		if _, err := again.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token}); rpc.CodeOf(err) != rpc.Unauthenticated {
			t.Errorf("ended session after a crash: %v, want unauthenticated", err)
		}
	})
}

// TestRevocation: another process ends a session, and this one, which has just seen
// it, believes it for a second at most.
func TestRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.register("Mary")
		token := w.logIn("Mary")
		ask := func() error {
			_, err := w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token})
			return err
		}
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		elsewhere := open(t, w.store)
		if _, err := elsewhere.LogOut(t.Context(), &momentsv1.LogOutRequest{Token: token}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := ask(); rpc.CodeOf(err) != rpc.Unauthenticated {
			t.Errorf("a second after the log-out: %v, want unauthenticated", err)
		}
	})
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *account.Config) { c.SessionTTL, c.MaxSessions = time.Hour, 3 })
		w.register("Mary")
		var tokens []string
		for range 4 {
			tokens = append(tokens, w.logIn("Mary"))
		}
		for i, token := range tokens {
			_, err := w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: token})
			if (err == nil) != (i > 0) {
				t.Errorf("session %d of 4 with room for 3: %v", i, err)
			}
		}
		time.Sleep(time.Hour)
		if _, err := w.Authenticate(t.Context(), &momentsv1.AuthenticateRequest{Token: tokens[3]}); rpc.CodeOf(err) != rpc.Unauthenticated {
			t.Errorf("an expired session: %v, want unauthenticated", err)
		}
	})
}

func TestPasswordsAreWorkedInBoundedRoom(t *testing.T) {
	w := newWorld(t, func(c *account.Config) {
		c.PasswordWorkers, c.PasswordQueue, c.PasswordCost = 1, 1, account.Cost{MemoryKiB: 8 << 10, Passes: 8, Lanes: 1}
	})
	w.register("Mary")
	const callers = 16
	var wg sync.WaitGroup
	results := make(chan error, callers)
	for range callers {
		wg.Go(func() {
			_, err := w.LogIn(t.Context(), &momentsv1.LogInRequest{Name: "Mary", Password: password})
			results <- err
		})
	}
	wg.Wait()
	close(results)
	refused, served := 0, 0
	for err := range results {
		if err == nil {
			served++
			continue
		}
		refused++
		wantProblem(t, err, rpc.ResourceExhausted, "busy")
	}
	if served == 0 || refused == 0 {
		t.Errorf("%d served and %d refused of %d at once with room for 2, want some of both", served, refused, callers)
	}
}

func TestProfiles(t *testing.T) {
	w := newWorld(t)
	mary, john := w.register("Mary"), w.register("John")
	unknown := strings.Repeat("0", 25) + "7"
	got, err := w.GetProfiles(t.Context(), &momentsv1.GetProfilesRequest{UserIds: []string{john, unknown, mary}})
	if err != nil || len(got.GetProfiles()) != 2 || got.GetProfiles()[0].GetName() != "John" || got.GetProfiles()[1].GetName() != "Mary" {
		t.Errorf("GetProfiles: %v, %v, want John and Mary", got, err)
	}
	_, err = w.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: unknown})
	wantProblem(t, err, rpc.NotFound, "not-found")
	_, err = w.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: "x"})
	wantProblem(t, err, rpc.InvalidArgument, "invalid")

	display, key := "Mary Jane", "k"
	update := &momentsv1.UpdateProfileRequest{UserId: mary, DisplayName: &display, IdempotencyKey: key}
	if _, err := w.UpdateProfile(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	later := "Mary Ann"
	if _, err := w.UpdateProfile(t.Context(), &momentsv1.UpdateProfileRequest{UserId: mary, DisplayName: &later}); err != nil {
		t.Fatal(err)
	}
	again, err := w.UpdateProfile(t.Context(), update)
	if err != nil || again.GetProfile().GetDisplayName() != display {
		t.Errorf("repeated with its key: %v, %v, want the first answer", again, err)
	}
	now, err := w.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: mary})
	if err != nil || now.GetProfile().GetDisplayName() != later {
		t.Errorf("after a repeat: %v, %v, want %s: the repeat must not act", now, err, later)
	}
	_, err = w.UpdateProfile(t.Context(), &momentsv1.UpdateProfileRequest{UserId: mary, DisplayName: &later, IdempotencyKey: key})
	wantProblem(t, err, rpc.FailedPrecondition, "idempotency-conflict")
}

// users gives the names of all users, listed in pages.
func (w *world) users(limit uint32) []string {
	w.t.Helper()
	var names []string
	for cursor := ""; ; {
		res, err := w.ListUsers(w.t.Context(), &momentsv1.ListUsersRequest{Cursor: cursor, Limit: limit})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range res.GetProfiles() {
			names = append(names, p.GetName())
		}
		if cursor = res.GetNextCursor(); cursor == "" {
			return names
		}
	}
}

func TestListUsers(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("user%02d", i)
		w.register(name)
		want = append(want, name)
	}
	for _, limit := range []uint32{0, 1, 7, 25} {
		got := w.users(limit)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("with limit %d: %v, want each once", limit, got)
		}
	}
	scans := 0
	w.store.SetFaults(func(c memkv.Call) memkv.Fault {
		if c.Method == memkv.Scan {
			scans++
		}
		return memkv.None
	})
	if _, err := w.ListUsers(t.Context(), &momentsv1.ListUsersRequest{}); err != nil || scans > 256 {
		t.Errorf("a call scans %d slots, %v; want at most 256: it has a deadline", scans, err)
	}
	_, err := w.ListUsers(t.Context(), &momentsv1.ListUsersRequest{Cursor: "!"})
	wantProblem(t, err, rpc.InvalidArgument, "invalid")
}

// TestListDeleted: who is gone is listed where he was at home when he went, whatever region
// his name is of, once nothing is left of him.
func TestListDeleted(t *testing.T) {
	w := newWorld(t)
	w.register("mary")
	moved, leaving := id.User{7: 2, 15: 1}, id.User{7: 1, 15: 2}
	at := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	for u, cleared := range map[id.User]byte{moved: 1, leaving: 0} {
		b := new(kv.Batch).Put(append([]byte{'x'}, u[:]...), append(slices.Clone(at), cleared))
		if _, err := w.store.Apply(t.Context(), kv.SlotOf(u[:]), b); err != nil {
			t.Fatal(err)
		}
	}
	var gone []string
	for cursor := ""; ; {
		res, err := w.ListUsers(t.Context(), &momentsv1.ListUsersRequest{Cursor: cursor, Deleted: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.GetProfiles() {
			gone = append(gone, p.GetUserId())
		}
		if cursor = res.GetNextCursor(); cursor == "" {
			break
		}
		_, err = w.ListUsers(t.Context(), &momentsv1.ListUsersRequest{Cursor: cursor})
		wantProblem(t, err, rpc.InvalidArgument, "invalid") // it is of the other list
	}
	if !slices.Equal(gone, []string{moved.String()}) {
		t.Errorf("deleted accounts: %v, want %v", gone, moved)
	}
	if names := w.users(0); !slices.Equal(names, []string{"mary"}) {
		t.Errorf("users %v, want mary", names)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*account.Config)
	}{
		{"no store", func(c *account.Config) { c.Store = nil }},
		{"no workers", func(c *account.Config) { c.PasswordWorkers = -1 }},
		{"a negative queue", func(c *account.Config) { c.PasswordQueue = -1 }},
		{"a short session", func(c *account.Config) { c.SessionTTL = time.Millisecond }},
		{"too many sessions", func(c *account.Config) { c.MaxSessions = 91 }},
		{"no friends", func(c *account.Config) { c.MaxFriends = -1 }},
		{"too little memory", func(c *account.Config) { c.PasswordCost = account.Cost{MemoryKiB: 7, Passes: 1, Lanes: 1} }},
		{"no passes", func(c *account.Config) { c.PasswordCost = account.Cost{MemoryKiB: 8, Lanes: 1} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := memkv.New()
			defer func() { _ = store.Close() }()
			cfg := config(store)
			c.change(&cfg)
			if _, err := account.New(context.Background(), cfg); err == nil {
				t.Error("was accepted")
			}
		})
	}
	if _, err := account.New(t.Context(), account.Config{}); err == nil || errors.Is(err, context.Canceled) {
		t.Error("an empty config was accepted")
	}
}
