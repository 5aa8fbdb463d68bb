// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/app/check"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// maxPosts bounds the posts of a plan.
const maxPosts = 8

func userName(u int) string { return "u" + strconv.Itoa(u+1) }
func postName(p int) string { return "p" + strconv.Itoa(p+1) }

func userID(u int) id.User { return id.User{15: byte(u + 1)} }
func postID(p int) id.Post { return id.Post{15: byte(p + 1)} }

// userOf gives the number of a user.
func userOf(u id.User) int { return int(u[15]) - 1 }

// session is one client. It does one thing after the other.
type session struct {
	w      *world
	number int
	user   int
	region *region
	steps  []*Step // waiting
	busy   bool
	calls  int

	token [maxPosts]causal.Vector // by post
	seen  [maxPosts][]id.Comment  // what it may answer or delete
	try   int                     // counts attempts, so that a late answer is known
}

// call is one thing that a session does, over all attempts.
type call struct {
	s        *session
	step     *Step
	rec      causal.Record
	op       check.Op
	region   *region // of the first attempt
	attempts int
	began    int64
}

const (
	answerIn  = 3 * time.Second // then a client tries again
	tryAtMost = 4
	giveUp    = 12 * time.Second
	lookAgain = 400 * time.Millisecond
)

// do lets a session do a step when it is done with those before.
func (s *session) do(step *Step) {
	s.steps = append(s.steps, step)
	s.next()
}

func (s *session) next() {
	for !s.busy && len(s.steps) > 0 {
		step := s.steps[0]
		s.steps = s.steps[1:]
		if step.Action == Move {
			if to := s.w.regions[step.Region%len(s.w.regions)]; !to.gone && !to.leaving {
				s.region = to
			}
			continue
		}
		s.begin(step)
	}
}

// begin makes a call of a step, if there is what it is about.
func (s *session) begin(step *Step) {
	p := step.Post
	c := &call{s: s, step: step, began: s.w.now}
	c.op = check.Op{Session: "s" + strconv.Itoa(s.number+1), User: userName(s.user), Post: postName(p)}
	c.rec = causal.Record{Post: postID(p), Writer: userID(s.user)}
	s.calls++
	name := fmt.Sprintf("%d.%d", s.number+1, s.calls)
	switch step.Action {
	case Comment:
		c.op.Kind, c.op.Text, c.rec.Kind = check.Add, "text "+name, causal.Add
		c.rec.Body = c.op.Text
		if n := len(s.seen[p]); step.Target%2 == 1 && n > 0 {
			// Mostly one of the last, as people do.
			back := int(step.Target>>1) % min(n, 4)
			c.rec.Parent = s.seen[p][n-1-back]
			c.op.Parent = s.w.name(c.rec.Parent)
		}
	case Delete:
		n := len(s.seen[p])
		if n == 0 {
			return
		}
		c.rec.Kind, c.rec.Parent = causal.Delete, s.seen[p][int(step.Target>>1)%n]
		c.op.Kind, c.op.ID = check.Delete, s.w.name(c.rec.Parent)
	case Like:
		c.op.Kind, c.rec.Kind = check.Like, causal.Like
	case Unlike:
		c.op.Kind, c.rec.Kind = check.Unlike, causal.Unlike
	default:
		c.op.Kind = check.Read
	}
	if c.op.Kind != check.Read {
		c.rec.Key = userName(s.user) + " " + name
		c.op.Key = c.rec.Key
	}
	s.busy = true
	c.attempt()
}

// attempt calls some server of the session's region.
func (c *call) attempt() {
	s, w := c.s, c.s.w
	if c.region == nil {
		c.region = s.region
	}
	if c.attempts > 0 && c.region != s.region && c.op.Kind != check.Read {
		s.finish() // what a key has done is known in the region that did it
		return
	}
	var up []*server
	for _, x := range s.region.servers {
		if x.up && !s.region.gone && !s.region.leaving {
			up = append(up, x)
		}
	}
	if len(up) == 0 {
		if w.now-c.began > int64(giveUp) || c.attempts > 0 && s.region.gone {
			s.finish()
			return
		}
		w.at(lookAgain, 'A', c.attempt)
		return
	}
	server := up[w.chance.below(len(up))]
	c.attempts++
	s.try++
	try, life := s.try, server.life
	op := c.op
	op.Region, op.Server, op.Start = s.region.name, server.name, w.now
	// An attempt that is never answered has no end. It is in the history from the
	// beginning, as unknown, for it may have an effect from now on.
	place := len(w.history)
	if op.Kind != check.Read {
		op.Outcome = check.Unknown
		w.history = append(w.history, op)
	}
	reply := func(a answer) {
		w.at(hop(w), 'C', func() {
			if s.try == try && server.life == life {
				c.answered(op, place, a)
			}
		})
	}
	w.at(hop(w), 'Q', func() {
		if server.life != life {
			return
		}
		if op.Kind == check.Read {
			server.read(c, w.now+int64(behindFor), reply)
			return
		}
		server.enqueue(c.step.Post, &request{rec: c.rec, token: s.token[c.step.Post], deadline: w.now + int64(behindFor), reply: reply})
	})
	w.at(answerIn, 'T', func() {
		if s.try == try {
			w.stats.Unanswered++
			s.try++
			c.again()
		}
	})
}

// hop is the time from a client to a server of its region, or back.
func hop(w *world) time.Duration {
	return time.Duration(w.chance.between(int64(time.Millisecond), int64(5*time.Millisecond)))
}

// again tries a call that had no answer another time.
func (c *call) again() {
	if c.attempts >= tryAtMost || c.s.region.restored {
		c.s.finish()
		return
	}
	c.attempt()
}

// answered ends a call.
func (c *call) answered(op check.Op, place int, a answer) {
	s, w, p := c.s, c.s.w, c.step.Post
	s.try++
	op.End, op.Outcome = w.now, check.OK
	if a.problem != "" {
		op.Outcome, op.Error = check.Failed, a.problem
	} else {
		s.token[p] = s.token[p].Join(a.seen)
	}
	switch {
	case op.Kind == check.Read:
		if a.problem == "" {
			op.Comments, op.Likes, op.CommentCount = a.shown.Comments, a.shown.Likes, a.shown.CommentCount
			s.seen[p] = a.targets
			w.history = append(w.history, op)
		}
	case op.Kind == check.Add && a.problem == "":
		op.ID = w.name(a.id)
		s.seen[p] = append(slices.Clip(s.seen[p]), a.id)
		w.history[place] = op
	default:
		w.history[place] = op
	}
	s.finish()
}

func (s *session) finish() {
	s.try++
	s.busy = false
	s.next()
}

// read answers a read when the server is as far as the session.
func (s *server) read(c *call, deadline int64, reply func(answer)) {
	p := c.step.Post
	var t *thread
	if s.r.w.fault == StaleRead && s.kept[p].ver > 0 {
		t = s.kept[p]
	} else {
		t = s.catchUp(p)
	}
	if s.r.w.fault != StaleRead && !t.head.Seen.Covers(s.r.registry.Needed(c.s.token[p])) {
		if s.r.w.now >= deadline {
			s.r.w.stats.Behind++
			reply(answer{problem: "behind"})
			return
		}
		life := s.life
		s.r.w.at(200*time.Millisecond, 'W', func() {
			if s.life == life {
				s.read(c, deadline, reply)
			}
		})
		return
	}
	a := answer{seen: t.head.Seen.Join(t.fold.Ahead()), shown: new(check.Op)}
	a.targets = s.list(t, p, c.s.user, a.shown)
	reply(a)
}

// show fills in what a user sees of a post now.
func (s *server) show(p, user int, o *check.Op) { s.list(s.catchUp(p), p, user, o) }

// list fills in what a user sees, and gives what he may answer.
func (s *server) list(t *thread, p, user int, o *check.Op) []id.Comment {
	w, row := s.r.w, s.r.disk.posts[p]
	sees := func(u id.User) bool { return u.IsZero() || !w.plan.Filter || friends(user, userOf(u)) }
	shown, live := causal.View(t.fold.Comments(), func(c *causal.Comment) bool { return sees(c.Writer) && sees(c.ReplyTo) })
	s.disorder(shown, row)
	var targets []id.Comment
	o.Comments = make([]check.Comment, 0, len(shown))
	for i := range shown {
		c := &shown[i]
		if w.fault == DeleteRemovesRow && row.removed[c.ID] {
			live--
			continue
		}
		seen := check.Comment{
			ID: w.name(c.ID), Writer: userName(userOf(c.Writer)), Text: c.Body, Deleted: c.Mark,
			ParentLost: c.ParentLost && (w.fault == None || s.lost(c.Parent)),
		}
		if !c.Parent.IsZero() {
			seen.Parent = w.name(c.Parent)
		}
		o.Comments = append(o.Comments, seen)
		if !c.Mark {
			targets = append(targets, c.ID)
		}
	}
	for _, l := range t.fold.Likes() {
		if sees(l.User) && (w.fault != UnlikeWins || !t.unliked[l.User]) {
			o.Likes = append(o.Likes, userName(userOf(l.User)))
		}
	}
	o.CommentCount = &live
	return targets
}

// lost reports whether a comment is of a region that was given up.
func (s *server) lost(c id.Comment) bool {
	m, ok := s.r.registry.Get(c.Region())
	return ok && m.State == causal.Lost
}

// disorder is for faults: it shows comments in another order.
func (s *server) disorder(shown []causal.Shown, row *row) {
	switch s.r.w.fault {
	case OrderByClock:
		slices.SortStableFunc(shown, func(a, b causal.Shown) int {
			return cmp.Or(cmp.Compare(s.r.w.written[a.ID], s.r.w.written[b.ID]), a.ID.Compare(b.ID))
		})
	case OrderByArrival:
		place := make(map[id.Comment]int, len(row.arrival))
		for i, c := range row.arrival {
			place[c] = i
		}
		slices.SortStableFunc(shown, func(a, b causal.Shown) int { return place[a.ID] - place[b.ID] })
	default:
	}
}

// name gives the text of an id as clients have it.
func (w *world) name(c id.Comment) string {
	if c.IsZero() {
		return ""
	}
	n, ok := w.names[c]
	if !ok {
		n = c.String()
		if w.fault == ModulusChanged { // a number, as the talk has it
			n = strconv.FormatInt(c.Time().UnixMilli(), 10)
		}
		w.names[c] = n
	}
	return n
}
