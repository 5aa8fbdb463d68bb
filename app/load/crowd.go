// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// MixX is the mix of mode X: so many of a hundred calls are of each verb.
var MixX = Mix{VerbHome: 60, VerbAlbum: 30, VerbPost: 10}

// Mix says how many of a hundred calls are of each verb.
type Mix [verbs]int

// LateAfter is how late a call may start because the generator had not got to it. Above that it counts as late, and its latency
// from its start, so that a generator without CPU does not pass for a slow system.
const LateAfter = 10 * time.Millisecond

// CrowdConfig is what a Crowd needs.
type CrowdConfig struct {
	Graph       *Graph
	Dial        func() (Target, error) // a connection, made on first use
	Connections int                    // at most so many calls are on their way
	Mix         Mix
	InTime      [verbs]time.Duration // an answer after that is of no use to anybody
	Seed        uint64               // the same seed draws the same people, texts and times
}

// Crowd is a generator that goes on calling a system that refuses, by the second and by verb: what Run voids a run for, a Crowd
// counts. Nobody comes again for being refused. One of its methods at a time may be called.
type Crowd struct {
	cfg    CrowdConfig
	rng    *rand.Rand
	ledger *ledger

	mu      sync.Mutex
	idle    []*caller // guarded by mu; the last one is taken, so that a calm crowd needs few connections
	unknown int       // posts of which nobody knows whether they were made; guarded by mu
	all     []*caller
}

// caller is one connection.
type caller struct {
	target Target
	rng    *rand.Rand // of a closed loop
	calls  chan crowdCall
}

type crowdCall struct {
	verb          Verb
	person, whose int
	text          string
	from          time.Time
	window        *Window
}

// Tally is what became of the calls of one verb.
type Tally struct {
	Offered  int64
	Done     int64 // answered in time
	Slow     int64 // answered, too late
	Refused  int64 // 503 or 429
	TimedOut int64 // 504
	Failed   int64 // in any other way
	Unsent   int64 // all connections were taken
}

// Add adds all that o has counted.
func (t *Tally) Add(o Tally) {
	t.Offered += o.Offered
	t.Done += o.Done
	t.Slow += o.Slow
	t.Refused += o.Refused
	t.TimedOut += o.TimedOut
	t.Failed += o.Failed
	t.Unsent += o.Unsent
}

// Window is what became of the calls that were due in a span of time.
type Window struct {
	Verbs      [verbs]Tally
	Served     Latency // of calls that were answered, in time or not
	Refusals   Latency // until the refusal
	Late       Latency // starts, that were more than LateAfter behind
	FirstError error   // of a call that failed, timed out included
}

// Merge adds all that o has counted.
func (w *Window) Merge(o *Window) {
	for v := range w.Verbs {
		w.Verbs[v].Add(o.Verbs[v])
	}
	w.Served.Merge(&o.Served)
	w.Refusals.Merge(&o.Refusals)
	w.Late.Merge(&o.Late)
	if w.FirstError == nil {
		w.FirstError = o.FirstError
	}
}

// Sum returns the tally over all verbs.
func (w *Window) Sum() Tally {
	var sum Tally
	for _, t := range w.Verbs {
		sum.Add(t)
	}
	return sum
}

// NewCrowd makes a crowd. Close ends it.
func NewCrowd(cfg CrowdConfig) (*Crowd, error) {
	sum := 0
	for _, share := range cfg.Mix {
		if share < 0 {
			sum = -1
			break
		}
		sum += share
	}
	switch {
	case cfg.Graph == nil || cfg.Graph.People() == 0:
		return nil, errors.New("nobody to act for: the graph is empty")
	case cfg.Connections < 1 || cfg.Connections > 20_000:
		return nil, fmt.Errorf("%d connections; want 1 to 20,000", cfg.Connections)
	case sum != 100:
		return nil, fmt.Errorf("the mix %v is not of a hundred calls", cfg.Mix)
	}
	c := &Crowd{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), ledger: newLedger()} // #nosec G404 -- load, not secrets
	for i := range cfg.Connections {
		t, err := cfg.Dial()
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.all = append(c.all, &caller{
			target: t, rng: rand.New(rand.NewPCG(cfg.Seed, uint64(i)+1)), // #nosec G404 -- load, not secrets
		})
	}
	return c, nil
}

// Close ends the connections.
func (c *Crowd) Close() error {
	var errs []error
	for _, one := range c.all {
		errs = append(errs, one.target.Close())
	}
	c.all = nil
	return errors.Join(errs...)
}

// Greet has every connection read a page, so that all are open.
func (c *Crowd) Greet(ctx context.Context) error {
	return c.each(ctx, len(c.all), func(ctx context.Context, t Target, i int) error {
		_, err := t.Home(ctx, i%c.cfg.Graph.People(), "", 1)
		return err
	})
}

// Fill has each person post n times.
func (c *Crowd) Fill(ctx context.Context, n int) error {
	people := c.cfg.Graph.People()
	return c.each(ctx, n*people, func(ctx context.Context, t Target, i int) error {
		id, err := t.Compose(ctx, i%people, fmt.Sprintf("%0*d", textLength, i))
		if err != nil {
			return err
		}
		return c.ledger.add(id, i%people)
	})
}

// each does something for 0 to total-1, few at a time and again if it was refused, and uses all connections for it in turn.
func (c *Crowd) each(ctx context.Context, total int, do func(context.Context, Target, int) error) error {
	workers := min(checkWorkers, len(c.all))
	used := len(c.all) / workers * workers // a connection is one worker's
	group, ctx := errgroup.WithContext(ctx)
	for first := range workers {
		group.Go(func() error {
			for i := first; i < total; i += workers {
				t := c.all[i%used].target
				if err := patiently(ctx, t, func() error { return do(ctx, t, i) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// Closed has workers call for a while, each as soon as it was answered.
func (c *Crowd) Closed(ctx context.Context, workers int, d time.Duration) (*Window, error) {
	if workers < 1 || workers > len(c.all) {
		return nil, fmt.Errorf("%d workers; there are %d connections", workers, len(c.all))
	}
	w := &Window{}
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for _, one := range c.all[:workers] {
		wg.Go(func() {
			for ctx.Err() == nil {
				now := time.Now()
				if !now.Before(end) {
					return
				}
				if !c.do(ctx, one, c.draw(one.rng, now, w)) {
					wait(ctx, pauseAfterError)
				}
			}
		})
	}
	wg.Wait()
	return w, ctx.Err()
}

// Step is a rate that lasts for whole seconds.
type Step struct {
	Rate    float64 // calls a second in the mean; they come when they like
	Seconds int
}

// Open calls at the rates of the steps whatever the system answers, and returns a Window for each second. Latency counts from the
// time a call is due. report, if not nil, is told of each second when it is over, when calls due in it may still be on their way.
func (c *Crowd) Open(ctx context.Context, steps []Step, report func(second int, w Window)) ([]*Window, error) {
	var windows []*Window
	for _, s := range steps {
		if s.Rate <= 0 || s.Rate > 1e6 || s.Seconds < 1 {
			return nil, fmt.Errorf("step of %v a second for %d s; want both above 0", s.Rate, s.Seconds)
		}
		for range s.Seconds {
			windows = append(windows, &Window{})
		}
	}
	var wg sync.WaitGroup
	c.idle = c.idle[:0]
	for _, one := range c.all {
		one.calls = make(chan crowdCall, 1)
		c.idle = append(c.idle, one)
		wg.Go(func() {
			for call := range one.calls {
				c.do(ctx, one, call)
				c.mu.Lock()
				c.idle = append(c.idle, one)
				c.mu.Unlock()
			}
		})
	}
	c.pace(ctx, steps, windows, report)
	for _, one := range c.all {
		close(one.calls)
	}
	wg.Wait()
	return windows, ctx.Err()
}

// pace hands out calls when they are due.
func (c *Crowd) pace(ctx context.Context, steps []Step, windows []*Window, report func(int, Window)) {
	start, at, second := time.Now(), time.Duration(0), 0
	base := time.Duration(0)
	for _, s := range steps {
		base += time.Duration(s.Seconds) * time.Second
		for {
			at += time.Duration(c.rng.ExpFloat64() / s.Rate * float64(time.Second))
			if at >= base {
				at = base // no memory: the next step draws anew
				break
			}
			for ; int(at/time.Second) > second; second++ {
				c.tell(second, windows[second], report)
			}
			from := start.Add(at)
			if !wait(ctx, time.Until(from)) {
				return
			}
			c.hand(c.draw(c.rng, from, windows[second]))
		}
	}
	c.tell(second, windows[second], report)
}

func (c *Crowd) tell(second int, w *Window, report func(int, Window)) {
	if report == nil {
		return
	}
	c.mu.Lock()
	now := *w
	c.mu.Unlock()
	report(second, now)
}

// hand gives a call to a connection that has none.
func (c *Crowd) hand(call crowdCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.idle) - 1
	if last < 0 {
		call.window.Verbs[call.verb].Offered++
		call.window.Verbs[call.verb].Unsent++
		return
	}
	one := c.idle[last]
	c.idle = c.idle[:last]
	one.calls <- call // it has room: one was idle
}

// draw chooses who does what.
func (c *Crowd) draw(rng *rand.Rand, from time.Time, w *Window) crowdCall {
	call := crowdCall{from: from, window: w, person: rng.IntN(c.cfg.Graph.People())}
	for dice := rng.IntN(100); dice >= c.cfg.Mix[call.verb]; call.verb++ {
		dice -= c.cfg.Mix[call.verb]
	}
	switch call.verb {
	case VerbPost:
		call.text = randomText(rng)
	case VerbAlbum:
		call.whose = call.person
		if friends := c.cfg.Graph.Friends[call.person]; len(friends) > 0 {
			call.whose = int(friends[rng.IntN(len(friends))])
		}
	default:
	}
	return call
}

// do makes a call, counts what became of it, and says whether it was answered.
func (c *Crowd) do(ctx context.Context, one *caller, call crowdCall) bool {
	began := time.Now()
	late := began.Sub(call.from)
	from := call.from
	if late > LateAfter {
		from = began
	}
	var err error
	switch call.verb {
	case VerbPost:
		var id string
		if id, err = one.target.Compose(ctx, call.person, call.text); err == nil {
			err = c.ledger.add(id, call.person)
		}
	case VerbAlbum:
		_, err = one.target.Album(ctx, call.person, call.whose, PageSize)
	default:
		_, err = one.target.Home(ctx, call.person, "", PageSize)
	}
	took := time.Since(from)
	if err != nil && ctx.Err() != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := call.window
	if late > LateAfter {
		w.Late.Record(late)
	}
	t := &w.Verbs[call.verb]
	t.Offered++
	if err == nil {
		w.Served.Record(took)
		if took <= c.cfg.InTime[call.verb] {
			t.Done++
		} else {
			t.Slow++
		}
		return true
	}
	var status *StatusError
	switch errors.As(err, &status); {
	case status != nil && (status.Status == http.StatusServiceUnavailable || status.Status == http.StatusTooManyRequests):
		t.Refused++
		w.Refusals.Record(took)
		return false
	case status != nil && status.Status == http.StatusGatewayTimeout:
		t.TimedOut++
	default:
		t.Failed++
	}
	if call.verb == VerbPost {
		c.unknown++
	}
	if w.FirstError == nil {
		w.FirstError = err
	}
	return false
}

// Check waits until the last posts have arrived and compares random readers' timelines with all that the crowd was told is posted.
// Posts that failed may be there and may have pushed as many old ones off an index of indexCap entries: these are not looked for.
func (c *Crowd) Check(ctx context.Context, indexCap int) (Completeness, error) {
	if indexCap > 0 {
		indexCap = max(1, indexCap-c.unknown)
	}
	r := &run{
		Config: Config{Graph: c.cfg.Graph, Dial: c.cfg.Dial, Seed: c.cfg.Seed, IndexCap: indexCap, Settle: time.Minute},
		ledger: c.ledger,
	}
	if r.ledger.len() == 0 {
		return Completeness{}, nil
	}
	if err := r.drain(ctx); err != nil {
		return Completeness{}, err
	}
	return r.complete(ctx)
}
