// SPDX-License-Identifier: Apache-2.0

package privacy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/privacy"
)

var (
	now = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

	self     = privacy.Facts{Self: true}
	friend   = privacy.Facts{Friends: true}
	stranger = privacy.Facts{}
	denied   = privacy.Facts{Friends: true, AuthorHides: true}
	unwanted = privacy.Facts{Friends: true, ViewerHides: true}
	chatOnly = privacy.Facts{Friends: true, Off: true}
	open     = privacy.Facts{Open: true}
	blocked  = privacy.Facts{Open: true, Off: true}

	post = privacy.Post{Time: now.Add(-time.Hour), Granted: true, Public: true, Newest: true}
)

// TestRelationsAndDoors is the whole of the rules for one post of the author, on which
// he has commented himself: eight ways to stand to him, nine doors.
func TestRelationsAndDoors(t *testing.T) {
	doors := []struct {
		name string
		open func(privacy.Facts, privacy.Post) bool
	}{
		{"detail", func(f privacy.Facts, p privacy.Post) bool { return privacy.SeesPost(f, p, now) }},
		{"timeline", func(f privacy.Facts, p privacy.Post) bool { return privacy.SeesInTimeline(f, p, now) }},
		{"album", func(f privacy.Facts, p privacy.Post) bool { return privacy.SeesInAlbum(f, p, now) }},
		{"comments", func(f privacy.Facts, p privacy.Post) bool {
			return privacy.SeesPost(f, p, now) && privacy.SeesComment(f)
		}},
		{"reacting", func(f privacy.Facts, p privacy.Post) bool {
			return privacy.SeesPost(f, p, now) && privacy.MayReact(f)
		}},
		{"notices", func(f privacy.Facts, p privacy.Post) bool {
			return privacy.SeesPost(f, p, now) && privacy.IsTold(f)
		}},
		{"counts", func(f privacy.Facts, p privacy.Post) bool {
			return privacy.SeesPost(f, p, now) && privacy.SeesComment(f)
		}},
	}
	for _, c := range []struct {
		name  string
		facts privacy.Facts
		want  string // a letter for each door: y or -
	}{
		//                          detail, timeline, album, comments, reacting, notices, counts
		{"the author", self, "yyyyy-y"},
		{"a friend", friend, "yyyyyyy"},
		{"a friend whom the author hides it from", denied, "-------"},
		{"a friend who does not want the author's", unwanted, "y-yyyyy"},
		{"a chat-only friend", chatOnly, "-------"},
		{"a stranger", stranger, "-------"},
		{"a stranger, the author being open", open, "y-y----"},
		{"somebody blocked", blocked, "-------"},
	} {
		for i, door := range doors {
			t.Run(c.name+"/"+door.name, func(t *testing.T) {
				if got, want := door.open(c.facts, post), c.want[i] == 'y'; got != want {
					t.Errorf("open = %v, want %v", got, want)
				}
			})
		}
		// Behind the window, for others, and with the author's choice of whom it is for.
		for name, closed := range map[string]struct {
			f privacy.Facts
			p privacy.Post
		}{
			"outside the window":            {windowed(c.facts, privacy.ThreeDays), aged(post, 73*time.Hour)},
			"not for the viewer":            {c.facts, privacy.Post{Time: post.Time, Newest: true}},
			"of a window that is not known": {windowed(c.facts, 200), post},
		} {
			for i, door := range doors {
				want := c.facts.Self && c.want[i] == 'y'
				if got := door.open(closed.f, closed.p); got != want {
					t.Errorf("%s, %s: %s open = %v, want %v", c.name, name, door.name, got, want)
				}
			}
		}
	}
}

func windowed(f privacy.Facts, w privacy.Window) privacy.Facts {
	f.Window = w
	return f
}

func aged(p privacy.Post, age time.Duration) privacy.Post {
	p.Time = now.Add(-age)
	return p
}

func TestStrangersSeeTheNewestPublicPosts(t *testing.T) {
	for _, c := range []struct {
		name  string
		facts privacy.Facts
		post  privacy.Post
		want  bool
	}{
		{"newest", open, post, true},
		{"older than ten others", open, privacy.Post{Time: post.Time, Granted: true, Public: true}, false},
		{"not public", open, privacy.Post{Time: post.Time, Granted: true, Newest: true}, false},
		{"of one who is not open", stranger, post, false},
		{"hidden from this one", privacy.Facts{Open: true, AuthorHides: true}, post, false},
		{"of one who is blocked or blocks", blocked, post, false},
		{"outside the window", windowed(open, privacy.Month), aged(post, 40*24*time.Hour), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := privacy.SeesInAlbum(c.facts, c.post, now); got != c.want {
				t.Errorf("SeesInAlbum = %v, want %v", got, c.want)
			}
			if privacy.SeesInTimeline(c.facts, c.post, now) {
				t.Error("a stranger's post is in the timeline")
			}
		})
	}
}

func TestWindow(t *testing.T) {
	at := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		name   string
		window privacy.Window
		now    time.Time
		edge   time.Time
	}{
		{"three days", privacy.ThreeDays, at(2026, 3, 2, 7), at(2026, 2, 27, 7)},
		{"a month", privacy.Month, at(2026, 5, 15, 7), at(2026, 4, 15, 7)},
		{"a month over the year's end", privacy.Month, at(2026, 1, 15, 7), at(2025, 12, 15, 7)},
		{"a month that has no such day", privacy.Month, at(2026, 3, 31, 7), at(2026, 2, 28, 7)},
		{"half a year", privacy.HalfYear, at(2026, 5, 15, 7), at(2025, 11, 15, 7)},
		{"half a year that has no such day", privacy.HalfYear, at(2024, 8, 31, 7), at(2024, 2, 29, 7)},
		{"half a year, from another time zone", privacy.HalfYear, at(2026, 5, 15, 7).In(time.FixedZone("", 9*3600)), at(2025, 11, 15, 7)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if edge, ok := c.window.Edge(c.now); !ok || !edge.Equal(c.edge) {
				t.Errorf("edge = %v, %v, want %v", edge, ok, c.edge)
			}
			if !c.window.Reaches(c.edge, c.now) {
				t.Error("a post exactly at the edge is not shown")
			}
			if c.window.Reaches(c.edge.Add(-time.Millisecond), c.now) {
				t.Error("a post before the edge is shown")
			}
		})
	}
	if !privacy.Always.Reaches(time.Time{}, now) {
		t.Error("a window without an edge has one")
	}
	if _, ok := privacy.Window(200).Edge(now); ok || privacy.Window(200).Reaches(now, now) {
		t.Error("a window that is not known reaches something")
	}
}

func TestComments(t *testing.T) {
	for _, c := range []struct {
		name           string
		writer, to     privacy.Facts
		comment, reply bool
	}{
		{"own, to oneself", self, self, true, true},
		{"own, to a friend", self, friend, true, true},
		{"own, to one who was a friend", self, stranger, true, false},
		{"a friend's, to oneself", friend, self, true, true},
		{"a friend's, to a friend", friend, friend, true, true},
		{"a friend's, to a stranger", friend, stranger, true, false},
		{"a stranger's, to oneself", stranger, self, false, false},
		{"a stranger's, to a friend", stranger, friend, false, false},
		{"an open stranger's", open, friend, false, false},
		{"hiding posts does not hide comments", denied, unwanted, true, true},
		{"nor does chat-only: they are friends", chatOnly, friend, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := privacy.SeesComment(c.writer); got != c.comment {
				t.Errorf("SeesComment(%+v) = %v, want %v", c.writer, got, c.comment)
			}
			if got := privacy.SeesReply(c.writer, c.to); got != c.reply {
				t.Errorf("SeesReply(%+v, %+v) = %v, want %v", c.writer, c.to, got, c.reply)
			}
			if got, want := privacy.IsTold(c.writer), c.comment && !c.writer.Self; got != want {
				t.Errorf("IsTold(%+v) = %v, want %v", c.writer, got, want)
			}
		})
	}
}

// TestDoorsAgree is what must hold of all facts: whoever may see a reply may see what
// it answers, which keeps every filtered view causally closed; no door is wider than
// the post's own page; and nothing takes away what is one's own.
func TestDoorsAgree(t *testing.T) {
	bit := func(bits, i int) bool { return bits>>i&1 != 0 }
	var all []privacy.Facts
	for bits := range 1 << 6 {
		all = append(all, privacy.Facts{
			Self: bit(bits, 0), Friends: bit(bits, 1), AuthorHides: bit(bits, 2),
			ViewerHides: bit(bits, 3), Off: bit(bits, 4), Open: bit(bits, 5),
		})
	}
	for _, f := range all {
		for _, to := range all {
			if privacy.SeesReply(f, to) && !privacy.SeesComment(to) {
				t.Errorf("sees the reply of %+v but not the comment of %+v", f, to)
			}
		}
		for bits := range 1 << 5 {
			p := privacy.Post{Time: now, Granted: bit(bits, 0), Public: bit(bits, 1), Newest: bit(bits, 2)}
			if bit(bits, 3) {
				p.Time = now.Add(-100 * time.Hour)
			}
			f := f
			if bit(bits, 4) {
				f.Window = privacy.ThreeDays
			}
			page := privacy.SeesPost(f, p, now)
			if page && !privacy.SeesSome(f) {
				t.Errorf("%+v, %+v: to be seen, though nothing of the author's is", f, p)
			}
			wider := []string{}
			for name, open := range map[string]bool{
				"timeline": privacy.SeesInTimeline(f, p, now), "album": privacy.SeesInAlbum(f, p, now),
			} {
				if open && !page {
					wider = append(wider, name)
				}
			}
			if len(wider) > 0 {
				t.Errorf("%+v, %+v: not to be seen, but by %s", f, p, strings.Join(wider, ", "))
			}
			if f.Self && (!page || !privacy.SeesInTimeline(f, p, now)) {
				t.Errorf("%+v, %+v: hidden from its author", f, p)
			}
		}
	}
}
