// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// Twice the load for a day, in one class: who is served is drawn anew each hour, so
// that over the day everyone is.
func TestNobodyStarvesOverADay(t *testing.T) {
	const users, hours = 300, 24
	var key qos.Key
	copy(key[:], "a day of overload")
	p := newPlant(t, 2, 2, 8*ms)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	user := map[*admission.Call]int{}
	var asked, served [users]int
	for hour := range hours {
		p.run(4*time.Second, 500, func() *admission.Call {
			u := p.rnd.IntN(users)
			level := key.UserLevel(fmt.Sprint("user-", u), begin.Add(time.Duration(hour)*time.Hour))
			c := &admission.Call{Priority: qos.PriorityOf(qos.Browse, level), Deadline: p.now + 500*ms}
			user[c] = u
			asked[u]++
			return c
		})
		p.now += time.Hour - 4*time.Second // the load stands still; the clock does not
	}
	for _, c := range p.runs {
		served[user[c]]++
	}
	least, all := 1., 0.
	for u := range users {
		share := float64(served[u]) / float64(asked[u])
		least, all = min(least, share), all+share/users
	}
	if all < .45 || all > .6 {
		t.Errorf("%.2f of all calls are served, half can be", all)
	}
	if least < .1 {
		t.Errorf("a user got %.2f of the calls over %d hours", least, hours)
	}
}

func TestHostileClock(t *testing.T) {
	for _, jump := range []time.Duration{-5 * time.Hour, 5 * time.Hour, math.MaxInt64 / 4} {
		t.Run(jump.String(), func(t *testing.T) {
			p := newPlant(t, 2, 2, 8*ms)
			p.now = 10 * time.Hour
			p.run(5*time.Second, 1000, p.anyone)
			before := p.now
			p.now += jump
			p.sweep()
			p.tick(0)
			p.arrive(p.anyone())
			if jump < 0 {
				p.now = before // an owner's clock that was set back goes on at some time
			}
			p.run(5*time.Second, 200, p.anyone)
			ended := p.ended
			p.run(time.Second, 200, p.anyone)
			if n := p.ended - ended; n < 190 {
				t.Errorf("%d of 200 calls a second done, 6 s after the jump", n)
			}
		})
	}
	t.Run("a caller's clock", func(t *testing.T) {
		post := qos.PriorityOf(qos.Post, 0)
		var r admission.Replica
		r.Heard(10*time.Hour, 0)
		for _, now := range []time.Duration{0, 9 * time.Hour, 11 * time.Hour, math.MaxInt64, math.MinInt64} {
			if !r.Admits(now, post, 0) {
				t.Errorf("a level of another time is believed at %v", now)
			}
		}
	})
}

func TestHostileBudgets(t *testing.T) {
	for _, tc := range []struct {
		name     string
		deadline time.Duration
		want     admission.Verdict
	}{
		{"none", 0, admission.Run},
		{"negative", -time.Second, admission.Late},
		{"the least", math.MinInt64, admission.Late},
		{"now", time.Hour, admission.Late},
		{"too short for the method", time.Hour + ms, admission.Late},
		{"the most", math.MaxInt64, admission.Run},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t, admission.Config{Cores: 1, Methods: 1})
			c := call(qos.Post, 0)
			s.arrive(c)
			s.now = 10 * ms
			s.done(c)
			s.now = time.Hour
			c.Deadline = tc.deadline
			if v := s.arrive(c); v != tc.want {
				t.Errorf("%v, want %v", v, tc.want)
			}
		})
	}
}

// A peer that tells no level, or tells it no more, is asked as any other.
func TestPeerWithoutLevels(t *testing.T) {
	silent, known := new(admission.Replica), new(admission.Replica)
	known.Heard(0, qos.PriorityOf(qos.Post, 0))
	r, asked := rnd(), [2]int{}
	for range 1000 {
		i, ok := admission.Pick(ms, []*admission.Replica{silent, known}, qos.PriorityOf(qos.Critical, 0), 0, r)
		if !ok {
			t.Fatal("held back for want of a level")
		}
		asked[i]++
	}
	if asked[0] < 400 || asked[1] < 400 {
		t.Errorf("%v of 1,000 calls, either admits them", asked)
	}
	for range 1 << 17 { // and never answers at all: it only counts as busy
		silent.Sent()
	}
	if i, _ := admission.Pick(ms, []*admission.Replica{silent, known}, qos.PriorityOf(qos.Critical, 0), 0, r); i != 1 {
		t.Error("a peer with 131,072 calls unanswered is asked")
	}
}

// A peer that has started anew tells its level from nothing: it counts at once, and
// what the last one told does not.
func TestRestartedPeer(t *testing.T) {
	p := newPlant(t, 1, 1, 8*ms)
	p.run(5*time.Second, 1000, p.anyone)
	last := qos.PriorityOf(qos.Interactive, 127)
	var r admission.Replica
	r.Heard(0, p.ctl.Level())
	if r.Admits(ms, last, 0) {
		t.Fatal("level open under eight times the load: this test shows nothing")
	}
	r.Heard(ms, newController(t, admission.Config{Cores: 1}).Level())
	if !r.Admits(2*ms, last, 0) {
		t.Error("the level of before the start is kept")
	}
}

// Callers who know no levels cost refusals, and the best calls nothing.
func TestCallersWithoutLevels(t *testing.T) {
	p := newPlant(t, 2, 2, 8*ms)
	p.run(2*time.Second, 1000, p.anyone)
	var best []*admission.Call
	p.run(5*time.Second, 1000, func() *admission.Call {
		c := p.anyone()
		if p.rnd.IntN(10) == 0 {
			c.Priority = qos.PriorityOf(qos.Critical, 0)
			best = append(best, c)
		}
		return c
	})
	p.run(time.Second, 0, p.anyone)
	for _, c := range best {
		if v := p.last[c]; v != admission.Run {
			t.Errorf("a call of the best class: %v", v)
		}
	}
}

// Five thousand callers report all they can, some of it nonsense: the level closes as
// for any demand, and opens when they are gone.
func TestThousandsOfCallers(t *testing.T) {
	p := newPlant(t, 2, 2, 8*ms)
	p.run(5*time.Second, 1000, p.anyone)
	for range 20 {
		p.run(admission.TickEvery, 200, p.anyone)
		for i := range 5000 {
			p.ctl.Suppressed(math.MaxUint16, qos.Priority(i*13), admission.Method(i-100))
		}
	}
	st := p.ctl.State()
	if math.IsInf(st.Demand, 0) || math.IsNaN(st.Demand) || st.Level == qos.LastPriority {
		t.Errorf("%+v", st)
	}
	ended := p.ended
	p.run(admission.TickEvery, 200, p.anyone) // in which the last reports count
	p.run(3*time.Second-admission.TickEvery, 200, p.anyone)
	if n := p.ended - ended; n < 580 {
		t.Errorf("%d of 600 calls done: reports refuse nobody here", n)
	}
	if l := p.ctl.Level(); l != qos.LastPriority {
		t.Errorf("level %v 3 s after they have gone", l)
	}
}
