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

// Founder makes people and friendships over one worker's connection; people are numbers of the graph. Not safe for concurrent use.
type Founder interface {
	// Register makes the person, or finds them made by an earlier run.
	Register(ctx context.Context, person int) error
	// Follow puts who's half of a friendship on. Of each pair the smaller number comes first, the larger one answers; both halves
	// on are friends, and friends stay friends.
	Follow(ctx context.Context, who, whom int) error
	// Again says whether the call that failed with err may be made again, as it was, and after what wait.
	Again(err error) (wait time.Duration, again bool)
	Close() error
}

// Importer is a Founder that can put on many halves of friendships at once.
type Importer interface {
	Founder
	// Import puts the person's halves of friendships with others on. Only when the others' are on, too, are they friends.
	Import(ctx context.Context, person int, others []int32) error
}

// Target is a system under load as one worker's connection sees it. It has the four verbs of a social feed (register, follow,
// compose, read home), and the album that only a mixed load reads. Bodies stay raw: a generator that decodes each of ten thousand
// pages a second measures itself. Not safe for concurrent use.
type Target interface {
	Founder
	// Compose posts text to the author's friends and returns the post's id once the system has acknowledged it.
	Compose(ctx context.Context, author int, text string) (id string, err error)
	// Home reads a page of the reader's timeline with bodies, newest first, from cursor ("" is the top). The page is valid until
	// the next call.
	Home(ctx context.Context, reader int, cursor string, limit int) ([]byte, error)
	// Album reads the newest page of the author's own posts, with bodies.
	Album(ctx context.Context, viewer, author, limit int) ([]byte, error)
	// ParsePage decodes a page of Home or Album.
	ParsePage(page []byte) (Page, error)
}

// Page is a decoded page of a timeline or album.
type Page struct {
	IDs  []string // post ids; a later post has a larger id
	Next string   // cursor of the next page, empty at the end
}

// Stage tells how far Populate is.
type Stage struct {
	Name        string
	Done, Total int
	PutOff      int // calls that the server refused for now, by a limit or for overload; each is made again later
}

// Populate registers everybody in g and makes them friends, over workers connections, each from dial. What is refused for overload
// or by a user's limit is put off and done later. Repeating Populate after a failure does no harm: targets make each person and
// friendship once. An Importer makes each person's friendships at once. report, if not nil, is called from one goroutine once a second and at the end of each stage.
func Populate[F Founder](ctx context.Context, g *Graph, workers int, dial func() (F, error), report func(Stage)) error {
	if report == nil {
		report = func(Stage) {}
	}
	p := &populating{workers: workers, dial: func() (Founder, error) { return dial() }, report: report}
	err := p.stage(ctx, "people", g.People(), func(ctx context.Context, t Founder, i int) error { return t.Register(ctx, i) })
	if err != nil {
		return err
	}
	if _, ok := any(*new(F)).(Importer); ok {
		return p.stage(ctx, "friendships", g.People(), func(ctx context.Context, t Founder, i int) error {
			return t.(Importer).Import(ctx, i, g.Friends[i])
		})
	}
	pairs := make([][2]int, 0, g.Directed()/2)
	g.Edges(func(a, b int) bool {
		pairs = append(pairs, [2]int{a, b})
		return true
	})
	// In file order all workers would act on the same person at once and queue behind each other at that person's row.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] }) // #nosec G404
	err = p.stage(ctx, "requests", len(pairs), func(ctx context.Context, t Founder, i int) error {
		return t.Follow(ctx, pairs[i][0], pairs[i][1])
	})
	if err != nil {
		return err
	}
	return p.stage(ctx, "friendships", len(pairs), func(ctx context.Context, t Founder, i int) error {
		return t.Follow(ctx, pairs[i][1], pairs[i][0])
	})
}

type populating struct {
	workers int
	dial    func() (Founder, error)
	report  func(Stage)
}

// stage calls do for 0 to total-1 in passes: what was refused in one pass comes again in the next.
func (p *populating) stage(ctx context.Context, name string, total int, do func(context.Context, Founder, int) error) error {
	s := &stage{populating: p, do: do, todo: make([]int, total)}
	for i := range s.todo {
		s.todo[i] = i
	}
	now := func() Stage {
		return Stage{Name: name, Done: int(s.done.Load()), Total: total, PutOff: int(s.putOffs.Load())}
	}
	stop := every(time.Second, func() { p.report(now()) })
	err := s.run(ctx)
	stop()
	p.report(now())
	if err != nil {
		return fmt.Errorf("%s, after %d of %d: %w", name, s.done.Load(), total, err)
	}
	return nil
}

type stage struct {
	*populating
	do            func(context.Context, Founder, int) error
	todo          []int
	done, putOffs atomic.Int64

	mu    sync.Mutex // guards all below
	again []int
	wait  time.Duration
	last  error // that put something off
}

// patience is how long a stage goes on without getting anything done.
const patience = time.Minute

func (s *stage) run(ctx context.Context) error {
	progress, before := time.Now(), int64(0)
	for len(s.todo) > 0 {
		if err := s.pass(ctx); err != nil {
			return err
		}
		if done := s.done.Load(); done > before {
			progress, before = time.Now(), done
		} else if time.Since(progress) > patience {
			return fmt.Errorf("nothing got done for %v, last: %w", patience, s.last)
		}
		s.todo, s.again = s.again, nil
		if len(s.todo) > 0 && !wait(ctx, max(s.wait, 100*time.Millisecond)) {
			return ctx.Err()
		}
	}
	return nil
}

func (s *stage) pass(ctx context.Context) error {
	var next atomic.Int64
	s.wait = 0
	group, ctx := errgroup.WithContext(ctx)
	for range min(s.workers, len(s.todo)) {
		group.Go(func() error {
			t, err := s.dial()
			if err != nil {
				return err
			}
			defer func() { _ = t.Close() }() // nothing is in flight
			for ctx.Err() == nil {
				at := int(next.Add(1)) - 1
				if at >= len(s.todo) {
					return nil
				}
				err := s.do(ctx, t, s.todo[at])
				if err == nil {
					s.done.Add(1)
					continue
				}
				until, again := t.Again(err)
				if !again {
					return err
				}
				s.putOff(s.todo[at], until, err)
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

func (s *stage) putOff(i int, until time.Duration, err error) {
	s.putOffs.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = append(s.again, i)
	s.last = err
	if s.wait == 0 || until < s.wait {
		s.wait = until
	}
}

// every calls do at an interval, from one goroutine, until the returned function is called, which waits for it.
func every(interval time.Duration, do func()) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				do()
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

// patiently repeats do while t says that it may be, for as long as ctx lasts.
func patiently(ctx context.Context, t Founder, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		until, again := t.Again(err)
		if !again {
			return err
		}
		if !wait(ctx, max(until, 10*time.Millisecond)) {
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
