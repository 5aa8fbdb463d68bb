// SPDX-License-Identifier: Apache-2.0

package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// Place is a key of a slot. A sweep goes on at one: there an empty Key is the slot's
// beginning, and the Slot Slots the end of all.
type Place struct {
	Slot Slot
	Key  []byte
}

// SlotItem is an item and the slot that it is in.
type SlotItem struct {
	Slot Slot
	Item
}

// Sweeper is a Store that scans a range of many slots for about what a Scan of one costs.
type Sweeper interface {
	Store
	// ScanSlots is ScanSlots of this package.
	ScanSlots(ctx context.Context, at Place, r Range, mode ReadMode) (items []SlotItem, next Place, err error)
}

// slotsAtOnce bounds the scans that ScanSlots makes of a store that is no Sweeper.
const slotsAtOnce = 256

// ScanSlots reads the items of r in the slots from a place on, in the order of slots and
// keys, at most r.Limit of all slots together. The items of one slot are of one snapshot.
// The sweep goes on at next, and is over if that is in no slot. It may stop before the
// limit, even with nothing: a call looks at a bounded number of slots and bytes.
func ScanSlots(ctx context.Context, s Store, at Place, r Range, mode ReadMode) (items []SlotItem, next Place, err error) {
	if s, ok := s.(Sweeper); ok {
		return s.ScanSlots(ctx, at, r, mode)
	}
	limit, err := CheckSweep(at, r)
	if err != nil {
		return nil, Place{}, err
	}
	size := 0
	for end := at.Slot + slotsAtOnce; at.Slot < min(end, Slots) && len(items) < limit && size < MaxScanBytes; {
		one := r.After(at.Key)
		one.Limit = limit - len(items)
		found, more, err := s.Scan(ctx, at.Slot, one, mode)
		if err != nil {
			return nil, Place{}, err
		}
		for _, it := range found {
			size += len(it.Key) + len(it.Value)
			items = append(items, SlotItem{at.Slot, it})
		}
		if more && len(found) > 0 {
			at.Key = Next(found[len(found)-1].Key)
		} else {
			at = Place{Slot: at.Slot + 1}
		}
	}
	return items, at, nil
}

// Sweep calls do for each item of r in all slots, in the order of slots and keys, until it
// fails or ctx ends. It reads a page with ScanSlots, hands it over, and then the next: what
// is written meanwhile is seen, or not.
func Sweep(ctx context.Context, s Store, r Range, mode ReadMode, do func(Slot, Item) error) error {
	for at := (Place{}); at.Slot < Slots; {
		items, next, err := ScanSlots(ctx, s, at, r, mode)
		if err != nil {
			return fmt.Errorf("sweep from slot %d: %w", at.Slot, err)
		}
		for _, it := range items {
			if err := do(it.Slot, it.Item); err != nil {
				return err
			}
		}
		at = next
	}
	return nil
}

// After gives the part of r from a key on.
func (r Range) After(key []byte) Range {
	if bytes.Compare(key, r.From) > 0 {
		r.From = key
	}
	if len(r.To) > 0 && bytes.Compare(r.From, r.To) > 0 {
		r.From = r.To
	}
	return r
}

// Encode gives p in bytes that ParsePlace reads.
func (p Place) Encode() []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(p.Slot)), p.Key...)
}

// ParsePlace reads a Place that Encode has written. It refuses what is in no slot.
func ParsePlace(b []byte) (Place, error) {
	if len(b) < 2 || len(b) > 2+MaxKey+1 || binary.BigEndian.Uint16(b) >= Slots {
		return Place{}, fmt.Errorf("%w: %d bytes are no place in a slot", ErrInvalid, len(b))
	}
	return Place{Slot: Slot(binary.BigEndian.Uint16(b)), Key: b[2:]}, nil
}
