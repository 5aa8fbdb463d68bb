// SPDX-License-Identifier: Apache-2.0

package gateway

import "time"

// generations is a map that forgets what was not used for a while and never holds
// more than twice its size: when the young generation is full or old enough, it
// becomes the old one, and the one before is dropped. Nothing has to be swept. It
// is not safe for concurrent use.
type generations[K comparable, V any] struct {
	size       int
	life       time.Duration
	young, old map[K]V
	began      time.Time
}

// newGenerations makes a map that keeps what is used at least every life, unless
// more than size keys are used meanwhile.
func newGenerations[K comparable, V any](size int, life time.Duration) *generations[K, V] {
	return &generations[K, V]{size: size, life: life, young: map[K]V{}}
}

func (g *generations[K, V]) get(k K, now time.Time) (V, bool) {
	if v, ok := g.young[k]; ok {
		return v, true
	}
	v, ok := g.old[k]
	if ok {
		g.put(k, v, now)
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V, now time.Time) {
	if len(g.young) >= g.size || now.Sub(g.began) >= g.life {
		g.old, g.young, g.began = g.young, make(map[K]V, min(len(g.young), g.size)), now
	}
	g.young[k] = v
}

func (g *generations[K, V]) remove(k K) {
	delete(g.young, k)
	delete(g.old, k)
}
