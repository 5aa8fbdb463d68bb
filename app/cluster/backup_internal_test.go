// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"testing"

	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/topology"
)

// TestRestoredLogIsAnother: a store that was joined to other regions goes on under another
// incarnation once it is restored, and one that was not has none.
func TestRestoredLogIsAnother(t *testing.T) {
	for _, old := range [][]byte{bytes.Repeat([]byte{7}, 16), nil} {
		dir := t.TempDir()
		slot := kv.SlotOf(idcqueue.IncarnationKey)
		store, err := pebblekv.Open(dir, pebblekv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if old != nil {
			if _, err := store.Apply(t.Context(), slot, new(kv.Batch).Put(idcqueue.IncarnationKey, old)); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		if err := renewLog(t.Context(), dir, topology.Comment); err != nil {
			t.Fatal(err)
		}
		if store, err = pebblekv.Open(dir, pebblekv.Options{}); err != nil {
			t.Fatal(err)
		}
		it, err := store.Get(t.Context(), slot, idcqueue.IncarnationKey, kv.Linearizable)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(it.Value, old) != (old == nil) || len(it.Value) != len(old) {
			t.Errorf("%x became %x", old, it.Value)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
