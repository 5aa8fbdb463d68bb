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
	near   byte     // guarded by mu; see find
}

// head is the beginning of a key, filled up with zeros.
type head [24]byte

func headOf(key []byte) (h head) {
	copy(h[:], key)
	return h
}

// scans is the beginning of a range. Its items are side by side in memory, without pointers:
// there may be millions, in whose number neither a reader nor the collector should have to
// look about.
type scans struct {
	from, to []byte
	// items are in descending order, the other way around than the engine's: what is
	// new mostly comes first in a scan, and is appended here.
	items []packed
	data  []byte // of the items, which readers share: appended to, and never changed
	dead  int    // bytes of data that belong to no item any more
	more  bool   // the engine has more behind the last
	used  bool   // since the hand last came by
}

// packed is where in data the key of an item is, followed by its value.
type packed struct {
	ver            uint64
	at, key, value uint16
}

const (
	maxScanned = 32      // items of a scan that is kept
	maxKept    = 64      // items of a range, with what was added
	maxPart    = 8 << 10 // bytes of a range; packed can tell those of 64 KiB
	packedCost = int(unsafe.Sizeof(packed{}))
	scansCost  = int(unsafe.Sizeof(scans{})) + 8 + len(head{})
)

// newScans makes a range of what a scan of the engine found, which may be too large to be kept.
func newScans(r kv.Range, items []kv.Item, more bool) (p *scans, ok bool) {
	size := 0
	for _, it := range items {
		size += len(it.Key) + len(it.Value)
	}
	if size+len(items)*packedCost > maxPart {
		return nil, false
	}
	ends := append(append(make([]byte, 0, len(r.From)+len(r.To)), r.From...), r.To...) // a lookup needs both
	p = &scans{
		from: ends[:len(r.From):len(r.From)], to: ends[len(r.From):], more: more,
		items: make([]packed, 0, len(items)), data: make([]byte, 0, size),
	}
	for _, it := range slices.Backward(items) {
		p.items = append(p.items, p.pack(it.Key, it.Value, it.Ver))
	}
	return p, true
}

// pack appends an item to data.
func (p *scans) pack(key, value []byte, ver uint64) packed {
	it := packed{ver: ver, at: uint16(len(p.data)), key: uint16(len(key)), value: uint16(len(value))}
	p.data = append(append(p.data, key...), value...)
	return it
}

func (p *scans) key(it packed) []byte   { return p.data[it.at:][:it.key:it.key] }
func (p *scans) value(it packed) []byte { return p.data[it.at:][it.key:][:it.value:it.value] }

// take removes items; the bytes stay until there are more of such than of others.
func (p *scans) take(from, to int) {
	for _, it := range p.items[from:to] {
		p.dead += it.bytes()
	}
	p.items = slices.Delete(p.items, from, to)
	if p.dead <= len(p.data)/2 {
		return
	}
	old := *p
	p.data, p.dead = make([]byte, 0, len(old.data)-old.dead), 0
	for i, it := range p.items {
		p.items[i] = p.pack(old.key(it), old.value(it), it.ver)
	}
}

// live is what the items take without the room that they have to grow.
func (p *scans) live() int { return len(p.items)*packedCost + len(p.data) - p.dead }

// bytes is what p takes.
func (p *scans) bytes() int {
	return scansCost + cap(p.from) + cap(p.to) + cap(p.items)*packedCost + cap(p.data)
}

func (it packed) bytes() int { return int(it.key) + int(it.value) }

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
	if len(r.To) > 0 && !bytes.Equal(r.To, p.to) {
		first = p.place(r.To)
		if p.has(first, r.To) {
			first++
		}
	}
	end := p.place(r.From)
	if p.has(end, r.From) {
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
		it := p.items[end-1-i]
		items[i] = kv.Item{Key: p.key(it), Value: p.value(it), Ver: it.ver}
	}
	return items, more, true
}

// has reports whether the item there is that of key.
func (p *scans) has(at int, key []byte) bool {
	return at < len(p.items) && bytes.Equal(p.key(p.items[at]), key)
}

// place gives the index of the first item that is not behind key.
func (p *scans) place(key []byte) int {
	// Most of what is written is the newest.
	if n := len(p.items); n == 0 || bytes.Compare(key, p.key(p.items[n-1])) < 0 {
		return n
	}
	at, _ := slices.BinarySearchFunc(p.items, key, func(it packed, key []byte) int { return bytes.Compare(key, p.key(it)) })
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

// insert takes what a scan with that ticket found.
func (c *scanCache) insert(slot kv.Slot, ticket uint64, r kv.Range, items []kv.Item, more bool) {
	if c == nil || ticket%2 != 0 || len(items) > maxScanned || len(r.To) > 0 && bytes.Compare(r.From, r.To) >= 0 {
		return
	}
	p, ok := newScans(r, items, more)
	if !ok || p.bytes() > c.perSlot {
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
	s.shrink(c.perSlot - p.bytes())
	at := s.find(p.from) + 1
	s.ranges, s.heads = slices.Insert(s.ranges, at, p), slices.Insert(s.heads, at, headOf(p.from))
	s.bytes += p.bytes()
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
		if there {
			p.take(at, at+1)
		}
		size := packedCost + len(key) + len(value)
		if over := len(p.items) - maxScanned; over > 0 && (len(p.items) == maxKept || p.live()+size > maxPart) {
			p.take(0, over)
			p.more = true
			if at -= over; at <= 0 {
				return true
			}
		}
		if p.live()+size > maxPart {
			return false
		}
		p.items = slices.Insert(p.items, at, p.pack(key, value, ver))
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
		p.take(at, at+1)
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
	before := p.bytes()
	keep := do(p, at, p.has(at, key))
	s.bytes += p.bytes() - before
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
	if hi > 4 {
		// Each step would wait for the memory of the next: all of it at once comes sooner.
		near := byte(0)
		for i := 0; i < min(hi, 64); i += 2 {
			near += s.heads[i][0]
		}
		s.near = near // or the compiler would see that nobody needs it
	}
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
	s.bytes -= s.ranges[i].bytes()
	s.ranges, s.heads = slices.Delete(s.ranges, i, i+1), slices.Delete(s.heads, i, i+1)
	s.count.Add(-1)
	if i < s.hand {
		s.hand--
	}
}
