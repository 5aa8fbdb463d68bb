// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/bits"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// outcome is what became of a task.
type outcome int

const (
	served  outcome = iota
	refused         // by admission, in whatever tier, or by the caller that knows the level
	late            // its deadline passed
	broken          // anything else
	outcomes
)

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return served
	case rpc.ReasonOf(err) == rpc.ReasonOverload:
		return refused
	case rpc.ReasonOf(err) == rpc.ReasonDeadline:
		return late
	}
	return broken
}

// tally counts the tasks of one kind.
type tally struct {
	offered int
	ended   [outcomes]int
}

// share is the part of the ended tasks that ended so, from 0 to 1.
func (t *tally) share(o outcome) float64 {
	sum := 0
	for _, n := range t.ended {
		sum += n
	}
	return float64(t.ended[o]) / float64(max(1, sum))
}

// figures are what has been seen in a while.
type figures struct {
	kinds   [len(kinds)]tally
	served  latencies
	refused latencies
	err     error // the last that is none of the expected
}

func (f *figures) all() (t tally) {
	for _, k := range f.kinds {
		t.add(&k)
	}
	return t
}

func (t *tally) add(more *tally) {
	t.offered += more.offered
	for o, n := range more.ended {
		t.ended[o] += n
	}
}

func (f *figures) add(more *figures) {
	for i := range f.kinds {
		f.kinds[i].add(&more.kinds[i])
	}
	f.served.add(&more.served)
	f.refused.add(&more.refused)
	if more.err != nil {
		f.err = more.err
	}
}

// meter collects figures. It is safe for concurrent use.
type meter struct {
	mu  sync.Mutex
	now figures // guarded by mu
}

func (m *meter) offer(kind int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.kinds[kind].offered++
}

func (m *meter) end(kind int, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := outcomeOf(err)
	m.now.kinds[kind].ended[o]++
	switch o {
	case served:
		m.now.served.observe(took)
	case refused:
		m.now.refused.observe(took)
	case broken:
		m.now.err = err
	default: // nobody asks how long that took: the deadline
	}
}

// take gives the figures since the last time.
func (m *meter) take() *figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.now
	m.now = figures{}
	return &f
}

// latencies is a histogram of buckets an eighth of an octave wide, the first 16 one
// microsecond each: a quantile is at most 12.5 % too large.
type latencies [200]uint32

func (l *latencies) observe(d time.Duration) {
	us := uint64(max(0, d.Microseconds()))
	i := us
	if us >= 16 {
		e := bits.Len64(us) - 4
		i = uint64(e)*8 + us>>e
	}
	l[min(i, uint64(len(l)-1))]++
}

func (l *latencies) add(more *latencies) {
	for i, n := range more {
		l[i] += n
	}
}

// quantile gives the upper end of the bucket in which the q-th part of what was
// observed ends; false if nothing was.
func (l *latencies) quantile(q float64) (time.Duration, bool) {
	sum := uint64(0)
	for _, n := range l {
		sum += uint64(n)
	}
	if sum == 0 {
		return 0, false
	}
	rank, seen := max(1, uint64(q*float64(sum)+.5)), uint64(0)
	for i, n := range l {
		if seen += uint64(n); seen >= rank {
			return upperEnd(i), true
		}
	}
	return upperEnd(len(l) - 1), true
}

func upperEnd(bucket int) time.Duration {
	us := bucket + 1
	if bucket >= 16 {
		e := bucket/8 - 1
		us = (bucket%8 + 8 + 1) << e
	}
	return time.Duration(us) * time.Microsecond
}
