// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/qos/admission"
)

// ours is package admission at both ends, as the framework wires it.
var ours = policy{name: "ours", leaf: newOurLeaf, entry: newOurEntry}

type ourLeaf struct {
	leaf   *leaf
	ctl    *admission.Controller
	out    []admission.Decision
	waited time.Duration // for a worker, after admission, since the tick
	starts int
}

// minStarts is how few starts say nothing about the mean delay of a window. The
// scheduler's own histogram, which a process reads, has no such lack.
const minStarts = 5

func newOurLeaf(w *world, l *leaf) leafPolicy {
	methods := 1
	if w.cell.topo.dist == "mixed" {
		methods = 2
	}
	ctl, err := admission.New(admission.Config{Cores: l.slots, Methods: methods}, w.now)
	if err != nil {
		panic(err) // the topology was checked: a mistake of this program
	}
	o := &ourLeaf{leaf: l, ctl: ctl}
	l.onWait = func(d time.Duration) { o.waited += d; o.starts++ }
	w.every(admission.TickEvery, func() {
		delay := time.Duration(-1)
		if o.starts >= minStarts {
			delay = o.waited / time.Duration(o.starts)
		}
		o.waited, o.starts = 0, 0
		o.out = ctl.Tick(w.now, delay, o.out[:0])
		o.carryOut()
	})
	w.every(admission.SweepEvery, func() {
		o.out = ctl.Sweep(w.now, o.out[:0])
		o.carryOut()
	})
	return o
}

func (o *ourLeaf) arrive(c *call) {
	if r := c.report; r.Count > 0 {
		o.ctl.Suppressed(r.Count, r.Priority, r.Method)
	}
	c.Frame = c
	o.out = o.ctl.Arrive(o.leaf.world.now, &c.Call, o.out[:0])
	o.carryOut()
}

func (o *ourLeaf) finished(c *call) {
	o.out = o.ctl.Done(o.leaf.world.now, &c.Call, o.out[:0])
	o.carryOut()
}

func (o *ourLeaf) carryOut() {
	for _, d := range o.out {
		c := d.Call.Frame.(*call)
		switch {
		case d.Verdict == admission.Run:
			o.leaf.execute(c)
		case d.Verdict == admission.Late:
			o.leaf.refuse(c, late)
		case d.Verdict.Refused():
			o.leaf.refuse(c, refused)
		}
	}
}

func (o *ourLeaf) level() int { return int(o.ctl.Level()) }

type ourEntry struct {
	world    *world
	draw     admission.Draw
	replicas [][]*admission.Replica // by service
}

func newOurEntry(w *world, rnd *rand.Rand) entryPolicy {
	e := &ourEntry{world: w, draw: rnd.IntN}
	for range w.cell.topo.services {
		var rs []*admission.Replica
		for range w.cell.topo.leaves {
			rs = append(rs, new(admission.Replica))
		}
		e.replicas = append(e.replicas, rs)
	}
	return e
}

func (e *ourEntry) replica(l *leaf) *admission.Replica {
	per := e.world.cell.topo.leaves
	return e.replicas[l.index/per][l.index%per]
}

func (e *ourEntry) route(t *task, service int, c *call) routing {
	now, per := e.world.now, e.world.cell.topo.leaves
	i, ok := admission.Pick(now, e.replicas[service], c.Priority, c.Ticket, e.draw)
	c.leaf = e.world.leaves[service*per+i]
	if !ok {
		e.replicas[service][i].Hold(c.Priority, c.Method, e.draw)
		return holdAlways
	}
	if c.Ticket.Fresh() {
		// What a task will call is known here; the framework learns it.
		for later := service + 1; later < min(t.x, len(e.replicas)); later++ {
			if k, ok := admission.Gate(now, e.replicas[later], c.Priority, e.draw); !ok {
				e.replicas[later][k].Hold(c.Priority, c.Method, e.draw)
				return holdAlways
			}
		}
	}
	c.report = e.replica(c.leaf).Sent()
	return send
}

func (e *ourEntry) answered(c *call, level int) {
	r := e.replica(c.leaf)
	r.Returned()
	r.Heard(e.world.now, prio(level))
}
