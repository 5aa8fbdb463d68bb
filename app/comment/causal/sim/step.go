// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/sluice-rpc/sluice/app/check"
	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// step does a step of the plan.
func (w *world) step(s *Step) {
	if s.Action <= Move {
		w.sessions[s.Session].do(s)
		return
	}
	if s.Action == Join {
		w.comes(s)
		return
	}
	r := w.regions[s.Region%len(w.regions)]
	if !r.alive() {
		return
	}
	switch s.Action {
	case CrashServer:
		x := r.servers[s.Server%len(r.servers)]
		if s.Target%3 == 0 {
			w.down(r, s.For, x)
		} else if x.up { // what is hardest to get right
			x.aimed = s.For
		}
	case PowerCut:
		r.peers = nil
		w.down(r, s.For, r.servers...)
	case Cut:
		if to := w.regions[s.Peer%len(w.regions)]; to != r {
			w.line(r, to).cut = w.now + int64(s.For)
		}
	case Part:
		for _, to := range w.regions {
			if to != r {
				w.line(r, to).cut = w.now + int64(s.For)
				w.line(to, r).cut = w.now + int64(s.For)
			}
		}
	case Line:
		if to := w.regions[s.Peer%len(w.regions)]; to != r {
			w.nature(w.line(r, to))
			w.nature(w.line(to, r))
		}
	case Clock:
		r.skew += s.For
	case Backup:
		r.backup = r.disk.clone()
	case Restore:
		w.setBack(r, s.For)
	case Leave:
		w.leaves(r)
	case Lose:
		w.loses(r, s.For)
	default:
	}
}

// down lets servers crash, and start again after a while.
func (w *world) down(r *region, after time.Duration, servers ...*server) {
	for _, x := range servers {
		if !x.up {
			continue
		}
		x.crash()
		life := x.life
		w.at(after, 'U', func() {
			if x.life == life && r.alive() {
				x.start()
			}
		})
	}
}

// learn lets all regions hear of the operator's registry, each after a while.
func (w *world) learn() {
	g := w.registry
	for _, r := range w.regions {
		w.at(time.Duration(w.chance.between(0, int64(5*time.Second))), 'K', func() {
			if r.registry.Epoch() < g.Epoch() {
				r.registry = g
				for p := range r.disk.posts {
					r.merge(p, nil) // what it waits for may be lost now
				}
			}
		})
	}
}

// comes lets one more region join.
func (w *world) comes(s *Step) {
	if w.joined >= 2 {
		return
	}
	w.joined++
	r := w.join(1 + s.Server)
	w.at(pulse, 'P', r.pulse)
	w.learn()
}

// active counts the regions that are there and stay.
func (w *world) active() (n int) {
	for _, r := range w.regions {
		if r.alive() && !r.leaving {
			n++
		}
	}
	return n
}

// rehome lets the sessions of a region go to another.
func (w *world) rehome(r *region) {
	for _, s := range w.sessions {
		if s.region != r {
			continue
		}
		for i := range w.regions {
			if to := w.regions[(r.place+1+i)%len(w.regions)]; to.alive() && !to.leaving {
				s.region = to
				break
			}
		}
	}
}

// leaves lets a region go in order: it takes no calls any more, and goes when all that
// it has is with the others.
func (w *world) leaves(r *region) {
	if w.active() < 3 || r.leaving {
		return
	}
	r.leaving = true
	w.rehome(r)
	var look func()
	look = func() {
		if !r.alive() {
			return
		}
		for _, o := range w.regions {
			if o == r || !o.alive() {
				continue
			}
			for p := range r.disk.posts {
				if r.busy() || !o.head(p).Seen.Covers(r.head(p).Seen) {
					w.at(pulse, 'E', look)
					return
				}
			}
		}
		w.end(r, causal.Left)
	}
	w.at(pulse, 'E', look)
}

// loses takes a region away for ever; after a while the operator gives it up.
func (w *world) loses(r *region, after time.Duration) {
	if w.active() < 3 {
		return
	}
	for _, x := range r.servers {
		x.crash()
	}
	r.gone = true
	w.history = append(w.history, check.Op{Kind: check.Lost, Region: r.name, Start: w.now})
	w.at(after, 'E', func() { w.end(r, causal.Lost) })
	w.at(after/2, 'M', func() { w.rehome(r) })
}

func (w *world) end(r *region, how causal.Membership) {
	for _, x := range r.servers {
		x.crash()
	}
	r.gone = true
	if g, err := w.registry.End(r.number, how); err == nil {
		w.registry = g
	}
	w.learn()
}

// setBack replaces a region's disk by its last backup. It comes back under a new number.
func (w *world) setBack(r *region, after time.Duration) {
	if r.backup == nil || r.leaving {
		return
	}
	for _, x := range r.servers {
		x.crash()
	}
	r.restored = true
	r.disk = r.backup.clone()
	w.history = append(w.history, check.Op{Kind: check.Lost, Region: r.name, Start: w.now})
	w.at(after, 'O', func() {
		w.numbers++
		g, err := w.registry.Replace(r.number, w.numbers)
		if err != nil {
			return
		}
		w.registry = g
		r.number = w.numbers
		r.registry = g
		r.peers = nil
		r.disk.outbox = [slots]outbox{}
		r.said = make([]map[id.Region]causal.Vector, w.plan.Posts)
		r.restored = false
		for _, x := range r.servers {
			x.start()
		}
		w.learn()
	})
}
