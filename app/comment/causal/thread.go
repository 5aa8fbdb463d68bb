// SPDX-License-Identifier: Apache-2.0

package causal

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/sluice-rpc/sluice/app/id"
)

// Comment is one comment of a Thread.
type Comment struct {
	ID      id.Comment
	Seq     uint64 // of the Add, in the region of ID
	Writer  id.User
	Parent  id.Comment // zero for none
	ReplyTo id.User    // writer of Parent; zero for none
	Body    string     // empty if Deleted
	Deleted bool
	mark    mark
	grave   Entry // of the Delete with the least place, if Deleted
	blank   bool  // grave is what the record says that came without its text; no Delete is here
}

// mark is the beginning of a record's hash: enough to tell that two records of one id
// are not the same.
type mark uint64

func (r *Record) mark() mark { return mark(binary.BigEndian.Uint64(r.Hash[:])) }

// Approval is one like that holds.
type Approval struct {
	ID   id.Comment // of the Like
	User id.User
}

// register is the state of one user's like: the act with the greatest id wins, which
// is the causally later one, and among concurrent ones the same everywhere.
type register struct {
	id   id.Comment
	mark mark
	on   bool
}

// Thread is the state that operations of one post fold to. Folding the same set of
// operations gives the same Thread in whatever order and however often they come,
// forks included: of two records with one id, that with the smaller hash counts.
// The zero Thread is empty. It is not for concurrent use, but for Comments and Likes
// that were taken from it.
type Thread struct {
	comments []Comment            // ascending by ID; elements that others may see are never changed
	graves   map[id.Comment]Entry // comments deleted before they arrived, and by what
	likes    map[id.User]register
	approved []Approval             // ascending; elements that others may see are never changed
	voices   map[id.User]id.Comment // the first live comment of each writer
	ahead    Vector                 // places of the deletions of records that came blank
	torn     bool
}

// Fold takes one operation in. It reports a fork: another operation had its id.
func (t *Thread) Fold(r *Record) (fork bool) {
	switch r.Kind {
	case Add:
		return t.add(r)
	case Delete:
		t.remove(r.Parent, Entry{r.ID.Region(), r.Seq})
	case Like, Unlike:
		return t.set(r.Writer, register{id: r.ID, mark: r.mark(), on: r.Kind == Like})
	}
	return false
}

func (t *Thread) add(r *Record) (fork bool) {
	i, known := t.find(r.ID)
	c := Comment{ID: r.ID, Seq: r.Seq, Writer: r.Writer, Parent: r.Parent, ReplyTo: r.ReplyTo, Body: r.Body, mark: r.mark()}
	if known {
		have := &t.comments[i]
		if have.mark <= c.mark {
			return have.mark != c.mark
		}
		if have.Deleted {
			c.bury(have.grave)
			c.blank = have.blank
		}
		before := have.Writer
		t.comments = slices.Clone(t.comments)
		t.comments[i] = c
		if !c.Deleted {
			t.silenced(before, c.ID)
			t.heard(&c)
		}
		return true
	}
	if !c.Parent.IsZero() {
		_, ok := t.find(c.Parent)
		t.torn = t.torn || !ok
	}
	grave, dead := t.graves[r.ID]
	switch {
	case dead:
		delete(t.graves, r.ID)
		c.bury(grave)
	case r.Body == "": // it was deleted where it comes from, and its Delete is on the way
		c.bury(r.Grave)
		c.blank = true
		if r.Grave.Seq > 0 {
			t.ahead = t.ahead.With(r.Grave.Region, r.Grave.Seq)
		}
	default:
		t.heard(&c)
	}
	if i == len(t.comments) { // nearly always: it does not disturb who reads the others
		t.comments = append(t.comments, c)
		return false
	}
	t.comments = slices.Insert(slices.Clone(t.comments), i, c)
	return false
}

// bury makes a comment one that was deleted.
func (c *Comment) bury(by Entry) { c.Body, c.Deleted, c.grave = "", true, by }

// Ahead gives what a session that is shown this thread has seen beyond what the replica
// has: that something is deleted shows before the Delete is there, when the record came
// without its text. Join it to what the session has seen.
func (t *Thread) Ahead() Vector { return t.ahead }

// Dangling gives the comments that came without their text, deleted in a region that was
// lost before the Delete itself was here. Others may have the text and never hear of it:
// whoever finds one deletes it again, by an operation of his own region.
func (t *Thread) Dangling(seen Vector, regions *Registry) []id.Comment {
	if seen.Covers(t.ahead) {
		return nil
	}
	var all []id.Comment
	for i := range t.comments {
		if c := &t.comments[i]; c.blank && c.grave.Seq > seen.Of(c.grave.Region) && regions.lost(c.grave.Region) {
			all = append(all, c.ID)
		}
	}
	return all
}

// heard takes note of a live comment.
func (t *Thread) heard(c *Comment) {
	if t.voices == nil {
		t.voices = make(map[id.User]id.Comment)
	}
	if first, ok := t.voices[c.Writer]; !ok || c.ID.Compare(first) < 0 {
		t.voices[c.Writer] = c.ID
	}
}

// silenced takes note that a comment is live no more; it is not among them any more.
func (t *Thread) silenced(writer id.User, c id.Comment) {
	if t.voices[writer] != c {
		return
	}
	delete(t.voices, writer)
	for i := range t.comments {
		if o := &t.comments[i]; o.Writer == writer && !o.Deleted {
			t.voices[writer] = o.ID
			return
		}
	}
}

func (t *Thread) remove(target id.Comment, by Entry) {
	i, ok := t.find(target)
	switch {
	case !ok:
		if t.graves == nil {
			t.graves = make(map[id.Comment]Entry)
		}
		if have, twice := t.graves[target]; !twice || by.compare(have) < 0 {
			t.graves[target] = by
		}
	case !t.comments[i].Deleted:
		t.comments = slices.Clone(t.comments)
		t.comments[i].bury(by)
		t.silenced(t.comments[i].Writer, target)
	case t.comments[i].blank || by.compare(t.comments[i].grave) < 0:
		t.comments = slices.Clone(t.comments)
		t.comments[i].grave, t.comments[i].blank = by, false
	}
}

// compare orders the places of operations; the order means nothing.
func (e Entry) compare(o Entry) int {
	return cmp.Or(cmp.Compare(e.Region, o.Region), cmp.Compare(e.Seq, o.Seq))
}

// Collect forgets deleted comments whose deletion is stable and to which nothing in
// the thread replies, and gives how many. Nobody is shown them any more, and nobody
// replies to them ever: all regions know of the deletion, and what they wrote before
// they did is here. Stable comes from Registry.Stable. Operations that the thread has
// folded already must not be folded again after this.
//
// A region that has joined in the meantime, unknown to who said what is stable, may
// reply in ignorance nevertheless: see Torn.
func (t *Thread) Collect(stable Vector) int {
	if len(stable) == 0 {
		return 0
	}
	replied := make(map[id.Comment]struct{})
	gone := 0
	kept := make([]Comment, len(t.comments))
	from := len(kept)
	for i := len(t.comments) - 1; i >= 0; i-- { // replies before what they reply to
		c := &t.comments[i]
		_, needed := replied[c.ID]
		if c.Deleted && !c.blank && !needed && c.grave.Seq > 0 && c.grave.Seq <= stable.Of(c.grave.Region) {
			gone++
			continue
		}
		if !c.Parent.IsZero() {
			replied[c.Parent] = struct{}{}
		}
		from--
		kept[from] = *c
	}
	if gone > 0 {
		t.comments = kept[from:]
	}
	return gone
}

func (t *Thread) set(u id.User, next register) (fork bool) {
	old, known := t.likes[u]
	if known {
		switch c := old.id.Compare(next.id); {
		case c > 0:
			return false
		case c == 0 && old.mark <= next.mark:
			return old.mark != next.mark
		case c == 0:
			fork = true
		}
	}
	if t.likes == nil {
		t.likes = make(map[id.User]register)
	}
	t.likes[u] = next
	if old.on {
		i, _ := t.place(Approval{ID: old.id, User: u})
		t.approved = slices.Delete(slices.Clone(t.approved), i, i+1)
	}
	if !next.on {
		return fork
	}
	like := Approval{ID: next.id, User: u}
	i, _ := t.place(like)
	if i == len(t.approved) { // nearly always
		t.approved = append(t.approved, like)
	} else {
		t.approved = slices.Insert(slices.Clone(t.approved), i, like)
	}
	return fork
}

func (t *Thread) place(like Approval) (int, bool) {
	return slices.BinarySearchFunc(t.approved, like, Approval.compare)
}

// compare orders likes by id. Two users have one only in a fork.
func (a Approval) compare(b Approval) int {
	return cmp.Or(a.ID.Compare(b.ID), a.User.Compare(b.User))
}

func (t *Thread) find(c id.Comment) (int, bool) { return search(t.comments, c) }

func search(comments []Comment, c id.Comment) (int, bool) {
	return slices.BinarySearchFunc(comments, c, func(have Comment, want id.Comment) int { return have.ID.Compare(want) })
}

// Get gives a comment, deleted ones included.
func (t *Thread) Get(c id.Comment) (Comment, bool) { return Find(t.comments, c) }

// Find gives one of the comments of a thread, deleted ones included.
func Find(comments []Comment, c id.Comment) (Comment, bool) {
	i, ok := search(comments, c)
	if !ok {
		return Comment{}, false
	}
	return comments[i], true
}

// Liked reports whether a user's like holds.
func (t *Thread) Liked(u id.User) bool { return t.likes[u].on }

// EverLiked reports whether a user has liked the post before, be it taken back since.
func (t *Thread) EverLiked(u id.User) bool {
	_, ok := t.likes[u]
	return ok
}

// Since gives the operation by which a user takes part: his like that holds, or the
// first of his comments that are there, whichever is earlier. Ok is false if there is
// neither.
func (t *Thread) Since(u id.User) (since id.Comment, ok bool) {
	since, ok = t.voices[u]
	if r := t.likes[u]; r.on && (!ok || r.id.Compare(since) < 0) {
		return r.id, true
	}
	return since, ok
}

// Torn reports whether a reply was folded before what it answers. Where causes come
// first, and comments are collected, it means that one too many was: fold the log anew.
func (t *Thread) Torn() bool { return t.torn }

// Size is about how many items the thread keeps in memory.
func (t *Thread) Size() int { return len(t.comments) + len(t.likes) + len(t.graves) }

// Comments gives the comments, causes first. The slice must not be changed; it stays
// as it is when the thread goes on.
func (t *Thread) Comments() []Comment { return t.comments[:len(t.comments):len(t.comments)] }

// Likes gives the likes that hold, in order of liking. The slice must not be changed;
// it stays as it is when the thread goes on.
func (t *Thread) Likes() []Approval { return t.approved[:len(t.approved):len(t.approved)] }

// Shown is a comment as a viewer sees it.
type Shown struct {
	*Comment         // not to be changed
	Mark        bool // only a mark that something was deleted, because a reply to it is shown
	ParentShown bool // Parent is shown too, as a comment or a mark
	ParentLost  bool // Parent was lost with its region before it reached this one
}

// View gives the comments that a viewer sees. Sees says whether he may see one, going
// by its writer and the person it replies to. A deleted comment stays as a mark if a
// reply to it is shown, and is gone otherwise. Live counts what is no mark.
func View(comments []Comment, sees func(*Comment) bool) (shown []Shown, live int) {
	var wanted map[id.Comment]struct{}        // deleted comments that a shown reply needs
	for i := len(comments) - 1; i >= 0; i-- { // replies before what they reply to
		c := &comments[i]
		if !sees(c) {
			continue
		}
		if c.Deleted {
			if _, ok := wanted[c.ID]; !ok {
				continue
			}
		} else {
			live++
		}
		if shown == nil {
			shown = make([]Shown, 0, min(i+1, 16))
		}
		shown = append(shown, Shown{Comment: c, Mark: c.Deleted})
		if !c.Parent.IsZero() {
			if wanted == nil {
				wanted = make(map[id.Comment]struct{})
			}
			wanted[c.Parent] = struct{}{}
		}
	}
	slices.Reverse(shown)
	if wanted == nil {
		return shown, live
	}
	for i := range shown {
		if s := &shown[i]; !s.Parent.IsZero() {
			_, s.ParentShown = slices.BinarySearchFunc(shown, s.Parent, func(s Shown, p id.Comment) int { return s.ID.Compare(p) })
			if !s.ParentShown {
				_, known := search(comments, s.Parent)
				s.ParentLost = !known
			}
		}
	}
	return shown, live
}
