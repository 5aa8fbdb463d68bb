// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

var queue = framework.NewQueue("test.Outbox/outbox", qos.Background)

// reader is who is told. It fails every third time, after it has read.
type reader struct {
	mu    sync.Mutex
	calls int                  // guarded by mu
	last  map[kv.Slot]uint64   // guarded by mu
	told  map[kv.Slot][]string // guarded by mu; each record once, in order
	t     *testing.T
}

func (r *reader) deliver(_ context.Context, records []outbox.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		switch last := r.last[rec.Slot]; {
		case rec.Seq > last+1:
			r.t.Errorf("slot %d: %d after %d", rec.Slot, rec.Seq, last)
		case rec.Seq == last+1:
			r.last[rec.Slot] = rec.Seq
			r.told[rec.Slot] = append(r.told[rec.Slot], string(rec.Body))
		}
	}
	if r.calls++; r.calls%3 == 0 {
		return errors.New("the answer is lost")
	}
	return nil
}

// put writes a record with its effect.
func put(t *testing.T, store kv.Store, b *outbox.Box, slot kv.Slot, body string) {
	t.Helper()
	turn, err := b.Open(t.Context(), slot)
	if err != nil {
		t.Fatal(err)
	}
	defer turn.Close()
	batch := new(kv.Batch)
	turn.Put(batch, []byte(body), tracing.Origin{})
	if err := turn.Seal(batch); err != nil {
		t.Fatal(err)
	}
	ver, err := store.Apply(t.Context(), slot, batch)
	switch {
	case err == nil:
		turn.Applied(ver)
	case !errors.Is(err, kv.ErrUnknown):
		t.Fatal(err)
	}
}

// TestAllInOrder: what was written is told in the order of its slot, none left out,
// over failures, lost outcomes and crashes; what was told is removed.
func TestAllInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		r := &reader{t: t, last: map[kv.Slot]uint64{}, told: map[kv.Slot][]string{}}
		slots := []kv.Slot{0, 7, 4095}
		for life := range 4 {
			b := outbox.New(outbox.Config{Store: store, Queue: queue, Consumer: "test", Deliver: r.deliver})
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := b.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			if life == 2 { // the last outcome of this life is lost, not the record
				store.SetFaults(func(c memkv.Call) memkv.Fault {
					if c.Method == memkv.Apply && c.Slot == 7 {
						return memkv.UnknownApplied
					}
					return memkv.None
				})
			}
			for n := range 100 {
				for _, slot := range slots {
					put(t, store, b, slot, fmt.Sprint(life, "/", n))
				}
			}
			if life == 3 {
				time.Sleep(time.Minute)
				if s := b.Status(); s.Pending != 0 || s.Failures == 0 {
					t.Errorf("%+v", s)
				}
			}
			stop()
			wg.Wait()
			store.Crash()
			var err error
			if store, err = store.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
		for _, slot := range slots {
			told := r.told[slot]
			if len(told) != 400 {
				t.Fatalf("slot %d: %d records told, want 400", slot, len(told))
			}
			for i, body := range told {
				if want := fmt.Sprint(i/100, "/", i%100); body != want {
					t.Fatalf("slot %d: %q at %d, want %q", slot, body, i, want)
				}
			}
			items, _, err := store.Scan(t.Context(), slot, kv.Prefix([]byte{outbox.TableRecord}, 0), kv.Local)
			if err != nil || len(items) >= 64 {
				t.Errorf("slot %d keeps %d records, %v", slot, len(items), err)
			}
		}
	})
}
