// SPDX-License-Identifier: Apache-2.0

package post

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/framework"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

const (
	// consumer is the name of the local fan-out among the consumers of the outbox.
	consumer = "fan-out"
	// groupPosts is how many posts share a call: at 40 friends each that fills a
	// BulkPut.
	groupPosts = 250
	// slotRecords is how many records of one slot go into one call, so that one busy
	// author does not keep the others waiting.
	slotRecords = 64
	// trimRecords is how many records are removed at a time: removing costs a write
	// of its own, keeping costs 77 bytes a record.
	trimRecords = 64
	// saveEvery is how often cursors are saved. What was fanned out since is fanned
	// out again after a crash, which changes nothing.
	saveEvery = 250 * time.Millisecond
	// callTimeout bounds one call to the timeline service.
	callTimeout = 30 * time.Second
	// minBackOff and maxBackOff bound the pause after a failed call.
	minBackOff, maxBackOff = 20 * time.Millisecond, 5 * time.Second
)

// fanOut brings what the outbox holds to the timeline service, in the order of each
// slot.
type fanOut struct {
	store    kv.Store
	timeline FanOuter
	outbox   *framework.Queue // in graphs and traces
	log      *slog.Logger
	workers  int
	linger   time.Duration
	now      func() time.Time
	wake     chan struct{} // holds a token while ready may not be empty

	mu    sync.Mutex
	slots [kv.Slots]progress // guarded by mu
	ready []kv.Slot          // guarded by mu; queued slots, first come first served
	whole bool               // guarded by mu; an earlier process's work has been found

	posts, deliveries, failures uint64 // guarded by mu
}

// progress is how far one slot's outbox has been consumed.
type progress struct {
	head    uint64 // last sequence known to be in the outbox
	cursor  uint64 // last sequence fanned out
	saved   uint64 // cursor as it is in the store
	trimmed uint64 // last sequence removed
	loaded  bool   // cursor has been read from the store
	queued  bool   // in ready, or with a worker

	reached time.Time // when cursor last moved
}

func newFanOut(cfg Config) *fanOut {
	return &fanOut{
		store: cfg.Store, timeline: cfg.Timeline, log: cfg.Log,
		outbox: framework.NewQueue("moments.v1.PostService/outbox", qos.Background,
			momentsv1.PostServicePublishMethod, momentsv1.PostServiceDeleteMethod),
		workers: cfg.FanOutWorkers, linger: cfg.FanOutLinger, now: cfg.Now, wake: make(chan struct{}, 1),
	}
}

// mark says that a slot's outbox goes up to seq.
func (f *fanOut) mark(slot kv.Slot, seq uint64) {
	f.mu.Lock()
	p := &f.slots[slot]
	p.head = max(p.head, seq)
	wake := !p.queued
	if wake {
		p.queued = true
		f.ready = append(f.ready, slot)
	}
	f.mu.Unlock()
	if wake {
		f.signal()
	}
}

// readTime is longer than a read of a timeline may take: who began to read an index
// before a post was there has ended by then.
const readTime = 5 * time.Second

// settled reports that every post of a slot stands in the timelines, and has for so
// long that no reader has missed it. It relies on this process being the only one
// that writes the store.
func (f *fanOut) settled(slot kv.Slot) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &f.slots[slot]
	return f.whole && !p.queued && p.cursor >= p.head && f.now().Sub(p.reached) > readTime
}

func (f *fanOut) signal() {
	select {
	case f.wake <- struct{}{}:
	default: // a token is there already
	}
}

// run works until ctx ends.
func (f *fanOut) run(ctx context.Context) error {
	for backOff := minBackOff; ; backOff = min(2*backOff, maxBackOff) {
		err := f.recover(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, kv.ErrUnavailable) {
			return err
		}
		f.log.Warn("fan-out cannot start yet", "error", err, "pause", backOff)
		if !pause(ctx, backOff) {
			return nil
		}
	}
	var wg sync.WaitGroup
	for range f.workers {
		wg.Go(func() { f.worker(ctx) })
	}
	wg.Go(func() { f.saver(ctx) })
	wg.Wait()
	return nil
}

// recover finds the slots that an earlier process has left work in.
func (f *fanOut) recover(ctx context.Context) error {
	for slot := range kv.Slot(kv.Slots) {
		it, err := f.store.Get(ctx, slot, seqKey, kv.Linearizable)
		if err != nil {
			return fmt.Errorf("post: look for unfinished fan-out in slot %d: %w", slot, err)
		}
		seq, err := parseSeq(it)
		if err != nil {
			return err
		}
		if seq == 0 {
			continue
		}
		cursor, err := f.load(ctx, slot)
		if err != nil {
			return err
		}
		if cursor < seq {
			f.mark(slot, seq)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = true
	return nil
}

// load gives a slot's cursor, from the store if need be.
func (f *fanOut) load(ctx context.Context, slot kv.Slot) (uint64, error) {
	f.mu.Lock()
	p := f.slots[slot]
	f.mu.Unlock()
	if p.loaded {
		return p.cursor, nil
	}
	it, err := f.store.Get(ctx, slot, cursorKey(consumer), kv.Linearizable)
	if err != nil {
		return 0, fmt.Errorf("post: read the fan-out cursor of slot %d: %w", slot, err)
	}
	cursor, err := parseSeq(it)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := &f.slots[slot]; !p.loaded {
		p.loaded, p.cursor, p.saved = true, cursor, cursor
	}
	return f.slots[slot].cursor, nil
}

// worker fans out group after group.
func (f *fanOut) worker(ctx context.Context) {
	backOff := minBackOff
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		// Posts that come within a moment share the call and its flush to the disk.
		if !pause(ctx, f.linger) {
			return
		}
		for {
			slots := f.take()
			if len(slots) == 0 {
				break
			}
			err := f.group(ctx, slots)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				backOff = minBackOff
				if len(slots) < groupPosts {
					break // what has come meanwhile waits for company, too
				}
				continue
			}
			f.log.Warn("fan-out failed and will be repeated", "error", err, "slots", len(slots), "pause", backOff)
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

// take gives the slots of one group, at most so many that each has room for a post.
func (f *fanOut) take() []kv.Slot {
	f.mu.Lock()
	n := min(len(f.ready), groupPosts)
	slots := make([]kv.Slot, n)
	copy(slots, f.ready)
	f.ready = f.ready[:copy(f.ready, f.ready[n:])]
	rest := len(f.ready) > 0
	f.mu.Unlock()
	if rest {
		f.signal() // another worker may help
	}
	return slots
}

// group fans out what is next in some slots, with one call, and gives the slots back.
func (f *fanOut) group(ctx context.Context, slots []kv.Slot) (err error) {
	reached := make([]uint64, len(slots)) // new cursor of each slot, 0 if unchanged
	req := &momentsv1.FanOutRequest{}
	var deliveries uint64
	defer func() { f.giveBack(slots, reached, len(req.GetPosts()), deliveries, err) }()

	read := make([]uint64, len(slots))
	var from []tracing.Origin
	for i, slot := range slots {
		if len(req.GetPosts()) >= groupPosts {
			break // the others are given back untouched
		}
		if read[i], from, err = f.read(ctx, slot, req, from); err != nil {
			return err
		}
	}
	if len(from) > 0 {
		err := f.outbox.Take(ctx, from, func(ctx context.Context) error {
			if len(req.GetPosts()) == 0 {
				return nil // they were all deleted
			}
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			res, err := f.timeline.FanOut(ctx, req)
			if err != nil {
				return fmt.Errorf("post: fan out %d posts: %w", len(req.GetPosts()), err)
			}
			deliveries = res.GetDeliveries()
			return nil
		})
		if err != nil {
			return err
		}
	}
	copy(reached, read)
	return nil
}

// read adds a slot's next posts to a request, and where its records came from to from,
// and gives the sequence they reach to, 0 if there is nothing.
//
// The scan is Local, so that it never waits for the disk, and may therefore show
// records that a crash would take back. They lie beyond head, which only
// acknowledged writes move; a cursor that had passed them would skip what comes to
// stand there instead.
func (f *fanOut) read(ctx context.Context, slot kv.Slot, req *momentsv1.FanOutRequest, from []tracing.Origin) (uint64, []tracing.Origin, error) {
	cursor, err := f.load(ctx, slot)
	if err != nil {
		return 0, from, err
	}
	f.mu.Lock()
	head := f.slots[slot].head
	f.mu.Unlock()
	if cursor >= head {
		return 0, from, nil
	}
	limit := min(slotRecords, head-cursor)
	r := kv.Range{From: outboxKey(cursor + 1), To: outboxKey(cursor + 1 + limit), Limit: int(limit)}
	items, _, err := f.store.Scan(ctx, slot, r, kv.Local)
	if err != nil {
		return 0, from, fmt.Errorf("post: read the outbox of slot %d: %w", slot, err)
	}
	var reached uint64
	for i, it := range items {
		next := cursor + uint64(i) + 1
		if !bytes.Equal(it.Key, outboxKey(next)) {
			break // a lagging replica; the rest is there a moment later
		}
		rec, err := parseOutbox(it.Value)
		if err != nil {
			return 0, from, err
		}
		from = append(from, rec.origin)
		if rec.kind == outboxPublish { // a deleted post is hidden by its tombstone
			req.Posts = append(req.Posts, &momentsv1.FanOutPost{PostId: rec.post.String(), AuthorId: rec.author.String()})
		}
		reached = next
	}
	return reached, from, nil
}

// giveBack records what a group has done and queues the slots that have more.
func (f *fanOut) giveBack(slots []kv.Slot, reached []uint64, posts int, deliveries uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failures++
	} else {
		f.posts += uint64(posts)
		f.deliveries += deliveries
	}
	for i, slot := range slots {
		p := &f.slots[slot]
		if reached[i] > p.cursor {
			p.cursor, p.reached = reached[i], f.now()
		}
		if p.queued = p.cursor < p.head || !p.loaded; p.queued {
			f.ready = append(f.ready, slot)
		}
	}
	if len(f.ready) > 0 {
		f.signal()
	}
}

// saver saves cursors now and then, and once more when ctx has ended.
func (f *fanOut) saver(ctx context.Context) {
	for pause(ctx, saveEvery) {
		if err := f.save(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("fan-out cursors not saved; trying again", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := f.save(ctx); err != nil && !errors.Is(err, kv.ErrClosed) {
		f.log.Warn("fan-out cursors not saved; the next start repeats a little", "error", err)
	}
}

// save makes cursors durable, then removes what all consumers have passed. There is
// one consumer so far; the slowest cursor is the one that counts.
func (f *fanOut) save(ctx context.Context) error {
	var puts []kv.SlotPut
	f.mu.Lock()
	for slot := range f.slots {
		if p := &f.slots[slot]; p.cursor > p.saved {
			puts = append(puts, kv.SlotPut{Slot: kv.Slot(slot), Key: cursorKey(consumer), Value: appendSeq(p.cursor)})
		}
	}
	f.mu.Unlock()
	if len(puts) == 0 {
		return nil
	}
	if err := f.store.BulkPut(ctx, puts); err != nil {
		return err
	}
	for _, put := range puts {
		seq, err := parseSeq(kv.Item{Value: put.Value, Ver: 1})
		if err != nil {
			return err
		}
		f.mu.Lock()
		p := &f.slots[put.Slot]
		p.saved = seq
		from := p.trimmed
		f.mu.Unlock()
		if seq-from < trimRecords {
			continue
		}
		b := new(kv.Batch).DeleteRange(outboxKey(from+1), outboxKey(seq+1))
		if _, err := f.store.Apply(ctx, put.Slot, b); err != nil {
			return err
		}
		f.mu.Lock()
		p.trimmed = seq
		f.mu.Unlock()
	}
	return nil
}

// FanOutStatus says how far fan-out is; see the contract.
func (s *Service) FanOutStatus(context.Context, *momentsv1.FanOutStatusRequest) (*momentsv1.FanOutStatusResponse, error) {
	f := s.fanOut
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &momentsv1.FanOutStatusResponse{Posts: f.posts, Deliveries: f.deliveries, Failures: f.failures}
	if !f.whole {
		res.Pending++ // at least: what was left over has not been counted yet
	}
	for i := range f.slots {
		switch p := &f.slots[i]; {
		case !p.loaded && p.queued:
			res.Pending++ // at least: its cursor has not been read yet
		case p.loaded && p.head > p.cursor:
			res.Pending += p.head - p.cursor
		}
	}
	return res, nil
}
