// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"maps"
	"slices"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// slots is how many there are; a post is in the one of its number.
const slots = 4

// disk is what of a region survives a loss of power. Nothing writes to it but a batch,
// whole, when it is synced.
type disk struct {
	posts   []*row
	outbox  [slots]outbox
	cursors map[cursor]uint64 // what has been taken in of whom
	epoch   id.Epoch
}

type cursor struct {
	origin id.Region
	slot   int
}

// row is what is stored of a post.
type row struct {
	head []byte
	ver  uint64 // of head
	log  map[id.Region][]causal.Record
	keys map[string]id.Comment // what idempotency keys did
	want causal.Vector         // of the hold
	held []causal.Record

	arrival []id.Comment // for faults
	removed map[id.Comment]bool
}

// outbox numbers the records of a slot for the other regions.
type outbox struct {
	base uint64 // of the last one that is gone: all have it
	recs []outboxRecord
}

type outboxRecord struct {
	post int
	seq  uint64
}

func (o *outbox) last() uint64 { return o.base + uint64(len(o.recs)) }

func newDisk(posts int) *disk {
	d := &disk{cursors: make(map[cursor]uint64)}
	for range posts {
		d.posts = append(d.posts, &row{
			head: causal.Head{}.Encode(), log: make(map[id.Region][]causal.Record), keys: make(map[string]id.Comment),
			removed: make(map[id.Comment]bool),
		})
	}
	return d
}

// clone gives a copy, as a backup is.
func (d *disk) clone() *disk {
	c := &disk{outbox: d.outbox, cursors: maps.Clone(d.cursors), epoch: d.epoch}
	for i := range c.outbox {
		c.outbox[i].recs = slices.Clone(c.outbox[i].recs)
	}
	for _, r := range d.posts {
		n := *r
		n.log = make(map[id.Region][]causal.Record, len(r.log))
		for region, log := range r.log {
			n.log[region] = slices.Clone(log)
		}
		n.keys, n.removed = maps.Clone(r.keys), maps.Clone(r.removed)
		n.held, n.arrival = slices.Clone(r.held), slices.Clone(r.arrival)
		c.posts = append(c.posts, &n)
	}
	return c
}

// add appends operations to the log. What is deleted loses its text.
func (r *row) add(head causal.Head, recs []causal.Record) {
	for i := range recs {
		rec := recs[i]
		region := rec.ID.Region()
		for uint64(len(r.log[region])) < rec.Seq-1 { // only a fault leaves a hole
			r.log[region] = append(r.log[region], causal.Record{})
		}
		r.log[region] = append(r.log[region], rec)
		r.arrival = append(r.arrival, rec.ID)
		if rec.Kind == causal.Delete {
			r.blank(rec.Parent, causal.Entry{Region: region, Seq: rec.Seq})
		}
	}
	r.head = head.Encode()
	r.ver++
}

func (r *row) blank(target id.Comment, by causal.Entry) {
	log := r.log[target.Region()]
	for i := range log {
		if log[i].ID == target && log[i].Body != "" {
			log[i].Body, log[i].Grave = "", by
		}
	}
}
