// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bytes"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
)

// ReceiverConfig is what a Receiver is made of. Zero fields mean the defaults.
type ReceiverConfig struct {
	Service string
	Region  id.Region // own
	// Credit is how many bytes of data, unpacked, may be there without being applied; 0
	// means 16 MiB. It is never less than some messages.
	Credit uint64
	// AckWait is how long an acknowledgement waits for others, and AckBytes how many bytes
	// of data make it go at once; 0 means 50 ms and 256 KiB.
	AckWait  time.Duration
	AckBytes uint64
	// Turn is how many records of a slot are taken at a time; 0 means 64.
	Turn int
}

// turnBytes is how many bytes of bodies are taken at a time, if it is more than one.
const turnBytes = 256 << 10

// ReceiverStats are counts since the Receiver was made.
type ReceiverStats struct {
	Records, Parts uint64 // applied
	RawBytes       uint64 // received, unpacked
	Duplicates     uint64 // records that were there already
	Gaps           uint64 // records that came too early
	Resumes        uint64 // times that a place was asked for
}

// Receiver is the receiving machine of one peer, over all its sessions. It is not safe
// for concurrent use.
type Receiver struct {
	cfg   ReceiverConfig
	stats ReceiverStats

	slots    [kv.Slots]receiving
	ready    []kv.Slot // with work that nobody has, first come first served
	changed  []kv.Slot // to be acknowledged
	resumes  []Resume
	received uint64 // bytes of this session
	backlog  uint64 // of them not applied
	granted  uint64 // as last told
	waiting  uint64 // bytes applied since then
	since    time.Time
}

// receiving is how far a slot is.
type receiving struct {
	applied uint64
	present bool   // there is a cursor
	taken   uint64 // last one in queue, or applied
	queue   []item
	busy    bool // somebody works on it
	ready   bool // in ready
	changed bool // in changed
	asked   bool // for the record after taken

	// Of a snapshot that is coming in.
	whole bool
	next  []byte // where the next part begins
}

// item is a record or a part with its share of a message.
type item struct {
	record Record
	part   *Part
	load   *load
}

// load is a message that takes up credit.
type load struct {
	raw  uint64
	left int // of its items
}

// Work is what is to be applied to one slot: records, or a part.
type Work struct {
	Slot    kv.Slot
	Records []Record
	Part    *Part
}

// NewReceiver makes a Receiver. The cursors say how far it is.
func NewReceiver(cfg ReceiverConfig, cursors []Cursor) *Receiver {
	if cfg.Credit == 0 {
		cfg.Credit = 16 << 20
	}
	cfg.Credit = max(cfg.Credit, 4*MaxMessage)
	if cfg.AckWait <= 0 {
		cfg.AckWait = 50 * time.Millisecond
	}
	if cfg.AckBytes == 0 {
		cfg.AckBytes = 256 << 10
	}
	if cfg.Turn <= 0 {
		cfg.Turn = 64
	}
	r := &Receiver{cfg: cfg}
	for _, c := range cursors {
		r.slots[c.Slot] = receiving{applied: c.Number, taken: c.Number, present: true}
	}
	return r
}

// Stats gives the counts.
func (r *Receiver) Stats() ReceiverStats { return r.stats }

// Backlog is how many bytes have come and are not applied.
func (r *Receiver) Backlog() uint64 { return r.backlog }

// Applied is how far a slot is.
func (r *Receiver) Applied(slot kv.Slot) (number uint64, present bool) {
	return r.slots[slot].applied, r.slots[slot].present
}

// Forget drops all cursors: the sender has another log now.
func (r *Receiver) Forget() {
	for i := range r.slots {
		r.slots[i] = receiving{}
	}
	r.ready = nil
}

// Join begins a session and gives the answer to the sender's Hello. What an earlier
// session has brought and nobody works on is dropped, and comes again; nobody may work on
// anything meanwhile.
func (r *Receiver) Join(h *Hello, known Incarnation, again bool) (*Hello, error) {
	switch {
	case h.Service != r.cfg.Service:
		return nil, stop("region %d sends the log of %q, this takes that of %q: mend the addresses in the topology", h.Region, h.Service, r.cfg.Service)
	case h.Incarnation.IsZero():
		return nil, fmt.Errorf("%w: a log without incarnation", ErrCorrupt)
	case !known.IsZero() && h.Incarnation != known:
		return nil, stop("the log of region %d is incarnation %v, known is %v: its store was restored or is a foreign one; see that the right one runs there, then accept it", h.Region, h.Incarnation, known)
	}
	r.ready, r.changed, r.resumes = r.ready[:0], r.changed[:0], r.resumes[:0]
	r.received, r.backlog, r.granted, r.waiting, r.since = 0, 0, r.cfg.Credit, 0, time.Time{}
	answer := &Hello{Service: r.cfg.Service, Region: r.cfg.Region, Incarnation: known, Granted: r.granted, Again: again}
	for i := range r.slots {
		st := &r.slots[i]
		*st = receiving{applied: st.applied, taken: st.applied, present: st.present}
		if st.present {
			answer.Cursors = append(answer.Cursors, Cursor{Slot: kv.Slot(i), Number: st.applied})
		}
	}
	return answer, nil
}

// Batch takes records that have come, in a message of that many bytes.
func (r *Receiver) Batch(now time.Time, b *Batch, raw int) error {
	l := r.load(raw)
	for i := range b.Records {
		rec := &b.Records[i]
		st := &r.slots[rec.Slot]
		switch {
		case st.whole:
			return fmt.Errorf("%w: a record of slot %d in the middle of its snapshot", ErrCorrupt, rec.Slot)
		case rec.Number <= st.taken:
			r.stats.Duplicates++
			if rec.Number <= st.applied {
				r.change(now, rec.Slot) // the sender has missed that
			}
		case rec.Number > st.taken+1:
			r.stats.Gaps++
			if !st.asked {
				st.asked = true
				r.stats.Resumes++
				r.resumes = append(r.resumes, Resume{Slot: rec.Slot, From: st.taken})
			}
		default:
			st.taken, st.asked = rec.Number, false
			r.push(rec.Slot, item{record: *rec, load: l})
		}
	}
	return r.unload(now, l)
}

// Part takes a part of a snapshot that has come, in a message of that many bytes.
func (r *Receiver) Part(now time.Time, p *Part, raw int) error {
	l := r.load(raw)
	st := &r.slots[p.Slot]
	switch {
	case p.First:
		if len(p.Start) > 0 {
			return fmt.Errorf("%w: the first part of slot %d begins at %x", ErrCorrupt, p.Slot, p.Start)
		}
		st.whole = true
	case !st.whole || !bytes.Equal(p.Start, st.next):
		return fmt.Errorf("%w: a part of slot %d begins at %x, want %x", ErrCorrupt, p.Slot, p.Start, st.next)
	}
	if !p.Last && bytes.Compare(p.End, p.Start) <= 0 || p.Last && len(p.End) > 0 {
		return fmt.Errorf("%w: a part of slot %d from %x to %x", ErrCorrupt, p.Slot, p.Start, p.End)
	}
	st.next = bytes.Clone(p.End)
	if p.Last {
		st.whole, st.next, st.asked = false, nil, false
		st.taken = max(st.taken, p.Number)
	}
	r.push(p.Slot, item{part: p, load: l})
	return r.unload(now, l)
}

func (r *Receiver) load(raw int) *load {
	r.received += uint64(raw)
	r.backlog += uint64(raw)
	r.stats.RawBytes += uint64(raw)
	return &load{raw: uint64(raw), left: 1} // until unload
}

// unload gives a message's credit back when all of it is done.
func (r *Receiver) unload(now time.Time, l *load) error {
	if r.received > r.granted+MaxMessage { // the last one is begun within it
		return fmt.Errorf("%w: %d bytes have come, %d were granted", ErrCorrupt, r.received, r.granted)
	}
	r.release(now, l)
	return nil
}

func (r *Receiver) release(now time.Time, l *load) {
	if l.left--; l.left == 0 {
		r.backlog -= l.raw
		r.waiting += l.raw
		r.stamp(now)
	}
}

func (r *Receiver) push(slot kv.Slot, it item) {
	it.load.left++
	st := &r.slots[slot]
	st.queue = append(st.queue, it)
	r.offer(slot)
}

func (r *Receiver) offer(slot kv.Slot) {
	if st := &r.slots[slot]; !st.busy && !st.ready && len(st.queue) > 0 {
		st.ready = true
		r.ready = append(r.ready, slot)
	}
}

func (r *Receiver) change(now time.Time, slot kv.Slot) {
	if st := &r.slots[slot]; !st.changed {
		st.changed = true
		r.changed = append(r.changed, slot)
		r.stamp(now)
	}
}

func (r *Receiver) stamp(now time.Time) {
	if r.since.IsZero() {
		r.since = now
	}
}

// Next gives work of a slot that nobody works on, and reports false if there is none. It
// must be ended by Done.
func (r *Receiver) Next() (Work, bool) {
	if len(r.ready) == 0 {
		return Work{}, false
	}
	slot := r.ready[0]
	r.ready = r.ready[:copy(r.ready, r.ready[1:])]
	st := &r.slots[slot]
	st.ready, st.busy = false, true
	w := Work{Slot: slot}
	if w.Part = st.queue[0].part; w.Part != nil {
		return w, true
	}
	size := 0
	for i := range st.queue {
		it := &st.queue[i]
		size += len(it.record.Body)
		if it.part != nil || len(w.Records) == r.cfg.Turn || len(w.Records) > 0 && size > turnBytes {
			break
		}
		w.Records = append(w.Records, it.record)
	}
	return w, true
}

// Done says how many of the work's items are applied or need not be any more, and how
// far the slot's cursor is, which may be further. The rest comes with Next again.
func (r *Receiver) Done(now time.Time, slot kv.Slot, items int, cursor uint64, present bool) {
	st := &r.slots[slot]
	st.busy = false
	whole := false // a snapshot may end where the cursor was before: the sender waits for that
	for range items {
		it := st.queue[0]
		st.queue = st.queue[1:]
		if it.part == nil {
			r.stats.Records++
		} else {
			r.stats.Parts++
			whole = whole || it.part.Last
		}
		r.release(now, it.load)
	}
	if len(st.queue) == 0 {
		st.queue = nil
	}
	if whole || cursor != st.applied || present != st.present {
		st.applied, st.present = cursor, present
		r.change(now, slot)
	}
	r.offer(slot)
}

// Control gives the next message for the sender, nil if there is none that has to go by
// now; then at says when one will have, zero for none.
func (r *Receiver) Control(now time.Time) (m Message, at time.Time) {
	if len(r.resumes) > 0 {
		m := r.resumes[0]
		r.resumes = r.resumes[:copy(r.resumes, r.resumes[1:])]
		return &m, at
	}
	if r.since.IsZero() {
		return nil, at
	}
	if due := r.since.Add(r.cfg.AckWait); now.Before(due) && r.waiting < r.cfg.AckBytes {
		return nil, due
	}
	a := &Ack{Clock: now}
	for _, slot := range r.changed {
		st := &r.slots[slot]
		st.changed = false
		if st.present {
			a.Applied = append(a.Applied, Cursor{Slot: slot, Number: st.applied})
		}
	}
	r.changed, r.waiting, r.since = r.changed[:0], 0, time.Time{}
	r.granted = r.received - r.backlog + r.cfg.Credit
	a.Granted = r.granted
	return a, at
}
