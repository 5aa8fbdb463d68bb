// SPDX-License-Identifier: Apache-2.0

package causal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
)

// Rules are what a replica goes by with records from elsewhere. The zero Rules take
// records of every region.
type Rules struct {
	// Regions are those that write or have written: a record of another is refused. Nil
	// means that every number is one.
	Regions *Registry
	// Ahead is how far ahead of the wall a record's time may be; 0 means 24 hours. One bad
	// clock would otherwise put all that is written after it far into the future. Where one
	// has, and an operator has let it pass, what merely comes after it is taken in: no clock
	// has put that there.
	Ahead time.Duration
}

// ahead is far more than clocks differ that anybody looks after, and little enough for
// people who read times.
const ahead = 24 * time.Hour

// Why a record is refused.
var (
	ErrAhead  = errors.New("causal: the record's time is too far ahead of the clock: the clock of its region is wrong, or this one is")
	ErrRegion = errors.New("causal: the record is of a region that is not in the registry")
	ErrRecord = errors.New("causal: the record is not as any region would have made it")
)

// Judge says what a replica is to do with a record that has arrived. The error tells
// why one is Refused, and only that.
func (u Rules) Judge(at Head, r *Record, now time.Time) (Verdict, error) {
	if err := r.check(); err != nil {
		return Refused, err
	}
	return u.place(at, r, now)
}

// place is Judge of a record that has been checked.
func (u Rules) place(at Head, r *Record, now time.Time) (Verdict, error) {
	region := r.ID.Region()
	have := at.Seen.Of(region)
	if r.Seq <= have {
		return Known, nil
	}
	if u.Regions != nil {
		if _, ok := u.Regions.Get(region); !ok {
			return Refused, fmt.Errorf("%w: %d", ErrRegion, region)
		}
	}
	bound := u.Ahead
	if bound == 0 {
		bound = ahead
	}
	if over := r.ID.Time().Sub(now); over > bound && !at.leadsTo(r) {
		return Refused, fmt.Errorf("%w: by %v, and %v are allowed", ErrAhead, over, bound)
	}
	if r.Seq > have+1 || !at.Seen.Covers(r.Deps) && !at.Seen.Covers(u.Regions.Needed(r.Deps)) {
		return Early, nil
	}
	return Due, nil
}

// leadsTo reports whether a record may have its time from what it comes after, and none of
// it from a clock: at most a millisecond later for each operation, those included that are
// missing here.
func (h Head) leadsTo(r *Record) bool {
	steps := uint64(1)
	for _, e := range r.Deps {
		if have := h.Seen.Of(e.Region); have < e.Seq {
			steps = min(steps+min(e.Seq-have, maxTime), maxTime)
		}
	}
	return r.ID.Time().UnixMilli() <= h.Last+int64(steps)
}

// check holds a record against what Head.Next makes.
func (r *Record) check() error {
	switch {
	case r.Seq == 0 || r.Deps.Of(r.ID.Region()) != r.Seq-1:
		return fmt.Errorf("%w: it is number %d and depends on number %d of its region", ErrRecord, r.Seq, r.Deps.Of(r.ID.Region()))
	case r.Kind < Add || r.Kind > Unlike:
		return fmt.Errorf("%w: kind %d", ErrRecord, r.Kind)
	case r.Parent.Compare(r.ID) >= 0:
		return fmt.Errorf("%w: it comes before what it answers", ErrRecord)
	case (r.Kind != Add || r.Body != "") && r.Hash != r.Sum(): // the text of a deleted comment is gone
		return fmt.Errorf("%w: its hash is of something else", ErrRecord)
	}
	return nil
}

// Hold keeps records of one post that came before their causes. It is bounded: what
// does not fit is dropped, but not forgotten, so Missing asks for it again. It is not
// for concurrent use.
//
// An owner that keeps it durably stores Want and the records that Merged names as Held,
// removes those that it names as Freed, and begins with RestoreHold.
type Hold struct {
	limit int
	early []Record // in order of arrival
	want  Vector   // what the records that came need or are, those dropped included
}

// NewHold makes a Hold for at most limit records.
func NewHold(limit int) *Hold { return &Hold{limit: limit} }

// RestoreHold makes the Hold that held these records and wanted that.
func RestoreHold(limit int, want Vector, records []Record) *Hold {
	return &Hold{limit: limit, early: records, want: want}
}

// Len gives the number of records held.
func (h *Hold) Len() int { return len(h.early) }

// Want gives the vector that is complete when nothing is missing any more.
func (h *Hold) Want() Vector { return h.want }

// put keeps a record if there is room, and reports whether it keeps it now and did not
// before, or cannot keep it.
func (h *Hold) put(r *Record) (held, dropped bool) {
	h.want = h.want.With(r.ID.Region(), r.Seq).Join(r.Deps)
	for i := range h.early {
		if have := &h.early[i]; have.ID.Region() == r.ID.Region() && have.Seq == r.Seq {
			return false, false
		}
	}
	if len(h.early) >= h.limit {
		return false, true
	}
	h.early = append(h.early, *r)
	return true, false
}

// Gap is a stretch of one region's records of a post that a replica lacks.
type Gap struct {
	Region   id.Region
	From, To uint64 // sequences, both included
}

// Missing gives what a replica has to ask for before all that has come can be taken
// in: by region and sequence, ascending.
func (h *Hold) Missing(at Head) []Gap {
	var gaps []Gap
	for _, e := range h.want {
		have := at.Seen.Of(e.Region)
		var held []uint64
		for i := range h.early {
			if r := &h.early[i]; r.ID.Region() == e.Region && r.Seq > have {
				held = append(held, r.Seq)
			}
		}
		slices.Sort(held)
		from := have + 1
		for _, seq := range append(held, e.Seq+1) {
			if from < seq {
				gaps = append(gaps, Gap{Region: e.Region, From: from, To: seq - 1})
			}
			from = seq + 1
		}
	}
	return gaps
}

// Merged is what Merge makes of records that have come.
type Merged struct {
	Due     []Record  // to be added to the log, in this order
	Known   []Record  // there already: one that is a Fork of what is there is an alarm
	Refused []Refusal // for quarantine
	Held    []Record  // kept by the Hold from now on
	Freed   []Record  // not kept by the Hold any more: they are among Due, Known or Refused
	Dropped int       // records for which the Hold had no room: Missing names them
	Orphans int       // of Due, those of which a cause was lost with its region
	Head    Head      // after Due
}

// Refusal is a record that is not taken in, and why.
type Refusal struct {
	Record Record
	Err    error // wraps ErrAhead, ErrRegion or ErrRecord
}

// Merge takes records in that came from other replicas, in any order, again or for the
// first time, and those held that become due by them. A record is due when all before
// it of its region, and all that its Deps name, is there. What was lost with its region
// is not waited for; a record of the lost region itself still is not taken in before
// the one before it.
func (h *Hold) Merge(at Head, rules Rules, now time.Time, came []Record) Merged {
	m := Merged{Head: at}
	for i := range came {
		r := &came[i]
		if err := r.check(); err != nil {
			m.Refused = append(m.Refused, Refusal{Record: *r, Err: err})
			continue
		}
		if !m.take(rules, now, r) {
			held, dropped := h.put(r)
			if held {
				m.Held = append(m.Held, *r)
			}
			if dropped {
				m.Dropped++
			}
		}
	}
	// Whatever was taken in may be what some wait for; and with no record at all, time
	// or the registry may have gone on.
	for more := len(h.early) > 0; more; {
		more = false
		h.early = slices.DeleteFunc(h.early, func(r Record) bool {
			if !m.take(rules, now, &r) {
				return false
			}
			if i := slices.IndexFunc(m.Held, func(held Record) bool { return held.ID == r.ID && held.Hash == r.Hash }); i >= 0 {
				m.Held = slices.Delete(m.Held, i, i+1) // it came and went within this call
			} else {
				m.Freed = append(m.Freed, r)
			}
			more = true
			return true
		})
	}
	return m
}

// take settles a record unless it is early.
func (m *Merged) take(rules Rules, now time.Time, r *Record) bool {
	switch v, err := rules.place(m.Head, r, now); v {
	case Due:
		if !m.Head.Seen.Covers(r.Deps) {
			m.Orphans++
		}
		m.Due, m.Head = append(m.Due, *r), m.Head.After(r)
	case Known:
		m.Known = append(m.Known, *r)
	case Refused:
		m.Refused = append(m.Refused, Refusal{Record: *r, Err: err})
	case Early:
		return false
	}
	return true
}

// Answer gives what to answer to one who lacks stretches of the log: of all of them, at
// most limit records, the least ids first. Each stretch is of one region, by sequence.
// Ids are in order of causes, so whoever has all before the stretches can take in every
// record of the answer, whatever its limit; the first records of one region alone might
// all wait for what another region's stretch has.
func Answer(limit int, stretches ...[]Record) []Record {
	left := slices.Clone(stretches)
	var answer []Record
	for len(answer) < limit {
		var next *[]Record
		for i := range left {
			if len(left[i]) > 0 && (next == nil || left[i][0].ID.Compare((*next)[0].ID) < 0) {
				next = &left[i]
			}
		}
		if next == nil {
			break
		}
		answer = append(answer, (*next)[0])
		*next = (*next)[1:]
	}
	return answer
}
