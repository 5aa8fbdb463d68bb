// SPDX-License-Identifier: Apache-2.0

package hashtable_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/hashtable"
)

type row struct{ key, value int }

// TestTable holds a small table, in which nearly every row is in another's place, against a
// map.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hashtable.New(func(r *row, key int) bool { return r.key == key })
		want := map[int]int{}
		// Few tags, so that different keys have the same.
		tag := func(key int) uint32 { return hashtable.Tag(uint64(key%7) << 61) }
		keys := rapid.IntRange(0, rapid.SampledFrom([]int{5, 20, 200}).Draw(t, "keys"))
		for n := range rapid.IntRange(1, 300).Draw(t, "steps") {
			k := keys.Draw(t, "key")
			i := h.Find(tag(k), k)
			switch _, there := want[k]; {
			case there != (i >= 0):
				t.Fatalf("%d is there: %v; found in %d", k, there, i)
			case rapid.IntRange(0, 3).Draw(t, "remove") == 0:
				if there {
					h.Remove(i)
				}
				delete(want, k)
			case there:
				h.Row(i).value, want[k] = n, n
			default:
				if h.Full() {
					h.Resize(h.Grown())
				}
				h.Put(tag(k), row{k, n})
				want[k] = n
			}
			h.Touch(tag(k))
			there := 0
			for i := range h.Places() {
				if !h.Taken(i) {
					continue
				}
				there++
				if r := h.Row(i); r.value != want[r.key] || h.Find(tag(r.key), r.key) != i {
					t.Fatalf("in place %d is %+v, want %d; it is found in %d", i, *r, want[r.key], h.Find(tag(r.key), r.key))
				}
			}
			if there != len(want) || h.Len() != there {
				t.Fatalf("%d rows, and it says %d, of %d", there, h.Len(), len(want))
			}
		}
	})
}
