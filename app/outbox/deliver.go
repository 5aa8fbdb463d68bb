// SPDX-License-Identifier: Apache-2.0

package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/tracing"
)

const (
	// slotRecords is how many records of one slot go into one call, so that a busy slot
	// does not keep the others waiting.
	slotRecords = 64
	// minBackOff and maxBackOff bound the pause after a failed call.
	minBackOff, maxBackOff = 20 * time.Millisecond, 5 * time.Second
)

// Deliver takes records over, those of one slot in order. On an error all of them are
// delivered again.
type Deliver func(ctx context.Context, records []Record) error

// progress is how far the log of one slot has come, and the local consumer in it.
type progress struct {
	head    Pos    // of the last record known to be acknowledged
	cursor  uint64 // last sequence delivered
	saved   uint64 // cursor as it is in the store
	loaded  bool   // cursor has been read from the store
	queued  bool   // in ready, or with a worker
	trim    trim
	reached time.Time // when cursor last moved
}

// mark says that a slot's log goes up to head, and whether something in it that is not
// delivered may be for the local consumer.
func (b *Box) mark(slot kv.Slot, head Pos, local bool) {
	b.mu.Lock()
	wake := b.markLocked(slot, head, local)
	b.mu.Unlock()
	if wake {
		b.signal()
	}
}

// markLocked reports whether there is something to do for a worker.
func (b *Box) markLocked(slot kv.Slot, head Pos, local bool) (wake bool) {
	p := &b.slots[slot]
	was := p.head
	if head.Seq > was.Seq {
		p.head = head
		for _, peer := range b.peers {
			peer.markLocked(slot, head)
		}
	}
	if !local && p.loaded && !p.queued && p.cursor == was.Seq && b.cfg.Deliver != nil {
		p.cursor = p.head.Seq // nothing of it is for that consumer
	}
	if wake = !p.queued && b.cfg.Deliver != nil && (local || p.cursor < p.head.Seq); wake {
		p.queued = true
		b.ready = append(b.ready, slot)
	}
	return wake
}

func (b *Box) signal() {
	select {
	case b.wake <- struct{}{}:
	default: // a token is there already
	}
}

// Run delivers, and keeps what there is to keep of the consumers, until ctx ends; then it
// returns nil. It may be called again then.
func (b *Box) Run(ctx context.Context) error {
	for backOff := minBackOff; ; backOff = min(2*backOff, maxBackOff) {
		err := b.recover(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, kv.ErrUnavailable) {
			return err
		}
		b.cfg.Log.Warn("the outbox cannot start yet", "consumer", b.cfg.Consumer, "error", err, "pause", backOff)
		if !pause(ctx, backOff) {
			return nil
		}
	}
	var wg sync.WaitGroup
	if b.cfg.Deliver != nil {
		for range b.cfg.Workers {
			wg.Go(func() { b.worker(ctx) })
		}
	}
	wg.Go(func() { b.saver(ctx) })
	wg.Wait()
	return nil
}

// recover finds the slots that an earlier process has left records in, and how far the
// consumers are in them.
func (b *Box) recover(ctx context.Context) error {
	heads, cursors := new([kv.Slots]Pos), new([kv.Slots]uint64)
	err := kv.Sweep(ctx, b.cfg.Store, kv.One(seqKey), kv.Linearizable, func(slot kv.Slot, it kv.Item) (err error) {
		heads[slot], err = parsePos(it)
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: look for records: %w", err)
	}
	var left []kv.SlotPut // cursors of peers that are there no more
	err = kv.Sweep(ctx, b.cfg.Store, kv.Prefix(trimmedKey, 0), kv.Linearizable, func(slot kv.Slot, it kv.Item) (err error) {
		switch consumer := string(it.Key[len(trimmedKey):]); consumer {
		case b.cfg.Consumer:
			cursors[slot], err = parseSeq(it)
		case "": // how far the log has been removed
		default:
			if p := b.Peer(consumer); p != nil {
				err = p.recover(ctx, slot, heads[slot], it)
			} else if len(it.Value) > 0 {
				left = append(left, kv.SlotPut{Slot: slot, Key: it.Key})
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: look for cursors: %w", err)
	}
	// If they join again, it may be after a time of which there are no records for peers.
	if err := b.put(ctx, left); err != nil {
		return fmt.Errorf("outbox: forget cursors of peers that have left: %w", err)
	}
	for slot := range kv.Slot(kv.Slots) {
		b.recovered(slot, heads[slot], cursors[slot])
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.whole { // else it runs again
		b.whole = true
		close(b.found)
	}
	return nil
}

// recovered says what the store has of a slot: where its log ends, and the local consumer is in
// it. Both are taken together, or records that are put meanwhile and are for nobody here
// would seem to follow right after the cursor.
func (b *Box) recovered(slot kv.Slot, head Pos, cursor uint64) {
	b.mu.Lock()
	p := &b.slots[slot]
	if !p.loaded && b.cfg.Deliver != nil { // else it runs again
		p.loaded, p.cursor, p.saved = true, cursor, cursor
	}
	wake := b.markLocked(slot, head, p.cursor < head.Seq)
	b.mu.Unlock()
	if wake {
		b.signal()
	}
}

// worker delivers group after group.
func (b *Box) worker(ctx context.Context) {
	backOff := minBackOff
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		}
		// Records that come within a moment share the call.
		if !pause(ctx, b.cfg.Linger) {
			return
		}
		for {
			slots := b.take()
			if len(slots) == 0 {
				break
			}
			err := b.group(ctx, slots)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				backOff = minBackOff
				if len(slots) < b.cfg.Group {
					break // what has come meanwhile waits for company, too
				}
				continue
			}
			b.cfg.Log.Warn("delivery failed and will be repeated", "consumer", b.cfg.Consumer, "error", err, "slots", len(slots), "pause", backOff)
			if !pause(ctx, backOff/2+rand.N(backOff/2)) {
				return
			}
			backOff = min(2*backOff, maxBackOff)
		}
	}
}

// pause waits, and reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// take gives the slots of one group, at most so many that each has room for a record.
func (b *Box) take() []kv.Slot {
	b.mu.Lock()
	n := min(len(b.ready), b.cfg.Group)
	slots := make([]kv.Slot, n)
	copy(slots, b.ready)
	b.ready = b.ready[:copy(b.ready, b.ready[n:])]
	rest := len(b.ready) > 0
	b.mu.Unlock()
	if rest {
		b.signal() // another worker may help
	}
	return slots
}

// group delivers what is next in some slots, with one call, and gives the slots back.
func (b *Box) group(ctx context.Context, slots []kv.Slot) (err error) {
	var records []Record
	read := make([]uint64, len(slots))    // sequence that each slot's records reach to, 0 if there are none
	reached := make([]uint64, len(slots)) // the same, once they are delivered
	defer func() { b.giveBack(slots, reached, len(records), err) }()
	for i, slot := range slots {
		if len(records) >= b.cfg.Group {
			break // the others are given back untouched
		}
		if records, read[i], err = b.read(ctx, slot, records); err != nil {
			return err
		}
	}
	if len(records) > 0 {
		from := make([]tracing.Origin, len(records))
		for i := range records {
			from[i] = records[i].Origin
		}
		err := b.cfg.Queue.Take(ctx, from, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
			defer cancel()
			return b.cfg.Deliver(ctx, records)
		})
		if err != nil {
			return err
		}
	}
	copy(reached, read)
	return nil
}

// read adds a slot's next records, and gives the sequence that they reach to.
//
// The scan is Local, so that it never waits for the disk, and may therefore show
// records that a crash would take back. They lie beyond head, which only acknowledged
// writes move; a cursor that had passed them would skip what comes to stand there
// instead.
func (b *Box) read(ctx context.Context, slot kv.Slot, to []Record) ([]Record, uint64, error) {
	b.mu.Lock()
	cursor, head := b.slots[slot].cursor, b.slots[slot].head.Seq
	b.mu.Unlock()
	if cursor >= head {
		return to, 0, nil
	}
	limit := min(slotRecords, head-cursor, uint64(b.cfg.Group-len(to)))
	r := kv.Range{From: recordKey(cursor + 1), To: recordKey(cursor + 1 + limit), Limit: int(limit)}
	items, _, err := b.cfg.Store.Scan(ctx, slot, r, kv.Local)
	if err != nil {
		return to, 0, fmt.Errorf("outbox: read slot %d: %w", slot, err)
	}
	var reached uint64
	for _, it := range items {
		next := max(cursor, reached) + 1
		if !isRecord(it.Key, next) {
			break // a lagging replica; the rest is there a moment later
		}
		rec, err := parse(slot, next, it)
		if err != nil {
			return to, 0, err
		}
		if rec.local {
			to = append(to, rec)
		}
		reached = next
	}
	return to, reached, nil
}

// giveBack records what a group has done and queues the slots that have more.
func (b *Box) giveBack(slots []kv.Slot, reached []uint64, records int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.delivered += uint64(records)
	} else {
		b.failures++
	}
	for i, slot := range slots {
		p := &b.slots[slot]
		if reached[i] > p.cursor {
			p.cursor, p.reached = reached[i], b.cfg.Now()
		}
		if p.queued = p.cursor < p.head.Seq; p.queued {
			b.ready = append(b.ready, slot)
		}
	}
	if len(b.ready) > 0 {
		b.signal()
	}
}
