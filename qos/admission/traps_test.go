// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// Each test here is a way in which an earlier form of the law, or another one,
// went wrong. What a hostile peer or clock may do is in hostile_test.go.

// plant is a server of so many workers in virtual time, in steps of 1 ms.
type plant struct {
	*server
	workers int
	service time.Duration
	busy    []work
	pool    []*admission.Call // let in, and waiting for a worker
	since   map[*admission.Call]time.Duration
	waited  time.Duration
	starts  int
	rnd     *rand.Rand
	ended   int // calls
	seen    int // runs that were handed to workers
	owed    float64
}

func newPlant(t *testing.T, cores, workers int, service time.Duration) *plant {
	return &plant{
		server: newServer(t, admission.Config{Cores: cores, Methods: 1}), workers: workers, service: service,
		since: map[*admission.Call]time.Duration{},
		rnd:   rand.New(rand.NewPCG(5, 5)),
	}
}

// work is a call at a worker.
type work struct {
	call *admission.Call
	ends time.Duration
}

// run offers perSecond calls for d, as draw makes them.
func (p *plant) run(d time.Duration, perSecond float64, draw func() *admission.Call) {
	for end := p.now + d; p.now < end; {
		p.now += ms
		var over []work
		p.busy = slices.DeleteFunc(p.busy, func(w work) bool {
			if w.ends <= p.now {
				over = append(over, w)
			}
			return w.ends <= p.now
		})
		for _, w := range over {
			p.ended++
			p.done(w.call)
		}
		for p.owed += perSecond / 1000; p.owed >= 1; p.owed-- {
			p.arrive(draw())
		}
		for ; p.seen < len(p.runs); p.seen++ {
			p.pool = append(p.pool, p.runs[p.seen])
			p.since[p.runs[p.seen]] = p.now
		}
		for len(p.pool) > 0 && len(p.busy) < p.workers {
			c := p.pool[0]
			p.pool = p.pool[1:]
			p.waited += p.now - p.since[c]
			delete(p.since, c)
			p.starts++
			p.busy = append(p.busy, work{c, p.now + p.service/2 + time.Duration(p.rnd.Int64N(int64(p.service)))})
		}
		if p.now%admission.SweepEvery == 0 {
			p.sweep()
		}
		if p.now%admission.TickEvery == 0 {
			delay := time.Duration(-1)
			if p.starts > 0 {
				delay = p.waited / time.Duration(p.starts)
			}
			p.waited, p.starts = 0, 0
			p.tick(delay)
		}
	}
}

// anyone draws calls evenly over two classes.
func (p *plant) anyone() *admission.Call {
	return &admission.Call{
		Priority: qos.PriorityOf(qos.Post+qos.Class(p.rnd.IntN(2)), uint8(p.rnd.IntN(qos.UserLevels))),
		Deadline: p.now + 500*ms,
	}
}

// Vegas takes slower work for queueing: its limit fell to 1 and goodput to .53.
func TestBrownoutDoesNotCloseTheLimit(t *testing.T) {
	p := newPlant(t, 4, 4, 8*ms)
	p.run(5*time.Second, 400, p.anyone)
	p.service *= 4
	p.run(5*time.Second, 400, p.anyone)
	if st := p.ctl.State(); st.Limit < 4 || st.Limit > 8 {
		t.Errorf("limit %d with 4 workers", st.Limit)
	}
	before := p.ended
	p.run(5*time.Second, 400, p.anyone)
	if n := p.ended - before; n < 590 { // of 625: a step of 1 ms rounds
		t.Errorf("%d calls done in 5 s of a brown-out", n)
	}
}

// Real: the signal grows with the length of handlers; without the cores as floor
// 20 ms handlers brought the limit to 1 and the machine to idle.
func TestFloorIsTheCores(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 3})
	for range 100 {
		s.now += admission.TickEvery
		s.tick(9 * ms)
	}
	if st := s.ctl.State(); st.Limit != 3 {
		t.Errorf("limit %d", st.Limit)
	}
}

// Real: calls that sleep see no delay, and a limit of cores gave 196 calls a second
// where 2,680 were possible.
func TestSleepersOpenTheLimit(t *testing.T) {
	p := newPlant(t, 2, 10_000, 50*ms)
	p.narrow()
	p.run(8*time.Second, 2000, p.anyone)
	if st := p.ctl.State(); st.Limit < 100 {
		t.Errorf("limit %d, 100 calls sleep at a time", st.Limit)
	}
	before := p.ended
	p.run(time.Second, 2000, p.anyone)
	if n := p.ended - before; n < 1900 {
		t.Errorf("%d of 2,000 calls done", n)
	}
}

// An idle moment beat evictions of the same tick: one replica kept its level open.
// Evicted work with a ticket comes first.
func TestEvictedTicketsTightenAnIdleServer(t *testing.T) {
	p := newPlant(t, 1, 1, 8*ms)
	p.run(5*time.Second, 500, p.anyone)
	open := p.ctl.Level()
	going := func() *admission.Call {
		c := p.anyone()
		c.Ticket = 1
		return c
	}
	for range 20 { // each tick: far too many tickets at once, then nothing
		p.run(30*ms, 2500, going)
		p.run(70*ms, 0, going)
	}
	p.run(time.Second, 500, p.anyone)
	if l := p.ctl.Level(); l > open+4 { // of the 640 that a level left open would be away
		t.Errorf("level %v, it was %v before tickets had to be evicted", l, open)
	}
}

// A bonus of a ticket inside its class alone lost 1 to 4 % of goodput.
func TestTicketBeatsEveryClass(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1})
	s.narrow()
	first := s.fill()[0]
	best, going := call(qos.Critical, 0), call(qos.Background, 127)
	going.Ticket = 1
	s.arrive(best)
	s.arrive(going)
	s.done(first)
	if s.runs[len(s.runs)-1] != going {
		t.Error("work that leaves have done is thrown away for a fresh call")
	}
}

// A longest wait of 40 ms cost 5 to 10 points of top-20 % success. And what waits
// too long must go without being popped: the worst never are.
func TestFreshCallsWaitAndAreSwept(t *testing.T) {
	p := newPlant(t, 1, 1, 8*ms)
	p.run(5*time.Second, 500, p.anyone)
	last := call(qos.Background, 127)
	last.Ticket = 1 // stays, whatever comes
	fresh := call(qos.Critical, 0)
	hog := call(qos.Critical, 0)
	hog.Ticket = 1
	p.arrive(hog) // ahead of it, and it never ends
	for _, w := range p.busy {
		p.done(w.call)
	}
	if v := p.arrive(fresh); v != admission.Queue {
		t.Fatal(v)
	}
	p.arrive(last)
	came := p.now
	for p.last[fresh] == admission.Queue && p.now < came+time.Second {
		p.now += admission.SweepEvery
		p.sweep()
	}
	if w := p.now - came; w < 100*ms || w > 500*ms || p.last[fresh] != admission.Expire {
		t.Errorf("%v after %v", p.last[fresh], w)
	}
	if p.last[last] != admission.Queue {
		t.Errorf("a call with a ticket: %v", p.last[last])
	}
}

// The demand of a burst was remembered for 800 ms after it.
func TestLevelOpensAfterABurst(t *testing.T) {
	p := newPlant(t, 2, 2, 8*ms)
	p.run(5*time.Second, 200, p.anyone)
	p.run(5*time.Second, 1000, p.anyone)
	if p.ctl.Level() == qos.LastPriority {
		t.Fatal("level open under four times the load")
	}
	p.run(2*admission.TickEvery, 200, p.anyone)
	if l := p.ctl.Level(); l != qos.LastPriority {
		t.Errorf("level %v two ticks after the burst", l)
	}
}

// DAGOR's callers refuse what the level excludes, so that the leaf sees no demand
// there, opens, and is overrun (.17 to .50 of the optimum for a minute). Reported
// demand keeps the level.
func TestReportsKeepTheLevel(t *testing.T) {
	demand := func(report bool) float64 {
		p := newPlant(t, 2, 2, 8*ms)
		p.run(3*time.Second, 1000, p.anyone)
		p.run(3*time.Second, 1000, func() *admission.Call {
			c := p.anyone()
			for ; p.owed >= 1 && c.Priority > p.ctl.Level(); p.owed-- { // the caller holds it
				if report {
					p.ctl.Suppressed(1, c.Priority, 0)
				}
				c = p.anyone()
			}
			return c
		})
		return p.ctl.State().Demand
	}
	if d := demand(true); d < 950 || d > 1050 {
		t.Errorf("demand %.0f/s of 1,000/s offered, with reports", d)
	}
	if d := demand(false); d > 800 {
		t.Errorf("demand %.0f/s without reports: this test shows nothing", d)
	}
}

// One priority that holds all the demand (an entry that names no user) must not be
// excluded as a whole: the server would idle.
func TestLevelAdmitsThePriorityInWhichTheBudgetEnds(t *testing.T) {
	p := newPlant(t, 1, 1, 8*ms)
	p.run(5*time.Second, 1000, func() *admission.Call { return call(qos.Post, 127) })
	if l := p.ctl.Level(); l != qos.PriorityOf(qos.Post, 127) {
		t.Errorf("level %v", l)
	}
}

// A mean that says that nobody can end in time lets nobody begin, and would stand
// for ever.
func TestLateDropsLetGo(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1, Methods: 1})
	slow := call(qos.Post, 0)
	s.arrive(slow)
	s.now += 10 * time.Second
	s.done(slow)
	for i := range 100 {
		c := call(qos.Post, 0)
		c.Deadline = s.now + 500*ms
		v := s.arrive(c)
		if i == 0 && v != admission.Late {
			t.Fatalf("%v after one call of 10 s", v)
		}
		if v == admission.Run {
			return
		}
		s.now += admission.TickEvery
		s.tick(0)
	}
	t.Error("no call is let in any more")
}

// Real (brpc#2970): a dear method counts as what it takes, so that the level stands
// where the work ends and not where the calls do.
func TestCostIsWeighed(t *testing.T) {
	s := newServer(t, admission.Config{Cores: 1, Methods: 2})
	for range 300 { // equal numbers of 1 and 20 ms
		for m, took := range []time.Duration{ms, 20 * ms} {
			c := &admission.Call{Priority: qos.PriorityOf(qos.Post, 0), Method: admission.Method(m)}
			s.arrive(c)
			s.now += took
			s.done(c)
		}
		if s.now%(100*ms) < 21*ms {
			s.tick(0)
		}
	}
	s.narrow()
	for range 50 {
		s.ctl.Suppressed(100, qos.PriorityOf(qos.Extra, 0), 1)
		s.now += admission.TickEvery
		s.tick(0)
	}
	dear := s.ctl.State().Demand
	for range 50 {
		s.ctl.Suppressed(100, qos.PriorityOf(qos.Extra, 0), 0)
		s.now += admission.TickEvery
		s.tick(0)
	}
	if r := dear / s.ctl.State().Demand; r < 15 || r > 25 {
		t.Errorf("a dear call weighs %.1f cheap ones, want 20", r)
	}
}

// With capacity for all, ten better ones in the queue at a time starved the last in
// rank; under overload they must.
func TestOldestGoesFirstWhileThereIsRoom(t *testing.T) {
	for _, tc := range []struct {
		name string
		rate float64
		want admission.Verdict
	}{{"room for all", 200, admission.Run}, {"four times the load", 1000, admission.Expire}} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlant(t, 2, 2, 8*ms)
			p.run(5*time.Second, tc.rate, p.anyone)
			p.run(10*ms, 2000, p.anyone) // a queue, for a moment
			last := &admission.Call{Priority: qos.LastPriority, Deadline: p.now + 500*ms}
			if v := p.arrive(last); v.Refused() {
				if tc.want != admission.Run {
					return
				}
				t.Fatal(v)
			}
			p.run(400*ms, tc.rate, p.anyone)
			if v := p.last[last]; v.Refused() == (tc.want == admission.Run) {
				t.Errorf("the last in rank: %v", v)
			}
		})
	}
}

// atCapacity is a server that has been offered just what it can do, is busy, and
// holds a queue that only the test fills.
func atCapacity(t *testing.T, cores int) (*plant, []*admission.Call) {
	p := newPlant(t, cores, cores, 8*ms)
	p.run(10*time.Second, 120*float64(cores), p.anyone)
	for p.ctl.State().Waiting > 0 || p.ctl.State().Running > 0 {
		p.run(ms, 0, p.anyone)
	}
	for p.ctl.State().Limit > cores {
		p.now += admission.TickEvery
		p.tick(20 * ms)
	}
	return p, p.fill()
}

// In order of priority alone the last class gets what the others leave: a queue of
// 100 ms took it 250, and at exactly the capacity 2 % were lost for want of a queue.
// Oldest first for all kept the best class waiting as long as the last, and oldest
// before tickets threw work away (.91 at 4 calls a task).
func TestOldestGoesInTurn(t *testing.T) {
	p, inside := atCapacity(t, 1)
	busy := inside[0]
	var old, best []*admission.Call
	for range 3 {
		c := call(qos.Interactive, 127)
		old = append(old, c)
		p.arrive(c)
	}
	p.now += 100 * ms
	for range 2 {
		c := call(qos.Critical, 0)
		best = append(best, c)
		p.arrive(c)
	}
	going := call(qos.Background, 127)
	going.Ticket = 1
	p.arrive(going)
	from := len(p.runs)
	for range 5 {
		p.done(busy)
		busy = p.runs[len(p.runs)-1]
	}
	got := p.runs[from:]
	if got[0] != going {
		t.Fatal("a call with a ticket waits for a fresh one")
	}
	want := [][]*admission.Call{{old[0], best[0], old[1], best[1]}, {best[0], old[0], best[1], old[1]}}
	if !slices.Equal(got[1:], want[0]) && !slices.Equal(got[1:], want[1]) {
		t.Errorf("order %v", got[1:])
	}
}

// When the oldest has waited too long the queue is too long, and the worst must leave
// it: dropping the oldest refuses a better call while a worse one is let in later.
func TestWorstLeavesAnOldQueue(t *testing.T) {
	p, inside := atCapacity(t, 1)
	busy := inside[0]
	old, worst, other := call(qos.Post, 0), call(qos.Interactive, 127), call(qos.Post, 50)
	p.arrive(old)
	p.now += 150 * ms
	p.arrive(worst)
	p.arrive(other)
	p.now += 70 * ms // 220 ms old; 225 are the longest wait
	for range 2 {    // one of two is in turn
		p.done(busy)
		busy = p.runs[len(p.runs)-1]
	}
	for _, tc := range []struct {
		name string
		call *admission.Call
		want admission.Verdict
	}{{"the oldest", old, admission.Run}, {"the worst", worst, admission.Evict}, {"another", other, admission.Run}} {
		if v := p.last[tc.call]; v != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, v, tc.want)
		}
	}
}

// The worst itself may be in turn, and then a better one would leave the queue for the
// next of those who start at the same instant.
func TestNobodyBetterLeavesForOneLetIn(t *testing.T) {
	p, _ := atCapacity(t, 4)
	worst := call(qos.Interactive, 127)
	p.arrive(worst)
	var better []*admission.Call
	for l := range uint8(9) {
		c := call(qos.Post, l)
		better = append(better, c)
		p.arrive(c)
	}
	p.now += 220 * ms
	p.take(p.ctl.Look(p.now, 0, 0, nil)) // all who are inside sleep: four may start
	if v := p.last[worst]; v != admission.Run {
		t.Fatalf("the worst, which waits longest: %v", v)
	}
	for _, c := range better {
		if v := p.last[c]; v.Refused() {
			t.Errorf("%v: %v, and %v runs", c.Priority, v, worst.Priority)
		}
	}
}

func rnd() admission.Draw { return rand.New(rand.NewPCG(1, 1)).IntN }

// A replica that sheds answers fast: by calls in flight alone it gets them all.
func TestShedderIsNoBlackHole(t *testing.T) {
	shedder, healthy := new(admission.Replica), new(admission.Replica)
	shedder.Heard(0, qos.PriorityOf(qos.Browse, 0))
	for range 10 {
		healthy.Sent()
	}
	r := rnd()
	for range 100 {
		i, ok := admission.Pick(0, []*admission.Replica{shedder, healthy}, qos.PriorityOf(qos.Post, 0), 1, r)
		if i != 1 || !ok {
			t.Fatal("a task's next call goes to the replica that sheds")
		}
	}
}

// An open level is the end of the scale and far from every other: compared as such
// it drew all callers to the one replica that had just opened.
func TestOpenReplicaDrawsNoMoreThanItsShare(t *testing.T) {
	open, tight := new(admission.Replica), new(admission.Replica)
	tight.Heard(0, qos.PriorityOf(qos.Interactive, 100))
	open.Sent()
	i, _ := admission.Pick(0, []*admission.Replica{open, tight}, qos.PriorityOf(qos.Post, 0), 0, rnd())
	if i != 1 {
		t.Error("both admit the call, and the other one is less busy")
	}
}

// Of many replicas some one always admits: a gate that asks any of them is open.
func TestGateAsksOneReplica(t *testing.T) {
	rs := []*admission.Replica{{}, {}, {}}
	rs[0].Heard(0, 0)
	rs[1].Heard(0, 0)
	held, r := 0, rnd()
	for range 3000 {
		if _, ok := admission.Gate(0, rs, qos.PriorityOf(qos.Post, 0), r); !ok {
			held++
		}
	}
	if held < 1850 || held > 2150 {
		t.Errorf("%d of 3,000 held, two thirds of the replicas refuse", held)
	}
}
