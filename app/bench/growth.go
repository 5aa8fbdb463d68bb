// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// The growth bench asks whether Moments costs more a read and a delivery the more people it has. For each size it brings up a
// Moments of its own, makes so many people with some 39 friends each over the services' RPC, lets about one post a person be made,
// has everybody read their first page since then, once and in a random order ("first"), and then reads pages of random people, each
// of whom has read before. Only the latter compare with each other: in the same time a thousand people read fifty times each, and of
// a hundred thousand most not once. They count from when the servers' memory has stopped growing: the first use of memory costs a
// fault for each page of it, and in a virtual machine several microseconds, which is the machine's work and no page's.
const (
	postsASecond = 2_000 // about what a small Moments takes; it says how long people post
	leastPosting = 5 * time.Second
	firstPages   = 5 * time.Minute  // the most that everybody's first page may take
	settling     = 30 * time.Second // of reads, more than from one garbage collection to the next: memory that grows by less than a two-hundredth, twice, has stopped growing
	settlings    = 12               // at most
	townFile     = "seed.json"      // where moments seed leaves who was made
)

type growthConfig struct {
	sizes    []int
	duration time.Duration
	json     string
	dir      string
	moments  string
}

func parseGrowth(args []string) (*growthConfig, error) {
	c := &growthConfig{sizes: []int{1_000, 10_000, 100_000}}
	fs := flag.NewFlagSet("bench growth", flag.ContinueOnError)
	fs.Func("sizes", "numbers of people, comma-separated, growing (default 1000,10000,100000)", func(s string) error {
		c.sizes = nil
		for one := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(one)
			if err != nil || n < 100 || n > load.MaxPeople || len(c.sizes) > 0 && n <= c.sizes[len(c.sizes)-1] {
				return fmt.Errorf("%q; want growing numbers from 100 to %d", s, load.MaxPeople)
			}
			c.sizes = append(c.sizes, n)
		}
		return nil
	})
	fs.DurationVar(&c.duration, "duration", 15*time.Second, "how long pages are read at each size")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	fs.StringVar(&c.dir, "dir", "", "where the servers keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.moments, "moments", "", "the moments command (default: built from this repository)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see growth -help", fs.Arg(0))
	}
	if c.duration < time.Second {
		return nil, fmt.Errorf("-duration %v; want 1s or more", c.duration)
	}
	return c, nil
}

func growthMain(ctx context.Context, args []string, out io.Writer) (err error) {
	c, err := parseGrowth(args)
	if err != nil {
		return err
	}
	root, dir, err := workspace(ctx, c.dir, "bench-growth-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if c.moments, err = buildMoments(ctx, c.moments, root, dir, out); err != nil {
		return err
	}
	var all []size
	for _, people := range c.sizes {
		s, err := c.grow(ctx, people, filepath.Join(dir, strconv.Itoa(people)), out)
		if err != nil {
			return fmt.Errorf("%d people: %w", people, err)
		}
		all = append(all, s)
	}
	metrics := growthMetrics(all)
	fmt.Fprintf(out, "\nload average %s\n", loadAverage())
	for _, m := range metrics {
		fmt.Fprintln(out, m)
	}
	if c.json != "" {
		return writeJSON(out, c.json, metrics)
	}
	return nil
}

// size is what a Moments of so many people needs.
type size struct {
	people       int
	firstUS      float64 // CPU of everybody's first page
	readUS       float64 // CPU of a page of random people, who have read before
	deliveryUS   float64 // CPU of a delivery
	readP99MS    float64
	memory, disk int64 // bytes at the end
	pageItems    float64
	missing      int64
}

// grow measures one size, and removes its data.
func (c *growthConfig) grow(ctx context.Context, people int, dir string, out io.Writer) (s size, err error) {
	graph, err := load.Generate(people, 1)
	if err != nil {
		return s, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	sys, err := startMoments(ctx, c.moments, false, dir, graph)
	if err != nil {
		return s, err
	}
	defer sys.stop()
	began := time.Now()
	fmt.Fprintf(out, "\n%d people: making them and their friendships ...\n", people)
	data := filepath.Join(dir, "moments")
	town, err := settle(ctx, c.moments, data, people, out)
	if err != nil {
		return s, err
	}
	dial := town.Dial(sys.urls...)
	fmt.Fprintf(out, "%d people with %d directed friendships after %v; logging them in ...\n", people, graph.Directed(), time.Since(began).Round(time.Second))
	if err := load.Greet(ctx, town.Graph, 64, dial, nil); err != nil {
		return s, err
	}
	cpu := func() (time.Duration, error) { return cpuOf(sys.pids) }
	run := load.Config{Graph: town.Graph, Dial: dial, IndexCap: sys.indexCap, Seed: 1, CPU: cpu}
	run.Mode, run.Duration = load.FanOut, max(leastPosting, time.Duration(people)*time.Second/postsASecond)
	fmt.Fprintf(out, "everybody posts for %v ...\n", run.Duration)
	posts, err := load.Run(ctx, run)
	if err != nil {
		return s, err
	}
	run.Mode, run.Duration, run.Once = load.Reads, firstPages, true
	first, err := load.Run(ctx, run)
	if err != nil {
		return s, err
	}
	if first.Errors == 0 && first.Calls() < int64(people) {
		return s, fmt.Errorf("%d have read their first page after %v", first.Calls(), firstPages)
	}
	run.Once = false
	if err := level(ctx, run, sys.pids, out); err != nil {
		return s, err
	}
	run.Duration = c.duration
	reads, err := load.Run(ctx, run)
	if err != nil {
		return s, err
	}
	if err := errors.Join(posts.Void(), first.Void(), reads.Void()); err != nil {
		return s, err
	}
	s = size{
		people: people, deliveryUS: micros(posts.CPU) / float64(posts.Deliveries), missing: posts.Check.Missing,
		firstUS: micros(first.CPU) / float64(first.Calls()), readUS: micros(reads.CPU) / float64(reads.Calls()),
		readP99MS: millis(reads.Latency[load.VerbHome].Quantile(.99)), pageItems: reads.PageItems,
	}
	s.memory = allResident(sys.pids)
	if s.disk, err = bytesIn(data); err != nil {
		return s, err
	}
	fmt.Fprintf(out, "%d people: %d posts, %.1f us a delivery; %.1f us a first page; %d reads of %.1f posts, %.1f us each, p99 %.1f ms; %d MB in memory, %d MB on disk\n",
		people, posts.Calls(), s.deliveryUS, s.firstUS, reads.Calls(), s.pageItems, s.readUS, s.readP99MS, s.memory>>20, s.disk>>20)
	return s, nil
}

// level reads until the servers' memory grows no more.
func level(ctx context.Context, run load.Config, pids []int, out io.Writer) error {
	run.Duration = settling
	before, steady := allResident(pids), false
	for n := range settlings {
		warm, err := load.Run(ctx, run)
		if err != nil {
			return err
		}
		if err := warm.Void(); err != nil {
			return err
		}
		now := allResident(pids)
		grows := now-before > before/200
		if !grows && steady { // twice: between two collections nothing may grow by chance
			fmt.Fprintf(out, "after %v of reads the servers have %d MB, and grow no more\n", time.Duration(n+1)*settling, now>>20)
			return nil
		}
		before, steady = now, !grows
	}
	fmt.Fprintf(out, "after %v of reads the servers have %d MB, and still grow\n", settlings*settling, before>>20)
	return nil
}

func allResident(pids []int) (sum int64) {
	for _, pid := range pids {
		sum += residentOf(pid)
	}
	return sum
}

// settle makes so many people and their friendships in a running Moments, quickly, by the command at path.
func settle(ctx context.Context, path, data string, people int, out io.Writer) (*load.Town, error) {
	seed := exec.CommandContext(ctx, path, "seed", "--bulk", "--users", strconv.Itoa(people), "--data", data)
	seed.Stdout = &seldom{out: out}
	var failed tail
	seed.Stderr = &failed
	if err := seed.Run(); err != nil {
		return nil, fmt.Errorf("moments seed: %w\n%s", err, failed.String())
	}
	return load.OpenTown(filepath.Join(data, townFile))
}

func growthMetrics(all []size) []metric {
	var ms []metric
	add := func(name, unit string, v float64, g *goal) {
		ms = append(ms, newMetric("moments.growth."+name, unit, []float64{v}, g))
	}
	for _, s := range all {
		at := thousands(s.people) + "."
		add(at+"cpu_us_per_read", "us", s.readUS, nil)
		add(at+"cpu_us_per_first_read", "us", s.firstUS, nil)
		add(at+"cpu_us_per_delivery", "us", s.deliveryUS, nil)
		add(at+"read_p99_ms", "ms", s.readP99MS, nil)
		add(at+"page_posts", "posts", s.pageItems, nil)
		add(at+"memory_bytes_per_user", "B", float64(s.memory)/float64(s.people), nil)
		add(at+"disk_bytes_per_user", "B", float64(s.disk)/float64(s.people), nil)
		add(at+"missing", "", float64(s.missing), atMost(0))
	}
	if first, last := all[0], all[len(all)-1]; len(all) > 1 {
		name := "_ratio_" + thousands(last.people) + "_vs_" + thousands(first.people)
		add("read"+name, "ratio", last.readUS/first.readUS, atMost(1.3))
		add("first_read"+name, "ratio", last.firstUS/first.firstUS, nil)
		add("delivery"+name, "ratio", last.deliveryUS/first.deliveryUS, atMost(1.3))
	}
	return ms
}

func thousands(n int) string {
	if n%1000 == 0 {
		return strconv.Itoa(n/1000) + "k"
	}
	return strconv.Itoa(n)
}

// bytesIn is what the files below dir take on the disk.
func bytesIn(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // the store removes files meanwhile
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}

// seldom lets a line through now and then.
type seldom struct {
	out   io.Writer
	mu    sync.Mutex
	shown time.Time // guarded by mu
}

func (s *seldom) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.shown) < showEvery {
		return len(b), nil
	}
	s.shown = time.Now()
	return s.out.Write(b)
}
