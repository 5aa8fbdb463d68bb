// SPDX-License-Identifier: Apache-2.0

package account

import (
	"container/list"
	"sync"
)

// A cache keeps what was used most recently, up to a total weight. It may be used
// concurrently.
type cache[K comparable, V any] struct {
	limit int // greatest total weight

	mu     sync.Mutex
	byKey  map[K]*list.Element // guarded by mu; values are *cached[K, V]
	recent *list.List          // guarded by mu; front is the most recently used
	weight int                 // guarded by mu
}

type cached[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{limit: limit, byKey: make(map[K]*list.Element), recent: list.New()}
}

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[k]
	if !ok {
		var none V
		return none, false
	}
	c.recent.MoveToFront(el)
	return el.Value.(*cached[K, V]).value, true
}

func (c *cache[K, V]) put(k K, v V, weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[k]; ok {
		c.drop(el)
	}
	c.byKey[k] = c.recent.PushFront(&cached[K, V]{key: k, value: v, weight: weight})
	c.weight += weight
	for c.weight > c.limit && c.recent.Len() > 1 {
		c.drop(c.recent.Back())
	}
}

// drop takes an element out; the caller holds mu.
func (c *cache[K, V]) drop(el *list.Element) {
	old := c.recent.Remove(el).(*cached[K, V])
	delete(c.byKey, old.key)
	c.weight -= old.weight
}
