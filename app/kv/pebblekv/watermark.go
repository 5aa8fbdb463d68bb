// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/app/kv"
)

// A version is the epoch of the store, counted up durably at each open, and a number
// within it: versions of a crashed process are never given again.
const (
	epochBits = 20
	verBits   = 64 - epochBits // 10^13 writes: five years at 100,000 a second
)

// watermark gives out versions in order and knows below which all are on the disk.
type watermark struct {
	// oldest is the oldest version in flight, or the next one if there is none.
	oldest atomic.Uint64

	mu     sync.Mutex
	synced []bool // guarded by mu; versions from oldest on
	limit  uint64 // first version of the next epoch
}

func newWatermark(epoch uint64) *watermark {
	w := &watermark{limit: (epoch + 1) << verBits}
	w.oldest.Store(epoch<<verBits + 1)
	return w
}

// begin gives the next version.
func (w *watermark) begin() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ver := w.oldest.Load() + uint64(len(w.synced))
	if ver >= w.limit {
		return 0, fmt.Errorf("%w: all versions of this start are used; restart the process", kv.ErrUnavailable)
	}
	w.synced = append(w.synced, false)
	return ver, nil
}

// end says that the write of a version is on the disk, or will never be.
func (w *watermark) end(ver uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	oldest := w.oldest.Load()
	w.synced[ver-oldest] = true
	n := 0
	for n < len(w.synced) && w.synced[n] {
		n++
	}
	w.synced = w.synced[n:]
	w.oldest.Store(oldest + uint64(n))
}

// durable gives the version below which every write is on the disk.
func (w *watermark) durable() uint64 { return w.oldest.Load() }
