// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Star is the graph of one person, number 0, with so many friends who know nobody else.
func Star(friends int) (*Graph, error) {
	if friends < 1 || friends > MaxFriends {
		return nil, fmt.Errorf("a person with %d friends; want 1 to %d", friends, MaxFriends)
	}
	g := &Graph{Friends: make([][]int32, friends+1)}
	for i := range friends {
		g.Friends[0] = append(g.Friends[0], int32(i+1))
		g.Friends[i+1] = []int32{0}
	}
	return g, nil
}

// lookouts is how many of the friends watch for a post. All of them would be more load than the post.
const lookouts = 64

// Arrival is how a post of somebody with many friends came to them.
type Arrival struct {
	Took    time.Duration // from the acknowledgement of the post until the last of 64 friends, drawn at random, had it
	Missing int           // of all friends, those who did not have it then and within the patience after
}

// Arrive lets the author post once, over connections from dial, and watches the post arrive.
func Arrive(ctx context.Context, g *Graph, author int, seed uint64, patience time.Duration, dial func() (Target, error)) (a Arrival, err error) {
	targets := make([]Target, checkWorkers)
	defer func() {
		for _, t := range targets {
			if t != nil {
				_ = t.Close() // nothing is in flight
			}
		}
	}()
	for i := range targets {
		if targets[i], err = dial(); err != nil {
			return a, err
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0x7761746368)) // #nosec G404 -- who watches
	watch := slices.Clone(g.Friends[author])
	rng.Shuffle(len(watch), func(i, j int) { watch[i], watch[j] = watch[j], watch[i] })
	id, err := targets[0].Compose(ctx, author, randomText(rng))
	if err != nil {
		return a, err
	}
	posted := time.Now()
	if _, err := await(ctx, targets, watch[:min(lookouts, len(watch))], id, posted.Add(patience)); err != nil {
		return a, err
	}
	a.Took = time.Since(posted)
	a.Missing, err = await(ctx, targets, watch, id, posted.Add(patience))
	return a, err
}

// await looks at the readers' first pages, each until the post is there or the time is over, and counts those who never saw it.
func await(ctx context.Context, targets []Target, readers []int32, id string, until time.Time) (missing int, err error) {
	var mu sync.Mutex // guards missing
	group, ctx := errgroup.WithContext(ctx)
	for first, t := range targets {
		group.Go(func() error {
			for i := first; i < len(readers); i += len(targets) {
				seen, err := sees(ctx, t, int(readers[i]), id, until)
				if err != nil {
					return err
				}
				if !seen {
					mu.Lock()
					missing++
					mu.Unlock()
				}
			}
			return nil
		})
	}
	return missing, group.Wait()
}

func sees(ctx context.Context, t Target, reader int, id string, until time.Time) (bool, error) {
	for {
		var page Page
		err := patiently(ctx, t, func() error {
			body, err := t.Home(ctx, reader, "", PageSize)
			if err != nil {
				return err
			}
			page, err = t.ParsePage(body)
			return err
		})
		if err != nil {
			return false, fmt.Errorf("timeline of person %d: %w", reader, err)
		}
		if slices.Contains(page.IDs, id) {
			return true, nil
		}
		if time.Now().After(until) {
			return false, nil
		}
		if !wait(ctx, pollEvery) {
			return false, ctx.Err()
		}
	}
}
