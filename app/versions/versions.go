// SPDX-License-Identifier: Apache-2.0

// Package versions keeps what was made of the latest rows and lists that were read, for
// as long as their versions hold. Whoever uses it asks for the version each time, which
// is cheap; what is saved is fetching and parsing what has not changed.
package versions

import (
	"hash/maphash"
	"sync"

	"github.com/sluice-rpc/sluice/app/hashtable"
)

// Cache keeps values by key, up to a total size. It may be used concurrently.
type Cache[K comparable, V any] struct {
	limit int
	seed  maphash.Seed

	mu    sync.Mutex
	parts [1 << partBits]hashtable.Table[K, kept[K, V]] // guarded by mu; many, so that none takes long to grow
	size  int                                           // guarded by mu; of all
	part  int                                           // guarded by mu; where what goes next is looked for
	place int                                           // guarded by mu; there
	near  uint32                                        // guarded by mu; see GetAll
}

const partBits = 6

// kept is an entry with its key. With a value of three words and a key of two, it is a line
// of the processor's cache.
type kept[K comparable, V any] struct {
	key K
	Entry[V]
}

// Entry is a value at a version. Many receive the same, so nobody changes it.
type Entry[V any] struct {
	Value V
	Ver   uint64 // above 0; versions of a key only grow
	Stamp uint64 // of the slot of a store, if Ver was read there: see kv.Stamper
	Size  int    // what the value costs, in the unit of the cache's limit, and above 0
}

// New makes a Cache of values whose sizes add up to limit at most; a single larger one
// is kept, too.
func New[K comparable, V any](limit int) *Cache[K, V] {
	c := &Cache[K, V]{limit: limit, seed: maphash.MakeSeed()}
	for i := range c.parts {
		c.parts[i] = hashtable.New(func(e *kept[K, V], key K) bool { return e.key == key })
	}
	return c
}

// find gives the part that a hash leads to, and the tag there.
func (c *Cache[K, V]) find(hash uint64) (*hashtable.Table[K, kept[K, V]], uint32) {
	return &c.parts[hash>>(64-partBits)], hashtable.Tag(hash << partBits)
}

// Get gives what is kept of a key. The zero Entry is of a key of which nothing is.
func (c *Cache[K, V]) Get(k K) (e Entry[V]) {
	part, tag := c.find(maphash.Comparable(c.seed, k))
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := part.Find(tag, k); i >= 0 {
		e = part.Row(i).Entry
	}
	return e
}

// GetAll fills in what is kept of keys, about as quickly as Get gives one of them.
func (c *Cache[K, V]) GetAll(keys []K, all []Entry[V]) {
	hashes := make([]uint64, 0, 32) // mostly on the stack
	for _, k := range keys {
		hashes = append(hashes, maphash.Comparable(c.seed, k))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	near := uint32(0)
	for _, hash := range hashes {
		part, tag := c.find(hash)
		near += part.Touch(tag)
	}
	c.near = near // or the compiler would see that nobody needs it
	for i, hash := range hashes {
		part, tag := c.find(hash)
		if at := part.Find(tag, keys[i]); at >= 0 {
			all[i] = part.Row(at).Entry
		}
	}
}

// Put keeps a value, unless a later or, of the same version, a larger one is there: that
// of a call that was faster, or has learnt more. One without a version is not kept.
func (c *Cache[K, V]) Put(k K, e Entry[V]) {
	if e.Ver == 0 {
		return
	}
	hash := maphash.Comparable(c.seed, k)
	part, tag := c.find(hash)
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := part.Find(tag, k); i >= 0 {
		old := part.Row(i)
		if old.Ver > e.Ver || old.Ver == e.Ver && old.Size > e.Size {
			return
		}
		c.size -= old.Size
		part.Remove(i)
	}
	for c.size > 0 && c.size+e.Size > c.limit {
		c.evict()
	}
	if part.Full() {
		part.Resize(part.Grown())
	}
	part.Put(tag, kept[K, V]{k, e})
	c.size += e.Size
}

// evict forgets whatever comes next, which is chance: the order is that of the hashes.
func (c *Cache[K, V]) evict() {
	for {
		part := &c.parts[c.part]
		for ; c.place < part.Places(); c.place++ {
			if part.Taken(c.place) {
				c.size -= part.Row(c.place).Size
				part.Remove(c.place)
				return
			}
		}
		c.part, c.place = (c.part+1)%len(c.parts), 0
	}
}
