// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"

	"github.com/sluice-rpc/sluice/qos"
)

// An outcome is what became of a cell's tasks.
type outcome struct {
	Took      []int32 // µs from the scheduled time; failed is -1
	Done      []byte  // calls that servers have done for each task
	RefusedUS []int32 // calls refused by a server: µs from sending until the answer
	Local     int     // calls refused before they were sent
	Lag       float64 // p99 of how late tasks were begun, ms
	ServerCPU float64 // of the server's cores, share that it used
	PerCPU    float64 // calls done for a second of it
}

// figures are what a cell gives.
type figures struct {
	goodput  float64 // share of the optimum
	waste    float64 // share of the calls done that were done for tasks that failed
	p99      float64 // ms, of tasks that ended in time
	refused  float64 // ms, p99 of the calls that a server has refused
	top20    float64 // success of the two best classes, share of its optimum
	fairX    float64 // least to most success over the calls a task makes
	fairCost float64 // least to most success, dear and cheap tasks of one class
	recover  float64 // ms until success is normal after the window; all that was looked at if it never is
	good     float64 // tasks a second
}

// bin is the resolution of the recovery time, in seconds.
const bin = .2

// measure reads the figures off a cell, as those of the simulator are read. Could is
// the capacity in calls/s that counts: it may have turned out to be more than the one
// that the loads were drawn from.
func (c cell) measure(o outcome, could float64) figures {
	var f figures
	var offered, good, work, lost, top, topGood float64
	var took []float64
	var xAll, xGood [maxCalls + 1]float64
	var costAll, costGood [int(qos.MaxClass) + 1][2]float64
	tasks := c.tasks()
	for i, t := range tasks {
		if !c.counts(&t) {
			continue
		}
		weight := c.Mix.weight(t.method)
		offered += weight
		work += weight * float64(o.Done[i])
		xAll[t.x]++
		costAll[t.class][t.method]++
		if t.class <= qos.Browse {
			top++
		}
		if o.Took[i] < 0 {
			lost += weight * float64(o.Done[i])
			continue
		}
		good += weight
		xGood[t.x]++
		costGood[t.class][t.method]++
		if t.class <= qos.Browse {
			topGood++
		}
		took = append(took, float64(o.Took[i])/1e3)
	}
	capacity := c.tasksAt(could) * (c.To - c.From)
	if c.Slow > 0 {
		capacity /= c.Slow
	}
	optimum := min(offered, capacity)
	f.goodput, f.good = good/optimum, good/(c.To-c.From)
	if work > 0 {
		f.waste = lost / work
	}
	f.p99 = quantile(took, .99)
	refused := make([]float64, len(o.RefusedUS))
	for i, us := range o.RefusedUS {
		refused[i] = float64(us) / 1e3
	}
	f.refused = quantile(refused, .99)
	if top > 0 {
		f.top20 = topGood / top / min(1, optimum/top)
	}
	f.fairX = spread(xAll[:], xGood[:], 0)
	f.fairCost = 1
	for class := range costAll {
		// A class that is shed as a whole says nothing about its methods.
		f.fairCost = min(f.fairCost, spread(costAll[class][:], costGood[class][:], .05))
	}
	f.recover = c.recovery(tasks, o)
	return f
}

// quantile sorts values and gives that of rank q; 0 of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[int(float64(len(values)-1)*q)]
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
func (c cell) recovery(tasks []task, o outcome) float64 {
	n := int(math.Round((c.length()-c.To)/bin*10) / 10)
	all, good := make([]float64, max(n, 0)), make([]float64, max(n, 0))
	for i, t := range tasks {
		k := int(math.Floor((t.born.Seconds() - c.To) / bin))
		if k < 0 || k >= n {
			continue
		}
		all[k]++
		if o.Took[i] >= 0 {
			good[k]++
		}
	}
	row := 0
	for k := range n {
		if row++; all[k] == 0 || good[k] < .97*all[k] {
			row = 0
		}
		if row == 5 {
			return float64(k-4) * bin * 1e3
		}
	}
	return float64(n) * bin * 1e3
}
