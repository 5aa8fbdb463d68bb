// SPDX-License-Identifier: Apache-2.0

// Command faults makes one of four instances of a service go wrong, in real processes
// under load, and looks at what its callers see of it.
//
//	go run ./faults -json ../../build/drill-faults.jsonl
//	go run ./faults -only frozen -lasts 20s
//	go run ./faults -only etcd_away -away 5m
//
// The kinds: killed (SIGKILL, and nobody listens any more), frozen (SIGSTOP: its kernel
// goes on taking bytes), slow (each call takes four times its deadline), resetting
// (another program holds the port and resets every connection), garbage (another program
// answers in a language of its own). Each lasts ten seconds; then the instance is as it
// was, and nothing is done on the side of the client: it must find out.
//
// Then etcd, by which four other instances are found, is killed for twenty seconds
// (-away), or minutes (etcd_away): meanwhile one instance is killed and starts again,
// faults.etcd_away.restarted_s until it is called, and a fifth comes, which is called when
// etcd is back. Its errors count from three seconds after etcd was killed, with those of the
// killed instance.
//
// Half of the calls are of a method that may be repeated, half are not; all have 500 ms.
// A call that fails, or comes later than that, is an error: faults.KIND.error_share_after_3s
// is the share of those begun from three seconds after the fault until it ends,
// faults.KIND.attempts_ratio the attempts a call while it lasts, and
// faults.KIND.recovery_s how long after its end the instance is called again.
//
// It exits 0 when it has measured, whether or not a goal is met.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/faults/fleet"
	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// etcdAway is the fault of nobody being there who knows the instances.
const etcdAway = "etcd_away"

// kinds are the faults, in the order in which they come.
var kinds = []string{"killed", "frozen", "slow", "resetting", "garbage", etcdAway}

type config struct {
	lasts time.Duration
	away  time.Duration // of etcd
	json  string
	only  []string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == fleet.ChildArg {
		os.Exit(fleet.Main(os.Args[2:], nil))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "faults: the run is void:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var cfg config
	var only string
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.DurationVar(&cfg.lasts, "lasts", 10*time.Second, "how long each fault lasts, more than 3s")
	flags.DurationVar(&cfg.away, "away", 20*time.Second, "how long etcd is away, at least 8s")
	flags.StringVar(&cfg.json, "json", "", "file to write the metrics to, one JSON object a line")
	flags.StringVar(&only, "only", strings.Join(kinds, ","), "kinds of faults, comma-separated")
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	cfg.only = strings.Split(only, ",")
	for _, k := range cfg.only {
		if !slices.Contains(kinds, k) {
			return cfg, fmt.Errorf("-only %s: there is no such kind; kinds are %s", k, strings.Join(kinds, ", "))
		}
	}
	switch {
	case flags.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	case cfg.away < 8*time.Second:
		return cfg, fmt.Errorf("-away %v: at least 8s", cfg.away)
	case cfg.lasts <= fleet.Settled:
		return cfg, fmt.Errorf("-lasts %v: more than %v", cfg.lasts, fleet.Settled)
	}
	return cfg, nil
}

// run plants one fault after the other, and reports.
func run(ctx context.Context, cfg config) error {
	fmt.Printf("%d instances, %d callers, %v each; one instance fails for %v. Load average %s before.\n\n",
		fleet.Instances, fleet.Callers, fleet.Deadline, cfg.lasts, figure.LoadAverage())
	fmt.Printf("%-10s %10s %10s %12s %14s %12s\n", "kind", "calls", "errors", "after 3 s", "attempts/call", "back after")
	var all []figure.Metric
	known := slices.DeleteFunc(slices.Clone(cfg.only), func(kind string) bool { return kind == etcdAway })
	if len(known) > 0 {
		ms, err := drillInstances(ctx, cfg, known)
		if err != nil {
			return err
		}
		all = append(all, ms...)
	}
	if slices.Contains(cfg.only, etcdAway) {
		ms, err := drillEtcd(ctx, cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", etcdAway, err)
		}
		all = append(all, ms...)
	}
	if cfg.json == "" {
		return nil
	}
	return figure.Write(cfg.json, all)
}

// drillInstances lets one of four instances go wrong in each of the ways.
func drillInstances(ctx context.Context, cfg config, ways []string) (all []figure.Metric, err error) {
	f, err := fleet.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Stop()
	l, err := fleet.Call(ctx, f.Addrs())
	if err != nil {
		return nil, err
	}
	defer l.Stop()
	for _, kind := range ways {
		r, err := drill(ctx, cfg, f, l, kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		all = append(all, r.Report(kind)...)
	}
	return all, nil
}

// drill plants one fault and takes it away.
func drill(ctx context.Context, cfg config, f *fleet.Fleet, l *fleet.Load, kind string) (*fleet.Result, error) {
	const victim = 0
	if err := l.UntilServed(ctx, f.Names()...); err != nil { // all is well
		return nil, err
	}
	before, began := l.Attempts(), time.Now()
	l.Record(began)
	if err := f.Plant(ctx, victim, kind); err != nil {
		return nil, err
	}
	if err := wait.For(ctx, cfg.lasts); err != nil {
		return nil, err
	}
	r := l.Recorded()
	r.Attempts = l.Attempts() - before
	if err := f.Heal(ctx, victim, kind); err != nil {
		return nil, err
	}
	healed := time.Now()
	if err := l.UntilServed(ctx, f.Names()[victim]); err != nil {
		return nil, err
	}
	r.Recovery = time.Since(healed)
	return r, nil
}

// drillEtcd runs the drill of etcd, a program of its own: ./away.
func drillEtcd(ctx context.Context, cfg config) ([]figure.Metric, error) {
	dir, err := os.MkdirTemp("", "sluice-faults-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out.jsonl")
	fmt.Println("building etcd and its drill, which takes some minutes the first time ...")
	for _, args := range [][]string{
		{"build", "-C", "../discovery/etcd", "-o", filepath.Join(dir, "etcd"), "go.etcd.io/etcd/server/v3"},
		{"build", "-C", "away", "-tags", "etcd", "-o", filepath.Join(dir, "away"), "."},
	} {
		if msg, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go %s (run this from framework/bench): %w\n%s", strings.Join(args, " "), err, msg)
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "away"), "-etcd", filepath.Join(dir, "etcd"), "-lasts", cfg.away.String(), "-json", out)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []figure.Metric
	for lines := json.NewDecoder(f); lines.More(); {
		var m figure.Metric
		if err := lines.Decode(&m); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}
