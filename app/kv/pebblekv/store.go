// SPDX-License-Identifier: Apache-2.0

// Package pebblekv is the embedded kv driver: one directory on one disk, on Pebble
// (https://github.com/cockroachdb/pebble). Concurrent writes share their syncs.
//
// A stored key is the slot in two bytes and the key; a stored value is the version
// in eight bytes and the value.
//
// Pebble cannot go on after its log failed to write, and nobody knows then what is on
// the disk. The process ends, see Options.Fatal; started again it has everything
// that was acknowledged.
package pebblekv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/lockfile"
)

const (
	slotLen = 2
	verLen  = 8
)

// Store is an open store. It may be used concurrently.
type Store struct {
	dir   string
	opt   Options
	db    *pebble.DB
	lock  *lockfile.Lock
	marks *watermark
	space space
	rows  *rowCache  // nil: none
	scans *scanCache // nil: none

	// slots orders the writes of each slot: whoever holds a lock has its conditions
	// checked and its versions in the order of the log. It is never held over a sync.
	slots  [kv.Slots]sync.Mutex
	fences [kv.Slots]fences // guarded by slots
	// deleting counts the batches with deletes of each slot that are not synced.
	deleting [kv.Slots]atomic.Int32

	// life is held for reading by every call and taken by Close.
	life   sync.RWMutex
	closed bool // guarded by life
	broken atomic.Bool
}

var (
	_ kv.Many    = (*Store)(nil)
	_ kv.Stamper = (*Store)(nil)
	_ kv.Sweeper = (*Store)(nil)
)

// enter lets a call begin; it must leave.
func (s *Store) enter(ctx context.Context) error {
	if err := kv.CheckContext(ctx); err != nil {
		return err
	}
	return s.hold()
}

// hold keeps the store open until leave.
func (s *Store) hold() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return kv.ErrClosed
	}
	if s.broken.Load() {
		s.life.RUnlock()
		return fmt.Errorf("%w: the disk under %s failed; restart the process", kv.ErrUnavailable, s.dir)
	}
	return nil
}

func (s *Store) leave() { s.life.RUnlock() }

// Get reads one key.
func (s *Store) Get(ctx context.Context, slot kv.Slot, key []byte, mode kv.ReadMode) (kv.Item, error) {
	if err := kv.CheckKey(slot, key); err != nil {
		return kv.Item{}, err
	}
	if err := s.enter(ctx); err != nil {
		return kv.Item{}, err
	}
	defer s.leave()
	item, err := s.get(slot, key)
	if err != nil {
		return kv.Item{}, err
	}
	if err := s.settle(slot, slot, item.Ver, mode); err != nil {
		return kv.Item{}, err
	}
	return item, nil
}

// GetMany reads many keys. Of the cached rows it waits for the memory of all at once.
func (s *Store) GetMany(ctx context.Context, places []kv.Place, mode kv.ReadMode) ([]kv.Item, error) {
	for _, p := range places {
		if err := kv.CheckKey(p.Slot, p.Key); err != nil {
			return nil, err
		}
	}
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	items := make([]kv.Item, len(places))
	for _, m := range s.rows.lookupAll(places, items) {
		var err error
		if items[m.at], err = s.bring(places[m.at].Slot, places[m.at].Key, m.ticket); err != nil {
			return nil, err
		}
	}
	for i, p := range places {
		if err := s.settle(p.Slot, p.Slot, items[i].Ver, mode); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// get reads a key from the cached rows or else from the engine.
func (s *Store) get(slot kv.Slot, key []byte) (kv.Item, error) {
	item, ticket, ok := s.rows.lookup(slot, key)
	if ok {
		return item, nil
	}
	return s.bring(slot, key, ticket)
}

// bring reads a key from the engine, for the cache too.
func (s *Store) bring(slot kv.Slot, key []byte, ticket ticket) (kv.Item, error) {
	stored := keyBuffers.Get().(*keyBuffer)
	defer keyBuffers.Put(stored)
	raw, closer, err := s.db.Get(stored.fill(slot, key))
	var ver uint64
	var value []byte
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return kv.Item{}, s.readError(storedKey(slot, key), err)
	default:
		defer closer.Close()
		if ver, value, err = split(raw); err != nil {
			return kv.Item{}, s.readError(storedKey(slot, key), err)
		}
	}
	data := rowData(key, value, ver)
	s.rows.insert(slot, ticket, key, data, ver)
	return rowItem(data, len(key), ver), nil
}

// version reads the version of a key, 0 if it is absent, for the holder of the slot's
// lock: with no write to the slot in flight, a cached row is the row of the engine.
func (s *Store) version(slot kv.Slot, key []byte) (uint64, error) {
	if ver, ok := s.fences[slot].version(key); ok {
		return ver, nil
	}
	if item, _, ok := s.rows.lookup(slot, key); ok {
		return item.Ver, nil
	}
	stored := keyBuffers.Get().(*keyBuffer)
	defer keyBuffers.Put(stored)
	raw, closer, err := s.db.Get(stored.fill(slot, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, s.readError(storedKey(slot, key), err)
	}
	defer closer.Close()
	ver, _, err := split(raw)
	if err != nil {
		return 0, s.readError(storedKey(slot, key), err)
	}
	return ver, nil
}

// keyBuffer is memory for a stored key. The engine keeps no key beyond a read.
type keyBuffer struct{ b []byte }

var keyBuffers = sync.Pool{New: func() any { return new(keyBuffer) }}

func (k *keyBuffer) fill(slot kv.Slot, key []byte) []byte {
	k.b = append(binary.BigEndian.AppendUint16(k.b[:0], uint16(slot)), key...)
	return k.b
}

// Scan reads a range in ascending order.
func (s *Store) Scan(ctx context.Context, slot kv.Slot, r kv.Range, mode kv.ReadMode) ([]kv.Item, bool, error) {
	limit, err := kv.CheckRange(slot, r)
	if err != nil {
		return nil, false, err
	}
	if err := s.enter(ctx); err != nil {
		return nil, false, err
	}
	defer s.leave()
	items, more, err := s.scan(ctx, slot, r, limit)
	if err != nil {
		return nil, false, err
	}
	newest := uint64(0)
	for i := range items {
		newest = max(newest, items[i].Ver)
	}
	if err := s.settle(slot, slot, newest, mode); err != nil {
		return nil, false, err
	}
	return items, more, nil
}

// scan reads a range from the cached ones or else from the engine.
func (s *Store) scan(ctx context.Context, slot kv.Slot, r kv.Range, limit int) ([]kv.Item, bool, error) {
	items, more, ticket, ok := s.scans.lookup(slot, r, limit)
	if ok {
		return items, more, nil
	}
	items, more, err := s.scanEngine(ctx, slot, r, limit)
	if err == nil {
		s.scans.insert(slot, ticket, r, items, more)
	}
	return items, more, err
}

func (s *Store) scanEngine(ctx context.Context, slot kv.Slot, r kv.Range, limit int) (items []kv.Item, more bool, err error) {
	lower, upper := bounds(slot, r.From, r.To)
	iter, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, false, s.readError(lower, err)
	}
	defer func() {
		if e := iter.Close(); e != nil && err == nil {
			items, more, err = nil, false, s.readError(lower, e)
		}
	}()
	items = make([]kv.Item, 0, min(limit, 64))
	var room arena
	size := 0
	for ok := iter.First(); ok; ok = iter.Next() {
		if len(items) == limit || size >= kv.MaxScanBytes {
			return items, true, nil
		}
		key := iter.Key()
		raw, err := iter.ValueAndErr()
		if err != nil {
			return nil, false, s.readError(key, err)
		}
		ver, value, err := split(raw)
		if err != nil {
			return nil, false, s.readError(key, err)
		}
		key = key[slotLen:]
		size += len(key) + len(value)
		item := kv.Item{Ver: ver}
		item.Key, item.Value = room.copy(key, value, limit-len(items))
		items = append(items, item)
	}
	return items, false, nil
}

// settle lets a read of the slots from first to last return: a linearizable one only when
// all it saw is on the disk. Newest is the greatest version it saw; deletes leave no
// version and are counted.
func (s *Store) settle(first, last kv.Slot, newest uint64, mode kv.ReadMode) error {
	if mode == kv.Local || newest < s.marks.durable() && !s.deletes(first, last) {
		return nil
	}
	return s.barrier()
}

// deletes reports whether a delete in the slots from first to last may not be on the disk.
func (s *Store) deletes(first, last kv.Slot) bool {
	for slot := first; slot <= last; slot++ {
		if s.deleting[slot].Load() != 0 {
			return true
		}
	}
	return false
}

// barrier returns when everything visible before it is on the disk.
func (s *Store) barrier() (err error) {
	defer s.recovered(&err)
	if err := s.db.LogData(nil, pebble.Sync); err != nil {
		return s.fail(err)
	}
	return nil
}

// Stamp implements kv.Stamper. A store without a row cache has no stamps.
func (s *Store) Stamp(slot kv.Slot) (uint64, bool) { return s.rows.stamp(slot) }

// Apply makes the changes of a batch.
func (s *Store) Apply(ctx context.Context, slot kv.Slot, b *kv.Batch) (uint64, error) {
	if err := kv.CheckBatch(slot, b); err != nil {
		return 0, err
	}
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	puts, deletes := kinds(b)
	if err := s.space.take(s.dir, b.Size(), puts == 0); err != nil {
		return 0, err
	}
	if deletes > 0 {
		s.deleting[slot].Add(1)
		defer s.deleting[slot].Add(-1)
	}
	wb := s.db.NewBatch()
	ver, err := s.start(slot, b, wb)
	if err != nil {
		_ = wb.Close()
		return 0, err
	}
	defer s.marks.end(ver)
	if wb.Empty() {
		// Conditions alone: what they saw must be true after a crash too.
		if err := s.barrier(); err != nil {
			return 0, err
		}
		return ver, wb.Close()
	}
	if err := s.await(wb); err != nil {
		return 0, err
	}
	return ver, nil
}

// start checks the conditions of b and enters its writes into the log, as one step
// in the order of the slot.
func (s *Store) start(slot kv.Slot, b *kv.Batch, wb *pebble.Batch) (ver uint64, err error) {
	mu := &s.slots[slot]
	mu.Lock()
	defer mu.Unlock()
	for _, c := range b.Conds() {
		have, err := s.version(slot, c.Key)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", kv.ErrUnavailable, err)
		}
		if have != c.Ver {
			return 0, fmt.Errorf("%w: key %q has version %d, not %d", kv.ErrConflict, c.Key, have, c.Ver)
		}
	}
	ver, err = s.marks.begin()
	if err != nil {
		return 0, err
	}
	for _, w := range b.Writes() {
		switch w.Kind {
		case kv.PutKey:
			put(wb, slot, w.Key, w.Value, ver)
		case kv.DeleteKey:
			op := wb.DeleteDeferred(slotLen + len(w.Key))
			fillKey(op.Key, slot, w.Key)
			_ = op.Finish() // fails only on indexed batches
		case kv.DeleteKeys:
			from, to := bounds(slot, w.Key, w.To)
			if bytes.Compare(from, to) < 0 {
				_ = wb.DeleteRange(from, to, nil)
			}
		}
	}
	if wb.Empty() {
		return ver, nil
	}
	s.rows.begin(slot)
	s.scans.begin(slot)
	defer s.rows.end(slot)
	defer s.scans.end(slot)
	for _, w := range b.Writes() {
		if w.Kind == kv.DeleteKeys {
			s.rows.dropAll(slot)
		} else {
			s.rows.drop(slot, w.Key)
		}
	}
	if err := s.log(wb); err != nil {
		s.scans.dropAll(slot) // nobody knows what the engine shows
		s.fences[slot].clear()
		s.marks.end(ver)
		return 0, err
	}
	for _, w := range b.Writes() {
		switch w.Kind {
		case kv.PutKey:
			s.scans.put(slot, w.Key, w.Value, ver)
		case kv.DeleteKey:
			s.scans.drop(slot, w.Key)
		case kv.DeleteKeys:
			s.scans.dropAll(slot)
		}
	}
	s.fences[slot].written(b, ver)
	return ver, nil
}

// BulkPut stores values in many slots, in one write of the log.
func (s *Store) BulkPut(ctx context.Context, puts []kv.SlotPut) error {
	if err := kv.CheckBulk(puts); err != nil {
		return err
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if len(puts) == 0 {
		return nil
	}
	var slots slotSet
	size := 0
	for i := range puts {
		slots.add(puts[i].Slot)
		size += slotLen + len(puts[i].Key) + verLen + len(puts[i].Value)
	}
	if err := s.space.take(s.dir, size, false); err != nil {
		return err
	}
	wb := s.db.NewBatchWithSize(size + 16*len(puts))
	ver, err := s.startBulk(&slots, puts, wb)
	if err != nil {
		_ = wb.Close()
		return err
	}
	defer s.marks.end(ver)
	return s.await(wb)
}

// startBulk enters puts into the log. It takes the locks of all slots in ascending
// order: no two calls can wait for each other.
func (s *Store) startBulk(slots *slotSet, puts []kv.SlotPut, wb *pebble.Batch) (uint64, error) {
	slots.each(func(i kv.Slot) { s.slots[i].Lock() })
	defer slots.each(func(i kv.Slot) { s.slots[i].Unlock() })
	ver, err := s.marks.begin()
	if err != nil {
		return 0, err
	}
	for i := range puts {
		put(wb, puts[i].Slot, puts[i].Key, puts[i].Value, ver)
	}
	if s.rows != nil {
		slots.each(s.rows.begin)
		defer slots.each(s.rows.end)
		for i := range puts {
			s.rows.drop(puts[i].Slot, puts[i].Key)
		}
	}
	if s.scans != nil {
		slots.each(s.scans.begin)
		defer slots.each(s.scans.end)
	}
	if err := s.log(wb); err != nil {
		slots.each(s.scans.dropAll)
		slots.each(func(i kv.Slot) { s.fences[i].clear() })
		s.marks.end(ver)
		return 0, err
	}
	for i := range puts {
		s.scans.put(puts[i].Slot, puts[i].Key, puts[i].Value, ver)
		s.fences[puts[i].Slot].put(puts[i].Key, ver)
	}
	return ver, nil
}

// log makes the writes of wb visible and enters them into the log; await waits until
// the log is on the disk. Between the two, other writes join the same sync.
func (s *Store) log(wb *pebble.Batch) (err error) {
	defer s.recovered(&err)
	if err := s.db.ApplyNoSyncWait(wb, pebble.Sync); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *Store) await(wb *pebble.Batch) error {
	if err := wb.SyncWait(); err != nil {
		return s.fail(err)
	}
	_ = wb.Close() // gives memory back; the write is durable already
	return nil
}

// recovered turns Pebble's panic on a failed log into the end of the process.
func (s *Store) recovered(err *error) {
	if p := recover(); p != nil {
		*err = s.fail(fmt.Errorf("%v", p))
	}
}

// fail ends the process, or whatever the options say, after a failure of the log.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("write the log of %s: %w", s.dir, err)
	s.broken.Store(true)
	s.opt.Fatal(err)
	return fmt.Errorf("%w: %w", kv.ErrUnknown, err)
}

// Close waits for the calls in progress and closes the store.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.db.Close()
	if e := s.lock.Release(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close the store in %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) readError(stored []byte, err error) error {
	return fmt.Errorf("read %x of the store in %s: %w", stored, s.dir, err)
}

func kinds(b *kv.Batch) (puts, deletes int) {
	for _, w := range b.Writes() {
		if w.Kind == kv.PutKey {
			puts++
		} else {
			deletes++
		}
	}
	return puts, deletes
}

func put(wb *pebble.Batch, slot kv.Slot, key, value []byte, ver uint64) {
	op := wb.SetDeferred(slotLen+len(key), verLen+len(value))
	fillKey(op.Key, slot, key)
	binary.BigEndian.PutUint64(op.Value, ver)
	copy(op.Value[verLen:], value)
	_ = op.Finish() // fails only on indexed batches
}

func storedKey(slot kv.Slot, key []byte) []byte {
	stored := make([]byte, slotLen+len(key))
	fillKey(stored, slot, key)
	return stored
}

func fillKey(stored []byte, slot kv.Slot, key []byte) {
	binary.BigEndian.PutUint16(stored, uint16(slot))
	copy(stored[slotLen:], key)
}

func bounds(slot kv.Slot, from, to []byte) (lower, upper []byte) {
	n := slotLen + len(from)
	both := make([]byte, n+slotLen+len(to))
	lower, upper = both[:n:n], both[n:]
	fillKey(lower, slot, from)
	if len(to) == 0 {
		slot++
	}
	fillKey(upper, slot, to)
	return lower, upper
}

func split(raw []byte) (ver uint64, value []byte, err error) {
	if len(raw) < verLen {
		return 0, nil, fmt.Errorf("value of %d bytes has no version", len(raw))
	}
	return binary.BigEndian.Uint64(raw), raw[verLen:], nil
}

// slotSet is a set of slots that is walked in ascending order.
type slotSet [kv.Slots / 64]uint64

func (s *slotSet) add(i kv.Slot) { s[i/64] |= 1 << (i % 64) }

func (s *slotSet) each(visit func(kv.Slot)) {
	for w, word := range s {
		for ; word != 0; word &= word - 1 {
			visit(kv.Slot(w*64 + bits.TrailingZeros64(word)))
		}
	}
}

// arena hands out copies from few pieces of memory.
type arena struct{ free []byte }

const arenaPiece = 4 << 10

// copy gives copies of a key and its value. More is how many such pairs there may yet
// be, this one included: a short scan needs no large piece.
func (a *arena) copy(key, value []byte, more int) (k, v []byte) {
	n, size := len(key), len(key)+len(value)
	if size > len(a.free) {
		a.free = make([]byte, max(size, min(size*more, arenaPiece)))
	}
	copy(a.free, key)
	copy(a.free[n:], value)
	k, v = a.free[:n:n], a.free[n:size:size]
	a.free = a.free[size:]
	return k, v
}
