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
//
// No two ranges of a slot overlap, so that the one a key belongs to is found by
// bisection, however many there are: each write asks. A scan within a range is answered
// from it.
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
	ranges []*scans // guarded by mu; in the order of their keys
	heads  []head   // guarded by mu; the beginning of each one's from, side by side in memory
	hand   int      // guarded by mu; which range is the next to go, if it has not been used
}

// head is the beginning of a key, filled up with zeros.
type head [24]byte

func headOf(key []byte) (h head) {
	copy(h[:], key)
	return h
}

// scans is the beginning of a range.
type scans struct {
	from, to []byte
	// items are in descending order, the other way around than the engine's: what is
	// new mostly comes first in a scan, and is appended here. Their bytes never change.
	items []kv.Item
	more  bool // the engine has more behind the last
	used  bool // since the hand last came by
	bytes int
}

const (
	maxScanned = 32      // items of a scan that is kept
	maxKept    = 64      // items of a range, with what was added
	maxPart    = 8 << 10 // bytes of a range
	itemCost   = int(unsafe.Sizeof(kv.Item{}))
	scansCost  = int(unsafe.Sizeof(scans{})) + 8 + len(head{})
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
	i := s.find(r.From)
	if i < 0 || !s.ranges[i].covers(r) {
		return nil, false, ticket, false
	}
	p := s.ranges[i]
	items, more, ok = p.scan(r, limit)
	if ok {
		p.used = true
		s.hits++
	}
	return items, more, ticket, ok
}

// scan answers a scan of a part of p, if what is kept of p says enough.
func (p *scans) scan(r kv.Range, limit int) (items []kv.Item, more, ok bool) {
	first := 0 // the last of the part, in its order
	if len(r.To) > 0 {
		first = p.place(r.To)
		if first < len(p.items) && bytes.Equal(p.items[first].Key, r.To) {
			first++
		}
	}
	end := p.place(r.From)
	if end < len(p.items) && bytes.Equal(p.items[end].Key, r.From) {
		end++
	}
	there := max(0, end-first)
	switch {
	case there > limit:
		more = true
	case first > 0 || !p.more: // the part ends within what is kept, or with all there is
	case there < limit || !bytes.Equal(r.To, p.to):
		return nil, false, false
	default:
		more = true
	}
	items = make([]kv.Item, min(limit, there))
	for i := range items {
		items[i] = p.items[end-1-i]
	}
	return items, more, true
}

// place gives the index of the first item that is not behind key.
func (p *scans) place(key []byte) int {
	// Most of what is written is the newest.
	if n := len(p.items); n == 0 || bytes.Compare(key, p.items[n-1].Key) < 0 {
		return n
	}
	at, _ := slices.BinarySearchFunc(p.items, key, func(it kv.Item, key []byte) int { return bytes.Compare(key, it.Key) })
	return at
}

// covers reports whether r is a part of p, whose beginning is not behind that of r.
func (p *scans) covers(r kv.Range) bool {
	switch {
	case len(p.to) == 0:
		return true
	case len(r.To) == 0:
		return false
	}
	return bytes.Compare(r.To, p.to) <= 0 && bytes.Compare(r.From, p.to) < 0
}

// insert takes what a scan with that ticket found. The items belong to the cache from
// now on, and to readers of it.
func (c *scanCache) insert(slot kv.Slot, ticket uint64, r kv.Range, items []kv.Item, more bool) {
	if c == nil || ticket%2 != 0 || len(items) > maxScanned || len(r.To) > 0 && bytes.Compare(r.From, r.To) >= 0 {
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
	if s.writes.Load() != ticket || !s.clear(r) {
		s.count.Add(-1)
		return
	}
	s.shrink(c.perSlot - p.bytes)
	at := s.find(p.from) + 1
	s.ranges, s.heads = slices.Insert(s.ranges, at, p), slices.Insert(s.heads, at, headOf(p.from))
	s.bytes += p.bytes
	if at <= s.hand {
		s.hand++ // what is new is the last to go
	}
}

// clear makes room for r among the keys, by forgetting what overlaps it; unless r is only
// a later part of what is kept, which then is worth more.
func (s *slotScans) clear(r kv.Range) bool {
	at := s.find(r.From)
	switch {
	case at < 0:
		at = 0
	case !s.ranges[at].reaches(r.From):
		at++
	case s.ranges[at].covers(r) && !bytes.Equal(s.ranges[at].from, r.From):
		return false
	}
	for at < len(s.ranges) && (len(r.To) == 0 || bytes.Compare(s.ranges[at].from, r.To) < 0) {
		s.remove(at)
	}
	return true
}

// reaches reports whether key is before the end of p.
func (p *scans) reaches(key []byte) bool { return len(p.to) == 0 || bytes.Compare(key, p.to) < 0 }

// begin says that a write to slot, whose lock the caller holds, will become visible.
func (c *scanCache) begin(slot kv.Slot) {
	if c != nil {
		c.slots[slot].writes.Add(1)
	}
}

// end says that it is visible, after put and drop have told what it was.
func (c *scanCache) end(slot kv.Slot) { c.begin(slot) }

// put adds a written row to the range that it belongs to.
func (c *scanCache) put(slot kv.Slot, key, value []byte, ver uint64) {
	c.change(slot, key, func(p *scans, at int, there bool) (keep bool) {
		if !there && p.more && at == 0 {
			return true // behind the last that is kept
		}
		item := ownItem(key, value, ver)
		p.bytes += cost(item)
		if there {
			p.bytes -= cost(p.items[at])
			p.items[at] = item
			return true
		}
		p.items = slices.Insert(p.items, at, item)
		if len(p.items) > maxKept || p.bytes > maxPart {
			last := len(p.items) - min(len(p.items), maxScanned)
			for _, gone := range p.items[:last] {
				p.bytes -= cost(gone)
			}
			p.items, p.more = slices.Delete(p.items, 0, last), p.more || last > 0
		}
		return true
	})
}

// drop takes a deleted row out of the range that it belongs to.
func (c *scanCache) drop(slot kv.Slot, key []byte) {
	c.change(slot, key, func(p *scans, at int, there bool) (keep bool) {
		if !there {
			// Behind the last that is kept it may have been all there was.
			return at > 0 || !p.more
		}
		p.bytes -= cost(p.items[at])
		p.items = slices.Delete(p.items, at, at+1)
		return true
	})
}

// change lets do change the range around a key, or have it forgotten. It is given the
// key's place in items.
func (c *scanCache) change(slot kv.Slot, key []byte, do func(p *scans, at int, there bool) (keep bool)) {
	if c == nil || c.slots[slot].count.Load() == 0 {
		return
	}
	s := &c.slots[slot]
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(key)
	if i < 0 || !s.ranges[i].reaches(key) {
		return
	}
	p := s.ranges[i]
	at := p.place(key)
	before := p.bytes
	keep := do(p, at, at < len(p.items) && bytes.Equal(p.items[at].Key, key))
	s.bytes += p.bytes - before
	if !keep {
		s.remove(i)
	}
	s.shrink(c.perSlot)
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

// find gives the last range that does not begin behind key, -1 if there is none.
func (s *slotScans) find(key []byte) int {
	h := headOf(key)
	lo, hi := 0, len(s.heads)
	for lo < hi {
		mid := (lo + hi) / 2
		order := bytes.Compare(s.heads[mid][:], h[:])
		if order == 0 {
			order = bytes.Compare(s.ranges[mid].from, key)
		}
		if order <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// shrink forgets ranges until no more than limit bytes are left. The hand goes around,
// spares those used since it last came by, and takes the next.
func (s *slotScans) shrink(limit int) {
	for s.bytes > limit && len(s.ranges) > 0 {
		if s.hand >= len(s.ranges) {
			s.hand = 0
		}
		if p := s.ranges[s.hand]; p.used {
			p.used = false
			s.hand++
			continue
		}
		s.remove(s.hand)
	}
}

func (s *slotScans) remove(i int) {
	s.bytes -= s.ranges[i].bytes
	s.ranges, s.heads = slices.Delete(s.ranges, i, i+1), slices.Delete(s.heads, i, i+1)
	s.count.Add(-1)
	if i < s.hand {
		s.hand--
	}
}

func ownItem(key, value []byte, ver uint64) kv.Item {
	return rowItem(rowData(key, value), len(key), ver)
}

func cost(it kv.Item) int { return itemCost + len(it.Key) + len(it.Value) }
