// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"math/bits"

	"github.com/sluice-rpc/sluice/qos"
)

// Waiting calls are kept in one first-in-first-out list a priority, and a bitmap
// of two floors says which lists hold one: every step costs the same at any
// length. The first half of the lists is for calls with a ticket.
const (
	buckets = 2 * qos.Priorities
	words   = buckets / 64
)

// bucketOf ranks a call in the queue: smaller goes first.
func bucketOf(c *Call) uint16 {
	k := uint16(min(c.Priority, qos.LastPriority))
	if c.Ticket.Fresh() {
		k += uint16(qos.Priorities)
	}
	return k
}

// arrivals are waiting calls in the order in which they came.
type arrivals struct{ oldest, newest *Call }

type queue struct {
	head, tail   [buckets]*Call
	filled       [words]uint64 // bit k of the whole: list k holds a call
	summary      uint64        // bit w: filled[w] is not zero (64 words, 64 bits)
	going, fresh arrivals      // those with a ticket, and those without
	n            int
	room         float64 // sum of what they take of it
}

func (q *queue) push(c *Call) {
	k := bucketOf(c)
	c.key, c.state = k, waiting
	c.next, c.prev = nil, q.tail[k]
	if c.prev != nil {
		c.prev.next = c
	} else {
		q.head[k] = c
		q.filled[k/64] |= 1 << (k % 64)
		q.summary |= 1 << (k / 64)
	}
	q.tail[k] = c

	a := q.arrivals(c)
	c.newer, c.older = nil, a.newest
	if c.older != nil {
		c.older.newer = c
	} else {
		a.oldest = c
	}
	a.newest = c
	q.n++
	q.room += c.cost / c.patience
}

func (q *queue) remove(c *Call) {
	k := c.key
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		q.head[k] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		q.tail[k] = c.prev
	}
	if q.head[k] == nil {
		q.filled[k/64] &^= 1 << (k % 64)
		if q.filled[k/64] == 0 {
			q.summary &^= 1 << (k / 64)
		}
	}
	a := q.arrivals(c)
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		a.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		a.newest = c.older
	}
	c.next, c.prev, c.newer, c.older = nil, nil, nil, nil
	c.state = outside
	q.n--
	q.room -= c.cost / c.patience
	if q.n == 0 {
		q.room = 0 // what rounding has left behind
	}
}

// arrivals is the list of those who came as the call did.
func (q *queue) arrivals(c *Call) *arrivals {
	if c.Ticket.Fresh() {
		return &q.fresh
	}
	return &q.going
}

// best is the first that waits at the best priority; the queue is not empty.
func (q *queue) best() *Call {
	w := bits.TrailingZeros64(q.summary)
	return q.head[w*64+bits.TrailingZeros64(q.filled[w])]
}

// worst is the last that came at the worst priority; the queue is not empty.
func (q *queue) worst() *Call {
	w := bits.Len64(q.summary) - 1
	return q.tail[w*64+bits.Len64(q.filled[w])-1]
}
