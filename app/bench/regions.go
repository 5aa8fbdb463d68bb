// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/check"
)

// Three regions in real processes, joined by emulated lines; the clock of one is wrong by an hour. People in all of them, all friends of
// each other, comment on the same posts, like and read them, and some of them travel, while lines are cut, both ways and one way, or
// become slow, and processes are killed, one at a time or a whole region. Round by round everything is healed, and the time is taken
// until all regions show the same. What the clients have seen is judged by app/check, from nothing else.
//
// Before that, in the calm, one measures how much later than the line itself a comment is seen in another region; and after it a region
// is dark while many comments are made, and one counts what passes the line on its return, and for one comment more. With
// -join a fourth region joins between the two while people talk, some of them there, and leaves again.
type regionsConfig struct {
	duration time.Duration // of all rounds
	round    time.Duration
	people   int           // of each region; the last of them travels
	posts    int           // of each region, in each round
	rate     int           // acts of each person a second
	samples  int           // of visible
	dark     int           // comments while a region is dark
	join     bool          // have a fourth region join and leave
	stay     time.Duration // of that
	seed     uint64
	split    bool
	clock    string
	delay    time.Duration
	json     string
	history  string
	dir      string
	moments  string
}

func parseRegions(args []string) (*regionsConfig, error) {
	c := &regionsConfig{people: 4, posts: 2, rate: 4, samples: 200, round: time.Minute, stay: 15 * time.Second, delay: 40 * time.Millisecond}
	fs := flag.NewFlagSet("bench regions", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "the short form: one round of 30 s, 1,000 comments in the dark")
	fs.DurationVar(&c.duration, "duration", 10*time.Minute, "how long lines are cut and processes killed, in rounds of a minute")
	fs.IntVar(&c.dark, "dark", 20000, "comments that are made while a region is dark")
	fs.Uint64Var(&c.seed, "seed", 1, "of what is done when; it is not all that decides what happens")
	fs.BoolVar(&c.split, "split", true, "each service a process of its own; else each region is one")
	fs.BoolVar(&c.join, "join", false, "have a fourth region join and leave while people talk")
	fs.StringVar(&c.clock, "clock", "ca=+1h", "a region whose clock is wrong, and by how much; empty for none")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	fs.StringVar(&c.history, "history", "", "file for all that clients have seen, for moments check")
	fs.StringVar(&c.dir, "dir", "", "where the regions keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.moments, "moments", "", "the moments command (default: built from this repository)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see regions -help", fs.Arg(0))
	}
	if *quick {
		c.duration, c.dark, c.samples, c.stay = 30*time.Second, 1000, 60, 3*time.Second
	}
	if c.duration < lastCut {
		return nil, fmt.Errorf("-duration %v: at least %v, for which all lines are cut at the end of a round", c.duration, lastCut)
	}
	return c, nil
}

var regionNames = []string{"sh", "hk", "ca"}

func regionsMain(ctx context.Context, args []string, out io.Writer) error {
	c, err := parseRegions(args)
	if err != nil {
		return err
	}
	metrics, err := drillRegions(ctx, c, out)
	if err != nil {
		return err
	}
	return tell(out, metrics, c.json)
}

func drillRegions(ctx context.Context, c *regionsConfig, out io.Writer) (metrics []metric, err error) {
	err = onSea(ctx, c, out, func(d *seaDrill) error {
		err := d.run(ctx)
		metrics = d.metrics
		return err
	})
	return metrics, err
}

// onSea has the regions run while do does.
func onSea(ctx context.Context, c *regionsConfig, out io.Writer, do func(*seaDrill) error) (err error) {
	root, dir, err := workspace(ctx, c.dir, "regions-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path, err := buildMoments(ctx, c.moments, root, dir, out)
	if err != nil {
		return err
	}
	addr, err := portsInARow(ctx, 2*len(regionNames)+2) // each region has two gateways at most, and one more may join
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	args := []string{
		"up", "--regions", strings.Join(regionNames, ","), "--data", data, "--addr", addr, "--ocean", "127.0.0.1:0",
		"--limits", "off", "--password-cost", "min", "--delay", c.delay.String(),
	}
	if c.split {
		args = append(args, "--split")
	}
	if c.clock != "" {
		args = append(args, "--clock", c.clock)
	}
	p, err := start("regions", path, args...)
	if err != nil {
		return err
	}
	defer p.stop()
	d := &seaDrill{
		regionsConfig: c, out: out, path: path, proc: p, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, origin: time.Now(),
		sea: newSea(data), interned: map[string]string{}, failures: map[string]int{},
	}
	defer d.client.CloseIdleConnections()
	if err := do(d); err != nil {
		return errors.Join(err, p.exited())
	}
	return nil
}

// portsInARow gives an address with so many free ports from its own on, where no outgoing connection takes one while a region is down.
func portsInARow(ctx context.Context, n int) (string, error) {
	const lowest, highest, tries = 20000, 30000, 100 // below those that Linux gives by itself
	for range tries {
		port := lowest + rand.IntN(highest-lowest)
		var taken []net.Listener
		for i := range n {
			lis, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+i)))
			if err != nil {
				break
			}
			taken = append(taken, lis)
		}
		for _, lis := range taken {
			_ = lis.Close() // it was only a question
		}
		if len(taken) == n {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
		}
	}
	return "", fmt.Errorf("no %d free ports in a row between %d and %d", n, lowest, highest)
}

type seaDrill struct {
	*regionsConfig
	*sea
	out     io.Writer
	path    string // of the moments command
	proc    *process
	client  *http.Client
	origin  time.Time // of the history's clock
	people  []*islander
	posts   []string // of this round
	all     []string // of all rounds
	metrics []metric

	mu       sync.Mutex
	history  []check.Op        // guarded by mu
	interned map[string]string // guarded by mu; many reads show the same texts
	calm     []time.Duration   // guarded by mu; writes while all lines and processes were whole
	cut      []time.Duration   // guarded by mu; writes while a line was not
	failures map[string]int    // guarded by mu; calls that failed though all processes of their region were whole, by how
	excused  int               // guarded by mu; those that failed while one was not
	behind   int               // guarded by mu; calls of travellers that were told to wait
}

func (d *seaDrill) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *seaDrill) run(ctx context.Context) error {
	if err := d.meet(ctx); err != nil {
		return err
	}
	extra, err := d.visible(ctx)
	if err != nil {
		return err
	}
	var heals []time.Duration
	rounds := max(1, int(d.duration/d.round))
	for n := range rounds {
		if err := d.write(ctx, n); err != nil {
			return err
		}
		if err := d.disturb(ctx, n, d.duration/time.Duration(rounds)); err != nil {
			return err
		}
		heal, err := d.settle(ctx)
		if err != nil {
			return err
		}
		d.say("%6.1f s  healed: all regions show the same after %.2f s", d.now().Seconds(), heal.Seconds())
		heals = append(heals, heal)
	}
	if d.join {
		if err := d.joining(ctx, d.stay); err != nil {
			return fmt.Errorf("a fourth region: %w", err)
		}
	}
	if err := d.lastLook(ctx); err != nil {
		return err
	}
	d.judge(heals, extra)
	return d.darkness(ctx)
}

// meet waits for the regions, and has people in all of them who are friends of each other.
func (d *seaDrill) meet(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err := d.until(limit, 100*time.Millisecond, func() error {
		if err := d.proc.exited(); err != nil {
			return fatalError{err}
		}
		return d.find(limit)
	})
	if err != nil {
		return fmt.Errorf("start the regions: %w", err)
	}
	for _, region := range regionNames {
		for i := range d.regionsConfig.people {
			p := &islander{d: d, home: region, region: region, door: i, name: fmt.Sprintf("%s-%d", region, i), travels: i > 0 && i == d.regionsConfig.people-1}
			if err := p.arrive(limit); err != nil {
				return err
			}
			d.people = append(d.people, p)
		}
	}
	err = d.until(limit, 200*time.Millisecond, func() error {
		missing := 0
		for _, p := range d.people {
			n, err := p.befriend(limit)
			if err != nil {
				return err
			}
			missing += n
		}
		if missing > 0 {
			return fmt.Errorf("%d friendships are not there yet", missing)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make friends: %w", err)
	}
	d.say("%d people in %d regions, all friends, after %.0f s", len(d.people), len(regionNames), time.Since(d.origin).Seconds())
	return nil
}

// write has posts for a round.
func (d *seaDrill) write(ctx context.Context, round int) error {
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	d.posts = nil
	for i := range d.regionsConfig.posts * len(regionNames) {
		p := d.people[i%len(regionNames)*d.regionsConfig.people]
		id, err := d.post(limit, p, fmt.Sprintf("post %d of round %d", i, round))
		if err != nil {
			return err
		}
		d.posts = append(d.posts, id)
	}
	d.all = append(d.all, d.posts...)
	return d.everywhere(limit, d.posts)
}

// post makes a post, again if there is no answer: a process of the region may have been killed just before.
func (d *seaDrill) post(ctx context.Context, p *islander, text string) (id string, err error) {
	err = d.until(ctx, 100*time.Millisecond, func() error {
		id, err = p.post(ctx, text)
		return err
	})
	return id, err
}

// everywhere waits until somebody in each region sees the posts.
func (d *seaDrill) everywhere(ctx context.Context, posts []string) error {
	for _, region := range regionNames {
		p := d.somebody(region)
		for _, post := range posts {
			if err := d.until(ctx, 50*time.Millisecond, func() error { _, err := p.look(ctx, post); return err }); err != nil {
				return fmt.Errorf("post %s does not come to %s: %w", post, region, err)
			}
		}
	}
	return nil
}

func (d *seaDrill) somebody(home string) *islander {
	return d.people[slices.IndexFunc(d.people, func(p *islander) bool { return p.home == home })]
}

// visible measures how much later than the line brings it a comment is seen: from the call that writes it to the answer that shows it,
// less the delay of the line.
func (d *seaDrill) visible(ctx context.Context) (extra visibility, err error) {
	limit, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	from, to := d.somebody("sh"), d.somebody("hk")
	post, err := d.post(limit, from, "a post in the calm") // of its own: nobody judges it
	if err != nil {
		return extra, err
	}
	if err := d.everywhere(limit, []string{post}); err != nil {
		return extra, err
	}
	const fresh = 20 // connections, caches and the scheduler warm up
	for i := range fresh + d.samples {
		text := fmt.Sprintf("seen %d", i)
		began := time.Now()
		if _, err := from.comment(limit, post, text, "", text); err != nil {
			return extra, err
		}
		wrote := time.Since(began)
		wait(limit, d.delay-wrote) // it cannot be there before
		err := d.until(limit, 4*time.Millisecond, func() error {
			newest, err := to.newest(limit, post)
			if err == nil && newest != text {
				err = errors.New("it has not come")
			}
			return err
		})
		if err != nil {
			return extra, err
		}
		if i >= fresh {
			extra.seen = append(extra.seen, float64(time.Since(began)-d.delay)/float64(time.Millisecond))
			extra.wrote = append(extra.wrote, float64(wrote)/float64(time.Millisecond))
		}
		wait(limit, time.Duration(rand.IntN(20))*time.Millisecond) // not in step with anybody's timers
	}
	slices.Sort(extra.seen)
	slices.Sort(extra.wrote)
	return extra, nil
}

// visibility is what visible has measured, in ms, sorted.
type visibility struct {
	seen  []float64 // beyond the line's delay
	wrote []float64 // of that, the call that writes
}

// disturb lets people act while lines are cut and processes killed. All processes run at its end, and all lines are cut.
func (d *seaDrill) disturb(ctx context.Context, round int, lasts time.Duration) error {
	acting, stop := context.WithTimeout(ctx, lasts)
	defer stop()
	breaking, enough := context.WithTimeout(ctx, lasts-lastCut)
	defer enough()
	var g errgroup.Group
	for i, p := range d.people {
		g.Go(func() error {
			return p.live(ctx, acting, round, rand.New(rand.NewPCG(d.seed, uint64(round)<<16|uint64(i))))
		})
	}
	g.Go(func() error {
		return d.breakLines(ctx, breaking, rand.New(rand.NewPCG(d.seed, uint64(round)<<16|1<<32)))
	})
	g.Go(func() error {
		return d.breakProcesses(ctx, breaking, rand.New(rand.NewPCG(d.seed, uint64(round)<<16|1<<33)))
	})
	return g.Wait()
}

func (d *seaDrill) now() time.Duration { return time.Since(d.origin) }

// wait reports whether ctx still goes on after that time.
func wait(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// settle heals the lines, waits until all regions show the same of all posts of the round, and gives how long it took.
func (d *seaDrill) settle(ctx context.Context) (time.Duration, error) {
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	if err := d.healAll(limit); err != nil {
		return 0, err
	}
	for _, post := range d.posts {
		err := d.until(limit, 20*time.Millisecond, func() error {
			var first view
			for i, region := range regionNames {
				seen, err := d.somebody(region).look(limit, post)
				if err != nil {
					return err
				}
				if i == 0 {
					first = seen
				} else if !slices.Equal(seen.comments, first.comments) || !slices.Equal(seen.likes, first.likes) {
					return fmt.Errorf("%s shows %d comments and %d likes of %s, %s %d and %d", regionNames[0], len(first.comments), len(first.likes), post,
						region, len(seen.comments), len(seen.likes))
				}
			}
			return nil
		})
		if err != nil {
			if ctx.Err() != nil {
				return 0, err
			}
			d.say("the regions are not equal: %v", err) // the checker tells what is wrong
			break
		}
	}
	return time.Since(began), nil
}

// lastLook reads all posts in all regions into the history.
func (d *seaDrill) lastLook(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for _, region := range regionNames {
		for _, post := range d.all {
			var start time.Duration
			var seen view
			err := d.until(limit, 100*time.Millisecond, func() (err error) {
				start = d.now()
				seen, err = d.somebody(region).look(limit, post)
				return err
			})
			if err != nil {
				return fmt.Errorf("at last %s does not show %s: %w", region, post, err)
			}
			// All are friends, so whoever looks sees what everybody does.
			d.record(check.Op{
				Kind: check.Read, Session: "last look at " + region, User: "everybody", Region: region, Start: int64(start), End: int64(d.now()),
				Outcome: check.OK, Post: post, Comments: seen.comments, Likes: seen.likes, Final: true,
			})
		}
	}
	return nil
}

// lost are the promises whose breach means that something is not there, and so on; whatever else is broken is told too.
var lost = []check.Rule{check.Complete, check.Converged, check.CausesShown, check.OwnWrites, check.MonotonicReads}

func (d *seaDrill) judge(heals []time.Duration, extra visibility) {
	v := check.History(d.history)
	count := map[string]float64{}
	for _, broken := range v.Violations {
		switch {
		case slices.Contains(lost, broken.Rule):
			count["lost"]++
		case broken.Rule == check.Duplicate || broken.Rule == check.OneEffect || broken.Rule == check.OneID:
			count["duplicated"]++
		case broken.Rule == check.CausesFirst || broken.Rule == check.OneOrder:
			count["out_of_order"]++
		default:
			count["other"]++
		}
	}
	if len(v.Violations) > 0 {
		v.Print(d.out)
	}
	if d.regionsConfig.history != "" {
		if err := d.keepHistory(); err != nil {
			d.say("the history is not kept: %v", err)
		}
	}
	for _, name := range []string{"lost", "duplicated", "out_of_order", "other"} {
		d.add(name, "1", count[name], atMost(0))
	}
	errs := 0
	for how, n := range d.failures {
		d.say("%d calls failed in a region all of whose processes were up: %s", n, how)
		errs += n
	}
	d.add("local_errors", "1", float64(errs), atMost(0))
	d.add("writes", "1", float64(v.Writes), nil)
	d.add("reads", "1", float64(v.Reads), nil)
	d.add("kills", "1", float64(d.kills), nil)
	d.add("cuts", "1", float64(d.cuts), nil)
	d.add("failed_beside_kills", "1", float64(d.excused), nil)
	d.add("travellers_told_behind", "1", float64(d.behind), nil)
	d.add("heal_s", "s", slices.Max(heals).Seconds(), atMost(10))
	at := func(all []float64, p int) float64 { return all[len(all)*p/100] }
	d.add("visible_extra_ms_p50", "ms", at(extra.seen, 50), nil)
	d.add("visible_extra_ms_p99", "ms", at(extra.seen, 99), atMost(50))
	d.add("visible_write_ms_p50", "ms", at(extra.wrote, 50), nil)
	d.add("visible_write_ms_p99", "ms", at(extra.wrote, 99), nil)
	slices.Sort(d.calm)
	slices.Sort(d.cut)
	const enough = 200 // for a p99 that is no single call
	if len(d.calm) < enough || len(d.cut) < enough {
		d.say("%d writes in the calm and %d in cuts are too few for their p99", len(d.calm), len(d.cut))
		return
	}
	p99 := func(all []time.Duration) float64 { return float64(all[len(all)*99/100]) / float64(time.Millisecond) }
	d.add("calm.write_p99_ms", "ms", p99(d.calm), nil)
	d.add("cut.write_p99_ms", "ms", p99(d.cut), nil)
	d.add("cut.write_p99_ratio", "x", p99(d.cut)/p99(d.calm), atMost(2))
}

func (d *seaDrill) keepHistory() (err error) {
	f, err := os.Create(d.regionsConfig.history)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	if err := check.WriteHistory(w, d.history); err != nil {
		return err
	}
	return w.Flush()
}

func (d *seaDrill) add(name, unit string, v float64, g *goal) {
	d.metrics = append(d.metrics, newMetric("regions."+name, unit, []float64{v}, g))
}

// record adds a call to the history.
func (d *seaDrill) record(o check.Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := func(s *string) {
		if same, ok := d.interned[*s]; ok {
			*s = same
			return
		}
		d.interned[*s] = *s
	}
	for i := range o.Comments {
		c := &o.Comments[i]
		for _, s := range []*string{&c.ID, &c.Writer, &c.Parent, &c.Text} {
			one(s)
		}
	}
	for i := range o.Likes {
		one(&o.Likes[i])
	}
	d.history = append(d.history, o)
}

// darkBefore lets the sessions end, or what is written next is under way already when the line is whole again.
const darkBefore = 4 * time.Second

// manyDark is how many comments are by far more than the handshakes of the lines that come back, which weigh as much as 1,000.
const manyDark = 10_000

// darkness has a region dark while many comments are made elsewhere, and measures its return. Then it is asked what one comment more
// on a post with a long history costs.
func (d *seaDrill) darkness(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	const dark = "ca"
	author, there := d.somebody("sh"), d.somebody(dark)
	long, err := d.post(limit, author, "a post of which much is said")
	if err != nil {
		return err
	}
	if err := d.everywhere(limit, []string{long}); err != nil {
		return err
	}
	for _, other := range []string{"sh", "hk"} {
		if err := d.set(limit, [2]string{other, dark}, map[string]any{"cut": true}); err != nil {
			return err
		}
	}
	wait(limit, darkBefore)
	began := time.Now()
	payload, err := d.talk(limit, long, dark)
	if err != nil {
		return err
	}
	d.say("%6.1f s  %d comments, %d bytes of text, in %.1f s while %s was dark", d.now().Seconds(), d.dark, payload, time.Since(began).Seconds(), dark)
	before, err := d.carried(limit, dark)
	if err != nil {
		return err
	}
	began = time.Now()
	if err := d.healAll(limit); err != nil {
		return err
	}
	has := func(want int) error {
		return d.until(limit, 20*time.Millisecond, func() error {
			n, err := there.count(limit, long)
			if err == nil && n < want {
				err = fmt.Errorf("%d of %d comments are there", n, want)
			}
			return err
		})
	}
	if err := has(d.dark); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := d.carried(limit, dark)
	if err != nil {
		return err
	}
	d.add("dark.comments", "1", float64(d.dark), nil)
	d.add("return_s", "s", took.Seconds(), atMost(60))
	d.add("return_bytes", "B", float64(after.total-before.total), nil)
	most := atMost(3)
	if d.dark < manyDark {
		most = nil
	}
	d.add("return_bytes_ratio", "x", float64(after.total-before.total)/float64(payload), most)
	// Probes pass the line as well; they are counted in.
	wait(limit, time.Second)
	var bytes []float64
	for i := range 5 {
		before, err := d.carried(limit, dark)
		if err != nil {
			return err
		}
		text := remark(rand.New(rand.NewPCG(d.seed, uint64(i))))
		if _, err := author.comment(limit, long, text, "", fmt.Sprintf("one more %d", i)); err != nil {
			return err
		}
		if err := has(d.dark + i + 1); err != nil {
			return err
		}
		wait(limit, 2*d.delay+50*time.Millisecond) // what acknowledges it
		after, err := d.carried(limit, dark)
		if err != nil {
			return err
		}
		bytes = append(bytes, float64(after.with["sh"]-before.with["sh"]))
	}
	d.metrics = append(d.metrics, newMetric("regions.comment10001.bytes_per_peer", "B", bytes, atMost(4095)))
	d.add("comment10001.history", "1", float64(d.dark), nil)
	return nil
}

// talk has those who are not in the dark say what is to be said, and gives how many bytes of text that was.
func (d *seaDrill) talk(ctx context.Context, post, dark string) (payload int64, err error) {
	// What a traveller has seen may have to come from there first.
	writers := slices.DeleteFunc(slices.Clone(d.people), func(p *islander) bool { return p.home == dark || p.travels })
	var total atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range writers {
		g.Go(func() error {
			chance := rand.New(rand.NewPCG(d.seed, uint64(i)|1<<34))
			for n := i; n < d.dark; n += len(writers) {
				text, key := remark(chance), fmt.Sprintf("dark-%d", n)
				total.Add(int64(len(text)))
				if err := d.until(ctx, 50*time.Millisecond, func() error { _, err := p.comment(ctx, post, text, "", key); return err }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return total.Load(), err
}

// remark is a text of about a line, of words that do not repeat much.
func remark(chance *rand.Rand) string {
	const letters = "etaoinshrdlu"
	var b strings.Builder
	for range 4 + chance.IntN(9) {
		for range 2 + chance.IntN(7) {
			b.WriteByte(letters[chance.IntN(len(letters))])
		}
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}

// fatalError ends until at once.
type fatalError struct{ error }

// until does something again and again until it succeeds, or ctx ends.
func (d *seaDrill) until(ctx context.Context, every time.Duration, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		if fatal, ok := errors.AsType[fatalError](err); ok {
			return fatal.error
		}
		if !wait(ctx, every) {
			return errors.Join(ctx.Err(), err)
		}
	}
}
