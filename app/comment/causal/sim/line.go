// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// line is one direction between two regions.
type line struct {
	least, most time.Duration
	loss        int   // percent
	repeat      int   // percent
	cut         int64 // until then
}

func (w *world) line(from, to *region) *line {
	key := [2]int{from.place, to.place}
	l := w.lines[key]
	if l == nil {
		l = new(line)
		w.lines[key] = l
		w.nature(l)
	}
	return l
}

// nature gives a line delay, loss and repetition.
func (w *world) nature(l *line) {
	if w.calm {
		*l = line{least: time.Millisecond, most: 20 * time.Millisecond}
		return
	}
	l.least = time.Duration(w.chance.between(int64(time.Millisecond), int64(200*time.Millisecond)))
	l.most = l.least + time.Duration(w.chance.between(0, int64(300*time.Millisecond)))
	if w.chance.percent(15) {
		l.most = time.Duration(w.chance.between(int64(time.Second), int64(60*time.Second)))
	}
	l.loss, l.repeat = 0, w.chance.below(20)
	if w.chance.percent(40) {
		l.loss = w.chance.below(41)
	}
}

// allLines gives the lines that exist, in a fixed order.
func (w *world) allLines() []*line {
	var all []*line
	for from := range w.regions {
		for to := range w.regions {
			if l := w.lines[[2]int{from, to}]; l != nil {
				all = append(all, l)
			}
		}
	}
	return all
}

// send lets something arrive at another region, or not, or twice.
func (w *world) send(from, to *region, deliver func()) {
	l := w.line(from, to)
	if w.now < l.cut || w.chance.percent(l.loss) {
		return
	}
	times := 1
	if w.chance.percent(l.repeat) {
		times = 2
	}
	for range times {
		w.at(time.Duration(w.chance.between(int64(l.least), int64(l.most))), 'N', func() {
			if to.alive() {
				deliver()
			}
		})
	}
}

// peer is how far a region is with sending to another one.
type peer struct {
	number   id.Region
	acked    [slots]uint64
	sent     [slots]uint64
	progress int64 // when something was last sent anew or acknowledged
}

const (
	frameMost = 16 // records
	rangeMost = 24 // records of an answer
)

// peer gives the state of sending to the region of a number. It is in memory: after a
// loss of power all is sent again that is still there.
func (r *region) peer(n id.Region) *peer {
	i, ok := slices.BinarySearchFunc(r.peers, n, func(p *peer, n id.Region) int { return int(p.number) - int(n) })
	if !ok {
		p := &peer{number: n}
		for s := range slots {
			p.acked[s] = r.disk.outbox[s].base
			p.sent[s] = p.acked[s]
		}
		r.peers = slices.Insert(r.peers, i, p)
	}
	return r.peers[i]
}

// others gives the regions that a region knows to be active, itself left out.
func (r *region) others() []*region {
	var all []*region
	for _, m := range r.registry.Members() {
		if m.State != causal.Active || m.Number == r.number {
			continue
		}
		if o := r.w.byNumber(m.Number); o != nil {
			all = append(all, o)
		}
	}
	return all
}

func (w *world) byNumber(n id.Region) *region {
	for _, r := range w.regions {
		if r.number == n {
			return r
		}
	}
	return nil
}

// push sends what has not been sent.
func (r *region) push() {
	for _, to := range r.others() {
		r.pushTo(to, r.peer(to.number))
	}
}

func (r *region) pushTo(to *region, p *peer) {
	for slot := range slots {
		box := &r.disk.outbox[slot]
		for from := max(p.sent[slot], box.base); from < box.last(); from = p.sent[slot] {
			n := min(frameMost, int(box.last()-from))
			records := make([]framed, 0, n)
			for i := range n {
				o := box.recs[int(from-box.base)+i]
				rec := r.disk.posts[o.post].log[r.number][o.seq-1]
				records = append(records, framed{post: o.post, rec: rec})
				r.w.stats.SentBytes += size(&rec)
			}
			f := frame{origin: r.number, slot: slot, base: box.base, first: from + 1, records: records}
			r.w.send(r, to, func() { to.receive(r, f) })
			p.sent[slot] = from + uint64(n)
			p.progress = r.w.now
		}
	}
}

// size is about what a record takes on the line.
func size(r *causal.Record) int { return 120 + 10*len(r.Deps) + len(r.Body) + len(r.Key) }

// frame is a stretch of one slot of one origin.
type frame struct {
	origin  id.Region
	slot    int
	base    uint64 // the origin has nothing up to here any more
	first   uint64
	records []framed
}

type framed struct {
	post int
	rec  causal.Record
}

// receive takes in of a frame what is next, in one batch with the cursor.
func (r *region) receive(from *region, f frame) {
	s := r.anyServer()
	if s == nil {
		return
	}
	r.pending++
	life := s.life
	r.w.at(r.sync(), 'R', func() {
		r.pending--
		if s.life != life {
			return // lost with the server
		}
		key := cursor{f.origin, f.slot}
		at := r.disk.cursors[key]
		if at < f.base { // it is gone there: what was in it comes by comparing heads
			at = f.base
		}
		byPost := make([][]causal.Record, len(r.disk.posts))
		for i, x := range f.records {
			switch seq := f.first + uint64(i); {
			case seq <= at:
				r.w.stats.Repeated++
			case seq == at+1:
				byPost[x.post] = append(byPost[x.post], x.rec)
				at = seq
			}
		}
		r.disk.cursors[key] = at
		for p, recs := range byPost {
			if len(recs) > 0 {
				r.merge(p, recs)
			}
		}
		to, n := from, r.number
		r.w.send(r, to, func() { to.acked(n, f.origin, f.slot, at) })
	})
}

// acked notes how far another region is.
func (r *region) acked(by, origin id.Region, slot int, at uint64) {
	if origin != r.number {
		return // of the life before
	}
	p := r.peer(by)
	if at > p.acked[slot] && at <= r.disk.outbox[slot].last() {
		p.acked[slot], p.progress = at, r.w.now
		p.sent[slot] = max(p.sent[slot], at)
	}
}

// resend begins anew from what was acknowledged when nothing has moved for long, and
// drops what all have.
func (r *region) resend() {
	others := r.others()
	for _, to := range others {
		p := r.peer(to.number)
		if r.w.now-p.progress > int64(2*r.w.line(r, to).most+pulse) {
			p.sent = p.acked
		}
		r.pushTo(to, p)
	}
	for slot := range slots {
		box := &r.disk.outbox[slot]
		done := box.last()
		for _, to := range others {
			done = min(done, r.peer(to.number).acked[slot])
		}
		if done > box.base {
			box.recs, box.base = slices.Clone(box.recs[done-box.base:]), done
		}
	}
}

// compare asks another region how far it is, and for what is missing.
func (r *region) compare() {
	others := r.others()
	if len(others) == 0 {
		return
	}
	r.tell(others[r.w.chance.below(len(others))], true)
}

// tell sends the own heads, and gaps that a hold knows of.
func (r *region) tell(to *region, answer bool) {
	heads := make([]causal.Head, len(r.disk.posts))
	gaps := make([][]causal.Gap, len(r.disk.posts))
	for p, row := range r.disk.posts {
		heads[p] = r.head(p)
		gaps[p] = causal.RestoreHold(r.w.plan.Hold, row.want, row.held).Missing(heads[p])
	}
	n := r.number
	r.w.send(r, to, func() { to.told(r, n, heads, gaps, answer) })
}

// told answers what another region has said of itself: with what it lacks, and with the
// own heads if it has more.
func (r *region) told(by *region, number id.Region, heads []causal.Head, gaps [][]causal.Gap, answer bool) {
	if r.anyServer() == nil {
		return
	}
	behind := false
	for p := range heads {
		mine := r.head(p)
		if r.said[p] == nil {
			r.said[p] = make(map[id.Region]causal.Vector)
		}
		r.said[p][number] = r.said[p][number].Join(heads[p].Seen)
		if mine.Differs(heads[p]) {
			r.w.stats.Forks++
		}
		ask := append(heads[p].Seen.Gaps(mine.Seen), gaps[p]...)
		if recs := r.answer(p, ask); len(recs) > 0 {
			r.w.send(r, by, func() { by.given(p, recs) })
		}
		behind = behind || len(mine.Seen.Gaps(heads[p].Seen)) > 0
	}
	if behind && answer {
		r.tell(by, false)
	}
}

// answer gives the records of gaps that are here, a bounded number.
func (r *region) answer(p int, gaps []causal.Gap) []causal.Record {
	var stretches [][]causal.Record
	for _, g := range gaps {
		log := r.disk.posts[p].log[g.Region]
		if from, to := g.From-1, min(g.To, uint64(len(log))); from < to {
			stretches = append(stretches, log[from:to])
		}
	}
	recs := causal.Answer(rangeMost, stretches...)
	recs = slices.DeleteFunc(recs, func(rec causal.Record) bool { return rec.Seq == 0 }) // a fault's hole
	for i := range recs {
		r.w.stats.SentBytes += size(&recs[i])
	}
	return recs
}

// given takes in what another region has answered.
func (r *region) given(p int, recs []causal.Record) {
	s := r.anyServer()
	if s == nil {
		return
	}
	r.pending++
	life := s.life
	r.w.at(r.sync(), 'G', func() {
		r.pending--
		if s.life == life {
			r.merge(p, recs)
		}
	})
}
