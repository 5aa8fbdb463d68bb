// SPDX-License-Identifier: Apache-2.0

package kvtest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/kv"
)

// modelKey is a key in the model: a plain map.
type modelKey struct {
	slot kv.Slot
	key  string
}

type modelItem struct {
	value string
	ver   uint64
}

// machine runs random calls against a store and a map and compares. Few keys in few
// slots, so that calls meet.
type machine struct {
	t     *testing.T
	store kv.Store
	want  map[modelKey]modelItem
	last  uint64
}

var (
	usedSlots = []kv.Slot{0, 1, 255, 256, kv.Slots - 1}

	anySlot = rapid.SampledFrom(usedSlots)
	anyKey  = rapid.SampledFrom([]string{"a", "a\x00", "aa", "b", "b\xff", "c", "\xff", "\xff\xff"})
	anyVal  = rapid.SampledFrom([]string{"", "1", "two", string(make([]byte, 5000))})
	anyEnd  = rapid.SampledFrom([]string{"", "a", "a\x00", "aa", "ab", "b", "c", "\xff"})
)

func model(t *testing.T, s kv.Store) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{t: t, store: s, want: map[modelKey]modelItem{}}
		for _, slot := range usedSlots {
			mustApply(t, s, slot, new(kv.Batch).DeleteRange(nil, nil))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"Apply":   m.apply,
			"BulkPut": m.bulkPut,
			"Scan":    m.scan,
			"Sweep":   m.sweep,
			"Get":     m.get,
		})
	})
}

func (m *machine) apply(rt *rapid.T) {
	slot := anySlot.Draw(rt, "slot")
	b := new(kv.Batch)
	next := maps.Clone(m.want)
	holds := true
	for _, k := range rapid.SliceOfN(anyKey, 0, 2).Draw(rt, "conditions") {
		ver := m.want[modelKey{slot, k}].ver
		if rapid.IntRange(0, 3).Draw(rt, "lie") == 0 {
			ver, holds = ver+1, false
		}
		b.IfVer([]byte(k), ver)
	}
	var from, to string
	ranged := rapid.IntRange(0, 3).Draw(rt, "ranged") == 0
	if ranged {
		from, to = anyEnd.Draw(rt, "from"), anyEnd.Draw(rt, "to")
		if to != "" && from > to {
			from, to = to, from
		}
		b.DeleteRange([]byte(from), []byte(to))
		for _, k := range m.keys(slot, from, to) {
			delete(next, modelKey{slot, k})
		}
	}
	var put []string
	for _, k := range rapid.SliceOfNDistinct(anyKey, 0, 4, rapid.ID).Draw(rt, "writes") {
		if ranged && k >= from && (to == "" || k < to) {
			continue
		}
		if rapid.Bool().Draw(rt, "delete") {
			b.Delete([]byte(k))
			delete(next, modelKey{slot, k})
			continue
		}
		v := anyVal.Draw(rt, "value")
		b.Put([]byte(k), []byte(v))
		next[modelKey{slot, k}] = modelItem{value: v}
		put = append(put, k)
	}
	ver, err := m.store.Apply(m.t.Context(), slot, b)
	if !holds {
		if !errors.Is(err, kv.ErrConflict) {
			rt.Fatalf("Apply = %v, want ErrConflict", err)
		}
		return
	}
	if err != nil || ver <= m.last {
		rt.Fatalf("Apply = %d, %v; want a version above %d", ver, err, m.last)
	}
	for _, k := range put {
		next[modelKey{slot, k}] = modelItem{value: next[modelKey{slot, k}].value, ver: ver}
	}
	m.want, m.last = next, ver
}

func (m *machine) bulkPut(rt *rapid.T) {
	var puts []kv.SlotPut
	for range rapid.IntRange(0, 6).Draw(rt, "puts") {
		puts = append(puts, kv.SlotPut{Slot: anySlot.Draw(rt, "slot"), Key: []byte(anyKey.Draw(rt, "key")), Value: []byte(anyVal.Draw(rt, "value"))})
	}
	if err := m.store.BulkPut(m.t.Context(), puts); err != nil {
		rt.Fatalf("BulkPut = %v", err)
	}
	for _, p := range puts {
		k := modelKey{p.Slot, string(p.Key)}
		item := mustGet(m.t, m.store, p.Slot, k.key)
		if item.Ver <= m.want[k].ver {
			rt.Fatalf("BulkPut: version %d after %d", item.Ver, m.want[k].ver)
		}
	}
	for _, p := range puts {
		k := modelKey{p.Slot, string(p.Key)}
		ver := mustGet(m.t, m.store, p.Slot, k.key).Ver
		m.want[k] = modelItem{value: string(p.Value), ver: ver}
		m.last = max(m.last, ver)
	}
}

func (m *machine) get(rt *rapid.T) {
	slot, key := anySlot.Draw(rt, "slot"), anyKey.Draw(rt, "key")
	item := mustGet(m.t, m.store, slot, key)
	if want := m.want[modelKey{slot, key}]; item.Ver != want.ver || string(item.Value) != want.value {
		rt.Fatalf("Get %q of slot %d = version %d, %d bytes; want version %d, %d bytes", key, slot, item.Ver, len(item.Value), want.ver, len(want.value))
	}
}

func (m *machine) scan(rt *rapid.T) {
	slot, from, to := anySlot.Draw(rt, "slot"), anyEnd.Draw(rt, "from"), anyEnd.Draw(rt, "to")
	if to != "" && from > to {
		from, to = to, from
	}
	limit := rapid.IntRange(1, 9).Draw(rt, "limit")
	items, more := mustScan(m.t, m.store, slot, kv.Range{From: []byte(from), To: []byte(to), Limit: limit})
	keys := m.keys(slot, from, to)
	want := keys[:min(limit, len(keys))]
	if !slices.Equal(keysOf(items), want) || more != (len(keys) > limit) {
		rt.Fatalf("Scan slot %d from %q to %q limit %d = %q, more %v; want %q of %q", slot, from, to, limit, keysOf(items), more, want, keys)
	}
	for _, item := range items {
		if w := m.want[modelKey{slot, string(item.Key)}]; string(item.Value) != w.value || item.Ver != w.ver {
			rt.Fatalf("Scan slot %d: %q has version %d, want %d", slot, item.Key, item.Ver, w.ver)
		}
	}
}

// sweep reads some pages of all slots from a place on.
func (m *machine) sweep(rt *rapid.T) {
	start := kv.Place{Slot: anySlot.Draw(rt, "slot"), Key: []byte(anyEnd.Draw(rt, "at"))}
	from, to := anyEnd.Draw(rt, "from"), anyEnd.Draw(rt, "to")
	if to != "" && from > to {
		from, to = to, from
	}
	r := kv.Range{From: []byte(from), To: []byte(to), Limit: rapid.IntRange(1, 9).Draw(rt, "limit")}
	type row struct {
		slot kv.Slot
		modelItem
	}
	want, got, at := []row{}, []row{}, start
	for range rapid.IntRange(1, 3).Draw(rt, "pages") {
		items, next, err := kv.ScanSlots(m.t.Context(), m.store, at, r, kv.Linearizable)
		if err != nil || len(items) > r.Limit || !before(at.Slot, string(at.Key), next) && at.Slot < kv.Slots {
			rt.Fatalf("ScanSlots from %v = %d items, on at %v, %v; want at most %d", at, len(items), next, err, r.Limit)
		}
		for _, it := range items {
			got = append(got, row{it.Slot, modelItem{string(it.Value), it.Ver}})
		}
		at = next
	}
	for _, slot := range usedSlots {
		for _, k := range m.keys(slot, from, to) {
			if !before(slot, k, start) && before(slot, k, at) {
				want = append(want, row{slot, m.want[modelKey{slot, k}]})
			}
		}
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("a sweep from %v to %v of %q to %q = %v, want %v", start, at, from, to, got, want)
	}
}

func before(slot kv.Slot, key string, at kv.Place) bool {
	return slot < at.Slot || slot == at.Slot && key < string(at.Key)
}

// keys gives the keys of the model in a range, in order; nil if there are none.
func (m *machine) keys(slot kv.Slot, from, to string) (keys []string) {
	for k := range m.want {
		if k.slot == slot && k.key >= from && (to == "" || k.key < to) {
			keys = append(keys, k.key)
		}
	}
	slices.Sort(keys)
	return keys
}
