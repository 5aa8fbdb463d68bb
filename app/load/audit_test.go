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

	"github.com/sluice-rpc/sluice/app/load"
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

func (s *stored) Visible(_ context.Context, viewer string, posts []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range posts {
		author, ok := s.author[p]
		if ok && !s.hidden[viewer+" "+p] && (author == viewer || slices.Contains(s.friends[viewer], author)) {
			out[p] = author
		}
	}
	return out, nil
}

// town of 12 in a ring, each friends with the next two on both sides, of 80 posts each.
func newStored() *stored {
	s := &stored{
		friends: map[string][]string{}, albums: map[string][]string{}, timelines: map[string][]string{},
		author: map[string]string{}, hidden: map[string]bool{},
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

func TestAuditOfSoundStores(t *testing.T) {
	s := newStored()
	s.pending.Store(3)
	a, err := load.AuditConfig{}.Run(t.Context(), s)
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
		"album without body":    {func(s *stored) { delete(s.author, s.albums["u03"][2]) }, "has no body"},
		"album of another":      {func(s *stored) { s.author[s.albums["u03"][2]] = "u04" }, "in the album of u03 is by u04"},
		"album twice":           {func(s *stored) { s.albums["u03"] = slices.Insert(s.albums["u03"], 0, s.albums["u03"][0]) }, "album of u03 is not in order"},
		"one-sided friendship":  {func(s *stored) { s.friends["u03"] = without(s.friends["u03"], 0) }, "who does not have them"},
		"friend twice":          {func(s *stored) { s.friends["u03"] = append(s.friends["u03"], "u02") }, "has a friend twice"},
		"friend that is nobody": {func(s *stored) { s.friends["u03"] = append(s.friends["u03"], "u99") }, "u03 has the friend u99"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStored()
			tc.plant(s)
			a, err := load.AuditConfig{Workers: 3}.Run(t.Context(), s)
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
			a, err := load.AuditConfig{}.Run(t.Context(), s)
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
	a, err := load.AuditConfig{Since: func(_, _ string) string { return "p" }}.Run(t.Context(), s)
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
		albums: map[string][]string{}, timelines: map[string][]string{}, author: map[string]string{},
	}
	for n := range load.IndexCap + 500 {
		post := fmt.Sprintf("p%06d", n)
		s.author[post] = "a"
		s.albums["a"] = append(s.albums["a"], post)
	}
	slices.Reverse(s.albums["a"])
	s.timelines["a"] = s.albums["a"][:load.IndexCap]
	s.timelines["b"] = s.albums["a"][:load.IndexCap]
	a, err := load.AuditConfig{}.Run(t.Context(), s)
	if err != nil || a.Err() != nil {
		t.Errorf("%v, %v", err, a.First)
	}
	s.timelines["b"] = append(slices.Clone(s.albums["a"][:100]), s.albums["a"][101:load.IndexCap+1]...)
	a, err = load.AuditConfig{}.Run(t.Context(), s)
	if err != nil || a.Differences != 1 {
		t.Errorf("%v, %d differences, want 1: %v", err, a.Differences, a.First)
	}
}

type broken struct{ *stored }

var errBroken = errors.New("broken")

func (broken) Timeline(context.Context, string) ([]string, error) { return nil, errBroken }

func TestAuditReportsWhatItCannotRead(t *testing.T) {
	if _, err := (load.AuditConfig{}).Run(t.Context(), broken{newStored()}); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}
