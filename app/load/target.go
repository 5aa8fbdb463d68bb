// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Target is a system under load as one worker's connection sees it; people are numbers of the graph. It has the four verbs of a
// social feed, and the album that only a mixed load reads. Bodies stay raw: a generator that decodes each of ten thousand pages a
// second measures itself. Not safe for concurrent use.
type Target interface {
	// Register makes the person, or finds them made by an earlier run.
	Register(ctx context.Context, person int) error
	// Befriend makes a and b friends of each other; friends stay friends.
	Befriend(ctx context.Context, a, b int) error
	// Compose posts text to the author's friends and returns the post's id once the system has acknowledged it.
	Compose(ctx context.Context, author int, text string) (id string, err error)
	// Home reads a page of the reader's timeline with bodies, newest first, from cursor ("" is the top). The page is valid until
	// the next call.
	Home(ctx context.Context, reader int, cursor string, limit int) ([]byte, error)
	// Album reads the newest page of the author's own posts, with bodies.
	Album(ctx context.Context, viewer, author, limit int) ([]byte, error)
	// ParsePage decodes a page of Home or Album.
	ParsePage(page []byte) (Page, error)
	Close() error
}

// Page is a decoded page of a timeline or album.
type Page struct {
	IDs  []string // post ids; a later post has a larger id
	Next string   // cursor of the next page, empty at the end
}

// Stage tells how far Populate is; Done of Total.
type Stage struct {
	Name        string
	Done, Total int
}

// Populate registers everybody in g and makes them friends, over workers connections, each from dial. Refusals for overload or a
// user's limit are waited out. Repeating it after a failure does no harm: targets make each person and friendship once.
// report, if not nil, is called from one goroutine once a second and at the end of each stage.
func Populate(ctx context.Context, g *Graph, workers int, dial func() (Target, error), report func(Stage)) error {
	if report == nil {
		report = func(Stage) {}
	}
	err := eachOf(ctx, "people", g.People(), workers, dial, report, func(ctx context.Context, t Target, i int) error {
		return t.Register(ctx, i)
	})
	if err != nil {
		return err
	}
	pairs := make([][2]int, 0, g.Directed()/2)
	g.Edges(func(a, b int) bool {
		pairs = append(pairs, [2]int{a, b})
		return true
	})
	// In file order all workers would befriend the same person at once and queue behind each other at that person's row.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] }) // #nosec G404
	return eachOf(ctx, "friendships", len(pairs), workers, dial, report, func(ctx context.Context, t Target, i int) error {
		return t.Befriend(ctx, pairs[i][0], pairs[i][1])
	})
}

// eachOf calls do for 0 to total-1 over the workers, waiting out refusals, and reports how far it is.
func eachOf(ctx context.Context, name string, total, workers int, dial func() (Target, error), report func(Stage),
	do func(context.Context, Target, int) error,
) error {
	var next, done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(workers, max(total, 1)) {
		group.Go(func() error {
			t, err := dial()
			if err != nil {
				return err
			}
			defer func() { _ = t.Close() }() // nothing is in flight
			for {
				i := int(next.Add(1)) - 1
				if i >= total {
					return nil
				}
				if err := patiently(ctx, func() error { return do(ctx, t, i) }); err != nil {
					return fmt.Errorf("%s %d of %d: %w", name, i+1, total, err)
				}
				done.Add(1)
			}
		})
	}
	finished := make(chan error, 1)
	go func() { finished <- group.Wait() }() // waited for just below
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			report(Stage{Name: name, Done: int(done.Load()), Total: total})
		case err := <-finished:
			report(Stage{Name: name, Done: int(done.Load()), Total: total})
			return err
		}
	}
}

// patiently repeats do while it is refused with a wait, for as long as ctx lasts.
func patiently(ctx context.Context, do func() error) error {
	for {
		err := do()
		var refused *StatusError
		if err == nil || !errors.As(err, &refused) || (refused.Status != 429 && refused.Status != 503) {
			return err
		}
		if !wait(ctx, max(refused.RetryAfter, 10*time.Millisecond)) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// wait returns true after d, false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
