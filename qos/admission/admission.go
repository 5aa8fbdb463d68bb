// SPDX-License-Identifier: Apache-2.0

// Package admission decides, before work starts, which requests an overloaded
// server lets in.
//
// A [Controller] is one step function for one process: arrivals, ends, ticks and
// the time go in, decisions come out. It has no clock, no goroutine and no lock,
// so that the same events give the same decisions, bit for bit, in a server, a
// test or a simulator. Whoever owns it holds a mutex around each call and carries
// the decisions out after letting go of it.
//
// The law, in four parts:
//
//   - As many calls run as the machine can take. The limit is found from the delay
//     a call sees after it was let in: waiting in front of the limit is ours and is
//     sorted, waiting behind it (Go's run queue) is not.
//   - The others wait in a queue that is bounded in time, ordered by priority. When
//     it is full the worst waiter goes, and so does whoever cannot end in time.
//     Calls of tasks for which leaves have already worked go first ([qos.Ticket]).
//   - From the work offered at each priority and the work done, the server finds
//     the level: the worst priority that still has a chance. It rides on every
//     reply; the caller refuses worse calls at once, for free ([Replica]), and
//     reports what it held back, since a demand that nobody reports looks gone.
//   - Work is counted in calls weighed by what their method costs, as learnt.
//
// Priorities and levels are DAGOR's idea (Zhou et al., "Overload Control for
// Scaling WeChat Microservices", SoCC 2018); the control loop is another one: see
// docs/adr/0010-admission.md for what was measured and why.
package admission

import (
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// Method numbers the methods of a process from 0, see Config.Methods.
type Method int32

// Call is one request on its way through a Controller. It is meant to stand inside
// the caller's own object of the request: the queue links calls through it and
// allocates nothing. The exported fields are set before Arrive and not changed
// until the call has left: after Done, after Withdraw, or with a decision that
// refuses it. After that it may be used anew.
type Call struct {
	Priority qos.Priority
	Ticket   qos.Ticket
	Method   Method
	Deadline time.Duration // on the clock of the events; 0 is none
	Frame    any           // whatever the owner wants to find again; a pointer costs no allocation

	state        state
	key          uint16        // bucket of the queue
	arrived      time.Duration // at Arrive
	started      time.Duration // at the decision Run
	shared       float64       // of the controller, at the decision Run
	patience     float64       // 1, or more for a call with a long time to go
	cost         float64       // as weighed at Arrive: its share of every sum
	next, prev   *Call         // in its bucket
	newer, older *Call         // among those with or without a ticket, by arrival
}

// brief says that the call's time to go is what people wait, see Controller.Behind.
func (c *Call) brief() bool { return c.Deadline != 0 && c.patience == 1 }

// Arrived is when the call came to its controller.
func (c *Call) Arrived() time.Duration { return c.arrived }

type state uint8

const (
	outside state = iota
	waiting
	running
)

// Verdict is what becomes of a call.
type Verdict uint8

// The verdicts. A call gets Run or Queue or one of the refusals on arrival; one
// that was queued gets Run or a refusal later.
const (
	Run    Verdict = iota // start it now; Done must follow
	Queue                 // keep its frame: a later decision names it
	Refuse                // the queue is full of better ones
	Evict                 // it waited, and better ones have come
	Late                  // it cannot end before its deadline
	Expire                // it waited so long that the level must be wrong for it
	Verdicts
)

var verdictNames = [Verdicts]string{"run", "queue", "refuse", "evict", "late", "expire"}

// String gives the verdict as metrics show it.
func (v Verdict) String() string {
	if v < Verdicts {
		return verdictNames[v]
	}
	return "unknown"
}

// Refused says that the call will not run.
func (v Verdict) Refused() bool { return v >= Refuse }

// Decision is what to do with one call, now.
type Decision struct {
	Call    *Call
	Verdict Verdict
}

// Counts are the calls of each verdict by class, since the start. A queued call
// counts under Queue and again under its end.
type Counts [Verdicts][int(qos.MaxClass) + 1]uint64

// Total sums the calls of a verdict over the classes.
func (c *Counts) Total(v Verdict) uint64 {
	n := uint64(0)
	for _, k := range c[v] {
		n += k
	}
	return n
}

// State is a Controller as seen at one instant, for pages and metrics.
type State struct {
	Running  int           // calls inside handlers
	Asleep   int           // of these, as last seen: waiting for something other than a core
	Limit    int           // how many may be that do not sleep
	Window   int           // how many may be, asleep or not, see Controller.Behind; 0 is any number
	Waiting  int           // calls in the queue
	Level    qos.Priority  // the worst priority with a chance
	Capacity float64       // work done per second when busy, in calls of mean cost
	Demand   float64       // work offered per second, in the same unit
	Delay    time.Duration // mean delay after admission, as last told to Tick
	Backlog  time.Duration // what callers are told of the work that waits, see Controller.Backlog
	Counts   Counts
	Withdrew uint64 // calls that left the queue of themselves
	// Suppressed are the calls that callers have held back and reported.
	Suppressed uint64
}
