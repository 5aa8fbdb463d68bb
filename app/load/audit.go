// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// BackfillPosts is how many of a new friend's newest posts come into the timeline at once (spec section 4).
const BackfillPosts = 50

// IndexCap is how many entries the index of a timeline keeps (spec section 4).
const IndexCap = 2000

// Stored is what the services keep, read as it is, and what they show, read through their own doors. Lists of posts come newest
// first; a later post has a larger id. Safe for concurrent use.
type Stored interface {
	People(ctx context.Context) iter.Seq2[string, error]
	Friends(ctx context.Context, person string) ([]string, error)
	// Asking returns the people whose requests wait for a person's answer.
	Asking(ctx context.Context, person string) ([]string, error)
	// Chosen returns the people about whom a person has settings, blocked ones too.
	Chosen(ctx context.Context, person string) ([]string, error)
	// Facts returns how the viewer stands to each of the others, and a version that moves on with every change of that.
	Facts(ctx context.Context, viewer string, others []string) (facts map[string]privacy.Facts, version uint64, err error)
	Album(ctx context.Context, author string) ([]string, error)
	Timeline(ctx context.Context, reader string) ([]string, error)
	// Due returns the posts of the authors, none older than down, that are for the reader whatever the settings say.
	Due(ctx context.Context, reader string, authors []string, down string) ([]string, error)
	// Pending returns the posts whose fan-out is not over.
	Pending(ctx context.Context) (uint64, error)
	// NoticeFaults returns, in words, what is wrong with a person's notices as they are stored.
	NoticeFaults(ctx context.Context, person string) ([]string, error)

	// Bodies returns those of the posts that the viewer may see.
	Bodies(ctx context.Context, viewer string, posts []string) (map[string]*momentsv1.Post, error)
	// Home returns a timeline as its reader sees it, with no post older than down.
	Home(ctx context.Context, reader, down string) ([]*momentsv1.TimelineItem, error)
	// AlbumOf returns an album as the viewer sees it, with no post older than down.
	AlbumOf(ctx context.Context, viewer, author, down string) ([]string, error)
	// Threads returns all that the viewer sees under posts; nothing of posts under which that is nothing.
	Threads(ctx context.Context, viewer string, posts []string) (map[string]*momentsv1.Thread, error)
	// ThreadPages returns a thread as its pages show it.
	ThreadPages(ctx context.Context, viewer, post string) (*momentsv1.Thread, error)
	// Shows reports whether the viewer sees a comment or like.
	Shows(ctx context.Context, viewer string, act *momentsv1.Act) (bool, error)
	// Notices returns a person's notices, newest first, and how many are unread.
	Notices(ctx context.Context, person string) ([]*momentsv1.Notice, uint32, error)
}

// AuditConfig says how to audit.
type AuditConfig struct {
	Workers  int                      // people looked at side by side; 0: 8
	Progress func(done int)           // people who have been looked at; called from one goroutine; nil: nobody
	Again    func(people int)         // before each further look: how many differ so far; called from one goroutine; nil: nobody
	Since    func(a, b string) string // the largest post id made before a and b were friends; nil or "": not known
	Settle   time.Duration            // before each further look at what differs; 0: 3 s
}

// looks is how often a difference must be seen to count: each time from newly read data.
const looks = 3

// Audit is what an audit found.
type Audit struct {
	People      int
	Friendships int // directed
	Posts       int // in albums
	Entries     int // in timelines
	Stale       int // entries of posts that are not for their reader, or gone: reading leaves them out
	Comments    int // that anybody sees
	Likes       int // that anybody sees
	Notices     int // that are shown
	Passing     int // people with differences that a further look did not confirm: they, or others, wrote meanwhile
	Differences int
	First       []string
}

// maxShown is how many differences an audit describes.
const maxShown = 20

// Err returns nil if everything stored is as the rules say.
func (a *Audit) Err() error {
	if a.Differences == 0 {
		return nil
	}
	return fmt.Errorf("%d differences between what is stored and what the rules say", a.Differences)
}

// Run proves of each person that
//   - the friendships are mutual;
//   - the album holds the person's posts once, in order;
//   - the timeline holds the person's own posts and the friends' that are for them, once each, in order, and the timeline and
//     each album that the person opens show what the settings and the posts allow, and nothing else;
//   - under each post the comments and likes shown are those of the person and friends, and the counts are theirs;
//   - each notice tells of something that the person sees, the unread ones are as many as counted, and what is stored of
//     them fits.
//
// How long two people have been friends is not stored with the posts, so of a friend's posts those are demanded that the rules put
// there whenever the friendship began: the newest BackfillPosts, all that are newer than the oldest one there, and all after Since.
// Beyond IndexCap entries, only what is newer than the oldest entry is looked at.
//
// It may run while people write: who differs is looked at again, with everything read anew, and only what has not changed in
// any of the looks is a difference.
func (c AuditConfig) Run(ctx context.Context, s Stored) (*Audit, error) {
	if c.Workers <= 0 {
		c.Workers = 8
	}
	if c.Settle <= 0 {
		c.Settle = 3 * time.Second
	}
	if c.Progress == nil {
		c.Progress = func(int) {}
	}
	a := &auditing{AuditConfig: c, stored: s, acts: map[string]map[act]witness{}, found: map[string][]string{}}
	if err := a.fannedOut(ctx); err != nil {
		return nil, err
	}
	for person, err := range s.People(ctx) {
		if err != nil {
			return nil, fmt.Errorf("listing people: %w", err)
		}
		a.people = append(a.people, person)
	}
	a.res.People = len(a.people)
	first := a.newLook()
	half := func(done int) { a.Progress(done / 2) } // collecting counts as one half, looking as the other
	err := a.each(ctx, a.people, half, a.collect)
	if err != nil {
		return nil, err
	}
	half = func(done int) { a.Progress((len(a.people) + done) / 2) }
	err = a.each(ctx, a.people, half, func(ctx context.Context, person string) error { return a.look(ctx, first, person) })
	if err != nil {
		return nil, err
	}
	for range looks - 1 {
		if err := a.lookAgain(ctx); err != nil {
			return nil, err
		}
	}
	a.conclude()
	return &a.res, nil
}

type auditing struct {
	AuditConfig
	stored Stored
	people []string

	mu    sync.Mutex // guards all below
	res   Audit
	acts  map[string]map[act]witness // comments and likes that anybody has seen, by post
	found map[string][]string        // differences of each person, as far as no look has denied them
}

// fannedOut waits until no post is being fanned out, but not for ever: while people write, some always are.
func (a *auditing) fannedOut(ctx context.Context) error {
	for range 20 {
		pending, err := a.stored.Pending(ctx)
		if err != nil {
			return fmt.Errorf("asking how far the fan-out is: %w", err)
		}
		if pending == 0 {
			return nil
		}
		if !wait(ctx, 50*pollEvery) {
			return fmt.Errorf("%d posts are still being fanned out: %w", pending, ctx.Err())
		}
	}
	return nil
}

// each does something for people, side by side.
func (a *auditing) each(ctx context.Context, people []string, progress func(int), do func(context.Context, string) error) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(a.Workers)
	for i, person := range people {
		if i%100 == 0 {
			progress(i)
		}
		if inner.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := persist(inner, func() error { return do(inner, person) }); err != nil {
				return fmt.Errorf("person %s: %w", person, err)
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// persist does something again while the services are too busy for an audit. Who has left since the listing is no concern.
func persist(ctx context.Context, do func() error) error {
	const tries = 8
	for try := 1; ; try++ {
		err := do()
		switch rpc.CodeOf(err) {
		case rpc.NotFound:
			return nil
		case rpc.Unavailable, rpc.ResourceExhausted, rpc.DeadlineExceeded:
			if try < tries && wait(ctx, time.Duration(try)*100*time.Millisecond) {
				continue
			}
		}
		return err
	}
}

// look looks at a person for the first time.
func (a *auditing) look(ctx context.Context, l *look, person string) error {
	f, err := l.person(ctx, person)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.res.Friendships += f.friendships
	a.res.Posts += f.posts
	a.res.Entries += f.entries
	a.res.Stale += f.stale
	a.res.Notices += f.notices
	if len(f.differences) > 0 {
		a.found[person] = f.differences
	}
	return nil
}

// lookAgain looks at everybody who differs, with everything read anew.
func (a *auditing) lookAgain(ctx context.Context) error {
	a.mu.Lock()
	var people []string
	for person := range a.found {
		people = append(people, person)
	}
	a.mu.Unlock()
	if len(people) == 0 {
		return nil
	}
	slices.Sort(people)
	if a.Again != nil {
		a.Again(len(people))
	}
	if !wait(ctx, a.Settle) {
		return ctx.Err()
	}
	if err := a.fannedOut(ctx); err != nil {
		return err
	}
	return a.each(ctx, people, a.Progress, func(ctx context.Context, person string) error {
		f, err := a.newLook().person(ctx, person)
		if err != nil && rpc.CodeOf(err) != rpc.NotFound {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		still := slices.DeleteFunc(a.found[person], func(d string) bool { return !slices.Contains(f.differences, d) })
		if a.found[person] = still; len(still) == 0 {
			delete(a.found, person)
			a.res.Passing++
		}
		return nil
	})
}

// conclude counts what all looks agree on.
func (a *auditing) conclude() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, person := range a.people { // in their order, so that two audits tell the same first
		slices.Sort(a.found[person])
		for _, d := range a.found[person] {
			a.res.Differences++
			if len(a.res.First) < maxShown {
				a.res.First = append(a.res.First, d)
			}
		}
	}
	for _, acts := range a.acts {
		for act := range acts {
			if act.comment != "" {
				a.res.Comments++
			} else {
				a.res.Likes++
			}
		}
	}
}

// newestFirst reports whether ids fall strictly.
func newestFirst(ids []string) bool {
	for i := 1; i < len(ids); i++ {
		if ids[i] >= ids[i-1] {
			return false
		}
	}
	return true
}

func distinct(ids []string) bool {
	sorted := slices.Sorted(slices.Values(ids))
	return len(slices.Compact(sorted)) == len(ids)
}
