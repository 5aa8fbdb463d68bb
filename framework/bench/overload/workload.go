// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// A mix says what calls cost. The server spins, so that a cost is that of a core.
type mix string

const (
	uniform mix = "uniform" // 2 to 5 ms
	costs   mix = "costs"   // 1 ms, and one call in 21 20 ms: each half of the work
	sleepy  mix = "sleepy"  // 1 ms, and every other call sleeps for 20 ms instead
)

// Of a mix whose calls differ: how many of them are of the second method.
const (
	dearOneIn = 21
	waitOneIn = 2
	cheapCall = time.Millisecond
	dearCall  = 20 * time.Millisecond
	sleepCall = 20 * time.Millisecond
	shortest  = 2 * time.Millisecond
	longest   = 5 * time.Millisecond
	deadline  = 500 * time.Millisecond // of a task
	maxCalls  = 4                      // of a task
)

// weight is what a call of a method costs in calls of mean cost.
func (m mix) weight(method int) float64 {
	if m != costs {
		return 1
	}
	mean := (cheapCall*(dearOneIn-1) + dearCall).Seconds() / dearOneIn
	return [...]time.Duration{cheapCall, dearCall}[method].Seconds() / mean
}

// draw gives what a call spins and sleeps, from u in [0, 1).
func (m mix) draw(method int, u float64) (spin, sleep time.Duration) {
	switch {
	case m == uniform:
		return shortest + time.Duration(u*float64(longest-shortest)), 0
	case m == sleepy && method == 1:
		return 0, sleepCall
	case m == sleepy:
		return cheapCall, 0
	}
	mean := [...]time.Duration{cheapCall, dearCall}[method]
	return mean*2/3 + time.Duration(u*float64(mean*2/3)), 0 // as wide as the uniform one
}

// A phase is a stretch of time with one load, as a factor of the capacity.
type phase struct {
	Seconds, Load float64
}

// A cell is one experiment. It is drawn anew from its seed by whoever needs it: the
// generator, and the one who reads the result.
type cell struct {
	Name     string
	Mix      mix
	X        int  // calls a task; 0 mixes 1 to 4
	InRow    bool // two calls to two services in a row, of which the first can do twice as much
	Resends  int  // of a refused call
	Phases   []phase
	From, To float64 // seconds: the tasks born between count
	Slow     float64 // factor of all work in that window; 0 is none
	Capacity float64 // calls/s, of which the loads are factors
	Seed     uint64
}

// tasksAt is how many tasks a second a capacity of calls/s allows.
func (c cell) tasksAt(capacity float64) float64 {
	switch {
	case c.InRow:
		return capacity // the second service decides
	case c.X == 0:
		return capacity / ((1 + maxCalls) / 2.)
	}
	return capacity / float64(c.X)
}

func (c cell) length() float64 {
	s := 0.
	for _, p := range c.Phases {
		s += p.Seconds
	}
	return s
}

// A task is one request at the entry: some calls, one after the other.
type task struct {
	born     time.Duration
	class    qos.Class
	user     uint8
	x        int
	method   int
	services [maxCalls]uint8
	spin     [maxCalls]time.Duration
	sleep    [maxCalls]time.Duration
}

// counts says whether a task is one of those that the figures are of.
func (c cell) counts(t *task) bool {
	b := t.born.Seconds()
	return b >= c.From && b < c.To
}

var classShares = []struct {
	upTo  float64
	class qos.Class
}{{.05, qos.Critical}, {.20, qos.Browse}, {.60, qos.Post}, {1, qos.Interactive}}

// rank gives class and user for u in [0, 1): 5, 15, 40 and 40 % of four classes, all
// users alike.
func rank(u float64) (qos.Class, uint8) {
	from := 0.
	for _, s := range classShares {
		if u < s.upTo {
			return s.class, uint8((u - from) / (s.upTo - from) * qos.UserLevels)
		}
		from = s.upTo
	}
	return qos.Interactive, qos.UserLevels - 1
}

// An even sequence covers [0, 1) evenly from its first few values on: a cell of
// seconds then has the users and the costs of one of hours, and only arrivals are
// left to chance.
type even struct{ at, step float64 }

func (e *even) next() float64 {
	_, e.at = math.Modf(e.at + e.step)
	return e.at
}

// tasks draws the tasks of a cell: Poisson, open loop.
func (c cell) tasks() []task {
	rnd := rand.New(rand.NewPCG(c.Seed, 1))
	// One sequence of users for each kind of task, so that kinds can be compared.
	var users [maxCalls + 1][2]even
	for i := range users {
		for j := range users[i] {
			users[i][j] = even{rnd.Float64(), math.Phi - 1}
		}
	}
	work := even{rnd.Float64(), math.Sqrt2 - 1}
	var ts []task
	at, end := 0., 0.
	for _, p := range c.Phases {
		end += p.Seconds
		rate := p.Load * c.tasksAt(c.Capacity)
		for {
			at += rnd.ExpFloat64() / rate
			if at >= end {
				at = end
				break
			}
			t := task{born: time.Duration(at * float64(time.Second)), x: c.X}
			switch {
			case c.InRow:
				t.x, t.services[1] = 2, 1
			case c.X == 0:
				t.x = 1 + rnd.IntN(maxCalls)
			}
			if c.Mix == costs && rnd.IntN(dearOneIn) == 0 || c.Mix == sleepy && rnd.IntN(waitOneIn) == 0 {
				t.method = 1
			}
			t.class, t.user = rank(users[t.x][t.method].next())
			for i := range t.x {
				t.spin[i], t.sleep[i] = c.Mix.draw(t.method, work.next())
				if c.InRow && i == 0 {
					t.spin[i] /= 2
				}
				if c.Slow > 0 && at >= c.From && at < c.To {
					t.spin[i] = time.Duration(float64(t.spin[i]) * c.Slow)
				}
			}
			ts = append(ts, t)
		}
	}
	return ts
}
