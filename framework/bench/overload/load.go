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
)

const ratio = "of optimum"

// Every cell begins at 0.7 of the capacity, as a process does that has run for long.
const (
	before = .6  // seconds of it
	settle = 1.2 // seconds of the load that do not count
	after  = .4  // seconds of it behind those that count: their tasks must not get the place of those who would have come
)

func (c config) steady(f float64, x int) cell {
	return c.cell(fmt.Sprintf("steady.f%g.x%d", f, x), x, f)
}

func (c config) cell(name string, x int, f float64) cell {
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

// loadPart plays every cell once.
func loadPart(ctx context.Context, cfg config, res *results, round int) error {
	var wanted []experiment
	var mixes []mix
	for _, e := range cfg.experiments() {
		if e.single && round > 0 || !cfg.wants(e.names()...) {
			continue
		}
		wanted = append(wanted, e)
		if !slices.Contains(mixes, e.cell.Mix) {
			mixes = append(mixes, e.cell.Mix)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	res.line("round %d of %d: capacity", round+1, cfg.rounds)
	first, perCPU, err := capacities(ctx, cfg, res, mixes)
	if err != nil {
		return err
	}
	outcomes := make([]outcome, len(wanted))
	for i := range wanted {
		e := &wanted[i]
		e.cell.Capacity, e.cell.Seed = first[e.cell.Mix], cfg.seed+uint64(round)<<32
		if outcomes[i], err = playOn(ctx, cfg, e.kind, e.cell); err != nil {
			return fmt.Errorf("%s against %s: %w", e.cell.Name, e.kind, err)
		}
		o := outcomes[i]
		f := e.cell.measure(o, e.cell.Capacity)
		res.line("%-18s %-8s goodput %.3f  waste %.3f  p99 %3.0f ms  top20 %.2f  refused there %d (p99 %.0f ms), here %d; server CPU %.2f, calls a CPU second %.2f of the closed loop's, lag %.1f ms",
			e.cell.Name, e.kind, f.goodput, f.waste, f.p99, f.top20, len(o.RefusedUS), f.refused, o.Local, o.ServerCPU, o.PerCPU/perCPU[e.cell.Mix], o.Lag)
	}
	last, _, err := capacities(ctx, cfg, res, mixes)
	if err != nil {
		return err
	}
	values := map[string]float64{}
	note := func(m figure.Metric) {
		values[m.Name] = m.Value
		res.add(m.Name, m.Unit, m.Value)
	}
	for _, m := range mixes {
		res.line("capacity, %s: %.0f calls/s before, %.0f after", m, first[m], last[m])
		note(figure.Metric{Name: "overload.cpu.capacity." + string(m), Value: max(first[m], last[m]), Unit: "calls/s"})
	}
	for i, e := range wanted {
		for _, m := range e.read(e.cell.measure(outcomes[i], max(first[e.cell.Mix], last[e.cell.Mix]))) {
			note(m)
		}
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

// capacities gives the best goodput of closed loops against a server without
// admission, in calls/s: with a few more callers than cores, or with very many if they
// sleep; and how many calls the server did for a second of CPU.
func capacities(ctx context.Context, cfg config, res *results, mixes []mix) (best, perCPU map[mix]float64, err error) {
	const seconds = .8
	best, perCPU = map[mix]float64{}, map[mix]float64{}
	for _, m := range mixes {
		callers := map[mix][]int{uniform: {2, 4, 8}, costs: {4}, sleepy: {64}}[m]
		leaf, err := cfg.startServer(ctx, cfg.server, kindOff)
		if err != nil {
			return nil, nil, err
		}
		gen, err := start(ctx, cfg.gen, "generator")
		if err != nil {
			return nil, nil, errors.Join(err, leaf.stop())
		}
		for _, n := range callers { // for each core
			r, err := gen.do(order{Op: opSaturate, Cell: cell{Mix: m, X: 1}, Addrs: []string{leaf.first.Addr}, Callers: n * len(cfg.server), Seconds: seconds})
			if err != nil {
				return nil, nil, errors.Join(fmt.Errorf("closed loop of %d: %w", n*len(cfg.server), err), stopAll(leaf, gen))
			}
			best[m] = max(best[m], r.Rate)
		}
		r, err := leaf.do(order{Op: opSample})
		if err != nil {
			return nil, nil, errors.Join(err, stopAll(leaf, gen))
		}
		if m != sleepy {
			res.add(cpuShare, "of its cores", (r.CPU-leaf.first.CPU).Seconds()/(r.At-leaf.first.At).Seconds()/float64(len(cfg.server)))
		}
		perCPU[m] = float64(r.Ran) / (r.CPU - leaf.first.CPU).Seconds()
		if err := stopAll(leaf, gen); err != nil {
			return nil, nil, err
		}
	}
	return best, perCPU, nil
}

// startServer starts a server of the load part.
func (c config) startServer(ctx context.Context, cores []int, kind string) (*proc, error) {
	// go-zero sees the CPU of the whole container, of which the server has a part.
	threshold := 900
	if !slices.Equal(c.server, c.gen) {
		threshold = 900 * len(c.server) / (len(c.server) + len(c.gen))
	}
	return start(ctx, cores, kind, strconv.FormatFloat(c.loops, 'g', -1, 64), strconv.Itoa(threshold))
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
		if err := sleep(ctx, time.Duration(at*float64(time.Second))); err != nil {
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
	out.ServerCPU = (busy[1].CPU - busy[0].CPU).Seconds() / (busy[1].At - busy[0].At).Seconds() / float64(len(cfg.server))
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
