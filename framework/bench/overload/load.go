// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

const ratio = "of optimum"

// Every cell begins at 0.7 of the capacity, as a process does that has run for long.
const (
	before = .6  // seconds of it
	settle = 1.2 // seconds of twice the capacity and more that do not count
	after  = .4  // seconds of it behind those that count: their tasks must not get the place of those who would have come
)

func (c config) steady(f float64, x int) cell {
	return c.cell(fmt.Sprintf("steady.f%g.x%d", f, x), x, f)
}

func (c config) cell(name string, x int, f float64) cell {
	// Until the queue is as long as it stays, more is done than comes in: the less too
	// much the load is, the longer that takes.
	settle := max(settle, .8/(f-1))
	from := before + settle
	return cell{
		Name: name, Mix: uniform, X: x, From: from, To: from + c.count,
		Phases: []phase{{before, .7}, {settle + c.count + after, f}},
	}
}

// wave is a burst: for so long, five times what goes before and comes after.
func (c config) wave(name string, x int) cell {
	return cell{Name: name, Mix: uniform, X: x, Phases: []phase{{2, .8}, {c.count, .8 * 5}, {2.5, .8}}, From: 2, To: 2 + c.count}
}

// An experiment is a cell, the server that it is played against, and the metrics that
// it gives.
type experiment struct {
	cell   cell
	kind   string
	read   func(figures) []figure.Metric
	single bool // in the first round alone: what a peer gives there says enough
}

// experiments is the table. The steady cells of one call a task are those of
// overload.cpu, too.
func (c config) experiments() []experiment {
	steady := func(f float64, x int, more ...func(figures) []figure.Metric) experiment {
		e := c.steady(f, x)
		return experiment{cell: e, kind: kindOurs, read: func(g figures) []figure.Metric {
			name := "overload.real." + e.Name
			ms := []figure.Metric{
				{Name: name + ".goodput", Value: g.goodput, Unit: ratio},
				{Name: name + ".waste", Value: g.waste, Unit: "of calls"}, {Name: name + ".p99_ms", Value: g.p99, Unit: "ms"},
			}
			if x == 1 {
				ms = append(ms, figure.Metric{Name: fmt.Sprintf("overload.cpu.f%g.goodput", f), Value: g.goodput, Unit: ratio})
			}
			for _, m := range more {
				ms = append(ms, m(g)...)
			}
			return ms
		}}
	}
	goodput := func(name string) func(figures) []figure.Metric {
		return func(g figures) []figure.Metric { return []figure.Metric{{Name: name, Value: g.goodput, Unit: ratio}} }
	}
	burst := func(name string) func(figures) []figure.Metric {
		return func(g figures) []figure.Metric {
			return []figure.Metric{{Name: name + ".goodput", Value: g.goodput, Unit: ratio}, {Name: name + ".recover_ms", Value: g.recover, Unit: "ms"}}
		}
	}
	es := []experiment{
		steady(1.2, 1), steady(2, 1),
		steady(4, 1, func(g figures) []figure.Metric {
			return []figure.Metric{
				{Name: "overload.cpu.top20", Value: g.top20, Unit: ratio},
				{Name: "overload.cpu.admitted_p99_ms", Value: g.p99, Unit: "ms"},
				{Name: "overload.cpu.refused_p99_ms", Value: g.refused, Unit: "ms"},
			}
		}),
		steady(8, 1),
		{cell: c.wave("burst5.x1", 1), kind: kindOurs, read: burst("overload.cpu.burst5")},
		steady(2, 2),
		steady(4, 2, func(g figures) []figure.Metric {
			return []figure.Metric{{Name: "overload.real.top20", Value: g.top20, Unit: ratio}}
		}),
	}
	fair := c.cell("fair", 0, 3)
	fair.Phases[1].Seconds += c.count // of four kinds of tasks
	fair.To += c.count
	brown := cell{Name: "brownout4", Mix: uniform, X: 2, Phases: []phase{{2 + c.count + after, .8}}, From: 2, To: 2 + c.count, Slow: 4}
	resend := c.cell("resend3", 2, 4)
	resend.Resends = 3
	mixed := c.cell("mixedcost", 2, 4)
	mixed.Mix = costs
	mixed.Phases[1].Seconds += c.count // dear tasks are few
	mixed.To += c.count
	es = append(es,
		experiment{cell: fair, kind: kindOurs, read: func(g figures) []figure.Metric {
			return []figure.Metric{{Name: "overload.real.fair", Value: g.fairX, Unit: "min/max"}}
		}},
		experiment{cell: c.wave("burst5.x2", 2), kind: kindOurs, read: burst("overload.real.burst5")},
		experiment{cell: brown, kind: kindOurs, read: goodput("overload.real.brownout4.goodput")},
		experiment{cell: resend, kind: kindOurs, read: goodput("overload.real.resend3.goodput")},
		experiment{cell: mixed, kind: kindOurs, read: func(g figures) []figure.Metric {
			return []figure.Metric{{Name: "overload.real.mixedcost.goodput", Value: g.goodput, Unit: ratio}, {Name: "overload.real.mixedcost.fair", Value: g.fairCost, Unit: "min/max"}}
		}},
	)
	for _, f := range []float64{1.5, 4} {
		chain := c.cell(fmt.Sprintf("chain2.f%g", f), 2, f)
		chain.InRow = true
		es = append(es, experiment{cell: chain, kind: kindOurs, read: func(g figures) []figure.Metric {
			name := "overload.real." + chain.Name
			return []figure.Metric{{Name: name + ".goodput", Value: g.goodput, Unit: ratio}, {Name: name + ".waste", Value: g.waste, Unit: "of calls"}}
		}})
	}
	sleepers := c.cell("mix", 1, 4)
	sleepers.Mix = sleepy
	for _, kind := range []string{kindOurs, kindFixed} {
		es = append(es, experiment{cell: sleepers, kind: kind, read: func(g figures) []figure.Metric {
			return []figure.Metric{{Name: "overload.cpu.mix." + kind + "_per_s", Value: g.good, Unit: "tasks/s"}}
		}})
	}
	slow := c.steady(4, 1)
	slow.Name += ".late"
	slow.Phases[1].Seconds += 8 // its CPU gauge looks back for 5 s
	slow.From, slow.To = slow.From+8, slow.To+8
	return append(es,
		experiment{c.steady(4, 1), kindOff, goodput("overload.cpu.peer.none.f4.goodput"), true},
		experiment{c.wave("burst5.x1", 1), kindOff, burst("overload.cpu.peer.none.burst5"), true},
		experiment{slow, kindGoZero, goodput("overload.cpu.peer.go-zero.f4.goodput"), true},
		experiment{c.wave("burst5.x1", 1), kindGoZero, burst("overload.cpu.peer.go-zero.burst5"), true},
	)
}

// names are those of an experiment's metrics.
func (e experiment) names() []string {
	var ns []string
	for _, m := range e.read(figures{}) {
		ns = append(ns, m.Name)
	}
	return ns
}

// loadPart plays every cell once, each between two looks at the capacity.
func loadPart(ctx context.Context, cfg config, res *results, round int) error {
	values := map[string]float64{}
	note := func(m figure.Metric) {
		values[m.Name] = m.Value
		res.add(m.Name, m.Unit, m.Value)
	}
	best := map[mix]float64{}
	var mixes []mix // in the order in which they came
	var last able   // of the mix, behind the cell before
	for _, e := range cfg.experiments() {
		if e.single && round > 0 || !cfg.wants(e.names()...) {
			continue
		}
		c, first := e.cell, last
		if first.mix != c.Mix {
			res.line("round %d of %d: capacity for calls of kind %s", round+1, cfg.rounds, c.Mix)
			var err error
			if first, err = capacity(ctx, cfg, res, c.Mix); err != nil {
				return err
			}
			if _, known := best[c.Mix]; !known {
				mixes = append(mixes, c.Mix)
			}
		}
		c.Capacity, c.Seed = first.rate, cfg.seed+uint64(round)<<32
		o, err := playOn(ctx, cfg, e.kind, c)
		if err != nil {
			return fmt.Errorf("%s against %s: %w", c.Name, e.kind, err)
		}
		if last, err = capacity(ctx, cfg, res, c.Mix); err != nil {
			return err
		}
		could := max(first.rate, last.rate)
		best[c.Mix] = max(best[c.Mix], could)
		f := c.measure(o, could)
		res.line("%-13s %-7s capacity %4.0f, %4.0f after; goodput %.3f  waste %.3f  p99 %3.0f ms  top20 %.2f  refused there %d (p99 %.0f ms), here %d; server CPU %.2f, calls a CPU second %.2f of the closed loop's, lag %.1f ms",
			c.Name, e.kind, first.rate, last.rate, f.goodput, f.waste, f.p99, f.top20, len(o.RefusedUS), f.refused, o.Local, o.ServerCPU, o.PerCPU/max(first.perCPU, last.perCPU), o.Lag)
		for _, m := range e.read(f) {
			note(m)
		}
	}
	for _, m := range mixes {
		note(figure.Metric{Name: "overload.cpu.capacity." + string(m), Value: best[m], Unit: "calls/s"})
	}
	summary(values, note)
	return nil
}

// summary adds what is drawn from several cells of a round.
func summary(values map[string]float64, note func(figure.Metric)) {
	var good, waste, p99 []float64
	for _, f := range []float64{1.2, 2, 4, 8} {
		for x := 1; x <= 2; x++ {
			name := fmt.Sprintf("overload.real.steady.f%g.x%d.", f, x)
			if v, ok := values[name+"goodput"]; ok {
				good, waste, p99 = append(good, v), append(waste, values[name+"waste"]), append(p99, values[name+"p99_ms"])
			}
		}
	}
	if len(good) > 0 {
		sum := 0.
		for _, v := range good {
			sum += v
		}
		note(figure.Metric{Name: "overload.real.steady.mean", Value: sum / float64(len(good)), Unit: ratio})
		note(figure.Metric{Name: "overload.real.steady.worst", Value: slices.Min(good), Unit: ratio})
		note(figure.Metric{Name: "overload.real.steady.waste", Value: slices.Max(waste), Unit: "of calls"})
		note(figure.Metric{Name: "overload.real.steady.p99_ms", Value: slices.Max(p99), Unit: "ms"})
	}
	if a, ok := values["overload.real.chain2.f1.5.waste"]; ok {
		note(figure.Metric{Name: "overload.real.chain2.waste", Value: max(a, values["overload.real.chain2.f4.waste"]), Unit: "of calls"})
	}
	if fixed := values["overload.cpu.mix.fixed_per_s"]; fixed > 0 {
		note(figure.Metric{Name: "overload.cpu.mix_ratio_vs_fixed", Value: values["overload.cpu.mix.ours_per_s"] / fixed, Unit: "ratio"})
	}
}

// able is what a server without admission could do.
type able struct {
	mix    mix
	rate   float64 // calls/s of mean cost
	perCPU float64 // calls for a second of its CPU
}

// capacity gives the best goodput of closed loops against a server without admission:
// with a few more callers than cores, or with very many if they sleep.
func capacity(ctx context.Context, cfg config, res *results, m mix) (a able, err error) {
	const seconds = .8
	a.mix = m
	var ps []*proc
	defer func() { err = errors.Join(err, stopAll(ps...)) }()
	leaf, err := cfg.startServer(ctx, cfg.server, kindOff)
	if err != nil {
		return a, err
	}
	ps = append(ps, leaf)
	gen, err := start(ctx, cfg.gen, "generator")
	if err != nil {
		return a, err
	}
	ps = append(ps, gen)
	for _, n := range map[mix][]int{uniform: {2, 4, 8}, costs: {4}, sleepy: {64}}[m] { // for each core
		r, err := gen.do(order{Op: opSaturate, Cell: cell{Mix: m, X: 1}, Addrs: []string{leaf.first.Addr}, Callers: max(1, int(float64(n)*cfg.capacity())), Seconds: seconds})
		if err != nil {
			return a, fmt.Errorf("closed loop of %d a core: %w", n, err)
		}
		a.rate = max(a.rate, r.Rate)
	}
	r, err := leaf.do(order{Op: opSample})
	if err != nil {
		return a, err
	}
	if m != sleepy {
		res.add(cpuShare, "of its cores", (r.CPU-leaf.first.CPU).Seconds()/(r.At-leaf.first.At).Seconds()/cfg.capacity())
	}
	a.perCPU = float64(r.Ran) / (r.CPU - leaf.first.CPU).Seconds()
	return a, nil
}

// startServer starts a server of the load part.
func (c config) startServer(ctx context.Context, cores []int, kind string) (*proc, error) {
	// go-zero sees the CPU of the whole container, of which the server has a part.
	threshold := 900
	if !slices.Equal(c.server, c.gen) {
		threshold = 900 * len(c.server) / (len(c.server) + len(c.gen))
	}
	return startLimited(ctx, cores, c.quota, kind, strconv.FormatFloat(c.loops, 'g', -1, 64), strconv.Itoa(threshold))
}

// playOn plays a cell against fresh processes.
func playOn(ctx context.Context, cfg config, kind string, c cell) (out outcome, err error) {
	var ps []*proc
	defer func() { err = errors.Join(err, stopAll(ps...)) }()
	leaf, err := cfg.startServer(ctx, cfg.server, kind)
	if err != nil {
		return out, err
	}
	ps = append(ps, leaf)
	addrs := []string{leaf.first.Addr}
	if c.InRow {
		// The service in front stands beside the generator: the two do not share cores.
		front, err := cfg.startServer(ctx, cfg.gen, kind)
		if err != nil {
			return out, err
		}
		ps = append(ps, front)
		addrs = []string{front.first.Addr, leaf.first.Addr}
	}
	gen, err := start(ctx, cfg.gen, "generator")
	if err != nil {
		return out, err
	}
	ps = append(ps, gen)
	if err := gen.send(order{Op: opPlay, Cell: c, Addrs: addrs}); err != nil {
		return out, err
	}
	var busy [2]report
	for i, at := range []float64{c.From, c.To - c.From} {
		if err := wait.For(ctx, time.Duration(at*float64(time.Second))); err != nil {
			return out, err
		}
		if busy[i], err = leaf.do(order{Op: opSample}); err != nil {
			return out, err
		}
	}
	r, err := gen.answer()
	if err != nil {
		return out, err
	}
	out = r.Outcome
	out.ServerCPU = (busy[1].CPU - busy[0].CPU).Seconds() / (busy[1].At - busy[0].At).Seconds() / cfg.capacity()
	out.PerCPU = float64(busy[1].Ran-busy[0].Ran) / (busy[1].CPU - busy[0].CPU).Seconds()
	out.Done = make([]byte, len(out.Took))
	for _, p := range ps[:len(ps)-1] {
		if r, err = p.do(order{Op: opSample, Tasks: len(out.Took)}); err != nil {
			return out, err
		}
		for i, n := range r.Done {
			out.Done[i] += n
		}
	}
	return out, nil
}
