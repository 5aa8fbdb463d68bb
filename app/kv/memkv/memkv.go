// SPDX-License-Identifier: Apache-2.0

// Package memkv is the kv driver for tests: a whole store in memory that behaves like
// one on a disk. What was acknowledged survives Crash and Reopen, what was not is
// gone, and a test decides when the disk syncs and which call fails how.
package memkv

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/google/btree"

	"github.com/sluice-rpc/sluice/app/kv"
)

// Store is an open store in memory. It may be used concurrently.
type Store struct {
	disk *disk

	// guarded by disk.mu
	closed bool
	faults func(Call) Fault
}

var _ kv.Stamper = (*Store)(nil)

// disk outlives the Store that has it open, as a directory outlives a process.
type disk struct {
	mu      sync.RWMutex
	tree    *btree.BTreeG[entry]
	ver     uint64 // of the latest write; never goes back, in a crash neither
	stamps  map[kv.Slot]uint64
	held    bool // syncs wait
	pending []*write
	owner   *Store // who has it open, nil for nobody
}

type entry struct {
	slot  kv.Slot
	key   []byte
	value []byte
	ver   uint64
}

func less(a, b entry) bool {
	if a.slot != b.slot {
		return a.slot < b.slot
	}
	return bytes.Compare(a.key, b.key) < 0
}

// write is applied but not yet synced.
type write struct {
	slots map[kv.Slot]bool
	undo  []entry // the state before, ver 0 for an absent key
	err   error   // set before done is closed
	done  chan struct{}
}

// New makes an empty store.
func New() *Store {
	d := &disk{tree: btree.NewG(32, less), stamps: make(map[kv.Slot]uint64)}
	d.owner = &Store{disk: d}
	return d.owner
}

// Get reads one key.
func (s *Store) Get(ctx context.Context, slot kv.Slot, key []byte, mode kv.ReadMode) (kv.Item, error) {
	if err := kv.CheckKey(slot, key); err != nil {
		return kv.Item{}, err
	}
	unlock, err := s.startRead(ctx, Get, slot, mode)
	if err != nil {
		return kv.Item{}, err
	}
	defer unlock()
	e, ok := s.disk.tree.Get(entry{slot: slot, key: key})
	if !ok {
		return kv.Item{}, nil
	}
	return e.item(), nil
}

// Scan reads a range in ascending order.
func (s *Store) Scan(ctx context.Context, slot kv.Slot, r kv.Range, mode kv.ReadMode) (items []kv.Item, more bool, err error) {
	limit, err := kv.CheckRange(slot, r)
	if err != nil {
		return nil, false, err
	}
	unlock, err := s.startRead(ctx, Scan, slot, mode)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	size := 0
	s.disk.ascend(slot, r.From, r.To, func(e entry) bool {
		if len(items) == limit || size >= kv.MaxScanBytes {
			more = true
			return false
		}
		size += len(e.key) + len(e.value)
		items = append(items, e.item())
		return true
	})
	return items, more, nil
}

// Stamp implements kv.Stamper.
func (s *Store) Stamp(slot kv.Slot) (uint64, bool) {
	s.disk.mu.RLock()
	defer s.disk.mu.RUnlock()
	return s.disk.stamps[slot], !s.closed
}

// startRead lets a read begin, holding the disk for reading until unlock is called.
func (s *Store) startRead(ctx context.Context, m Method, slot kv.Slot, mode kv.ReadMode) (unlock func(), err error) {
	for {
		if err := kv.CheckContext(ctx); err != nil {
			return nil, err
		}
		s.disk.mu.RLock()
		if s.closed {
			s.disk.mu.RUnlock()
			return nil, kv.ErrClosed
		}
		w := s.disk.unsynced(slot)
		if mode == kv.Local || w == nil {
			if s.fault(Call{Method: m, Slot: slot}) != None {
				s.disk.mu.RUnlock()
				return nil, fmt.Errorf("%w: injected fault", kv.ErrUnavailable)
			}
			return s.disk.mu.RUnlock, nil
		}
		s.disk.mu.RUnlock()
		select {
		case <-w.done:
		case <-ctx.Done():
		}
	}
}

// unsynced gives the latest write to the slot that could still be lost.
func (d *disk) unsynced(slot kv.Slot) *write {
	for i := len(d.pending) - 1; i >= 0; i-- {
		if d.pending[i].slots[slot] {
			return d.pending[i]
		}
	}
	return nil
}

// Apply makes the changes of a batch.
func (s *Store) Apply(ctx context.Context, slot kv.Slot, b *kv.Batch) (uint64, error) {
	if err := kv.CheckBatch(slot, b); err != nil {
		return 0, err
	}
	if err := kv.CheckContext(ctx); err != nil {
		return 0, err
	}
	d := s.disk
	d.mu.Lock()
	if s.closed {
		d.mu.Unlock()
		return 0, kv.ErrClosed
	}
	for _, c := range b.Conds() {
		if e, _ := d.tree.Get(entry{slot: slot, key: c.Key}); e.ver != c.Ver {
			d.mu.Unlock()
			return 0, fmt.Errorf("%w: key %q has version %d, not %d", kv.ErrConflict, c.Key, e.ver, c.Ver)
		}
	}
	fault := s.fault(Call{Method: Apply, Slot: slot})
	if err := fault.before(); err != nil {
		d.mu.Unlock()
		return 0, err
	}
	d.ver++
	ver := d.ver
	w := &write{slots: map[kv.Slot]bool{slot: true}}
	for _, op := range b.Writes() {
		switch op.Kind {
		case kv.PutKey:
			d.put(w, entry{slot: slot, key: bytes.Clone(op.Key), value: bytes.Clone(op.Value), ver: ver})
		case kv.DeleteKey:
			d.del(w, entry{slot: slot, key: op.Key})
		case kv.DeleteKeys:
			var gone []entry
			d.ascend(slot, op.Key, op.To, func(e entry) bool {
				gone = append(gone, e)
				return true
			})
			for _, e := range gone {
				d.del(w, e)
			}
		}
	}
	if err := s.finish(ctx, w, fault); err != nil {
		return 0, err
	}
	return ver, nil
}

// BulkPut stores values in many slots.
func (s *Store) BulkPut(ctx context.Context, puts []kv.SlotPut) error {
	if err := kv.CheckBulk(puts); err != nil {
		return err
	}
	if err := kv.CheckContext(ctx); err != nil {
		return err
	}
	if len(puts) == 0 {
		return nil
	}
	d := s.disk
	d.mu.Lock()
	if s.closed {
		d.mu.Unlock()
		return kv.ErrClosed
	}
	fault := s.fault(Call{Method: BulkPut, Slot: puts[0].Slot})
	if err := fault.before(); err != nil {
		d.mu.Unlock()
		return err
	}
	d.ver++
	w := &write{slots: map[kv.Slot]bool{}}
	for _, p := range puts {
		if fault == UnknownPart && p.Slot%2 != puts[0].Slot%2 {
			continue
		}
		w.slots[p.Slot] = true
		d.put(w, entry{slot: p.Slot, key: bytes.Clone(p.Key), value: bytes.Clone(p.Value), ver: d.ver})
	}
	return s.finish(ctx, w, fault)
}

// finish syncs a write or waits until the disk does. It is called with the disk
// locked and unlocks it.
func (s *Store) finish(ctx context.Context, w *write, fault Fault) error {
	d := s.disk
	if !d.held {
		d.mu.Unlock()
		return fault.after()
	}
	w.done = make(chan struct{})
	d.pending = append(d.pending, w)
	d.mu.Unlock()
	select {
	case <-w.done:
		if w.err != nil {
			return w.err
		}
		return fault.after()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", kv.ErrUnknown, ctx.Err())
	}
}

// Close syncs what is pending and closes the store. Reopen gives it back.
func (s *Store) Close() error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.closed {
		return nil
	}
	s.disk.settle(nil)
	s.closed, s.disk.owner = true, nil
	return nil
}

func (e entry) item() kv.Item {
	return kv.Item{Key: bytes.Clone(e.key), Value: bytes.Clone(e.value), Ver: e.ver}
}

// ascend visits the entries of a range in order until visit says no.
func (d *disk) ascend(slot kv.Slot, from, to []byte, visit func(entry) bool) {
	d.tree.AscendGreaterOrEqual(entry{slot: slot, key: from}, func(e entry) bool {
		if e.slot != slot || len(to) > 0 && bytes.Compare(e.key, to) >= 0 {
			return false
		}
		return visit(e)
	})
}

func (d *disk) put(w *write, e entry) {
	old, ok := d.tree.ReplaceOrInsert(e)
	d.remember(w, old, ok, e)
}

func (d *disk) del(w *write, e entry) {
	old, ok := d.tree.Delete(e)
	d.remember(w, old, ok, e)
}

// remember notes what a crash has to bring back.
func (d *disk) remember(w *write, old entry, existed bool, now entry) {
	d.stamps[now.slot]++
	if !d.held {
		return
	}
	if !existed {
		old = entry{slot: now.slot, key: bytes.Clone(now.key)}
	}
	w.undo = append(w.undo, old)
}

// settle ends all pending writes: as synced, or as lost if err is not nil.
func (d *disk) settle(err error) {
	for i := len(d.pending) - 1; i >= 0; i-- {
		w := d.pending[i]
		if err != nil {
			d.revert(w)
		}
		w.err = err
		close(w.done)
	}
	d.pending, d.held = nil, false
}

func (d *disk) revert(w *write) {
	for i := len(w.undo) - 1; i >= 0; i-- {
		d.stamps[w.undo[i].slot]++
		if old := w.undo[i]; old.ver == 0 {
			d.tree.Delete(old)
		} else {
			d.tree.ReplaceOrInsert(old)
		}
	}
}
