// SPDX-License-Identifier: Apache-2.0

package causal

import (
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
}

// Approval is one like that holds.
type Approval struct {
	ID   id.Comment // of the Like
	User id.User
}

// register is the state of one user's like: the act with the greatest id wins, which
// is the causally later one, and among concurrent ones the same everywhere.
type register struct {
	id id.Comment
	on bool
}

// Thread is the state that operations of one post fold to. Folding the same set of
// operations gives the same Thread in whatever order and however often they come.
// The zero Thread is empty. It is not for concurrent use, but for Comments and Likes
// that were taken from it.
type Thread struct {
	comments []Comment               // ascending by ID; elements that others may see are never changed
	graves   map[id.Comment]struct{} // comments deleted before they arrived
	likes    map[id.User]register
	approved []Approval // ascending by ID; nil after a change of likes
}

// Fold takes one operation in.
func (t *Thread) Fold(r *Record) {
	switch r.Kind {
	case Add:
		t.add(r)
	case Delete:
		t.remove(r.Parent)
	case Like, Unlike:
		if old, ok := t.likes[r.Writer]; ok && old.id.Compare(r.ID) >= 0 {
			return
		}
		if t.likes == nil {
			t.likes = make(map[id.User]register)
		}
		t.likes[r.Writer] = register{id: r.ID, on: r.Kind == Like}
		t.approved = nil
	}
}

func (t *Thread) add(r *Record) {
	i, ok := t.find(r.ID)
	if ok {
		return
	}
	c := Comment{ID: r.ID, Seq: r.Seq, Writer: r.Writer, Parent: r.Parent, ReplyTo: r.ReplyTo, Body: r.Body}
	if _, dead := t.graves[r.ID]; dead {
		delete(t.graves, r.ID)
		c.Body, c.Deleted = "", true
	}
	if i == len(t.comments) { // nearly always: it does not disturb who reads the others
		t.comments = append(t.comments, c)
		return
	}
	t.comments = slices.Insert(slices.Clone(t.comments), i, c)
}

func (t *Thread) remove(target id.Comment) {
	i, ok := t.find(target)
	switch {
	case !ok:
		if t.graves == nil {
			t.graves = make(map[id.Comment]struct{})
		}
		t.graves[target] = struct{}{}
	case !t.comments[i].Deleted:
		t.comments = slices.Clone(t.comments)
		t.comments[i].Body, t.comments[i].Deleted = "", true
	}
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

// Size is about how many items the thread keeps in memory.
func (t *Thread) Size() int { return len(t.comments) + len(t.likes) + len(t.graves) }

// Comments gives the comments, causes first. The slice must not be changed; it stays
// as it is when the thread goes on.
func (t *Thread) Comments() []Comment { return t.comments[:len(t.comments):len(t.comments)] }

// Likes gives the likes that hold, in order of liking. The slice must not be changed;
// it stays as it is when the thread goes on.
func (t *Thread) Likes() []Approval {
	if t.approved == nil && len(t.likes) > 0 {
		t.approved = make([]Approval, 0, len(t.likes))
		for u, r := range t.likes {
			if r.on {
				t.approved = append(t.approved, Approval{ID: r.id, User: u})
			}
		}
		slices.SortFunc(t.approved, func(a, b Approval) int { return a.ID.Compare(b.ID) })
	}
	return t.approved
}

// Shown is a comment as a viewer sees it.
type Shown struct {
	Comment
	Mark        bool // only a mark that something was deleted, because a reply to it is shown
	ParentShown bool // Parent is shown too, as a comment or a mark
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
		shown = append(shown, Shown{Comment: *c, Mark: c.Deleted})
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
		if p := shown[i].Parent; !p.IsZero() {
			_, shown[i].ParentShown = slices.BinarySearchFunc(shown, p, func(s Shown, p id.Comment) int { return s.ID.Compare(p) })
		}
	}
	return shown, live
}
