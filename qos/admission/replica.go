// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

const (
	// levelLasts is how long a level is believed. A caller whose calls are all worse
	// than the level asks nobody and would never hear of a better one.
	levelLasts = time.Second
	// levelGap is how far apart two levels must be to decide between replicas: a
	// replica that sheds answers fast, so calls in flight alone would send it more. With
	// 32 one leaf of three stood 25 levels apart for good and let the second class
	// expire (top-20 % success .964 on one seed, now .980); with 6 levels chase each
	// other (p99 269 ms at twice the load).
	levelGap = 16
)

// Draw gives a number from 0 to n-1, each with the same chance, such as the method
// IntN of a math/rand/v2 Rand.
type Draw func(n int) int

// Replica is what a caller knows of one instance of a service. The zero value
// knows nothing and admits everyone. It is not safe for concurrent use; the time
// is that of the caller's own clock, from any origin.
type Replica struct {
	level    qos.Priority
	heard    time.Duration
	known    bool
	inFlight int
	held     Report
}

// Report tells a server how many calls one of its callers has held back since it
// last sent one, and of which kind one of them, drawn evenly, was.
type Report struct {
	Count    uint16
	Priority qos.Priority
	Method   Method
}

// Level is the worst priority that the replica admits, as far as the caller knows.
func (r *Replica) Level(now time.Duration) qos.Priority {
	if !r.known || now-r.heard > levelLasts || now < r.heard {
		return qos.LastPriority
	}
	return r.level
}

// Admits says whether it is worth sending a call. One with a ticket always is.
func (r *Replica) Admits(now time.Duration, p qos.Priority, t qos.Ticket) bool {
	return !t.Fresh() || p <= r.Level(now)
}

// Sent counts a call to the replica and gives the report to send with it.
func (r *Replica) Sent() Report {
	r.inFlight++
	rep := r.held
	r.held = Report{}
	return rep
}

// Returned counts an answer, or the end of waiting for one.
func (r *Replica) Returned() { r.inFlight = max(0, r.inFlight-1) }

// Heard takes the level that came with an answer, refusals and errors included. A
// level beyond the scale counts as its end.
func (r *Replica) Heard(now time.Duration, level qos.Priority) {
	r.level, r.heard, r.known = min(level, qos.LastPriority), now, true
}

// Hold counts a call that was not sent.
func (r *Replica) Hold(p qos.Priority, m Method, draw Draw) {
	if r.held.Count == ^uint16(0) {
		return
	}
	r.held.Count++
	if draw(int(r.held.Count)) == 0 { // keeps each of them with the same chance
		r.held.Priority, r.held.Method = p, m
	}
}

// Pick chooses among the replicas of a service: two at random, the one with the
// better level or else with fewer of our calls in flight; if its level refuses the
// call, any that does not. It gives the replica, and whether to send; if not, hold
// the call there. There is at least one replica.
func Pick(now time.Duration, replicas []*Replica, p qos.Priority, t qos.Ticket, draw Draw) (int, bool) {
	i := draw(len(replicas))
	j := (i + 1 + draw(max(1, len(replicas)-1))) % len(replicas) // another one, if there is one
	a, b := replicas[i], replicas[j]
	if gap := int(min(p, b.Level(now))) - int(min(p, a.Level(now))); gap > levelGap || gap >= -levelGap && b.inFlight < a.inFlight {
		i = j
	}
	for k := range replicas {
		if n := (i + k) % len(replicas); replicas[n].Admits(now, p, t) {
			return n, true
		}
	}
	return i, false
}

// Gate tests a fresh task against a service that it will call later, before its
// first call: at one replica drawn at random, since of many some one always admits.
// It gives the replica, and whether the task may begin; if not, hold the call there.
func Gate(now time.Duration, replicas []*Replica, p qos.Priority, draw Draw) (int, bool) {
	i := draw(len(replicas))
	return i, replicas[i].Admits(now, p, 0)
}
