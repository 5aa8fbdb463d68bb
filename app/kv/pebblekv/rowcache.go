// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/sluice-rpc/sluice/app/hashtable"
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

// rowShard is a part of the rows. They are replaced by the clock algorithm: the hand
// goes around, spares the rows used since it last came by, and takes the next.
type rowShard struct {
	mu     sync.Mutex
	limit  int
	table  hashtable.Table[rowKey, row] // guarded by mu, as all below
	bytes  int                          // memory of the rows' data
	hand   int
	hits   int64
	misses int64
	near   uint32 // see rowCache.lookupAll
}

// rowKey says which row.
type rowKey struct {
	slot kv.Slot
	key  []byte
}

// row is a key with its value, or its absence, in one line of the processor's cache.
type row struct {
	data   []byte // what rowData has made; readers may have it, so it never changes
	ver    uint64 // 0: absent
	writes uint64 // of the slot, when the row was read
	keyLen uint16
	slot   kv.Slot
	used   bool
	stem   stem // of the key: most are no longer, and compared without a look at data
}

// stem is the beginning of a key, filled up with zeros.
type stem [19]byte

func stemOf(key []byte) (s stem) {
	copy(s[:], key)
	return s
}

// placeCost is the memory of one place in a shard.
const placeCost = int(unsafe.Sizeof(row{}) + unsafe.Sizeof(uint32(0)))

// newRowCache makes a cache of at most limit bytes, all its own structures included.
func newRowCache(limit int64) *rowCache {
	if limit <= 0 {
		return nil
	}
	c := &rowCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = int(max(0, limit-int64(unsafe.Sizeof(*c)))) / rowShards
		c.shards[i].table = newRows()
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

// tagOf gives the bits of a hash that follow those of the shard.
func tagOf(hash uint64) uint32 { return hashtable.Tag(hash << rowShardBits) }

// lookup gives the row of a key, or else a ticket to bring it.
func (c *rowCache) lookup(slot kv.Slot, key []byte) (item kv.Item, t ticket, ok bool) {
	if c == nil {
		return kv.Item{}, ticket{}, false
	}
	t = c.ticket(slot, key)
	s := c.shard(t.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok = s.lookup(t, rowKey{slot, key}, &c.slots[slot])
	return item, t, ok
}

// missed is a row that lookupAll has not found.
type missed struct {
	at int
	ticket
}

// lookupAll fills in those items whose rows there are, and gives tickets for the others.
func (c *rowCache) lookupAll(places []kv.Place, items []kv.Item) (rest []missed) {
	if c == nil {
		rest = make([]missed, len(places))
		for i := range rest {
			rest[i].at = i
		}
		return rest
	}
	tickets := make([]ticket, 0, 32) // mostly on the stack
	var used uint64                  // a bit for each shard
	for _, p := range places {
		t := c.ticket(p.Slot, p.Key)
		tickets = append(tickets, t)
		used |= 1 << (t.hash >> (64 - rowShardBits))
	}
	// All shards at once, in ascending order: taking a lock waits for the memory that was
	// asked for before it.
	for left := used; left != 0; left &= left - 1 {
		c.shards[bits.TrailingZeros64(left)].mu.Lock()
	}
	near := uint32(0)
	for i := range tickets {
		near += c.shard(tickets[i].hash).table.Touch(tagOf(tickets[i].hash))
	}
	for i, t := range tickets {
		s, slot := c.shard(t.hash), places[i].Slot
		s.near = near // or the compiler would see that nobody needs it
		item, ok := s.lookup(t, rowKey{slot, places[i].Key}, &c.slots[slot])
		if !ok {
			rest = append(rest, missed{i, t})
		}
		items[i] = item
	}
	for left := used; left != 0; left &= left - 1 {
		c.shards[bits.TrailingZeros64(left)].mu.Unlock()
	}
	return rest
}

func (c *rowCache) ticket(slot kv.Slot, key []byte) ticket {
	return ticket{hash: c.hash(slot, key), writes: c.slots[slot].writes.Load()}
}

// lookup gives a row, unless it is older than the latest deletion of a range in its slot.
func (s *rowShard) lookup(t ticket, key rowKey, state *slotState) (kv.Item, bool) {
	if i := s.table.Find(tagOf(t.hash), key); i >= 0 {
		r := s.table.Row(i)
		if r.writes >= state.ranged.Load() {
			if !r.used { // else the line would have to be written back for nothing
				r.used = true
			}
			s.hits++
			return rowItem(r.data, int(r.keyLen), r.ver), true
		}
		s.remove(i)
	}
	s.misses++
	return kv.Item{}, false
}

// insert takes what a read of a key with ticket t found: data is made by rowData and
// belongs to the cache from now on, and to readers of it.
func (c *rowCache) insert(slot kv.Slot, t ticket, key, data []byte, ver uint64) {
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
	s.insert(tagOf(t.hash), rowKey{slot, key}, row{stem: stemOf(key), data: data, ver: ver, writes: t.writes, keyLen: uint16(len(key)), slot: slot})
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
	if i := s.table.Find(tagOf(hash), rowKey{slot, key}); i >= 0 {
		s.remove(i)
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
func (s *rowShard) size() int { return s.bytes + s.table.Places()*placeCost }

func newRows() hashtable.Table[rowKey, row] { return hashtable.New((*row).is) }

func (r *row) is(k rowKey) bool {
	if r.slot != k.slot || int(r.keyLen) != len(k.key) || r.stem != stemOf(k.key) {
		return false
	}
	return len(k.key) <= len(r.stem) || bytes.Equal(r.data[len(r.stem):r.keyLen], k.key[len(r.stem):])
}

func (s *rowShard) insert(tag uint32, key rowKey, r row) {
	if i := s.table.Find(tag, key); i >= 0 {
		s.remove(i)
	}
	if cap(r.data) > s.limit/maxRowPart {
		return
	}
	if s.table.Full() {
		if n := s.table.Grown(); s.bytes+n*placeCost <= s.limit {
			s.table.Resize(n)
		} else {
			s.evict()
		}
	}
	s.bytes += cap(r.data)
	for s.table.Len() > 0 && s.size() > s.limit {
		s.evict()
	}
	if s.table.Full() { // even a first place does not fit
		s.bytes -= cap(r.data)
		return
	}
	s.table.Put(tag, r)
}

// evict removes the next row that was not used since the hand last came by.
func (s *rowShard) evict() {
	for s.table.Len() > 0 {
		if s.hand >= s.table.Places() {
			s.hand = 0
		}
		switch {
		case !s.table.Taken(s.hand):
			s.hand++
		case s.table.Row(s.hand).used:
			s.table.Row(s.hand).used = false
			s.hand++
		default:
			s.remove(s.hand)
			return
		}
	}
}

// remove forgets the row at i.
func (s *rowShard) remove(i int) {
	s.bytes -= cap(s.table.Row(i).data)
	s.table.Remove(i)
}

// rowData makes the memory of a row: key and value, or nothing of an absent key that its
// stem tells. Its capacity is what the allocator gave.
func rowData(key, value []byte, ver uint64) []byte {
	if ver == 0 && len(key) <= len(stem{}) {
		return nil
	}
	return append(append(slices.Grow([]byte(nil), len(key)+len(value)), key...), value...)
}

// rowItem gives an Item out of a row's data, so that appending to it copies it.
func rowItem(data []byte, keyLen int, ver uint64) kv.Item {
	if ver == 0 {
		return kv.Item{}
	}
	return kv.Item{Key: data[:keyLen:keyLen], Value: data[keyLen:len(data):len(data)], Ver: ver}
}
