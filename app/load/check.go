// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	checkWorkers = 8
	lastPosts    = 32 // posts whose arrival ends a run
	checkReaders = 60 // readers whose timelines are compared
	checkPage    = 50
	pollEvery    = 2 * time.Millisecond
	examples     = 5
)

// Completeness is what the comparison of random readers' timelines with the posts of the run found.
type Completeness struct {
	Readers  int   // timelines read
	Expected int64 // entries that had to be there
	Late     int   // timelines that were complete only some time after the run's last posts had arrived
	Missing  int64 // entries that never came
	Strange  int64 // posts of the run shown to someone who is not a friend, or twice
	Examples []string
}

// Err returns nil if every expected post was there once, for friends only.
func (c *Completeness) Err() error {
	if c.Missing == 0 && c.Strange == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d deliveries missing, %d posts shown twice or to strangers: %v", c.Missing, c.Expected, c.Strange, c.Examples)
}

func (c *Completeness) merge(o Completeness) {
	c.Readers += o.Readers
	c.Expected += o.Expected
	c.Late += o.Late
	c.Missing += o.Missing
	c.Strange += o.Strange
	for _, e := range o.Examples {
		c.example("%s", e)
	}
}

func (c *Completeness) example(format string, args ...any) {
	if len(c.Examples) < examples {
		c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
	}
}

// ledger is what the system acknowledged in one run. Safe for concurrent use while workers add.
type ledger struct {
	mu     sync.Mutex
	posts  []posted
	author map[string]int32
}

type posted struct {
	id     string
	author int
}

func newLedger() *ledger { return &ledger{author: make(map[string]int32)} }

func (l *ledger) add(id string, author int) error {
	if id == "" {
		return errors.New("a post was acknowledged without an id")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, again := l.author[id]; again {
		return fmt.Errorf("two posts were given the id %s", id)
	}
	l.author[id] = int32(author)
	l.posts = append(l.posts, posted{id, author})
	return nil
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posts)
}

// expected returns, newest first, the posts of the run that belong on each of the readers' timelines.
func (l *ledger) expected(g *Graph, readers []int, indexCap int) map[int][]string {
	wanted := make(map[int][]string, len(readers))
	for _, reader := range readers {
		wanted[reader] = nil
	}
	for _, p := range l.posts {
		if _, ok := wanted[p.author]; ok {
			wanted[p.author] = append(wanted[p.author], p.id)
		}
		for _, friend := range g.Friends[p.author] {
			if _, ok := wanted[int(friend)]; ok {
				wanted[int(friend)] = append(wanted[int(friend)], p.id)
			}
		}
	}
	for reader, ids := range wanted {
		slices.Sort(ids)
		slices.Reverse(ids)
		if indexCap > 0 && len(ids) > indexCap {
			wanted[reader] = ids[:indexCap]
		}
	}
	return wanted
}

// spread runs do for 0 to total-1 over a few connections.
func (r *run) spread(ctx context.Context, total int, do func(context.Context, Target, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for first := range min(checkWorkers, total) {
		group.Go(func() error {
			t, err := r.Dial()
			if err != nil {
				return err
			}
			defer func() { _ = t.Close() }() // nothing is in flight
			for i := first; i < total; i += checkWorkers {
				if err := do(ctx, t, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// drain waits until each of the last posts is on the first page of a random friend of its author.
func (r *run) drain(ctx context.Context) error {
	// The last by id, not by acknowledgement: an answer that its worker was slow to note may be of a post that a page of newer
	// ones has pushed off long ago.
	slices.SortFunc(r.ledger.posts, func(a, b posted) int { return strings.Compare(a.id, b.id) })
	last := r.ledger.posts[max(0, len(r.ledger.posts)-lastPosts):]
	deadline := time.Now().Add(r.Settle)
	return r.spread(ctx, len(last), func(ctx context.Context, t Target, i int) error {
		reader := last[i].author
		if friends := r.Graph.Friends[reader]; len(friends) > 0 {
			rng := rand.New(rand.NewPCG(r.Seed, uint64(i))) // #nosec G404 -- which friend looks
			reader = int(friends[rng.IntN(len(friends))])
		}
		for {
			page, err := r.home(ctx, t, reader, "")
			if err != nil {
				return err
			}
			// A page may be newer than the post from end to end only if the run is not alone on the system; the check tells.
			if slices.Contains(page.IDs, last[i].id) || time.Now().After(deadline) {
				return nil
			}
			if !wait(ctx, pollEvery) {
				return ctx.Err()
			}
		}
	})
}

func (r *run) home(ctx context.Context, t Target, reader int, cursor string) (page Page, err error) {
	err = patiently(ctx, t, func() error {
		body, err := t.Home(ctx, reader, cursor, checkPage)
		if err != nil {
			return err
		}
		page, err = t.ParsePage(body)
		return err
	})
	return page, err
}

// complete compares the whole timelines of random readers, as far back as this run goes, with what was posted.
func (r *run) complete(ctx context.Context) (Completeness, error) {
	rng := rand.New(rand.NewPCG(r.Seed, 0x636865636b)) // #nosec G404 -- which readers look
	readers := rng.Perm(r.Graph.People())
	readers = readers[:min(checkReaders, len(readers))]
	wanted := r.ledger.expected(r.Graph, readers, r.IndexCap)
	deadline := time.Now().Add(r.Settle)
	var mu sync.Mutex // guards sum
	var sum Completeness
	err := r.spread(ctx, len(readers), func(ctx context.Context, t Target, i int) error {
		c, err := r.compare(ctx, t, readers[i], wanted[readers[i]], deadline)
		mu.Lock()
		defer mu.Unlock()
		sum.merge(c)
		return err
	})
	return sum, err
}

// compare reads one timeline until all wanted posts were seen, again and again until the deadline while some are missing.
func (r *run) compare(ctx context.Context, t Target, reader int, wanted []string, deadline time.Time) (Completeness, error) {
	for first := true; ; first = false {
		c := Completeness{Readers: 1, Expected: int64(len(wanted))}
		seen, err := r.walk(ctx, t, reader, wanted, &c)
		if err != nil {
			return c, fmt.Errorf("timeline of person %d: %w", reader, err)
		}
		for _, id := range wanted {
			if !seen[id] {
				c.Missing++
				c.example("post %s of person %d is not on the timeline of person %d", id, r.ledger.author[id], reader)
			}
		}
		if !first {
			c.Late = 1
		}
		if c.Missing == 0 || time.Now().After(deadline) {
			return c, nil
		}
		if !wait(ctx, 100*pollEvery) {
			return c, ctx.Err()
		}
	}
}

// walk reads pages down to the oldest wanted post and notes what does not belong there.
func (r *run) walk(ctx context.Context, t Target, reader int, wanted []string, c *Completeness) (map[string]bool, error) {
	seen := make(map[string]bool, len(wanted))
	for cursor := ""; len(wanted) > 0; {
		page, err := r.home(ctx, t, reader, cursor)
		if err != nil {
			return nil, err
		}
		for _, id := range page.IDs {
			author, ours := r.ledger.author[id]
			_, friend := slices.BinarySearch(r.Graph.Friends[reader], author)
			switch {
			case seen[id]:
				c.Strange++
				c.example("post %s is twice on the timeline of person %d", id, reader)
			case ours && !friend && int(author) != reader:
				c.Strange++
				c.example("post %s of person %d is on the timeline of person %d, who is no friend", id, author, reader)
			}
			seen[id] = true
		}
		if page.Next == "" || (len(page.IDs) > 0 && page.IDs[len(page.IDs)-1] <= wanted[len(wanted)-1]) {
			break
		}
		if page.Next == cursor {
			return nil, fmt.Errorf("the cursor %q leads to itself", cursor)
		}
		cursor = page.Next
	}
	return seen, nil
}
