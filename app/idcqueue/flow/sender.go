// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/kv"
)

// SenderConfig is what a Sender is made of. Zero fields mean the defaults.
type SenderConfig struct {
	Service string // must be what the receiver says
	// BatchBytes is from which size on a batch is sent; 0 means 64 KiB.
	BatchBytes int
	// BatchWait is how long after a batch the next one may begin, if the line was idle
	// between: what comes alone goes at once, what comes together goes together. 0 means
	// 5 ms.
	BatchWait time.Duration
	// Rate bounds what is sent, in unpacked bytes a second, so that what has piled up
	// does not take all of the line; 0 means no bound.
	Rate uint64
}

// ErrStop says that the two ends do not fit together, and that no repeating mends it.
// Somebody has to look.
type ErrStop struct{ Reason string }

func (e *ErrStop) Error() string { return "flow: stopped: " + e.Reason }

func stop(format string, args ...any) error { return &ErrStop{Reason: fmt.Sprintf(format, args...)} }

// SenderStats are counts since the Sender was made.
type SenderStats struct {
	Records, Batches, Parts uint64
	RawBytes                uint64 // unpacked
	Resumes                 uint64 // times that the receiver has asked for a place
	Stalls                  uint64 // times that credit has ended while there was something to send
}

// Sender is the sending machine of one session: make one for each. It is not safe for
// concurrent use.
type Sender struct {
	cfg     SenderConfig
	stats   SenderStats
	joined  bool
	granted uint64
	used    uint64
	stalled bool
	tokens  bucket

	slots [kv.Slots]sending
	lanes [Lanes][]kv.Slot // slots with something to send, first come first served
	lane  int              // whose turn it is
	busy  int              // slots in lanes
	last  time.Time        // when a batch was sent
	due   time.Time        // when an idle line begins
	batch Batch
	size  int       // of batch
	whole []kv.Slot // slots to be sent as a whole
	part  bool      // it is the turn of a part, if there is one
}

// sending is how far a slot is.
type sending struct {
	head   uint64 // last record there is
	sent   uint64 // last one that was put into a batch
	whole  bool   // it is sent as a whole first
	queued bool   // in its lane
}

// NewSender makes a Sender.
func NewSender(cfg SenderConfig) *Sender {
	if cfg.BatchBytes <= 0 {
		cfg.BatchBytes = 64 << 10
	}
	if cfg.BatchWait <= 0 {
		cfg.BatchWait = 5 * time.Millisecond
	}
	return &Sender{cfg: cfg, tokens: bucket{rate: float64(cfg.Rate)}}
}

// Stats gives the counts.
func (s *Sender) Stats() SenderStats { return s.stats }

// Log is how far the log of a slot goes, and what of it the sender knows the receiver to
// have.
type Log struct {
	Head   uint64 // number of the last record
	Cursor uint64 // the receiver had this one
	Known  bool   // Cursor holds, and all after it is there
}

// Join takes the receiver's Hello, and log by slot. An *ErrStop says that this receiver
// must not be sent anything.
func (s *Sender) Join(now time.Time, h *Hello, own Incarnation, log func(kv.Slot) Log) error {
	switch {
	case s.joined:
		return fmt.Errorf("%w: a second hello", ErrCorrupt)
	case h.Service != s.cfg.Service:
		return stop("the peer takes the log of %q, this is that of %q: mend the addresses in the topology", h.Service, s.cfg.Service)
	case h.Incarnation != own && !h.Incarnation.IsZero():
		return stop("region %d knows this log as incarnation %v, it is %v: this store is another copy; have the peer accept it", h.Region, h.Incarnation, own)
	}
	s.granted = h.Granted
	next := 0
	for slot := range kv.Slot(kv.Slots) {
		l := log(slot)
		st := &s.slots[slot]
		st.head = l.Head
		if next < len(h.Cursors) && h.Cursors[next].Slot == slot {
			n := h.Cursors[next].Number
			next++
			if n > l.Head {
				return stop("region %d has record %d of slot %d, the log here ends at %d: this store is an older copy of itself; give it a new incarnation", h.Region, n, slot, l.Head)
			}
			st.sent = n
			// That it has the last record says nothing if how far it was is not known: while a
			// region was alone, what it wrote had no numbers.
			st.whole = !l.Known || l.Cursor > n
		} else {
			st.whole = h.Again || !l.Known || l.Cursor > 0
		}
		if st.whole {
			s.whole = append(s.whole, slot)
		}
		s.queue(now, slot)
	}
	if next < len(h.Cursors) {
		return fmt.Errorf("%w: cursors are not in order", ErrCorrupt)
	}
	s.joined, s.due = true, now
	return nil
}

// Whole reports whether a slot is yet to be sent as a whole.
func (s *Sender) Whole(slot kv.Slot) bool { return s.slots[slot].whole }

// Wholes is how many slots are yet to be sent as a whole.
func (s *Sender) Wholes() int { return len(s.whole) }

// Sent is the last record of a slot that was put into a batch.
func (s *Sender) Sent(slot kv.Slot) uint64 { return s.slots[slot].sent }

// Grow says that a slot has records up to head.
func (s *Sender) Grow(now time.Time, slot kv.Slot, head uint64) {
	if st := &s.slots[slot]; head > st.head {
		st.head = head
		s.queue(now, slot)
	}
}

func (s *Sender) queue(now time.Time, slot kv.Slot) {
	st := &s.slots[slot]
	if st.queued || st.whole || st.sent >= st.head {
		return
	}
	if s.busy == 0 {
		if s.due = s.last.Add(s.cfg.BatchWait); s.due.Before(now) {
			s.due = now
		}
	}
	st.queued = true
	s.busy++
	lane := int(slot) % Lanes
	s.lanes[lane] = append(s.lanes[lane], slot)
}

// Ack takes what the receiver says of its credit. What it has applied is for the cursors
// of the log.
func (s *Sender) Ack(a *Ack) error {
	for _, c := range a.Applied {
		if st := &s.slots[c.Slot]; c.Number > st.head {
			return stop("the peer says that it has record %d of slot %d, the log ends at %d", c.Number, c.Slot, st.head)
		}
	}
	if a.Granted > s.granted {
		s.granted = a.Granted
	}
	return nil
}

// Resume goes back to where the receiver is. There reports whether the records after it
// are there; if not, the slot is sent as a whole.
func (s *Sender) Resume(now time.Time, r *Resume, there bool) error {
	st := &s.slots[r.Slot]
	if r.From > st.head {
		return stop("the peer asks for record %d of slot %d, the log ends at %d", r.From+1, r.Slot, st.head)
	}
	s.stats.Resumes++
	if st.whole {
		return nil
	}
	st.sent = r.From
	if !there {
		s.SendWhole(r.Slot)
		return nil
	}
	s.queue(now, r.Slot)
	return nil
}

// SendWhole has a slot sent as a whole: its records are not there any more.
func (s *Sender) SendWhole(slot kv.Slot) {
	st := &s.slots[slot]
	if st.whole {
		return
	}
	st.whole = true
	s.whole = append(s.whole, slot)
	if st.queued {
		st.queued = false
		s.busy--
		lane := int(slot) % Lanes
		s.lanes[lane] = slices.DeleteFunc(s.lanes[lane], func(q kv.Slot) bool { return q == slot })
	}
}

// Step is what is to be done next.
type Step int

// The steps.
const (
	// Idle: nothing, until something happens.
	Idle Step = iota
	// Wait: nothing, until then.
	Wait
	// Read: read records of Slot after number From, of about Bytes bytes, and give them to
	// Take.
	Read
	// Send: send the batch that TakeBatch gives.
	Send
	// Rows: send a part of Slot, with PartSent.
	Rows
)

// Do is a step with what belongs to it.
type Do struct {
	Step  Step
	Until time.Time // of Wait
	Slot  kv.Slot   // of Read and Rows
	From  uint64    // of Read
	Bytes int       // of Read
}

// Next gives the next step.
func (s *Sender) Next(now time.Time) Do {
	if !s.joined {
		return Do{Step: Idle}
	}
	if len(s.batch.Records) > 0 && (s.size >= s.cfg.BatchBytes || len(s.lanes[s.batch.Lane]) == 0) {
		s.last = now
		return Do{Step: Send}
	}
	open := len(s.batch.Records) > 0
	if !open {
		if s.busy == 0 && len(s.whole) == 0 {
			return Do{Step: Idle}
		}
		if s.used >= s.granted {
			if !s.stalled {
				s.stalled = true
				s.stats.Stalls++
			}
			return Do{Step: Idle}
		}
		s.stalled = false
		if at, ok := s.tokens.ready(now); !ok {
			return Do{Step: Wait, Until: at}
		}
		if len(s.whole) > 0 && (s.part || s.busy == 0) {
			return Do{Step: Rows, Slot: s.whole[0]}
		}
		if now.Before(s.due) {
			return Do{Step: Wait, Until: s.due}
		}
		for len(s.lanes[s.lane]) == 0 {
			s.lane = (s.lane + 1) % Lanes
		}
		s.batch.Lane = s.lane
	}
	slot := s.lanes[s.batch.Lane][0]
	return Do{Step: Read, Slot: slot, From: s.slots[slot].sent, Bytes: s.cfg.BatchBytes - s.size}
}

// Take puts records that were read into the batch: those of a slot that follow what is
// in it. None means that there are none now.
func (s *Sender) Take(now time.Time, slot kv.Slot, records []Record) error {
	st := &s.slots[slot]
	for i := range records {
		r := &records[i]
		if r.Slot != slot || r.Number != st.sent+1 {
			return fmt.Errorf("flow: record %d of slot %d was read, want %d of slot %d", r.Number, r.Slot, st.sent+1, slot)
		}
		if len(r.Body) > MaxRecord {
			return stop("record %d of slot %d has %d bytes to send, at most %d are possible", r.Number, slot, len(r.Body), MaxRecord)
		}
		cost := recordCost + len(r.Body)
		if len(s.batch.Records) > 0 && s.size+cost > MaxMessage {
			break // it is read again for the next batch
		}
		st.sent++
		s.size += cost
		s.batch.Records = append(s.batch.Records, *r)
	}
	// The slot goes behind the others of its lane, and the lane behind the other lanes.
	lane := int(slot) % Lanes
	if q := s.lanes[lane]; len(q) > 0 && q[0] == slot {
		s.lanes[lane] = q[:copy(q, q[1:])]
		st.queued = false
		s.busy--
	}
	if st.sent < st.head && len(records) > 0 && !st.whole {
		st.queued = true
		s.busy++
		s.lanes[lane] = append(s.lanes[lane], slot)
	}
	return nil
}

// TakeBatch gives the batch that is to be sent.
func (s *Sender) TakeBatch() *Batch {
	b := s.batch
	s.batch, s.size = Batch{}, 0
	s.lane = (b.Lane + 1) % Lanes
	s.part = true
	s.stats.Batches++
	s.stats.Records += uint64(len(b.Records))
	return &b
}

// Used says how many bytes, unpacked, a batch or part had.
func (s *Sender) Used(raw int) {
	s.used += uint64(raw)
	s.stats.RawBytes += uint64(raw)
	s.tokens.spend(raw)
}

// PartSent says that a part of a slot was sent. After the last one, which stands at the
// record of that number, its records follow.
func (s *Sender) PartSent(now time.Time, slot kv.Slot, number uint64, last bool) {
	s.part = false
	s.stats.Parts++
	if !last {
		return
	}
	st := &s.slots[slot]
	if i := slices.Index(s.whole, slot); i == 0 {
		s.whole = s.whole[1:] // as a rule; there may be as many as there are slots
	} else if i > 0 {
		s.whole = slices.Delete(s.whole, i, i+1)
	}
	st.whole, st.sent, st.head = false, number, max(st.head, number)
	s.queue(now, slot)
}

// bucket is a token bucket that holds a quarter of a second.
type bucket struct {
	rate   float64 // tokens a second; 0 means no bound
	tokens float64
	at     time.Time
}

// ready reports whether something may be spent, and else when.
func (b *bucket) ready(now time.Time) (time.Time, bool) {
	if b.rate <= 0 {
		return now, true
	}
	const burst = 0.25
	if b.at.IsZero() {
		b.tokens = burst * b.rate
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.tokens+d.Seconds()*b.rate, burst*b.rate)
	}
	b.at = now
	if b.tokens > 0 {
		return now, true
	}
	return now.Add(max(time.Duration((1-b.tokens)/b.rate*float64(time.Second)), time.Millisecond)), false
}

func (b *bucket) spend(n int) { b.tokens -= float64(n) }
