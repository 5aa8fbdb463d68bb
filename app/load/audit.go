// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// BackfillPosts is how many of a new friend's newest posts come into the timeline at once (spec section 4).
const BackfillPosts = 50

// IndexCap is how many entries the index of a timeline keeps (spec section 4).
const IndexCap = 2000

// Stored is what the services keep, read as it is, without asking who may see it. Lists of posts come newest first; a later post
// has a larger id. Safe for concurrent use.
type Stored interface {
	People(ctx context.Context) iter.Seq2[string, error]
	Friends(ctx context.Context, person string) ([]string, error)
	Album(ctx context.Context, author string) ([]string, error)
	Timeline(ctx context.Context, reader string) ([]string, error)
	// Visible returns those of the posts that the viewer may see, each with its author, the rules asked where they are kept.
	Visible(ctx context.Context, viewer string, posts []string) (map[string]string, error)
	// Pending returns the posts whose fan-out is not over.
	Pending(ctx context.Context) (uint64, error)
}

// AuditConfig says how to audit.
type AuditConfig struct {
	Workers  int                      // people looked at side by side; 0: 8
	Progress func(done int)           // people whose timelines are proven; called from one goroutine; nil: nobody
	Since    func(a, b string) string // the largest post id made before a and b were friends; nil or "": not known
}

// Audit is what an audit found.
type Audit struct {
	People      int
	Friendships int // directed
	Posts       int // in albums
	Entries     int // in timelines
	Stale       int // entries of posts that their reader may no longer see: reading leaves them out
	Differences int // entries that are missing or too many, and friendships that only one side has
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

// Run proves that friendships are mutual, that each album holds its author's posts once, and that each timeline holds the
// reader's own posts and the friends' that the reader may see, once each, in order, and nothing else that the reader may see.
//
// How long two people have been friends is not stored with the posts, so of a friend's posts those are demanded that the rules put
// there whenever the friendship began: the newest BackfillPosts, all that are newer than the oldest one there, and all after Since.
// Beyond IndexCap entries, only what is newer than the oldest entry is demanded.
//
// It waits for the fan-out to be over; people who write meanwhile show as differences.
func (c AuditConfig) Run(ctx context.Context, s Stored) (*Audit, error) {
	if c.Workers <= 0 {
		c.Workers = 8
	}
	for {
		pending, err := s.Pending(ctx)
		if err != nil {
			return nil, fmt.Errorf("asking how far the fan-out is: %w", err)
		}
		if pending == 0 {
			break
		}
		if !wait(ctx, 100*pollEvery) {
			return nil, fmt.Errorf("%d posts are still being fanned out: %w", pending, ctx.Err())
		}
	}
	a := &auditing{AuditConfig: c, stored: s, friends: map[string][]string{}, albums: map[string][]string{}, author: map[string]string{}}
	for person, err := range s.People(ctx) {
		if err != nil {
			return nil, fmt.Errorf("listing people: %w", err)
		}
		a.people = append(a.people, person)
	}
	a.res.People = len(a.people)
	if err := a.each(ctx, a.read, nil); err != nil {
		return nil, err
	}
	a.checkFriendships()
	a.checkAlbums()
	if err := a.each(ctx, a.timeline, c.Progress); err != nil {
		return nil, err
	}
	return &a.res, nil
}

type auditing struct {
	AuditConfig
	stored Stored
	people []string

	mu      sync.Mutex // guards all below
	res     Audit
	friends map[string][]string
	albums  map[string][]string
	author  map[string]string // of every post in an album
}

func (a *auditing) each(ctx context.Context, do func(context.Context, string) error, progress func(int)) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(a.Workers)
	for i, person := range a.people {
		if progress != nil && i%100 == 0 {
			progress(i)
		}
		if inner.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := do(inner, person); err != nil {
				return fmt.Errorf("person %s: %w", person, err)
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// differ counts a difference; the caller holds mu.
func (a *auditing) differ(format string, args ...any) {
	a.res.Differences++
	if len(a.res.First) < maxShown {
		a.res.First = append(a.res.First, fmt.Sprintf(format, args...))
	}
}

func (a *auditing) read(ctx context.Context, person string) error {
	friends, err := a.stored.Friends(ctx, person)
	if err != nil {
		return fmt.Errorf("friends: %w", err)
	}
	album, err := a.stored.Album(ctx, person)
	if err != nil {
		return fmt.Errorf("album: %w", err)
	}
	bodies, err := a.stored.Visible(ctx, person, album)
	if err != nil {
		return fmt.Errorf("posts of the album: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.friends[person], a.albums[person] = friends, album
	a.res.Friendships += len(friends)
	a.res.Posts += len(album)
	for _, post := range album {
		if author, ok := bodies[post]; !ok {
			a.differ("post %s is in the album of %s but has no body", post, person)
		} else if author != person {
			a.differ("post %s in the album of %s is by %s", post, person, author)
		}
	}
	return nil
}

func (a *auditing) checkFriendships() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, person := range a.people {
		if !distinct(a.friends[person]) {
			a.differ("%s has a friend twice", person)
		}
		for _, friend := range a.friends[person] {
			if !slices.Contains(a.friends[friend], person) {
				a.differ("%s has the friend %s, who does not have them", person, friend)
			}
		}
	}
}

func (a *auditing) checkAlbums() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, person := range a.people {
		album := a.albums[person]
		if !newestFirst(album) {
			a.differ("the album of %s is not in order, or holds a post twice", person)
		}
		for _, post := range album {
			if other, ok := a.author[post]; ok && other != person {
				a.differ("post %s is in the albums of %s and %s", post, other, person)
			}
			a.author[post] = person
		}
	}
}

// timeline compares one timeline with the albums of the reader and their friends.
func (a *auditing) timeline(ctx context.Context, reader string) error {
	entries, err := a.stored.Timeline(ctx, reader)
	if err != nil {
		return fmt.Errorf("timeline: %w", err)
	}
	a.mu.Lock()
	missing, strange := a.compare(reader, entries)
	a.mu.Unlock()
	// What looks wrong may still be as the author or the reader wants it: only the owner of the posts knows.
	visible, err := a.stored.Visible(ctx, reader, append(slices.Clone(missing), strange...))
	if err != nil {
		return fmt.Errorf("posts that look wrong: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.res.Entries += len(entries)
	if !newestFirst(entries) {
		a.differ("the timeline of %s is not in order, or holds a post twice", reader)
	}
	for _, post := range missing {
		if author, ok := visible[post]; ok {
			a.differ("post %s of %s is missing from the timeline of %s", post, author, reader)
		}
	}
	for _, post := range strange {
		if author, ok := visible[post]; ok {
			a.differ("post %s of %s is in the timeline of %s but in no album of theirs or a friend's", post, author, reader)
		} else {
			a.res.Stale++
		}
	}
	return nil
}

// compare returns the posts that are demanded but not there, and those that are there but in no album of the reader or a friend;
// the caller holds mu.
func (a *auditing) compare(reader string, entries []string) (missing, strange []string) {
	there := make(map[string]bool, len(entries))
	for _, post := range entries {
		there[post] = true
	}
	horizon := ""
	if len(entries) >= IndexCap {
		horizon = entries[len(entries)-1]
	}
	known := make(map[string]bool, len(entries))
	for _, author := range append([]string{reader}, a.friends[reader]...) {
		since := "" // own posts are all demanded
		if author != reader {
			since = a.demandedSince(reader, author, there)
		}
		for i, post := range a.albums[author] {
			known[post] = true
			demanded := i < BackfillPosts || post > since
			if demanded && post > horizon && !there[post] {
				missing = append(missing, post)
			}
		}
	}
	for _, post := range entries {
		if !known[post] {
			strange = append(strange, post)
		}
	}
	return missing, strange
}

// demandedSince returns the id after which every post of the author must be in the reader's timeline.
func (a *auditing) demandedSince(reader, author string, there map[string]bool) string {
	album := a.albums[author]
	since := ""
	if len(album) > 0 {
		since = album[0]
	}
	for _, post := range slices.Backward(album) {
		if there[post] {
			since = post
			break
		}
	}
	if a.Since != nil {
		if known := a.Since(reader, author); known != "" {
			since = min(since, known)
		}
	}
	return since
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
