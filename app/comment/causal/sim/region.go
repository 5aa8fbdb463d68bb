// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/check"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// region is a place with a disk and servers. Its number changes when its disk is set
// back.
type region struct {
	w        *world
	place    int
	name     string
	number   id.Region
	disk     *disk
	backup   *disk
	servers  []*server
	registry *causal.Registry // as known here
	skew     time.Duration    // of the clock
	gone     bool             // for ever: left, or lost
	leaving  bool
	restored bool // it is down for being set back
	peers    []*peer
	said     []map[id.Region]causal.Vector // how far others were when last heard, by post
	pending  int                           // batches under way

	counter uint64 // for a fault
}

// epoch0 is the wall's time at the beginning of a run, in 2026.
const epoch0 = int64(1_780_000_000_000)

// join makes one more region, which the operator's registry has.
func (w *world) join(servers int) *region {
	w.numbers++
	r := &region{
		w: w, place: len(w.regions), name: fmt.Sprintf("r%d", len(w.regions)+1), number: w.numbers, disk: newDisk(w.plan.Posts),
		skew: time.Duration(w.chance.between(int64(-time.Hour), int64(time.Hour))),
	}
	if !w.chance.percent(50) { // most clocks are kept well
		r.skew /= 100_000
	}
	r.said = make([]map[id.Region]causal.Vector, w.plan.Posts)
	w.registry, _ = w.registry.Join(r.number) // the number is new
	r.registry = w.registry
	w.regions = append(w.regions, r)
	for i := range servers {
		s := &server{r: r, name: fmt.Sprintf("%s/%d", r.name, i+1)}
		r.servers = append(r.servers, s)
		s.start()
	}
	return r
}

// alive reports whether the region has a disk that anything can be sent to.
func (r *region) alive() bool { return !r.gone && !r.restored }

// busy reports whether a batch is under way.
func (r *region) busy() bool {
	if r.pending > 0 {
		return true
	}
	for _, s := range r.servers {
		for _, q := range s.queues {
			if q.busy || len(q.waiting) > 0 {
				return true
			}
		}
	}
	return false
}

func (r *region) wall() time.Time {
	return time.UnixMilli(epoch0 + r.w.now/int64(time.Millisecond) + r.skew.Milliseconds())
}

func (r *region) head(p int) causal.Head {
	h, err := causal.ParseHead(r.disk.posts[p].head)
	if err != nil {
		return causal.Head{} // a disk only holds what Encode gave
	}
	return h
}

func (r *region) rules() causal.Rules {
	return causal.Rules{Regions: r.registry, Ahead: r.w.ahead}
}

// sync gives how long the disk takes.
func (r *region) sync() time.Duration {
	return time.Duration(r.w.chance.between(int64(time.Millisecond), int64(20*time.Millisecond)))
}

// anyServer gives one that is up.
func (r *region) anyServer() *server {
	for _, s := range r.servers {
		if s.up {
			return s
		}
	}
	return nil
}

// pulse is what a region does from time to time.
func (r *region) pulse() {
	if r.gone {
		return
	}
	if r.alive() && r.anyServer() != nil {
		r.resend()
		for p := range r.disk.posts {
			r.bury(p)
		}
		if r.w.chance.percent(30) || r.w.calm {
			r.compare()
		}
	}
	r.w.at(pulse+time.Duration(r.w.chance.between(0, int64(pulse/2))), 'P', r.pulse)
}

// dangling gives the marks of a post whose deletes were lost.
func (r *region) dangling(p int) []id.Comment {
	s := r.anyServer()
	if s == nil {
		return nil
	}
	t := s.catchUp(p)
	return t.fold.Dangling(t.head.Seen, r.registry)
}

// bury deletes again what was deleted by a delete that was lost.
func (r *region) bury(p int) {
	for _, c := range r.dangling(p) {
		r.anyServer().enqueue(p, &request{
			rec: causal.Record{
				Post: postID(p), Kind: causal.Delete, Parent: c, Writer: id.User{0: 1, 15: byte(r.place)},
				Key: fmt.Sprintf("bury %v in %d", c, r.number),
			},
			again: true, reply: func(answer) {},
		})
	}
}

// merge takes in records from elsewhere: a batch that reads and writes at once.
func (r *region) merge(p int, came []causal.Record) {
	row := r.disk.posts[p]
	head := r.head(p)
	if r.w.fault == NoDependencyCheck {
		came = withoutDeps(came)
	}
	hold := causal.RestoreHold(r.w.plan.Hold, row.want, slices.Clone(row.held))
	m := hold.Merge(head, r.rules(), r.wall(), came)
	if r.w.fault == OverflowSkips && m.Dropped > 0 {
		m.Head = skip(m, came)
	}
	for i := range m.Known {
		k := &m.Known[i]
		if log := row.log[k.ID.Region()]; k.Seq <= uint64(len(log)) && log[k.Seq-1].Seq == k.Seq && k.Fork(&log[k.Seq-1]) {
			r.w.stats.Forks++
		}
	}
	row.held = slices.DeleteFunc(append(slices.Clone(row.held), m.Held...), func(h causal.Record) bool {
		return slices.ContainsFunc(m.Freed, func(f causal.Record) bool { return f.ID == h.ID })
	})
	row.want = hold.Want()
	r.w.stats.Held += len(m.Held)
	r.w.stats.Dropped += m.Dropped
	r.w.stats.Refused += len(m.Refused)
	r.w.stats.Orphans += m.Orphans
	if len(m.Due) > 0 || len(m.Head.Seen) > 0 && !slices.Equal(m.Head.Seen, head.Seen) {
		row.add(m.Head, m.Due)
	}
	for i := range m.Due {
		r.w.note('D', uint64(r.place), uint64(m.Due[i].ID.Region()), m.Due[i].Seq)
	}
}

// skip is a fault: the records that were dropped count as taken in.
func skip(m causal.Merged, came []causal.Record) causal.Head {
	h := m.Head
	for i := range came {
		h.Seen = h.Seen.With(came[i].ID.Region(), came[i].Seq)
		h.Last = max(h.Last, came[i].ID.Time().UnixMilli())
	}
	return h
}

// withoutDeps is a fault: only the order of each region's own records is kept.
func withoutDeps(came []causal.Record) []causal.Record {
	came = slices.Clone(came)
	for i := range came {
		r := &came[i]
		blank := r.Kind == causal.Add && r.Body == ""
		r.Deps = causal.Vector(nil).With(r.ID.Region(), r.Seq-1)
		if r.Seq == 1 {
			r.Deps = nil
		}
		if !blank {
			r.Hash = r.Sum()
		}
	}
	return came
}

// server answers calls.
type server struct {
	r      *region
	name   string
	up     bool
	life   int // counts starts and crashes
	ids    *id.Generator
	kept   []*thread
	queues []*queue
	keys   map[string]id.Comment // for a fault
	// aimed is how long it will be down when it crashes in the middle of its next batch.
	aimed time.Duration
}

// thread is a post's log, folded, as it was when the head had a version.
type thread struct {
	ver       uint64
	head      causal.Head
	fold      *causal.Thread
	collected bool
	unliked   map[id.User]bool // for a fault
}

// queue is the writers of one post at one server, who share batches.
type queue struct {
	waiting []*request
	busy    bool
	batch   *batch
}

// start begins a server's next life.
func (s *server) start() {
	if s.up {
		return
	}
	s.up = true
	s.life++
	if s.r.w.fault != IDAfterRestart || s.r.disk.epoch == 0 {
		s.r.disk.epoch++
	}
	s.ids, _ = id.NewGenerator(s.r.number, s.r.disk.epoch, s.r.wall) // epochs are few
	s.kept = make([]*thread, s.r.w.plan.Posts)
	s.queues = make([]*queue, s.r.w.plan.Posts)
	for p := range s.queues {
		s.kept[p] = &thread{fold: new(causal.Thread), unliked: make(map[id.User]bool)}
		s.queues[p] = new(queue)
	}
	s.keys = make(map[string]id.Comment)
	s.aimed = 0
	s.r.counter = 0
}

// crash ends a server's life. What it was writing is on the disk or it is not; nobody
// gets an answer.
func (s *server) crash() {
	if !s.up {
		return
	}
	s.up = false
	s.life++
	for _, q := range s.queues {
		if q.batch != nil && s.r.w.chance.percent(50) {
			q.batch.apply()
		}
		q.batch, q.busy, q.waiting = nil, false, nil
	}
}

// catchUp folds what a thread lacks.
func (s *server) catchUp(p int) *thread {
	t, row := s.kept[p], s.r.disk.posts[p]
	if t.ver == row.ver {
		return t
	}
	head := s.r.head(p)
	s.foldTo(t, row, head)
	if t.collected && t.fold.Torn() && s.r.w.fault != TombstoneEarly {
		*t = thread{fold: new(causal.Thread), unliked: make(map[id.User]bool)}
		s.foldTo(t, row, head)
	}
	t.head, t.ver = head, row.ver
	stable := s.r.registry.Stable(head.Seen, s.saidOf(p, head.Seen))
	if s.r.w.fault == TombstoneEarly {
		stable = head.Seen
	}
	if n := t.fold.Collect(stable); n > 0 {
		s.r.w.stats.Collected += n
		t.collected = true
	}
	return t
}

func (s *server) saidOf(p int, mine causal.Vector) map[id.Region]causal.Vector {
	said := make(map[id.Region]causal.Vector, len(s.r.said[p])+1)
	for n, v := range s.r.said[p] {
		said[n] = v
	}
	said[s.r.number] = mine
	return said
}

func (s *server) foldTo(t *thread, row *row, head causal.Head) {
	for _, e := range head.Seen {
		log := row.log[e.Region]
		for have := t.head.Seen.Of(e.Region); have < e.Seq && have < uint64(len(log)); have++ {
			rec := &log[have]
			if rec.Seq == 0 {
				continue // a fault's hole
			}
			if t.fold.Fold(rec) {
				s.r.w.stats.Forks++
			}
			if rec.Kind == causal.Unlike {
				t.unliked[rec.Writer] = true
			}
		}
	}
}

// request is a write that waits for its turn.
type request struct {
	rec      causal.Record
	token    causal.Vector
	deadline int64
	again    bool // a delete of what is deleted
	reply    func(answer)
}

// answer is what a client gets.
type answer struct {
	id      id.Comment
	seen    causal.Vector
	problem string // none for success

	shown   *check.Op // of a read
	targets []id.Comment
}

const behindFor = 2 * time.Second // how long a server waits to catch up with a session

// enqueue lets a write wait for its post's turn.
func (s *server) enqueue(p int, q *request) {
	s.queues[p].waiting = append(s.queues[p].waiting, q)
	s.turn(p)
}

// batch is one turn of a post's writers in the making.
type batch struct {
	s    *server
	p    int
	ver  uint64 // of the head it goes by
	head causal.Head
	recs []causal.Record
	ops  []*request // those that the records are of
}

// turn makes a batch of those who wait.
func (s *server) turn(p int) {
	q := s.queues[p]
	if q.busy || len(q.waiting) == 0 {
		return
	}
	t := s.catchUp(p)
	b := &batch{s: s, p: p, ver: t.ver, head: t.head}
	var later []*request
	for _, req := range q.waiting {
		if len(b.recs) == 4 || slices.ContainsFunc(b.ops, func(o *request) bool { return o.rec.Writer == req.rec.Writer || o.rec.Kind == causal.Delete }) {
			later = append(later, req)
			continue
		}
		s.prepare(b, t, req)
	}
	q.waiting = later
	if len(b.recs) == 0 {
		s.turn(p)
		return
	}
	q.busy, q.batch = true, b
	if s.r.w.fault == SequenceBeforeSync {
		recs := slices.Clone(b.recs)
		for _, to := range s.r.others() {
			s.r.w.send(s.r, to, func() { to.given(p, recs) })
		}
	}
	if s.aimed > 0 {
		s.r.w.down(s.r, s.aimed, s)
		return
	}
	life := s.life
	s.r.w.at(s.r.sync(), 'B', func() {
		if s.life == life {
			s.synced(p, b)
		}
	})
}

// prepare adds a write to a batch, or answers it if there is nothing to write.
func (s *server) prepare(b *batch, t *thread, req *request) {
	row := s.r.disk.posts[b.p]
	keys := row.keys
	if s.r.w.fault == KeysForgotten {
		keys = s.keys
	}
	if done, ok := keys[req.rec.Key]; ok {
		req.reply(answer{id: done, seen: b.head.Seen})
		return
	}
	token := s.r.registry.Needed(req.token)
	if s.r.w.fault == StaleRead {
		token = nil
	}
	if !b.head.Seen.Covers(token) {
		s.await(b.p, req)
		return
	}
	if problem := s.refuse(t, &req.rec); problem != "" {
		req.reply(answer{problem: problem})
		return
	}
	if !req.again && s.unchanged(t, b, &req.rec) {
		req.reply(answer{seen: b.head.Seen})
		return
	}
	fresh, err := id.New[id.Comment](s.ids)
	if err != nil {
		req.reply(answer{problem: "ids"})
		return
	}
	rec := req.rec
	rec.Deps = token
	rec, head, err := b.head.Next(rec, fresh, s.r.wall())
	if err != nil {
		req.reply(answer{problem: "time"})
		return
	}
	if s.fakeID(&rec, b) {
		head = b.head.After(&rec)
	}
	s.r.w.written[rec.ID] = s.r.wall().UnixMilli()
	b.head, b.recs, b.ops = head, append(b.recs, rec), append(b.ops, req)
}

// await looks again later, as long as the request may wait.
func (s *server) await(p int, req *request) {
	if s.r.w.now >= req.deadline {
		s.r.w.stats.Behind++
		req.reply(answer{problem: "behind"})
		return
	}
	life := s.life
	s.r.w.at(200*time.Millisecond, 'W', func() {
		if s.life == life {
			s.enqueue(p, req)
		}
	})
}

// refuse says why a write cannot be, if so.
func (s *server) refuse(t *thread, rec *causal.Record) string {
	if rec.Parent.IsZero() {
		return ""
	}
	c, ok := t.fold.Get(rec.Parent)
	if !ok || c.Deleted && rec.Kind == causal.Add {
		return "not-found"
	}
	return ""
}

// unchanged reports whether a write would leave things as they are.
func (s *server) unchanged(t *thread, b *batch, rec *causal.Record) bool {
	switch rec.Kind {
	case causal.Like:
		return t.fold.Liked(rec.Writer)
	case causal.Unlike:
		return !t.fold.Liked(rec.Writer)
	case causal.Delete:
		if s.r.w.fault == DeleteRemovesRow {
			s.remove(b.p, rec.Parent)
			return true
		}
		c, ok := t.fold.Get(rec.Parent)
		return ok && c.Deleted
	default:
		return false
	}
}

// remove is a fault: the row goes, and the others are told once.
func (s *server) remove(p int, c id.Comment) {
	s.r.disk.posts[p].removed[c] = true
	for _, to := range s.r.others() {
		s.r.w.send(s.r, to, func() {
			row := to.disk.posts[p]
			if slices.Contains(row.arrival, c) {
				row.removed[c] = true
			}
		})
	}
}

// fakeID is for faults: it gives a record another id.
func (s *server) fakeID(rec *causal.Record, b *batch) bool {
	switch s.r.w.fault {
	case IDAfterRestart: // a number of this life, in an hour
		s.r.counter++
		setTime(&rec.ID, epoch0+s.r.wall().Sub(time.UnixMilli(epoch0)).Milliseconds()/3_600_000*3_600_000+int64(s.r.counter))
		clear(rec.ID[8:])
	case ModulusChanged: // the next number of the region's residue
		members := s.r.registry.Members()
		n, mine := int64(0), int64(0)
		for _, m := range members {
			if m.Number == s.r.number {
				mine = n
			}
			n++
		}
		next := b.head.Last + 1
		for next%n != mine {
			next++
		}
		setTime(&rec.ID, next)
		clear(rec.ID[8:])
	default:
		return false
	}
	rec.Hash = rec.Sum()
	return true
}

func setTime(c *id.Comment, ms int64) {
	for i := range 6 {
		c[i] = byte(ms >> (40 - 8*i))
	}
}

// synced makes a batch count, unless another server was first.
func (s *server) synced(p int, b *batch) {
	q := s.queues[p]
	q.busy, q.batch = false, nil
	if !b.apply() {
		s.r.w.stats.Conflicts++
		q.waiting = append(b.ops, q.waiting...)
		s.turn(p)
		return
	}
	for i, req := range b.ops {
		req.reply(answer{id: b.recs[i].ID, seen: b.head.Seen})
	}
	s.r.push()
	s.turn(p)
}

// apply puts a batch on the disk if its condition holds.
func (b *batch) apply() bool {
	r := b.s.r
	row := r.disk.posts[b.p]
	if row.ver != b.ver {
		return false
	}
	row.add(b.head, b.recs)
	for i := range b.recs {
		rec := &b.recs[i]
		if r.w.fault == KeysForgotten {
			b.s.keys[rec.Key] = rec.ID
		} else {
			row.keys[rec.Key] = rec.ID
		}
		box := &r.disk.outbox[b.p%slots]
		box.recs = append(box.recs, outboxRecord{post: b.p, seq: rec.Seq})
		r.w.stats.Records++
		r.w.note('L', uint64(r.place), uint64(b.p), rec.Seq)
	}
	return true
}
