// SPDX-License-Identifier: Apache-2.0

// Command bench measures Moments beside the fan-out of the industry, Redis sorted sets behind a Go HTTP front (package redisref), on
// this machine, in one run.
//
//	go run . -graph edges.txt -duration 20s -json ../../build/bench-moments.jsonl
//
// It builds and starts both systems on loopback with their data on the disk of -dir, registers everybody in the graph, makes them
// friends, and then lets both do the same work in turns, round by round, the order changed each round:
//
//	F     posts of 256 characters by random authors, 8 at a time, until the last posts have arrived at friends
//	R     home pages of 10 posts with bodies, 32 at a time; in Moments, which has them, each post that stands on somebody's page has
//	      got 5 comments and 5 likes before, and every page tells those that its reader may see
//	rpc   the pages of R from the timeline service of Moments itself, over a socket without HTTP
//	O     home pages at 2,000 a second, latency from the scheduled time
//	post  posts at 500 a second, latency from the scheduled time
//
// At last somebody with 5,000 friends posts to Moments (bigfan): the time until the post has arrived at all of them.
//
// After each run that posts, the whole timelines of 60 random people are compared with what was posted; one missing delivery, one
// failed call, or one post in a wrong place voids the bench. Moments flushes before it answers, authenticates every call and filters
// every page; user limits are off and passwords are hashed at the least cost, for the generator is not what those are for. Redis
// flushes its append-only file before it answers and does neither of the others. CPU is user plus system time of all processes of a
// system; the generator's is not counted, but it shares the cores.
//
//	go run . drill -json ../../build/drill-midnight.jsonl
//
// is midnight of New Year's Eve, on Moments alone: five times the usual calls for a minute; see drill.go.
//
//	go run . regions -json ../../build/drill-regions.jsonl
//
// is three regions whose lines are cut and which are killed while people talk; see regions.go.
//
//	go run . rehome -json ../../build/drill-rehome.jsonl
//
// moves people between such regions, with a kill at each step; see rehome.go.
//
//	go run . growth -json ../../build/bench-growth.jsonl
//
// asks whether a page and a delivery cost more the more people there are; see growth.go.
//
//	go run . beside -old ../../build/moments.old
//
// compares two builds of Moments; see beside.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
)

// remarks is how many comments, and how many likes, each post on a page gets before pages are measured.
const remarks = 5

// showEvery is how often the registering of people shows how far it is.
const showEvery = 5 * time.Second

type config struct {
	graph    string
	people   int
	duration time.Duration
	rounds   int
	json     string
	dir      string
	moments  string
	split    bool
	bigfan   bool
	redis    string
	only     string
	runs     string
	profile  string
	readRate float64
	postRate float64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		if len(os.Args) > 1 {
			switch os.Args[1] {
			case frontArg:
				return front(ctx, os.Args[2:])
			case "hotpost":
				return hotMain(ctx, os.Args[2:], os.Stdout)
			case "drill":
				return drillMain(ctx, os.Args[2:], os.Stdout)
			case "regions":
				return regionsMain(ctx, os.Args[2:], os.Stdout)
			case "rehome":
				return rehomeMain(ctx, os.Args[2:], os.Stdout)
			case "growth":
				return growthMain(ctx, os.Args[2:], os.Stdout)
			case "beside":
				return besideMain(ctx, os.Args[2:], os.Stdout)
			case "causal":
				return causalMain(ctx, os.Args[2:], os.Stdout)
			}
		}
		return bench(ctx, os.Args[1:], os.Stdout)
	}()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// runNames are those of a round, in their order.
var runNames = []string{"F", "R", "rpc", "O", "post"}

func parse(args []string) (*config, error) {
	c := &config{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&c.graph, "graph", "", "edge list, one mutual friendship \"a b\" a line; without it, one is generated")
	fs.IntVar(&c.people, "people", 962, "people of the generated graph")
	fs.DurationVar(&c.duration, "duration", 20*time.Second, "length of each run")
	fs.IntVar(&c.rounds, "rounds", 3, "rounds; each runs everything once on both systems")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	fs.StringVar(&c.dir, "dir", "", "where the systems keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.moments, "moments", "", "the moments command (default: built from this repository)")
	fs.BoolVar(&c.split, "split", false, "each Moments service in its own process")
	fs.BoolVar(&c.bigfan, "bigfan", true, "let somebody with 5,000 friends post at last")
	fs.StringVar(&c.redis, "redis-server", "redis-server", "the redis-server to run")
	fs.StringVar(&c.only, "only", "", "measure one system alone: moments or ref")
	fs.StringVar(&c.runs, "runs", "F,R,rpc,O,post", "the runs of a round; R, rpc and O need the posts of an earlier F")
	fs.StringVar(&c.profile, "profile", "", "directory for a processor profile of Moments in each run; fetching them costs a little")
	fs.Float64Var(&c.readRate, "read-rate", 2000, "reads a second of the open loop")
	fs.Float64Var(&c.postRate, "post-rate", 500, "posts a second of the open loop")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; see -help", fs.Arg(0))
	case c.duration <= 0:
		return nil, fmt.Errorf("-duration %v; want more than 0", c.duration)
	case c.rounds < 1 || c.rounds > 100:
		return nil, fmt.Errorf("-rounds %d; want 1 to 100", c.rounds)
	case c.only != "" && c.only != "moments" && c.only != "ref":
		return nil, fmt.Errorf("-only %q; want moments or ref", c.only)
	case slices.ContainsFunc(strings.Split(c.runs, ","), func(run string) bool { return !slices.Contains(runNames, run) }):
		return nil, fmt.Errorf("-runs %q; want some of %s, with commas between them", c.runs, strings.Join(runNames, ","))
	case c.readRate <= 0 || c.postRate <= 0:
		return nil, errors.New("-read-rate and -post-rate must be above 0")
	}
	return c, nil
}

// system is one of the two under measurement.
type system struct {
	name     string // of its metrics: moments or moments.ref
	about    string
	pids     []int
	indexCap int
	talks    bool     // its people can comment and like
	urls     []string // of its gateways
	admin    string   // of the first gateway's admin pages; empty for none
	dial     func() (load.Target, error)
	rpc      func() (load.Target, error)                                     // reads pages without HTTP; nil: it cannot
	hangUp   func() error                                                    // ends the connection of rpc; nil without
	found    func(*load.Graph) (dial func() (load.Target, error), err error) // makes room for more people; nil: it cannot
	alive    func() error
	stop     func()
}

func bench(ctx context.Context, args []string, out io.Writer) (err error) {
	c, err := parse(args)
	if err != nil {
		return err
	}
	graph, err := readGraph(c)
	if err != nil {
		return err
	}
	root, dir, err := workspace(ctx, c.dir, "bench-moments-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	mean, p50, p90, p99, largest := graph.Shape()
	fmt.Fprintf(out, "%d people, %d directed friendships: mean %.1f, p50 %d, p90 %d, p99 %d, max %d\n",
		graph.People(), graph.Directed(), mean, p50, p90, p99, largest)

	var systems []*system
	defer func() {
		for _, s := range systems {
			s.stop()
		}
	}()
	if c.only != "ref" {
		path, err := buildMoments(ctx, c.moments, root, dir, out)
		if err != nil {
			return err
		}
		s, err := startMoments(ctx, path, c.split, dir, graph)
		if err != nil {
			return fmt.Errorf("moments: %w", err)
		}
		systems = append(systems, s)
	}
	if c.only != "moments" {
		s, err := startReference(ctx, c, dir)
		if err != nil {
			return fmt.Errorf("reference: %w", err)
		}
		systems = append(systems, s)
	}
	for _, s := range systems {
		fmt.Fprintf(out, "%-11s  %s\n", s.name, s.about)
		began, shown := time.Now(), time.Now()
		err := load.Populate(ctx, graph, 16, s.dial, func(st load.Stage) {
			if time.Since(shown) >= showEvery || st.Done == st.Total {
				shown = time.Now()
				fmt.Fprintf(out, "%-11s  %s %d/%d\n", s.name, st.Name, st.Done, st.Total)
			}
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, errors.Join(err, s.alive()))
		}
		fmt.Fprintf(out, "%-11s  populated in %v\n", s.name, time.Since(began).Round(time.Millisecond))
	}
	m := &measurement{config: c, graph: graph, out: out, figures: map[string][]float64{}}
	for round := range c.rounds {
		if err := m.round(ctx, round, systems); err != nil {
			return err
		}
	}
	for _, s := range systems {
		if err := m.bigFan(ctx, s); err != nil {
			return fmt.Errorf("%s bigfan: %w", s.name, errors.Join(err, s.alive()))
		}
	}
	metrics := m.metrics()
	fmt.Fprintf(out, "\nmedians of %d rounds, quartiles in brackets; load average %s\n", c.rounds, loadAverage())
	for _, metric := range metrics {
		fmt.Fprintln(out, metric)
	}
	if c.json != "" {
		if err := writeJSON(out, c.json, metrics); err != nil {
			return err
		}
	}
	return errors.Join(m.voids...)
}

func readGraph(c *config) (*load.Graph, error) {
	if c.graph == "" {
		return load.Generate(c.people, 1)
	}
	f, err := os.Open(c.graph)
	if err != nil {
		return nil, fmt.Errorf("%w (a relative path is taken from %s)", err, workDir())
	}
	defer f.Close()
	g, err := load.ReadGraph(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.graph, err)
	}
	return g, nil
}

func workDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "the working directory"
	}
	return dir
}

// repository returns the root of the main module, whether the program runs in it or in its own.
func repository(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/sluice-rpc/sluice").Output()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w (run it inside the repository)", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// workspace finds the repository, makes a directory for the data of the servers in parent, by default build in the repository, and
// says where. Who calls it removes the directory.
func workspace(ctx context.Context, parent, prefix string, out io.Writer) (root, dir string, err error) {
	if root, err = repository(ctx); err != nil {
		return "", "", err
	}
	if parent == "" {
		parent = filepath.Join(root, "build")
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", "", err
	}
	if dir, err = os.MkdirTemp(parent, prefix); err != nil {
		return "", "", err
	}
	fmt.Fprintf(out, "%s, %d cores, load average %s; data in %s%s\n", runtime.Version(), runtime.NumCPU(), loadAverage(), dir, inMemory(dir))
	return root, dir, nil
}

// inMemory says so if dir is on a file system for which a flush is free.
func inMemory(dir string) string {
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) == nil && (int64(fs.Type) == tmpfs || int64(fs.Type) == ramfs) {
		return " (in memory: flushes cost nothing here, name a real disk with -dir)"
	}
	return ""
}

// measurement runs the rounds and keeps their figures by metric name, one value a round.
type measurement struct {
	*config
	graph   *load.Graph
	out     io.Writer
	figures map[string][]float64
	voids   []error
}

func (m *measurement) round(ctx context.Context, round int, systems []*system) error {
	order := make([]*system, len(systems))
	for i := range systems {
		order[i] = systems[(i+round)%len(systems)]
	}
	fmt.Fprintf(m.out, "\nround %d of %d, load average %s\n", round+1, m.rounds, loadAverage())
	fmt.Fprintf(m.out, "%-5s %-12s %9s %13s %8s %8s %8s %12s %16s %8s\n",
		"run", "system", "calls/s", "deliveries/s", "p50 ms", "p99 ms", "p999 ms", "CPU us/call", "CPU us/delivery", "missing")
	for _, run := range []struct {
		name string
		load load.Config
	}{
		{"F", load.Config{Mode: load.FanOut}},
		{"R", load.Config{Mode: load.Reads}},
		{"rpc", load.Config{Mode: load.Reads}},
		{"O", load.Config{Mode: load.OpenLoop, Rate: m.readRate}},
		{"post", load.Config{Mode: load.FanOut, Rate: m.postRate}},
	} {
		if !slices.Contains(strings.Split(m.runs, ","), run.name) {
			continue
		}
		for _, s := range order {
			dial, system, name := s.dial, s.name, run.name
			if run.name == "rpc" {
				if s.rpc == nil {
					continue
				}
				dial, system, name = s.rpc, s.name+".rpc", "R"
			}
			if run.name == "R" {
				if err := m.talk(ctx, round, s); err != nil {
					return fmt.Errorf("%s comments: %w", s.name, errors.Join(err, s.alive()))
				}
			}
			c := run.load
			c.Duration, c.Seed, c.Graph, c.Dial, c.IndexCap = m.duration, uint64(round+1), m.graph, dial, s.indexCap
			c.CPU = func() (time.Duration, error) { return cpuOf(s.pids) }
			stop := m.record(ctx, s, fmt.Sprintf("%s-%d.pprof", run.name, round+1))
			res, err := load.Run(ctx, c)
			if err = errors.Join(err, stop()); err != nil {
				return fmt.Errorf("%s %s: %w", s.name, run.name, errors.Join(err, s.alive()))
			}
			m.keep(system, name, res)
		}
	}
	return nil
}

// record fetches a processor profile of the next run into a file, if profiles are wanted; stop waits for it.
func (m *measurement) record(ctx context.Context, s *system, name string) (stop func() error) {
	if m.profile == "" || s.admin == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- m.fetchProfile(ctx, s, name) }() // stop waits for it
	return func() error { return <-done }
}

func (m *measurement) fetchProfile(ctx context.Context, s *system, name string) error {
	url := fmt.Sprintf("http://%s/admin/pprof/profile?seconds=%d", s.admin, max(1, int(m.duration.Seconds())))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", url, res.Status, b)
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.profile, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.profile, name), b, 0o644)
}

// talk has everybody comment and like what they see, where people can.
func (m *measurement) talk(ctx context.Context, round int, s *system) error {
	if !s.talks {
		return nil
	}
	began, shown := time.Now(), time.Now()
	posts, err := load.Talk(ctx, m.graph, remarks, 16, uint64(round+1), s.dial, func(st load.Stage) {
		if time.Since(shown) >= showEvery {
			shown = time.Now()
			fmt.Fprintf(m.out, "      %-12s %s %d/%d\n", s.name, st.Name, st.Done, st.Total)
		}
	})
	if err == nil {
		fmt.Fprintf(m.out, "      %-12s %d posts got %d comments and likes each in %v\n", s.name, posts, remarks, time.Since(began).Round(time.Millisecond))
	}
	return err
}

// What bigFan measures.
const (
	fans        = 5_000
	fanPosts    = 5
	fanPatience = 30 * time.Second
)

// bigFan lets somebody with many friends post, where more people can be made.
func (m *measurement) bigFan(ctx context.Context, s *system) error {
	if s.found == nil || !m.bigfan {
		return nil
	}
	g, err := load.Star(fans)
	if err != nil {
		return err
	}
	dial, err := s.found(g)
	if err != nil {
		return err
	}
	began, shown := time.Now(), time.Now()
	err = load.Populate(ctx, g, 16, dial, func(st load.Stage) {
		if time.Since(shown) >= showEvery {
			shown = time.Now()
			fmt.Fprintf(m.out, "%-11s  %s %d/%d\n", s.name, st.Name, st.Done, st.Total)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(m.out, "%-11s  somebody has %d friends after %v\n", s.name, fans, time.Since(began).Round(time.Millisecond))
	for i := range fanPosts {
		a, err := load.Arrive(ctx, g, 0, uint64(i), fanPatience, dial)
		if err != nil {
			return err
		}
		fmt.Fprintf(m.out, "%-11s  post %d arrived after %v, missing %d\n", s.name, i+1, a.Took.Round(time.Millisecond), a.Missing)
		m.figures[s.name+".bigfan.drain_s"] = append(m.figures[s.name+".bigfan.drain_s"], a.Took.Seconds())
		m.figures[s.name+".bigfan.missing"] = append(m.figures[s.name+".bigfan.missing"], float64(a.Missing))
	}
	return nil
}

// keep prints a run's line and keeps its figures.
func (m *measurement) keep(system, run string, res *load.Result) {
	err := res.Void()
	if res.Calls() == 0 {
		err = errors.Join(err, errors.New("no call succeeded"))
	}
	if run == "R" && err == nil && res.PageItems < 0.95*load.PageSize {
		err = fmt.Errorf("pages held %.1f posts in the mean, want %d: a longer -duration fills them", res.PageItems, load.PageSize)
	}
	if err != nil {
		err = fmt.Errorf("%s %s is void: %w", system, run, err)
		fmt.Fprintln(m.out, err)
		m.voids = append(m.voids, err)
	}
	if res.Calls() == 0 {
		return
	}
	all := load.Latency{}
	for v := range res.Latency {
		all.Merge(&res.Latency[v])
	}
	perCall := micros(res.CPU) / float64(res.Calls())
	perDelivery := micros(res.CPU) / float64(res.Deliveries)
	deliveries, each := "-", "-"
	if res.Deliveries > 0 {
		deliveries, each = fmt.Sprintf("%.0f", float64(res.Deliveries)/res.Elapsed.Seconds()), fmt.Sprintf("%.1f", perDelivery)
	}
	fmt.Fprintf(m.out, "%-5s %-12s %9.0f %13s %8.2f %8.2f %8.2f %12.1f %16s %8d\n", run, system,
		float64(res.Calls())/res.Elapsed.Seconds(), deliveries,
		millis(all.Quantile(0.5)), millis(all.Quantile(0.99)), millis(all.Quantile(0.999)), perCall, each, res.Check.Missing)
	add := func(name string, value float64) {
		name = system + "." + name
		m.figures[name] = append(m.figures[name], value)
	}
	switch run {
	case "F":
		add("F.deliveries_per_s", float64(res.Deliveries)/res.Elapsed.Seconds())
		add("F.cpu_us_per_delivery", perDelivery)
		add("F.missing", float64(res.Check.Missing))
		add("F.posts_per_s", float64(res.Calls())/res.Elapsed.Seconds())
		add("F.p99_ms", millis(all.Quantile(0.99)))
	case "R":
		add("R.reads_per_s", float64(res.Calls())/res.Elapsed.Seconds())
		add("R.cpu_us_per_read", perCall)
		add("R.p99_ms", millis(all.Quantile(0.99)))
	case "O":
		add("O.p50_ms", millis(all.Quantile(0.5)))
		add("O.p99_ms", millis(all.Quantile(0.99)))
	case "post":
		add("post.p50_ms", millis(all.Quantile(0.5)))
		add("post.p99_ms", millis(all.Quantile(0.99)))
		add("post.missing", float64(res.Check.Missing))
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// The reference must itself be good, or beating it says nothing: what the same model reached on four cores with its log flushed
// before the answer, and how far below that it may be. CPU holds on any number of cores.
const (
	refDeliveries = 80_000.0
	refReads      = 8_000.0
	refCores      = 4
	refDeliverCPU = 19.0
	refReadCPU    = 200.0
	refSlack      = 0.20
)

// metrics returns the medians in the order they are read.
func (m *measurement) metrics() []metric {
	var all []metric
	for _, w := range []struct {
		name, unit string
		goal       *goal
	}{
		{"F.deliveries_per_s", "1/s", nil},
		{"F.cpu_us_per_delivery", "us", atMost(15)},
		{"F.missing", "", atMost(0)},
		{"F.posts_per_s", "1/s", nil},
		{"F.p99_ms", "ms", nil},
		{"R.reads_per_s", "1/s", nil},
		{"R.cpu_us_per_read", "us", atMost(200)},
		{"R.p99_ms", "ms", nil},
		{"rpc.R.reads_per_s", "1/s", nil},
		{"rpc.R.cpu_us_per_read", "us", nil},
		{"rpc.R.p99_ms", "ms", nil},
		{"O.p50_ms", "ms", nil},
		{"O.p99_ms", "ms", nil},
		{"post.p50_ms", "ms", nil},
		{"post.p99_ms", "ms", atMost(10)},
		{"post.missing", "", atMost(0)},
		{"bigfan.drain_s", "s", atMost(1)},
		{"bigfan.missing", "", atMost(0)},
	} {
		if values := m.figures["moments."+w.name]; values != nil {
			all = append(all, newMetric("moments."+w.name, w.unit, values, w.goal))
		}
		if values := m.figures["moments.ref."+w.name]; values != nil {
			all = append(all, newMetric("moments.ref."+w.name, w.unit, values, nil))
		}
	}
	all = append(all, m.ratio("F", "deliveries_per_s", "cpu_us_per_delivery", refDeliveries, refDeliverCPU, atLeast(1))...)
	if ours, theirs := m.figures["moments.O.p99_ms"], m.figures["moments.ref.O.p99_ms"]; ours != nil && theirs != nil {
		all = append(all, newMetric("moments.O.p99_ratio_vs_redis", "ratio", divided(ours, theirs), atMost(1)))
	}
	return append(all, m.ratio("R", "reads_per_s", "cpu_us_per_read", refReads, refReadCPU, atLeast(1))...)
}

func divided(ours, theirs []float64) []float64 {
	ratios := make([]float64, min(len(ours), len(theirs)))
	for i := range ratios {
		ratios[i] = ours[i] / theirs[i]
	}
	return ratios
}

// ratio divides what the two systems did in the same round, void if the reference was not what a good one is.
func (m *measurement) ratio(run, speed, cpu string, wantSpeed, wantCPU float64, g *goal) []metric {
	name := "moments." + run + ".ratio_vs_redis"
	ours, theirs := m.figures["moments."+run+"."+speed], m.figures["moments.ref."+run+"."+speed]
	if ours == nil || theirs == nil {
		return nil
	}
	ratio := newMetric(name, "ratio", divided(ours, theirs), g)
	_, gotSpeed, _ := quartiles(theirs)
	_, gotCPU, _ := quartiles(m.figures["moments.ref."+run+"."+cpu])
	switch {
	case gotCPU > wantCPU*(1+refSlack):
		ratio.Void = fmt.Sprintf("the reference took %.1f us of CPU, want %.0f at most 20 %% above", gotCPU, wantCPU)
	case runtime.NumCPU() >= refCores && gotSpeed < wantSpeed*(1-refSlack):
		ratio.Void = fmt.Sprintf("the reference did %.0f a second, want %.0f at most 20 %% below", gotSpeed, wantSpeed)
	}
	return []metric{ratio}
}
