// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/load"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// stored is a Moments' stores as the rules want them; tests spoil it.
type stored struct {
	people    []string
	friends   map[string][]string
	albums    map[string][]string
	timelines map[string][]string
	author    map[string]string // of every body
	hidden    map[string]bool   // "viewer post": the viewer may not see it
	pending   atomic.Int64

	chosen, asking    map[string][]string
	facts             map[string]privacy.Facts      // "viewer author"
	audience          map[string]momentsv1.Audience // of posts that are not for all friends
	leak, gone        map[string]bool               // "viewer thing": a door shows what it must not, or not what it must
	miscount, mispage map[string]uint32             // by viewer: how far counts are off
	notices           map[string][]*momentsv1.Notice
	unread            map[string]uint32
	faults            map[string][]string
}

func (s *stored) People(context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, p := range s.people {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func (s *stored) Friends(_ context.Context, p string) ([]string, error)  { return s.friends[p], nil }
func (s *stored) Album(_ context.Context, p string) ([]string, error)    { return s.albums[p], nil }
func (s *stored) Timeline(_ context.Context, p string) ([]string, error) { return s.timelines[p], nil }

func (s *stored) Pending(context.Context) (uint64, error) {
	return uint64(max(0, s.pending.Add(-1))), nil
}

func (s *stored) Asking(_ context.Context, p string) ([]string, error) { return s.asking[p], nil }
func (s *stored) Chosen(_ context.Context, p string) ([]string, error) { return s.chosen[p], nil }

func (s *stored) Facts(_ context.Context, viewer string, others []string) (map[string]privacy.Facts, uint64, error) {
	facts := map[string]privacy.Facts{}
	for _, o := range others {
		f := s.facts[viewer+" "+o]
		f.Friends = slices.Contains(s.friends[viewer], o)
		facts[o] = f
	}
	return facts, 1, nil
}

func (s *stored) body(post string) *momentsv1.Post {
	audience := momentsv1.Audience_AUDIENCE_FRIENDS
	if v, ok := s.audience[post]; ok {
		audience = v
	}
	return &momentsv1.Post{Id: post, AuthorId: s.author[post], TimeMs: 1, Audience: audience, RemindIds: s.people}
}

func (s *stored) Due(_ context.Context, reader string, authors []string, down string) ([]string, error) {
	var due []string
	for _, author := range authors {
		for _, p := range s.albums[author] {
			if p >= down && s.author[p] != "" && !s.hidden[reader+" "+p] {
				due = append(due, p)
			}
		}
	}
	return due, nil
}

// sees is what the doors do, if they do as the rules say.
func (s *stored) sees(viewer, post string, timeline bool) bool {
	author, ok := s.author[post]
	facts := s.facts[viewer+" "+author]
	facts.Self, facts.Friends = author == viewer, slices.Contains(s.friends[viewer], author)
	p := privacy.Post{Time: time.UnixMilli(1), Granted: !s.hidden[viewer+" "+post]}
	if s.leak[viewer+" "+post] {
		return ok
	}
	if timeline {
		return ok && privacy.SeesInTimeline(facts, p, time.UnixMilli(2))
	}
	return ok && privacy.SeesPost(facts, p, time.UnixMilli(2))
}

func (s *stored) Bodies(_ context.Context, viewer string, posts []string) (map[string]*momentsv1.Post, error) {
	out := map[string]*momentsv1.Post{}
	for _, p := range posts {
		if author, ok := s.author[p]; ok && (s.sees(viewer, p, false) || slices.Contains(s.albums[viewer], p) && author != "") {
			out[p] = s.body(p)
		}
	}
	return out, nil
}

func (s *stored) Home(_ context.Context, reader, down string) ([]*momentsv1.TimelineItem, error) {
	var items []*momentsv1.TimelineItem
	for _, p := range s.timelines[reader] {
		if p >= down && s.sees(reader, p, true) {
			th := s.thread(reader, p)
			th.CommentCount += s.miscount[reader]
			items = append(items, &momentsv1.TimelineItem{Post: s.body(p), Thread: th})
		}
	}
	return items, nil
}

func (s *stored) AlbumOf(_ context.Context, viewer, author, down string) ([]string, error) {
	var ids []string
	for _, p := range s.albums[author] {
		if p >= down && s.sees(viewer, p, false) {
			ids = append(ids, p)
		}
	}
	return ids, nil
}

// thread is what a viewer sees: each post has a comment and a like of each friend of its author, named after them.
func (s *stored) thread(viewer, post string) *momentsv1.Thread {
	th := &momentsv1.Thread{PostId: post}
	writers := slices.Sorted(slices.Values(s.friends[s.author[post]]))
	for _, w := range slices.Compact(writers) {
		c := "c-" + post + "-" + w
		if !s.gone[viewer+" "+c] && (w == viewer || slices.Contains(s.friends[viewer], w) || s.leak[viewer+" "+c]) {
			th.Comments = append(th.Comments, &momentsv1.Comment{Id: c, WriterId: w, Text: "hi"})
			th.LikeIds = append(th.LikeIds, w)
		}
	}
	th.CommentCount, th.LikeCount = uint32(len(th.GetComments())), uint32(len(th.GetLikeIds()))
	return th
}

func (s *stored) Threads(_ context.Context, viewer string, posts []string) (map[string]*momentsv1.Thread, error) {
	out := map[string]*momentsv1.Thread{}
	for _, p := range posts {
		if s.sees(viewer, p, false) {
			out[p] = s.thread(viewer, p)
		}
	}
	return out, nil
}

func (s *stored) ThreadPages(_ context.Context, viewer, post string) (*momentsv1.Thread, error) {
	th := s.thread(viewer, post)
	th.LikeCount += s.mispage[viewer]
	return th, nil
}

func (s *stored) Shows(_ context.Context, viewer string, act *momentsv1.Act) (bool, error) {
	th := s.thread(viewer, act.GetPostId())
	return slices.Contains(th.GetLikeIds(), act.GetUserId()) ||
		slices.ContainsFunc(th.GetComments(), func(c *momentsv1.Comment) bool { return c.GetId() == act.GetCommentId() }), nil
}

// Notices are of a friend's like of and comment on the newest own post.
func (s *stored) Notices(_ context.Context, p string) ([]*momentsv1.Notice, uint32, error) {
	if list, ok := s.notices[p]; ok {
		return list, s.unread[p], nil
	}
	post, friend := s.albums[p][0], s.friends[p][0]
	return []*momentsv1.Notice{
		{NoticeId: "n2", Kind: momentsv1.NoticeKind_NOTICE_KIND_LIKE, ActorId: friend, PostId: post},
		{
			NoticeId: "n1", Kind: momentsv1.NoticeKind_NOTICE_KIND_COMMENT, ActorId: friend, PostId: post,
			CommentId: "c-" + post + "-" + friend, Text: "hi", Read: true,
		},
	}, 1 + s.unread[p], nil
}

func (s *stored) NoticeFaults(_ context.Context, p string) ([]string, error) { return s.faults[p], nil }

// town of 12 in a ring, each friends with the next two on both sides, of 80 posts each.
func newStored() *stored {
	s := &stored{
		friends: map[string][]string{}, albums: map[string][]string{}, timelines: map[string][]string{},
		author: map[string]string{}, hidden: map[string]bool{},
		chosen: map[string][]string{}, facts: map[string]privacy.Facts{}, audience: map[string]momentsv1.Audience{},
		leak: map[string]bool{}, gone: map[string]bool{}, miscount: map[string]uint32{}, mispage: map[string]uint32{},
		notices: map[string][]*momentsv1.Notice{}, unread: map[string]uint32{}, faults: map[string][]string{},
	}
	const people, posts = 12, 80
	name := func(i int) string { return fmt.Sprintf("u%02d", (i+people)%people) }
	for i := range people {
		s.people = append(s.people, name(i))
		s.friends[name(i)] = []string{name(i - 2), name(i - 1), name(i + 1), name(i + 2)}
	}
	for n := range people * posts {
		author, post := name(n), fmt.Sprintf("p%06d", n)
		s.author[post] = author
		s.albums[author] = slices.Insert(s.albums[author], 0, post)
		for _, reader := range append([]string{author}, s.friends[author]...) {
			s.timelines[reader] = slices.Insert(s.timelines[reader], 0, post)
		}
	}
	return s
}

// quick does not wait before it looks again: nobody writes.
var quick = load.AuditConfig{Settle: time.Millisecond}

func TestAuditOfSoundStores(t *testing.T) {
	s := newStored()
	s.pending.Store(3)
	a, err := quick.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Err(); err != nil {
		t.Errorf("%v: %v", err, a.First)
	}
	if a.People != 12 || a.Friendships != 48 || a.Posts != 960 || a.Entries != 5*960 || a.Stale != 0 {
		t.Errorf("counts %+v", a)
	}
}

func TestAuditFindsPlantedFaults(t *testing.T) {
	without := func(list []string, i int) []string { return slices.Delete(slices.Clone(list), i, i+1) }
	for name, tc := range map[string]struct {
		plant func(*stored)
		want  string
	}{
		"newest delivery lost":      {func(s *stored) { s.timelines["u03"] = without(s.timelines["u03"], 0) }, "missing from the timeline of u03"},
		"delivery lost in the past": {func(s *stored) { s.timelines["u03"] = without(s.timelines["u03"], 200) }, "missing from the timeline of u03"},
		"all of one friend lost": {func(s *stored) {
			s.timelines["u03"] = slices.DeleteFunc(s.timelines["u03"], func(p string) bool { return s.author[p] == "u04" })
		}, "of u04 is missing from the timeline of u03"},
		"oldest own post lost": {func(s *stored) {
			i := slices.IndexFunc(s.timelines["u05"], func(p string) bool { return p == s.albums["u05"][79] })
			s.timelines["u05"] = without(s.timelines["u05"], i)
		}, "of u05 is missing from the timeline of u05"},
		"delivered twice": {func(s *stored) { s.timelines["u03"] = slices.Insert(s.timelines["u03"], 0, s.timelines["u03"][0]) }, "holds a post twice"},
		"out of order":    {func(s *stored) { l := s.timelines["u03"]; l[4], l[5] = l[5], l[4] }, "not in order"},
		"not in the album": {func(s *stored) {
			s.albums["u03"] = without(s.albums["u03"], 7)
		}, "in no album"},
		"album without body":   {func(s *stored) { delete(s.author, s.albums["u03"][2]) }, "has no body"},
		"album of another":     {func(s *stored) { s.author[s.albums["u03"][2]] = "u04" }, "in the album of u03 is by u04"},
		"album twice":          {func(s *stored) { s.albums["u03"] = slices.Insert(s.albums["u03"], 0, s.albums["u03"][0]) }, "album of u03 is not in order"},
		"one-sided friendship": {func(s *stored) { s.friends["u03"] = without(s.friends["u03"], 0) }, "who does not have them"},
		"friend twice":         {func(s *stored) { s.friends["u03"] = append(s.friends["u03"], "u02") }, "has a friend twice"},
		"a settled privacy leak in the timeline": {func(s *stored) {
			post := s.albums["u04"][0]
			s.facts["u03 u04"] = privacy.Facts{AuthorHides: true}
			s.leak["u03 "+post] = true
		}, "is in the timeline that u03 sees, which the rules do not allow"},
		"an album that a blocked person reads": {func(s *stored) {
			s.chosen["u03"] = []string{"u08"}
			s.facts["u03 u08"] = privacy.Facts{Off: true}
			s.leak["u03 "+s.albums["u08"][0]] = true
		}, "of the album of u08, u03 sees"},
		"a post that is denied but not in due": {func(s *stored) {
			s.hidden["u03 "+s.albums["u04"][0]] = true
		}, "is for all friends, but not for u03"},
		"a post for its author alone, told to others": {func(s *stored) {
			s.audience[s.albums["u04"][0]] = momentsv1.Audience_AUDIENCE_ONLY_ME
		}, "is for u04 alone, but also for u03"},
		"a comment of a stranger": {func(s *stored) {
			post := s.albums["u04"][0] // u06 is a friend of u04 and none of u03
			s.leak["u03 c-"+post+"-u06"] = true
		}, "u03 sees comment c-"},
		"a comment of a friend that is not shown": {func(s *stored) {
			s.gone["u03 c-"+s.albums["u04"][0]+"-u02"] = true
		}, "u03 does not see comment c-"},
		"a count of a timeline": {func(s *stored) { s.miscount["u03"] = 1 }, "tells u03 of 4 comments"},
		"a count of a page":     {func(s *stored) { s.mispage["u03"] = 1 }, "the page of post"},
		"an unread count":       {func(s *stored) { s.unread["u03"] = 1 }, "u03 is told of 2 unread notices, but has 1"},
		"stored notices":        {func(s *stored) { s.faults["u03"] = []string{"read too far"} }, "the notices of u03: read too far"},
		"a notice of nothing": {func(s *stored) {
			s.notices["u03"] = []*momentsv1.Notice{{NoticeId: "n", Kind: momentsv1.NoticeKind_NOTICE_KIND_REMIND, ActorId: "u04", PostId: "p9", Read: true}}
		}, "post p9 is not to be seen"},
		"a notice of a comment that is gone": {func(s *stored) {
			s.notices["u03"] = []*momentsv1.Notice{{NoticeId: "n", Kind: momentsv1.NoticeKind_NOTICE_KIND_COMMENT, ActorId: "u04", PostId: s.albums["u03"][0], CommentId: "c", Read: true}}
		}, "there is no such comment c of u04"},
		"a notice of a like that is gone": {func(s *stored) {
			s.notices["u03"] = []*momentsv1.Notice{{NoticeId: "n", Kind: momentsv1.NoticeKind_NOTICE_KIND_LIKE, ActorId: "u08", PostId: s.albums["u03"][0], Read: true}}
		}, "there is no like of u08"},
		"a notice of an own act": {func(s *stored) {
			s.notices["u03"] = []*momentsv1.Notice{{NoticeId: "n", Kind: momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST, ActorId: "u03", Read: true}}
		}, "of an own act"},
		"friend that is nobody": {func(s *stored) { s.friends["u03"] = append(s.friends["u03"], "u99") }, "u03 has the friend u99"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStored()
			tc.plant(s)
			a, err := load.AuditConfig{Workers: 3, Settle: time.Millisecond}.Run(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if a.Err() == nil || !strings.Contains(strings.Join(a.First, "\n"), tc.want) {
				t.Errorf("%v: %q, want %q", a.Err(), a.First, tc.want)
			}
		})
	}
}

func TestAuditGrantsWhatTheRulesGrant(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*stored)
		stale  int
	}{
		"friends for a short time: older posts than the newest 50 never came": {func(s *stored) {
			old := s.albums["u04"][load.BackfillPosts:]
			s.timelines["u03"] = slices.DeleteFunc(s.timelines["u03"], func(p string) bool { return slices.Contains(old, p) })
		}, 0},
		"a post that the reader may not see is not there": {func(s *stored) {
			post := s.albums["u04"][0]
			s.hidden["u03 "+post] = true
			s.audience[post] = momentsv1.Audience_AUDIENCE_DENY
			s.timelines["u03"] = slices.DeleteFunc(s.timelines["u03"], func(p string) bool { return p == post })
		}, 0},
		"no friends any more: pointers stay, reading leaves them out": {func(s *stored) {
			s.friends["u03"] = slices.DeleteFunc(s.friends["u03"], func(p string) bool { return p == "u04" })
			s.friends["u04"] = slices.DeleteFunc(s.friends["u04"], func(p string) bool { return p == "u03" })
		}, 160},
		"a deleted post: pointers stay": {func(s *stored) {
			delete(s.author, s.albums["u04"][0])
			s.albums["u04"] = s.albums["u04"][1:]
		}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStored()
			tc.change(s)
			a, err := quick.Run(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if a.Err() != nil || a.Stale != tc.stale {
				t.Errorf("%v, stale %d: %q", a.Err(), a.Stale, a.First)
			}
		})
	}
}

func TestAuditSinceDemandsTheOldPostsToo(t *testing.T) {
	s := newStored()
	old := s.albums["u04"][load.BackfillPosts:]
	s.timelines["u03"] = slices.DeleteFunc(s.timelines["u03"], func(p string) bool { return slices.Contains(old, p) })
	a, err := load.AuditConfig{Settle: time.Millisecond, Since: func(_, _ string) string { return "p" }}.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if a.Differences != len(old) {
		t.Errorf("%d differences, want %d", a.Differences, len(old))
	}
}

func TestAuditBeyondTheCap(t *testing.T) {
	s := &stored{
		people: []string{"a", "b"}, friends: map[string][]string{"a": {"b"}, "b": {"a"}},
		notices: map[string][]*momentsv1.Notice{"a": nil, "b": nil},
		albums:  map[string][]string{}, timelines: map[string][]string{}, author: map[string]string{},
	}
	for n := range load.IndexCap + 500 {
		post := fmt.Sprintf("p%06d", n)
		s.author[post] = "a"
		s.albums["a"] = append(s.albums["a"], post)
	}
	slices.Reverse(s.albums["a"])
	s.timelines["a"] = s.albums["a"][:load.IndexCap]
	s.timelines["b"] = s.albums["a"][:load.IndexCap]
	a, err := quick.Run(t.Context(), s)
	if err != nil || a.Err() != nil {
		t.Errorf("%v, %v", err, a.First)
	}
	s.timelines["b"] = append(slices.Clone(s.albums["a"][:100]), s.albums["a"][101:load.IndexCap+1]...)
	a, err = quick.Run(t.Context(), s)
	if err != nil || a.Differences != 1 {
		t.Errorf("%v, %d differences, want 1: %v", err, a.Differences, a.First)
	}
}

type broken struct{ *stored }

var errBroken = errors.New("broken")

func (broken) Timeline(context.Context, string) ([]string, error) { return nil, errBroken }

func TestAuditReportsWhatItCannotRead(t *testing.T) {
	if _, err := quick.Run(t.Context(), broken{newStored()}); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

// passing are stores in which a delivery is under way at each look at a reader, but of another post each time.
type passing struct {
	*stored
	looks atomic.Int64
}

func (p *passing) Timeline(ctx context.Context, reader string) ([]string, error) {
	list, err := p.stored.Timeline(ctx, reader)
	if reader == "u03" {
		i := int(p.looks.Add(1))
		list = slices.Delete(slices.Clone(list), i, i+1)
	}
	return list, err
}

func TestAuditDoesNotCountWhatPasses(t *testing.T) {
	a, err := quick.Run(t.Context(), &passing{stored: newStored()})
	if err != nil {
		t.Fatal(err)
	}
	if a.Err() != nil || a.Passing != 1 {
		t.Errorf("%v, %d passing: %q", a.Err(), a.Passing, a.First)
	}
}

// restless are stores of which somebody hides a friend whenever asked, and has shown him again meanwhile.
type restless struct {
	*stored
	version atomic.Uint64
}

func (r *restless) Facts(ctx context.Context, viewer string, others []string) (map[string]privacy.Facts, uint64, error) {
	facts, version, err := r.stored.Facts(ctx, viewer, others)
	if _, ok := facts["u04"]; ok && viewer == "u03" {
		facts["u04"] = privacy.Facts{Friends: true, ViewerHides: true}
		version = r.version.Add(2)
	}
	return facts, version, err
}

func TestAuditDoesNotCountWhatComesAndGoes(t *testing.T) {
	s := &restless{stored: newStored()}
	a, err := quick.Run(t.Context(), s)
	if err != nil || a.Err() != nil || s.version.Load() == 0 {
		t.Errorf("%v, %v: %q", err, a.Err(), a.First)
	}
}

// hurried are stores that have no time now and then, and somebody who has left.
type hurried struct {
	*stored
	calls atomic.Int64
}

func (h *hurried) Facts(ctx context.Context, viewer string, others []string) (map[string]privacy.Facts, uint64, error) {
	if viewer == "u03" && h.calls.Add(1) == 1 {
		return nil, 0, rpc.Errorf(rpc.ResourceExhausted, "people come first")
	}
	if viewer == "u05" {
		return nil, 0, rpc.Errorf(rpc.NotFound, "no such user")
	}
	return h.stored.Facts(ctx, viewer, others)
}

func TestAuditIsPatient(t *testing.T) {
	a, err := quick.Run(t.Context(), &hurried{stored: newStored()})
	if err != nil || a.Err() != nil || a.Friendships != 44 {
		t.Errorf("%v, %v, %d friendships", err, a.Err(), a.Friendships)
	}
}
