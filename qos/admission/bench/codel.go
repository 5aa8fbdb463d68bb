// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// codelLIFO is CoDel with adaptive LIFO in front of the workers, as Facebook has
// described it (Maurer, "Fail at Scale", ACM Queue 2015): if the queue has not been
// empty for the interval, a call may wait for the target only, else for the
// interval; and the newest goes first.
var codelLIFO = policy{
	name:  "codel-lifo",
	leaf:  func(_ *world, l *leaf) leafPolicy { return &codelLeaf{leaf: l, limit: l.slots} },
	entry: newPlainEntry,
}

const (
	codelTarget   = 5 * time.Millisecond
	codelInterval = 100 * time.Millisecond
)

type codelLeaf struct {
	leaf      *leaf
	limit     int // the workers, which it is told
	running   int
	queue     []waiter
	lastEmpty time.Duration
}

type waiter struct {
	call  *call
	since time.Duration
}

func (q *codelLeaf) arrive(c *call) {
	now := q.leaf.world.now
	if len(q.queue) == 0 {
		q.lastEmpty = now
		if q.running < q.limit {
			q.running++
			q.leaf.execute(c)
			return
		}
	}
	q.queue = append(q.queue, waiter{c, now})
}

func (q *codelLeaf) finished(*call) {
	now := q.leaf.world.now
	longest := codelInterval
	if now-q.lastEmpty > codelInterval {
		longest = codelTarget
	}
	kept := q.queue[:0]
	for _, w := range q.queue {
		switch {
		case q.leaf.gone(w.call):
			q.leaf.refuse(w.call, late)
		case now-w.since > longest:
			q.leaf.refuse(w.call, refused)
		default:
			kept = append(kept, w)
		}
	}
	q.queue = kept
	if len(kept) == 0 {
		q.lastEmpty = now
		q.running--
		return
	}
	w := kept[len(kept)-1]
	q.queue = kept[:len(kept)-1]
	q.leaf.execute(w.call)
}

func (q *codelLeaf) level() int { return 0 }

// none lets everything in; with fifo, what has expired is not worked on.
func none(name string, blind bool) policy {
	return policy{
		name:  name,
		leaf:  func(_ *world, l *leaf) leafPolicy { return noControl{l} },
		entry: newPlainEntry,
		blind: blind,
	}
}

type noControl struct{ leaf *leaf }

func (n noControl) arrive(c *call) { n.leaf.execute(c) }
func (noControl) finished(*call)   {}
func (noControl) level() int       { return 0 }
