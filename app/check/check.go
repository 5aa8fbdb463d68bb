// SPDX-License-Identifier: Apache-2.0

// Package check tells from nothing but what clients have seen whether the comments and
// likes of posts kept their promises: causes before effects, one order for all, and
// the others of a Rule.
//
// Every write of a history has a value of its own, so one pass decides: what a session
// has seen is a set that only grows, a write carries the set of its session, and a read
// has to show what its session, and all that it shows, has seen. (In general the
// question is NP-complete; with distinct values it is not: Bouajjani et al., "On
// Verifying Causal Consistency", POPL 2017.) The sets are bitsets over the writes of
// one post, since causality reaches no further than that.
//
// A violation is told as the few operations that prove it, with what leads from each to
// the next.
package check

import (
	"cmp"
	"fmt"
	"slices"
)

// Rule names a promise.
type Rule string

// The promises.
const (
	ThinAir        Rule = "thin-air"        // nothing is shown that nobody wrote
	Duplicate      Rule = "duplicate"       // nothing is shown twice
	OneEffect      Rule = "one-effect"      // one idempotency key, one effect
	OneID          Rule = "one-id"          // an id is given once
	CausesShown    Rule = "causes-shown"    // with what is shown all that its writer had seen is shown, or a mark that it was deleted
	CausesFirst    Rule = "causes-first"    // and stands before it
	OneOrder       Rule = "one-order"       // all reads show any two alike
	OwnWrites      Rule = "own-writes"      // a session sees what it has written
	MonotonicReads Rule = "monotonic-reads" // and what it has seen
	DeletedStays   Rule = "deleted-stays"   // who knows of a delete is not shown the comment again
	LikesRight     Rule = "likes-right"     // a like is as one of its user's acts left it that no known later act has replaced
	Counts         Rule = "counts"          // the numbers are those of what is shown
	Converged      Rule = "converged"       // at last all regions show the same
	Complete       Rule = "complete"        // and all that was acknowledged
	Available      Rule = "available"       // no write fails because of another region
)

// maxPerRule bounds the violations of one rule that are told in full.
const maxPerRule = 5

// Violation is a broken promise, with the operations that prove it.
type Violation struct {
	Rule Rule
	What string
	// Ops are the operations of the proof, by time as far as possible; Edges say what leads
	// from one to another.
	Ops   []Op
	Edges []Edge
}

// Edge says why one operation comes before another. From and To count Violation.Ops.
type Edge struct {
	From, To int
	Why      string
}

// Verdict is what a history comes to.
type Verdict struct {
	Writes, Reads, Posts, Sessions int
	// Violations are the first of each rule; Broken counts all.
	Violations []Violation
	Broken     map[Rule]int
	// Excused counts writes that were lost with a region, or may have been.
	Excused int
}

// Err is nil for a history without a violation.
func (v *Verdict) Err() error {
	if len(v.Violations) == 0 {
		return nil
	}
	n := 0
	for _, k := range v.Broken {
		n += k
	}
	return fmt.Errorf("check: %d violations, the first: %s: %s", n, v.Violations[0].Rule, v.Violations[0].What)
}

// History checks a history. Its operations may be in any order. The verdict is the same
// for the same history.
func History(history []Op) *Verdict {
	c := &checker{ops: history, posts: make(map[string]*post), sessions: make(map[string]*session), verdict: &Verdict{Broken: make(map[Rule]int)}}
	c.collect()
	c.resolve()
	for _, e := range c.boundaries() {
		o := &c.ops[e.op]
		switch {
		case o.Kind == Read && e.end:
			c.read(e.op)
		case o.Kind == Read:
			c.begin(e.op)
		case e.end:
			c.wrote(e.op)
		default:
			c.write(e.op)
		}
	}
	for _, p := range c.inOrder {
		c.oneOrder(p)
		c.converged(p)
		for _, w := range p.writes {
			if w.excused {
				c.verdict.Excused++
			}
		}
	}
	c.verdict.Posts, c.verdict.Sessions = len(c.posts), len(c.sessions)
	slices.SortStableFunc(c.verdict.Violations, func(a, b Violation) int { return len(a.Ops) - len(b.Ops) })
	return c.verdict
}

type checker struct {
	ops      []Op
	posts    map[string]*post
	inOrder  []*post
	sessions map[string]*session
	friends  map[string]map[string]bool // whom a user sees; nobody named: everybody
	lost     map[string][]int64
	byOp     map[int]*write // of writing ops
	shown    map[int][]int  // of reads: the writes that they show, -1 for what nobody wrote
	verdict  *Verdict
}

// post is what is known of one post.
type post struct {
	name   string
	writes []*write
	adds   set
	byID   map[string]int
	byText map[string]int
	acts   map[string][]int // likes and unlikes by user
	actors []string         // users with acts, in order of appearance
	finals []int            // reads

	next map[int]map[int]int // order: what stood right after what, and the read that shows it
}

// write is all calls of one idempotency key.
type write struct {
	index   int // in its post
	post    *post
	ops     []int // calls
	first   *Op   // of them
	start   int64
	id      string
	parent  int // replied to or deleted, -1 for none
	dels    []int
	ok      bool // acknowledged
	failed  bool // surely not done
	excused bool // may be lost

	begun   bool
	known   set // what its session had seen before; closed
	dead    set // of that, what it knew to be deleted
	pending set // of known, the comments that have not been seen to stand before it yet
}

type session struct {
	ops        []int // by start
	overlaps   bool
	know       map[*post]*know
	beginnings map[int]*know // of reads under way, if the session overlaps
}

// know is what a session has seen of a post.
type know struct{ known, dead set }

// collect sorts out the operations.
func (c *checker) collect() {
	c.friends, c.lost = make(map[string]map[string]bool), make(map[string][]int64)
	c.byOp, c.shown = make(map[int]*write), make(map[int][]int)
	keys := make(map[[4]string]*write)
	for i := range c.ops {
		o := &c.ops[i]
		switch o.Kind {
		case Lost:
			c.lost[o.Region] = append(c.lost[o.Region], o.Start)
			continue
		case Friends:
			f := make(map[string]bool, len(o.Who)+1)
			f[o.User] = true
			for _, u := range o.Who {
				f[u] = true
			}
			c.friends[o.User] = f
			continue
		default:
		}
		p := c.posts[o.Post]
		if p == nil {
			p = &post{name: o.Post, byID: make(map[string]int), byText: make(map[string]int), acts: make(map[string][]int), next: make(map[int]map[int]int)}
			c.posts[o.Post], c.inOrder = p, append(c.inOrder, p)
		}
		s := c.sessions[o.Session]
		if s == nil {
			s = &session{know: make(map[*post]*know)}
			c.sessions[o.Session] = s
		}
		s.ops = append(s.ops, i)
		if o.Kind == Read {
			if o.ok() {
				c.verdict.Reads++
			}
			if o.ok() && o.Final {
				p.finals = append(p.finals, i)
			}
			continue
		}
		key := [4]string{o.User, o.Key, o.Post, string(o.Kind) + o.Text + o.Parent}
		w := keys[key]
		if w == nil || o.Key == "" {
			w = &write{index: len(p.writes), post: p, parent: -1, failed: true, first: o, start: o.Start}
			p.writes, keys[key] = append(p.writes, w), w
			c.verdict.Writes++
		}
		c.call(w, i)
	}
	for _, s := range c.sessions {
		slices.SortStableFunc(s.ops, func(a, b int) int { return cmp.Compare(c.ops[a].Start, c.ops[b].Start) })
		for i := 1; i < len(s.ops); i++ {
			before := &c.ops[s.ops[i-1]]
			s.overlaps = s.overlaps || before.Outcome != Unknown && before.End > c.ops[s.ops[i]].Start
		}
		if s.overlaps {
			s.beginnings = make(map[int]*know)
		}
	}
}

// call adds a call to its write.
func (c *checker) call(w *write, i int) {
	o := &c.ops[i]
	c.byOp[i] = w
	w.ops = append(w.ops, i)
	if o.Start < w.start {
		w.start, w.first = o.Start, o
	}
	w.failed = w.failed && o.Outcome == Failed
	w.ok = w.ok || o.ok()
	for _, at := range c.lost[o.Region] {
		w.excused = w.excused || o.Start <= at
	}
	if o.Error == Foreign {
		c.broken(Available, []int{i}, "a write in %s fails because of another region", o.Region)
	}
	if o.Kind == Add && o.ok() {
		c.name(w, o.ID, i)
	}
}

// name says that a comment has an id, as call or read i has it.
func (c *checker) name(w *write, id string, i int) {
	switch {
	case w.id == "":
		w.id = id
	case w.id != id:
		c.broken(OneEffect, append(slices.Clone(w.ops), i), "one key, one text, two comments: %s and %s", w.id, id)
		w.post.byID[id] = w.index // what follows from that is not told as well
		return
	}
	if other, ok := w.post.byID[id]; ok && other != w.index {
		c.broken(OneID, append(slices.Clone(w.post.writes[other].ops), i), "%s is two comments", id)
		return
	}
	w.post.byID[id] = w.index
}

// resolve finds out which write each comment shown is.
func (c *checker) resolve() {
	// A history may name a loss after the calls that it excuses.
	for _, p := range c.inOrder {
		for _, w := range p.writes {
			for _, i := range w.ops {
				for _, at := range c.lost[c.ops[i].Region] {
					w.excused = w.excused || c.ops[i].Start <= at
				}
			}
			switch w.first.Kind {
			case Add:
				p.adds = p.adds.add(w.index)
				p.byText[w.first.Text] = w.index
			case Like, Unlike:
				if p.acts[w.first.User] == nil {
					p.actors = append(p.actors, w.first.User)
				}
				p.acts[w.first.User] = append(p.acts[w.first.User], w.index)
			default:
			}
		}
	}
	for i := range c.ops { // comments whose call had no answer get their ids from who saw them
		o := &c.ops[i]
		if o.Kind != Read || !o.ok() {
			continue
		}
		p := c.posts[o.Post]
		for k := range o.Comments {
			if s := &o.Comments[k]; s.Text != "" {
				if at, ok := p.byID[s.ID]; ok && p.writes[at].first.Text == s.Text {
					continue
				}
				if at, ok := p.byText[s.Text]; ok {
					c.name(p.writes[at], s.ID, i)
				}
			}
		}
	}
	for _, p := range c.inOrder {
		for _, w := range p.writes {
			id := w.first.Parent
			if w.first.Kind == Delete {
				id = w.first.ID
			}
			if at, ok := p.byID[id]; ok && id != "" {
				w.parent = at
				if w.first.Kind == Delete {
					p.writes[at].dels = append(p.writes[at].dels, w.index)
				}
			}
		}
	}
	for i := range c.ops {
		if o := &c.ops[i]; o.Kind == Read && o.ok() {
			c.shown[i] = c.identify(i, o)
		}
	}
}

// identify gives the writes that a read shows.
func (c *checker) identify(i int, o *Op) []int {
	p := c.posts[o.Post]
	all := make([]int, len(o.Comments))
	var seen set
	for k := range o.Comments {
		s := &o.Comments[k]
		at, ok := p.byID[s.ID]
		all[k] = at
		if !ok {
			all[k] = -1
			if s.Deleted && slices.ContainsFunc(p.writes, func(w *write) bool { return w.first.Kind == Add && w.id == "" && !w.failed }) {
				continue // nobody has seen it alive, nor has its writer had an answer
			}
			c.broken(ThinAir, []int{i}, "nobody wrote %s %q", s.ID, s.Text)
			continue
		}
		w := p.writes[at]
		parent := w.first.Parent
		switch {
		case seen.has(at):
			c.broken(Duplicate, append(slices.Clone(w.ops), i), "%s is shown twice", s.ID)
			all[k] = -1
		case w.failed:
			c.broken(ThinAir, append(slices.Clone(w.ops), i), "%s is shown, and its call failed", s.ID)
		case w.start > o.End:
			c.broken(ThinAir, append(slices.Clone(w.ops), i), "%s is shown before it was written", s.ID)
		case !s.Deleted && s.Text != w.first.Text, s.Writer != "" && s.Writer != w.first.User, s.Parent != "" && s.Parent != parent:
			c.broken(ThinAir, append(slices.Clone(w.ops), i), "%s is shown as %q of %s under %q", s.ID, s.Text, s.Writer, s.Parent)
		case s.Deleted && s.Text != "":
			c.broken(DeletedStays, append(slices.Clone(w.ops), i), "%s is deleted, and its text is shown", s.ID)
		case s.Deleted && !c.mayBeDeleted(w, o.End):
			c.broken(ThinAir, append(slices.Clone(w.ops), i), "%s is shown as deleted, and nobody deleted it", s.ID)
		}
		seen = seen.add(at)
	}
	return all
}

// boundary is the beginning or end of a call.
type boundary struct {
	at    int64
	class int
	op    int
	end   bool
}

// boundaries gives all of them in time. What ends when another begins has ended before.
func (c *checker) boundaries() []boundary {
	all := make([]boundary, 0, 2*len(c.ops))
	for i := range c.ops {
		o := &c.ops[i]
		if o.Kind == Lost || o.Kind == Friends {
			continue
		}
		all = append(all, boundary{at: o.Start, class: 1, op: i})
		if o.ok() {
			class := 0
			if o.End == o.Start {
				class = 2
			}
			all = append(all, boundary{at: o.End, class: class, op: i, end: true})
		}
	}
	slices.SortFunc(all, func(a, b boundary) int {
		return cmp.Or(cmp.Compare(a.at, b.at), a.class-b.class, a.op-b.op)
	})
	return all
}

func (c *checker) know(o *Op) (*session, *know) {
	s, p := c.sessions[o.Session], c.posts[o.Post]
	k := s.know[p]
	if k == nil {
		k = new(know)
		s.know[p] = k
	}
	return s, k
}

// write notes what a write's session had seen when it was first called.
func (c *checker) write(i int) {
	w := c.byOp[i]
	if w.begun {
		return
	}
	w.begun = true
	_, k := c.know(&c.ops[i])
	w.known, w.dead = k.known.clone(), k.dead.clone()
	if w.parent >= 0 {
		cause := w.post.writes[w.parent]
		w.known = w.known.join(cause.known).add(w.parent)
		w.dead = w.dead.join(cause.dead)
	}
	for at := range w.known.meet(w.post.adds).all {
		if !w.post.writes[at].excused { // what was lost and is found again may stand anywhere
			w.pending = w.pending.add(at)
		}
	}
}

// wrote notes that a session knows of its write.
func (c *checker) wrote(i int) {
	w := c.byOp[i]
	_, k := c.know(&c.ops[i])
	k.known = k.known.join(w.known).add(w.index)
	k.dead = k.dead.join(w.dead)
	if w.first.Kind == Delete && w.parent >= 0 {
		k.dead = k.dead.add(w.parent)
	}
}

// begin notes what a session had seen when it began to read, where it may see more in
// the meantime.
func (c *checker) begin(i int) {
	if s, k := c.know(&c.ops[i]); s.overlaps {
		s.beginnings[i] = &know{known: k.known.clone(), dead: k.dead.clone()}
	}
}

// sees reports whether a viewer is shown what a write made.
func (c *checker) sees(viewer string, w *write) bool {
	f := c.friends[viewer]
	if f == nil {
		return true
	}
	if !f[w.first.User] {
		return false
	}
	return w.first.Kind != Add || w.first.Parent == "" || w.parent < 0 || f[w.post.writes[w.parent].first.User]
}

// mayBeDeleted reports whether somebody had tried to delete a comment by then.
func (c *checker) mayBeDeleted(w *write, by int64) bool {
	for _, d := range w.dels {
		if del := w.post.writes[d]; !del.failed && del.start <= by {
			return true
		}
	}
	return false
}

// read holds a read against what its session has seen, and takes in what it sees.
func (c *checker) read(i int) {
	o := &c.ops[i]
	s, k := c.know(o)
	before := k
	if s.overlaps {
		before = s.beginnings[i]
		delete(s.beginnings, i)
	}
	r := &reading{c: c, i: i, o: o, p: c.posts[o.Post], list: c.shown[i], before: before}
	r.know = know{known: before.known.clone(), dead: before.dead.clone()}
	if o.Final {
		r.everything()
	}
	r.look()
	r.causes()
	r.order()
	r.likes()
	r.counts()
	if !o.Final { // what it had to show, and did not, was told
		k.known, k.dead = k.known.join(r.know.known), k.dead.join(r.know.dead)
	}
}

// converged checks that the last reads of a viewer show the same everywhere.
func (c *checker) converged(p *post) {
	first := make(map[string]int)
	for _, i := range p.finals {
		o := &c.ops[i]
		j, ok := first[o.User]
		if !ok {
			first[o.User] = i
			continue
		}
		other := &c.ops[j]
		likes, otherLikes := slices.Sorted(slices.Values(o.Likes)), slices.Sorted(slices.Values(other.Likes))
		if !slices.Equal(o.Comments, other.Comments) || !slices.Equal(likes, otherLikes) {
			c.broken(Converged, []int{j, i}, "at last %s and %s show %s other things on %s", other.Region, o.Region, o.User, p.name)
		}
	}
}
