// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluice-rpc/sluice/app/kv"
)

// maxSeeks bounds the slots that one iterator goes to: while it is open, the engine
// keeps the files that it reads.
const maxSeeks = 1024

// ScanSlots implements kv.Sweeper with one iterator. It goes from row to row of the range,
// and passes over what is between with one seek for each slot that has any rows at all.
func (s *Store) ScanSlots(ctx context.Context, at kv.Place, r kv.Range, mode kv.ReadMode) ([]kv.SlotItem, kv.Place, error) {
	limit, err := kv.CheckSweep(at, r)
	if err != nil {
		return nil, kv.Place{}, err
	}
	if err := s.enter(ctx); err != nil {
		return nil, kv.Place{}, err
	}
	defer s.leave()
	items, next, err := s.sweepEngine(ctx, at, r, limit)
	if err != nil {
		return nil, kv.Place{}, err
	}
	newest := uint64(0)
	for i := range items {
		newest = max(newest, items[i].Ver)
	}
	if err := s.settle(at.Slot, min(next.Slot, kv.Slots-1), newest, mode); err != nil {
		return nil, kv.Place{}, err
	}
	return items, next, nil
}

func (s *Store) sweepEngine(ctx context.Context, at kv.Place, r kv.Range, limit int) (items []kv.SlotItem, next kv.Place, err error) {
	iter, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{UpperBound: storedKey(kv.Slots, nil)})
	if err != nil {
		return nil, kv.Place{}, s.readError(storedKey(at.Slot, nil), err)
	}
	defer func() {
		if e := iter.Close(); e != nil && err == nil {
			items, next, err = nil, kv.Place{}, s.readError(storedKey(at.Slot, nil), e)
		}
	}()
	end := kv.Place{Slot: kv.Slots}
	stored := keyBuffers.Get().(*keyBuffer)
	defer keyBuffers.Put(stored)
	var room arena
	size := 0
	ok := at.Slot < kv.Slots && iter.SeekGE(stored.fill(at.Slot, r.After(at.Key).From))
	for seeks := 1; ok; {
		raw := iter.Key()
		slot, key := kv.Slot(binary.BigEndian.Uint16(raw)), raw[slotLen:]
		before, behind := bytes.Compare(key, r.From) < 0, len(r.To) > 0 && bytes.Compare(key, r.To) >= 0
		if before || behind {
			if behind {
				slot++
			}
			if slot == kv.Slots || seeks == maxSeeks {
				return items, kv.Place{Slot: slot}, nil
			}
			seeks++
			ok = iter.SeekGE(stored.fill(slot, r.From))
			continue
		}
		if len(items) == limit || size >= kv.MaxScanBytes {
			return items, kv.Place{Slot: slot, Key: bytes.Clone(key)}, nil
		}
		value, err := iter.ValueAndErr()
		if err != nil {
			return nil, kv.Place{}, s.readError(raw, err)
		}
		ver, value, err := split(value)
		if err != nil {
			return nil, kv.Place{}, s.readError(raw, err)
		}
		size += len(key) + len(value)
		item := kv.SlotItem{Slot: slot, Item: kv.Item{Ver: ver}}
		item.Key, item.Value = room.copy(key, value, limit-len(items))
		items = append(items, item)
		ok = iter.Next()
	}
	return items, end, nil
}
