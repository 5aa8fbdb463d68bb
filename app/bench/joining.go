// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/check"
)

// newcomer is a fourth region that joins the three while people talk, and leaves again.
const newcomer = "sg"

// joining has a region join and leave, each by its command, while people in the others go on as before. Some of them talk from the newcomer,
// too. What all have seen is in the history, so the same judge finds an id that was given twice, a changed order or a loss.
func (d *seaDrill) joining(ctx context.Context, stay time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	old := slices.Clone(d.all) // nobody changes these any more
	if err := d.write(limit, 1<<10); err != nil {
		return err
	}
	d.mu.Lock()
	calm, cut := len(d.calm), len(d.cut)
	d.mu.Unlock()
	var seen map[string][]string // orders of the round's posts, by what they were looked at for
	var took [2]time.Duration
	var failed [2]int
	acting, stop := context.WithCancel(limit)
	defer stop()
	var talking errgroup.Group
	for i, p := range d.people {
		talking.Go(func() error {
			return p.live(limit, acting, 1<<10, rand.New(rand.NewPCG(d.seed, 1<<40|uint64(i))))
		})
	}
	err := func() error {
		wait(limit, stay)
		before, err := d.orders(limit, "sh")
		if err != nil {
			return err
		}
		took[0], failed[0], err = d.change(limit, "join", func() error { return d.complete(limit, old) })
		if err != nil {
			return err
		}
		d.say("%6.1f s  %s has joined and has everything after %.1f s", d.now().Seconds(), newcomer, took[0].Seconds())
		there, err := d.visit(limit, stay)
		if err != nil {
			return err
		}
		if took[1], failed[1], err = d.change(limit, "leave", func() error { return nil }); err != nil {
			return err
		}
		d.say("%6.1f s  %s has left after %.1f s", d.now().Seconds(), newcomer, took[1].Seconds())
		wait(limit, stay/2)
		seen = map[string][]string{}
		for post, order := range before {
			seen["before "+post] = order
		}
		for post, order := range there {
			seen["there "+post] = order
		}
		return nil
	}()
	stop()
	if failed := talking.Wait(); err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	if _, err := d.settle(limit); err != nil {
		return err
	}
	changed := 0
	for _, region := range regionNames {
		last, err := d.orders(limit, region)
		if err != nil {
			return err
		}
		for post, order := range last {
			for _, when := range []string{"before ", "there "} {
				if !sameOrder(seen[when+post], order) {
					d.say("%s: what %s shows of %s stands in another order than it did", when, region, post)
					changed++
				}
			}
		}
	}
	d.mu.Lock()
	d.calm, d.cut = d.calm[:calm], d.cut[:cut] // those of this time shared the machine with a start
	d.mu.Unlock()
	d.add("join_s", "s", took[0].Seconds(), atMost(60))
	d.add("join_failed_writes", "1", float64(failed[0]), atMost(0))
	d.add("leave_s", "s", took[1].Seconds(), atMost(60))
	d.add("leave_failed_writes", "1", float64(failed[1]), atMost(0))
	d.add("join_order_changed", "1", float64(changed), atMost(0))
	return nil
}

// change has the newcomer join or leave, and gives how long that took and how many calls of the others have failed meanwhile.
func (d *seaDrill) change(ctx context.Context, how string, after func() error) (took time.Duration, failed int, err error) {
	count := func() (n int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, times := range d.failures {
			n += times
		}
		return n
	}
	before, began := count(), time.Now()
	out, err := exec.CommandContext(ctx, d.path, "region", how, newcomer, "--data", d.data, "--wait", "2m").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("%s cannot %s: %w: %s", newcomer, how, err, bytes.TrimSpace(out))
	}
	if err := after(); err != nil {
		return 0, 0, err
	}
	return time.Since(began), count() - before, nil
}

// complete waits until the newcomer shows of older posts what the others show.
func (d *seaDrill) complete(ctx context.Context, posts []string) error {
	if err := d.ready(ctx, newcomer, 0); err != nil {
		return err
	}
	p, there := d.somebody("sh"), d.guest(0)
	for _, post := range posts {
		want, err := p.look(ctx, post)
		if err != nil {
			return err
		}
		err = d.until(ctx, 50*time.Millisecond, func() error {
			got, err := there.look(ctx, post)
			if err == nil && (!slices.Equal(got.comments, want.comments) || !slices.Equal(got.likes, want.likes)) {
				err = fmt.Errorf("%s shows %d comments and %d likes of %s, want %d and %d", newcomer, len(got.comments), len(got.likes), post, len(want.comments), len(want.likes))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// guest is somebody with another client, in the newcomer.
func (d *seaDrill) guest(n int) *islander {
	host := d.people[n*d.regionsConfig.people]
	return &islander{d: d, home: host.home, region: newcomer, door: n, name: host.name + "-in-" + newcomer, id: host.id, token: host.token}
}

// visit has a person of each region talk from the newcomer for a while, and gives what that shows at its end.
func (d *seaDrill) visit(ctx context.Context, stay time.Duration) (map[string][]string, error) {
	if err := d.until(ctx, 50*time.Millisecond, func() error { return d.shows(ctx, d.guest(0)) }); err != nil {
		return nil, err
	}
	acting, stop := context.WithTimeout(ctx, stay)
	defer stop()
	var talking errgroup.Group
	for i := range regionNames {
		talking.Go(func() error {
			return d.guest(i).live(ctx, acting, 1<<11, rand.New(rand.NewPCG(d.seed, 1<<41|uint64(i))))
		})
	}
	if err := talking.Wait(); err != nil {
		return nil, err
	}
	return d.ordersFor(ctx, d.guest(0))
}

// shows reports whether somebody sees all posts of the round.
func (d *seaDrill) shows(ctx context.Context, p *islander) error {
	for _, post := range d.posts {
		if _, err := p.count(ctx, post); err != nil {
			return err
		}
	}
	return nil
}

// orders gives the comments of the round's posts as a region shows them.
func (d *seaDrill) orders(ctx context.Context, region string) (map[string][]string, error) {
	return d.ordersFor(ctx, d.somebody(region))
}

func (d *seaDrill) ordersFor(ctx context.Context, p *islander) (map[string][]string, error) {
	look := *p // beside his session, which may be under way
	look.session = ""
	all := map[string][]string{}
	for _, post := range d.posts {
		var comments []check.Comment
		err := d.until(ctx, 50*time.Millisecond, func() (err error) {
			comments, err = look.comments(ctx, post)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, c := range comments {
			all[post] = append(all[post], c.ID)
		}
	}
	return all, nil
}

// sameOrder reports whether those that are in both lists stand in one order.
func sameOrder(a, b []string) bool {
	both := func(list, other []string) []string {
		in := map[string]bool{}
		for _, one := range other {
			in[one] = true
		}
		return slices.DeleteFunc(slices.Clone(list), func(one string) bool { return !in[one] })
	}
	return slices.Equal(both(a, b), both(b, a))
}
