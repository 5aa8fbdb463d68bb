// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"
)

// metric is one line of the result.
type metric struct {
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
}

const ratio = "of optimum"

// standard is the topology of the table; flags change it.
var standard = topology{
	entries: 3, leaves: 3, slots: 4, services: 1,
	oneWay: 150 * time.Microsecond, refusal: 75 * time.Microsecond, // 1 % of a call
	deadline: 500 * time.Millisecond, dist: "uniform",
}

var (
	factors   = []float64{.9, 1, 1.2, 2, 4, 8, 10}
	callsEach = []int{1, 2, 4}
)

// after is how many seconds a steady load goes on when its tasks count no more.
const after = 1.

// overloaded is the load from which mean and worst of the steady cells are taken.
const overloaded = 1.2

// steady runs at 0.7 of the capacity for 10 s, then at f times it: 15 s to settle
// and 10 s that count. Near the capacity chance alone moves 10 s by 1.5 %, so there
// it is 60 s. The load goes on for the time of a deadline and more, so that the last
// tasks that count do not get the place of those who would have come.
func steady(t topology, f float64, x int) cell {
	counted := 10.
	if f <= overloaded {
		counted = 60
	}
	return cell{
		name: fmt.Sprintf("steady.f%g.x%d", f, x), topo: t, x: x,
		phases: []phase{{10, .7}, {15 + counted + after, f}}, from: 25, to: 25 + counted,
	}
}

// experiment is a cell and the metrics it gives.
type experiment struct {
	cell cell
	read func(f figures) []metric
}

// experiments is the table of the project's overload benchmark.
func experiments(t topology) []experiment {
	var es []experiment
	for _, f := range factors {
		for _, x := range callsEach {
			c := steady(t, f, x)
			es = append(es, experiment{c, func(g figures) []metric {
				ms := []metric{{c.name + ".goodput", g.goodput, ratio}, {c.name + ".waste", g.waste, "of work"}, {c.name + ".p99_ms", g.p99, "ms"}}
				if f == 4 && x == 2 {
					ms = append(ms, metric{"top20", g.top20, ratio})
				}
				return ms
			}})
		}
	}
	es = append(es, one("fair", cell{topo: t, phases: []phase{{10, .7}, {75 + after, 3}}, from: 25, to: 85}, func(g figures) []metric {
		return []metric{{"fair", g.fairX, "min/max"}}
	}))
	wave := []phase{{15, .8}, {10, .8 * 5}, {15, .8}}
	es = append(es, one("burst5", cell{topo: t, x: 2, phases: wave, from: 15, to: 25}, func(g figures) []metric {
		return []metric{{"burst5.goodput", g.goodput, ratio}, {"burst5.recover_ms", g.recover, "ms"}}
	}))
	es = append(es, one("brownout4", cell{topo: t, x: 2, phases: []phase{{40, .8}}, from: 15, to: 25, slow: 4}, func(g figures) []metric {
		return []metric{{"brownout4.goodput", g.goodput, ratio}}
	}))
	resend := t
	resend.resends = 3
	es = append(es, one("resend3", steady(resend, 4, 2), goodput("resend3.goodput")))
	reject := t
	reject.refusal = time.Duration(t.mean() * .1 * float64(time.Second))
	es = append(es, one("rejectcost10", steady(reject, 4, 2), goodput("rejectcost10.goodput")))
	chain := t
	chain.services = 2
	for _, f := range []float64{1.5, 4} {
		name := fmt.Sprintf("chain2.f%g", f)
		es = append(es, one(name, steady(chain, f, 2), func(g figures) []metric {
			return []metric{{name + ".goodput", g.goodput, ratio}, {name + ".waste", g.waste, "of work"}}
		}))
	}
	mixed := t
	mixed.dist = "mixed"
	// Dear tasks are few: 40 s of them, so that chance stays below the 10 % sought.
	es = append(es, one("mixedcost", cell{topo: mixed, x: 2, phases: []phase{{10, .7}, {55 + after, 4}}, from: 25, to: 65}, func(g figures) []metric {
		return []metric{{"mixedcost.goodput", g.goodput, ratio}, {"mixedcost.fair", g.fairCost, "min/max"}}
	}))
	return es
}

func one(name string, c cell, read func(figures) []metric) experiment {
	c.name = name
	return experiment{c, read}
}

func goodput(name string) func(figures) []metric {
	return func(g figures) []metric { return []metric{{name, g.goodput, ratio}} }
}

// summary adds what is drawn from several cells.
func summary(ms []metric) []metric {
	value := map[string]float64{}
	for _, m := range ms {
		value[m.Metric] = m.Value
	}
	var good, waste, p99 []float64
	for _, f := range factors {
		for _, x := range callsEach {
			v, ok := value[fmt.Sprintf("steady.f%g.x%d.goodput", f, x)]
			if !ok || f < overloaded {
				continue
			}
			good = append(good, v)
			waste = append(waste, value[fmt.Sprintf("steady.f%g.x%d.waste", f, x)])
			p99 = append(p99, value[fmt.Sprintf("steady.f%g.x%d.p99_ms", f, x)])
		}
	}
	if len(good) > 0 {
		sum := 0.
		for _, v := range good {
			sum += v
		}
		ms = append(ms,
			metric{"steady.mean", sum / float64(len(good)), ratio}, metric{"steady.worst", slices.Min(good), ratio},
			metric{"steady.waste", slices.Max(waste), "of work"}, metric{"steady.p99_ms", slices.Max(p99), "ms"})
	}
	a, okA := value["chain2.f1.5.waste"]
	if b, okB := value["chain2.f4.waste"]; okA && okB {
		ms = append(ms, metric{"chain2.waste", max(a, b), "of work"})
	}
	return ms
}
