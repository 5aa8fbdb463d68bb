// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
)

const (
	// trimRecords is how many records are removed at a time: removing costs a write of
	// its own, keeping costs some bytes.
	trimRecords = 64
	// saveEvery is how often cursors are saved. What was delivered since is delivered
	// again after a crash.
	saveEvery = 250 * time.Millisecond
)

// trim is how far the log of a slot has been removed.
type trim struct {
	seq    uint64 // last sequence removed
	loaded bool   // seq has been read from the store
}

// saver saves cursors now and then, and once more when ctx has ended.
func (b *Box) saver(ctx context.Context) {
	for pause(ctx, saveEvery) {
		for _, p := range b.all() {
			p.retain(b.cfg.Now())
		}
		if err := b.save(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("outbox cursors not saved; trying again", "consumer", b.cfg.Consumer, "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := b.save(ctx); err != nil && !errors.Is(err, kv.ErrClosed) {
		b.cfg.Log.Warn("outbox cursors not saved; the next start repeats a little", "consumer", b.cfg.Consumer, "error", err)
	}
}

// save makes cursors durable, then removes what lies behind all of them.
func (b *Box) save(ctx context.Context) error {
	type local struct {
		slot kv.Slot
		seq  uint64
	}
	var moved []local
	var puts []kv.SlotPut
	var changes []peerChange
	touched := make([]bool, kv.Slots)
	key := cursorKey(b.cfg.Consumer)
	b.mu.Lock()
	for slot := range kv.Slot(kv.Slots) {
		if p := &b.slots[slot]; p.cursor > p.saved {
			touched[slot] = true
			moved = append(moved, local{slot, p.cursor})
			puts = append(puts, kv.SlotPut{Slot: slot, Key: key, Value: appendSeq(p.cursor)})
		}
		for _, peer := range b.peers {
			if c, ok := peer.changeLocked(slot); ok {
				touched[slot] = true
				changes = append(changes, c)
				puts = append(puts, c.put(slot))
			}
		}
	}
	leaves, left := b.leaves, b.leaves > b.swept
	b.mu.Unlock()
	if left { // of slots in which nothing moves, too
		for slot := range touched {
			touched[slot] = true
		}
	} else if len(puts) == 0 {
		return nil
	}
	if err := b.put(ctx, puts); err != nil {
		return err
	}
	b.mu.Lock()
	for _, m := range moved {
		b.slots[m.slot].saved = m.seq
	}
	for _, c := range changes {
		c.savedLocked()
	}
	b.mu.Unlock()
	for slot, t := range touched {
		if !t {
			continue
		}
		if err := b.trim(ctx, kv.Slot(slot)); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.swept = leaves
	return nil
}

// put stores rows of many slots; two peers more than fill a BulkPut.
func (b *Box) put(ctx context.Context, rows []kv.SlotPut) error {
	for len(rows) > 0 {
		n := min(len(rows), kv.MaxBulk)
		if err := b.cfg.Store.BulkPut(ctx, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// trim removes what all consumers have durably passed, if it is much.
func (b *Box) trim(ctx context.Context, slot kv.Slot) error {
	b.mu.Lock()
	t, to := b.slots[slot].trim, b.slots[slot].head.Seq
	if b.cfg.Deliver != nil {
		to = min(to, b.slots[slot].saved)
	}
	for _, p := range b.peers {
		to = min(to, p.neededLocked(slot))
	}
	b.mu.Unlock()
	if to < t.seq+trimRecords {
		return nil
	}
	if !t.loaded {
		it, err := b.cfg.Store.Get(ctx, slot, trimmedKey, kv.Linearizable)
		if err == nil {
			t.seq, err = parseSeq(it)
		}
		if err != nil {
			return fmt.Errorf("outbox: read how far slot %d is removed: %w", slot, err)
		}
		t.loaded = true
	}
	if to >= t.seq+trimRecords {
		// One range never overlaps the one before: an engine that keeps what was deleted
		// would have to go through it again and again.
		batch := new(kv.Batch).DeleteRange(recordKey(t.seq+1), recordKey(to+1)).Put(trimmedKey, appendSeq(to))
		if _, err := b.cfg.Store.Apply(ctx, slot, batch); err != nil {
			return err
		}
		t.seq = to
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slots[slot].trim = t
	return nil
}
