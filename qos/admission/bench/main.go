// SPDX-License-Identifier: Apache-2.0

// Command bench measures overload control in virtual time: entries call leaves of
// known capacity, more is asked than they can do, and what counts is how near to
// the optimum the tasks that end in time come.
//
//	go run . -seed 1 -json ../../../build/bench-overload.jsonl
//	go run . -only burst5,brownout4 -policies ours
//	go run . -leaves 10 -entries 50 -slots 32 -dist heavy -x 3 -factor 6
//
// Ours is bit-equal for a seed. Every policy gets the same tasks at the same
// instants. The signal that package admission reads in a process from Go's
// scheduler is here the true wait for a worker; so are the delays that DAGOR reads.
//
// It exits 0 when it has measured, whether or not a goal is met.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type config struct {
	seed     uint64
	json     string
	only     []string
	policies []policy
	packaged []policy // the policies that need a bubble
	topo     topology
	x        int
	factor   float64
}

func parse(args []string) (config, error) {
	c := config{topo: standard}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.Uint64Var(&c.seed, "seed", 1, "seed of arrivals and service times")
	f.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	only := f.String("only", "", "cells to run, by the beginning of their names, comma-separated; empty is all")
	names := f.String("policies", "", "policies to run, comma-separated; empty is all: "+strings.Join(policyNames(), ","))
	f.IntVar(&c.topo.entries, "entries", c.topo.entries, "entry instances")
	f.IntVar(&c.topo.leaves, "leaves", c.topo.leaves, "leaf instances of a service")
	f.IntVar(&c.topo.slots, "slots", c.topo.slots, "workers of a leaf")
	f.DurationVar(&c.topo.oneWay, "oneway", c.topo.oneWay, "delay of the wire, one way")
	f.DurationVar(&c.topo.refusal, "rejectcost", c.topo.refusal, "time of a worker burnt by each arrival")
	f.StringVar(&c.topo.dist, "dist", c.topo.dist, "service times: uniform, exp, heavy, mixed")
	f.IntVar(&c.x, "x", 2, "with -factor: calls a task, 0 mixes 1 to 4")
	f.Float64Var(&c.factor, "factor", 0, "run one steady cell at this load instead of the table")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q: everything is a flag, see -help", f.Arg(0))
	}
	t := c.topo
	if t.entries < 1 || t.leaves < 1 || t.slots < 1 || t.oneWay < 0 || t.refusal < 0 || c.x < 0 || c.x > 4 || c.factor < 0 {
		return c, fmt.Errorf("entries, leaves and slots start at 1, durations and -factor at 0, and -x is 0 to 4")
	}
	if !slices.Contains([]string{"uniform", "exp", "heavy", "mixed"}, t.dist) {
		return c, fmt.Errorf("-dist %q: want uniform, exp, heavy or mixed", t.dist)
	}
	if *only != "" {
		c.only = strings.Split(*only, ",")
	}
	c.policies, c.packaged = chosen(policies, *names), chosen(packaged, *names)
	if len(c.policies)+len(c.packaged) == 0 {
		return c, fmt.Errorf("-policies %q: want some of %s", *names, strings.Join(policyNames(), ","))
	}
	return c, nil
}

// chosen are the policies named in a list; an empty list names all.
func chosen(from []policy, names string) []policy {
	var ps []policy
	for _, p := range from {
		if names == "" || slices.Contains(strings.Split(names, ","), p.name) {
			ps = append(ps, p)
		}
	}
	return ps
}

// wanted says whether a cell is among those asked for.
func (c config) wanted(name string) bool {
	return len(c.only) == 0 || slices.ContainsFunc(c.only, func(p string) bool { return strings.HasPrefix(name, p) })
}

func (c config) experiments() []experiment {
	if c.factor > 0 {
		cell := steady(c.topo, c.factor, c.x)
		return []experiment{{cell, func(g figures) []metric {
			return []metric{
				{cell.name + ".goodput", g.goodput, ratio},
				{cell.name + ".waste", g.waste, "of work"},
				{cell.name + ".p99_ms", g.p99, "ms"},
				{"top20", g.top20, ratio},
				{"fair", g.fairX, "min/max"},
			}
		}}}
	}
	return slices.DeleteFunc(experiments(c.topo), func(e experiment) bool { return !c.wanted(e.cell.name) })
}

func run(ctx context.Context, args []string, w io.Writer) error {
	cfg, err := parse(args)
	if err != nil {
		return err
	}
	var file io.Writer = io.Discard
	if cfg.json != "" {
		if err := os.MkdirAll(filepath.Dir(cfg.json), 0o755); err != nil {
			return err
		}
		f, err := os.Create(cfg.json)
		if err != nil {
			return err
		}
		defer f.Close()
		file = f
	}
	enc := json.NewEncoder(file)
	emit := func(m metric) error {
		if _, err := fmt.Fprintf(w, "%-60s %9.4f %s\n", m.Metric, m.Value, m.Unit); err != nil {
			return err
		}
		return enc.Encode(m)
	}
	for _, p := range cfg.policies {
		var all []metric
		for _, e := range cfg.experiments() {
			tasks := e.cell.arrivals(cfg.seed)
			newWorld(e.cell, p, cfg.seed).play(tasks)
			all = append(all, e.read(e.cell.measure(tasks))...)
		}
		for _, m := range summary(all) {
			m.Metric = p.metricName(m.Metric)
			if err := emit(m); err != nil {
				return err
			}
		}
	}
	if len(cfg.packaged) == 0 {
		return nil
	}
	return runPackaged(ctx, args, emit)
}

// policies are those that live in the simulator alone.
var policies = []policy{
	ours,
	dagor("dagor", literalDAGOR),
	dagor("dagor-100ms", shortDAGOR),
	codelLIFO,
	none("fifo", false),
	none("none", true),
}

func policyNames() []string {
	var ns []string
	for _, p := range slices.Concat(policies, packaged) {
		ns = append(ns, p.name)
	}
	return ns
}
