// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// sim is a queue of events in virtual time. Events of one instant run in the order
// in which they were planned, so that a run is the same for the same seed.
type sim struct {
	now  time.Duration
	heap []event
	seq  uint64

	// For peers that live on a clock and in goroutines of their own; nil else.
	advance func(to time.Duration) // brings their clock to the time of the next event
	settle  func()                 // lets them answer what the event has asked
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (e event) before(f event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

// after plans do for d from now.
func (s *sim) after(d time.Duration, do func()) {
	s.seq++
	h := append(s.heap, event{s.now + d, s.seq, do})
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	s.heap = h
}

// every plans do for each d from now on.
func (s *sim) every(d time.Duration, do func()) {
	s.after(d, func() {
		do()
		s.every(d, do)
	})
}

// run lets the time pass until end.
func (s *sim) run(end time.Duration) {
	for len(s.heap) > 0 && s.heap[0].at <= end {
		e := s.pop()
		if s.advance != nil {
			s.advance(e.at)
		}
		s.now = e.at
		e.do()
		if s.settle != nil {
			s.settle()
		}
	}
	s.now = end
}

func (s *sim) pop() event {
	h := s.heap
	top := h[0]
	n := len(h) - 1
	h[0] = h[n]
	h[n] = event{}
	h = h[:n]
	for i := 0; ; {
		best := i
		for k := 4*i + 1; k <= 4*i+4 && k < n; k++ {
			if h[k].before(h[best]) {
				best = k
			}
		}
		if best == i {
			break
		}
		h[i], h[best] = h[best], h[i]
		i = best
	}
	s.heap = h
	return top
}
