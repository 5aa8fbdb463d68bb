// SPDX-License-Identifier: Apache-2.0

package kv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/kv"
)

// The slots of stored data and of other regions depend on these.
func TestSlotOfNeverChanges(t *testing.T) {
	for id, want := range map[string]kv.Slot{
		"": 17, "a": 2466, "user/1": 2537, "01JD0000000000000000000000": 4068, "id/epoch": 575,
	} {
		if got := kv.SlotOf([]byte(id)); got != want {
			t.Errorf("SlotOf(%q) = %d, want %d", id, got, want)
		}
	}
}

// Ids that follow each other differ in their last bytes alone.
func TestSlotOfSpreadsIdsThatFollowEachOther(t *testing.T) {
	const each = 64
	var count [kv.Slots]int
	id := make([]byte, 16)
	for n := range uint64(each * kv.Slots) {
		binary.BigEndian.PutUint64(id[8:], n)
		count[kv.SlotOf(id)]++
	}
	for slot, n := range count {
		if n < each/2 || n > each*2 {
			t.Errorf("slot %d has %d ids, want about %d", slot, n, each)
		}
	}
}

func TestPrefixEndAndNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		somewhere := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xfe, 0xff}), 0, 4)
		p, k := somewhere.Draw(t, "prefix"), somewhere.Draw(t, "key")
		r := kv.Prefix(p, 0)
		within := bytes.Compare(r.From, k) <= 0 && (len(r.To) == 0 || bytes.Compare(k, r.To) < 0)
		if within != bytes.HasPrefix(k, p) {
			t.Fatalf("the range of prefix %x holds %x: %v", p, k, within)
		}
		if next := kv.Next(p); bytes.Compare(p, next) >= 0 || bytes.Compare(p, k) < 0 && bytes.Compare(next, k) > 0 {
			t.Fatalf("%x lies between %x and its next %x", k, p, next)
		}
	})
}

func TestPlace(t *testing.T) {
	for _, want := range []kv.Place{{}, {Slot: kv.Slots - 1}, {Slot: 3, Key: []byte("key")}, {Slot: 1, Key: make([]byte, kv.MaxKey+1)}} {
		got, err := kv.ParsePlace(want.Encode())
		if err != nil || got.Slot != want.Slot || !bytes.Equal(got.Key, want.Key) {
			t.Errorf("ParsePlace of the encoded %v = %v, %v", want, got, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "one byte": {1}, "no slot": {0x10, 0}, "too long": make([]byte, kv.MaxKey+4)} {
		if got, err := kv.ParsePlace(b); !errors.Is(err, kv.ErrInvalid) {
			t.Errorf("%s: ParsePlace = %v, %v; want ErrInvalid", name, got, err)
		}
	}
}

func FuzzParsePlace(f *testing.F) {
	f.Add([]byte{0, 1, 'k'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := kv.ParsePlace(b); err == nil && !bytes.Equal(p.Encode(), b) {
			t.Fatalf("%x is %v, which is %x", b, p, p.Encode())
		}
	})
}

func TestBatchReset(t *testing.T) {
	b := new(kv.Batch).Put([]byte("k"), []byte("v")).IfAbsent([]byte("k")).Delete([]byte("l")).DeleteRange([]byte("m"), []byte("n"))
	if b.Len() != 4 || b.Size() != 6 {
		t.Errorf("the batch has %d operations of %d bytes, want 4 of 6", b.Len(), b.Size())
	}
	b.Reset()
	if b.Len() != 0 || b.Size() != 0 {
		t.Errorf("after Reset it has %d operations of %d bytes", b.Len(), b.Size())
	}
}

func TestErrors(t *testing.T) {
	all := []error{kv.ErrConflict, kv.ErrUnavailable, kv.ErrUnknown, kv.ErrTooLarge, kv.ErrInvalid, kv.ErrQuota}
	for i, a := range all {
		for j, b := range all {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("errors.Is(%v, %v) = %v", a, b, i != j)
			}
		}
	}
	if !errors.Is(kv.ErrClosed, kv.ErrUnavailable) {
		t.Error("ErrClosed is no ErrUnavailable")
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := kv.CheckContext(ctx); err != nil {
		t.Errorf("CheckContext = %v", err)
	}
	cancel()
	if err := kv.CheckContext(ctx); !errors.Is(err, kv.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("CheckContext of an ended context = %v", err)
	}
}

func FuzzCheckBatch(f *testing.F) {
	f.Add([]byte("a"), []byte("b"), []byte("c"), []byte("d"))
	f.Add([]byte(""), []byte("\xff"), []byte("c"), []byte(""))
	f.Fuzz(func(t *testing.T, k1, k2, from, to []byte) {
		err := kv.CheckBatch(1, new(kv.Batch).Put(k1, nil).Delete(k2).DeleteRange(from, to))
		inside := func(k []byte) bool {
			return bytes.Compare(k, from) >= 0 && (len(to) == 0 || bytes.Compare(k, to) < 0)
		}
		bad := len(k1) == 0 || len(k2) == 0 || bytes.Equal(k1, k2) || inside(k1) || inside(k2) ||
			len(to) > 0 && bytes.Compare(from, to) > 0 ||
			max(len(k1), len(k2)) > kv.MaxKey || max(len(from), len(to)) > kv.MaxKey+1
		if bad != (err != nil) {
			t.Fatalf("CheckBatch of put %x, delete %x, delete range %x to %x = %v", k1, k2, from, to, err)
		}
	})
}
