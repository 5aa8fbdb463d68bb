// SPDX-License-Identifier: Apache-2.0

// Package versions keeps what was made of the latest rows and lists that were read, for
// as long as their versions hold. Whoever uses it asks for the version each time, which
// is cheap; what is saved is fetching and parsing what has not changed.
package versions

import "sync"

// Cache keeps values by key, up to a total size. It may be used concurrently.
type Cache[K comparable, V any] struct {
	limit int

	mu   sync.Mutex
	kept map[K]Entry[V] // guarded by mu
	size int            // guarded by mu; of all
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
	return &Cache[K, V]{limit: limit, kept: make(map[K]Entry[V])}
}

// Get gives what is kept of a key. The zero Entry is of a key of which nothing is.
func (c *Cache[K, V]) Get(k K) Entry[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[k]
}

// Put keeps a value, unless a later or, of the same version, a larger one is there: that
// of a call that was faster, or has learnt more. One without a version is not kept.
func (c *Cache[K, V]) Put(k K, e Entry[V]) {
	if e.Ver == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.kept[k]
	if old.Ver > e.Ver || old.Ver == e.Ver && old.Size > e.Size {
		return
	}
	c.kept[k] = e
	c.size += e.Size - old.Size
	if c.size <= c.limit {
		return
	}
	for other, o := range c.kept { // which the map names first, which is chance
		if other != k {
			c.size -= o.Size
			delete(c.kept, other)
		}
		if c.size <= c.limit {
			return
		}
	}
}
