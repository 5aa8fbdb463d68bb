// SPDX-License-Identifier: Apache-2.0

// Command overload measures what admission does in real processes over loopback:
// server and generator pinned apart, each to half of the cores, handlers that spin.
//
//	go run . -json ../../../build/bench-overload-real.jsonl
//	go run . -rounds 1 -only overload.cpu
//	go run . -only qos.reject,qos.served
//
// The capacity is the best goodput of a closed loop against the same server without
// admission, on the same cores, measured right before and right after each cell: a
// machine that is shared is faster or slower by a tenth a minute later.
// The load is an open loop: tasks arrive by chance (Poisson) at instants drawn in
// advance, and their time counts from there. The cells have the names and the
// reading of those in virtual time (qos/admission/bench), but last seconds.
//
// Every cell has fresh processes. A figure is the median of the rounds. It exits 0
// when it has measured, whether or not a goal is met.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/zeromicro/go-zero/core/logx"
)

func main() {
	logx.Disable() // go-zero's own log, which a process writes that links it
	if len(os.Args) > 2 && os.Args[1] == childArg {
		if err := childMain(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n", os.Args[2:], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "overload:", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "overload: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

func childMain(role string, args []string) error {
	switch role {
	case "generator":
		return generatorMain()
	case "calibrate":
		return once(calibrate)
	case "admit":
		return once(admitOnce)
	}
	return serverMain(role, args)
}

// once is a child that gives one report and ends.
func once(make func() (report, error)) error {
	r, err := make()
	if err != nil {
		return err
	}
	return obey(r, func(o order) (report, error) { return report{}, fmt.Errorf("%s: there is nothing more to do", o.Op) })
}

// config is what the command line says.
type config struct {
	rounds int
	turns  int     // of each server under a flood, in a round
	count  float64 // seconds of a cell that count
	seed   uint64
	json   string
	only   []string
	server []int // cores
	gen    []int
	quota  float64 // cores of CPU time that a server may use; 0 is all of its cores
	loops  float64 // of spin, a µs
}

// capacity is how many cores a server has.
func (c config) capacity() float64 {
	if c.quota > 0 {
		return c.quota
	}
	return float64(len(c.server))
}

// wants says whether something that gives these metrics is to be measured.
func (c config) wants(names ...string) bool {
	return len(c.only) == 0 || slices.ContainsFunc(names, func(name string) bool {
		return slices.ContainsFunc(c.only, func(p string) bool { return strings.HasPrefix(name, p) || strings.HasPrefix(p, name+".") })
	})
}

func parse(args []string) (config, error) {
	c := config{turns: 4}
	f := flag.NewFlagSet("overload", flag.ContinueOnError)
	f.IntVar(&c.rounds, "rounds", 3, "interleaved rounds; figures are their medians")
	f.Float64Var(&c.count, "count", 2.5, "seconds of a cell that count, 1 to 60")
	f.Uint64Var(&c.seed, "seed", 1, "seed of arrivals, users and costs")
	f.Float64Var(&c.quota, "quota", 0, "cores of CPU time that each server may use on all the cores, by a control group's quota as containers have it; 0 pins it to half the cores instead")
	f.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	only := f.String("only", "", "what to measure, by the beginning of metrics' names, comma-separated; empty is all")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q; see -help", f.Arg(0))
	case c.rounds < 1:
		return c, fmt.Errorf("-rounds %d: at least 1", c.rounds)
	case c.quota < 0 || c.quota > float64(runtime.NumCPU()):
		return c, fmt.Errorf("-quota %v: 0 to %d, the cores of this machine", c.quota, runtime.NumCPU())
	case c.count < 1 || c.count > 60:
		return c, fmt.Errorf("-count %v: 1 to 60", c.count)
	}
	if *only != "" {
		c.only = strings.Split(*only, ",")
	}
	return c, nil
}

// run measures what is wanted, and reports.
func run(ctx context.Context, cfg config) error {
	var err error
	if cfg.server, cfg.gen, err = halves(); err != nil {
		return err
	}
	if cfg.quota > 0 {
		cfg.server = slices.Sorted(slices.Values(append(slices.Clone(cfg.server), cfg.gen...)))
		cfg.gen = cfg.server
	}
	p, err := start(ctx, cfg.server, "calibrate")
	if err != nil {
		return err
	}
	cfg.loops = p.first.Value
	if err := p.stop(); err != nil {
		return err
	}
	res := newResults(os.Stdout)
	res.machine(cfg)
	if err := admitPart(ctx, cfg, res); err != nil {
		return fmt.Errorf("admit: %w", err)
	}
	for round := range cfg.rounds {
		if err := costPart(ctx, cfg, res, round); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		if err := loadPart(ctx, cfg, res, round); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	res.table()
	if cfg.json == "" {
		return nil
	}
	return res.writeJSON(cfg.json)
}
