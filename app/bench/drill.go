// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// The drill keeps Moments, each service a process of its own, on one half of the processors and the generator on the other. It
// finds the capacity by closed loops of growing concurrency, then lets people come when they like, at steady rates: at 0.6 of the
// capacity, at five times that, and at 0.6 again. Latency counts from the time a call is due. Those who are refused do not come
// again: the spike has them in it.
const (
	calm      = 0.6 // of the capacity
	factor    = 5   // of calm
	calmTime  = 10 * time.Second
	afterTime = 20 * time.Second
	fillPosts = 10 // of each person, so that pages are full

	// recovered is how far from the calm p99 that of one second may be, and servedAgain how much must be served in it.
	recovered   = 1.5
	servedAgain = 0.99
)

// What each verb stands for, and its contract's time, after which an answer is none (idl/moments/v1).
var inTime = [...]time.Duration{
	load.VerbHome:  800 * time.Millisecond, // TimelineService.Home, browse
	load.VerbAlbum: 400 * time.Millisecond, // PostService.Album, extra
	load.VerbPost:  800 * time.Millisecond, // PostService.Publish, post
}

type drillConfig struct {
	people      int
	spike       time.Duration
	step        time.Duration
	connections int
	mix         load.Mix
	json        string
	dir         string
	moments     string
	quick       bool
}

func parseDrill(args []string) (*drillConfig, error) {
	c := &drillConfig{mix: load.MixX}
	fs := flag.NewFlagSet("bench drill", flag.ContinueOnError)
	fs.IntVar(&c.people, "people", 400, "people of the generated graph")
	fs.DurationVar(&c.spike, "spike", time.Minute, "how long the spike lasts, in whole seconds")
	fs.DurationVar(&c.step, "step", 5*time.Second, "how long each step of the capacity's measurement lasts")
	fs.BoolVar(&c.quick, "quick", false, "a short form for a look: 100 people, a spike of 10 s, steps of 2 s")
	fs.IntVar(&c.connections, "connections", 2048, "the generator's connections; a call that finds none free is counted as unsent")
	fs.Func("mix", "timelines/posts/albums in a hundred (default 60/10/30, as moments load --mode X)", func(s string) error {
		_, err := fmt.Sscanf(s, "%d/%d/%d", &c.mix[load.VerbHome], &c.mix[load.VerbPost], &c.mix[load.VerbAlbum])
		return err
	})
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	fs.StringVar(&c.dir, "dir", "", "where the servers keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.moments, "moments", "", "the moments command (default: built from this repository)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if c.quick {
		c.people, c.spike, c.step = 100, 10*time.Second, 2*time.Second
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; see drill -help", fs.Arg(0))
	case c.spike < time.Second || c.spike > time.Hour:
		return nil, fmt.Errorf("-spike %v; want 1s to 1h", c.spike)
	case c.step < time.Second:
		return nil, fmt.Errorf("-step %v; want 1s or more", c.step)
	case c.connections < concurrencies[len(concurrencies)-1]:
		return nil, fmt.Errorf("-connections %d; want %d or more", c.connections, concurrencies[len(concurrencies)-1])
	}
	return c, nil
}

// concurrencies of the closed loops that look for the capacity.
var concurrencies = []int{4, 8, 16, 32, 64, 128}

func drillMain(ctx context.Context, args []string, out io.Writer) (err error) {
	c, err := parseDrill(args)
	if err != nil {
		return err
	}
	graph, err := load.Generate(c.people, 1)
	if err != nil {
		return err
	}
	root, dir, err := workspace(ctx, c.dir, "drill-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, generator, err := halves()
	if err != nil {
		return err
	}
	path, err := buildMoments(ctx, c.moments, root, dir, out)
	if err != nil {
		return err
	}
	var s *system
	err = pinned(servers, func() (err error) {
		s, err = startMoments(ctx, path, true, dir, graph)
		return err
	})
	if err != nil {
		return fmt.Errorf("moments: %w", err)
	}
	defer s.stop()
	if err := pinSelf(generator); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\nservers on processors %v, generator on %v; of a hundred calls %d timelines (browse), %d posts (post), %d albums (extra)\n",
		s.about, servers, generator, c.mix[load.VerbHome], c.mix[load.VerbPost], c.mix[load.VerbAlbum])
	d := &drill{drillConfig: c, out: out, system: s, state: filepath.Join(dir, "moments", "run.json"), cores: len(servers)}
	if d.servers, err = d.processes(); err != nil {
		return err
	}
	for _, p := range d.servers {
		if at, err := cpusOf(p.pid); err != nil || !slices.Equal(at, servers) {
			return fmt.Errorf("%s may use processors %v, %w: not %v", p.name, at, err, servers)
		}
	}
	if err := d.run(ctx, graph); err != nil {
		return errors.Join(err, s.alive())
	}
	return tell(out, d.metrics, c.json)
}

// server is one process of the system.
type server struct {
	name string
	pid  int
}

type drill struct {
	*drillConfig
	*system
	out     io.Writer
	state   string // file that says what runs
	cores   int    // of the servers
	servers []server
	metrics []metric
}

// processes reads what runs.
func (d *drill) processes() ([]server, error) {
	b, err := os.ReadFile(d.state)
	if err != nil {
		return nil, err
	}
	var state struct {
		Gateways []struct {
			PID int `json:"pid"`
		} `json:"gateways"`
		Services map[string]struct {
			PID int `json:"pid"`
		} `json:"services"`
	}
	if err := json.Unmarshal(b, &state); err != nil {
		return nil, fmt.Errorf("%s: %w", d.state, err)
	}
	var all []server
	for i, g := range state.Gateways {
		all = append(all, server{fmt.Sprintf("gateway%d", i+1), g.PID})
	}
	for name, s := range state.Services {
		all = append(all, server{name, s.PID})
	}
	slices.SortFunc(all, func(a, b server) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// cpu is the time that all servers have used so far.
func (d *drill) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, s := range d.servers {
		t, err := cpuOfOne(s.pid)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
		sum += t
	}
	return sum, nil
}

// run does the drill.
func (d *drill) run(ctx context.Context, graph *load.Graph) error {
	began, shown := time.Now(), time.Now()
	err := load.Populate(ctx, graph, 16, d.dial, func(st load.Stage) {
		if time.Since(shown) >= showEvery || st.Done == st.Total {
			shown = time.Now()
			fmt.Fprintf(d.out, "%s %d/%d\n", st.Name, st.Done, st.Total)
		}
	})
	if err != nil {
		return err
	}
	crowd, err := load.NewCrowd(load.CrowdConfig{
		Graph: graph, Dial: d.dial, Connections: d.connections, Mix: d.mix, InTime: inTime, Seed: 1,
	})
	if err != nil {
		return err
	}
	defer func() { _ = crowd.Close() }() // nothing is in flight
	if err := errors.Join(crowd.Fill(ctx, fillPosts), crowd.Greet(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%d people with %d posts each, %d connections, ready after %v\n",
		graph.People(), fillPosts, d.connections, time.Since(began).Round(time.Second))
	best, err := d.capacity(ctx, crowd)
	if err != nil {
		return err
	}
	after, err := d.midnight(ctx, crowd, best)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out, "comparing timelines with what was posted ...")
	check, err := crowd.Check(ctx, d.indexCap)
	if err != nil {
		return err
	}
	d.report(best, after, check)
	return nil
}

// closed is a closed loop's outcome.
type closed struct {
	rate   float64 // answers in time a second
	perCPU float64 // the same a second of the servers' CPU
	share  float64 // of their processors that the servers got
}

// capacity is the median of three closed loops at the concurrency that did best: the best of many alone would be the luckiest.
func (d *drill) capacity(ctx context.Context, crowd *load.Crowd) (closed, error) {
	fmt.Fprintf(d.out, "\n%-10s %10s %8s %8s %9s %8s %12s %14s\n", "capacity", "in time/s", "p50 ms", "p99 ms", "refused", "failed", "servers' CPU", "left to do, s")
	most, best := 0, closed{}
	for _, workers := range concurrencies {
		c, err := d.closed(ctx, crowd, workers)
		if err != nil {
			return c, err
		}
		if c.rate > best.rate {
			most, best = workers, c
		}
	}
	if best.rate < 10 {
		return best, fmt.Errorf("a capacity of %.1f calls a second: too little for a drill", best.rate)
	}
	three := []closed{best}
	for len(three) < 3 {
		c, err := d.closed(ctx, crowd, most)
		if err != nil {
			return c, err
		}
		three = append(three, c)
	}
	slices.SortFunc(three, func(a, b closed) int { return cmp.Compare(a.rate, b.rate) })
	return three[1], nil
}

// closed has so many call for a step, each as soon as it was answered.
func (d *drill) closed(ctx context.Context, crowd *load.Crowd, workers int) (c closed, err error) {
	if err := d.quiet(ctx); err != nil {
		return c, err
	}
	from, err := d.cpu()
	if err != nil {
		return c, err
	}
	began := time.Now()
	w, err := crowd.Closed(ctx, workers, d.step)
	if err != nil {
		return c, err
	}
	took := time.Since(began)
	to, err := d.cpu()
	if err != nil {
		return c, err
	}
	if err := d.quiet(ctx); err != nil {
		return c, err
	}
	end, err := d.cpu()
	if err != nil {
		return c, err
	}
	sum := w.Sum()
	c = closed{
		rate:   float64(sum.Done) / took.Seconds(),
		perCPU: float64(sum.Done) / (to - from).Seconds(),
		share:  (to - from).Seconds() / took.Seconds() / float64(d.cores),
	}
	fmt.Fprintf(d.out, "%4d       %10.0f %8.1f %8.1f %9d %8d %12.2f %14.2f\n", workers, c.rate,
		millis(w.Served.Quantile(.5)), millis(w.Served.Quantile(.99)), sum.Refused, sum.Failed+sum.TimedOut, c.share, (end - to).Seconds())
	return c, nil
}

// quiet waits until the servers have done what they had put off.
func (d *drill) quiet(ctx context.Context) error {
	const look, idle, patience = 250 * time.Millisecond, 0.05, time.Minute
	last, err := d.cpu()
	if err != nil {
		return err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < patience; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := d.cpu()
		if err != nil {
			return err
		}
		if (now - last).Seconds() <= idle*look.Seconds()*float64(d.cores) {
			return nil
		}
		last = now
	}
	return fmt.Errorf("the servers are not idle after %v", patience)
}

// second is what the servers had used at its end.
type second struct {
	cpu time.Duration
	per []time.Duration // of cpu, each server
	own time.Duration   // of the generator
	// starved is how long threads of the servers, and of the generator, were ready to run without a processor.
	starved, ownStarved time.Duration
	rss                 []int64 // of each server, bytes
}

// night is what was seen of calm, spike and calm.
type night struct {
	windows  []*load.Window
	servers  []second // servers[0] is the state before, servers[i+1] that after windows[i]
	spike    [2]int   // first second and the one after the last
	restarts int
}

// midnight is calm, the spike, and calm again.
func (d *drill) midnight(ctx context.Context, crowd *load.Crowd, best closed) (*night, error) {
	if err := d.quiet(ctx); err != nil {
		return nil, err
	}
	steps := []load.Step{
		{Rate: calm * best.rate, Seconds: int(calmTime / time.Second)},
		{Rate: factor * calm * best.rate, Seconds: int(d.spike / time.Second)},
		{Rate: calm * best.rate, Seconds: int(afterTime / time.Second)},
	}
	n := &night{servers: []second{d.look()}}
	n.spike = [2]int{steps[0].Seconds, steps[0].Seconds + steps[1].Seconds}
	fmt.Fprintf(d.out, "\n%6s %-6s %8s %8s %8s %8s %8s %8s %7s %7s %8s %6s %7s %6s %7s %7s\n", "second", "", "offered", "in time", "refused", "too late", "failed", "unsent",
		"p99 ms", "ref p99", "gen late", "CPU", "starved", "gen", "starved", "RSS MB")
	names := func(i int) string {
		switch {
		case i < n.spike[0]:
			return "calm"
		case i < n.spike[1]:
			return "spike"
		default:
			return "after"
		}
	}
	windows, err := crowd.Open(ctx, steps, func(i int, w load.Window) {
		now, was := d.look(), n.servers[len(n.servers)-1]
		n.servers = append(n.servers, now)
		sum := w.Sum()
		fmt.Fprintf(d.out, "%6d %-6s %8d %8d %8d %8d %8d %8d %7.0f %7.0f %8d %6.2f %7.2f %6.2f %7.2f %7.0f\n", i+1, names(i), sum.Offered, sum.Done, sum.Refused, sum.Slow,
			sum.Failed+sum.TimedOut, sum.Unsent, millis(w.Served.Quantile(.99)), millis(w.Refusals.Quantile(.99)), w.Late.Count(),
			(now.cpu-was.cpu).Seconds()/float64(d.cores), (now.starved - was.starved).Seconds(), (now.own - was.own).Seconds(), (now.ownStarved - was.ownStarved).Seconds(),
			float64(total(now.rss))/(1<<20))
	})
	if err != nil {
		return nil, err
	}
	n.windows = windows
	running, err := d.processes()
	if err != nil {
		return nil, err
	}
	for i, s := range running {
		if s != d.servers[i] {
			n.restarts++
			fmt.Fprintf(d.out, "%s was process %d and is %d: it was started again\n", s.name, d.servers[i].pid, s.pid)
		}
	}
	return n, nil
}

// look reads what the servers use; one that has died uses nothing, and restarts tells of it.
func (d *drill) look() second {
	s := second{own: cpuOfSelf(), ownStarved: starvedOf(os.Getpid()), per: make([]time.Duration, len(d.servers)), rss: make([]int64, len(d.servers))}
	for i, p := range d.servers {
		if t, err := cpuOfOne(p.pid); err == nil {
			s.cpu += t
			s.per[i] = t
		}
		s.starved += starvedOf(p.pid)
		s.rss[i] = residentOf(p.pid)
	}
	return s
}

func total(rss []int64) (sum int64) {
	for _, b := range rss {
		sum += b
	}
	return sum
}

// over merges the seconds from one to before another.
func (n *night) over(from, to int) *load.Window {
	w := &load.Window{}
	for _, one := range n.windows[from:to] {
		w.Merge(one)
	}
	return w
}

// recovery is how long after the spike the first second ends that is as calm as before.
func (n *night) recovery(calmP99 time.Duration) (seconds int, ever bool) {
	for i, w := range n.windows[n.spike[1]:] {
		sum := w.Sum()
		if float64(w.Served.Quantile(.99)) <= recovered*float64(calmP99) && float64(sum.Done) >= servedAgain*float64(sum.Offered) {
			return i + 1, true
		}
	}
	return len(n.windows) - n.spike[1], false
}

// report turns what was seen into metrics.
func (d *drill) report(best closed, n *night, check load.Completeness) {
	before, spike, all := n.over(0, n.spike[0]), n.over(n.spike[0], n.spike[1]), n.over(0, len(n.windows))
	calmSum, sum := before.Sum(), spike.Sum()
	length := float64(n.spike[1] - n.spike[0])
	cpu := (n.servers[n.spike[1]].cpu - n.servers[n.spike[0]].cpu).Seconds()
	share := func(v load.Verb) float64 {
		return float64(spike.Verbs[v].Done) / float64(max(1, spike.Verbs[v].Offered))
	}
	reads, posts, extras := share(load.VerbHome), share(load.VerbPost), share(load.VerbAlbum)
	add := func(name, unit string, v float64, g *goal) *metric {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			v = 0
		}
		d.metrics = append(d.metrics, newMetric("midnight."+name, unit, []float64{v}, g))
		return &d.metrics[len(d.metrics)-1]
	}
	fmt.Fprintf(d.out, "\ncalm at %.1f, spike at %.1f of the capacity for %.0f s\n", calm, calm*factor, length)
	goodput := float64(sum.Done) / length
	add("capacity_per_s", "1/s", best.rate, nil)
	add("capacity_cpu", "cores", best.share*float64(d.cores), nil)
	add("spike_cpu", "cores", cpu/length, nil)
	add("offered", "ratio", float64(sum.Offered)/length/best.rate, nil)
	add("goodput", "ratio", goodput/best.rate, atLeast(.80))
	add("goodput_per_cpu", "ratio", float64(sum.Done)/cpu/best.perCPU, nil)
	refusals := add("refused_p99_ms", "ms", millis(spike.Refusals.Quantile(.99)), atMost(50))
	if sum.Refused == 0 {
		refusals.Void = "nobody was refused"
	}
	add("refused_p50_ms", "ms", millis(spike.Refusals.Quantile(.5)), nil)
	add("refused_share", "ratio", float64(sum.Refused)/float64(sum.Offered), nil)
	calmP99 := before.Served.Quantile(.99)
	seconds, ever := n.recovery(calmP99)
	if !ever {
		seconds++ // and who knows how many more
		fmt.Fprintf(d.out, "p99 did not come back in the %d s after the spike\n", seconds-1)
	}
	add("baseline_p99_ms", "ms", millis(calmP99), nil)
	add("baseline_share", "ratio", float64(calmSum.Done)/float64(calmSum.Offered), nil)
	add("served_p99_ms", "ms", millis(spike.Served.Quantile(.99)), nil)
	add("recover_s", "s", float64(seconds), atMost(10))
	d.classes(add, reads, posts, extras)
	add("restarts", "", float64(n.restarts), atMost(0))
	sums := all.Sum()
	add("errors", "", float64(sums.Failed+sums.TimedOut), atMost(0))
	add("timeouts", "", float64(sums.TimedOut), nil)
	if all.FirstError != nil {
		fmt.Fprintf(d.out, "the first of %d errors: %v\n", sums.Failed+sums.TimedOut, all.FirstError)
	}
	add("too_late", "", float64(sums.Slow), nil)
	add("unsent", "", float64(sums.Unsent), nil)
	add("generator_us_per_call", "us", micros(n.servers[n.spike[1]].own-n.servers[n.spike[0]].own)/float64(sum.Offered), nil)
	add("generator_late_share", "ratio", float64(spike.Late.Count())/float64(sum.Offered), nil)
	add("generator_late_p99_ms", "ms", millis(spike.Late.Quantile(.99)), nil)
	add("missing", "", float64(check.Missing+check.Strange), atMost(0))
	d.each(add, n)
}

// each tells what every server used: processors, and memory before, at most and in the end.
func (d *drill) each(add func(name, unit string, v float64, g *goal) *metric, n *night) {
	const mb = 1 << 20
	before, calmEnd, spikeEnd, last := n.servers[0], n.servers[n.spike[0]], n.servers[n.spike[1]], n.servers[len(n.servers)-1]
	fmt.Fprintf(d.out, "\n%-10s %10s %11s %10s %10s %10s\n", "process", "CPU, calm", "CPU, spike", "MB before", "MB at most", "MB after")
	mostOfAll := int64(0)
	for i, s := range d.servers {
		most := int64(0)
		for _, at := range n.servers {
			most = max(most, at.rss[i])
		}
		fmt.Fprintf(d.out, "%-10s %10.3f %11.3f %10.0f %10.0f %10.0f\n", s.name,
			(calmEnd.per[i]-before.per[i]).Seconds()/calmTime.Seconds(),
			(spikeEnd.per[i]-calmEnd.per[i]).Seconds()/float64(n.spike[1]-n.spike[0]),
			float64(before.rss[i])/mb, float64(most)/mb, float64(last.rss[i])/mb)
		add("memory."+s.name+".growth_mb", "MB", float64(last.rss[i]-before.rss[i])/mb, nil)
	}
	for _, at := range n.servers {
		mostOfAll = max(mostOfAll, total(at.rss))
	}
	add("memory.before_mb", "MB", float64(total(before.rss))/mb, nil)
	add("memory.most_mb", "MB", float64(mostOfAll)/mb, nil)
	add("memory.ratio", "ratio", float64(total(last.rss))/float64(total(before.rss)), atMost(1.5))
	fmt.Fprintln(d.out)
}

// classes judges who yielded first: extras may be served by halves only while nearly all reads are, and posts fall behind reads
// only when reads, which rank above them, are not all served either.
func (d *drill) classes(add func(name, unit string, v float64, g *goal) *metric, reads, posts, extras float64) {
	const nearlyAll, behind, half, none = .90, .05, .50, .05
	var readsGoal, postsGoal *goal
	extrasGoal := atMost(half)
	if reads >= nearlyAll {
		extrasGoal, postsGoal = atMost(reads), atLeast(reads-behind)
	}
	if extras > half {
		readsGoal = atLeast(nearlyAll)
	}
	switch offered := calm * factor * float64(d.mix[load.VerbHome]) / 100; {
	case reads >= nearlyAll:
	case extras > none:
		fmt.Fprintln(d.out, "extras were served while reads were refused: classes do not yield strictly in order")
	case posts < reads-behind:
		fmt.Fprintf(d.out, "reads alone are %.1f of the capacity and rank above posts: posts starve by design\n", offered)
	}
	add("reads_share", "ratio", reads, readsGoal)
	add("posts_share", "ratio", posts, postsGoal)
	add("extras_share", "ratio", extras, extrasGoal)
}
