// SPDX-License-Identifier: Apache-2.0

package kv

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// CheckContext refuses a call whose context has ended: nothing was done.
func CheckContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// CheckKey holds slot and key of a Get against the rules of this package. Every
// driver asks it, and the other checks, before it does anything.
func CheckKey(slot Slot, key []byte) error {
	if err := checkSlot(slot); err != nil {
		return err
	}
	return checkKey(key)
}

// CheckRange holds a Scan against the rules and gives its limit.
func CheckRange(slot Slot, r Range) (limit int, err error) {
	if err := checkSlot(slot); err != nil {
		return 0, err
	}
	if r.Limit < 0 || r.Limit > MaxScan {
		return 0, fmt.Errorf("%w: scan limit %d, want 1 to %d (0 means %d)", ErrInvalid, r.Limit, MaxScan, MaxScan)
	}
	if err := checkBounds(r.From, r.To); err != nil {
		return 0, err
	}
	if r.Limit == 0 {
		return MaxScan, nil
	}
	return r.Limit, nil
}

// CheckSweep holds a ScanSlots against the rules and gives its limit.
func CheckSweep(at Place, r Range) (limit int, err error) {
	if at.Slot > Slots || len(at.Key) > MaxKey+1 {
		return 0, fmt.Errorf("%w: a sweep from slot %d and a key of %d bytes", ErrInvalid, at.Slot, len(at.Key))
	}
	return CheckRange(0, r)
}

// CheckBatch holds an Apply against the rules.
func CheckBatch(slot Slot, b *Batch) error {
	if err := checkSlot(slot); err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("%w: batch is nil", ErrInvalid)
	}
	if n := b.Len(); n > MaxOps {
		return fmt.Errorf("%w: batch of %d operations, at most %d; split it", ErrTooLarge, n, MaxOps)
	}
	if n := b.Size(); n > MaxBatch {
		return fmt.Errorf("%w: batch of %d bytes, at most %d; split it", ErrTooLarge, n, MaxBatch)
	}
	for _, c := range b.conds {
		if err := checkKey(c.Key); err != nil {
			return err
		}
	}
	ranges := 0
	for _, w := range b.writes {
		switch w.Kind {
		case DeleteKeys:
			ranges++
			if err := checkBounds(w.Key, w.To); err != nil {
				return err
			}
		default:
			if err := checkKey(w.Key); err != nil {
				return err
			}
			if err := checkValue(w.Key, w.Value); err != nil {
				return err
			}
		}
	}
	return checkOnce(b.writes, ranges)
}

// CheckBulk holds a BulkPut against the rules.
func CheckBulk(puts []SlotPut) error {
	if len(puts) > MaxBulk {
		return fmt.Errorf("%w: %d puts, at most %d; split them", ErrTooLarge, len(puts), MaxBulk)
	}
	size := 0
	for i := range puts {
		p := &puts[i]
		if err := CheckKey(p.Slot, p.Key); err != nil {
			return err
		}
		if err := checkValue(p.Key, p.Value); err != nil {
			return err
		}
		size += len(p.Key) + len(p.Value)
	}
	if size > MaxBulkBytes {
		return fmt.Errorf("%w: puts of %d bytes, at most %d; split them", ErrTooLarge, size, MaxBulkBytes)
	}
	return nil
}

func checkSlot(slot Slot) error {
	if slot >= Slots {
		return fmt.Errorf("%w: slot %d, want 0 to %d", ErrInvalid, slot, Slots-1)
	}
	return nil
}

func checkKey(key []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("%w: empty key", ErrInvalid)
	}
	if len(key) > MaxKey {
		return fmt.Errorf("%w: key of %d bytes, at most %d", ErrTooLarge, len(key), MaxKey)
	}
	return nil
}

func checkValue(key, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: value of %q has %d bytes, at most %d", ErrTooLarge, key, len(value), MaxValue)
	}
	return nil
}

// checkBounds lets a bound be one byte longer than a key, for Next of a longest key.
func checkBounds(from, to []byte) error {
	if n := max(len(from), len(to)); n > MaxKey+1 {
		return fmt.Errorf("%w: range bound of %d bytes, at most %d", ErrTooLarge, n, MaxKey+1)
	}
	if len(to) > 0 && bytes.Compare(from, to) > 0 {
		return fmt.Errorf("%w: range from %q to %q runs backwards", ErrInvalid, from, to)
	}
	return nil
}

// checkOnce refuses a key that is written twice. etcd refuses it too, and no engine
// needs it.
func checkOnce(writes []Write, ranges int) error {
	if len(writes) < 2 {
		return nil
	}
	var room [MaxOps][]byte
	keys := room[:0]
	for i := range writes {
		if writes[i].Kind != DeleteKeys {
			keys = append(keys, writes[i].Key)
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	for i := 1; i < len(keys); i++ {
		if bytes.Equal(keys[i-1], keys[i]) {
			return fmt.Errorf("%w: the batch writes %q twice", ErrInvalid, keys[i])
		}
	}
	if ranges == 0 {
		return nil
	}
	for i := range writes {
		w := &writes[i]
		if w.Kind != DeleteKeys {
			continue
		}
		at, _ := slices.BinarySearchFunc(keys, w.Key, bytes.Compare)
		if at < len(keys) && (len(w.To) == 0 || bytes.Compare(keys[at], w.To) < 0) {
			return fmt.Errorf("%w: the batch writes %q inside the range %q to %q that it deletes", ErrInvalid, keys[at], w.Key, w.To)
		}
	}
	return nil
}
