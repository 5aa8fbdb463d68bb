// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// Admission holds the items of a process's admission control. It is safe for
// concurrent use; a nil Admission records nothing.
type Admission struct {
	wait       [classRows]*Histogram
	ended      [classRows][2]*Counter
	suppressed [classRows]*Counter
}

// classRows are the classes that items tell apart: the six of package qos, and one
// for those that only a later version, or nobody, knows.
const classRows = int(qos.Background) + 1

// classRow gives the row of a class. Nobody's class is Interactive, as for admission.
func classRow(c qos.Class) int {
	switch {
	case c == qos.Unspecified:
		return int(qos.Interactive) - 1
	case c > qos.Background:
		return classRows - 1
	}
	return int(c) - 1
}

func classLabel(row int) Label {
	if row == classRows-1 {
		return Label{"class", otherValue}
	}
	return Label{"class", qos.Class(row + 1).String()}
}

// waitSeconds are close together below the longest that admission lets a call wait,
// which is 450 ms (and 100 ms under plain overload).
var waitSeconds = []float64{.0005, .001, .0025, .005, .01, .02, .03, .05, .075, .1, .15, .2, .25, .35, .45, 1}

// Admission registers the items of admission control. The function gives its state
// now, for example Controller.State under the owner's lock; it is called once for
// each snapshot.
func (r *Registry) Admission(state func() admission.State) *Admission {
	var now admission.State // written by the reader of a snapshot, of which there is one at a time
	r.BeforeRead(func() { now = state() })
	total := func(v admission.Verdict, row int) func() float64 {
		return func() float64 {
			n := uint64(0)
			for c, k := range now.Counts[v] {
				if classRow(qos.Class(c)) == row {
					n += k
				}
			}
			return float64(n)
		}
	}
	gauge := func(name, help string, u Unit, value func() float64) {
		r.GaugeFunc(Desc{"sluice.admission." + name, help, u}, value)
	}
	a := &Admission{}
	for row := range classRows {
		class := classLabel(row)
		r.CounterFunc(Desc{"sluice.admission.admitted", "Calls let in, at once or after waiting.", "{call}"}, total(admission.Run, row), class)
		r.CounterFunc(Desc{"sluice.admission.queued", "Calls that had to wait; each is counted again when it is let in or rejected.", "{call}"}, total(admission.Queue, row), class)
		for v := admission.Refuse; v < admission.Verdicts; v++ {
			r.CounterFunc(Desc{"sluice.admission.rejected", "Calls not let in: refuse, the queue was full of better ones; evict, better ones came; late, it could not end in time; expire, it waited too long.", "{call}"},
				total(v, row), class, Label{"reason", v.String()})
		}
		a.wait[row] = r.Histogram(Desc{"sluice.admission.queue_wait", "Time in the queue of the calls that had to wait and were then let in.", Seconds}, waitSeconds, class)
		for i, inTime := range []string{"false", "true"} {
			a.ended[row][i] = r.Counter(Desc{"sluice.admission.ended", "Calls let in that have ended, by whether before their deadline: the others were served in vain.", "{call}"},
				class, Label{"in_time", inTime})
		}
		a.suppressed[row] = r.Counter(Desc{"sluice.admission.suppressed", "Calls that callers say they have held back because of our level.", "{call}"}, class)
	}
	gauge("running", "Calls inside handlers.", "{call}", func() float64 { return float64(now.Running) })
	gauge("limit", "How many calls may be inside handlers, as found from the delay.", "{call}", func() float64 { return float64(now.Limit) })
	gauge("window", "How many calls may be inside, asleep or not, while services that they go on to are behind; 0 is any number.", "{call}", func() float64 { return float64(now.Window) })
	gauge("backlog", "How long the work takes that waits here or at services that calls go on to, as callers are told.", Seconds, func() float64 { return now.Backlog.Seconds() })
	gauge("waiting", "Calls in the queue.", "{call}", func() float64 { return float64(now.Waiting) })
	gauge("level", "Worst priority with a chance: class times 128 plus user level; 2047 lets everyone in.", "{priority}", func() float64 { return float64(now.Level) })
	gauge("level.class", "Class of the worst priority with a chance: 1 critical, 2 browse, 3 post, 4 interactive, 5 extra, 6 background, 15 everyone.", "{class}",
		func() float64 { return float64(now.Level.Class()) })
	gauge("level.user", "User level of the worst priority with a chance, 0 to 127.", "{level}", func() float64 { return float64(now.Level.UserLevel()) })
	gauge("capacity", "Work done in a second when busy, in calls of mean cost.", "{call}", func() float64 { return now.Capacity })
	gauge("demand", "Work offered in a second, suppressed calls included, in calls of mean cost.", "{call}", func() float64 { return now.Demand })
	gauge("delay", "Mean delay of calls after they were let in, at the last tick.", Seconds, func() float64 { return now.Delay.Seconds() })
	r.CounterFunc(Desc{"sluice.admission.withdrawn", "Calls that left the queue because their caller gave up.", "{call}"}, func() float64 { return float64(now.Withdrew) })
	return a
}

// Waited records the time in the queue of a call that had to wait and is let in.
func (a *Admission) Waited(c qos.Class, d time.Duration) {
	if a != nil {
		a.wait[classRow(c)].RecordTime(d)
	}
}

// Ended counts the end of a call that was let in.
func (a *Admission) Ended(c qos.Class, inTime bool) {
	if a == nil {
		return
	}
	i := 0
	if inTime {
		i = 1
	}
	a.ended[classRow(c)][i].Inc()
}

// Suppressed counts calls that a caller reports to have held back.
func (a *Admission) Suppressed(c qos.Class, n uint16) {
	if a != nil {
		a.suppressed[classRow(c)].Add(uint64(n))
	}
}
