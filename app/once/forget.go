// SPDX-License-Identifier: Apache-2.0

package once

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
)

const (
	// sweepPause is the time between two slots of Sweep, which is through with all
	// after 70 minutes, and sweepBackOff the longest after failures.
	sweepPause, sweepBackOff = time.Second, time.Minute
	// forgetRows bounds one step.
	forgetRows = kv.MaxScan
)

// Sweep forgets what need not be known any more, slot after slot, until ctx ends: one
// sweep for each store is enough, more do no harm. It steps so slowly that nobody
// notices; what a step could not do is for the next round.
func Sweep(ctx context.Context, store kv.Store, now func() time.Time, log *slog.Logger) {
	// It begins anywhere, so that no slot waits for ever in a process that never lives
	// for a round.
	slot := kv.Slot(rand.N(kv.Slots))
	pause := sweepPause
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		more, err := Forget(ctx, store, slot, now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = min(2*pause, sweepBackOff)
			log.WarnContext(ctx, "old idempotency keys stay for another round", "slot", slot, "error", err, "pause", pause)
		default:
			pause = sweepPause
		}
		if more {
			timer.Reset(0)
			continue
		}
		slot = (slot + 1) % kv.Slots
		timer.Reset(pause)
	}
}

// Forget removes records of a slot that count for no process any more, a bounded
// number, and reports whether there are more.
func Forget(ctx context.Context, store kv.Store, slot kv.Slot, now time.Time) (more bool, err error) {
	r := kv.Range{From: []byte{Table}, To: prefix(periodOf(now.Add(-Keep - 2*skew))), Limit: forgetRows}
	// What is old enough has long been on every disk: there is nothing to wait for.
	items, more, err := store.Scan(ctx, slot, r, kv.Local)
	if err != nil || len(items) == 0 {
		return false, err
	}
	_, err = store.Apply(ctx, slot, new(kv.Batch).DeleteRange(r.From, kv.Next(items[len(items)-1].Key)))
	return more && err == nil, err
}
