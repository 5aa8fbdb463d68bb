// SPDX-License-Identifier: Apache-2.0

// Command bench measures Sluice against bare kitex mux and grpc-go, side by side
// in one run, on this machine.
//
//	go run . -rounds 15 -json ../../build/bench-rpc.jsonl
//	go run . -only c100 -rounds 3
//	go run . -only inflight -calls 300000,1000000
//	go run . -only observe,items
//
// Each round runs every framework once, in rotated order, each time with a fresh
// server process and a fresh client process: four connections over loopback, a
// closed loop of 100 and then of 1,000 callers, an echo of 1,000 bytes, an id and
// a name, id and length checked on every answer. What counts is the ratio of two
// frameworks within one round, so that other work on the machine weighs on both;
// the figures shown are medians over the rounds, with quartiles.
//
// CPU is user plus system time of the process, per request that the process has
// served or made. Allocations are runtime.MemStats' over the same window.
//
// It exits 0 when it has measured, whether or not a goal is met. One failed call
// or one wrong answer voids the run: it exits 1 and says which.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// parts are what can be measured. A lone caller is not measured unless asked for, nor
// what recording costs, with frameworks of its own.
var (
	parts        = []string{"c1", "c100", "c1000", "inflight", "local", "hello", "tls", "full", "observe", "items", "idle"}
	defaultParts = parts[1:8]
)

// config is what the command line says.
type config struct {
	rounds    int
	warmUp    time.Duration
	window    time.Duration
	calls     []int         // blocked calls of the inflight part, measured one after the other
	peerCalls int           // the most that others are measured with
	probes    int           // calls made while they are blocked
	settle    time.Duration // how long they stay blocked before memory is read
	json      string
	only      []string
	peers     []string
	verbose   bool
	programs  map[string]string // by framework, if it is not this one
	refusals  bool              // a call may be refused, and made again
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == child.Arg {
		os.Exit(child.Main(os.Args[2:], peerNamed))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var cfg config
	var only, names, calls string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&cfg.rounds, "rounds", 15, "interleaved rounds, each with every framework once")
	flags.DurationVar(&cfg.warmUp, "warmup", 300*time.Millisecond, "load before the measured window")
	flags.DurationVar(&cfg.window, "window", 800*time.Millisecond, "measured window, at most 20s")
	flags.StringVar(&calls, "calls", "100000", "blocked calls of the inflight part, one or more numbers, comma-separated")
	flags.IntVar(&cfg.peerCalls, "peer-calls", 100_000, "most blocked calls that are measured of other frameworks")
	flags.IntVar(&cfg.probes, "probes", 20, "calls made one after the other while calls are blocked")
	flags.DurationVar(&cfg.settle, "settle", 10*time.Second, "how long the calls are blocked before memory is read")
	flags.StringVar(&cfg.json, "json", "", "file to write the metrics to, one JSON object a line")
	flags.StringVar(&only, "only", strings.Join(defaultParts, ","), "parts to run, comma-separated, also c1, a lone caller; observe, what recording costs; items, how many there are")
	flags.StringVar(&names, "peers", strings.Join(peerNames(), ","), "frameworks to run, comma-separated")
	flags.BoolVar(&cfg.verbose, "v", false, "show what server and client processes write to standard error")
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	cfg.only, cfg.peers = strings.Split(only, ","), strings.Split(names, ",")
	for _, p := range cfg.only {
		if !slices.Contains(parts, p) {
			return cfg, fmt.Errorf("-only %s: there is no such part; parts are %s", p, strings.Join(parts, ", "))
		}
	}
	for _, p := range cfg.peers {
		if _, err := peerNamed(p); err != nil {
			return cfg, fmt.Errorf("-peers %s: %w", p, err)
		}
	}
	for n := range strings.SplitSeq(calls, ",") {
		calls, err := strconv.Atoi(n)
		if err != nil || calls < 1 {
			return cfg, fmt.Errorf("-calls %s: want numbers of at least 1", n)
		}
		cfg.calls = append(cfg.calls, calls)
	}
	switch {
	case flags.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	case cfg.rounds < 1:
		return cfg, fmt.Errorf("-rounds %d: at least 1", cfg.rounds)
	case cfg.probes < 1:
		return cfg, fmt.Errorf("-probes %d: at least 1", cfg.probes)
	case cfg.window <= 0 || cfg.window+cfg.warmUp > 20*time.Second:
		return cfg, fmt.Errorf("-window %v: more than 0, and at most 20s with the warm-up", cfg.window)
	}
	return cfg, nil
}

func (c config) wants(part string) bool { return slices.Contains(c.only, part) }

// run measures the wanted parts, in order, and reports.
func run(ctx context.Context, cfg config) error {
	rep := newReport(os.Stdout)
	rep.machine(cfg)
	for _, part := range []struct {
		name string
		run  func(context.Context, config, *report) error
	}{
		{"hello", helloPart},
		{"local", localPart},
		{"throughput", throughputPart},
		{"inflight", inflightPart},
		{"tls", tlsPart},
		{"full", fullPart},
		{"idle", idlePart},
		{"observe", observePart},
		{"pieces", piecesPart},
		{"items", itemsPart},
	} {
		if err := part.run(ctx, cfg, rep); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	rep.goals()
	if cfg.json == "" {
		return nil
	}
	return rep.writeJSON(cfg.json)
}
