// SPDX-License-Identifier: Apache-2.0

// Package sim runs regions that comment on the same posts in virtual time, on one
// thread, with everything that can go wrong: lines that lose, delay, repeat and reorder,
// cuts, crashes, disks set back, wrong clocks, regions that come and go. What decides
// about records is package causal, as in production; what a client saw goes to package
// check. A Plan runs the same every time, to the bit.
//
// Around the records it models what the service does: writers of a post share a batch
// that has the post's head as its condition and counts once it is synced; an outbox is
// written with it, and sent record by record; a receiver takes only the next one of
// each (origin, slot), and its cursor moves in the batch that has the effect; regions
// compare their heads from time to time and send what the other lacks.
package sim

import (
	"encoding/binary"
	"hash"
	"hash/fnv"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/check"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// Result is what a run comes to.
type Result struct {
	History []check.Op
	Verdict *check.Verdict
	// Trace is a hash over all that happened, in order.
	Trace uint64
	Stats Stats
}

// Stats counts what happened in a run.
type Stats struct {
	Events     int
	Records    int // written
	Held       int // came before their causes
	Dropped    int // found the hold full
	Refused    int // bad clock, unknown region
	Forks      int // one place given twice
	Orphans    int // shown though a cause was lost with its region
	Repeated   int // frames' records that were there already
	Behind     int // calls refused because a session has seen more
	Conflicts  int // batches that lost to another server's
	Collected  int // deleted comments forgotten
	SentBytes  int // of records, between regions
	Unsettled  int // 1 if the regions had not come to rest at the end
	Unanswered int // calls without an answer
}

// Add adds the counts of another run.
func (s *Stats) Add(o *Stats) {
	s.Events += o.Events
	s.Records += o.Records
	s.Held += o.Held
	s.Dropped += o.Dropped
	s.Refused += o.Refused
	s.Forks += o.Forks
	s.Orphans += o.Orphans
	s.Repeated += o.Repeated
	s.Behind += o.Behind
	s.Conflicts += o.Conflicts
	s.Collected += o.Collected
	s.SentBytes += o.SentBytes
	s.Unsettled += o.Unsettled
	s.Unanswered += o.Unanswered
}

// Run runs a plan, with a fault planted or None.
func Run(p Plan, f Fault) *Result {
	w := newWorld(p, f)
	w.run()
	return &Result{History: w.history, Verdict: check.History(w.history), Trace: w.trace.Sum64(), Stats: w.stats}
}

// world is one run.
type world struct {
	plan  Plan
	fault Fault

	now    int64 // ns
	events events
	serial uint64
	chance chance
	trace  hash.Hash64
	stats  Stats

	regions  []*region
	lines    map[[2]int]*line
	registry *causal.Registry // as the operator has it
	numbers  id.Region        // given so far
	joined   int
	ahead    time.Duration // how far ahead a record's time may be, 0 for the default
	calm     bool          // nothing goes wrong any more

	sessions []*session
	history  []check.Op
	names    map[id.Comment]string
	written  map[id.Comment]int64 // wall time of the writer, for a fault
}

func newWorld(p Plan, f Fault) *world {
	w := &world{
		plan: p, fault: f, chance: chance(p.Seed), trace: fnv.New64a(), lines: make(map[[2]int]*line),
		registry: new(causal.Registry), names: make(map[id.Comment]string), written: make(map[id.Comment]int64),
	}
	for _, servers := range p.Regions {
		w.join(servers)
	}
	for _, r := range w.regions {
		r.registry = w.registry
	}
	w.befriend()
	for i := range sessions {
		w.sessions = append(w.sessions, &session{w: w, number: i, user: i % p.Users, region: w.regions[i%len(w.regions)]})
	}
	return w
}

// befriend says who sees whom.
func (w *world) befriend() {
	if !w.plan.Filter {
		return
	}
	for u := range w.plan.Users {
		o := check.Op{Kind: check.Friends, User: userName(u)}
		for v := range w.plan.Users {
			// Who is whose friend does not change with the plan, so that it can be made smaller.
			if friends(u, v) {
				o.Who = append(o.Who, userName(v))
			}
		}
		w.history = append(w.history, o)
	}
}

// friends is mutual, and true for about two of three.
func friends(u, v int) bool { return u == v || (u*7+v*7+u*v)%3 != 0 }

// at lets something happen after a while. The label is for the trace.
func (w *world) at(after time.Duration, label byte, do func()) {
	w.serial++
	w.events.push(event{at: w.now + int64(after), serial: w.serial, label: label, do: do})
}

// note adds something to the trace.
func (w *world) note(label byte, values ...uint64) {
	var b [9]byte
	b[0] = label
	for _, v := range values {
		binary.LittleEndian.PutUint64(b[1:], v)
		w.trace.Write(b[:])
	}
}

// Bounds of a run.
const (
	settleEvery = time.Second
	settleMost  = 15 * time.Minute // of virtual time, after which a run ends as it is
	pulse       = time.Second      // of everything that is done from time to time
	maxEvents   = 3_000_000
)

func (w *world) run() {
	for i := range w.plan.Steps {
		s := &w.plan.Steps[i]
		w.at(s.At, 'S', func() { w.step(s) })
	}
	for _, r := range w.regions {
		w.at(time.Duration(w.chance.between(0, int64(pulse))), 'P', r.pulse)
	}
	w.until(int64(w.plan.Quiet))
	w.heal()
	deadline := w.now + int64(settleMost)
	for w.now < deadline {
		w.until(w.now + int64(settleEvery))
		if w.settled() {
			break
		}
	}
	if !w.settled() {
		w.stats.Unsettled = 1
	}
	w.finish()
}

// until runs what happens till then.
func (w *world) until(then int64) {
	for len(w.events) > 0 && w.events[0].at <= then && w.stats.Events < maxEvents {
		e := w.events.pop()
		w.now = e.at
		w.stats.Events++
		w.note(e.label, uint64(e.at))
		e.do()
	}
	w.now = max(w.now, then)
}

// heal ends everything that goes wrong but what is lost for ever.
func (w *world) heal() {
	w.calm = true
	for _, l := range w.allLines() {
		*l = line{least: time.Millisecond, most: 20 * time.Millisecond}
	}
	for _, r := range w.regions {
		r.registry = w.registry
		for _, s := range r.servers {
			if r.alive() {
				s.start()
			}
		}
	}
	// An operator has looked at what is in quarantine, and lets it go.
	w.ahead = 100 * 365 * 24 * time.Hour
	for _, s := range w.sessions {
		s.steps = nil
	}
}

// settled reports whether nothing is under way any more: all that is active has seen the
// same.
func (w *world) settled() bool {
	for _, s := range w.sessions {
		if s.busy {
			return false
		}
	}
	for p := range w.plan.Posts {
		var first *region
		for _, r := range w.regions {
			if !r.alive() {
				continue
			}
			if r.registry != w.registry || r.busy() || len(r.dangling(p)) > 0 {
				return false
			}
			if first == nil {
				first = r
			} else if a, b := first.head(p), r.head(p); !slices.Equal(a.Seen, b.Seen) {
				return false
			}
		}
	}
	return true
}

// finish has the same people look at all posts in all regions.
func (w *world) finish() {
	for _, r := range w.regions {
		if !r.alive() {
			continue
		}
		for p := range w.plan.Posts {
			for _, u := range []int{0, w.plan.Users - 1} {
				w.now += int64(time.Millisecond)
				o := check.Op{
					Kind: check.Read, Session: "last look at " + r.name + " by " + userName(u), User: userName(u), Region: r.name,
					Post: postName(p), Start: w.now, End: w.now + 1, Final: true,
				}
				r.servers[0].show(p, u, &o)
				w.history = append(w.history, o)
			}
		}
		for p := range w.plan.Posts {
			w.note('F', r.disk.posts[p].ver, uint64(r.head(p).Last))
		}
	}
	for i := range w.history {
		o := &w.history[i]
		w.note('H', uint64(o.Start), uint64(o.End), uint64(len(o.Comments)), uint64(len(o.Likes)))
		_, _ = w.trace.Write([]byte(o.ID + string(o.Outcome)))
	}
}

// event is something that happens.
type event struct {
	at     int64
	serial uint64
	label  byte
	do     func()
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.serial < o.serial }

// events is a heap, the next one first.
type events []event

func (h *events) push(e event) {
	*h = append(*h, e)
	q := *h
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !q[i].before(q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
}

func (h *events) pop() event {
	q := *h
	first := q[0]
	n := len(q) - 1
	q[0] = q[n]
	q[n] = event{}
	q = q[:n]
	*h = q
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < n && q[down].before(q[least]) {
				least = down
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}
