// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/account"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// TestRegisterOverFailures cuts a registration off at each of its writes, in every
// way, and wants the name to be free or its account to be whole: never stranded.
func TestRegisterOverFailures(t *testing.T) {
	for _, fault := range []memkv.Fault{memkv.Unavailable, memkv.UnknownLost, memkv.UnknownApplied} {
		for at := range int64(2) {
			t.Run(fmt.Sprintf("fault %d at write %d", fault, at), func(t *testing.T) {
				w := newWorld(t)
				var writes atomic.Int64
				w.store.SetFaults(func(c memkv.Call) memkv.Fault {
					if c.Method == memkv.Apply && writes.Add(1) == at+1 {
						return fault
					}
					return memkv.None
				})
				req := &momentsv1.RegisterRequest{Name: "Mary", Password: password, IdempotencyKey: "k"}
				first, err := w.Register(t.Context(), req)
				w.store.SetFaults(nil)
				w = restarted(t, w)
				again, againErr := w.Register(t.Context(), req)
				if againErr != nil {
					t.Fatalf("repeated: %v", againErr)
				}
				if err == nil && first.GetProfile().GetUserId() != again.GetProfile().GetUserId() {
					t.Errorf("the acknowledged account %s became %s", first.GetProfile().GetUserId(), again.GetProfile().GetUserId())
				}
				w.logIn("Mary")
				if list := w.users(0); len(list) != 1 {
					t.Errorf("users: %v, want one", list)
				}
			})
		}
	}
}

// TestRegistrationsCutOffAreClearedAway: what a lost second write leaves is removed
// after its time, and what has its name is not.
func TestRegistrationsCutOffAreClearedAway(t *testing.T) {
	w := newWorld(t)
	mary := w.register("Mary")
	nameSlot := kv.SlotOf([]byte("john"))
	w.store.SetFaults(func(c memkv.Call) memkv.Fault {
		if c.Method == memkv.Apply && c.Slot == nameSlot {
			return memkv.Unavailable
		}
		return memkv.None
	})
	if _, err := w.Register(t.Context(), &momentsv1.RegisterRequest{Name: "John", Password: password}); err == nil {
		t.Fatal("registered without a name")
	}
	w.store.SetFaults(nil)
	if got := rows(t, w.store, "u"); got != 2 {
		t.Fatalf("%d account rows, want Mary's and what John left", got)
	}

	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	cfg := config(w.store)
	cfg.Now = later
	svc, err := account.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); rows(t, w.store, "p") > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if accounts, marks := rows(t, w.store, "u"), rows(t, w.store, "p"); accounts != 1 || marks != 0 {
		t.Errorf("%d account rows and %d marks, want Mary's alone", accounts, marks)
	}
	if _, err := w.GetProfile(t.Context(), &momentsv1.GetProfileRequest{UserId: mary}); err != nil {
		t.Errorf("Mary: %v", err)
	}
}

// rows counts the rows of a kind in the whole store.
func rows(t *testing.T, store *memkv.Store, prefix string) int {
	t.Helper()
	n := 0
	for slot := range kv.Slot(kv.Slots) {
		items, _, err := store.Scan(t.Context(), slot, kv.Prefix([]byte(prefix), 0), kv.Linearizable)
		if err != nil {
			t.Fatal(err)
		}
		n += len(items)
	}
	return n
}
