// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// The pace at which the owner of a Controller calls it.
const (
	// TickEvery is the time between two Ticks. 100 ms: DAGOR's window of 1 s takes
	// 28 windows to settle at 4x (measured .30 of the optimum, 100 ms .89).
	TickEvery = 100 * time.Millisecond
	// SweepEvery is the time between two Sweeps. Without it the worst waiters are
	// found late only when they are popped, which is never: refused p99 was 480 ms
	// on real cores, and 110 ms with 10 ms.
	SweepEvery = 10 * time.Millisecond
)

// The constants of the law. Nobody sets them: each was found once, in virtual time
// over 1 to 10 times the capacity and 1 to 4 calls a task, and checked in cells
// that were not used to find it (heavy tails, resends, 50 callers, 32 slots).
const (
	// delayTarget is the mean delay after admission that the limit is held at. On
	// real cores 1 ms gave p50 20 ms and top-20 % success .97; 2 ms gave 64 ms and
	// .92, 0.5 ms the same within noise.
	delayTarget = time.Millisecond
	limitCut    = .1 // share of the limit taken off per target of delay above it ...
	limitKeep   = .7 // ... but this much is kept: one bad tick is not the end
	// limitRaise is the growth of a limit that was reached with no delay, a tick. With .1
	// short calls wait for 3 s at a limit that could be eight times as high.
	limitRaise = .3
	// startCores times the cores is the first limit. From 2 a server of sleeping
	// calls needs 3 to 4 s to open; too high a limit is cut in 6 ticks.
	startCores = 8
	maxLimit   = 1 << 24 // calls; nobody holds more in one process
	// spareRaise is the growth of the limit when a processor idled while calls waited,
	// at most every spareEvery: what was let in must have begun to show.
	spareRaise = 1.5
	spareEvery = time.Millisecond

	// The queue holds what is done in queueTime under plain overload, busyRatio of
	// the capacity and more, and in burstTime up to calmRatio or while the queue was
	// empty in the last quietTime: a burst is not yet overload. 30 ms is 6 % of the
	// usual deadline of 500 ms; the long queue gives 1 to 2 points at exactly the
	// capacity.
	queueTime = 30 * time.Millisecond
	burstTime = 250 * time.Millisecond
	quietTime = 100 * time.Millisecond
	calmRatio = 1.
	busyRatio = 1.3
	// minQueue is the shortest bound, in calls of mean cost: with less, a server of
	// one slot idles between two arrivals.
	minQueue = 4
	// chanceRoom is the room for calls that are dearer than others, in standard deviations
	// of the work that comes in the time above: a queue of 16 calls of mean cost with one
	// of 10 in it keeps no other (success of dear to cheap ones .79, with it .94).
	chanceRoom = 2.
	// A call without a ticket waits at most busyWait to calmWait, on the same line.
	// At 4 calls a task the fresh ones carry all the waiting: 40 ms cost 5 to 10
	// points of top-20 % success against 100 ms; calmWait is the p99 of the admitted
	// less what follows, and what those may wait who are among the best sureShare of the
	// capacity: they are in the wrong place only for a moment (top-20 % success .990 in
	// place of .980). Where the load has left capacity to spare for the last ten
	// seconds, usualGain, a queue is a passing thing, and nobody should be refused for
	// it: up to spareWait at spareRatio and below, on a line from fullRatio.
	busyWait   = 100 * time.Millisecond
	calmWait   = 225 * time.Millisecond
	spareWait  = 450 * time.Millisecond
	spareRatio = .93
	fullRatio  = .97
	usualGain  = .01
	sureShare  = .8
	// Up to turnRatio every second call to start is the one that waits longest, if for
	// ageWait. In order of priority alone the last class gets what the others leave it:
	// at exactly the capacity it would serve a queue of 100 ms in 250, so that no more
	// than that could be kept for the next lull (.978 instead of .982, and .999 instead
	// of 1.000 at 0.9). Every call in turn would keep a little more, and let the best
	// class wait as long as the last. Above turnRatio, at 1.2, it would cost the middle
	// class 3 points.
	ageWait   = 80 * time.Millisecond
	turnRatio = 1.04
	// fullShare of the longest wait is when whoever goes in turn has waited too long
	// for the queue to be kept: the worst must leave it. At .8 p99 was 260 ms.
	fullShare = .72
	// usualBudget is up to what time to go the waits above are meant for. Who has longer
	// may wait longer in proportion, and takes the less room: 2 s of waiting are nothing
	// to a call of a minute.
	usualBudget = 2 * time.Second
	// calmAfter is how long nobody must have been refused for the demand alone to say
	// nothing: as long as a level is believed.
	calmAfter = levelLasts
	// BacklogTarget is the work that waits at a service which the window of its callers is
	// held at: enough for the service never to idle between two ticks, and little enough for
	// it to refuse hardly anybody late. 10 ms let the last classes in (posts .25, extras
	// .11 of those offered while .61 of the reads were served; 5 ms .04, .00 and .60).
	BacklogTarget = 5 * time.Millisecond
	// behindWait takes the place of busyWait while there is a window: what waits is people's,
	// who are told in time or not at all, and the queue of the service is not added to it.
	behindWait = 20 * time.Millisecond
	// BehindFor is how long a service is held to be behind after it last told of more, by who has a
	// window for it and by who would else take it for broken when it is late.
	BehindFor = 2 * time.Second
	// windowFor is how long the window stays after that: in an overload that goes on, what is
	// short of a processor may be this process for some seconds, and then a service again.
	// With the window gone meanwhile, p99 of the refused in such seconds was 100 to 270 ms.
	windowFor = 10 * time.Second
	// hopShare and hopTime are what each process takes off a backlog that it passes on. Services
	// that call each other in a circle would else tell each other of one that has long gone; so
	// 255 ms are forgotten in 3 s, and of 10 ms a caller hears nearly 8.
	hopShare, hopTime = 8, time.Millisecond
	// overfull is how many times its window's calls are inside when the load has grown at once and
	// services have taken more than they can do before anybody heard of it.
	overfull = 2.
	// leastWindow is the smallest window, a core.
	leastWindow = 1

	// lateShare of its method's mean time must remain to a call that starts: the
	// mean itself would drop the quicker half of the calls wrongly.
	lateShare = .7

	// The capacity is counted in work begun, not ended: with the slots all taken the
	// two are the same, but for calls that sleep, whose ends say nothing of how many
	// more could be let in.
	capacityGain = .2 // EWMA of work begun, a busy tick
	// rateAge is when the running window already shows a rate: many sleepers may come
	// at once where few came before.
	rateAge    = 20 * time.Millisecond
	demandGain = .1 // EWMA of work offered, a tick: a second of memory

	// reserve is how much more work than the capacity the level lets come. A little
	// too much is wanted, since the queue sorts; it is found between the bounds.
	reserveStart, reserveMin, reserveMax = 1.05, .5, 2.
	reserveRaise                         = 1.03 // a tick with an idle slot
	reserveCut                           = .1   // per share of the arrivals evicted too many ...
	reserveCutAt                         = .5   // ... but no more than for this share
	// Above these shares of evicted work the reserve falls. Work with a ticket
	// weighs more, and comes before the idle slot: a replica that idled once and
	// evicted in the same tick otherwise keeps its level open (measured: the gate
	// let a third through).
	evictTicketAt, evictAt = .02, .10
	// evictFew calls a tick are chance, up to the share evictMost: with one core that
	// does 30 calls a tick the level was too tight for .03 of the goodput at 4x.
	evictFew, evictMost = 9., .45

	// goneAt is the share of the capacity that the demand of one tick must be below to
	// say that an overload is over. At 1 a lull said so, too: at twice the capacity
	// and 4 calls a task p99 was 437 ms on one seed of eight, and is 162 to 180 now.
	goneAt = .85

	// costGain is the EWMA of a method's time and work per call that ran while no more
	// calls than cores did; crowdGain of its time when more did, since preemption
	// inflates it (57 for 20 ms at 2.5 calls a core, measured).
	costGain, crowdGain = 1. / 20, 1. / 100
	// mixGain is the EWMA of each method's share of the calls, a tick: the unit of
	// work must not move with the mix faster than the demand can follow.
	mixGain = .02
	// maxCost bounds what one method may weigh against the mean, either way.
	maxCost = 64.
	// leapTime without an event is a machine that slept or a clock that was set: what
	// the calls of that time took, and what came in it, says nothing.
	leapTime = 10 * time.Second
	// letGo shrinks the time of a method whose calls all come too late for it, a
	// tick: nothing ends, so nothing else would ever correct it.
	letGo = .8
)

// Config describes the process to its Controller.
type Config struct {
	// Cores is how many calls can truly run at once: GOMAXPROCS less the one that
	// the poller needs. The limit never falls below it: the delay signal grows with
	// the length of handlers (up to the scheduler's slice of 10 ms), so that long
	// ones would starve the machine otherwise. At least 1.
	Cores int
	// Methods is how many methods the process serves, as far as is known: Add adds
	// more. Calls of any other number count as one method more.
	Methods int
	// MaxWaiting bounds the queue in calls, whatever time it holds: memory. 0 is
	// 65,536.
	MaxWaiting int
}

// Controller is the admission of one process, shared by its servers. It is not
// safe for concurrent use: its owner locks. The clock of its events is any that
// does not run backwards, such as the time since the start; an event that is older
// than the one before counts as simultaneous.
type Controller struct {
	cores      int
	maxWaiting int
	queue      queue
	running    int
	asleep     int           // of those running, as last told
	lastSpare  time.Duration // when the limit last grew for an idle processor
	limit      int
	limitF     float64
	now        time.Duration
	shared     float64 // seconds of a core that each call inside has got, if all got the same
	lastTick   time.Duration
	leapt      time.Duration // when the clock last came out of a leap
	lastEmpty  time.Duration // when the queue was last empty beside an idle slot
	delay      time.Duration

	level    qos.Priority
	sure     qos.Priority // the worst of those that the capacity is certainly enough for
	capacity float64
	measured bool // a window without an idle slot has shown the capacity
	reserve  float64
	ratio    float64 // demand to capacity
	usual    float64 // the same, over ten seconds
	spread   float64 // mean square of the calls' costs, 1 if all cost the same
	turn     bool    // the last call to start was the one that had waited longest
	demand   float64
	offered  [qos.Priorities]float64 // work a second at each priority, EWMA
	fresh    [qos.Priorities]float64 // work since the tick

	window  float64       // most calls inside, asleep or not; 0 is no window
	filled  bool          // the window was reached since the tick
	brief   int           // of those running: they count against the window
	behind  time.Duration // until when there is a window
	beyond  time.Duration // backlog of services that calls go on to, the worst told since the tick
	ahead   float64       // sum of the work that arrivals of this tick found waiting
	arrives int           // these arrivals
	backlog time.Duration // of the last tick

	// Since the tick, as work.
	arrived, begun, evicted, evictedTicket float64
	idle, reached                          bool          // a slot was idle; the limit was reached
	crowded                                bool          // a call waited here, or was held back by its caller
	lastRefused                            time.Duration // when a call was refused here, or held back by its caller
	refused                                bool          // that has ever been

	methods  []method // one for all unknown, then one a method
	counts   Counts
	withdrew uint64
	held     uint64 // by callers, as reported
}

// method is what is known of the calls of one method.
type method struct {
	time  float64 // seconds in the handler, mean; 0 is not known
	work  float64 // seconds of a core, mean, as far as can be told
	share float64 // of all calls
	cost  float64 // against the mean call
	ended int     // since the tick
	late  int     // since the tick
}

// New makes a Controller whose clock stands at now.
func New(cfg Config, now time.Duration) (*Controller, error) {
	if cfg.Cores < 1 || cfg.Methods < 0 || cfg.MaxWaiting < 0 {
		return nil, fmt.Errorf("admission: %d cores, %d methods, %d waiting at most: want one core or more and nothing negative", cfg.Cores, cfg.Methods, cfg.MaxWaiting)
	}
	c := &Controller{
		cores:      cfg.Cores,
		maxWaiting: cfg.MaxWaiting,
		limitF:     float64(startCores * cfg.Cores),
		spread:     1,
		now:        now,
		lastTick:   now,
		lastEmpty:  now,
		level:      qos.LastPriority,
		reserve:    reserveStart,
		usual:      1,
		idle:       true,
		methods:    make([]method, cfg.Methods+1),
	}
	if c.maxWaiting == 0 {
		c.maxWaiting = 1 << 16
	}
	c.limit = int(c.limitF)
	for i := range c.methods {
		c.methods[i].cost = 1
	}
	return c, nil
}

// Add makes room for n more methods and gives the number of the first: a process
// starts its servers one after the other.
func (c *Controller) Add(n int) Method {
	first := Method(len(c.methods) - 1)
	for range n {
		c.methods = append(c.methods, method{cost: 1})
	}
	return first
}

// Level is the worst priority that has a chance now: what to tell on every reply.
// The controller itself refuses nobody for it. A call that came may as well wait
// its turn: a level is a tick old, the queue is not.
func (c *Controller) Level() qos.Priority { return c.level }

// Backlog is how long the calls that waited would have taken the server, as arrivals of
// the last tick found it on average, or the worst that Behind told of in it, less a little for
// the hop, if that is more. Callers are told.
func (c *Controller) Backlog() time.Duration { return c.backlog }

// Behind tells of the backlog of a service that calls inside go on to. If it is more than
// BacklogTarget at a tick, the controller has a window for a while: so many calls are inside
// at most, whether they sleep or not. A call that waits for a service sleeps and holds no
// slot, so that without a window ever more are let in to wait there, begun, and refused
// late.
//
// A window grows by its square root, so that the windows of several callers become alike
// (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance
// in Computer Networks", 1989). Calls with a long time to go, or without a deadline, do not
// count: they would keep it for as long.
func (c *Controller) Behind(backlog time.Duration) { c.beyond = max(c.beyond, backlog) }

// Waiting is how many calls the queue holds.
func (c *Controller) Waiting() int { return c.queue.n }

// Oldest is when the call arrived that has waited longest; false if none waits.
func (c *Controller) Oldest() (arrived time.Duration, ok bool) {
	for _, call := range [...]*Call{c.queue.going.oldest, c.queue.fresh.oldest} {
		if call != nil && (!ok || call.arrived < arrived) {
			arrived, ok = call.arrived, true
		}
	}
	return arrived, ok
}

// State gives what pages and metrics show.
func (c *Controller) State() State {
	return State{
		Running: c.running, Asleep: c.asleep, Limit: c.limit, Window: int(math.Ceil(c.window)), Waiting: c.queue.n,
		Level: c.level, Capacity: c.capacity, Demand: c.demand, Delay: c.delay, Backlog: c.backlog,
		Counts: c.counts, Withdrew: c.withdrew, Suppressed: c.held,
	}
}

// Arrive decides about a new call, and about those that must make room for it.
// Decisions are appended to out; the call's own is the last. A call that is inside
// already stays where it is, without a decision.
func (c *Controller) Arrive(now time.Duration, call *Call, out []Decision) []Decision {
	if call.state != outside {
		return out
	}
	c.advance(now)
	m := c.method(call.Method)
	call.cost, call.arrived, call.patience = m.cost, c.now, 1
	if budget := call.Deadline - c.now; call.Deadline > 0 && budget > usualBudget {
		call.patience = float64(budget) / float64(usualBudget)
	}
	c.fresh[min(call.Priority, qos.LastPriority)] += call.cost
	c.arrived += call.cost
	c.ahead += c.queue.room
	c.arrives++

	if c.late(call) {
		return c.decide(call, Late, out)
	}
	if c.queue.n == 0 && !c.full() {
		return c.run(call, out)
	}
	c.crowded = true
	c.touch()
	c.queue.push(call)
	bound := c.bound()
	for c.queue.n > 1 && c.queue.room > bound || c.queue.n > c.maxWaiting {
		v := c.queue.worst()
		c.drop(v)
		if v == call {
			return c.decide(call, Refuse, out)
		}
		out = c.decide(v, Evict, out)
	}
	return c.decide(call, Queue, out)
}

// Done says that a call that ran has left its handler, in whatever way, and
// decides who goes next. A call that does not run is left alone, so that a slot
// can be given back twice without harm.
func (c *Controller) Done(now time.Duration, call *Call, out []Decision) []Decision {
	if call.state != running {
		return out
	}
	c.advance(now)
	c.learn(call)
	call.state = outside
	c.running--
	if call.brief() {
		c.brief--
	}
	c.asleep = min(c.asleep, c.running)
	out = c.start(out)
	if c.queue.n == 0 && !c.full() {
		c.idle, c.lastEmpty = true, c.now
	}
	return out
}

// Withdraw takes a waiting call back, because nobody wants its answer any more. It
// says whether the call waited: if not, another decision is already on its way.
func (c *Controller) Withdraw(call *Call) bool {
	if call.state != waiting {
		return false
	}
	c.queue.remove(call)
	c.withdrew++
	return true
}

// Suppressed counts n calls that a caller held back, of which one, drawn evenly,
// had priority p and method m.
func (c *Controller) Suppressed(n uint16, p qos.Priority, m Method) {
	c.fresh[min(p, qos.LastPriority)] += float64(n) * c.method(m).cost
	c.crowded = c.crowded || n > 0
	if n > 0 {
		c.refused, c.lastRefused = true, c.now
	}
	c.held += uint64(n)
}

// Look tells how many goroutines use a processor or wait for one, and how many
// processors there are. The calls inside that cannot be among them sleep: they wait for
// a disk, a callee, a timer. They hold no slot until the next Look, so that a few slots
// are enough for the cores, and hundreds of thousands of calls may be blocked. If a
// processor has nothing to do while calls wait, the limit grows at once. An owner who
// cannot tell never calls it.
func (c *Controller) Look(now time.Duration, active, processors int, out []Decision) []Decision {
	c.advance(now)
	c.asleep = max(0, c.running-max(0, active))
	if c.queue.n > 0 && active < processors && !c.narrow() && c.now-c.lastSpare >= spareEvery {
		c.lastSpare = c.now
		c.setLimit(c.limitF * spareRaise)
	}
	return c.start(out)
}

// Running is how many calls are inside handlers.
func (c *Controller) Running() int { return c.running }

// full says that every slot is taken, or that nobody more may wait for others.
func (c *Controller) full() bool { return c.running-c.asleep >= c.limit || c.narrow() }

// narrow says that the window is full.
func (c *Controller) narrow() bool { return c.window > 0 && float64(c.brief) >= c.window }

// Sweep drops the waiting calls for which it is too late. The worst of a queue are
// never popped, so that Done would not find them.
func (c *Controller) Sweep(now time.Duration, out []Decision) []Decision {
	c.advance(now)
	longest := c.longest()
	for _, call := range [...]*Call{c.queue.going.oldest, c.queue.fresh.oldest} {
		for call != nil {
			newer := call.newer
			if v := c.overdue(call, longest); v != Run {
				c.drop(call)
				out = c.decide(call, v, out)
			}
			call = newer
		}
	}
	return out
}

// advance moves the clock, never backwards.
func (c *Controller) advance(now time.Duration) {
	if now > c.now && now-c.now > leapTime {
		c.leapt = now
	}
	if now <= c.now {
		return
	}
	// Processor sharing: with more calls inside than cores each gets its part.
	part := 1.
	if active := c.running - c.asleep; active > c.cores {
		part = float64(c.cores) / float64(active)
	}
	c.shared += (now - c.now).Seconds() * part
	c.now = now
}

// start lets waiting calls in while there is room.
func (c *Controller) start(out []Decision) []Decision {
	if c.queue.n == 0 {
		return out
	}
	longest := c.longest()
	last := uint16(0) // of those let in now: nobody better is refused for their sake
	for c.queue.n > 0 && !c.full() {
		call, inTurn := c.next()
		if v := c.overdue(call, longest); v != Run {
			c.drop(call)
			out = c.decide(call, v, out)
			continue
		}
		last = max(last, call.key)
		if v := c.queue.worst(); inTurn && v != call && v.key >= last && c.now-call.arrived > time.Duration(fullShare*float64(longest)) {
			c.drop(v)
			out = c.decide(v, Evict, out)
		}
		c.queue.remove(call)
		out = c.run(call, out)
	}
	return out
}

// next is who goes first: the best, or, in turn with it while there is capacity for
// nearly everyone, whoever waits longest.
func (c *Controller) next() (call *Call, inTurn bool) {
	old := c.queue.fresh.oldest
	if c.queue.going.oldest == nil && c.now-old.arrived > ageWait && c.ratio < turnRatio {
		if c.turn = !c.turn; c.turn {
			return old, true
		}
	}
	return c.queue.best(), false
}

func (c *Controller) run(call *Call, out []Decision) []Decision {
	call.state, call.started, call.shared = running, c.now, c.shared
	c.running++
	if call.brief() {
		c.brief++
	}
	c.begun += call.cost
	c.touch()
	return c.decide(call, Run, out)
}

// touch remembers what is in the way of calls that come.
func (c *Controller) touch() {
	c.reached = c.reached || c.running-c.asleep >= c.limit
	c.filled = c.filled || c.narrow()
}

// drop removes a waiting call for a decision against it, and counts its work.
func (c *Controller) drop(call *Call) {
	c.queue.remove(call)
	c.evicted += call.cost
	if !call.Ticket.Fresh() {
		c.evictedTicket += call.cost
	}
}

func (c *Controller) decide(call *Call, v Verdict, out []Decision) []Decision {
	if v.Refused() {
		c.refused, c.lastRefused = true, c.now
	}
	if v == Late {
		c.method(call.Method).late++
	}
	c.counts[v][call.Priority.Class()]++
	return append(out, Decision{call, v})
}

// late says that a call which starts now would end after its deadline.
func (c *Controller) late(call *Call) bool {
	if call.Deadline == 0 {
		return false
	}
	if call.Deadline <= c.now { // any that a header holds: the difference may not fit
		return true
	}
	return (call.Deadline - c.now).Seconds() < lateShare*c.method(call.Method).time
}

// overdue says what to do with a waiting call: Run, if nothing is against it.
func (c *Controller) overdue(call *Call, longest time.Duration) Verdict {
	if call.Priority <= c.sure && c.window == 0 {
		longest = max(longest, calmWait)
	}
	switch {
	case c.late(call):
		return Late
	case call.Ticket.Fresh() && float64(c.now-call.arrived) > float64(longest)*call.patience:
		return Expire
	}
	return Run
}

// calm is 0 under load that is plainly too much, and 1 under load that the server
// can just take or that has only begun.
func (c *Controller) calm() float64 {
	if c.window > 0 && float64(c.brief) >= overfull*c.window {
		return 0 // nobody is let in soon
	}
	if c.window == 0 && c.now-c.lastEmpty < quietTime { // a window is often empty for a moment: it breathes
		return 1
	}
	if c.capacity == 0 {
		return 0
	}
	return min(1, max(0, (busyRatio-c.ratio)/(busyRatio-calmRatio)))
}

// bound is the work that the queue may hold now.
func (c *Controller) bound() float64 {
	if !c.measured {
		return math.Inf(1) // time and MaxWaiting bound the queue
	}
	rate := c.capacity
	if age := (c.now - c.lastTick).Seconds(); age >= rateAge.Seconds() {
		rate = max(rate, c.begun/age)
	}
	t := line(queueTime, burstTime, c.calm())
	work := rate * t.Seconds()
	return max(work+chanceRoom*math.Sqrt(work*(c.spread-1)), float64(c.limit), minQueue)
}

// longest is how long a fresh call may wait.
func (c *Controller) longest() time.Duration {
	spare := min(1, max(0, (fullRatio-c.usual)/(fullRatio-spareRatio)))
	busy := busyWait
	if c.window > 0 {
		busy = behindWait
	}
	return line(busy, line(calmWait, spareWait, spare), c.calm())
}

// line goes from a at 0 to b at 1.
func line(a, b time.Duration, at float64) time.Duration {
	return a + time.Duration(at*float64(b-a))
}

func (c *Controller) method(m Method) *method {
	if m < 0 || int(m) >= len(c.methods)-1 {
		return &c.methods[0]
	}
	return &c.methods[m+1]
}

// learn takes the time of a call that ended into its method's mean.
func (c *Controller) learn(call *Call) {
	m, took, work := c.method(call.Method), (c.now - call.started).Seconds(), c.shared-call.shared
	m.ended++
	if call.started < c.leapt {
		return
	}
	if m.time == 0 {
		m.time, m.work = took, work
		return
	}
	m.work += costGain * (work - m.work)
	if c.running <= c.cores {
		m.time += costGain * (took - m.time)
	} else {
		m.time += crowdGain * (took - m.time)
	}
}

// Tick closes a window: it moves limit, capacity, demand and level, and lets
// waiting calls in if the limit has grown. The delay is the mean a call has seen
// in this window after it was let in (in Go the mean of /sched/latencies:seconds
// over the window); a negative one was not measured and leaves the limit alone.
func (c *Controller) Tick(now, delay time.Duration, out []Decision) []Decision {
	c.advance(now)
	window := (c.now - c.lastTick).Seconds()
	if window <= 0 {
		return out
	}
	beyond := c.beyond
	c.beyond = 0
	if c.lastTick >= c.leapt {
		c.adjustWindow(beyond)
		c.adjustLimit(delay)
		c.weigh()
		c.adjustLevel(window)
	}
	c.lastTick = c.now
	c.backlog = max(0, beyond-beyond/hopShare-hopTime)
	if c.arrives > 0 && c.capacity > 0 {
		c.backlog = max(c.backlog, time.Duration(c.ahead/float64(c.arrives)/c.capacity*float64(time.Second)))
	}
	c.ahead, c.arrives = 0, 0
	c.arrived, c.begun, c.evicted, c.evictedTicket = 0, 0, 0, 0
	c.reached, c.filled, c.crowded = false, false, c.queue.n > 0
	out = c.start(out)
	c.idle = !c.full() && c.queue.n == 0
	return out
}

// adjustLimit holds the delay after admission at its target: proportional cuts
// above it, growth below it if the limit was in the way.
func (c *Controller) adjustLimit(delay time.Duration) {
	if delay < 0 {
		return
	}
	c.delay = delay
	d := float64(delay) / float64(delayTarget)
	if d > 1 {
		c.setLimit(c.limitF * cut(d))
	} else if c.reached {
		c.setLimit(c.limitF + max(.5, limitRaise*c.limitF)*(1-d))
	}
}

// cut is what is kept of a limit that has been overshot so many times.
func cut(times float64) float64 { return max(limitKeep, 1-limitCut*(times-1)) }

// adjustWindow holds the backlog beyond this process at its target.
func (c *Controller) adjustWindow(backlog time.Duration) {
	over := backlog > BacklogTarget
	if over {
		c.behind = c.now + windowFor
	}
	switch {
	case c.now >= c.behind:
		c.window = 0
	case over && c.window == 0:
		c.window = float64(startCores * c.cores)
	case over:
		c.window = max(float64(leastWindow*c.cores), c.window*cut(float64(backlog)/float64(BacklogTarget)))
	case c.filled: // up to the target without slowing down: only who overshoots becomes alike
		c.window = min(maxLimit, c.window+math.Sqrt(c.window))
	}
}

func (c *Controller) setLimit(limit float64) {
	floor := float64(c.cores)
	if c.window > 0 {
		// What bounds the calls is the window. If the services share cores with this
		// process, its delay is theirs.
		floor *= startCores
	}
	c.limitF = min(max(limit, floor), maxLimit)
	c.limit = int(math.Round(c.limitF))
}

// weigh sets what each method costs against the mean call of the recent mix. All
// methods slowing down alike change no cost: then fewer calls are done, which the
// capacity shows.
func (c *Controller) weigh() {
	ended := 0
	for i := range c.methods {
		ended += c.methods[i].ended
	}
	mean, known := 0., 0.
	for i := range c.methods {
		m := &c.methods[i]
		if ended > 0 {
			m.share += mixGain * (float64(m.ended)/float64(ended) - m.share)
		}
		if m.ended == 0 && m.late > 0 {
			m.time *= letGo
		}
		if m.work > 0 {
			mean += m.share * m.work
			known += m.share
		}
		m.ended, m.late = 0, 0
	}
	if mean == 0 {
		return
	}
	mean /= known
	c.spread = 0
	for i := range c.methods {
		if m := &c.methods[i]; m.work > 0 {
			m.cost = min(maxCost, max(1/maxCost, m.work/mean))
			c.spread += m.share / known * m.cost * m.cost
		}
	}
	c.spread = max(1, c.spread)
}

// adjustLevel finds the level from the work offered at each priority and the work
// that can be done.
func (c *Controller) adjustLevel(window float64) {
	rate := c.begun / window
	switch {
	case !c.measured:
		c.capacity = max(c.capacity, rate)
		c.measured = !c.idle && c.crowded
	case !c.idle || rate > c.capacity: // an idle server has shown what was asked, not what it can
		c.capacity += capacityGain * (rate - c.capacity)
	}

	total, current := 0., 0.
	for i := range c.offered {
		now := c.fresh[i] / window
		c.fresh[i] = 0
		current += now
		c.offered[i] += demandGain * (now - c.offered[i])
		total += c.offered[i]
	}

	arrived := max(1, c.arrived)
	evictAt := max(evictAt, min(evictMost, evictFew*c.spread/arrived))
	evicted, ticketed := c.evicted/arrived, c.evictedTicket/arrived
	switch {
	case ticketed > evictTicketAt:
		c.cutReserve(ticketed - evictTicketAt)
	case c.idle:
		c.reserve = min(reserveMax, c.reserve*reserveRaise)
	case evicted > evictAt:
		c.cutReserve(evicted - evictAt)
	}

	budget := c.capacity * c.reserve
	if c.idle && evicted <= evictAt && current <= goneAt*c.capacity && total > budget {
		// The demand is gone: remembering it kept the level tight for 800 ms after a
		// burst (now 200 ms). So is the reason for a small reserve, which callers that
		// know no levels have driven down.
		for i := range c.offered {
			c.offered[i] *= current / total
		}
		total = current
		c.reserve = max(c.reserve, reserveStart)
		budget = c.capacity * c.reserve
	}
	c.demand = total
	c.ratio = total / max(1, c.capacity)
	c.usual += usualGain * (c.ratio - c.usual)
	c.level, c.sure = qos.LastPriority, 0
	if !c.measured || total <= budget || !c.refused || c.now-c.lastRefused > calmAfter {
		return // nobody is turned away: calls that take their time are no overload
	}
	// The priority in which the budget ends is let in: one that holds most of the
	// demand would otherwise leave the server idle for its sake.
	sum := 0.
	for i := range c.offered {
		sum += c.offered[i]
		if sum <= sureShare*c.capacity {
			c.sure = qos.Priority(i)
		}
		if sum > budget {
			c.level = qos.Priority(i)
			return
		}
	}
}

func (c *Controller) cutReserve(excess float64) {
	c.reserve = max(reserveMin, c.reserve*(1-reserveCut*min(excess, reserveCutAt)))
}
