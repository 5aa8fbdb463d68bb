// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/load"
)

// The hot post: 4,000 friends of one author like, unlike and like one post again, 20,000 times in a minute, and leave 5,000 comments,
// at a steady pace. Meanwhile others, who know none of them, read their own timelines as they did in the calm before. In the end the
// author counts. A post is for friends, of whom nobody has more than 5,000, so that is how 20,000 likes come about.
type hotConfig struct {
	fans     int
	acts     int // of each fan; odd, so that all like the post in the end
	comments int
	others   int
	reads    int // a second, of others
	calm     time.Duration
	hot      time.Duration
	workers  int
	json     string
	dir      string
	moments  string
}

func parseHot(args []string) (*hotConfig, error) {
	c := &hotConfig{fans: 4000, acts: 5, comments: 5000, others: 200, reads: 100, calm: 15 * time.Second, hot: time.Minute, workers: 128}
	quick := false
	fs := flag.NewFlagSet("bench hotpost", flag.ContinueOnError)
	fs.BoolVar(&quick, "quick", false, "a short form for a look: 200 fans, 1,000 likes and 250 comments in 5 s")
	fs.StringVar(&c.json, "json", "", "file for the metrics, one JSON object a line")
	fs.StringVar(&c.dir, "dir", "", "where the servers keep their data, removed at the end; on a real disk (default: build in the repository)")
	fs.StringVar(&c.moments, "moments", "", "the moments command (default: built from this repository)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see hotpost -help", fs.Arg(0))
	}
	if quick {
		c.fans, c.comments, c.others, c.calm, c.hot = 200, 250, 50, 5*time.Second, 5*time.Second
	}
	return c, nil
}

// graph has the author as person 0, then the fans, then the others, each of whom knows the next five.
func (c *hotConfig) graph() *load.Graph {
	g := &load.Graph{Friends: make([][]int32, 1+c.fans+c.others)}
	tie := func(a, b int) {
		g.Friends[a], g.Friends[b] = append(g.Friends[a], int32(b)), append(g.Friends[b], int32(a))
	}
	for f := range c.fans {
		tie(0, 1+f)
	}
	first := 1 + c.fans
	for o := range c.others {
		for d := 1; d <= 5; d++ {
			tie(first+o, first+(o+d)%c.others)
		}
	}
	for i := range g.Friends {
		slices.Sort(g.Friends[i])
	}
	return g
}

func hotMain(ctx context.Context, args []string, out io.Writer) (err error) {
	c, err := parseHot(args)
	if err != nil {
		return err
	}
	root, dir, err := workspace(ctx, c.dir, "hotpost-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path, err := buildMoments(ctx, c.moments, root, dir, out)
	if err != nil {
		return err
	}
	graph := c.graph()
	s, err := startMoments(ctx, path, true, dir, graph)
	if err != nil {
		return fmt.Errorf("moments: %w", err)
	}
	defer s.stop()
	fmt.Fprintln(out, s.about)
	d := &hot{hotConfig: c, out: out, dial: s.dial}
	if err := d.run(ctx, graph); err != nil {
		return errors.Join(err, s.alive())
	}
	return tell(out, d.metrics, c.json)
}

type hot struct {
	*hotConfig
	out     io.Writer
	dial    func() (load.Target, error)
	metrics []metric
}

// act is one thing that a fan does.
type act struct {
	due     time.Duration // since the beginning
	fan     int
	number  int // of a like, of the fan; even ones like
	comment bool
}

// plan gives all acts in order of time, likes and comments spread evenly.
func (c *hotConfig) plan() []act {
	var all []act
	for i := range c.fans * c.acts {
		all = append(all, act{due: c.hot * time.Duration(i) / time.Duration(c.fans*c.acts), fan: 1 + i%c.fans, number: i / c.fans})
	}
	for i := range c.comments {
		all = append(all, act{due: c.hot * time.Duration(i) / time.Duration(c.comments), fan: 1 + i%c.fans, comment: true})
	}
	slices.SortStableFunc(all, func(a, b act) int { return int(a.due - b.due) })
	return all
}

func (d *hot) run(ctx context.Context, graph *load.Graph) error {
	began := time.Now()
	if err := load.Populate(ctx, graph, 16, d.dial, func(load.Stage) {}); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%d people in %.0f s\n", graph.People(), time.Since(began).Seconds())
	one, err := d.dial()
	if err != nil {
		return err
	}
	defer func() { _ = one.Close() }()
	post, err := one.Compose(ctx, 0, "a post that everybody likes")
	if err != nil {
		return err
	}
	for o := range d.others {
		if _, err := one.Compose(ctx, 1+d.fans+o, "something of our own"); err != nil {
			return err
		}
	}
	if _, err := d.read(ctx, 3*time.Second); err != nil { // what is read the first time is another matter
		return err
	}
	calm, err := d.read(ctx, d.calm)
	if err != nil {
		return err
	}
	var busy []time.Duration
	var acting []time.Duration
	var took time.Duration
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		busy, err = d.read(gctx, d.hot)
		return err
	})
	g.Go(func() (err error) {
		acting, took, err = d.act(gctx, post)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return d.count(ctx, one, post, calm, busy, acting, took)
}

// each has workers do n jobs when they are due, and gives how long after that each was done, ascending.
func (d *hot) each(ctx context.Context, n int, due func(int) time.Duration, do func(context.Context, load.Talker, int) error) ([]time.Duration, error) {
	late := make([]time.Duration, n)
	jobs := make(chan int)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range min(d.workers, n) {
		g.Go(func() error {
			target, err := d.dial()
			if err != nil {
				return err
			}
			defer func() { _ = target.Close() }()
			talker, ok := target.(load.Talker)
			if !ok {
				return fmt.Errorf("a %T cannot talk", target)
			}
			for i := range jobs {
				if err := do(ctx, talker, i); err != nil {
					return err
				}
				late[i] = time.Since(began) - due(i)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(jobs)
		timer := time.NewTimer(0)
		defer timer.Stop()
		for i := range n {
			timer.Reset(due(i) - time.Since(began))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case jobs <- i:
			}
		}
		return nil
	})
	err := g.Wait()
	slices.Sort(late)
	return late, err
}

// read lets others read for a while.
func (d *hot) read(ctx context.Context, during time.Duration) ([]time.Duration, error) {
	n := int(during.Seconds() * float64(d.reads))
	due := func(i int) time.Duration { return during * time.Duration(i) / time.Duration(n) }
	return d.each(ctx, n, due, func(ctx context.Context, t load.Talker, i int) error {
		_, err := t.Home(ctx, 1+d.fans+i%d.others, "", 10)
		return err
	})
}

// act does what the fans do, and what is refused for overload again: a fan does not give up.
func (d *hot) act(ctx context.Context, post string) (late []time.Duration, took time.Duration, err error) {
	all := d.plan()
	turns := make([]sync.Mutex, 1+d.fans) // a fan does one thing after the other
	began := time.Now()
	late, err = d.each(ctx, len(all), func(i int) time.Duration { return all[i].due }, func(ctx context.Context, t load.Talker, i int) error {
		a := all[i]
		turns[a.fan].Lock()
		defer turns[a.fan].Unlock()
		for {
			var err error
			switch {
			case a.comment:
				err = t.CommentOnce(ctx, a.fan, post, fmt.Sprintf("comment %d on a post that everybody likes", i), fmt.Sprint("hot-", i))
			case a.number%2 == 0:
				err = t.Like(ctx, a.fan, post)
			default:
				err = t.Unlike(ctx, a.fan, post)
			}
			wait, again := t.Again(err)
			if err == nil || !again {
				return err
			}
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
	})
	return late, time.Since(began), err
}

// count has the author look, and reports.
func (d *hot) count(ctx context.Context, author load.Target, post string, calm, busy, acting []time.Duration, took time.Duration) error {
	body, err := author.Home(ctx, 0, "", 10)
	if err != nil {
		return err
	}
	var page struct {
		Items []struct {
			ID       string `json:"id"`
			Likes    int    `json:"like_count"`
			Comments int    `json:"comment_count"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return err
	}
	likes, comments := -1, -1
	for _, item := range page.Items {
		if item.ID == post {
			likes, comments = item.Likes, item.Comments
		}
	}
	exact := func(got, want int) float64 {
		if got == want {
			return 1
		}
		return 0
	}
	ms := func(t time.Duration) float64 { return float64(t) / float64(time.Millisecond) }
	p := func(all []time.Duration, q float64) float64 { return ms(all[int(q*float64(len(all)-1))]) }
	add := func(name, unit string, v float64, g *goal) {
		d.metrics = append(d.metrics, newMetric("hotpost."+name, unit, []float64{v}, g))
	}
	fmt.Fprintf(d.out, "%d likes of %d, %d comments of %d\n", likes, d.fans, comments, d.comments)
	add("likes_exact", "bool", exact(likes, d.fans), atLeast(1))
	add("comments_exact", "bool", exact(comments, d.comments), atLeast(1))
	add("acts", "1", float64(len(acting)), nil)
	add("elapsed_s", "s", took.Seconds(), atMost(d.hot.Seconds()+1))
	add("act_p50_ms", "ms", p(acting, 0.5), nil)
	add("act_p99_ms", "ms", p(acting, 0.99), nil)
	add("others_calm_p99_ms", "ms", p(calm, 0.99), nil)
	add("others_p99_ms", "ms", p(busy, 0.99), nil)
	add("others_p99_ratio", "x", p(busy, 0.99)/p(calm, 0.99), atMost(2))
	return nil
}
