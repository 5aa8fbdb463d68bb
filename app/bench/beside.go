// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// The bench of two builds tells what a change has gained. Both run at once, but are given the same calls in turns of seconds: the speed
// of a shared machine may change by half within minutes.

type besideConfig struct {
	old, now string
	people   int
	duration time.Duration
	rounds   int
	runs     string
	data     string
	dir      string
	json     string
}

func parseBeside(args []string) (*besideConfig, error) {
	c := &besideConfig{}
	fs := flag.NewFlagSet("bench beside", flag.ContinueOnError)
	fs.StringVar(&c.old, "old", "", "the moments command that the other is compared with")
	fs.StringVar(&c.now, "moments", "", "the moments command (default: built from this repository)")
	fs.IntVar(&c.people, "people", 1000, "people of each")
	fs.DurationVar(&c.duration, "duration", 3*time.Second, "length of a turn")
	fs.IntVar(&c.rounds, "rounds", 8, "turns of each")
	fs.StringVar(&c.runs, "runs", "R", "what is compared: F, R or both with a comma between them")
	fs.StringVar(&c.data, "data", "", "data directory of a Moments that has ended, filled by moments seed, that each begins with a copy of, instead of with -people")
	fs.StringVar(&c.dir, "dir", "", "where both keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; see beside -help", fs.Arg(0))
	case c.old == "":
		return nil, errors.New("-old names no moments command")
	case c.people < 100 || c.people > load.MaxPeople:
		return nil, fmt.Errorf("-people %d; want 100 to %d", c.people, load.MaxPeople)
	case c.duration < time.Second || c.rounds < 1:
		return nil, errors.New("-duration must be 1s or more and -rounds 1 or more")
	case slices.ContainsFunc(strings.Split(c.runs, ","), func(run string) bool { return run != "F" && run != "R" }):
		return nil, fmt.Errorf("-runs %q; want F, R or F,R", c.runs)
	}
	return c, nil
}

// build is one of the two that are compared.
type build struct {
	*system
	town *load.Town
	cpu  map[string][]float64 // us of each turn, by run
	rate map[string][]float64 // calls a second
}

func besideMain(ctx context.Context, args []string, out io.Writer) (err error) {
	c, err := parseBeside(args)
	if err != nil {
		return err
	}
	root, dir, err := workspace(ctx, c.dir, "bench-beside-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if c.now, err = buildMoments(ctx, c.now, root, dir, out); err != nil {
		return err
	}
	builds := make([]*build, 0, 2)
	defer func() {
		for _, b := range builds {
			b.stop()
		}
	}()
	for _, one := range []struct{ name, path string }{{"old", c.old}, {"new", c.now}} {
		b, err := c.bring(ctx, one.name, one.path, filepath.Join(dir, one.name), out)
		if b != nil {
			builds = append(builds, b)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	for round := range c.rounds {
		for run := range strings.SplitSeq(c.runs, ",") {
			for i := range builds {
				b := builds[(i+round)%len(builds)]
				if err := c.turn(ctx, b, run, uint64(round+2)); err != nil {
					return fmt.Errorf("%s %s: %w", b.name, run, errors.Join(err, b.alive()))
				}
			}
			fmt.Fprintf(out, "%s turn %d: old %.1f us, new %.1f us\n", run, round+1, builds[0].cpu[run][round], builds[1].cpu[run][round])
		}
	}
	var all []metric
	for run := range strings.SplitSeq(c.runs, ",") {
		for _, b := range builds {
			all = append(all, newMetric("beside."+run+"."+b.name+".cpu_us", "us", b.cpu[run], nil),
				newMetric("beside."+run+"."+b.name+".calls_per_s", "1/s", b.rate[run], nil))
		}
		all = append(all, newMetric("beside."+run+".cpu_ratio", "ratio", divided(builds[1].cpu[run], builds[0].cpu[run]), nil),
			newMetric("beside."+run+".rate_ratio", "ratio", divided(builds[1].rate[run], builds[0].rate[run]), nil))
	}
	fmt.Fprintf(out, "\nload average %s; CPU is a read's (R) or a delivery's (F)\n", loadAverage())
	for _, m := range all {
		fmt.Fprintln(out, m)
	}
	if c.json != "" {
		return writeJSON(out, c.json, all)
	}
	return nil
}

// bring starts a build, with people who have posted and talked. It must be stopped if it is not nil.
func (c *besideConfig) bring(ctx context.Context, name, path, dir string, out io.Writer) (*build, error) {
	graph, err := load.Generate(c.people, 1)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "moments")
	if c.data != "" {
		if err := os.CopyFS(data, os.DirFS(c.data)); err != nil {
			return nil, err
		}
	}
	sys, err := startMoments(ctx, path, false, dir, graph)
	if err != nil {
		return nil, err
	}
	sys.name = name
	b := &build{system: sys, cpu: map[string][]float64{}, rate: map[string][]float64{}}
	if c.data != "" {
		b.town, err = load.OpenTown(filepath.Join(data, townFile))
	} else {
		b.town, err = settle(ctx, path, data, c.people, out)
	}
	if err != nil {
		return b, err
	}
	dial := b.town.Dial(sys.urls...)
	if err := load.Greet(ctx, b.town.Graph, 16, dial, nil); err != nil {
		return b, err
	}
	if err := c.turn(ctx, b, "F", 1); err != nil {
		return b, err
	}
	clear(b.cpu)
	clear(b.rate)
	if !strings.Contains(c.runs, "R") {
		return b, nil // nobody is going to read
	}
	posts, err := load.Talk(ctx, b.town.Graph, remarks, 16, 1, dial, nil)
	if err == nil {
		fmt.Fprintf(out, "%s: %d people are there, %d posts got %d comments and likes each\n", name, b.town.Graph.People(), posts, remarks)
	}
	return b, err
}

// turn lets a build work.
func (c *besideConfig) turn(ctx context.Context, b *build, run string, seed uint64) error {
	cfg := load.Config{
		Mode: load.Reads, Duration: c.duration, Seed: seed, Graph: b.town.Graph, Dial: b.town.Dial(b.urls...), IndexCap: b.indexCap,
		CPU: func() (time.Duration, error) { return cpuOf(b.pids) },
	}
	if run == "F" {
		cfg.Mode = load.FanOut
	}
	res, err := load.Run(ctx, cfg)
	if err == nil {
		err = res.Void()
	}
	if err != nil {
		return err
	}
	of := res.Calls()
	if run == "F" {
		of = res.Deliveries
	}
	if of == 0 {
		return errors.New("nothing was done")
	}
	b.cpu[run] = append(b.cpu[run], micros(res.CPU)/float64(of))
	b.rate[run] = append(b.rate[run], float64(res.Calls())/res.Elapsed.Seconds())
	return nil
}
