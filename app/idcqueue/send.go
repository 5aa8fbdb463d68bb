// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
)

// sendState is what is known of the sending of the own log to a peer.
type sendState struct {
	state   State
	stop    string    // why it is stopped
	failing string    // what fails, "" if nothing does
	since   time.Time // when that began
	ahead   time.Duration
	wire    uint64 // bytes of data as sent
	acked   uint64 // records, since the start
	wholes  int    // slots to be sent as a whole, in this session
	total   flow.SenderStats
	session flow.SenderStats // of the one under way, not in total
}

// sender is one session in which the own log is sent.
type sender struct {
	*peer
	session Session
	changed []kv.Slot // for reuse
	bare    [len(others)]stretch

	mu    sync.Mutex
	m     *flow.Sender       // guarded by mu
	again bool               // guarded by mu
	slots [kv.Slots]sendSlot // guarded by mu
	wake  chan struct{}      // holds a token when the machine has been told something
	whole *struct {          // slot on its way as a whole; of run only
		slot  kv.Slot
		hold  outbox.Pos
		start []byte
		first bool
	}
}

// sendSlot is where the session is in the log of a slot.
type sendSlot struct {
	known  bool       // at holds
	at     outbox.Pos // after the last record that was read
	acked  uint64     // last record that the peer has
	has    bool       // the peer has a cursor
	flight []chunk    // sent and not acknowledged, oldest first
}

// chunk is what was read of a slot together.
type chunk struct {
	end   outbox.Pos
	first time.Time // when its first record was put
}

// send runs a session in which the own log is sent.
func (p *peer) send(ctx context.Context, session Session) error {
	l := p.q.cfg.Limits
	s := &sender{peer: p, session: session, wake: make(chan struct{}, 1), m: flow.NewSender(flow.SenderConfig{
		Service: p.q.cfg.Service, BatchBytes: l.BatchBytes, BatchWait: l.BatchWait, Rate: l.Rate,
	})}
	p.note(func(st *sendState) { st.state = Joining })
	err := s.run(ctx)
	reason, stop := stopReason(err)
	p.note(func(st *sendState) {
		s.count(st)
		st.total, st.session, st.wholes = sum(st.total, st.session), flow.SenderStats{}, 0
		st.state = Offline
		if stop {
			st.state, st.stop = Stopped, reason
		}
	})
	if stop {
		p.stopped(ctx, session, reason)
		return nil
	}
	return err
}

// note changes the state of sending.
func (p *peer) note(f func(*sendState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.sending)
}

func sum(a, b flow.SenderStats) flow.SenderStats {
	return flow.SenderStats{
		Records: a.Records + b.Records, Batches: a.Batches + b.Batches, Parts: a.Parts + b.Parts,
		RawBytes: a.RawBytes + b.RawBytes, Resumes: a.Resumes + b.Resumes, Stalls: a.Stalls + b.Stalls,
	}
}

func (s *sender) run(ctx context.Context) error {
	select {
	case <-s.out.Found():
	case <-ctx.Done():
		return nil
	case <-s.session.Done():
		return nil
	}
	q := s.q
	if err := s.say(s.session, &flow.Hello{Service: q.cfg.Service, Region: q.cfg.Region, Incarnation: q.own}); err != nil {
		return err
	}
	h, err := s.hello(ctx, s.session)
	if err != nil {
		return err
	}
	if err := s.join(h); err != nil {
		return err
	}
	s.note(func(st *sendState) { st.state, st.stop = Live, "" })
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.listen(ctx)
		s.session.End(err) // a send that waits ends, too
		return err
	})
	g.Go(func() error {
		err := s.work(ctx)
		s.session.End(nil)
		return err
	})
	g.Go(func() error {
		err := s.mark(ctx)
		s.session.End(err)
		return err
	})
	err = g.Wait()
	return err
}

const (
	// markEvery is how often the peer is told up to when it has everything.
	markEvery = time.Second
	// markMargin is what that is behind the clock: a record's time is of before it is
	// written, and no write of a service takes longer.
	markMargin = 5 * time.Second
)

// mark tells the peer now and then up to when it has everything.
func (s *sender) mark(ctx context.Context) error {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.session.Done():
			return nil
		case <-tick.C:
		}
		now := s.q.cfg.Now() // before looking
		at := now.Add(-markMargin)
		for _, box := range s.q.cfg.Outbox.Status().Peers {
			if box.Name != Consumer(s.region) {
				continue
			}
			if box.Records > 0 && box.Oldest.Before(at) {
				at = box.Oldest
			}
			if box.Snapshots > 0 || at.UnixMilli() <= 0 {
				continue
			}
			if err := s.say(s.session, &flow.Mark{At: at, Now: now}); err != nil {
				return err
			}
		}
	}
}

// join begins where the peer is.
func (s *sender) join(h *flow.Hello) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.m.Join(s.q.cfg.Now(), h, s.q.own, func(slot kv.Slot) flow.Log {
		head, at, known := s.out.Slot(slot)
		return flow.Log{Head: head.Number, Cursor: at.Number, Known: known}
	})
	if err != nil {
		return err
	}
	s.again = h.Again
	for _, c := range h.Cursors {
		st := &s.slots[c.Slot]
		st.acked, st.has = c.Number, true
		if head, _, _ := s.out.Slot(c.Slot); c.Number == head.Number && !s.m.Whole(c.Slot) {
			st.known, st.at = true, head
			s.out.Ack(c.Slot, head, time.Time{})
		}
	}
	return nil
}

// listen takes what the peer says.
func (s *sender) listen(ctx context.Context) error {
	for {
		m, err := s.control(ctx, s.session)
		if err != nil {
			return err
		}
		s.mu.Lock()
		switch m := m.(type) {
		case *flow.Ack:
			err = s.acked(m)
		case *flow.Resume:
			st := &s.slots[m.Slot]
			if err = s.m.Resume(s.q.cfg.Now(), m, true); err == nil && !s.m.Whole(m.Slot) {
				st.known = false
				for len(st.flight) > 0 && st.flight[len(st.flight)-1].end.Number > m.From {
					st.flight = st.flight[:len(st.flight)-1]
				}
			}
		default:
			err = fmt.Errorf("%w: %T from the receiver", flow.ErrCorrupt, m)
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case s.wake <- struct{}{}:
		default: // a token is there already
		}
	}
}

// acked takes an acknowledgement.
func (s *sender) acked(a *flow.Ack) error {
	if err := s.m.Ack(a); err != nil {
		return err
	}
	var records uint64
	for _, c := range a.Applied {
		st := &s.slots[c.Slot]
		if st.has && c.Number < st.acked {
			continue
		}
		records += c.Number - st.acked
		st.acked, st.has = c.Number, true
		s.settle(c.Slot) // of a snapshot that ends where the peer was, too
	}
	s.note(func(st *sendState) {
		st.acked += records
		st.ahead = a.Clock.Sub(s.q.cfg.Now())
	})
	return nil
}

// settle moves the cursor of the outbox to what the peer has. Only ends of what was read
// together are known places of the log; a bit more than need be is kept.
func (s *sender) settle(slot kv.Slot) {
	st := &s.slots[slot]
	n := 0
	for n < len(st.flight) && st.flight[n].end.Number <= st.acked {
		n++
	}
	if n == 0 {
		return
	}
	end := st.flight[n-1].end
	if st.flight = st.flight[n:]; len(st.flight) == 0 {
		st.flight = nil
		s.out.Ack(slot, end, time.Time{})
		return
	}
	s.out.Ack(slot, end, st.flight[0].first)
}

// work sends, as the machine says.
func (s *sender) work(ctx context.Context) error {
	backOff := minBackOff
	for ctx.Err() == nil {
		s.grow()
		s.mu.Lock()
		now := s.q.cfg.Now()
		do := s.m.Next(now)
		s.mu.Unlock()
		var err error
		switch do.Step {
		case flow.Idle:
			s.wait(ctx, 0)
		case flow.Wait:
			s.wait(ctx, do.Until.Sub(now))
		case flow.Read:
			err = s.read(ctx, do)
		case flow.Send:
			err = s.sendBatch()
		case flow.Rows:
			err = s.sendPart(ctx, do.Slot)
		}
		var failed *storeError
		switch {
		case err == nil:
			if backOff != minBackOff {
				backOff = minBackOff
				s.note(func(st *sendState) { st.failing = "" })
			}
		case !errors.As(err, &failed):
			return err
		case ctx.Err() == nil:
			s.log.WarnContext(ctx, "what a region is to be sent cannot be read and will be again", "error", err, "pause", backOff)
			s.note(func(st *sendState) {
				if st.failing == "" {
					st.since = now
				}
				st.failing = err.Error()
			})
			pause(ctx, backOff)
			backOff = min(2*backOff, maxBackOff)
		}
	}
	return nil
}

// storeError is a failure of the own store or service: the session is not to blame.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// grow tells the machine of new records.
func (s *sender) grow() {
	s.changed = s.out.Changed(s.changed[:0])
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.q.cfg.Now()
	for _, slot := range s.changed {
		head, _, _ := s.out.Slot(slot)
		s.m.Grow(now, slot, head.Number)
	}
	s.note(s.count)
}

// count copies the counts of the machine.
func (s *sender) count(st *sendState) {
	st.session, st.wholes = s.m.Stats(), s.m.Wholes()
}

// wait waits for news, at most d unless it is 0.
func (s *sender) wait(ctx context.Context, d time.Duration) {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-s.out.Wake():
	case <-timer:
	}
}

// maxRead is how many records are read of a slot for one batch.
const maxRead = 1024

// read reads records of a slot for the batch.
func (s *sender) read(ctx context.Context, do flow.Do) error {
	slot := do.Slot
	s.mu.Lock()
	st := &s.slots[slot]
	at, known, acked := st.at, st.known && st.at.Number == do.From, st.acked
	s.mu.Unlock()
	var err error
	if !known {
		at, err = s.out.Find(ctx, slot, do.From)
	}
	var records []outbox.Record
	if err == nil {
		records, _, err = s.out.Read(ctx, slot, at, maxRead, do.Bytes)
	}
	switch {
	case errors.Is(err, outbox.ErrGone):
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.m.Sent(slot) == do.From {
			s.m.SendWhole(slot)
			st.flight = nil
		}
		return nil
	case err != nil:
		return &storeError{err: err}
	case len(records) == 0:
		return &storeError{err: fmt.Errorf("idcqueue: slot %d has no record %d yet: %w", slot, do.From+1, kv.ErrUnavailable)}
	}
	out, err := s.expand(ctx, slot, records)
	whole := errors.Is(err, ErrWhole)
	if err != nil && !whole {
		return &storeError{err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if whole {
		if s.m.Sent(slot) == do.From {
			s.m.SendWhole(slot)
			st.flight = nil
		}
		return nil
	}
	if s.m.Sent(slot) != do.From || s.m.Whole(slot) {
		return nil // the peer has asked for another place meanwhile
	}
	if !known && do.From == acked && len(st.flight) == 0 {
		s.out.Ack(slot, at, records[0].At)
	}
	if err := s.m.Take(s.q.cfg.Now(), slot, out); err != nil {
		return err
	}
	if n := s.m.Sent(slot) - do.From; n > 0 {
		st.known, st.at = true, records[n-1].After
		st.flight = append(st.flight, chunk{end: st.at, first: records[0].At})
	}
	return nil
}

// expand gives records as they are sent.
func (s *sender) expand(ctx context.Context, slot kv.Slot, records []outbox.Record) ([]flow.Record, error) {
	out := make([]flow.Record, len(records))
	for i := range records {
		r := &records[i]
		out[i] = flow.Record{Slot: slot, Number: r.Number, At: r.At, Origin: r.Origin, Body: r.Body}
	}
	if s.q.cfg.Side.Expand == nil {
		return out, nil
	}
	bodies, err := s.q.cfg.Side.Expand(ctx, slot, records)
	if err != nil {
		return nil, fmt.Errorf("idcqueue: read what %d records of slot %d name: %w", len(records), slot, err)
	}
	if len(bodies) != len(records) {
		return nil, fmt.Errorf("idcqueue: Expand gives %d bodies for %d records", len(bodies), len(records))
	}
	for i := range out {
		out[i].Body = bodies[i]
	}
	return out, nil
}

// sendData sends a batch or part.
func (s *sender) sendData(m flow.Message) error {
	b, raw, err := s.q.codec.Encode(m)
	if err != nil {
		return &flow.ErrStop{Reason: err.Error()}
	}
	s.mu.Lock()
	s.m.Used(raw)
	s.mu.Unlock()
	s.note(func(st *sendState) { st.wire += uint64(len(b)) })
	return s.session.SendData(b)
}

func (s *sender) sendBatch() error {
	s.mu.Lock()
	b := s.m.TakeBatch()
	s.mu.Unlock()
	return s.sendData(b)
}

// stretch is the slots from one on and before another.
type stretch struct{ from, to kv.Slot }

// others are the keys of a slot that are neither the queue's nor the outbox's.
var others = [...]kv.Range{
	{To: []byte{TableQuarantine}}, // which TableCursor follows
	{From: []byte{TableCursor + 1}, To: []byte{outbox.TableCursor}},
	{From: []byte{outbox.TableCursor + 1}, To: []byte{outbox.TableRecord}},
	{From: []byte{outbox.TableRecord + 1}, To: []byte{outbox.TableSeq}},
	{From: []byte{outbox.TableSeq + 1}},
}

// isBare reports whether a slot that never had a record has no row of the service, either.
// What was found earlier still holds: a row that is new has a record. Of a young region
// most slots are bare, and are passed over by a few sweeps.
func (s *sender) isBare(ctx context.Context, slot kv.Slot) (bool, error) {
	for i, r := range others {
		if bare := s.bare[i]; bare.from <= slot && slot < bare.to {
			continue
		}
		r.Limit = 1
		items, next, err := kv.ScanSlots(ctx, s.q.cfg.Store, kv.Place{Slot: slot}, r, kv.Linearizable)
		if err != nil {
			return false, err
		}
		end := next.Slot
		if len(items) > 0 {
			end = items[0].Slot
		}
		if s.bare[i] = (stretch{slot, end}); end == slot {
			return false, nil
		}
	}
	return true, nil
}

// rows reads the next page of the slot that is sent as a whole.
func (s *sender) rows(ctx context.Context) (rows []Row, next []byte, err error) {
	if w := s.whole; w.first && w.hold.Number == 0 {
		if bare, err := s.isBare(ctx, w.slot); err != nil || bare {
			return nil, nil, err
		}
	}
	return s.q.cfg.Side.Rows(ctx, s.region, s.whole.slot, s.whole.start)
}

// sendPart sends the next page of a slot that is sent as a whole.
func (s *sender) sendPart(ctx context.Context, slot kv.Slot) error {
	w := s.whole
	if w == nil || w.slot != slot {
		// Rows are read after this, so they have the effects of all records before it; those
		// that follow are sent afterwards, and may repeat some.
		s.whole = new(struct {
			slot  kv.Slot
			hold  outbox.Pos
			start []byte
			first bool
		})
		w = s.whole
		s.mu.Lock()
		s.slots[slot].flight = nil // what is acknowledged of it says nothing any more
		w.slot, w.hold, w.first = slot, s.out.Hold(slot), true
		s.mu.Unlock()
	}
	rows, next, err := s.rows(ctx)
	if err != nil {
		return &storeError{err: fmt.Errorf("idcqueue: read the rows of slot %d: %w", slot, err)}
	}
	part := &flow.Part{Slot: slot, Number: w.hold.Number, First: w.first, Last: next == nil, Start: w.start, End: next, Rows: rows}
	s.mu.Lock()
	now, st := s.q.cfg.Now(), &s.slots[slot]
	s.m.PartSent(now, slot, part.Number, part.Last)
	nothing := part.First && part.Last && len(rows) == 0 && part.Number == 0 && !st.has && !s.again
	if part.Last {
		s.whole = nil
		st.known, st.at = true, w.hold
		st.flight = append(st.flight[:0], chunk{end: w.hold, first: now})
		if nothing { // and the peer knows that by having no cursor
			st.flight = nil
			s.out.Ack(slot, w.hold, time.Time{})
		}
	}
	s.mu.Unlock()
	w.start, w.first = next, false
	if nothing {
		return nil
	}
	return s.sendData(part)
}
