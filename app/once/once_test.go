// SPDX-License-Identifier: Apache-2.0

package once_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/once"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	slot = kv.Slot(7)
	skew = 5 * time.Minute
	// gone is the age at which a record is not found and not kept any more, but for
	// the time that a sweep takes.
	gone = 49 * time.Hour
)

var (
	mary, john = []byte("mary............"), []byte("john............")
	tea        = once.Sum("tea")
	noon       = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
)

// tester is a test or a draw of rapid.
type tester interface {
	Fatal(args ...any)
	Context() context.Context
}

// record stores a use with an answer.
func record(t tester, store kv.Store, slot kv.Slot, u once.Use, answer string) {
	b := new(kv.Batch)
	u.Record(b, []byte(answer))
	if _, err := store.Apply(t.Context(), slot, b); err != nil {
		t.Fatal(err)
	}
}

// rows counts the records of a slot.
func rows(t tester, store kv.Store, slot kv.Slot) int {
	n := 0
	for r := kv.Prefix([]byte{once.Table}, 0); ; {
		items, more, err := store.Scan(t.Context(), slot, r, kv.Local)
		if err != nil {
			t.Fatal(err)
		}
		if n += len(items); !more {
			return n
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}

func TestAnswer(t *testing.T) {
	store := memkv.New()
	record(t, store, slot, once.New(noon, mary, "k", tea), "first")
	for _, c := range []struct {
		name  string
		use   once.Use
		slot  kv.Slot
		found bool
		err   error
	}{
		{"the same request", once.New(noon, mary, "k", tea), slot, true, nil},
		{"the same a day later", once.New(noon.Add(once.Keep), mary, "k", tea), slot, true, nil},
		{"another request", once.New(noon, mary, "k", once.Sum("coffee")), slot, false, once.ErrReused},
		{"another request a day later", once.New(noon.Add(once.Keep), mary, "k", once.Sum("coffee")), slot, false, once.ErrReused},
		{"another request long after", once.New(noon.Add(gone), mary, "k", once.Sum("coffee")), slot, false, nil},
		{"another key", once.New(noon, mary, "l", tea), slot, false, nil},
		{"another user", once.New(noon, john, "k", tea), slot, false, nil},
		{"another slot", once.New(noon, mary, "k", tea), slot + 1, false, nil},
		{"no key", once.New(noon, mary, "", tea), slot, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, found, err := c.use.Answer(t.Context(), store, c.slot)
			if found != c.found || !errors.Is(err, c.err) || found && string(answer) != "first" {
				t.Errorf("got %q, %v, %v; want found %v, error %v", answer, found, err, c.found, c.err)
			}
		})
	}
}

func TestNoKey(t *testing.T) {
	b, none := new(kv.Batch), once.New(noon, mary, "", tea)
	none.IfNew(b)
	none.Record(b, []byte("answer"))
	if b.Len() != 0 || !none.IsZero() || none.Same(none) {
		t.Errorf("no key left %d operations, IsZero %v, Same %v", b.Len(), none.IsZero(), none.Same(none))
	}
}

func TestSum(t *testing.T) {
	seen := map[any][]string{}
	for _, parts := range [][]string{nil, {""}, {"a", "b"}, {"ab"}, {"ab", ""}, {"", "ab"}, {"a", "b", ""}} {
		if other, ok := seen[once.Sum(parts...)]; ok {
			t.Errorf("%q looks like %q", parts, other)
		}
		seen[once.Sum(parts...)] = parts
	}
}

func TestDamagedRecord(t *testing.T) {
	store := memkv.New()
	u := once.New(noon, mary, "k", tea)
	b := new(kv.Batch)
	u.Record(b, nil)
	w := b.Writes()[0]
	if _, err := store.Apply(t.Context(), slot, new(kv.Batch).Put(w.Key, w.Value[:5])); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Answer(t.Context(), store, slot); err == nil || errors.Is(err, once.ErrReused) {
		t.Errorf("got %v, want a fault of the store", err)
	}
}

// TestClocks: whoever looks within a day finds what was recorded, and cannot record
// again, if no two clocks differ by more than the skew; and whoever forgets meanwhile
// leaves it. Long after, it is neither found nor kept.
func TestClocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := memkv.New()
		at := time.Unix(rapid.Int64Range(1_700_000_000, 1_800_000_000).Draw(t, "written"), 0)
		clock := func(name string, exact time.Time) time.Time {
			half := int64(skew / time.Second / 2)
			return exact.Add(time.Duration(rapid.Int64Range(-half, half).Draw(t, name)) * time.Second)
		}
		wrote := once.New(clock("writer's clock", at), mary, "k", tea)
		record(t, store, slot, wrote, "first")

		later := at.Add(time.Duration(rapid.Int64Range(0, int64(once.Keep)).Draw(t, "age")))
		if _, err := once.Forget(t.Context(), store, slot, clock("sweeper's clock", later)); err != nil {
			t.Fatal(err)
		}
		u := once.New(clock("reader's clock", later), mary, "k", tea)
		if answer, found, err := u.Answer(t.Context(), store, slot); !found || string(answer) != "first" || err != nil {
			t.Fatalf("after %v: %q, %v, %v", later.Sub(at), answer, found, err)
		}
		b := new(kv.Batch)
		u.IfNew(b)
		u.Record(b, []byte("second"))
		if _, err := store.Apply(t.Context(), slot, b); !errors.Is(err, kv.ErrConflict) {
			t.Fatalf("recorded again after %v: %v", later.Sub(at), err)
		}
		if !u.Same(wrote) || u.Same(once.New(later, mary, "l", tea)) || u.Same(once.New(later, john, "k", tea)) {
			t.Fatal("Same mistakes one key for another")
		}

		u = once.New(clock("late clock", at.Add(gone)), mary, "k", tea)
		if _, found, err := u.Answer(t.Context(), store, slot); found || err != nil {
			t.Fatalf("after %v: %v, %v", gone, found, err)
		}
		if _, err := once.Forget(t.Context(), store, slot, clock("late sweeper's clock", at.Add(gone))); err != nil {
			t.Fatal(err)
		}
		if n := rows(t, store, slot); n != 0 {
			t.Fatalf("%d records are left after %v", n, gone)
		}
	})
}

// TestForgetInSteps: a step is bounded, and one that fails is done again.
func TestForgetInSteps(t *testing.T) {
	store := memkv.New()
	for i := range 2500 {
		record(t, store, slot, once.New(noon, mary, fmt.Sprint(i), tea), "")
	}
	late := noon.Add(gone)
	record(t, store, slot, once.New(late, mary, "young", tea), "")
	// What others keep in the slot is nobody's to forget.
	if _, err := store.Apply(t.Context(), slot, new(kv.Batch).Put([]byte("c"), nil).Put([]byte("e"), nil)); err != nil {
		t.Fatal(err)
	}
	var fails atomic.Bool
	store.SetFaults(func(c memkv.Call) memkv.Fault {
		if c.Method == memkv.Apply && fails.Load() {
			return memkv.Unavailable
		}
		return memkv.None
	})
	for _, step := range []struct {
		fails, more bool
		left        int
	}{{false, true, 1501}, {true, false, 1501}, {false, true, 501}, {false, false, 1}, {false, false, 1}} {
		fails.Store(step.fails)
		more, err := once.Forget(t.Context(), store, slot, late)
		if more != step.more || (err != nil) != step.fails || rows(t, store, slot) != step.left {
			t.Fatalf("more %v, %v, %d records left; want %+v", more, err, rows(t, store, slot), step)
		}
	}
	for _, key := range []string{"c", "e"} {
		if it, err := store.Get(t.Context(), slot, []byte(key), kv.Local); err != nil || it.Ver == 0 {
			t.Errorf("%q is gone, %v", key, err)
		}
	}
}

// TestSweep: a round goes through every slot, though a store that fails now and then
// makes it longer, and takes no more than one step at a time.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		slots := []kv.Slot{0, 1, 1000, 4094, 4095}
		for _, s := range slots {
			for i := range 3 {
				record(t, store, s, once.New(time.Now(), mary, fmt.Sprint(i), tea), "")
			}
		}
		for i := range 1500 {
			record(t, store, 2000, once.New(time.Now(), mary, fmt.Sprint(i), tea), "")
		}
		time.Sleep(gone)
		record(t, store, 1, once.New(time.Now(), mary, "young", tea), "")

		var mu sync.Mutex
		calls, lastScan := 0, time.Time{}
		store.SetFaults(func(c memkv.Call) memkv.Fault {
			mu.Lock()
			defer mu.Unlock()
			if c.Method == memkv.Scan && c.Slot != 2000 && c.Slot != 2001 {
				if now := time.Now(); now.Sub(lastScan) < time.Second {
					t.Errorf("slot %d came %v after the one before", c.Slot, now.Sub(lastScan))
				}
				lastScan = time.Now()
			}
			if calls++; calls%500 == 0 {
				return memkv.Unavailable
			}
			return memkv.None
		})
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { once.Sweep(ctx, store, time.Now, slog.New(slog.DiscardHandler)) })
		time.Sleep(3 * time.Hour) // two rounds and more: what failed is done in the next
		stop()
		wg.Wait()
		store.SetFaults(nil)
		for _, s := range append(slots, 2000) {
			want := 0
			if s == 1 {
				want = 1
			}
			if n := rows(t, store, s); n != want {
				t.Errorf("slot %d has %d records, want %d", s, n, want)
			}
		}
	})
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		name        string
		key         string
		check, need bool // fine
	}{
		{"none", "", true, false},
		{"one byte", "k", true, true},
		{"the longest", strings.Repeat("k", once.MaxKey), true, true},
		{"longer", strings.Repeat("k", once.MaxKey+1), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := once.CheckKey(c.key); (err == nil) != c.check {
				t.Errorf("CheckKey: %v", err)
			}
			if err := once.NeedKey(c.key); (err == nil) != c.need {
				t.Errorf("NeedKey: %v", err)
			}
		})
	}
}
