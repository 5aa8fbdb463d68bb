// SPDX-License-Identifier: Apache-2.0

// Package kvtest is the one suite that every kv driver passes.
package kvtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-rpc/sluice/app/kv"
)

// Reopener is a store that can be closed and opened again. The suite then checks that
// what was acknowledged is still there. The store is closed when Reopen is called.
type Reopener interface {
	kv.Store
	Reopen(t testing.TB) Reopener
}

// Run holds the stores that open gives, each new and empty, against the contract.
func Run(t *testing.T, open func(t testing.TB) kv.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s kv.Store)
	}{
		{"a key can be put, read and deleted", putGetDelete},
		{"an empty value is not absence", emptyValue},
		{"slices of a call are not kept and those of an item never change", slicesAreCopied},
		{"conditions decide over the whole batch", conditions},
		{"conditions look at the state before the batch", conditionsBefore},
		{"a batch of conditions alone is a check", conditionsAlone},
		{"versions of a key grow and are shared by a batch", versions},
		{"slots are apart", slots},
		{"scans are ordered, bounded and paged", scans},
		{"a scan stops at its byte limit", scanBytes},
		{"a sweep goes through all slots", sweeps},
		{"a sweep stops at its byte limit", sweepBytes},
		{"ranges are deleted", deleteRange},
		{"bulk puts reach all slots", bulkPut},
		{"calls outside the limits are refused and change nothing", limits},
		{"an ended context is refused and nothing applied", endedContext},
		{"a closed store says so", closed},
		{"counters under contention lose nothing", counters},
		{"batches are seen whole", atomicity},
		{"bulk puts and conditions agree", bulkAndConditions},
		{"a stamp that holds says that nothing has changed", stamps},
		{"acknowledged writes survive a reopening", reopen},
		{"random calls agree with a model", model},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			test.run(t, s)
		})
	}
}

func putGetDelete(t *testing.T, s kv.Store) {
	ctx := t.Context()
	for _, mode := range []kv.ReadMode{kv.Linearizable, kv.Local} {
		item, err := s.Get(ctx, 1, []byte("k"), mode)
		if err != nil || item.Ver != 0 || item.Key != nil || item.Value != nil {
			t.Fatalf("Get of an absent key = %+v, %v; want the zero Item and no error", item, err)
		}
	}
	ver := mustApply(t, s, 1, new(kv.Batch).Put([]byte("k"), []byte("v")).Put([]byte("l"), []byte("w")))
	for _, mode := range []kv.ReadMode{kv.Linearizable, kv.Local} {
		item, err := s.Get(ctx, 1, []byte("k"), mode)
		if err != nil || string(item.Key) != "k" || string(item.Value) != "v" || item.Ver != ver {
			t.Fatalf("Get = %+v, %v; want k=v of version %d", item, err, ver)
		}
	}
	places := []kv.Place{{Slot: 1, Key: []byte("l")}, {Slot: 2, Key: []byte("l")}, {Slot: 1, Key: []byte("k")}, {Slot: 1, Key: []byte("l")}}
	for _, mode := range []kv.ReadMode{kv.Linearizable, kv.Local} {
		items, err := kv.GetMany(ctx, s, places, mode)
		if err != nil || len(items) != 4 || string(items[0].Value) != "w" || items[1].Ver != 0 || string(items[2].Value) != "v" || items[3].Ver != ver {
			t.Fatalf("GetMany = %+v, %v; want w, nothing, v and w of version %d", items, err, ver)
		}
	}
	if items, err := kv.GetMany(ctx, s, nil, kv.Local); err != nil || len(items) != 0 {
		t.Fatalf("GetMany of nothing = %+v, %v", items, err)
	}
	if _, err := kv.GetMany(ctx, s, append(places, kv.Place{Slot: kv.Slots}), kv.Local); err == nil {
		t.Fatal("GetMany reads a slot that there is not")
	}
	mustApply(t, s, 1, new(kv.Batch).Delete([]byte("k")).Delete([]byte("never there")))
	wantKeys(t, s, 1, kv.Range{}, "l")
	mustApply(t, s, 1, new(kv.Batch))
	wantKeys(t, s, 1, kv.Range{}, "l")
}

func emptyValue(t *testing.T, s kv.Store) {
	mustApply(t, s, 0, new(kv.Batch).Put([]byte("k"), nil))
	if item := mustGet(t, s, 0, "k"); item.Ver == 0 || len(item.Value) != 0 {
		t.Fatalf("Get = %+v, want a version and an empty value", item)
	}
}

func slicesAreCopied(t *testing.T, s kv.Store) {
	key, value := []byte("key"), []byte("value")
	mustApply(t, s, 9, new(kv.Batch).Put(key, value))
	bulkKey, bulkValue := []byte("kez"), []byte("bulk")
	if err := s.BulkPut(t.Context(), []kv.SlotPut{{Slot: 9, Key: bulkKey, Value: bulkValue}}); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{key, value, bulkKey, bulkValue} {
		clear(b)
	}
	item := mustGet(t, s, 9, "key")
	items, _ := mustScan(t, s, 9, kv.Range{})
	if string(item.Value) != "value" || len(items) != 2 || string(items[1].Key) != "kez" || string(items[1].Value) != "bulk" {
		t.Fatalf("the store kept the caller's slices: %+v, %+v", item, items)
	}
	for _, it := range []kv.Item{item, items[0]} {
		_ = append(it.Key, "overrun"...)
		_ = append(it.Value, "overrun"...)
	}
	if string(items[1].Key) != "kez" || string(items[1].Value) != "bulk" {
		t.Fatalf("appending to one item of a scan changed the next: %+v", items)
	}
	if again := mustGet(t, s, 9, "key"); string(again.Key) != "key" || string(again.Value) != "value" {
		t.Fatalf("appending to an item changed the store: %+v", again)
	}
	mustApply(t, s, 9, new(kv.Batch).Put([]byte("key"), []byte("VALUE")).Delete([]byte("kez")))
	for _, it := range []kv.Item{item, items[0]} {
		if string(it.Key) != "key" || string(it.Value) != "value" {
			t.Fatalf("a write changed an item that was handed out: %+v", it)
		}
	}
}

func conditions(t *testing.T, s kv.Store) {
	a, b := []byte("a"), []byte("b")
	put := func() *kv.Batch { return new(kv.Batch).Put(b, []byte("new")).Delete([]byte("d")) }
	ver := mustApply(t, s, 5, new(kv.Batch).Put(a, []byte("1")).Put([]byte("d"), []byte("1")))
	for _, test := range []struct {
		name  string
		batch *kv.Batch
	}{
		{"absent but is there", put().IfAbsent(a)},
		{"other version", put().IfVer(a, ver+1)},
		{"version of an absent key", put().IfVer([]byte("x"), ver)},
		{"one of two fails", put().IfVer(a, ver).IfVer([]byte("x"), 1)},
	} {
		if _, err := s.Apply(t.Context(), 5, test.batch); !errors.Is(err, kv.ErrConflict) {
			t.Fatalf("%s: Apply = %v, want ErrConflict", test.name, err)
		}
		wantKeys(t, s, 5, kv.Range{}, "a", "d")
	}
	mustApply(t, s, 5, put().IfVer(a, ver).IfAbsent([]byte("x")).IfAbsent(b))
	wantKeys(t, s, 5, kv.Range{}, "a", "b")
}

func conditionsBefore(t *testing.T, s kv.Store) {
	k := []byte("k")
	ver := mustApply(t, s, 5, new(kv.Batch).Put(k, []byte("1")).IfAbsent(k))
	ver = mustApply(t, s, 5, new(kv.Batch).Delete(k).IfVer(k, ver))
	if _, err := s.Apply(t.Context(), 5, new(kv.Batch).Put(k, nil).IfVer(k, ver)); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("Apply over a deleted key = %v, want ErrConflict", err)
	}
	mustApply(t, s, 5, new(kv.Batch).Put(k, []byte("2")).IfAbsent(k))
}

func conditionsAlone(t *testing.T, s kv.Store) {
	k := []byte("k")
	ver := mustApply(t, s, 5, new(kv.Batch).Put(k, nil))
	mustApply(t, s, 5, new(kv.Batch).IfVer(k, ver))
	if _, err := s.Apply(t.Context(), 5, new(kv.Batch).IfAbsent(k)); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("Apply = %v, want ErrConflict", err)
	}
}

func versions(t *testing.T, s kv.Store) {
	last := uint64(0)
	for i := range 20 {
		b := new(kv.Batch).Put([]byte("a"), nil).Put([]byte("b"), nil)
		if i%3 == 2 {
			mustApply(t, s, 2, new(kv.Batch).Delete([]byte("a")))
		}
		ver := mustApply(t, s, 2, b)
		if a, b := mustGet(t, s, 2, "a").Ver, mustGet(t, s, 2, "b").Ver; ver <= last || a != ver || b != ver {
			t.Fatalf("write %d: Apply gave %d, the keys have %d and %d, the write before had %d", i, ver, a, b, last)
		}
		last = ver
	}
}

func slots(t *testing.T, s kv.Store) {
	edge := []kv.Slot{0, 1, 254, 255, 256, kv.Slots - 1}
	for _, slot := range edge {
		name := fmt.Appendf(nil, "in %d", slot)
		mustApply(t, s, slot, new(kv.Batch).Put([]byte("k"), name).Put([]byte{0}, nil).Put([]byte{0xff, 0xff}, nil).IfAbsent([]byte("k")))
	}
	mustApply(t, s, 255, new(kv.Batch).DeleteRange(nil, nil))
	for _, slot := range edge {
		if slot == 255 {
			wantKeys(t, s, slot, kv.Range{})
			continue
		}
		wantKeys(t, s, slot, kv.Range{}, "\x00", "k", "\xff\xff")
		if item := mustGet(t, s, slot, "k"); string(item.Value) != fmt.Sprintf("in %d", slot) {
			t.Fatalf("slot %d has %q", slot, item.Value)
		}
	}
}

func scans(t *testing.T, s kv.Store) {
	b := new(kv.Batch)
	for _, k := range []string{"b", "a\x00", "c", "a", "aa", "b\xff", "\xff"} {
		b.Put([]byte(k), []byte("value of "+k))
	}
	mustApply(t, s, 7, b)
	for _, test := range []struct {
		name     string
		from, to string
		limit    int
		want     []string
		more     bool
	}{
		{"all", "", "", 0, []string{"a", "a\x00", "aa", "b", "b\xff", "c", "\xff"}, false},
		{"from is in, to is out", "a\x00", "c", 0, []string{"a\x00", "aa", "b", "b\xff"}, false},
		{"bounds between keys", "a1", "b1", 0, []string{"aa", "b"}, false},
		{"limit below", "", "", 2, []string{"a", "a\x00"}, true},
		{"limit exact", "", "b", 3, []string{"a", "a\x00", "aa"}, false},
		{"limit exact of all", "", "", 7, []string{"a", "a\x00", "aa", "b", "b\xff", "c", "\xff"}, false},
		{"limit above", "c", "", 100, []string{"c", "\xff"}, false},
		{"empty range", "b", "b", 0, nil, false},
		{"nothing there", "d", "e", 0, nil, false},
		{"prefix a", "a", string(kv.PrefixEnd([]byte("a"))), 0, []string{"a", "a\x00", "aa"}, false},
	} {
		for _, mode := range []kv.ReadMode{kv.Linearizable, kv.Local} {
			items, more, err := s.Scan(t.Context(), 7, kv.Range{From: []byte(test.from), To: []byte(test.to), Limit: test.limit}, mode)
			if err != nil || more != test.more || !slices.Equal(keysOf(items), test.want) {
				t.Errorf("%s: Scan = %q, more %v, %v; want %q, more %v", test.name, keysOf(items), more, err, test.want, test.more)
			}
			for _, item := range items {
				if string(item.Value) != "value of "+string(item.Key) || item.Ver == 0 {
					t.Errorf("%s: item %q has value %q, version %d", test.name, item.Key, item.Value, item.Ver)
				}
			}
		}
	}
	var paged []string
	for r := (kv.Range{Limit: 3}); ; {
		items, more := mustScan(t, s, 7, r)
		paged = append(paged, keysOf(items)...)
		if !more {
			break
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
	if want := []string{"a", "a\x00", "aa", "b", "b\xff", "c", "\xff"}; !slices.Equal(paged, want) {
		t.Errorf("pages of 3 = %q, want %q", paged, want)
	}
}

func scanBytes(t *testing.T, s kv.Store) {
	const n = kv.MaxScanBytes/kv.MaxValue + 2
	value := make([]byte, kv.MaxValue)
	for i := range n {
		mustApply(t, s, 7, new(kv.Batch).Put([]byte{byte(i)}, value))
	}
	items, more := mustScan(t, s, 7, kv.Range{})
	if len(items) >= n || len(items) == 0 || !more {
		t.Fatalf("Scan = %d of %d items, more %v; want it to stop at about %d bytes", len(items), n, more, kv.MaxScanBytes)
	}
	rest, more := mustScan(t, s, 7, kv.Range{From: kv.Next(items[len(items)-1].Key)})
	if len(items)+len(rest) != n || more {
		t.Fatalf("the rest is %d items, more %v; want %d", len(rest), more, n-len(items))
	}
}

func sweeps(t *testing.T, s kv.Store) {
	ctx := t.Context()
	var puts []kv.SlotPut
	for slot := range kv.Slot(kv.Slots) {
		switch {
		case slot >= 1000 && slot < 2000: // nothing is in them
		case slot%2 == 0:
			puts = append(puts, kv.SlotPut{Slot: slot, Key: []byte("a")})
		default:
			puts = append(puts, kv.SlotPut{Slot: slot, Key: []byte("z")})
		}
	}
	var want []kv.Place
	for _, slot := range []kv.Slot{0, 1, 2, 255, 256, 999, 1500, 3000, kv.Slots - 1} {
		for _, key := range []string{"k", "k\x00", "l"} {
			at := kv.Place{Slot: slot, Key: []byte(key)}
			puts = append(puts, kv.SlotPut{Slot: slot, Key: at.Key, Value: at.Encode()})
			want = append(want, at)
		}
		puts = append(puts, kv.SlotPut{Slot: slot, Key: []byte("j\xff")}, kv.SlotPut{Slot: slot, Key: []byte("m")})
	}
	if err := s.BulkPut(ctx, puts); err != nil {
		t.Fatal(err)
	}
	check := func(what string, at kv.Place, r kv.Range, mode kv.ReadMode, want []kv.Place) {
		t.Helper()
		for calls := 0; at.Slot < kv.Slots; calls++ {
			items, next, err := kv.ScanSlots(ctx, s, at, r, mode)
			if err != nil || r.Limit > 0 && len(items) > r.Limit || calls > kv.Slots {
				t.Fatalf("%s: call %d from %v = %d items, %v", what, calls, at, len(items), err)
			}
			for _, it := range items {
				if len(want) == 0 || it.Slot != want[0].Slot || !bytes.Equal(it.Key, want[0].Key) || !bytes.Equal(it.Value, want[0].Encode()) || it.Ver == 0 {
					t.Fatalf("%s: %+v, want %v", what, it, want)
				}
				want = want[1:]
			}
			at = next
		}
		if len(want) > 0 {
			t.Errorf("%s: %v is left out", what, want)
		}
	}
	r := kv.Range{From: []byte("k"), To: []byte("m")}
	for _, mode := range []kv.ReadMode{kv.Linearizable, kv.Local} {
		check("in one page", kv.Place{}, r, mode, want)
		r.Limit = 2
		check("by two", kv.Place{}, r, mode, want)
		r.Limit = 1
		check("one by one", kv.Place{}, r, mode, want)
		check("from a slot", kv.Place{Slot: 2}, r, mode, want[6:])
		check("from a key", kv.Place{Slot: 2, Key: []byte("k\x00")}, r, mode, want[7:])
		check("from a key before the range", kv.Place{Slot: 2, Key: []byte("a")}, r, mode, want[6:])
		check("from a key behind the range", kv.Place{Slot: 2, Key: []byte("y")}, r, mode, want[9:])
		check("from an empty slot", kv.Place{Slot: 1501, Key: []byte("k")}, r, mode, want[21:])
		check("from the end", kv.Place{Slot: kv.Slots}, r, mode, nil)
		check("an empty range", kv.Place{}, kv.Range{From: []byte("k"), To: []byte("k")}, mode, nil)
		check("nothing there", kv.Place{}, kv.Range{From: []byte("b"), To: []byte("c")}, mode, nil)
		r.Limit = 0
	}
	var swept []kv.Place
	stop := errors.New("stop")
	err := kv.Sweep(ctx, s, r, kv.Local, func(slot kv.Slot, it kv.Item) error {
		if slot == kv.Slots-1 {
			return stop
		}
		swept = append(swept, kv.Place{Slot: slot, Key: it.Key})
		return nil
	})
	if !errors.Is(err, stop) || len(swept) != len(want)-3 {
		t.Errorf("Sweep = %v after %d items, want what do returned after %d", err, len(swept), len(want)-3)
	}
}

func sweepBytes(t *testing.T, s kv.Store) {
	const n = kv.MaxScanBytes/kv.MaxValue + 2
	value := make([]byte, kv.MaxValue)
	for i := range n {
		mustApply(t, s, kv.Slot(i/4), new(kv.Batch).Put([]byte{byte(i)}, value))
	}
	items, next, err := kv.ScanSlots(t.Context(), s, kv.Place{}, kv.Range{}, kv.Linearizable)
	if err != nil || len(items) >= n || len(items) == 0 || next.Slot == kv.Slots {
		t.Fatalf("a sweep = %d of %d items, on at slot %d, %v; want it to stop at about %d bytes", len(items), n, next.Slot, err, kv.MaxScanBytes)
	}
	rest, next, err := kv.ScanSlots(t.Context(), s, next, kv.Range{}, kv.Linearizable)
	if err != nil || len(items)+len(rest) != n {
		t.Fatalf("the rest is %d items, on at slot %d, %v; want %d", len(rest), next.Slot, err, n-len(items))
	}
}

func deleteRange(t *testing.T, s kv.Store) {
	for _, test := range []struct {
		name     string
		from, to string
		want     []string
	}{
		{"middle", "b", "d", []string{"a", "d", "new"}},
		{"from the start", "", "b", []string{"b", "c", "d", "new"}},
		{"to the end", "o", "", []string{"a", "b", "c", "d", "new"}},
		{"empty", "b", "b", []string{"a", "b", "c", "d", "new"}},
		{"nothing there", "b1", "b2", []string{"a", "b", "c", "d", "new"}},
	} {
		b := new(kv.Batch)
		for _, k := range []string{"a", "b", "c", "d"} {
			b.Put([]byte(k), nil)
		}
		mustApply(t, s, 3, b)
		mustApply(t, s, 3, new(kv.Batch).DeleteRange([]byte(test.from), []byte(test.to)).Put([]byte("new"), nil))
		if items, _ := mustScan(t, s, 3, kv.Range{}); !slices.Equal(keysOf(items), test.want) {
			t.Errorf("%s: left %q, want %q", test.name, keysOf(items), test.want)
		}
	}
	mustApply(t, s, 3, new(kv.Batch).DeleteRange(nil, nil))
	wantKeys(t, s, 3, kv.Range{})
	mustApply(t, s, 3, new(kv.Batch).Put([]byte("a"), nil).IfAbsent([]byte("a")))
	wantKeys(t, s, 3, kv.Range{}, "a")
}

func bulkPut(t *testing.T, s kv.Store) {
	mustApply(t, s, 10, new(kv.Batch).Put([]byte("k"), []byte("old")))
	before := mustGet(t, s, 10, "k")
	var puts []kv.SlotPut
	for slot := range kv.Slot(300) {
		puts = append(puts, kv.SlotPut{Slot: slot, Key: []byte("k"), Value: fmt.Appendf(nil, "v%d", slot)})
	}
	puts = append(puts, kv.SlotPut{Slot: 299, Key: []byte("k"), Value: []byte("later")})
	for range 2 { // again does no harm
		if err := s.BulkPut(t.Context(), puts); err != nil {
			t.Fatal(err)
		}
		for slot := range kv.Slot(299) {
			if item := mustGet(t, s, slot, "k"); string(item.Value) != fmt.Sprintf("v%d", slot) || item.Ver == 0 {
				t.Fatalf("slot %d has %+v", slot, item)
			}
		}
		if item := mustGet(t, s, 299, "k"); string(item.Value) != "later" {
			t.Fatalf("of two puts of a key the earlier won: %q", item.Value)
		}
	}
	if after := mustGet(t, s, 10, "k"); after.Ver <= before.Ver {
		t.Fatalf("version %d after version %d", after.Ver, before.Ver)
	}
	if err := s.BulkPut(t.Context(), nil); err != nil {
		t.Fatalf("BulkPut of nothing = %v", err)
	}
}

func limits(t *testing.T, s kv.Store) {
	ctx := t.Context()
	k := []byte("k")
	tooLong, tooBig := make([]byte, kv.MaxKey+1), make([]byte, kv.MaxValue+1)
	ops := func(n int) *kv.Batch {
		b := new(kv.Batch)
		for i := range n {
			b.Put(fmt.Appendf(nil, "op %d", i), nil)
		}
		return b
	}
	bulk := make([]kv.SlotPut, kv.MaxBulk+1)
	for i := range bulk {
		bulk[i] = kv.SlotPut{Slot: 1, Key: k}
	}
	big := make([]byte, kv.MaxValue)
	half := make([]byte, kv.MaxValue/2)
	bulkBytes := make([]kv.SlotPut, kv.MaxBulkBytes/kv.MaxValue)
	for i := range bulkBytes {
		bulkBytes[i] = kv.SlotPut{Slot: 1, Key: k, Value: big}
	}
	apply := func(slot kv.Slot, b *kv.Batch) error { _, err := s.Apply(ctx, slot, b); return err }
	get := func(slot kv.Slot, key []byte) error { _, err := s.Get(ctx, slot, key, kv.Linearizable); return err }
	scan := func(slot kv.Slot, r kv.Range) error {
		_, _, err := s.Scan(ctx, slot, r, kv.Linearizable)
		return err
	}
	sweep := func(at kv.Place, r kv.Range) error {
		_, _, err := kv.ScanSlots(ctx, s, at, r, kv.Linearizable)
		return err
	}
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"batch of too many operations", apply(1, ops(kv.MaxOps+1)), kv.ErrTooLarge},
		{"conditions count", apply(1, ops(kv.MaxOps).IfAbsent(k)), kv.ErrTooLarge},
		{"batch of too many bytes", apply(1, new(kv.Batch).Put([]byte("1"), big).Put([]byte("2"), half).Put([]byte("3"), half)), kv.ErrTooLarge},
		{"too large value", apply(1, new(kv.Batch).Put(k, tooBig)), kv.ErrTooLarge},
		{"too long key to put", apply(1, new(kv.Batch).Put(tooLong, nil)), kv.ErrTooLarge},
		{"too long key to delete", apply(1, new(kv.Batch).Delete(tooLong)), kv.ErrTooLarge},
		{"too long key to compare", apply(1, new(kv.Batch).IfAbsent(tooLong)), kv.ErrTooLarge},
		{"too long key to get", get(1, tooLong), kv.ErrTooLarge},
		{"too long bound", scan(1, kv.Range{From: append(tooLong, 0)}), kv.ErrTooLarge},
		{"too many puts", s.BulkPut(ctx, bulk), kv.ErrTooLarge},
		{"puts of too many bytes", s.BulkPut(ctx, bulkBytes), kv.ErrTooLarge},
		{"one put too large", s.BulkPut(ctx, []kv.SlotPut{{Key: k}, {Key: k, Value: tooBig}}), kv.ErrTooLarge},
		{"no batch", apply(1, nil), kv.ErrInvalid},
		{"empty key to get", get(1, nil), kv.ErrInvalid},
		{"empty key to put", apply(1, new(kv.Batch).Put(k, nil).Put(nil, nil)), kv.ErrInvalid},
		{"empty key to delete", apply(1, new(kv.Batch).Delete(nil)), kv.ErrInvalid},
		{"empty key to compare", apply(1, new(kv.Batch).IfAbsent(nil)), kv.ErrInvalid},
		{"empty key to bulk put", s.BulkPut(ctx, []kv.SlotPut{{Key: k}, {}}), kv.ErrInvalid},
		{"key put twice", apply(1, new(kv.Batch).Put(k, nil).Put([]byte("l"), nil).Put(k, nil)), kv.ErrInvalid},
		{"key put and deleted", apply(1, new(kv.Batch).Put(k, nil).Delete(k)), kv.ErrInvalid},
		{"key put in a deleted range", apply(1, new(kv.Batch).Put(k, nil).DeleteRange([]byte("a"), []byte("z"))), kv.ErrInvalid},
		{"key put in a cleared slot", apply(1, new(kv.Batch).DeleteRange(nil, nil).Put(k, nil)), kv.ErrInvalid},
		{"backward range to delete", apply(1, new(kv.Batch).DeleteRange([]byte("b"), []byte("a"))), kv.ErrInvalid},
		{"backward range to scan", scan(1, kv.Range{From: []byte("b"), To: []byte("a")}), kv.ErrInvalid},
		{"negative limit", scan(1, kv.Range{Limit: -1}), kv.ErrInvalid},
		{"too high limit", scan(1, kv.Range{Limit: kv.MaxScan + 1}), kv.ErrInvalid},
		{"backward range to sweep", sweep(kv.Place{}, kv.Range{From: []byte("b"), To: []byte("a")}), kv.ErrInvalid},
		{"too high limit of a sweep", sweep(kv.Place{}, kv.Range{Limit: kv.MaxScan + 1}), kv.ErrInvalid},
		{"slot to sweep from", sweep(kv.Place{Slot: kv.Slots + 1}, kv.Range{}), kv.ErrInvalid},
		{"too long key to sweep from", sweep(kv.Place{Key: append(tooLong, 0)}, kv.Range{}), kv.ErrInvalid},
		{"slot to get", get(kv.Slots, k), kv.ErrInvalid},
		{"slot to scan", scan(kv.Slots, kv.Range{}), kv.ErrInvalid},
		{"slot to apply", apply(kv.Slots, new(kv.Batch).Put(k, nil)), kv.ErrInvalid},
		{"slot to bulk put", s.BulkPut(ctx, []kv.SlotPut{{Key: k}, {Slot: kv.Slots, Key: k}}), kv.ErrInvalid},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, test.err, test.want)
		}
	}
	wantKeys(t, s, 0, kv.Range{})
	wantKeys(t, s, 1, kv.Range{})

	longest := bytes.Repeat([]byte{0xff}, kv.MaxKey)
	mustApply(t, s, 1, new(kv.Batch).Put(longest, big).Put([]byte("a"), big[kv.MaxKey+1:]))
	mustApply(t, s, 2, ops(kv.MaxOps))
	if item := mustGet(t, s, 1, string(longest)); len(item.Value) != kv.MaxValue {
		t.Errorf("the largest item has %d bytes, want %d", len(item.Value), kv.MaxValue)
	}
	wantKeys(t, s, 1, kv.Range{From: kv.Next(longest)})
	mustApply(t, s, 1, new(kv.Batch).Delete(longest).Delete([]byte("a")))
	if err := s.BulkPut(ctx, bulk[:kv.MaxBulk]); err != nil {
		t.Errorf("BulkPut of %d = %v", kv.MaxBulk, err)
	}
}

func endedContext(t *testing.T, s kv.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(method string, err error) {
		t.Helper()
		if !errors.Is(err, kv.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want ErrUnavailable and context.Canceled", method, err)
		}
	}
	_, err := s.Get(ctx, 0, []byte("k"), kv.Linearizable)
	check("Get", err)
	_, _, err = s.Scan(ctx, 0, kv.Range{}, kv.Linearizable)
	check("Scan", err)
	_, _, err = kv.ScanSlots(ctx, s, kv.Place{}, kv.Range{}, kv.Linearizable)
	check("ScanSlots", err)
	_, err = s.Apply(ctx, 0, new(kv.Batch).Put([]byte("k"), nil))
	check("Apply", err)
	check("BulkPut", s.BulkPut(ctx, []kv.SlotPut{{Key: []byte("k")}}))
	wantKeys(t, s, 0, kv.Range{})
}

func closed(t *testing.T, s kv.Store) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 4 { // calls in progress end well or with ErrClosed
		wg.Go(func() {
			for n := range 1000 {
				_, err := s.Apply(ctx, kv.Slot(i), new(kv.Batch).Put(fmt.Appendf(nil, "%d", n), nil))
				if err != nil {
					if !errors.Is(err, kv.ErrClosed) {
						t.Errorf("Apply during Close = %v, want ErrClosed", err)
					}
					return
				}
			}
		})
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	wg.Wait()
	check := func(method string, err error) {
		t.Helper()
		if !errors.Is(err, kv.ErrClosed) || !errors.Is(err, kv.ErrUnavailable) {
			t.Errorf("%s = %v, want ErrClosed and ErrUnavailable", method, err)
		}
	}
	_, err := s.Get(ctx, 0, []byte("k"), kv.Linearizable)
	check("Get", err)
	_, _, err = s.Scan(ctx, 0, kv.Range{}, kv.Local)
	check("Scan", err)
	_, _, err = kv.ScanSlots(ctx, s, kv.Place{}, kv.Range{}, kv.Local)
	check("ScanSlots", err)
	_, err = s.Apply(ctx, 0, new(kv.Batch).Put([]byte("k"), nil))
	check("Apply", err)
	check("BulkPut", s.BulkPut(ctx, []kv.SlotPut{{Key: []byte("k")}}))
}

// counters: each increment reads and writes under a condition, so a lost update or a
// condition that lies shows in the sum, and a number seen twice in the log.
func counters(t *testing.T, s kv.Store) {
	const workers, each = 8, 25
	ctx := t.Context()
	counter := []byte("counter")
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				item, err := s.Get(ctx, 11, counter, kv.Linearizable)
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				n := number(item.Value) + 1
				entry := binary.BigEndian.AppendUint64([]byte("log/"), n)
				b := new(kv.Batch).IfVer(counter, item.Ver).Put(counter, binary.BigEndian.AppendUint64(nil, n)).
					IfAbsent(entry).Put(entry, []byte{byte(worker)})
				switch _, err := s.Apply(ctx, 11, b); {
				case err == nil:
					done++
				case !errors.Is(err, kv.ErrConflict):
					t.Errorf("Apply: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := number(mustGet(t, s, 11, "counter").Value); n != workers*each {
		t.Errorf("the counter is at %d after %d increments", n, workers*each)
	}
	if log, _ := mustScan(t, s, 11, kv.Prefix([]byte("log/"), 0)); len(log) != workers*each {
		t.Errorf("the log has %d entries after %d increments", len(log), workers*each)
	}
}

// atomicity: writers replace all of a group of keys at once, readers scan them or sweep.
func atomicity(t *testing.T, s kv.Store) {
	const keys, rounds = 20, 40
	ctx := t.Context()
	write := func(worker, round int) {
		b := new(kv.Batch)
		for k := range keys {
			// Every other round a key is missing, so that deletes are seen whole too.
			if key := []byte{'k', byte(k)}; round%2 == 1 && k%2 == 1 {
				b.Delete(key)
			} else {
				b.Put(key, fmt.Appendf(nil, "%d of %d", round, worker))
			}
		}
		if _, err := s.Apply(ctx, 12, b); err != nil {
			t.Errorf("Apply: %v", err)
		}
	}
	write(0, 0)
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for worker := range 3 {
		writers.Go(func() {
			for round := range rounds {
				write(worker, round)
			}
		})
	}
	scan := func() ([]kv.Item, error) {
		items, _, err := s.Scan(ctx, 12, kv.Range{}, kv.Local)
		return items, err
	}
	sweep := func() (items []kv.Item, err error) {
		found, _, err := kv.ScanSlots(ctx, s, kv.Place{Slot: 11}, kv.Range{}, kv.Local)
		for _, it := range found {
			items = append(items, it.Item)
		}
		return items, err
	}
	for _, read := range []func() ([]kv.Item, error){scan, sweep} {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				items, err := read()
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if len(items) != keys && len(items) != keys/2 {
					t.Errorf("a scan saw %d keys, want %d or %d", len(items), keys, keys/2)
					return
				}
				for _, item := range items {
					if item.Ver != items[0].Ver || !bytes.Equal(item.Value, items[0].Value) {
						t.Errorf("a scan saw parts of two batches: %q and %q", items[0].Value, item.Value)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// bulkAndConditions: a bulk put must not slip between the condition of a batch and
// its write, or the batch would overwrite what it has not read.
func bulkAndConditions(t *testing.T, s kv.Store) {
	ctx := t.Context()
	k := []byte("k")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 50 {
			puts := []kv.SlotPut{{Slot: 14, Key: k, Value: []byte("bulk")}, {Slot: 13, Key: k, Value: fmt.Appendf(nil, "%d", i)}}
			if err := s.BulkPut(ctx, puts); err != nil {
				t.Errorf("BulkPut: %v", err)
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for range 50 {
				item, err := s.Get(ctx, 14, k, kv.Linearizable)
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				ver, err := s.Apply(ctx, 14, new(kv.Batch).IfVer(k, item.Ver).Put(k, []byte("batch")))
				if err != nil && !errors.Is(err, kv.ErrConflict) {
					t.Errorf("Apply: %v", err)
				}
				if err == nil && ver <= item.Ver {
					t.Errorf("version %d replaced version %d", ver, item.Ver)
				}
			}
		})
	}
	wg.Wait()
	if item := mustGet(t, s, 13, "k"); string(item.Value) != "49" {
		t.Errorf("after all bulk puts the value is %q, want that of the last", item.Value)
	}
}

func reopen(t *testing.T, s kv.Store) {
	r, ok := s.(Reopener)
	if !ok {
		t.Skip("this store cannot be reopened")
	}
	last := uint64(0)
	for round := range 3 {
		ver := mustApply(t, r, 1, new(kv.Batch).Put([]byte{byte(round)}, []byte("v")).Put([]byte("gone"), nil))
		if ver <= last {
			t.Fatalf("round %d: version %d after %d: versions go back over a reopening", round, ver, last)
		}
		last = mustApply(t, r, 1, new(kv.Batch).Delete([]byte("gone")))
		if err := r.BulkPut(t.Context(), []kv.SlotPut{{Slot: 2, Key: []byte{byte(round)}}, {Slot: 4095, Key: []byte{byte(round)}}}); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		r = r.Reopen(t)
		var want []string
		for k := range round + 1 {
			want = append(want, string([]byte{byte(k)}))
		}
		for _, slot := range []kv.Slot{1, 2, 4095} {
			wantKeys(t, r, slot, kv.Range{}, want...)
		}
		if item := mustGet(t, r, 1, "\x00"); string(item.Value) != "v" || item.Ver == 0 {
			t.Fatalf("after a reopening: %+v", item)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func number(value []byte) uint64 {
	if len(value) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

func mustApply(t testing.TB, s kv.Store, slot kv.Slot, b *kv.Batch) uint64 {
	t.Helper()
	ver, err := s.Apply(t.Context(), slot, b)
	if err != nil {
		t.Fatalf("Apply to slot %d: %v", slot, err)
	}
	return ver
}

func mustGet(t testing.TB, s kv.Store, slot kv.Slot, key string) kv.Item {
	t.Helper()
	item, err := s.Get(t.Context(), slot, []byte(key), kv.Linearizable)
	if err != nil {
		t.Fatalf("Get %q of slot %d: %v", key, slot, err)
	}
	return item
}

func mustScan(t testing.TB, s kv.Store, slot kv.Slot, r kv.Range) ([]kv.Item, bool) {
	t.Helper()
	items, more, err := s.Scan(t.Context(), slot, r, kv.Linearizable)
	if err != nil {
		t.Fatalf("Scan slot %d: %v", slot, err)
	}
	return items, more
}

func wantKeys(t testing.TB, s kv.Store, slot kv.Slot, r kv.Range, want ...string) {
	t.Helper()
	if items, more := mustScan(t, s, slot, r); more || !slices.Equal(keysOf(items), want) {
		t.Fatalf("slot %d holds %q, more %v; want %q", slot, keysOf(items), more, want)
	}
}

func keysOf(items []kv.Item) (keys []string) {
	for _, item := range items {
		keys = append(keys, string(item.Key))
	}
	return keys
}
