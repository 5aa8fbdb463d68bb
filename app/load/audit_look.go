// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/privacy"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// look is one reading of the stores: what it has read of somebody it takes to be so until its end.
type look struct {
	a *auditing

	mu      sync.Mutex          // guards both
	friends map[string][]string // by person
	albums  map[string]*album   // by author
}

// album is an album as it is stored, with its posts as their author sees them.
type album struct {
	ids    []string
	bodies map[string]*momentsv1.Post // without texts
	newest map[string]bool            // those that strangers may see, if the author lets them
}

func (a *auditing) newLook() *look {
	return &look{a: a, friends: map[string][]string{}, albums: map[string]*album{}}
}

func (l *look) friendsOf(ctx context.Context, person string) ([]string, error) {
	l.mu.Lock()
	known, ok := l.friends[person]
	l.mu.Unlock()
	if ok {
		return known, nil
	}
	list, err := l.a.stored.Friends(ctx, person)
	if err != nil {
		return nil, fmt.Errorf("friends of %s: %w", person, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.friends[person] = list
	return list, nil
}

func (l *look) albumOf(ctx context.Context, author string) (*album, error) {
	l.mu.Lock()
	known := l.albums[author]
	l.mu.Unlock()
	if known != nil {
		return known, nil
	}
	read := &album{newest: map[string]bool{}}
	var err error
	if read.ids, err = l.a.stored.Album(ctx, author); err != nil {
		return nil, fmt.Errorf("album of %s: %w", author, err)
	}
	if read.bodies, err = l.a.stored.Bodies(ctx, author, read.ids); err != nil {
		return nil, fmt.Errorf("posts of %s: %w", author, err)
	}
	for _, post := range read.ids {
		b := read.bodies[post]
		if b.GetAudience() == momentsv1.Audience_AUDIENCE_FRIENDS && len(read.newest) < privacy.OpenPosts {
			read.newest[post] = true
		}
		if b != nil { // of all albums only what decides who sees a post is kept
			read.bodies[post] = &momentsv1.Post{Id: post, AuthorId: b.GetAuthorId(), TimeMs: b.GetTimeMs(), Audience: b.GetAudience()}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.albums[author] = read
	return read, nil
}

// findings are what a look at one person gives.
type findings struct {
	person                                      string
	friendships, posts, entries, stale, notices int
	differences                                 []string
}

func (f *findings) differ(format string, args ...any) {
	f.differences = append(f.differences, fmt.Sprintf(format, args...))
}

// standing is how a person stands to others, and what there is to be seen of them.
type standing struct {
	friends []string
	facts   map[string]privacy.Facts // of friends, of whom the person has settings about, and of the person
	version uint64                   // of the facts
	albums  map[string]*album        // of friends and the person
	entries []string                 // the index of the timeline
	horizon string                   // oldest post that is looked at
	due     map[string]bool          // posts of the albums that are for the person, whatever the settings say
	now     time.Time
}

// person looks at all that is there of a person.
func (l *look) person(ctx context.Context, person string) (findings, error) {
	f := findings{person: person}
	st, err := l.standing(ctx, &f)
	if err != nil {
		return f, err
	}
	l.checkIndex(&f, st)
	home, err := l.checkHome(ctx, &f, st)
	if err != nil {
		return f, err
	}
	if err := l.checkAlbums(ctx, &f, st); err != nil {
		return f, err
	}
	if err := l.checkThreads(ctx, &f, st, home); err != nil {
		return f, err
	}
	if err := l.checkNotices(ctx, &f); err != nil {
		return f, err
	}
	return f, l.discard(ctx, &f, st)
}

// discard drops what was found if the person's relations have changed meanwhile: who
// hides somebody and shows him again all the time differs in every look.
func (l *look) discard(ctx context.Context, f *findings, st *standing) error {
	if len(f.differences) == 0 {
		return nil
	}
	others := slices.Sorted(maps.Keys(st.facts))
	others = slices.DeleteFunc(others, func(other string) bool { return other == f.person })
	_, version, err := l.a.stored.Facts(ctx, f.person, others)
	if err != nil {
		return fmt.Errorf("relations: %w", err)
	}
	if version != st.version { // even if the facts are the same again
		f.differences = nil
	}
	return nil
}

// standing reads what decides what a person sees, and checks that it fits together.
func (l *look) standing(ctx context.Context, f *findings) (*standing, error) {
	person, stored := f.person, l.a.stored
	st := &standing{albums: map[string]*album{}, due: map[string]bool{}}
	var err error
	if st.friends, err = l.friendsOf(ctx, person); err != nil {
		return nil, err
	}
	f.friendships = len(st.friends)
	if !distinct(st.friends) {
		f.differ("%s has a friend twice", person)
	}
	chosen, err := stored.Chosen(ctx, person)
	if err != nil {
		return nil, fmt.Errorf("settings about others: %w", err)
	}
	others := slices.Concat(st.friends, chosen)
	slices.Sort(others)
	others = slices.Compact(others)
	if st.facts, st.version, err = stored.Facts(ctx, person, others); err != nil {
		return nil, fmt.Errorf("relations: %w", err)
	}
	st.now = time.Now()
	st.facts[person] = privacy.Facts{Self: true}
	for _, other := range others {
		if is := slices.Contains(st.friends, other); is != st.facts[other].Friends {
			f.differ("%s is in the list of friends of %s: %v, but between them it says %v", other, person, is, !is)
		}
	}
	for _, friend := range st.friends {
		theirs, err := l.friendsOf(ctx, friend)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(theirs, person) {
			f.differ("%s has the friend %s, who does not have them", person, friend)
		}
	}
	circle := append([]string{person}, st.friends...)
	for _, author := range circle {
		if st.albums[author], err = l.albumOf(ctx, author); err != nil {
			return nil, err
		}
	}
	if st.entries, err = stored.Timeline(ctx, person); err != nil {
		return nil, fmt.Errorf("timeline: %w", err)
	}
	if len(st.entries) >= IndexCap {
		st.horizon = st.entries[len(st.entries)-1]
	}
	due, err := stored.Due(ctx, person, circle, st.horizon)
	if err != nil {
		return nil, fmt.Errorf("posts for the timeline: %w", err)
	}
	for _, post := range due {
		st.due[post] = true
	}
	f.checkAlbum(st.albums[person])
	f.checkDue(st)
	return st, nil
}

// checkAlbum checks that an album has its author's posts once, in order.
func (f *findings) checkAlbum(own *album) {
	f.posts = len(own.ids)
	if !newestFirst(own.ids) {
		f.differ("the album of %s is not in order, or holds a post twice", f.person)
	}
	for _, post := range own.ids {
		switch body := own.bodies[post]; {
		case body == nil:
			f.differ("post %s is in the album of %s but has no body", post, f.person)
		case body.GetAuthorId() != f.person:
			f.differ("post %s in the album of %s is by %s", post, f.person, body.GetAuthorId())
		}
	}
}

// checkDue checks that what is for the person is so by each post's own word. Lists of people are kept with the post alone,
// so what is for some may or may not be for the person.
func (f *findings) checkDue(st *standing) {
	for author, album := range st.albums {
		for _, post := range album.ids {
			body := album.bodies[post]
			if post < st.horizon || body == nil || author == f.person {
				continue
			}
			switch due := st.due[post]; {
			case body.GetAudience() == momentsv1.Audience_AUDIENCE_FRIENDS && !due:
				f.differ("post %s of %s is for all friends, but not for %s", post, author, f.person)
			case body.GetAudience() == momentsv1.Audience_AUDIENCE_ONLY_ME && due:
				f.differ("post %s is for %s alone, but also for %s", post, author, f.person)
			}
		}
	}
}

// sees reports whether the rules let the person see a post in a timeline or an album.
func (st *standing) sees(post string, body *momentsv1.Post, inTimeline bool, newest bool) bool {
	p := privacy.Post{
		Time: time.UnixMilli(body.GetTimeMs()), Granted: st.due[post],
		Public: body.GetAudience() == momentsv1.Audience_AUDIENCE_FRIENDS, Newest: newest,
	}
	if inTimeline {
		return privacy.SeesInTimeline(st.facts[body.GetAuthorId()], p, st.now)
	}
	return privacy.SeesInAlbum(st.facts[body.GetAuthorId()], p, st.now)
}

// checkIndex compares the index of a timeline with the albums of the reader and the friends.
func (l *look) checkIndex(f *findings, st *standing) {
	f.entries = len(st.entries)
	if !newestFirst(st.entries) {
		f.differ("the timeline of %s is not in order, or holds a post twice", f.person)
	}
	there := make(map[string]bool, len(st.entries))
	for _, post := range st.entries {
		if there[post] = true; !st.due[post] {
			f.stale++
		}
	}
	for author, album := range st.albums {
		since := "" // own posts are all demanded
		if author != f.person {
			since = l.a.demandedSince(f.person, author, album.ids, there)
		}
		for i, post := range album.ids {
			demanded := i < BackfillPosts || post > since
			if demanded && post > st.horizon && st.due[post] && !there[post] {
				f.differ("post %s of %s is missing from the timeline of %s", post, author, f.person)
			}
		}
	}
}

// demandedSince returns the id after which every post of the author must be in the reader's timeline.
func (a *auditing) demandedSince(reader, author string, album []string, there map[string]bool) string {
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

// checkHome compares the timeline that a reader sees with what the rules make of the index.
func (l *look) checkHome(ctx context.Context, f *findings, st *standing) ([]*momentsv1.TimelineItem, error) {
	home, err := l.a.stored.Home(ctx, f.person, st.horizon)
	if err != nil {
		return nil, fmt.Errorf("timeline as it is seen: %w", err)
	}
	var ids []string
	author := make(map[string]string, len(home))
	for _, it := range home {
		ids = append(ids, it.GetPost().GetId())
		author[it.GetPost().GetId()] = it.GetPost().GetAuthorId()
	}
	if !newestFirst(ids) {
		f.differ("the timeline of %s is not seen in order, or has a post twice", f.person)
	}
	candidates := slices.Concat(st.entries, st.albums[f.person].ids)
	due := make(map[string]bool, len(candidates))
	for _, album := range st.albums {
		for post, body := range album.bodies {
			if body.GetAuthorId() != "" && post >= st.horizon && st.sees(post, body, true, false) {
				due[post] = true
			}
		}
	}
	for _, post := range ids {
		switch known := l.inAlbum(st, author[post], post); {
		case !known:
			f.differ("post %s of %s is in the timeline of %s but in no album of theirs or a friend's", post, author[post], f.person)
		case !due[post]:
			f.differ("post %s of %s is in the timeline that %s sees, which the rules do not allow", post, author[post], f.person)
		}
	}
	slices.Sort(candidates)
	for _, post := range slices.Compact(candidates) {
		if _, seen := author[post]; due[post] && !seen {
			f.differ("post %s is not in the timeline that %s sees, which the rules allow", post, f.person)
		}
	}
	return home, nil
}

func (l *look) inAlbum(st *standing, author, post string) bool {
	album := st.albums[author]
	return album != nil && album.bodies[post] != nil
}

// checkAlbums compares each album that a person opens with what the rules let them see: of friends, of whom they have
// settings about, blocked ones too, and their own.
func (l *look) checkAlbums(ctx context.Context, f *findings, st *standing) error {
	for author := range st.facts {
		album, err := l.albumOf(ctx, author)
		if err != nil {
			return err
		}
		seen, err := l.a.stored.AlbumOf(ctx, f.person, author, st.horizon)
		if err != nil {
			return fmt.Errorf("album of %s as it is seen: %w", author, err)
		}
		var allowed []string
		for _, post := range album.ids {
			if body := album.bodies[post]; body != nil && post >= st.horizon && st.sees(post, body, false, album.newest[post]) {
				allowed = append(allowed, post)
			}
		}
		if !slices.Equal(seen, allowed) {
			f.differ("of the album of %s, %s sees %v, but the rules allow %v", author, f.person, some(seen, allowed), some(allowed, seen))
		}
	}
	return nil
}

// some gives a few of those in list that are not in other, for a message.
func some(list, other []string) []string {
	only := []string{}
	for _, v := range list {
		if len(only) < 3 && !slices.Contains(other, v) {
			only = append(only, v)
		}
	}
	return only
}
