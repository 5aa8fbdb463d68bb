// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// prio is a level as it came off the wire.
func prio(level int) qos.Priority { return qos.Priority(level) }

// figures are what a cell gives.
type figures struct {
	goodput  float64 // share of the optimum
	waste    float64 // share of the leaves' work done for tasks that failed
	p99      float64 // milliseconds, of tasks that ended in time
	top20    float64 // success of the two best classes, share of its optimum
	fairX    float64 // least to most success over the calls a task makes
	fairCost float64 // least to most success, dear and cheap tasks of one class
	recover  float64 // milliseconds until success is normal after the window; all that was looked at if it never is
}

// bin is the resolution of the recovery time.
const bin = 200 * time.Millisecond

// measure reads the figures off the tasks that were run.
func (c cell) measure(tasks []task) figures {
	var f figures
	var offered, good, work, lost, top, topGood float64
	var took []float64
	var xAll, xGood [5]float64
	var costAll, costGood [int(qos.MaxClass) + 1][2]float64
	for i := range tasks {
		t := &tasks[i]
		if b := t.born.Seconds(); b < c.from || b >= c.to {
			continue
		}
		// Of tasks that cost the same, this counts tasks; else their work.
		cost := c.topo.meanOf(t.method) / c.topo.mean()
		offered += cost
		work += cost * float64(t.calls)
		class := t.priority.Class()
		xAll[t.x]++
		costAll[class][t.method]++
		if class <= qos.Browse {
			top++
		}
		if !t.ok {
			lost += cost * float64(t.calls)
			continue
		}
		good += cost
		xGood[t.x]++
		costGood[class][t.method]++
		if class <= qos.Browse {
			topGood++
		}
		took = append(took, (t.ended-t.born).Seconds()*1e3)
	}
	seconds := c.to - c.from
	capacity := c.topo.capacity(c.x) * seconds
	if c.slow > 0 {
		capacity /= c.slow
	}
	optimum := min(offered, capacity)
	f.goodput = good / optimum
	if work > 0 {
		f.waste = lost / work
	}
	if slices.Sort(took); len(took) > 0 {
		f.p99 = took[len(took)*99/100]
	}
	if top > 0 {
		f.top20 = topGood / top / min(1, optimum/top)
	}
	f.fairX = spread(xAll[:], xGood[:], 0)
	f.fairCost = min(1, good)
	for class := range costAll {
		// A class that is shed as a whole says nothing about its methods.
		f.fairCost = min(f.fairCost, spread(costAll[class][:], costGood[class][:], .02))
	}
	f.recover = c.recovery(tasks)
	return f
}

// spread is least to most of the success rates. If the most is below floor they say
// nothing, which counts as even; where nothing succeeds it is 0.
func spread(all, good []float64, floor float64) float64 {
	least, most := math.Inf(1), 0.
	for i := range all {
		if all[i] > 0 {
			least, most = min(least, good[i]/all[i]), max(most, good[i]/all[i])
		}
	}
	switch {
	case most < floor:
		return 1
	case most == 0:
		return 0
	}
	return least / most
}

// recovery is the time from the end of the window to the first of five bins in a
// row in which 97 % of the tasks succeed; all of the time after it if there are none.
func (c cell) recovery(tasks []task) float64 {
	n := int((c.length() - c.to) / bin.Seconds())
	all, good := make([]float64, n), make([]float64, n)
	for i := range tasks {
		k := int(math.Floor((tasks[i].born.Seconds() - c.to) / bin.Seconds()))
		if k < 0 || k >= n {
			continue
		}
		all[k]++
		if tasks[i].ok {
			good[k]++
		}
	}
	row := 0
	for k := range n {
		if row++; all[k] == 0 || good[k] < .97*all[k] {
			row = 0
		}
		if row == 5 {
			return float64(k-4) * bin.Seconds() * 1e3
		}
	}
	return float64(n) * bin.Seconds() * 1e3
}
