// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/sluice-rpc/sluice/app/kv"
)

// rowCache keeps rows that Get read, and absences too, in bounded memory. It never
// waits for the engine. A nil rowCache keeps nothing.
//
// It is exact: lookup gives what the engine shows. A write to a slot, which holds the
// slot's lock, first makes the slot's count odd, then drops the rows it changes, then
// becomes visible in the engine, then makes the count even. A read notes the count
// before it asks the engine, and its row is taken only if the count is even and
// still the same. So no row outlives the write that changes it: one taken before the
// count went odd is dropped, one that comes later is refused. Nor does a reader go
// back in time: when the engine shows a write, to a scan for example, the old row is
// gone already.
type rowCache struct {
	seed   maphash.Seed
	slots  [kv.Slots]slotState
	shards [rowShards]rowShard
}

// slotState is changed under the slot's lock only.
type slotState struct {
	// writes counts the beginnings and ends of writes: odd while one is in flight.
	writes atomic.Uint64
	// ranged is writes during the latest deletion of a range: rows read before it do
	// not count any more. Looking for those in the range would take long.
	ranged atomic.Uint64
}

const (
	rowShards    = 64
	rowShardBits = 6
	// maxRowPart is the part of a shard that one row may fill: large rows are few, and
	// reading them is not dear for their size.
	maxRowPart = 4
)

// rowShard is a part of the rows. Rows are replaced by the clock algorithm: the hand
// goes around, spares the rows used since it last came by, and takes the next.
type rowShard struct {
	mu     sync.Mutex
	limit  int
	bytes  int               // guarded by mu, as all below: memory of the rows' data
	index  map[uint64]uint32 // place in rows of each hash
	rows   []row
	hand   int
	hits   int64
	misses int64
}

// row is a key with its value, or its absence.
type row struct {
	hash   uint64
	data   []byte // key and value; readers may have it, so it never changes
	ver    uint64 // 0: absent
	writes uint64 // of the slot, when the row was read
	keyLen uint16
	slot   kv.Slot
	used   bool
}

// indexCost is the memory of one place of rows in the index: key, place and control
// byte, in a map that may be no more than 7/16 full.
const (
	indexCost = 39
	rowCost   = int(unsafe.Sizeof(row{})) + indexCost
)

// newRowCache makes a cache of at most limit bytes, all its own structures included.
func newRowCache(limit int64) *rowCache {
	if limit <= 0 {
		return nil
	}
	c := &rowCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = int(max(0, limit-int64(unsafe.Sizeof(*c)))) / rowShards
	}
	return c
}

// ticket is what a read notes before it asks the engine.
type ticket struct {
	hash   uint64
	writes uint64
}

func (c *rowCache) hash(slot kv.Slot, key []byte) uint64 {
	// The odd factor carries the slot into the high bits, which choose the shard.
	return maphash.Bytes(c.seed, key) ^ uint64(slot)*0x9e3779b97f4a7c15
}

func (c *rowCache) shard(hash uint64) *rowShard { return &c.shards[hash>>(64-rowShardBits)] }

// lookup gives the row of a key, or else a ticket to bring it.
func (c *rowCache) lookup(slot kv.Slot, key []byte) (item kv.Item, t ticket, ok bool) {
	if c == nil {
		return kv.Item{}, ticket{}, false
	}
	state := &c.slots[slot]
	t = ticket{hash: c.hash(slot, key), writes: state.writes.Load()}
	s := c.shard(t.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[t.hash]
	if ok {
		r := &s.rows[i]
		switch {
		case r.slot != slot || !bytes.Equal(r.data[:r.keyLen], key): // the same hash by chance
		case r.writes < state.ranged.Load():
			s.remove(int(i))
		default:
			r.used = true
			s.hits++
			return rowItem(r.data, int(r.keyLen), r.ver), t, true
		}
	}
	s.misses++
	return kv.Item{}, t, false
}

// insert takes what a read with ticket t found: data is key and value and belongs to
// the cache from now on, and to readers of it.
func (c *rowCache) insert(slot kv.Slot, t ticket, data []byte, keyLen int, ver uint64) {
	if c == nil || t.writes%2 != 0 {
		return
	}
	s := c.shard(t.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Under the shard's lock: if a write begins after this look, its drop comes after
	// this insert.
	if c.slots[slot].writes.Load() != t.writes {
		return
	}
	s.insert(row{hash: t.hash, data: data, ver: ver, writes: t.writes, keyLen: uint16(keyLen), slot: slot})
}

// begin says that a write to slot, whose lock the caller holds, will become visible:
// it comes before the drops, end comes when the write is visible.
func (c *rowCache) begin(slot kv.Slot) {
	if c != nil {
		c.slots[slot].writes.Add(1)
	}
}

func (c *rowCache) end(slot kv.Slot) { c.begin(slot) }

// stamp gives the count of a slot, if no write to it is in flight. It never goes back,
// and what a read finds that begins after stamp was taken is true while it is the same.
func (c *rowCache) stamp(slot kv.Slot) (uint64, bool) {
	if c == nil {
		return 0, false
	}
	n := c.slots[slot].writes.Load()
	return n, n%2 == 0
}

// drop forgets a key.
func (c *rowCache) drop(slot kv.Slot, key []byte) {
	if c == nil {
		return
	}
	hash := c.hash(slot, key)
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.index[hash]; ok { // of another key by chance: no harm
		s.remove(int(i))
	}
}

// dropAll forgets all keys of a slot.
func (c *rowCache) dropAll(slot kv.Slot) {
	if c != nil {
		c.slots[slot].ranged.Store(c.slots[slot].writes.Load())
	}
}

// figures sums up bytes in use, hits and misses.
func (c *rowCache) figures() (size, hits, misses int64) {
	if c == nil {
		return 0, 0, 0
	}
	size = int64(unsafe.Sizeof(*c))
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		size += int64(s.size())
		hits += s.hits
		misses += s.misses
		s.mu.Unlock()
	}
	return size, hits, misses
}

// size is the memory of the shard. Places stay when rows go.
func (s *rowShard) size() int { return s.bytes + cap(s.rows)*rowCost }

func (s *rowShard) insert(r row) {
	if i, ok := s.index[r.hash]; ok {
		s.remove(int(i))
	}
	if cap(r.data) > s.limit/maxRowPart {
		return
	}
	if len(s.rows) == cap(s.rows) {
		more := cap(s.rows)/4 + 4
		if s.size()+more*rowCost <= s.limit {
			s.resize(cap(s.rows) + more)
		} else {
			s.evict()
		}
	}
	s.bytes += cap(r.data)
	for len(s.rows) > 0 && s.size() > s.limit {
		s.evict()
	}
	if len(s.rows) == cap(s.rows) { // even a first place does not fit
		s.bytes -= cap(r.data)
		return
	}
	s.index[r.hash] = uint32(len(s.rows))
	s.rows = append(s.rows, r)
}

// evict removes the next row that was not used since the hand last came by.
func (s *rowShard) evict() {
	for len(s.rows) > 0 {
		if s.hand >= len(s.rows) {
			s.hand = 0
		}
		if r := &s.rows[s.hand]; r.used {
			r.used = false
			s.hand++
			continue
		}
		s.remove(s.hand)
		s.hand++ // what stands here now is the newest row: it is the last to be taken
		return
	}
}

// remove forgets the row at i; the last row takes its place.
func (s *rowShard) remove(i int) {
	last := len(s.rows) - 1
	delete(s.index, s.rows[i].hash)
	s.bytes -= cap(s.rows[i].data)
	if i != last {
		s.rows[i] = s.rows[last]
		s.index[s.rows[i].hash] = uint32(i)
	}
	s.rows[last] = row{}
	s.rows = s.rows[:last]
	// Rows that are larger than those before need fewer places.
	if cap(s.rows) > 64 && len(s.rows) < cap(s.rows)/4 {
		s.resize(cap(s.rows) / 2)
	}
}

// resize makes room for n rows. Maps do not shrink, so there is a new one.
func (s *rowShard) resize(n int) {
	grown := n > cap(s.rows) && s.index != nil
	s.rows = append(slices.Grow([]row(nil), n), s.rows...)
	if grown {
		return
	}
	s.index = make(map[uint64]uint32, len(s.rows))
	for i := range s.rows {
		s.index[s.rows[i].hash] = uint32(i)
	}
}

// rowData makes the memory of a row. Its capacity is what the allocator gave.
func rowData(key, value []byte) []byte {
	return append(append(slices.Grow([]byte(nil), len(key)+len(value)), key...), value...)
}

// rowItem gives an Item out of a row's data, so that appending to it copies it.
func rowItem(data []byte, keyLen int, ver uint64) kv.Item {
	item := kv.Item{Key: data[:keyLen:keyLen], Ver: ver}
	if ver != 0 {
		item.Value = data[keyLen:len(data):len(data)]
	}
	return item
}
