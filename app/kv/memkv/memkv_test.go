// SPDX-License-Identifier: Apache-2.0

package memkv_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/kvtest"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type reopener struct{ *memkv.Store }

func (r reopener) Reopen(t testing.TB) kvtest.Reopener {
	s, err := r.Store.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	return reopener{s}
}

func TestContract(t *testing.T) {
	kvtest.Run(t, func(testing.TB) kv.Store { return reopener{memkv.New()} })
}

func put(k, v string) *kv.Batch { return new(kv.Batch).Put([]byte(k), []byte(v)) }

func get(t *testing.T, s *memkv.Store, k string) string {
	t.Helper()
	item, err := s.Get(t.Context(), 1, []byte(k), kv.Local)
	if err != nil {
		t.Fatal(err)
	}
	return string(item.Value)
}

func TestCrashDropsWhatWasNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New()
		if _, err := s.Apply(t.Context(), 1, put("kept", "1").Put([]byte("changed"), []byte("before")).Put([]byte("deleted"), []byte("before"))); err != nil {
			t.Fatal(err)
		}
		s.Hold()
		results := make(chan error, 3)
		go func() {
			_, err := s.Apply(t.Context(), 1, put("changed", "after").Put([]byte("new"), []byte("x")).Delete([]byte("deleted")))
			results <- err
		}()
		synctest.Wait()
		go func() {
			_, err := s.Apply(t.Context(), 1, put("new", "y").DeleteRange([]byte("a"), []byte("d")))
			results <- err
		}()
		go func() {
			results <- s.BulkPut(t.Context(), []kv.SlotPut{{Slot: 1, Key: []byte("bulk")}, {Slot: 2, Key: []byte("bulk")}})
		}()
		synctest.Wait()
		if n := s.Pending(); n != 3 {
			t.Fatalf("%d writes are pending, want 3", n)
		}
		if v := get(t, s, "new"); v != "y" {
			t.Errorf("a local read sees %q, want the pending y", v)
		}
		s.Crash()
		for range 3 {
			if err := <-results; !errors.Is(err, kv.ErrUnknown) {
				t.Errorf("a write in flight got %v, want ErrUnknown", err)
			}
		}
		if _, err := s.Apply(t.Context(), 1, put("k", "v")); !errors.Is(err, kv.ErrClosed) {
			t.Errorf("Apply after the crash = %v, want ErrClosed", err)
		}
		s, err := s.Reopen()
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range map[string]string{"kept": "1", "changed": "before", "deleted": "before", "new": ""} {
			if v := get(t, s, k); v != want {
				t.Errorf("after the crash %s is %q, want %q", k, v, want)
			}
		}
		if items, _, err := s.Scan(t.Context(), 2, kv.Range{}, kv.Linearizable); err != nil || len(items) != 0 {
			t.Errorf("after the crash slot 2 holds %v, %v", items, err)
		}
	})
}

func TestLinearizableReadWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New()
		s.Hold()
		written := make(chan error, 1)
		go func() {
			_, err := s.Apply(t.Context(), 1, put("k", "v"))
			written <- err
		}()
		synctest.Wait()
		if _, err := s.Get(t.Context(), 2, []byte("k"), kv.Linearizable); err != nil {
			t.Errorf("a read of another slot = %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Get(ctx, 1, []byte("k"), kv.Linearizable); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read of what is not synced = %v, want it to wait", err)
		}
		read := make(chan string, 1)
		go func() {
			item, _ := s.Get(t.Context(), 1, []byte("k"), kv.Linearizable)
			read <- string(item.Value)
		}()
		synctest.Wait()
		s.Release()
		if err := <-written; err != nil {
			t.Errorf("the write = %v", err)
		}
		if v := <-read; v != "v" {
			t.Errorf("the read saw %q after the sync, want v", v)
		}
	})
}

func TestContextEndsDuringASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New()
		s.Hold()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Apply(ctx, 1, put("k", "v")); !errors.Is(err, kv.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want ErrUnknown and DeadlineExceeded", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := s.Reopen()
		if err != nil {
			t.Fatal(err)
		}
		if v := get(t, s, "k"); v != "v" {
			t.Errorf("Close lost a pending write: %q", v)
		}
	})
}

func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name    string
		fault   memkv.Fault
		want    error
		applied bool
	}{
		{"unavailable", memkv.Unavailable, kv.ErrUnavailable, false},
		{"full", memkv.Full, kv.ErrQuota, false},
		{"unknown, lost", memkv.UnknownLost, kv.ErrUnknown, false},
		{"unknown, applied", memkv.UnknownApplied, kv.ErrUnknown, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := memkv.New()
			s.SetFaults(func(c memkv.Call) memkv.Fault {
				if c.Slot != 1 {
					t.Errorf("slot %d, want 1", c.Slot)
				}
				return test.fault
			})
			if _, err := s.Apply(t.Context(), 1, put("k", "v")); !errors.Is(err, test.want) {
				t.Errorf("Apply = %v, want %v", err, test.want)
			}
			if err := s.BulkPut(t.Context(), []kv.SlotPut{{Slot: 1, Key: []byte("l"), Value: []byte("v")}}); !errors.Is(err, test.want) {
				t.Errorf("BulkPut = %v, want %v", err, test.want)
			}
			if _, err := s.Get(t.Context(), 1, []byte("k"), kv.Linearizable); !errors.Is(err, kv.ErrUnavailable) {
				t.Errorf("Get = %v, want ErrUnavailable", err)
			}
			if _, _, err := s.Scan(t.Context(), 1, kv.Range{}, kv.Linearizable); !errors.Is(err, kv.ErrUnavailable) {
				t.Errorf("Scan = %v, want ErrUnavailable", err)
			}
			s.SetFaults(nil)
			if k, l := get(t, s, "k"), get(t, s, "l"); (k == "v") != test.applied || (l == "v") != test.applied {
				t.Errorf("after the fault k=%q, l=%q; want applied %v", k, l, test.applied)
			}
		})
	}
}

func TestFaultLosesPartOfABulkPut(t *testing.T) {
	s := memkv.New()
	s.SetFaults(func(memkv.Call) memkv.Fault { return memkv.UnknownPart })
	puts := []kv.SlotPut{{Slot: 1, Key: []byte("k"), Value: []byte("v")}, {Slot: 2, Key: []byte("k"), Value: []byte("v")}}
	if err := s.BulkPut(t.Context(), puts); !errors.Is(err, kv.ErrUnknown) {
		t.Fatalf("BulkPut = %v, want ErrUnknown", err)
	}
	s.SetFaults(nil)
	one, _ := s.Get(t.Context(), 1, []byte("k"), kv.Linearizable)
	two, _ := s.Get(t.Context(), 2, []byte("k"), kv.Linearizable)
	if one.Ver == 0 || two.Ver != 0 {
		t.Errorf("slots 1 and 2 have versions %d and %d, want the first alone", one.Ver, two.Ver)
	}
}

func TestReopenOfAnOpenStore(t *testing.T) {
	if _, err := memkv.New().Reopen(); err == nil {
		t.Error("an open store was opened again")
	}
}
