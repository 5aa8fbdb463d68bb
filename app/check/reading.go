// SPDX-License-Identifier: Apache-2.0

package check

import "slices"

// reading is one read under check.
type reading struct {
	c      *checker
	i      int
	o      *Op
	p      *post
	list   []int
	before *know
	know   know // what the session knows by all that it is shown
	shown  set
}

// everything adds what a last read has to show: all that was acknowledged.
func (r *reading) everything() {
	for _, w := range r.p.writes {
		if w.ok && !w.excused {
			r.know.known = r.know.known.add(w.index)
			if w.first.Kind == Delete && w.parent >= 0 {
				r.know.dead = r.know.dead.add(w.parent)
			}
		}
	}
}

// look takes in what is shown, and what follows from it.
func (r *reading) look() {
	for _, at := range r.list {
		if at < 0 {
			continue
		}
		r.shown = r.shown.add(at)
		if r.know.known.has(at) && !r.o.Final {
			continue // and so is all that follows
		}
		w := r.p.writes[at]
		r.know.known = r.know.known.join(w.known).add(at)
		r.know.dead = r.know.dead.join(w.dead)
	}
}

// causes checks that all that is known of is shown unless it is deleted, and that what
// is known to be deleted is not.
func (r *reading) causes() {
	for at := range r.know.known.meet(r.p.adds).without(r.shown).all {
		w := r.p.writes[at]
		switch {
		case w.excused || !r.c.sees(r.o.User, w):
		case r.c.mayBeDeleted(w, r.o.End):
			r.know.dead = r.know.dead.add(at)
		default:
			r.missing(w)
		}
	}
	for k, at := range r.list {
		if at < 0 {
			continue
		}
		s := &r.o.Comments[k]
		w := r.p.writes[at]
		if s.Deleted {
			r.know.dead = r.know.dead.add(at)
		} else if d := r.deletion(w); d != nil && r.know.dead.has(at) {
			r.c.proof(DeletedStays, d, r.i, nil, "%s was deleted and is shown again", s.ID)
		}
		if w.first.Parent == "" {
			continue
		}
		r.parent(s, w)
	}
}

// deletion gives the delete by which the reader knows that a comment is gone; none if
// that may be one that was lost.
func (r *reading) deletion(w *write) *write {
	excused := false
	var best *write
	for _, d := range w.dels {
		del := r.p.writes[d]
		if !del.excused && r.know.known.has(d) {
			return del
		}
		excused = excused || del.excused
		best = del
	}
	if excused {
		return nil
	}
	return best
}

// parent checks that what a reply answers is there, or is said to be gone.
func (r *reading) parent(s *Comment, w *write) {
	switch {
	case w.parent < 0:
		r.c.broken(ThinAir, append(slices.Clone(w.ops), r.i), "%s answers %s, which nobody wrote", s.ID, w.first.Parent)
		return
	case r.shown.has(w.parent):
		return
	}
	cause := r.p.writes[w.parent]
	if !r.c.sees(r.o.User, cause) || s.ParentLost && cause.excused {
		return
	}
	r.c.proof(CausesShown, cause, r.i, w.ops, "%s is shown, and what it answers, %s, neither that nor as deleted", s.ID, cause.id)
}

// missing tells of a comment that has to be shown.
func (r *reading) missing(w *write) {
	for _, at := range r.list {
		if at >= 0 && r.p.writes[at].known.has(w.index) {
			effect := r.p.writes[at]
			r.c.proof(CausesShown, w, r.i, effect.ops, "%s is shown without %s, which its writer had seen", effect.id, w.id)
			return
		}
	}
	switch {
	case !r.before.known.has(w.index) && r.o.Final:
		r.c.broken(Complete, append(slices.Clone(w.ops), r.i), "%s was acknowledged and is not there at last", w.id)
	case w.first.Session == r.o.Session:
		r.c.proof(OwnWrites, w, r.i, nil, "a session is not shown its own %s", w.id)
	default:
		r.c.proof(MonotonicReads, w, r.i, nil, "a session is not shown %s, which it has seen, or seen something that follows from it", w.id)
	}
}

// order notes the order of what is shown, and checks that causes are first.
func (r *reading) order() {
	var prefix set
	last := -1
	for _, at := range r.list {
		if at < 0 {
			continue
		}
		w := r.p.writes[at]
		if !w.pending.empty() {
			here := w.pending.meet(r.shown)
			for cause := range here.without(prefix).all {
				r.c.proof(CausesFirst, r.p.writes[cause], r.i, w.ops, "%s stands before %s, which its writer had seen", w.id, r.p.writes[cause].id)
				break
			}
			w.pending = w.pending.without(here)
		}
		prefix = prefix.add(at)
		if last >= 0 {
			if r.p.next[last] == nil {
				r.p.next[last] = make(map[int]int)
			}
			if _, ok := r.p.next[last][at]; !ok {
				r.p.next[last][at] = r.i
			}
		}
		last = at
	}
}

// likes checks each like that is shown, or not shown.
func (r *reading) likes() {
	liked := make(map[string]bool, len(r.o.Likes))
	for _, u := range r.o.Likes {
		if liked[u] {
			r.c.broken(Duplicate, []int{r.i}, "the like of %s is shown twice", u)
		}
		liked[u] = true
		if len(r.p.acts[u]) == 0 {
			r.c.broken(ThinAir, []int{r.i}, "a like of %s is shown, who never liked", u)
		}
	}
	for _, u := range r.p.actors {
		acts := r.p.acts[u]
		if !r.c.sees(r.o.User, r.p.writes[acts[0]]) {
			continue
		}
		var explains []int
		known := -1 // an act that the reader knows of
		for _, a := range acts {
			w := r.p.writes[a]
			if r.know.known.has(a) && !w.excused {
				known = a
			}
			if (w.first.Kind == Like) == liked[u] && !w.failed && w.start <= r.o.End && !r.replaced(a, acts) {
				explains = append(explains, a)
			}
		}
		switch {
		case len(explains) == 1 && liked[u]: // it can have been no other
			w := r.p.writes[explains[0]]
			r.know.known, r.know.dead = r.know.known.join(w.known).add(w.index), r.know.dead.join(w.dead)
		case len(explains) == 0 && (liked[u] || known >= 0):
			ops := []int{}
			for _, a := range acts {
				ops = append(ops, r.p.writes[a].ops...)
			}
			r.c.broken(LikesRight, append(ops, r.i), "the like of %s is shown as %v, which no act left it as that the reader does not know to be replaced", u, liked[u])
		}
	}
}

// replaced reports whether the reader knows of an act that came after this one. One that
// was lost, and is found again, may count as if it came last.
func (r *reading) replaced(act int, acts []int) bool {
	if r.p.writes[act].excused {
		return false
	}
	for _, b := range acts {
		w := r.p.writes[b]
		if b != act && r.know.known.has(b) && !w.excused && w.known.has(act) {
			return true
		}
	}
	return false
}

func (r *reading) counts() {
	live := 0
	for i := range r.o.Comments {
		if !r.o.Comments[i].Deleted {
			live++
		}
	}
	if n := r.o.CommentCount; n != nil && *n != live {
		r.c.broken(Counts, []int{r.i}, "%d comments are shown and counted as %d", live, *n)
	}
	if n := r.o.LikeCount; n != nil && *n != len(r.o.Likes) {
		r.c.broken(Counts, []int{r.i}, "%d likes are shown and counted as %d", len(r.o.Likes), *n)
	}
}
