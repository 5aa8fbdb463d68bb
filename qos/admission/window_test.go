// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// TestWindowsBecomeAlike has two callers of one service, one with many calls inside and one
// with few. Both have more to ask than it can do; both hear the same of the work that waits
// there.
func TestWindowsBecomeAlike(t *testing.T) {
	const (
		holds = 60 // calls that the service works on; what is inside beyond them waits
		head  = 15 // ticks in which the first may grow while the second is held
		ticks = 600
	)
	ctl := [2]*admission.Controller{newController(t, admission.Config{Cores: 1}), newController(t, admission.Config{Cores: 1})}
	now := time.Duration(0)
	var inside [2][]*admission.Call
	enter := func(i int, out []admission.Decision) (entered bool) {
		for _, d := range out {
			if d.Verdict == admission.Run {
				inside[i] = append(inside[i], d.Call)
				entered = true
			}
		}
		return entered
	}
	fill := func(i int) {
		for {
			c := call(qos.Browse, 0)
			c.Deadline = now + time.Second
			entered := enter(i, ctl[i].Arrive(now, c, nil))
			enter(i, ctl[i].Look(now, 0, 0, nil)) // they sleep: the limit is not in the way
			if !entered {
				return
			}
		}
	}
	least, most := 0, 0
	for tick := range ticks {
		now += admission.TickEvery
		backlog := time.Duration(max(0, len(inside[0])+len(inside[1])-holds)) * ms
		for i := range ctl {
			told := backlog
			switch {
			case tick == 0 || tick < head && i == 1:
				told = 100 * ms
			case tick < head:
				told = admission.BacklogTarget
			}
			ctl[i].Behind(told)
			ended := inside[i] // all end, and others come
			inside[i] = nil
			for _, c := range ended {
				enter(i, ctl[i].Done(now, c, nil))
			}
			enter(i, ctl[i].Sweep(now, nil))
			enter(i, ctl[i].Tick(now, 0, nil))
			if ctl[i].State().Window == 0 {
				t.Fatalf("tick %d: caller %d has no window", tick, i)
			}
			fill(i)
		}
		if tick == head && len(inside[0]) < 5*len(inside[1]) {
			t.Fatalf("begins with %d and %d", len(inside[0]), len(inside[1]))
		}
		if tick >= ticks-100 {
			least, most = least+min(len(inside[0]), len(inside[1])), most+max(len(inside[0]), len(inside[1]))
		}
	}
	if most > 2*least || least < 100*holds/5 {
		t.Errorf("in the end %d and %d a tick", least/100, most/100)
	}
}

// TestWindow opens and shuts: it counts calls that sleep, but those with a long time to go,
// and is gone some time after the last word of a backlog.
func TestWindow(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	tick := func(backlog time.Duration) {
		s.now += admission.TickEvery
		s.ctl.Behind(backlog)
		s.ctl.Look(s.now, 0, 0, nil)
		s.tick(0)
	}
	soon := func() *admission.Call {
		c := call(qos.Browse, 0)
		c.Deadline = s.now + time.Second
		return c
	}
	tick(admission.BacklogTarget)
	if w := s.ctl.State().Window; w != 0 {
		t.Fatalf("a window of %d at the backlog that is wanted", w)
	}
	for range 20 {
		tick(100 * ms)
	}
	if w := s.ctl.State().Window; w != 1 {
		t.Fatalf("a window of %d before a service that is ever further behind, want 1", w)
	}
	if b := s.ctl.Backlog(); b < 80*ms || b >= 100*ms {
		t.Errorf("tells callers of %v, want nearly what waits behind", b)
	}
	long := call(qos.Browse, 0)
	long.Deadline = s.now + time.Minute
	if v := s.arrive(long); v != admission.Run {
		t.Fatalf("%v for one with a minute to go", v)
	}
	if v := s.arrive(call(qos.Browse, 0)); v != admission.Run {
		t.Fatalf("%v for one without a deadline", v)
	}
	first, second := soon(), soon()
	if v := s.arrive(first); v != admission.Run {
		t.Fatalf("%v for the first", v)
	}
	s.ctl.Look(s.now, 0, 0, nil)
	if v := s.arrive(second); v != admission.Queue {
		t.Fatalf("%v for the second, while the first sleeps inside", v)
	}
	s.done(long)
	if s.last[second] != admission.Queue {
		t.Fatal("the end of one that does not count let another in")
	}
	s.done(first)
	if s.last[second] != admission.Run {
		t.Fatalf("%v after the first has ended", s.last[second])
	}
	for range 101 {
		tick(0)
	}
	if w := s.ctl.State().Window; w != 0 {
		t.Errorf("a window of %d when nothing has been said for 10 s", w)
	}
}

// TestOverfull: the load has grown at once, and far more calls are inside than the window that
// then opens has room for. Whoever comes now is told within behindWait, not after the time
// that a passing queue may last.
func TestOverfull(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	for range 300 {
		c := call(qos.Browse, 0)
		c.Deadline = s.now + time.Second
		if v := s.arrive(c); v != admission.Run {
			t.Fatalf("%v before there is a window", v)
		}
		s.ctl.Look(s.now, 0, 0, nil) // it sleeps
	}
	s.now += admission.TickEvery
	s.ctl.Behind(200 * ms)
	s.tick(0)
	late := call(qos.Browse, 0)
	late.Deadline = s.now + time.Second
	if v := s.arrive(late); v != admission.Queue {
		t.Fatalf("%v, want it to wait", v)
	}
	s.now += 30 * ms
	s.sweep()
	if v := s.last[late]; v != admission.Expire {
		t.Errorf("%v 30 ms later, want %v", v, admission.Expire)
	}
}

// TestCircleForgets has two services that call each other, of which one was once told of a
// backlog.
func TestCircleForgets(t *testing.T) {
	a, b := newController(t, admission.Config{Cores: 1}), newController(t, admission.Config{Cores: 1})
	a.Behind(255 * ms)
	for now := admission.TickEvery; now < 14*time.Second; now += admission.TickEvery {
		a.Tick(now, 0, nil)
		b.Behind(a.Backlog())
		b.Tick(now, 0, nil)
		a.Behind(b.Backlog())
	}
	if a.State().Window != 0 || b.State().Window != 0 || a.Backlog() != 0 || b.Backlog() != 0 {
		t.Errorf("after 14 s %+v and %+v", a.State(), b.State())
	}
}

// TestBacklog tells what arrivals found waiting, and nothing of what went in at once.
func TestBacklog(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	s.fill()
	if b := s.ctl.Backlog(); b != 0 {
		t.Errorf("%v before anybody waits", b)
	}
	for range 20 {
		s.arrive(call(qos.Post, 1))
	}
	s.now += admission.TickEvery
	s.tick(-1)
	if b := s.ctl.Backlog(); b <= 0 {
		t.Errorf("%v with %d waiting", b, s.ctl.Waiting())
	}
	s.now += admission.TickEvery
	s.tick(-1)
	if b := s.ctl.Backlog(); b != 0 {
		t.Errorf("%v of a tick in which nobody came", b)
	}
}
