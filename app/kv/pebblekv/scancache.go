// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/sluice-rpc/sluice/app/kv"
)

// scanCache keeps the beginnings of ranges that are scanned again and again, such as
// the newest page of a timeline, and adds what is written to them: readers come back
// for what has just been put there, so to forget it would be no use. It never waits
// for the engine. A nil scanCache keeps nothing.
//
// It is exact, in the way of rowCache: while a write is on its way into the engine the
// slot's count is odd and readers ask the engine; the write is in the cached ranges
// before the count is even again. A range that a reader brings is taken only if no
// write came in between.
type scanCache struct {
	perSlot int // bytes
	slots   [kv.Slots]slotScans
}

type slotScans struct {
	writes atomic.Uint64 // odd while a write is in flight; changed under the slot's lock
	// count is the number of ranges. A reader who brings one counts it before he looks
	// at writes, a writer looks at it after he has changed writes: one of them sees the
	// other, and a slot without cached ranges costs its writers no lock.
	count atomic.Int32

	mu     sync.Mutex
	hits   int64    // guarded by mu
	bytes  int      // guarded by mu
	ranges []*scans // guarded by mu; the latest used last
}

// scans is the beginning of a range.
type scans struct {
	from, to []byte
	// items are in descending order, the other way around than the engine's: what is
	// new mostly comes first in a scan, and is appended here. Their bytes never change.
	items []kv.Item
	more  bool // the engine has more behind the last
	bytes int
}

const (
	maxScanned = 32      // items of a scan that is kept
	maxKept    = 64      // items of a range, with what was added
	maxPart    = 8 << 10 // bytes of a range
	itemCost   = int(unsafe.Sizeof(kv.Item{}))
	scansCost  = int(unsafe.Sizeof(scans{})) + 8
)

// newScanCache makes a cache of about limit bytes. Each slot has its part of them.
func newScanCache(limit int64) *scanCache {
	if limit <= 0 {
		return nil
	}
	return &scanCache{perSlot: int(limit) / kv.Slots}
}

// lookup gives what a scan of the engine would, or else a ticket to bring it.
func (c *scanCache) lookup(slot kv.Slot, r kv.Range, limit int) (items []kv.Item, more bool, ticket uint64, ok bool) {
	if c == nil || limit > maxScanned {
		return nil, false, 1, false
	}
	s := &c.slots[slot]
	ticket = s.writes.Load()
	if s.count.Load() == 0 {
		return nil, false, ticket, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes.Load()%2 != 0 {
		return nil, false, 1, false
	}
	i := s.find(r.From, r.To)
	if i < 0 {
		return nil, false, ticket, false
	}
	p := s.ranges[i]
	if p.more && len(p.items) < limit {
		return nil, false, ticket, false
	}
	s.ranges = append(slices.Delete(s.ranges, i, i+1), p)
	s.hits++
	items = make([]kv.Item, min(limit, len(p.items)))
	for i := range items {
		items[i] = p.items[len(p.items)-1-i]
	}
	return items, p.more || len(p.items) > limit, ticket, true
}

// insert takes what a scan with that ticket found. The items belong to the cache from
// now on, and to readers of it.
func (c *scanCache) insert(slot kv.Slot, ticket uint64, r kv.Range, items []kv.Item, more bool) {
	if c == nil || ticket%2 != 0 || len(items) > maxScanned {
		return
	}
	p := &scans{from: bytes.Clone(r.From), to: bytes.Clone(r.To), items: slices.Clone(items), more: more}
	slices.Reverse(p.items)
	p.bytes = scansCost + len(p.from) + len(p.to)
	for i := range p.items {
		// Of its own: those of a scan share their memory with all others of it.
		p.items[i] = ownItem(p.items[i].Key, p.items[i].Value, p.items[i].Ver)
		p.bytes += cost(p.items[i])
	}
	if p.bytes > min(maxPart, c.perSlot) {
		return
	}
	s := &c.slots[slot]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.Add(1)
	if s.writes.Load() != ticket {
		s.count.Add(-1)
		return
	}
	if i := s.find(r.From, r.To); i >= 0 {
		s.remove(i)
	}
	for s.bytes+p.bytes > c.perSlot {
		s.remove(0)
	}
	s.ranges = append(s.ranges, p)
	s.bytes += p.bytes
}

// begin says that a write to slot, whose lock the caller holds, will become visible.
func (c *scanCache) begin(slot kv.Slot) {
	if c != nil {
		c.slots[slot].writes.Add(1)
	}
}

// end says that it is visible, after put and drop have told what it was.
func (c *scanCache) end(slot kv.Slot) { c.begin(slot) }

// put adds a written row to the ranges that it belongs to.
func (c *scanCache) put(slot kv.Slot, key, value []byte, ver uint64) {
	c.change(slot, key, func(p *scans, at int, there bool) {
		if !there && p.more && at == 0 {
			return // behind the last that is kept
		}
		item := ownItem(key, value, ver)
		p.bytes += cost(item)
		if there {
			p.bytes -= cost(p.items[at])
			p.items[at] = item
			return
		}
		p.items = slices.Insert(p.items, at, item)
		if len(p.items) > maxKept || p.bytes > maxPart {
			last := len(p.items) - min(len(p.items), maxScanned)
			for _, gone := range p.items[:last] {
				p.bytes -= cost(gone)
			}
			p.items, p.more = slices.Delete(p.items, 0, last), p.more || last > 0
		}
	})
}

// drop takes a deleted row out of the ranges that it belongs to.
func (c *scanCache) drop(slot kv.Slot, key []byte) {
	c.change(slot, key, func(p *scans, at int, there bool) {
		if there {
			p.bytes -= cost(p.items[at])
			p.items = slices.Delete(p.items, at, at+1)
		}
	})
}

// change lets do change the ranges around a key. It is given the key's place in items.
func (c *scanCache) change(slot kv.Slot, key []byte, do func(p *scans, at int, there bool)) {
	if c == nil || c.slots[slot].count.Load() == 0 {
		return
	}
	s := &c.slots[slot]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ranges {
		if bytes.Compare(key, p.from) < 0 || len(p.to) > 0 && bytes.Compare(key, p.to) >= 0 {
			continue
		}
		at, there := slices.BinarySearchFunc(p.items, key, func(it kv.Item, key []byte) int { return bytes.Compare(key, it.Key) })
		before := p.bytes
		do(p, at, there)
		s.bytes += p.bytes - before
	}
	for s.bytes > c.perSlot {
		s.remove(0)
	}
}

// dropAll forgets all ranges of a slot.
func (c *scanCache) dropAll(slot kv.Slot) {
	if c == nil || c.slots[slot].count.Load() == 0 {
		return
	}
	s := &c.slots[slot]
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ranges) > 0 {
		s.remove(len(s.ranges) - 1)
	}
}

// figures sums up bytes in use and hits.
func (c *scanCache) figures() (size, hits int64) {
	if c == nil {
		return 0, 0
	}
	for i := range c.slots {
		s := &c.slots[i]
		s.mu.Lock()
		size += int64(s.bytes)
		hits += s.hits
		s.mu.Unlock()
	}
	return size, hits
}

func (s *slotScans) find(from, to []byte) int {
	return slices.IndexFunc(s.ranges, func(p *scans) bool { return bytes.Equal(p.from, from) && bytes.Equal(p.to, to) })
}

func (s *slotScans) remove(i int) {
	s.bytes -= s.ranges[i].bytes
	s.ranges = slices.Delete(s.ranges, i, i+1)
	s.count.Add(-1)
}

func ownItem(key, value []byte, ver uint64) kv.Item {
	return rowItem(rowData(key, value), len(key), ver)
}

func cost(it kv.Item) int { return itemCost + len(it.Key) + len(it.Value) }
