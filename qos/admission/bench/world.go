// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// outcome is how a call ended.
type outcome int

const (
	served outcome = iota
	refused
	late
)

// call is one attempt at one call of a task.
type call struct {
	admission.Call
	task     *task
	seq      int // which call of the task
	attempt  int
	leaf     *leaf
	report   admission.Report
	startsAt time.Duration // handed to the workers
}

// leafPolicy decides at a leaf. It answers each call that arrives with
// leaf.execute or leaf.refuse, now or later.
type leafPolicy interface {
	arrive(c *call)
	finished(c *call)
	level() int // rides on every reply
}

// entryPolicy decides at an entry: where a call goes, if anywhere.
type entryPolicy interface {
	route(t *task, service int, c *call) routing
	answered(c *call, level int)
}

// routing is what an entry does with a call.
type routing int

const (
	send       routing = iota
	hold               // refused at the entry; a resend may try again
	holdAlways         // refused at the entry, and a resend would be, too
)

// policy makes the two ends of an overload control.
type policy struct {
	name  string
	leaf  func(w *world, l *leaf) leafPolicy
	entry func(w *world, rnd *rand.Rand) entryPolicy
	// blind leaves work for callers who have given up, as a server does that knows
	// no deadline.
	blind bool
}

// metricName is the full name of a metric of the policy.
func (p policy) metricName(name string) string {
	if p.name == ours.name {
		return "overload." + name
	}
	return "overload.peer." + p.name + "." + name
}

// world is one cell being run under one policy.
type world struct {
	sim
	cell    cell
	policy  policy
	entries []entryPolicy
	leaves  []*leaf // of the first service, then of the second
	bubble  *bubble // in which peers wait; nil for those that never do
}

func newWorld(c cell, p policy, seed uint64) *world { return newWorldIn(nil, c, p, seed) }

func newWorldIn(b *bubble, c cell, p policy, seed uint64) *world {
	w := &world{cell: c, policy: p, bubble: b}
	for i := range c.topo.leaves * c.topo.services {
		l := &leaf{world: w, index: i, slots: c.topo.slotsOf(i / c.topo.leaves), rnd: rand.New(rand.NewPCG(seed, 1000+uint64(i)))}
		w.leaves = append(w.leaves, l)
	}
	for _, l := range w.leaves {
		l.policy = p.leaf(w, l)
	}
	for i := range c.topo.entries {
		w.entries = append(w.entries, p.entry(w, rand.New(rand.NewPCG(seed, 2000+uint64(i)))))
	}
	return w
}

// play runs the tasks and lets the stragglers end.
func (w *world) play(tasks []task) {
	var next func(i int)
	next = func(i int) {
		w.next(&tasks[i], 0)
		if i+1 < len(tasks) {
			w.after(tasks[i+1].born-w.now, func() { next(i + 1) })
		}
	}
	w.after(tasks[0].born, func() { next(0) })
	w.run(time.Duration((w.cell.length() + 3) * float64(time.Second)))
}

// next makes the next call of a task, or ends it.
func (w *world) next(t *task, seq int) {
	if seq == t.x {
		t.ended = w.now
		t.ok = w.now <= t.deadline
		return
	}
	w.attempt(t, seq, 0)
}

func (w *world) attempt(t *task, seq, attempt int) {
	for ; ; attempt++ {
		c := &call{task: t, seq: seq, attempt: attempt}
		c.Priority, c.Ticket = t.priority, qos.Ticket(seq)
		c.Method, c.Deadline = admission.Method(t.method), t.deadline
		switch w.entries[t.entry].route(t, seq%w.cell.topo.services, c) {
		case send:
			w.after(w.cell.topo.oneWay, func() { c.leaf.receive(c) })
			return
		case holdAlways:
			return
		}
		if attempt >= w.cell.topo.resends {
			return
		}
	}
}

// answered takes a call's end back to its entry.
func (w *world) answered(c *call, o outcome, level int) {
	w.entries[c.task.entry].answered(c, level)
	switch {
	case o == served:
		w.next(c.task, c.seq+1)
	case o == refused && c.attempt < w.cell.topo.resends:
		w.attempt(c.task, c.seq, c.attempt+1)
	}
}

// slowness is the factor of service times now.
func (w *world) slowness() float64 {
	if s := w.now.Seconds(); w.cell.slow > 0 && s >= w.cell.from && s < w.cell.to {
		return w.cell.slow
	}
	return 1
}

// leaf is a server of known capacity: slots workers behind a queue.
type leaf struct {
	world   *world
	index   int
	policy  leafPolicy
	slots   int
	rnd     *rand.Rand
	busy    int
	queue   []*call // handed over and waiting for a worker
	head    int
	debt    time.Duration // time of workers burnt by arrivals, not yet paid
	spent   time.Duration // busy time of all workers until changed
	changed time.Duration
	onWait  func(wait time.Duration) // hears how long each call waited for a worker
}

// receive takes a call off the wire.
func (l *leaf) receive(c *call) {
	if l.gone(c) {
		l.reply(c, late)
		return
	}
	l.debt += l.world.cell.topo.refusal
	l.policy.arrive(c)
}

// gone says that nobody waits for the call any more, and that the leaf knows.
func (l *leaf) gone(c *call) bool {
	return !l.world.policy.blind && l.world.now >= c.task.deadline
}

// execute hands a call to the workers.
func (l *leaf) execute(c *call) {
	c.startsAt = l.world.now
	if l.busy < l.slots && l.head == len(l.queue) {
		l.work(c)
		return
	}
	l.queue = append(l.queue, c)
}

// refuse answers a call without work.
func (l *leaf) refuse(c *call, o outcome) { l.reply(c, o) }

func (l *leaf) reply(c *call, o outcome) {
	level := l.policy.level()
	l.world.after(l.world.cell.topo.oneWay, func() { l.world.answered(c, o, level) })
}

func (l *leaf) work(c *call) {
	if l.onWait != nil {
		l.onWait(l.world.now - c.startsAt)
	}
	l.turn(1)
	topo := l.world.cell.topo
	d := time.Duration(float64(topo.draw(c.task.method, l.rnd)) * l.world.slowness())
	d += l.debt
	l.debt = 0
	l.world.after(d, func() {
		l.turn(-1)
		c.task.calls++
		l.pull() // before the policy lets the next one in, which comes after these
		l.policy.finished(c)
		l.reply(c, served)
	})
}

// turn makes workers busy or free.
func (l *leaf) turn(n int) {
	l.spent, l.changed = l.worked(), l.world.now
	l.busy += n
}

// worked is the busy time of all workers so far.
func (l *leaf) worked() time.Duration {
	return l.spent + time.Duration(l.busy)*(l.world.now-l.changed)
}

// pull gives free workers their next call.
func (l *leaf) pull() {
	for l.busy < l.slots && l.head < len(l.queue) {
		c := l.queue[l.head]
		l.queue[l.head] = nil
		l.head++
		if l.head > 1024 && l.head*2 > len(l.queue) {
			l.queue = append(l.queue[:0], l.queue[l.head:]...)
			l.head = 0
		}
		if l.gone(c) {
			if l.onWait != nil {
				l.onWait(c.task.deadline - c.startsAt)
			}
			l.policy.finished(c)
			l.reply(c, late)
			continue
		}
		l.work(c)
	}
}

// plainEntry sends every call to a leaf drawn at random.
type plainEntry struct {
	world *world
	rnd   *rand.Rand
}

func newPlainEntry(w *world, rnd *rand.Rand) entryPolicy { return &plainEntry{w, rnd} }

func (e *plainEntry) route(_ *task, service int, c *call) routing {
	per := e.world.cell.topo.leaves
	c.leaf = e.world.leaves[service*per+e.rnd.IntN(per)]
	return send
}

func (e *plainEntry) answered(*call, int) {}
