// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"hash/maphash"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/kv"
)

// TestRowShard holds a small shard, in which nearly every row is in another's place, against
// a map: what it finds is what was put in last, nothing is found that was removed, each row is
// reachable, and it is as large as it says.
func TestRowShard(t *testing.T) {
	seed := maphash.MakeSeed()
	rapid.Check(t, func(t *rapid.T) {
		s := &rowShard{table: newRows(), limit: rapid.SampledFrom([]int{0, 500, 2_000, 20_000}).Draw(t, "limit")}
		// Few tags, so that rows of different keys have the same.
		tag := func(slot kv.Slot, key string) uint32 {
			return uint32(maphash.String(seed, key)>>32)&0xc000_0000 + uint32(slot) | 1
		}
		type name struct {
			slot kv.Slot
			key  string
		}
		last := map[name]uint64{}
		names := rapid.Custom(func(t *rapid.T) name {
			long := strings.Repeat("x", rapid.SampledFrom([]int{0, len(stem{})}).Draw(t, "prefix"))
			return name{kv.Slot(rapid.IntRange(0, 2).Draw(t, "slot")), long + rapid.StringMatching(`[ab]{1,4}`).Draw(t, "key")}
		})
		for n := range uint64(rapid.IntRange(1, 200).Draw(t, "steps")) {
			k := names.Draw(t, "name")
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0:
				if i := s.table.Find(tag(k.slot, k.key), rowKey{k.slot, []byte(k.key)}); i >= 0 {
					s.remove(i)
				}
				delete(last, k)
			case 1:
				s.evict()
			case 2:
				if i := s.table.Find(tag(k.slot, k.key), rowKey{k.slot, []byte(k.key)}); i >= 0 {
					s.table.Row(i).used = true
				}
			default:
				key, ver := []byte(k.key), uint64(rapid.IntRange(0, 1).Draw(t, "version"))
				data := rowData(key, make([]byte, rapid.IntRange(0, 100).Draw(t, "value")), ver)
				s.insert(tag(k.slot, k.key), rowKey{k.slot, key}, row{stem: stemOf(key), data: data, ver: ver, writes: n + 1, keyLen: uint16(len(key)), slot: k.slot})
				last[k] = n + 1
			}
			there, size := 0, 0
			for i := range s.table.Places() {
				if !s.table.Taken(i) {
					continue
				}
				r := s.table.Row(i)
				there, size = there+1, size+cap(r.data)
				key := r.stem[:min(int(r.keyLen), len(r.stem))]
				if len(r.data) > 0 {
					key = r.data[:r.keyLen]
				}
				if r.writes != last[name{r.slot, string(key)}] {
					t.Fatalf("%q of slot %d is that of step %d, the last was %d", key, r.slot, r.writes, last[name{r.slot, string(key)}])
				}
				if at := s.table.Find(tag(r.slot, string(key)), rowKey{r.slot, key}); at != i {
					t.Fatalf("%q of slot %d is in place %d and found in %d", key, r.slot, i, at)
				}
			}
			if there != s.table.Len() || size != s.bytes || s.size() > s.limit && there > 0 {
				t.Fatalf("%d rows of %d bytes, and it says %d of %d; %d of %d in all, %d places", there, size, s.table.Len(), s.bytes, s.size(), s.limit, s.table.Places())
			}
		}
	})
}
