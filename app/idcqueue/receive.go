// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
	"github.com/sluice-rpc/sluice/app/kv"
)

// receiveState is what is known of a peer's log here.
type receiveState struct {
	state   State
	stop    string    // why it is stopped
	failing string    // what cannot be applied, "" if nothing
	since   time.Time // when that began

	known   meta
	offered flow.Incarnation // that a session was stopped for
	caught  time.Time        // all that the peer had put before it is here, by its clock
	clock   time.Time        // what its clock showed when it told of that last
	heard   time.Time        // when that was, by the clock here
	m       *flow.Receiver
	vers    [kv.Slots]uint64 // of the cursors' rows

	corrupt     uint64 // sessions ended by what could not be read
	quarantined uint64 // since the start
	held        int    // in quarantine now
}

// load reads how far peers are applied, and what is in quarantine.
func (q *Queue) load(ctx context.Context, peers map[id.Region]*peer) error {
	for _, p := range peers {
		known, err := readMeta(ctx, q.cfg.Store, p.region)
		if err != nil {
			return err
		}
		p.taking.known, p.taking.state, p.sending.state = known, Offline, Offline
	}
	cursors := map[id.Region][]flow.Cursor{}
	err := q.each(ctx, peers, TableCursor, func(p *peer, slot kv.Slot, it kv.Item) error {
		c, err := parseCursor(it, slot, p.region, p.taking.known.log)
		if err != nil {
			return err
		}
		p.taking.vers[slot] = c.ver
		if c.present {
			cursors[p.region] = append(cursors[p.region], flow.Cursor{Slot: slot, Number: c.number})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("idcqueue: read how far the other regions are applied: %w", err)
	}
	err = q.each(ctx, peers, TableQuarantine, func(p *peer, _ kv.Slot, it kv.Item) error {
		if isFirstPiece(it.Key) {
			p.taking.held++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("idcqueue: look for quarantined records: %w", err)
	}
	l := q.cfg.Limits
	for _, p := range peers {
		p.taking.m = flow.NewReceiver(flow.ReceiverConfig{
			Service: q.cfg.Service, Region: q.cfg.Region, Credit: l.Credit, AckWait: l.AckWait, Turn: l.Turn,
		}, cursors[p.region])
	}
	return nil
}

// each calls do for the rows of a table that are of one of these peers, by slot and key.
func (q *Queue) each(ctx context.Context, peers map[id.Region]*peer, table byte, do func(*peer, kv.Slot, kv.Item) error) error {
	return kv.Sweep(ctx, q.cfg.Store, kv.Prefix([]byte{table}, 0), kv.Linearizable, func(slot kv.Slot, it kv.Item) error {
		if len(it.Key) < 3 {
			return fmt.Errorf("idcqueue: row %x of slot %d is damaged", it.Key, slot)
		}
		if p := peers[id.Region(binary.BigEndian.Uint16(it.Key[1:]))]; p != nil {
			return do(p, slot, it)
		}
		return nil
	})
}

// receive runs a session in which the peer's log is taken.
func (p *peer) receive(ctx context.Context, s Session) error {
	p.take(func(st *receiveState) { st.state = Joining })
	r := &receiver{peer: p, session: s, work: make(chan struct{}, p.q.cfg.Limits.Workers), tell: make(chan struct{}, 1)}
	err := r.run(ctx)
	reason, stop := stopReason(err)
	p.take(func(st *receiveState) {
		if errors.Is(err, flow.ErrCorrupt) {
			st.corrupt++
		}
		st.state, st.failing = Offline, ""
		if stop {
			st.state, st.stop = Stopped, reason
		}
	})
	if stop {
		p.stopped(ctx, s, reason)
		return nil
	}
	return err
}

// take changes the state of receiving.
func (p *peer) take(f func(*receiveState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.taking)
}

// receiver is one session in which the peer's log is taken.
type receiver struct {
	*peer
	session Session
	work    chan struct{} // holds a token for each slot that has got work, as far as there are workers
	tell    chan struct{} // holds a token when there is something to tell the peer
}

func (r *receiver) run(ctx context.Context) error {
	h, err := r.hello(ctx, r.session)
	if err != nil {
		return err
	}
	answer, err := r.join(ctx, h)
	if err != nil {
		return err
	}
	if err := r.say(r.session, answer); err != nil {
		return err
	}
	r.take(func(st *receiveState) { st.state, st.stop = Live, "" })
	g, ctx := errgroup.WithContext(ctx)
	// The end of any is the end of all, also of those that wait for the session.
	all := func(f func(context.Context) error) {
		g.Go(func() error {
			err := f(ctx)
			r.session.End(err)
			return err
		})
	}
	all(r.listen)
	all(r.data)
	all(r.talk)
	for range r.q.cfg.Limits.Workers {
		all(r.worker)
	}
	return g.Wait()
}

// join answers the sender's hello. The log of a region that was never met is taken as
// its own.
func (r *receiver) join(ctx context.Context, h *flow.Hello) (*flow.Hello, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &r.taking
	known := st.known
	if known.log.IsZero() {
		known.log = h.Incarnation
	}
	answer, err := st.m.Join(h, known.log, known.again)
	if err != nil {
		st.offered = h.Incarnation
		return nil, err
	}
	st.offered = flow.Incarnation{}
	if st.known.log.IsZero() {
		if err := writeMeta(ctx, r.q.cfg.Store, r.region, known); err != nil {
			return nil, err
		}
		st.known = known
	}
	return answer, nil
}

// listen takes what the sender says beside its data.
func (r *receiver) listen(ctx context.Context) error {
	for {
		m, err := r.control(ctx, r.session)
		if err != nil {
			return err
		}
		mark, ok := m.(*flow.Mark)
		if !ok {
			return fmt.Errorf("%w: %T from the sender", flow.ErrCorrupt, m)
		}
		now := r.q.cfg.Now()
		r.take(func(st *receiveState) { st.mark(mark, now) })
	}
}

// mark takes in what the peer says of its clock. Now is the time here.
func (st *receiveState) mark(m *flow.Mark, now time.Time) {
	if m.At.After(st.caught) {
		st.caught = m.At
	}
	st.clock, st.heard = m.Now, now
}

// clockAt gives what the peer's clock shows when it is now here.
func (st *receiveState) clockAt(now time.Time) time.Time {
	if st.heard.IsZero() {
		return now
	}
	return st.clock.Add(max(0, now.Sub(st.heard)))
}

// Caught reports whether all that a region had by a time, in ms since 1970 by its clock,
// has been applied here. Nobody knows for the first second of a session, and for the
// latest five of any.
func (q *Queue) Caught(from id.Region, ms int64) bool {
	p := q.peer(from)
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taking.caught.UnixMilli() > ms
}

// Clock gives a time by a region's clock that nothing which has come from there so far is
// newer than. It is the clock here as long as the region has told nothing of its own.
func (q *Queue) Clock(from id.Region) time.Time {
	now, p := q.cfg.Now(), q.peer(from)
	if p == nil {
		return now
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taking.clockAt(now)
}

// data takes what comes.
func (r *receiver) data(context.Context) error {
	for {
		b, err := r.session.ReceiveData()
		if err != nil {
			return err
		}
		m, raw, err := r.q.codec.Decode(append([]byte(nil), b...))
		if err != nil {
			return err
		}
		r.mu.Lock()
		switch m := m.(type) {
		case *flow.Batch:
			err = r.taking.m.Batch(r.q.cfg.Now(), m, raw)
		case *flow.Part:
			err = r.taking.m.Part(r.q.cfg.Now(), m, raw)
		default:
			err = fmt.Errorf("%w: %T as data", flow.ErrCorrupt, m)
		}
		r.mu.Unlock()
		if err != nil {
			return err
		}
		r.wakeWorkers()
		r.wakeTalk()
	}
}

// wakeWorkers wakes as many workers as there may be work for.
func (r *receiver) wakeWorkers() {
	for {
		select {
		case r.work <- struct{}{}:
			continue
		default:
		}
		return
	}
}

func (r *receiver) wakeTalk() {
	select {
	case r.tell <- struct{}{}:
	default: // a token is there already
	}
}

// talk acknowledges, and asks for what is missing.
func (r *receiver) talk(ctx context.Context) error {
	for {
		r.mu.Lock()
		now := r.q.cfg.Now()
		m, at := r.taking.m.Control(now)
		r.mu.Unlock()
		if m != nil {
			if err := r.say(r.session, m); err != nil {
				return err
			}
			continue
		}
		var timer <-chan time.Time
		var t *time.Timer
		if !at.IsZero() {
			t = time.NewTimer(at.Sub(now))
			timer = t.C
		}
		select {
		case <-ctx.Done():
		case <-r.tell:
		case <-timer:
		}
		if t != nil {
			t.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// worker applies what comes, one slot after the other.
func (r *receiver) worker(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.work:
		}
		for ctx.Err() == nil {
			r.mu.Lock()
			w, ok := r.taking.m.Next()
			r.mu.Unlock()
			if !ok {
				break
			}
			items, c := r.apply(ctx, w)
			r.mu.Lock()
			r.taking.vers[w.Slot] = c.ver
			r.taking.m.Done(r.q.cfg.Now(), w.Slot, items, c.number, c.present)
			r.mu.Unlock()
			r.wakeTalk()
		}
	}
}

// apply applies work of a slot, at least its first item unless ctx ends before, and gives
// how many items of it are done and the cursor after them.
func (r *receiver) apply(ctx context.Context, w flow.Work) (items int, c cursor) {
	r.mu.Lock()
	c.number, c.present = r.taking.m.Applied(w.Slot)
	c.ver = r.taking.vers[w.Slot]
	r.mu.Unlock()
	failing := false
	for backOff := minBackOff; ; backOff = min(2*backOff, maxBackOff) {
		var err error
		if w.Part != nil {
			items, err = r.applyPart(ctx, w.Part, &c)
		} else {
			items, err = r.applyRecords(ctx, w.Slot, w.Records, &c)
		}
		if err == nil || ctx.Err() != nil {
			if failing {
				r.take(func(st *receiveState) { st.failing = "" })
			}
			return items, c
		}
		failing = true
		r.log.WarnContext(ctx, "what a region has sent cannot be applied and will be again", "slot", w.Slot, "error", err, "pause", backOff)
		r.take(func(st *receiveState) {
			if st.failing == "" {
				st.since = r.q.cfg.Now()
			}
			st.failing = fmt.Sprintf("slot %d: %v", w.Slot, err)
		})
		if !pause(ctx, backOff) {
			return 0, c
		}
	}
}

// reload reads the cursor again after a batch of which it is not known whether it was
// applied, or which another process was quicker than.
func (r *receiver) reload(ctx context.Context, slot kv.Slot, c *cursor) error {
	r.mu.Lock()
	log := r.taking.known.log
	r.mu.Unlock()
	now, err := readCursor(ctx, r.q.cfg.Store, slot, r.region, log)
	if err == nil {
		*c = now
	}
	return err
}

// applyRecords applies as many records as the service takes at a time, skipping those
// that are applied.
func (r *receiver) applyRecords(ctx context.Context, slot kv.Slot, records []flow.Record, c *cursor) (int, error) {
	done := 0
	for done < len(records) && records[done].Number <= c.number {
		done++
	}
	if done == len(records) {
		return done, nil
	}
	rest := records[done:]
	if want := c.number + 1; rest[0].Number != want {
		return done, fmt.Errorf("idcqueue: record %d of slot %d is next, want %d", rest[0].Number, slot, want)
	}
	n, err := r.commitRecords(ctx, slot, rest, c)
	switch {
	case errors.Is(err, ErrRefused):
		msg := &flow.Batch{Lane: int(slot) % flow.Lanes, Records: rest[:1]}
		n, err = 1, r.putAside(ctx, slot, rest[0].Number, "", msg, err.Error(), &cursor{number: rest[0].Number, present: true}, c)
	case errors.Is(err, kv.ErrConflict), errors.Is(err, kv.ErrUnknown):
		if again := r.reload(ctx, slot, c); again != nil {
			return done, again
		}
		for n = 0; n < len(rest) && rest[n].Number <= c.number; n++ {
			continue
		}
		if n > 0 {
			err = nil // it was applied, or is now
		}
	}
	if err != nil {
		return done, err
	}
	return done + n, nil
}

// commitRecords applies the first records with one batch.
func (r *receiver) commitRecords(ctx context.Context, slot kv.Slot, records []flow.Record, c *cursor) (int, error) {
	in := &In{From: r.region, Slot: slot, Records: toRecords(records)}
	for {
		n, err := r.tryRecords(ctx, in, records, c)
		if len(in.Records) > 1 && (errors.Is(err, kv.ErrTooLarge) || errors.Is(err, kv.ErrInvalid)) {
			in.Records = in.Records[:1] // the service has taken too many together
			continue
		}
		if errors.Is(err, kv.ErrTooLarge) || errors.Is(err, kv.ErrInvalid) {
			err = Refuse("it cannot be stored: %v", err)
		}
		return n, err
	}
}

func toRecords(records []flow.Record) []Record {
	out := make([]Record, len(records))
	for i := range records {
		rec := &records[i]
		out[i] = Record{Seq: rec.Number, At: rec.At, Origin: rec.Origin, Body: rec.Body}
	}
	return out
}

func (r *receiver) tryRecords(ctx context.Context, in *In, records []flow.Record, c *cursor) (int, error) {
	out, err := r.q.cfg.Outbox.Open(ctx, in.Slot)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in.Batch, in.Out, in.hooks = new(kv.Batch), out, hooks{}
	n, err := r.q.cfg.Side.Apply(ctx, in)
	switch {
	case errors.Is(err, ErrRefused) && n > 0: // it is refused again when it is the first
	case err != nil:
		return 0, err
	}
	if n < 1 || n > len(in.Records) {
		return 0, fmt.Errorf("idcqueue: Apply says that it has taken %d of %d records", n, len(in.Records))
	}
	last := records[n-1].Number
	in.Batch.IfVer(cursorKey(r.region), c.ver).Put(cursorKey(r.region), r.cursorValue(last))
	if err := out.Seal(in.Batch); err != nil {
		return 0, err
	}
	ver, err := r.q.cfg.Store.Apply(ctx, in.Slot, in.Batch)
	if err != nil {
		return 0, err
	}
	out.Applied(ver)
	*c = cursor{number: last, present: true, ver: ver}
	in.Applied(ver)
	return n, nil
}

// cursorValue is a cursor's row in the log that is known.
func (r *receiver) cursorValue(number uint64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return appendCursor(r.taking.known.log, number)
}

// applyPart applies a part of a snapshot. The cursor moves with the last one.
func (r *receiver) applyPart(ctx context.Context, p *flow.Part, c *cursor) (int, error) {
	if c.present && p.Number < c.number {
		return 1, nil // it is older than what is here
	}
	for {
		before := c.ver
		more, err := r.tryPart(ctx, p, c)
		switch {
		case errors.Is(err, ErrRefused), errors.Is(err, kv.ErrTooLarge), errors.Is(err, kv.ErrInvalid):
			next := *c
			if p.Last {
				next = cursor{number: p.Number, present: true}
			}
			err = r.putAside(ctx, p.Slot, p.Number, string(p.Start), p, err.Error(), &next, c)
		case errors.Is(err, kv.ErrConflict), errors.Is(err, kv.ErrUnknown):
			if again := r.reload(ctx, p.Slot, c); again != nil {
				return 0, again
			}
			// It may end where the cursor was before: then only a cursor that was written says
			// that it is applied.
			if p.Last && c.present && c.number >= p.Number && c.ver != before {
				return 1, nil
			}
		}
		switch {
		case err != nil:
			return 0, err
		case !more:
			return 1, nil
		}
	}
}

func (r *receiver) tryPart(ctx context.Context, p *flow.Part, c *cursor) (more bool, err error) {
	out, err := r.q.cfg.Outbox.Open(ctx, p.Slot)
	if err != nil {
		return false, err
	}
	defer out.Close()
	part := &Part{From: r.region, Slot: p.Slot, Start: p.Start, End: p.End, Rows: p.Rows, Batch: new(kv.Batch), Out: out}
	if more, err = r.q.cfg.Side.Merge(ctx, part); err != nil {
		return false, err
	}
	last := p.Last && !more
	if last {
		part.Batch.IfVer(cursorKey(r.region), c.ver).Put(cursorKey(r.region), r.cursorValue(p.Number))
	}
	if err := out.Seal(part.Batch); err != nil {
		return false, err
	}
	if part.Batch.Len() == 0 {
		return more, nil
	}
	ver, err := r.q.cfg.Store.Apply(ctx, p.Slot, part.Batch)
	if err != nil {
		return false, err
	}
	out.Applied(ver)
	if last {
		*c = cursor{number: p.Number, present: true, ver: ver}
	}
	part.Applied(ver)
	return more, nil
}
