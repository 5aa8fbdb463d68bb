// SPDX-License-Identifier: Apache-2.0

package id

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrExhausted means that a generator has made all the ids of its epoch, about 10^12.
// Take a new epoch: start again.
var ErrExhausted = errors.New("id: all sequence numbers of this epoch are used; restart to begin a new one")

// Generator makes ids of every kind, each greater than the one before. Its clock
// follows the wall and never goes back: when the wall does, it waits there. It may be
// used concurrently.
type Generator struct {
	region Region
	epoch  Epoch
	now    func() time.Time

	mu   sync.Mutex
	last int64  // guarded by mu; ms of the latest id
	seq  uint64 // guarded by mu; sequence of the next id
}

// NewGenerator makes the generator of an epoch, which nobody else may use in this
// region: it comes from NextEpoch. Now is the wall clock, nil for time.Now.
func NewGenerator(region Region, epoch Epoch, now func() time.Time) (*Generator, error) {
	if epoch > maxEpoch {
		return nil, fmt.Errorf("id: epoch %d does not fit 24 bits", epoch)
	}
	if now == nil {
		now = time.Now
	}
	return &Generator{region: region, epoch: epoch, now: now}, nil
}

// Region gives the region of the ids.
func (g *Generator) Region() Region { return g.region }

// Epoch gives the epoch of the ids.
func (g *Generator) Epoch() Epoch { return g.epoch }

// New makes an id of kind T, as in id.New[id.Post](gen). It fails only with
// ErrExhausted or with a wall clock past the year 10889.
func New[T ~[16]byte](g *Generator) (T, error) {
	var id T
	ms, seq, err := g.next()
	if err != nil {
		return id, err
	}
	binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16|uint64(g.region))
	binary.BigEndian.PutUint64(id[8:], uint64(g.epoch)<<40|seq)
	return id, nil
}

// next gives time and sequence of one id. The sequence goes on from millisecond to
// millisecond, so two ids of an epoch differ whatever the clock does.
func (g *Generator) next() (ms int64, seq uint64, err error) {
	wall := g.now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	if wall > maxTime {
		return 0, 0, fmt.Errorf("id: the clock says %d ms, past the last id in the year 10889", wall)
	}
	if g.seq > maxSeq {
		return 0, 0, ErrExhausted
	}
	g.last = max(g.last, wall)
	seq = g.seq
	g.seq++
	return g.last, seq, nil
}
