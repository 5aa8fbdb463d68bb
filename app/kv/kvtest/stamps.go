// SPDX-License-Identifier: Apache-2.0

package kvtest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/sluice-rpc/sluice/app/kv"
)

// stamps holds a kv.Stamper against its contract: every kind of write ends a stamp, and
// what was read under one is true while it holds, writers or not. A store whose stamps
// are never there keeps it, too.
func stamps(t *testing.T, s kv.Store) {
	stamp := kv.StampOf(s)
	ctx := t.Context()
	const slot kv.Slot = 7
	key := []byte("k")
	writes := []struct {
		name string
		do   func() error
	}{
		{"put", func() error { return only(s.Apply(ctx, slot, new(kv.Batch).Put(key, []byte("a")))) }},
		{"put of the same", func() error { return only(s.Apply(ctx, slot, new(kv.Batch).Put(key, []byte("a")))) }},
		{"delete", func() error { return only(s.Apply(ctx, slot, new(kv.Batch).Delete(key))) }},
		{"bulk put", func() error { return s.BulkPut(ctx, []kv.SlotPut{{Slot: slot, Key: key}, {Slot: slot + 1, Key: key}}) }},
		{"delete of a range", func() error { return only(s.Apply(ctx, slot, new(kv.Batch).DeleteRange(nil, nil))) }},
	}
	for _, w := range writes {
		before, ok := stamp(slot)
		if err := w.do(); err != nil {
			t.Fatal(err)
		}
		if after, still := stamp(slot); ok && still && before == after {
			t.Errorf("%s: the stamp is still %d", w.name, after)
		}
	}

	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for n := range 60 {
				if err := writes[n%len(writes)].do(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() { // ends with the writers
		wg.Wait()
		close(done)
	}()
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			if err := readStamped(t, s, slot, key, done); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
}

// readStamped reads a row again and again, until done, and compares it with what it has
// read before under the same stamp.
func readStamped(t *testing.T, s kv.Store, slot kv.Slot, key []byte, done <-chan struct{}) error {
	stamp := kv.StampOf(s)
	var had kv.Item
	var at uint64
	known := false
	for {
		select {
		case <-done:
			return nil
		default:
		}
		before, ok := stamp(slot)
		it, err := s.Get(t.Context(), slot, key, kv.Local)
		if err != nil {
			return err
		}
		after, still := stamp(slot)
		if known && ok && still && before == at && after == at && it.Ver != had.Ver {
			return fmt.Errorf("under stamp %d the row was of version %d and is of %d", at, had.Ver, it.Ver)
		}
		had, at, known = it, before, ok
	}
}

func only(_ uint64, err error) error { return err }
