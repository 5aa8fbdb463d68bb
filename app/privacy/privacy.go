// SPDX-License-Identifier: Apache-2.0

// Package privacy decides who may see what. It is pure: facts in, decision out. The
// owner of each thing asks it about every single thing it is about to show, so no
// rule lives anywhere else.
//
// Each door has its function: a post's own page, with the links to its media; the
// timeline, and the red dot with it; the album; comments and likes, and their counts;
// writing them; notices. A door that does not open answers exactly as if there were
// nothing behind it.
package privacy

import "time"

// Facts are how a viewer stands to one other person, who is the author where posts are
// looked at and the writer where comments are. The zero Facts are those of strangers.
type Facts struct {
	Self        bool   // the two are one person
	Friends     bool   // both halves of the friendship are on
	AuthorHides bool   // the author does not let the viewer see his posts
	ViewerHides bool   // the viewer does not want the author's posts in his timeline
	Off         bool   // one of the two has set chat-only, or blocks the other: neither sees the other's posts
	Window      Window // how far back the author's posts reach for others
	Open        bool   // the author shows strangers his newest public posts
}

// OpenPosts is how many of his newest public posts an author who is Open shows to
// strangers.
const OpenPosts = 10

// Post is what a post itself says of who may see it.
type Post struct {
	Time time.Time // when it was written
	// Granted: its author's choice of whom it is for leaves the viewer in.
	Granted bool
	// Public: it is for all friends.
	Public bool
	// Newest: it is among the author's newest OpenPosts public ones. It need be known of
	// strangers alone.
	Newest bool
}

// knows: the viewer is the person or a friend.
func (f Facts) knows() bool { return f.Self || f.Friends }

// SeesPost reports whether a viewer may see a post on its own page: the author, friends
// for whom it is, and strangers as far as the author is open to them. What one wrote
// oneself is never hidden, and deny beats allow.
func SeesPost(author Facts, p Post, now time.Time) bool {
	switch {
	case author.Self:
		return true
	case author.AuthorHides || author.Off || !author.Window.Reaches(p.Time, now):
		return false
	case author.Friends:
		return p.Granted
	}
	return author.Open && p.Public && p.Newest
}

// SeesSome reports whether there can be any post of the author that a viewer may see.
func SeesSome(author Facts) bool {
	return author.Self || !author.AuthorHides && !author.Off && (author.Friends || author.Open)
}

// SeesInAlbum reports whether a post is in its author's album for a viewer: if he may
// see it at all. That he does not want it in his timeline does not matter here.
func SeesInAlbum(author Facts, p Post, now time.Time) bool { return SeesPost(author, p, now) }

// SeesInTimeline reports whether a post belongs in a viewer's timeline: own ones, and
// those of friends that he may see and wants there. Strangers have albums only.
func SeesInTimeline(author Facts, p Post, now time.Time) bool {
	return author.knows() && SeesPost(author, p, now) && (author.Self || !author.ViewerHides)
}

// MayReact reports whether a viewer who may see a post may comment on it and like it:
// its author and friends. A stranger may look only.
func MayReact(author Facts) bool { return author.knows() }

// SeesComment reports whether a viewer who may see a post may see a comment or like of
// the writer on it: his own, and those of his friends. Counts count these alone.
func SeesComment(writer Facts) bool { return writer.knows() }

// SeesReply reports the same of a reply, which needs that the viewer also is, or is
// a friend of, the person replied to. So whoever may see a reply may see what it
// answers.
func SeesReply(writer, repliedTo Facts) bool {
	return SeesComment(writer) && SeesComment(repliedTo)
}

// IsTold reports whether a viewer who may see a post is told of somebody's act on it:
// of acts that he may see, but of none of his own.
func IsTold(actor Facts) bool { return !actor.Self && SeesComment(actor) }

// Window is how far back an author's posts reach for others than himself.
type Window uint8

// The windows. Months are those of the calendar, in UTC.
const (
	Always    Window = iota // all posts
	ThreeDays               // the last 72 hours
	Month                   // the last month
	HalfYear                // the last six months
)

// Reaches reports whether a post of a time is within the window. One exactly at its
// edge is. A window that is not known reaches nothing.
func (w Window) Reaches(posted, now time.Time) bool {
	if w == Always {
		return true
	}
	edge, ok := w.Edge(now)
	return ok && !posted.Before(edge)
}

// Edge gives the time of the oldest posts within the window; ok is false for a window
// that is not known. That of Always is the zero time.
func (w Window) Edge(now time.Time) (edge time.Time, ok bool) {
	switch w {
	case Always:
		return time.Time{}, true
	case ThreeDays:
		return now.Add(-72 * time.Hour), true
	case Month:
		return monthsBefore(now, 1), true
	case HalfYear:
		return monthsBefore(now, 6), true
	}
	return now, false
}

// monthsBefore gives the same day of an earlier month, or its last day if it has no
// such day: a month before the 31st of March is the end of February, not the 3rd of
// March.
func monthsBefore(now time.Time, n int) time.Time {
	now = now.UTC()
	t := now.AddDate(0, -n, 0)
	if t.Day() != now.Day() {
		t = t.AddDate(0, 0, -t.Day())
	}
	return t
}
