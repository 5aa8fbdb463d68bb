// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"sync/atomic"
)

// A Desk serves the requests of its routes a few at a time, and has the others wait in
// front of admission. It is for work that takes a processor for long, such as hashing
// passwords: whatever the class of such requests, no number of them takes more of the
// machine than the desk gives, and those that wait for their turn are no demand that
// requests of other routes would have to make room for.
//
// It is safe for concurrent use.
type Desk struct {
	room    chan struct{} // holds one token for each request inside
	waiting atomic.Int64
	most    int64 // that may wait
	full    error // is the answer when as many do
}

// NewDesk makes a desk where so many requests, one at least, are served at once, and so
// many may wait, in the order in which they came and until their deadlines. Full is the
// answer to all others: they cost next to nothing. It is shared, and must not change.
func NewDesk(inside, waiting int, full error) *Desk {
	return &Desk{room: make(chan struct{}, max(1, inside)), most: int64(max(0, waiting)), full: full}
}

// Inside is how many requests are being served.
func (d *Desk) Inside() int { return len(d.room) }

// Waiting is how many requests wait for being served.
func (d *Desk) Waiting() int { return int(d.waiting.Load()) }

// enter waits for room. If the error is nil the caller must call leave.
func (d *Desk) enter(ctx context.Context) error {
	select {
	case d.room <- struct{}{}:
		return nil
	default:
	}
	defer d.waiting.Add(-1)
	if d.waiting.Add(1) > d.most {
		return d.full
	}
	select {
	case d.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Desk) leave() { <-d.room }
