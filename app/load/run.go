// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Mode is what a run does.
type Mode string

// The four modes. With a rate, every mode is an open loop: calls start on schedule whatever the answers take, and latency counts
// from the scheduled time. Without one, each worker waits for its answer before it calls again.
const (
	FanOut   Mode = "F" // posts by random authors, until their last ones have arrived
	Reads    Mode = "R" // first home page of random readers
	OpenLoop Mode = "O" // as R, at a rate
	Mixed    Mode = "X" // 60 home pages, 30 albums of friends, 10 posts in a hundred
)

// PageSize is how many posts a read asks for.
const PageSize = 10

// Verb is one kind of call.
type Verb int

// The verbs a run measures.
const (
	VerbHome Verb = iota
	VerbAlbum
	VerbPost
	verbs
)

// String returns the verb's name as the tables print it.
func (v Verb) String() string { return [...]string{"home", "album", "post"}[v] }

// Config is one run.
type Config struct {
	Mode     Mode
	Duration time.Duration
	Rate     float64 // calls a second over all workers; 0: closed loop
	Workers  int     // connections; 0: the mode's own (F 8, R and X 32, open loop 64)
	Seed     uint64  // the same seed draws the same people and texts in every worker
	Graph    *Graph
	Active   int                           // how many act, the first of the graph; 0: everybody
	Once     bool                          // each who acts does so once, in a random order, and then the run ends; without a rate
	Dial     func() (Target, error)        // a connection for one worker
	IndexCap int                           // entries a timeline's index keeps; posts older than that are not looked for; 0: all
	Settle   time.Duration                 // how long after the calls a post may still arrive before it is missing; 0: one minute
	CPU      func() (time.Duration, error) // CPU time of all server processes so far; nil: not measured
	Progress func(Sample)                  // called once a second from one goroutine; nil: nobody
}

// Sample is how far a run is.
type Sample struct {
	Elapsed time.Duration
	Phase   string // running, draining or checking
	Calls   int64
	Errors  int64
}

// Result is what a run did and whether it counts.
type Result struct {
	Mode       Mode
	Latency    [verbs]Latency
	Errors     int64
	FirstError error
	// Elapsed is the time of the calls; for posts until their fan-out was seen to be over, so Deliveries / Elapsed is honest.
	Elapsed time.Duration
	// CPU is the server processes' user and system time over Elapsed; 0 if not measured.
	CPU time.Duration
	// Deliveries is the sum of the authors' friend counts over all acknowledged posts.
	Deliveries int64
	// PageItems is the mean number of posts on the pages looked into (one in 64): below PageSize the reads were too cheap.
	PageItems float64
	Check     Completeness
}

// Calls returns the calls that succeeded.
func (r *Result) Calls() int64 {
	var n uint64
	for v := range r.Latency {
		n += r.Latency[v].Count()
	}
	return int64(n)
}

// Void says why the run's figures must not be used, or nil.
func (r *Result) Void() error {
	var errs []error
	if r.Errors > 0 {
		errs = append(errs, fmt.Errorf("%d calls failed, first: %w", r.Errors, r.FirstError))
	}
	return errors.Join(append(errs, r.Check.Err())...)
}

func (c *Config) prepare() error {
	switch c.Mode {
	case FanOut, Reads, Mixed:
	case OpenLoop:
		if c.Rate <= 0 {
			return errors.New("mode O needs a rate above 0")
		}
	default:
		return fmt.Errorf("mode %q; want F (posts), R (home reads), O (reads at a rate) or X (mix)", c.Mode)
	}
	switch {
	case c.Duration <= 0:
		return fmt.Errorf("duration %v; want more than 0", c.Duration)
	case c.Rate < 0 || c.Rate > 1e6:
		return fmt.Errorf("rate %v a second; want 0 (closed loop) to 1,000,000", c.Rate)
	case c.Workers < 0 || c.Workers > 10_000:
		return fmt.Errorf("%d workers; want 1 to 10,000", c.Workers)
	case c.Graph == nil || c.Graph.People() == 0:
		return errors.New("nobody to act for: the graph is empty")
	}
	if c.Active < 0 || c.Active > c.Graph.People() {
		return fmt.Errorf("%d active of %d people", c.Active, c.Graph.People())
	}
	if c.Active == 0 {
		c.Active = c.Graph.People()
	}
	if c.Once && c.Rate > 0 {
		return errors.New("a run in which each acts once has no rate")
	}
	if c.Workers == 0 {
		switch {
		case c.Rate > 0:
			c.Workers = 64
		case c.Mode == FanOut:
			c.Workers = 8
		default:
			c.Workers = 32
		}
	}
	if c.Settle <= 0 {
		c.Settle = time.Minute
	}
	if c.CPU == nil {
		c.CPU = func() (time.Duration, error) { return 0, nil }
	}
	if c.Progress == nil {
		c.Progress = func(Sample) {}
	}
	return nil
}

// Run makes the calls, waits until the last posts have arrived, and compares random readers' timelines with what was posted.
// Failed calls and missing posts are in the result; an error means that the run itself could not be made.
func Run(ctx context.Context, c Config) (*Result, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	r := &run{Config: c, ledger: newLedger(), phase: "running"}
	if c.Once {
		r.order = rand.New(rand.NewPCG(c.Seed, 0x6f726465)).Perm(c.Active) // #nosec G404 -- load, not secrets
	}
	stop := r.report()
	defer stop()
	cpu, err := c.CPU()
	if err != nil {
		return nil, err
	}
	r.start = time.Now()
	if err := r.drive(ctx); err != nil {
		return nil, err
	}
	r.res.Mode = c.Mode
	r.res.Errors = r.errors.Load()
	if r.looked > 0 {
		r.res.PageItems = float64(r.items) / float64(r.looked)
	}
	finish := func() error {
		r.res.Elapsed = time.Since(r.start)
		after, err := c.CPU()
		r.res.CPU = after - cpu
		return err
	}
	if r.ledger.len() == 0 {
		return &r.res, finish()
	}
	r.enter("draining")
	if err := r.drain(ctx); err != nil {
		return nil, err
	}
	if err := finish(); err != nil {
		return nil, err
	}
	r.enter("checking")
	check, err := r.complete(ctx)
	if err != nil {
		return nil, err
	}
	if check.Late > 0 { // the last posts were there, earlier ones were not: the fan-out ended only now
		if err := finish(); err != nil {
			return nil, err
		}
	}
	r.res.Check = check
	for _, p := range r.ledger.posts {
		r.res.Deliveries += int64(len(c.Graph.Friends[p.author]))
	}
	return &r.res, nil
}

type run struct {
	Config
	start  time.Time
	ledger *ledger
	calls  atomic.Int64
	errors atomic.Int64
	turn   atomic.Int64 // the next call of an open loop, or of a run in which each acts once
	order  []int        // who acts, one after the other, if each does once

	mu     sync.Mutex // guards res while workers run, and all below
	res    Result
	phase  string
	looked int // pages decoded
	items  int // posts on them
}

func (r *run) enter(phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = phase
}

// report tells Progress once a second until the returned function is called.
func (r *run) report() (stop func()) {
	began := time.Now()
	return every(time.Second, func() {
		r.mu.Lock()
		s := Sample{Elapsed: time.Since(began), Phase: r.phase, Calls: r.calls.Load(), Errors: r.errors.Load()}
		r.mu.Unlock()
		r.Progress(s)
	})
}

func (r *run) drive(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range r.Workers {
		group.Go(func() error {
			t, err := r.Dial()
			if err != nil {
				return err
			}
			defer func() { _ = t.Close() }()                                               // nothing is in flight
			w := &worker{run: r, target: t, rng: rand.New(rand.NewPCG(r.Seed, uint64(i)))} // #nosec G404 -- load, not secrets
			return w.loop(ctx)
		})
	}
	return group.Wait()
}

const (
	// maxLate bounds how long an open loop may go on behind its schedule, as a multiple of the duration, and grace is added: a
	// stall that is long beside a short run does not yet say what rate the system takes.
	maxLate = 2
	grace   = 10 * time.Second
	// pauseAfterError keeps a closed loop from spinning on a server that is gone.
	pauseAfterError = 10 * time.Millisecond
)

type worker struct {
	*run
	target  Target
	rng     *rand.Rand
	latency [verbs]Latency
	looked  int
	items   int
}

func (w *worker) loop(ctx context.Context) error {
	defer w.merge()
	end := w.start.Add(w.Duration)
	for ctx.Err() == nil {
		from := time.Now()
		if w.Rate > 0 {
			turn := w.turn.Add(1) - 1
			from = w.start.Add(time.Duration(float64(turn) / w.Rate * float64(time.Second)))
			if !from.Before(end) {
				return nil
			}
			if !wait(ctx, time.Until(from)) {
				break
			}
			if time.Since(w.start) > maxLate*w.Duration+grace {
				w.failed(fmt.Errorf("the system takes fewer than %.0f calls a second: gave up with calls %v behind schedule",
					w.Rate, time.Since(from).Round(time.Second)))
				return nil
			}
		} else if !from.Before(end) {
			return nil
		}
		person, ok := w.next()
		if !ok {
			return nil
		}
		verb, err := w.call(ctx, person)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			w.failed(err)
			wait(ctx, pauseAfterError)
			continue
		}
		w.latency[verb].Record(time.Since(from))
		w.calls.Add(1)
	}
	return ctx.Err()
}

// next says who acts, if there is still somebody.
func (w *worker) next() (person int, ok bool) {
	if !w.Once {
		return w.rng.IntN(w.Active), true
	}
	turn := w.turn.Add(1) - 1
	if turn >= int64(len(w.order)) {
		return 0, false
	}
	return w.order[turn], true
}

func (w *worker) call(ctx context.Context, person int) (Verb, error) {
	verb := VerbHome
	switch w.Mode {
	case FanOut:
		verb = VerbPost
	case Mixed:
		switch dice := w.rng.IntN(100); {
		case dice >= 90:
			verb = VerbPost
		case dice >= 60:
			verb = VerbAlbum
		}
	case Reads, OpenLoop:
	}
	switch verb {
	case VerbPost:
		id, err := w.target.Compose(ctx, person, w.text())
		if err != nil {
			return verb, err
		}
		return verb, w.ledger.add(id, person)
	case VerbAlbum:
		author := person
		if friends := w.Graph.Friends[person]; len(friends) > 0 {
			author = int(friends[w.rng.IntN(len(friends))])
		}
		_, err := w.target.Album(ctx, person, author, PageSize)
		return verb, err
	default:
		body, err := w.target.Home(ctx, person, "", PageSize)
		if err == nil && w.latency[VerbHome].Count()%64 == 0 {
			err = w.look(body)
		}
		return verb, err
	}
}

func (w *worker) look(body []byte) error {
	page, err := w.target.ParsePage(body)
	w.looked++
	w.items += len(page.IDs)
	return err
}

const textLength = 256

// text returns 256 random characters that JSON carries as they are.
func (w *worker) text() string { return randomText(w.rng) }

func randomText(rng *rand.Rand) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_" // 64: six bits each
	var b [textLength]byte
	for i := 0; i < textLength; {
		for bits, n := rng.Uint64(), 0; n < 10 && i < textLength; n++ {
			b[i] = letters[bits&63]
			bits >>= 6
			i++
		}
	}
	return string(b[:])
}

func (w *worker) failed(err error) {
	if w.errors.Add(1) > 1 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.res.FirstError = err
}

func (w *worker) merge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for v := range w.latency {
		w.res.Latency[v].Merge(&w.latency[v])
	}
	w.run.looked += w.looked
	w.run.items += w.items
}
