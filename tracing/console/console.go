// SPDX-License-Identifier: Apache-2.0

// Package console shows a whole system as its processes see it: the call graph of each
// entry, live and compared with another time, traces put together from all processes,
// every item of every service over time, and the state of admission.
//
// A Console pulls the admin pages of processes that it is told of, every ten seconds.
// It keeps what it has pulled in memory: an hour round by round, a day in blocks of
// five minutes. Nothing is written to disk, and nothing has to be installed beside it.
// What a process counted between its last pull and its end is lost, as is what was
// counted before the console first saw it; counts are otherwise exact.
//
// Processes are not trusted: each answer is bounded in size and time, checked, and
// taken by itself, so that one process that is slow, huge or lies harms nobody else.
// What is wrong with it is shown.
//
// Memory: a row of a call graph takes some 60 bytes a round, so a system of 1,000
// edges, both ends counted, needs 45 MB for its hour and 35 MB for its day. Config
// bounds it; beyond, the oldest goes first. Values of items take 2.6 KB each once
// they change, at most 128 MiB in all, and traces at most 64 MiB.
package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// Config says what a Console looks at. Targets or Discovery is needed, the rest has
// defaults.
type Config struct {
	Targets Targets
	// Discovery finds further targets. Run and Graph follow it.
	Discovery *Discovery
	// Token is sent to admin ports as a bearer token. They need one unless they are on
	// loopback.
	Token string
	// Every is the time between two rounds of pulls, from one second on; zero means ten
	// seconds.
	Every time.Duration
	// PullTime is how long all pages of one process together may take. Zero means four
	// seconds.
	PullTime time.Duration
	// GraphBytes is how much memory call graphs may take. Zero means 256 MiB.
	GraphBytes int
	// AnyHost lets the page be asked for under any name. Without it that is localhost or
	// an address: a page elsewhere on the web cannot make a browser read what is here by
	// a name of its own (DNS rebinding).
	AnyHost bool
	Log     *slog.Logger // nil means slog.Default()
}

// The defaults of a Config.
const (
	DefaultEvery      = 10 * time.Second
	DefaultPullTime   = 4 * time.Second
	DefaultGraphBytes = 256 << 20
)

// A Console pulls and shows. It is safe for concurrent use.
type Console struct {
	cfg    Config
	log    *slog.Logger
	puller *puller

	mu      sync.RWMutex // guards what follows
	began   time.Time    // of the first round
	last    time.Time    // end of the last round
	procs   []*proc      // in the order of the targets
	trouble string       // what is wrong with the targets, if anything
	graphs  *history
	clock   *clock
	series  int // of all processes
	traces  *traces

	pulling sync.Mutex // held during a round
	answers answers
}

// New makes a Console that has pulled nothing yet.
func New(cfg Config) (*Console, error) {
	cfg.Every = cmp.Or(cfg.Every, DefaultEvery)
	cfg.PullTime = cmp.Or(cfg.PullTime, DefaultPullTime)
	cfg.GraphBytes = cmp.Or(cfg.GraphBytes, DefaultGraphBytes)
	switch {
	case cfg.Targets == nil && cfg.Discovery == nil:
		return nil, errors.New("console: no targets: say which processes there are")
	case cfg.Every < time.Second || cfg.Every > BlockTime:
		return nil, fmt.Errorf("console: a round every %v: want 1s to %v", cfg.Every, BlockTime)
	case cfg.PullTime < 0:
		return nil, fmt.Errorf("console: %v for a pull: want more than none", cfg.PullTime)
	case cfg.GraphBytes < 1<<20:
		return nil, fmt.Errorf("console: %d bytes for graphs: want at least 1 MiB", cfg.GraphBytes)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	switch {
	case cfg.Targets == nil:
		cfg.Targets = cfg.Discovery.Targets
	case cfg.Discovery != nil:
		cfg.Targets = Join(cfg.Targets, cfg.Discovery.Targets)
	}
	return &Console{
		cfg: cfg, log: cfg.Log, puller: newPuller(cfg.Token, cfg.PullTime),
		graphs: newHistory(cfg.GraphBytes), clock: newClock(cfg.Every), traces: newTraces(),
	}, nil
}

// Run pulls until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	defer c.puller.close()
	defer c.follow(ctx)()
	tick := time.NewTicker(c.cfg.Every)
	defer tick.Stop()
	for {
		c.Round(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follow has the Discovery look for processes, and gives what ends that.
func (c *Console) follow(ctx context.Context) (end func()) {
	if c.cfg.Discovery == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.cfg.Discovery.Run(ctx)
	}()
	return func() { cancel(); <-ended }
}

// Round pulls all processes once. now is the time that the round ends at. Run calls it;
// a program that wants to look once, or a test, may do so instead.
func (c *Console) Round(ctx context.Context, now time.Time) {
	c.pulling.Lock()
	defer c.pulling.Unlock()
	procs := c.retarget(ctx)
	c.mu.Lock()
	from := c.last
	if c.began.IsZero() {
		c.began, from = now, now.Add(-c.cfg.Every)
	}
	if !now.After(from) { // the clock was set back: what is kept stays in order
		now = from.Add(time.Millisecond)
	}
	if c.clock.tick(now) {
		for _, p := range c.procs {
			p.items.closeBlock(c.clock)
		}
	}
	c.mu.Unlock()

	b := &builder{console: c, from: from, now: now, owners: map[callgraph.Process]*proc{}, all: sums{}, marks: map[string]callgraph.Mark{}}
	for _, p := range procs { // whoever had an identity first keeps it while it answers
		if p.last != nil && p.sameAs == nil && !p.failed {
			b.owners[p.last.Process] = p
		}
	}
	c.puller.all(ctx, procs, b.pull, b.take)
	if ctx.Err() != nil {
		return // whoever failed did so because we stop
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.finish(procs)
}

// retarget asks for the targets and gives their processes.
func (c *Console) retarget(ctx context.Context) []*proc {
	targets, err := c.cfg.Targets(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.trouble
	c.trouble = ""
	if err != nil {
		if c.trouble = cut(err.Error(), 1000); c.trouble != before {
			c.log.WarnContext(ctx, "something is wrong with the targets", "err", err)
		}
		if len(targets) == 0 { // those we know stay
			return slices.Clone(c.procs)
		}
	}
	if len(targets) > MaxTargets {
		c.trouble = fmt.Sprintf("%d targets, of which the first %d are pulled", len(targets), MaxTargets)
		targets = targets[:MaxTargets]
	}
	known := make(map[string]*proc, len(c.procs))
	for _, p := range c.procs {
		known[p.target.Addr] = p
	}
	var procs []*proc
	for _, t := range targets {
		p := known[t.Addr]
		switch {
		case p == nil:
			p = &proc{}
		case slices.Contains(procs, p):
			continue // named twice
		}
		p.target = t
		known[t.Addr] = p
		procs = append(procs, p)
	}
	for _, p := range c.procs {
		if !slices.Contains(procs, p) {
			p.drop(c)
		}
	}
	c.procs = procs
	return slices.Clone(procs)
}

// proc is a target, and the process behind it.
type proc struct {
	target Target

	last   *callgraph.Snapshot // of the last pull that succeeded
	seq    uint64              // of the last record we have
	slow   time.Duration       // how long the last pull took
	failed bool                // the last pull failed

	pulledAt time.Time // of the last pull that succeeded
	err      string    // of the last pull
	note     string    // what was odd about the last answer
	restarts int
	lies     int   // answers that were not believed
	lost     int   // records that were gone before we came
	sameAs   *proc // another target that leads to the same process

	services []string // whose methods it serves
	items    items
	qos      qosHistory
}

// rank orders pulls: the quick ones first.
func (p *proc) rank() int {
	switch {
	case p.failed:
		return 2
	case p.slow > time.Second:
		return 1
	}
	return 0
}

// drop gives back what a process took.
func (p *proc) drop(c *Console) {
	for _, f := range p.items.families {
		for _, s := range f.series {
			s.rate.free(c.clock)
			s.p50.free(c.clock)
			s.p99.free(c.clock)
			c.series--
		}
	}
	p.items = items{}
}

// skew is how far the clock of the process is ahead of ours.
func (p *proc) skew() time.Duration {
	if p.last == nil {
		return 0
	}
	return p.last.Time.Sub(p.pulledAt)
}

// A builder makes a round of the answers of all processes.
type builder struct {
	console   *Console
	from, now time.Time
	mu        sync.Mutex // guards owners, which pulls look at
	owners    map[callgraph.Process]*proc
	all       sums
	marks     map[string]callgraph.Mark
	counted   bool // some process has told what it has counted in this time
}

// pull asks one process; for more than its identity only if nobody else has that.
func (b *builder) pull(ctx context.Context, p *proc) pulled {
	return b.console.puller.pull(ctx, p.target, p.seq, func(s *callgraph.Snapshot) bool { return b.own(s.Process, p) })
}

// own reports whether p is the one that stands for a process.
func (b *builder) own(id callgraph.Process, p *proc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners[id] == nil {
		b.owners[id] = p
	}
	return b.owners[id] == p
}

// owner gives who stands for a process.
func (b *builder) owner(id callgraph.Process) *proc {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.owners[id]
}

// take takes an answer. Answers come one at a time.
func (b *builder) take(p *proc, got pulled) {
	c := b.console
	c.mu.Lock()
	defer c.mu.Unlock()
	p.slow, p.failed, p.err, p.note, p.sameAs = got.took, got.err != nil, "", "", nil
	if got.err != nil {
		p.err = cut(got.err.Error(), 500)
		c.log.Debug("a process was not pulled", "target", p.target.name(), "err", got.err)
	}
	s := got.snapshot
	if s == nil {
		p.qos.add(b.from, b.now, nil)
		return
	}
	if owner := b.owner(s.Process); owner != p && owner != nil {
		p.sameAs, p.last, p.pulledAt = owner, s, b.now
		return
	}
	window, ok := b.window(p, s)
	restarted := p.last != nil && p.last.Process != s.Process
	took := b.now.Sub(b.from)
	if !p.pulledAt.IsZero() {
		took = b.now.Sub(p.pulledAt)
	}
	p.last, p.pulledAt = s, b.now
	p.services = servicesOf(s)
	if ok {
		b.counted = true
		b.add(p, s, window)
	}
	p.qos.add(b.from, b.now, got.qos)
	if got.items != nil {
		p.items.add(c.clock, got.items, took, restarted, &c.series)
	}
	if got.records != nil {
		if restarted && got.records.Next < p.seq {
			p.seq = 0
		}
		p.seq = got.records.Next
		p.lost += int(min(got.records.Lost, 1<<30))
		c.traces.add(p.target.name(), got.records.Records)
	}
}

// window gives what a process has counted since its last pull, and whether to believe it.
func (b *builder) window(p *proc, s *callgraph.Snapshot) (callgraph.Period, bool) {
	since := b.from
	if !p.pulledAt.IsZero() {
		since = p.pulledAt
	}
	if p.last == nil {
		// What it counted before we came belongs to no round, unless it began within this one.
		up := s.Time.Sub(time.Unix(0, int64(min(s.Process.Epoch, 1<<62))))
		if up < 0 || up > b.now.Sub(b.from) {
			return callgraph.Period{}, false
		}
	}
	window, how := callgraph.Window(p.last, s)
	switch how {
	case callgraph.Continuous:
	case callgraph.Restarted:
		p.restarts++
		p.note = "has started again"
	case callgraph.Regressed:
		p.lies++
		p.note = "its counters went down: what it counted in this round is left out"
		return callgraph.Period{}, false
	}
	var calls uint64
	for i := range window.Rows {
		addTo(&calls, window.Rows[i].Calls())
	}
	if most := maxCallsPerSecond * max(b.now.Sub(since), time.Second).Seconds(); float64(calls) > most {
		p.lies++
		p.note = fmt.Sprintf("it says to have counted %d calls in %v: that is left out", calls, b.now.Sub(since).Round(time.Second))
		return callgraph.Period{}, false
	}
	return window, true
}

// add adds the window of one process to the round.
func (b *builder) add(p *proc, s *callgraph.Snapshot, window callgraph.Period) {
	packed := pack(window.Rows)
	b.all.add(&packed, nil)
	for _, e := range s.Entries {
		b.console.graphs.name(e)
	}
	for _, k := range packed.keys[:packed.doors] {
		// A call outside of any request is an entry by its own name, and who serves it may
		// be all that we see of it.
		v := k.Value()
		b.console.graphs.name(callgraph.EntryName{ID: v.Entry, Name: v.Callee})
	}
	// A process may say how it is itself, not how others are.
	own := make(map[string]bool, len(p.services))
	for _, service := range p.services {
		own[service] = true
	}
	for _, e := range s.Entries {
		own[e.Name] = true
	}
	for _, m := range s.Marks {
		if !own[serviceOf(m.Node)] && !own[m.Node] || len(b.marks) >= maxMarks {
			continue
		}
		if old, ok := b.marks[m.Node]; !ok || m.Mark.Severity > old.Severity {
			b.marks[m.Node] = m.Mark
		}
	}
}

// finish keeps the round.
func (b *builder) finish(procs []*proc) {
	c := b.console
	if b.counted || !c.last.IsZero() { // else it is the first look at processes that have run for long
		c.graphs.add(&round{from: b.from, to: b.now, packed: pack(b.all.rows()), marks: b.marks})
	}
	c.last = b.now
	for _, p := range procs {
		if p.sameAs != nil {
			p.qos = qosHistory{}
		}
	}
}

// servicesOf gives the services whose methods a process has served.
func servicesOf(s *callgraph.Snapshot) []string {
	var out []string
	for i := range s.Rows {
		if r := &s.Rows[i]; r.Side == callgraph.Server && r.Callee != "" {
			out = append(out, serviceOf(r.Callee))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
