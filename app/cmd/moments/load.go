// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/load"
)

type loadFlags struct {
	data     string
	gateways []string
	mode     string
	duration time.Duration
	rate     float64
	workers  int
	seed     uint64
}

func newLoadCmd() *cobra.Command {
	var f loadFlags
	cmd := &cobra.Command{
		Use:   "load --mode F|R|O|X",
		Short: "Use a seeded Moments as its people would, and check that nothing is lost",
		Long: `Use a running Moments as the people of moments seed would.

  F  posts of 256 characters, until their last deliveries have been seen
  R  first page of the timeline, 10 posts
  O  as R, at a fixed rate
  X  60 timelines, 30 albums of friends and 10 posts in a hundred

With --rate calls start on schedule and latency counts from the scheduled time, so
a stall shows as what its users would have waited; without it each connection waits
for its answer. After a run that posts, the timelines of 60 random people are
compared with what was posted: one missing delivery, one failed call or one post in
a wrong place voids the run, and the command exits with 1.

Nobody else should post meanwhile, and the server should run with --limits=off: its
limits are for people, not for a load.`,
		Example: "  moments load --mode X --duration 60s\n  moments load --mode O --rate 2000",
		Args:    cobra.ArbitraryArgs, // with flags among them: see singleDash
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	fs := cmd.Flags()
	addDataFlag(cmd, &f.data)
	fs.StringSliceVar(&f.gateways, "addr", nil, "gateways to call (default: those that run on the data directory)")
	fs.StringVar(&f.mode, "mode", "X", "F, R, O or X")
	fs.DurationVar(&f.duration, "duration", 20*time.Second, "how long to go on")
	fs.Float64Var(&f.rate, "rate", 0, "calls a second; 0: as many as the connections can (mode O: 2000)")
	fs.IntVar(&f.workers, "workers", 0, "connections (default: F 8, R and X 32, with a rate 64)")
	fs.Uint64Var(&f.seed, "seed", 1, "of who does what: the same seed draws the same people and texts")
	singleDash(cmd)
	return cmd
}

// singleDash lets a command take its long flags with one dash too, as benchmarking tools do: load -mode X.
func singleDash(cmd *cobra.Command) {
	run := cmd.RunE
	cmd.DisableFlagParsing = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for i, arg := range args {
			name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
			if strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") && cmd.Flags().Lookup(name) != nil {
				args[i] = "-" + arg
			}
		}
		cmd.DisableFlagParsing = false // or ParseFlags parses nothing
		if err := cmd.ParseFlags(args); err != nil {
			return cmd.FlagErrorFunc()(cmd, err)
		}
		if help, err := cmd.Flags().GetBool("help"); err == nil && help {
			return cmd.Help()
		}
		if rest := cmd.Flags().Args(); len(rest) > 0 {
			return &usageError{fmt.Errorf("unknown argument %q; see %s --help", rest[0], cmd.CommandPath())}
		}
		return run(cmd, nil)
	}
}

func (f *loadFlags) run(ctx context.Context, out io.Writer) error {
	path := filepath.Join(f.data, townFile)
	town, err := load.OpenTown(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nobody was seeded here (%s is not there): run moments seed first, for example moments seed --users 200", path)
	}
	if err != nil {
		return err
	}
	gateways, err := gatewaysOf(f.gateways, f.data)
	if err != nil {
		return err
	}
	c := load.Config{
		Mode: load.Mode(strings.ToUpper(f.mode)), Duration: f.duration, Rate: f.rate, Workers: f.workers, Seed: f.seed,
		Graph: town.Graph, Dial: town.Dial(gateways...), IndexCap: load.IndexCap,
		Progress: func(s load.Sample) {
			fmt.Fprintf(out, "%6s  %-8s  %d calls, %d errors\n", s.Elapsed.Round(time.Second), s.Phase, s.Calls, s.Errors)
		},
	}
	if c.Mode == load.OpenLoop && c.Rate == 0 {
		c.Rate = 2000
	}
	res, err := load.Run(ctx, c)
	if err := errors.Join(err, town.Save(path)); err != nil { // sessions that had to be opened anew
		return err
	}
	printLoad(out, res)
	var status *load.StatusError
	switch err := res.Void(); {
	case err == nil:
		return nil
	case errors.As(err, &status) && status.Status == http.StatusTooManyRequests:
		return fmt.Errorf("the run is void: %w; start the server with --limits=off", err)
	default:
		return fmt.Errorf("the run is void: %w", err)
	}
}

func printLoad(out io.Writer, res *load.Result) {
	fmt.Fprintf(out, "\n%-6s %10s %10s %9s %9s %9s %9s %9s\n", "", "calls", "calls/s", "p50 ms", "p90 ms", "p99 ms", "p999 ms", "max ms")
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	var all load.Latency
	line := func(name string, l *load.Latency) {
		fmt.Fprintf(out, "%-6s %10d %10.1f %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, l.Count(), float64(l.Count())/res.Elapsed.Seconds(),
			ms(l.Quantile(0.5)), ms(l.Quantile(0.9)), ms(l.Quantile(0.99)), ms(l.Quantile(0.999)), ms(l.Max()))
	}
	kinds := 0
	for v := range res.Latency {
		if l := &res.Latency[v]; l.Count() > 0 {
			line(load.Verb(v).String(), l)
			all.Merge(l)
			kinds++
		}
	}
	if kinds > 1 {
		line("all", &all)
	}
	fmt.Fprintf(out, "errors %d\n", res.Errors)
	if res.PageItems > 0 || res.Latency[load.VerbHome].Count() > 0 {
		fmt.Fprintf(out, "home pages held %.1f posts in the mean\n", res.PageItems)
	}
	if res.Deliveries > 0 {
		fmt.Fprintf(out, "deliveries %d, %.0f/s until the last had arrived\n", res.Deliveries, float64(res.Deliveries)/res.Elapsed.Seconds())
		fmt.Fprintf(out, "checked %d timelines for %d posts: %d missing, %d strange, %d timelines complete only later\n",
			res.Check.Readers, res.Check.Expected, res.Check.Missing, res.Check.Strange, res.Check.Late)
	}
}
