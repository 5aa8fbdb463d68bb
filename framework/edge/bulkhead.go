// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"sync/atomic"
)

// A Bulkhead (Nygard, Release It!, 2007) serves the requests of its routes a few at a
// time, and has the others wait in front of admission. It is for work that takes a
// processor for long, such as hashing passwords: whatever the class of such requests, no
// number of them takes more of the machine than the bulkhead gives, and those that wait
// for their turn are no demand that requests of other routes would have to make room for.
//
// It is safe for concurrent use.
type Bulkhead struct {
	room    chan struct{} // holds one token for each request inside
	waiting atomic.Int64
	most    int64 // that may wait
	full    error // is the answer when as many do
}

// NewBulkhead makes a bulkhead where inside requests, one at least, are served at once,
// and waiting ones may wait, in the order in which they came and until their deadlines.
// Full is the answer to all others: they cost next to nothing. It is shared, and must not
// change.
func NewBulkhead(inside, waiting int, full error) *Bulkhead {
	return &Bulkhead{room: make(chan struct{}, max(1, inside)), most: int64(max(0, waiting)), full: full}
}

// Inside is how many requests are being served.
func (b *Bulkhead) Inside() int { return len(b.room) }

// Waiting is how many requests wait for being served.
func (b *Bulkhead) Waiting() int { return int(b.waiting.Load()) }

// enter waits for room, until ctx ends. If the error is nil the caller must call leave.
func (b *Bulkhead) enter(ctx context.Context) error {
	select {
	case b.room <- struct{}{}:
		return nil
	default:
	}
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) > b.most {
		return b.full
	}
	select {
	case b.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bulkhead) leave() { <-b.room }
