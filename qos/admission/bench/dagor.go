// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// dagorConfig holds the figures of the paper (Zhou et al., SoCC 2018, section 4.2).
type dagorConfig struct {
	window    time.Duration // of detection ...
	requests  int           // ... or so many requests, whichever comes first
	threshold time.Duration // of the mean queueing time
	alpha     float64       // share shed in an overloaded window
	beta      float64       // share added in another
	// atMost bounds how many levels one window adds. The paper has no bound; but
	// callers refuse what the level excludes, so that the leaf counts nothing there
	// and one step opens everything.
	atMost int
}

var (
	literalDAGOR = dagorConfig{window: time.Second, requests: 2000, threshold: 20 * time.Millisecond, alpha: .05, beta: .01, atMost: qos.Priorities}
	// shortDAGOR is what we could make of it: a window of 100 ms and a bounded step
	// of 1 % of the 512 levels in use.
	shortDAGOR = dagorConfig{window: 100 * time.Millisecond, requests: 2000, threshold: 20 * time.Millisecond, alpha: .05, beta: .01, atMost: 5}
)

// The levels that the offered load uses: DAGOR steps level by level, and would
// need hours through empty ones.
const (
	bestUsed  = int(qos.Critical) << 7
	worstUsed = int(qos.Interactive)<<7 | (qos.UserLevels - 1)
)

func dagor(name string, cfg dagorConfig) policy {
	return policy{
		name: name,
		leaf: func(w *world, l *leaf) leafPolicy {
			d := &dagorLeaf{cfg: cfg, leaf: l, at: worstUsed, start: w.now}
			l.onWait = func(wait time.Duration) { d.waited += wait; d.starts++ }
			w.every(cfg.window/10, func() {
				if w.now-d.start >= cfg.window {
					d.update()
				}
			})
			return d
		},
		entry: func(w *world, rnd *rand.Rand) entryPolicy {
			e := &dagorEntry{plainEntry: plainEntry{w, rnd}, levels: make([]int, len(w.leaves))}
			for i := range e.levels {
				e.levels[i] = worstUsed
			}
			return e
		},
	}
}

type dagorLeaf struct {
	cfg      dagorConfig
	leaf     *leaf
	at       int // the admission level
	count    [qos.Priorities]int
	arrived  int
	admitted int
	waited   time.Duration
	starts   int
	start    time.Duration // of the window
}

func (d *dagorLeaf) update() {
	if d.starts > 0 && d.waited/time.Duration(d.starts) > d.cfg.threshold {
		want := (1 - d.cfg.alpha) * float64(d.admitted)
		for prefix := float64(d.admitted); prefix > want && d.at > bestUsed; d.at-- {
			prefix -= float64(d.count[d.at])
		}
	} else {
		want := float64(d.admitted) + d.cfg.beta*float64(d.arrived)
		prefix := float64(d.admitted)
		for step := 0; prefix < want && d.at < worstUsed && step < d.cfg.atMost; step++ {
			d.at++
			prefix += float64(d.count[d.at])
		}
	}
	d.count = [qos.Priorities]int{}
	d.arrived, d.admitted, d.waited, d.starts = 0, 0, 0, 0
	d.start = d.leaf.world.now
}

func (d *dagorLeaf) arrive(c *call) {
	p := int(c.Priority)
	d.count[p]++
	d.arrived++
	ok := p <= d.at
	if ok {
		d.admitted++
	}
	if d.arrived >= d.cfg.requests {
		d.update()
	}
	if !ok {
		d.leaf.refuse(c, refused)
		return
	}
	d.leaf.execute(c)
}

func (d *dagorLeaf) finished(*call) {}
func (d *dagorLeaf) level() int     { return d.at }

// dagorEntry refuses what the leaf it drew would refuse.
type dagorEntry struct {
	plainEntry
	levels []int // by leaf, as last heard
}

func (e *dagorEntry) route(t *task, service int, c *call) routing {
	e.plainEntry.route(t, service, c)
	if int(c.Priority) > e.levels[c.leaf.index] {
		return hold
	}
	return send
}

func (e *dagorEntry) answered(c *call, level int) { e.levels[c.leaf.index] = level }
