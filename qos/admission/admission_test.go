// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

const ms = time.Millisecond

func newController(t testing.TB, cfg admission.Config) *admission.Controller {
	t.Helper()
	c, err := admission.New(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// server drives a Controller with a clock of its own and remembers what became of
// every call.
type server struct {
	t    testing.TB
	ctl  *admission.Controller
	now  time.Duration
	out  []admission.Decision
	last map[*admission.Call]admission.Verdict
	runs []*admission.Call // in the order in which they were let in
}

func newServer(t testing.TB, cfg admission.Config) *server {
	return &server{t: t, ctl: newController(t, cfg), last: map[*admission.Call]admission.Verdict{}}
}

func (s *server) take(out []admission.Decision) []admission.Decision {
	for _, d := range out {
		s.last[d.Call] = d.Verdict
		if d.Verdict == admission.Run {
			s.runs = append(s.runs, d.Call)
		}
	}
	s.out = out[:0]
	return out
}

func (s *server) arrive(c *admission.Call) admission.Verdict {
	s.take(s.ctl.Arrive(s.now, c, s.out))
	return s.last[c]
}

func (s *server) done(c *admission.Call) { s.take(s.ctl.Done(s.now, c, s.out)) }
func (s *server) sweep()                 { s.take(s.ctl.Sweep(s.now, s.out)) }
func (s *server) tick(delay time.Duration) {
	s.take(s.ctl.Tick(s.now, delay, s.out))
}

// fill lets calls of the best priority in until the limit is reached.
func (s *server) fill() []*admission.Call {
	var running []*admission.Call
	for s.ctl.State().Running < s.ctl.State().Limit {
		c := &admission.Call{Priority: qos.PriorityOf(qos.Critical, 0)}
		if v := s.arrive(c); v != admission.Run {
			s.t.Fatalf("%v with a slot free", v)
		}
		running = append(running, c)
	}
	return running
}

// narrow brings the limit down to the cores.
func (s *server) narrow() {
	for range 40 {
		s.now += admission.TickEvery
		s.tick(20 * ms)
	}
}

func call(class qos.Class, level uint8) *admission.Call {
	return &admission.Call{Priority: qos.PriorityOf(class, level)}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, cfg := range []admission.Config{{}, {Cores: -1}, {Cores: 1, Methods: -1}, {Cores: 1, MaxWaiting: -1}} {
		if _, err := admission.New(cfg, 0); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestOrder(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	first := s.fill()[0]
	extra, post, second := call(qos.Extra, 0), call(qos.Post, 3), call(qos.Post, 3)
	going := call(qos.Background, 127)
	going.Ticket = 1
	for _, c := range []*admission.Call{extra, post, second, going} {
		if v := s.arrive(c); v != admission.Queue {
			t.Fatalf("%v: %v", c.Priority, v)
		}
	}
	s.done(first)
	for _, c := range []*admission.Call{going, post, second} {
		s.done(c)
	}
	if want := []*admission.Call{first, going, post, second, extra}; !slices.Equal(s.runs, want) {
		t.Errorf("order: %v", s.runs)
	}
}

func TestFullQueueEvictsTheWorst(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	s.fill()
	waiting := []*admission.Call{call(qos.Post, 100)}
	s.arrive(waiting[0])
	for range 2 { // ten calls a second is all it can do
		s.now += admission.TickEvery
		s.tick(-1)
	}
	for l := range uint8(3) { // with the first one the shortest bound
		c := call(qos.Post, 10+l)
		waiting = append(waiting, c)
		s.arrive(c)
	}
	if v := s.arrive(call(qos.Post, 120)); v != admission.Refuse {
		t.Errorf("the worst at a full queue: %v", v)
	}
	if v := s.arrive(call(qos.Post, 1)); v != admission.Queue || s.last[waiting[0]] != admission.Evict {
		t.Errorf("a better one: %v, the worst that waited: %v", v, s.last[waiting[0]])
	}
}

func TestSleepersHoldNoSlot(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 2})
	s.narrow()
	const blocked = 300_000
	calls := make([]admission.Call, blocked)
	for i := range calls {
		if i%15 == 0 { // of calls that come at 300,000 a second
			s.now += 50 * time.Microsecond
			s.take(s.ctl.Look(s.now, 1, 3, s.out)) // what a call does before it blocks takes no time here
		}
		if v := s.arrive(&calls[i]); v.Refused() {
			t.Fatalf("call %d: %v", i, v)
		}
	}
	for s.ctl.Waiting() > 0 {
		s.take(s.ctl.Look(s.now, 1, 3, s.out))
	}
	if n := s.ctl.Running(); n != blocked {
		t.Errorf("%d of %d blocked calls are let in", n, blocked)
	}
	s.now += admission.TickEvery
	s.tick(0)
	if l := s.ctl.Level(); l != qos.LastPriority {
		t.Errorf("level %v: calls that take their time are no overload", l)
	}
}

func TestLook(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 2})
	s.narrow()
	inside := s.fill()
	look := func(active int) { s.take(s.ctl.Look(s.now, active, 3, s.out)) }
	for _, active := range []int{3, 300} { // nobody sleeps
		look(active)
		if v := s.arrive(call(qos.Post, 1)); v != admission.Queue {
			t.Errorf("%d active, both slots taken: %v", active, v)
		}
	}
	limit := s.ctl.State().Limit
	look(-5) // more sleep than there are
	if st := s.ctl.State(); st.Running != len(inside)+2 || st.Asleep > st.Running {
		t.Errorf("all sleep: %+v", st)
	}
	if got := s.ctl.State().Limit; got != limit*3/2 {
		t.Errorf("a processor idles while calls wait: limit %d, it was %d", got, limit)
	}
	look(0)
	if got := s.ctl.State().Limit; got != limit*3/2 {
		t.Errorf("nobody waits: limit %d", got)
	}
}

func TestAddMethods(t *testing.T) {
	ctl := newController(t, admission.Config{Cores: 1, Methods: 2})
	if a, b := ctl.Add(3), ctl.Add(1); a != 2 || b != 5 {
		t.Errorf("methods begin at %d and %d", a, b)
	}
}

func TestBadInput(t *testing.T) {
	t.Run("deadline has passed", func(t *testing.T) {
		s := newServer(t, admission.Config{Cores: 1})
		for _, d := range []time.Duration{-1, math.MinInt64 / 2, 1} {
			s.now = ms
			c := call(qos.Post, 0)
			c.Deadline = d
			if v := s.arrive(c); v != admission.Late {
				t.Errorf("deadline %v: %v", d, v)
			}
		}
	})
	t.Run("clock runs backwards", func(t *testing.T) {
		s := newServer(t, admission.Config{Cores: 1})
		s.now = time.Hour
		s.tick(0)
		before := s.ctl.State()
		c := call(qos.Post, 0)
		s.now = time.Minute
		s.tick(time.Second) // ignored: no time has passed
		s.arrive(c)
		s.done(c)
		if after := s.ctl.State(); after.Limit != before.Limit || after.Running != 0 {
			t.Errorf("%+v", after)
		}
	})
	t.Run("clock leaps ahead", func(t *testing.T) {
		s := newServer(t, admission.Config{Cores: 1})
		s.narrow()
		first := s.fill()[0]
		c := call(qos.Post, 0)
		s.arrive(c)
		s.now += 1000 * time.Hour
		s.tick(0)
		s.done(first)
		s.now += ms
		if v := s.arrive(call(qos.Post, 1)); v != admission.Run {
			t.Errorf("after the leap: %v, the one that waited: %v", v, s.last[c])
		}
	})
	t.Run("priority and method off the scale", func(t *testing.T) {
		s := newServer(t, admission.Config{Cores: 1, Methods: 1})
		s.narrow()
		first := s.fill()[0]
		c := &admission.Call{Priority: math.MaxUint16, Method: -7}
		if v := s.arrive(c); v != admission.Queue {
			t.Error(v)
		}
		s.ctl.Suppressed(math.MaxUint16, math.MaxUint16, math.MaxInt32)
		s.now += admission.TickEvery
		s.tick(0)
		s.done(first)
		s.done(c)
		if st := s.ctl.State(); st.Running != 0 || st.Waiting != 0 || math.IsNaN(st.Demand) {
			t.Errorf("%+v", st)
		}
	})
	t.Run("ended twice, arrived twice", func(t *testing.T) {
		s := newServer(t, admission.Config{Cores: 1})
		c := call(qos.Post, 0)
		s.arrive(c)
		s.arrive(c)
		s.done(c)
		s.done(c)
		if st := s.ctl.State(); st.Running != 0 || st.Counts.Total(admission.Run) != 1 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("queue is bounded in calls", func(t *testing.T) {
		s := newServer(t, admission.Config{Cores: 1, MaxWaiting: 2})
		s.narrow()
		s.fill()
		for l := range uint8(5) {
			s.arrive(call(qos.Post, l))
		}
		if st := s.ctl.State(); st.Waiting != 2 {
			t.Errorf("%d wait", st.Waiting)
		}
	})
}

func TestWithdraw(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	first := s.fill()[0]
	c := call(qos.Post, 0)
	s.arrive(c)
	if !s.ctl.Withdraw(c) || s.ctl.Withdraw(c) || s.ctl.Withdraw(first) {
		t.Error("only a waiting call can be taken back, once")
	}
	s.done(first)
	if st := s.ctl.State(); st.Running != 0 || st.Waiting != 0 || st.Withdrew != 1 {
		t.Errorf("%+v", st)
	}
}

// A higher priority is never refused for want of room while a lower one is let in
// at the same instant; who goes first is the best, or has waited for long; every call
// is somewhere.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cores := rapid.IntRange(1, 4).Draw(t, "cores")
		ctl, err := admission.New(admission.Config{Cores: cores, Methods: 2, MaxWaiting: rapid.IntRange(1, 40).Draw(t, "max waiting")}, 0)
		if err != nil {
			t.Fatal(err)
		}
		rank := func(c *admission.Call) int {
			r := int(min(c.Priority, qos.LastPriority))
			if c.Ticket.Fresh() {
				r += qos.Priorities
			}
			return r
		}
		var running, waiting []*admission.Call
		var arrived, ended, withdrew uint64
		now := time.Duration(0)
		came := map[*admission.Call]time.Duration{}
		leave := func(from *[]*admission.Call, c *admission.Call) {
			i := slices.Index(*from, c)
			if i < 0 {
				t.Fatalf("decision about a call that is not there")
			}
			*from = slices.Delete(*from, i, i+1)
		}
		carryOut := func(out []admission.Decision, arriving *admission.Call) {
			for _, d := range out {
				if d.Call != arriving {
					leave(&waiting, d.Call)
				}
				switch d.Verdict {
				case admission.Run:
					running = append(running, d.Call)
					for _, w := range waiting {
						if rank(w) < rank(d.Call) && now-came[d.Call] <= 80*ms {
							t.Fatalf("%v runs while %v waits", d.Call.Priority, w.Priority)
						}
					}
				case admission.Queue:
					waiting = append(waiting, d.Call)
				case admission.Evict, admission.Refuse:
					for _, w := range waiting {
						if rank(w) > rank(d.Call) {
							t.Fatalf("%v: %v stays while %v goes", d.Verdict, w.Priority, d.Call.Priority)
						}
					}
				}
			}
			// At one instant: nobody refused for want of room is better than one let in.
			for _, d := range out {
				for _, e := range out {
					if (d.Verdict == admission.Evict || d.Verdict == admission.Refuse) && e.Verdict <= admission.Queue && rank(d.Call) < rank(e.Call) {
						t.Fatalf("%v: %v, but %v: %v", d.Call.Priority, d.Verdict, e.Call.Priority, e.Verdict)
					}
				}
			}
			st := ctl.State()
			over := uint64(0)
			for v := admission.Refuse; v < admission.Verdicts; v++ {
				over += st.Counts.Total(v)
			}
			if arrived != st.Counts.Total(admission.Run)+over+uint64(len(waiting))+withdrew {
				t.Fatalf("%d arrived: %+v", arrived, st)
			}
			if st.Counts.Total(admission.Run) != ended+uint64(len(running)) || st.Running != len(running) || st.Waiting != len(waiting) {
				t.Fatalf("%d run, %d wait: %+v", len(running), len(waiting), st)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				c := &admission.Call{
					Priority: qos.Priority(rapid.IntRange(120, 900).Draw(t, "priority")),
					Ticket:   qos.Ticket(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "ticket")),
					Method:   admission.Method(rapid.IntRange(0, 2).Draw(t, "method")),
				}
				if rapid.Bool().Draw(t, "has deadline") {
					c.Deadline = now + time.Duration(rapid.IntRange(-5, 500).Draw(t, "rest"))*ms
				}
				arrived++
				came[c] = now
				carryOut(ctl.Arrive(now, c, nil), c)
			},
			"done": func(t *rapid.T) {
				if len(running) == 0 {
					t.Skip()
				}
				c := running[rapid.IntRange(0, len(running)-1).Draw(t, "which")]
				leave(&running, c)
				ended++
				carryOut(ctl.Done(now, c, nil), nil)
			},
			"withdraw": func(t *rapid.T) {
				if len(waiting) == 0 {
					t.Skip()
				}
				c := waiting[rapid.IntRange(0, len(waiting)-1).Draw(t, "which")]
				if !ctl.Withdraw(c) {
					t.Fatal("a waiting call cannot be taken back")
				}
				leave(&waiting, c)
				withdrew++
			},
			"pass":  func(t *rapid.T) { now += time.Duration(rapid.IntRange(-2, 60).Draw(t, "ms")) * ms },
			"sweep": func(*rapid.T) { carryOut(ctl.Sweep(now, nil), nil) },
			"tick": func(t *rapid.T) {
				carryOut(ctl.Tick(now, time.Duration(rapid.IntRange(-1, 20).Draw(t, "delay"))*ms, nil), nil)
				if st := ctl.State(); st.Limit < cores || math.IsNaN(st.Capacity) || math.IsNaN(st.Demand) {
					t.Fatalf("%+v", st)
				}
			},
			"suppressed": func(t *rapid.T) {
				ctl.Suppressed(rapid.Uint16().Draw(t, "n"), qos.Priority(rapid.Uint16().Draw(t, "priority")), 0)
			},
		})
	})
}

// The same events give the same decisions.
func TestDeterministic(t *testing.T) {
	play := func() (string, admission.State) {
		rnd := rand.New(rand.NewPCG(7, 7))
		s := newServer(t, admission.Config{Cores: 2, Methods: 3})
		var running []*admission.Call
		trace := ""
		note := func(out []admission.Decision) {
			for _, d := range s.take(out) {
				trace += fmt.Sprint(d.Call.Priority, d.Verdict, ";")
				if d.Verdict == admission.Run {
					running = append(running, d.Call)
				}
			}
		}
		for range 5000 {
			s.now += time.Duration(rnd.IntN(int(2 * ms)))
			switch k := rnd.IntN(10); {
			case k < 6:
				note(s.ctl.Arrive(s.now, &admission.Call{Priority: qos.Priority(rnd.IntN(800)), Method: admission.Method(rnd.IntN(3)), Deadline: s.now + 300*ms}, nil))
			case k < 8 && len(running) > 0:
				c := running[0]
				running = running[1:]
				note(s.ctl.Done(s.now, c, nil))
			case k < 9:
				note(s.ctl.Sweep(s.now, nil))
			default:
				note(s.ctl.Tick(s.now, time.Duration(rnd.IntN(int(3*ms))), nil))
			}
		}
		return trace, s.ctl.State()
	}
	t1, s1 := play()
	t2, s2 := play()
	if t1 != t2 || s1 != s2 {
		t.Error("two runs of the same events differ")
	}
}

func TestAdmitPathAllocatesNothing(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	busy, c, d := s.fill()[0], call(qos.Post, 0), call(qos.Post, 1)
	out := make([]admission.Decision, 0, 8)
	if n := testing.AllocsPerRun(100, func() {
		s.now += ms
		out = s.ctl.Arrive(s.now, c, out[:0])
		out = s.ctl.Arrive(s.now, d, out[:0])
		out = s.ctl.Sweep(s.now, out[:0])
		out = s.ctl.Done(s.now, busy, out[:0]) // c runs
		out = s.ctl.Done(s.now, c, out[:0])    // d runs
		out = s.ctl.Done(s.now, d, out[:0])
		out = s.ctl.Tick(s.now, 20*ms, out[:0])
		out = s.ctl.Arrive(s.now, busy, out[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAdmit is a call that is let in at once, and its end.
func BenchmarkAdmit(b *testing.B) {
	ctl := newController(b, admission.Config{Cores: 4, Methods: 8})
	c := call(qos.Post, 9)
	out := make([]admission.Decision, 0, 8)
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += time.Microsecond
		out = ctl.Arrive(now, c, out[:0])
		out = ctl.Done(now, c, out[:0])
	}
}

// BenchmarkEvict is a call at a full queue, and the one that goes for it.
func BenchmarkEvict(b *testing.B) {
	ctl := newController(b, admission.Config{Cores: 1, MaxWaiting: 256})
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Duration(0)
	var free []*admission.Call
	for range 300 {
		free = append(free, new(admission.Call))
	}
	out := make([]admission.Decision, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		now += time.Nanosecond
		c := free[len(free)-1]
		free = free[:len(free)-1]
		c.Priority = qos.Priority(rnd.IntN(800))
		out = ctl.Arrive(now, c, out[:0])
		for _, d := range out {
			if d.Verdict.Refused() {
				free = append(free, d.Call)
			}
		}
	}
}

func ExampleController() {
	ctl, err := admission.New(admission.Config{Cores: 2, Methods: 1}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	var now time.Duration // of a monotonic clock
	req := &admission.Call{Priority: qos.PriorityOf(qos.Post, 17), Deadline: now + 300*time.Millisecond}
	for _, d := range ctl.Arrive(now, req, nil) {
		fmt.Println(d.Call.Priority, d.Verdict)
	}
	now += 5 * time.Millisecond
	fmt.Println(len(ctl.Done(now, req, nil)), ctl.Level())
	// Output:
	// post/17 run
	// 0 class-15/127
}

// TestLongCallsWaitLonger: a wait that is most of one call's time is nothing to another.
func TestLongCallsWaitLonger(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	s.fill()
	short, long := call(qos.Post, 1), call(qos.Post, 1)
	short.Deadline, long.Deadline = s.now+2*time.Second, s.now+time.Minute
	s.arrive(short)
	s.arrive(long)
	s.now += time.Second
	s.sweep()
	if s.last[short] != admission.Expire || s.last[long] != admission.Queue {
		t.Errorf("after a second: %v with 2 s to go, %v with a minute", s.last[short], s.last[long])
	}
}
