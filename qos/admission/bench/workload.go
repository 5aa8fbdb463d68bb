// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// topology is what stands between a task and its answer. The entries have plenty
// of capacity; each leaf has slots workers behind a first-in-first-out queue.
type topology struct {
	entries, leaves, slots int
	services               int           // 1; or 2 in a row, the second with half the slots
	oneWay                 time.Duration // on the wire
	refusal                time.Duration // of a worker, burnt by every call that arrives
	deadline               time.Duration // of a task
	resends                int           // of a refused call
	dist                   string        // of service times: uniform, exp, heavy, mixed
}

// Service times. The uniform one is 5 to 10 ms; heavy makes one call in twenty
// eight times as long; mixed has a cheap method of 1 ms and a dear one of 20 ms,
// which is one call in twenty-one, so that each is half of the work.
const (
	shortest, longest = 5 * time.Millisecond, 10 * time.Millisecond
	heavyOneIn        = 20
	heavyFactor       = 8
	cheapMean         = time.Millisecond
	dearMean          = 20 * time.Millisecond
	dearOneIn         = 21
)

// mean is the mean service time of a call, in seconds.
func (t topology) mean() float64 {
	u := (shortest + longest).Seconds() / 2
	switch t.dist {
	case "heavy":
		return u * (1 + (heavyFactor-1.)/heavyOneIn)
	case "mixed":
		return (cheapMean.Seconds()*(dearOneIn-1) + dearMean.Seconds()) / dearOneIn
	}
	return u
}

// meanOf is the mean service time of a call of method m, in seconds.
func (t topology) meanOf(m int) float64 {
	if t.dist != "mixed" {
		return t.mean()
	}
	return [...]float64{cheapMean.Seconds(), dearMean.Seconds()}[m]
}

// draw gives the service time of one call of method m.
func (t topology) draw(m int, rnd *rand.Rand) time.Duration {
	switch t.dist {
	case "exp":
		return time.Duration(rnd.ExpFloat64() * float64(shortest+longest) / 2)
	case "mixed": // as wide as the uniform one: a third of the mean either way
		mean := time.Duration(t.meanOf(m) * float64(time.Second))
		return mean*2/3 + time.Duration(rnd.Int64N(int64(mean*2/3)+1))
	}
	d := shortest + time.Duration(rnd.Int64N(int64(longest-shortest)+1))
	if t.dist == "heavy" && rnd.IntN(heavyOneIn) == 0 {
		d *= heavyFactor
	}
	return d
}

// slotsOf is how many workers a leaf of service g has.
func (t topology) slotsOf(g int) int {
	if g == 0 {
		return t.slots
	}
	return max(1, t.slots/2)
}

// capacity is how many tasks of x calls (0 is the mix of 1 to 4) can be done a
// second: the narrowest service decides.
func (t topology) capacity(x int) float64 {
	calls := float64(t.leaves) / t.mean()
	if t.services == 2 { // one call to each
		return calls * float64(t.slotsOf(1))
	}
	if x == 0 {
		return calls * float64(t.slots) / 2.5
	}
	return calls * float64(t.slots) / float64(x)
}

// phase is a stretch of time with one load, as a factor of the capacity.
type phase struct {
	seconds float64
	load    float64
}

// cell is one experiment.
type cell struct {
	name   string
	topo   topology
	x      int // calls a task; 0 mixes 1 to 4
	phases []phase
	from   float64 // seconds: tasks born from here ...
	to     float64 // ... to here count
	slow   float64 // factor of every service time in that window; 0 is none
}

func (c cell) length() float64 {
	s := 0.
	for _, p := range c.phases {
		s += p.seconds
	}
	return s
}

// task is one request at an entry.
type task struct {
	priority qos.Priority
	x        int
	method   int
	entry    int
	born     time.Duration
	deadline time.Duration

	calls int // that leaves have done for it
	ok    bool
	ended time.Duration
}

// classes of the offered load: 5, 15, 40 and 40 %.
var classShares = []struct {
	upTo  float64
	class qos.Class
}{{.05, qos.Critical}, {.20, qos.Browse}, {.60, qos.Post}, {1, qos.Interactive}}

// arrivals draws the tasks of a cell: Poisson, open loop. Every policy gets the
// same ones.
func (c cell) arrivals(seed uint64) []task {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var tasks []task
	at, end := 0., 0.
	for _, p := range c.phases {
		end += p.seconds
		rate := p.load * c.topo.capacity(c.x)
		for {
			at += rnd.ExpFloat64() / rate
			if at >= end {
				at = end
				break
			}
			t := task{x: c.x, born: time.Duration(at * float64(time.Second)), entry: rnd.IntN(c.topo.entries)}
			if c.x == 0 {
				t.x = 1 + rnd.IntN(4)
			}
			share := rnd.Float64()
			for _, s := range classShares {
				if share < s.upTo {
					t.priority = qos.PriorityOf(s.class, uint8(rnd.IntN(qos.UserLevels)))
					break
				}
			}
			if c.topo.dist == "mixed" && rnd.IntN(dearOneIn) == 0 {
				t.method = 1
			}
			t.deadline = t.born + c.topo.deadline
			tasks = append(tasks, t)
		}
	}
	return tasks
}
