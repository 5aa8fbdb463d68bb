// SPDX-License-Identifier: Apache-2.0

// Package queuetest carries records between the services of two regions by hand, for
// tests of what they make of them: in the order that a test wants, again, or not at all.
package queuetest

import (
	"context"
	"errors"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/outbox"
)

// T is what is needed of a test: that of package testing has it, and that of rapid.
type T interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// End is a service of one region.
type End struct {
	Region id.Region
	Store  kv.Store
	Box    *outbox.Box
	Side   idcqueue.Side
}

// Line goes one way, from one region to another.
type Line struct {
	From, To End
	// Twice has everything that is carried come twice.
	Twice bool
	// Released has what is carried be what an operator lets out of quarantine.
	Released bool
	// Refused has why records were refused, in their order.
	Refused []error

	at   map[kv.Slot]outbox.Pos
	seen []stretch // all that was carried, for Replay
}

type stretch struct {
	slot    kv.Slot
	records []idcqueue.Record
	whole   bool // the rows of the slot go instead
}

// Carry carries what has not been carried yet, and tells how many records that was.
func (l *Line) Carry(t T) (carried int) {
	t.Helper()
	all := l.Take(t)
	for _, s := range all {
		carried += len(s.records)
		l.deliver(t, s)
		if l.Twice {
			l.deliver(t, s)
		}
	}
	return carried
}

// Drop takes what has not been carried yet, and carries nothing of it before Replay.
func (l *Line) Drop(t T) {
	t.Helper()
	l.Take(t)
}

// Take gives what has not been carried yet, as if it had been.
func (l *Line) Take(t T) (all []stretch) {
	t.Helper()
	if l.at == nil {
		l.at = make(map[kv.Slot]outbox.Pos)
	}
	peer := l.From.Box.Peer(idcqueue.Consumer(l.To.Region))
	for _, slot := range peer.Changed(nil) {
		for {
			records, next, err := peer.Read(t.Context(), slot, l.at[slot], 64, 256<<10)
			if err != nil {
				t.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			l.at[slot] = next
			s := stretch{slot: slot}
			for _, r := range records {
				s.records = append(s.records, idcqueue.Record{Seq: r.Number, Body: r.Body, At: r.At, Origin: r.Origin})
			}
			if expand := l.From.Side.Expand; expand != nil {
				bodies, err := expand(t.Context(), slot, records)
				if errors.Is(err, idcqueue.ErrWhole) {
					all = append(all, stretch{slot: slot, records: s.records, whole: true})
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				for i := range bodies {
					s.records[i].Body = bodies[i]
				}
			}
			all = append(all, s)
		}
	}
	l.seen = append(l.seen, all...)
	return all
}

// Replay delivers all that was ever carried once more, as it was then.
func (l *Line) Replay(t T) {
	t.Helper()
	for _, s := range l.seen {
		l.deliver(t, s)
	}
}

// Bodies gives all that was ever carried.
func (l *Line) Bodies() (all [][]byte) {
	for _, s := range l.seen {
		for _, r := range s.records {
			all = append(all, r.Body)
		}
	}
	return all
}

// Deliver delivers one record, as if it came from a region.
func (l *Line) Deliver(t T, slot kv.Slot, body []byte) {
	t.Helper()
	l.deliver(t, stretch{slot: slot, records: []idcqueue.Record{{Seq: 1, Body: body}}})
}

func (l *Line) deliver(t T, s stretch) {
	t.Helper()
	if s.whole {
		l.Snapshot(t, s.slot)
		return
	}
	for rest := s.records; len(rest) > 0; {
		in := &idcqueue.In{From: l.From.Region, Slot: s.slot, Records: rest, Released: l.Released, Batch: new(kv.Batch)}
		out, err := l.To.Box.Open(t.Context(), s.slot)
		if err != nil {
			t.Fatal(err)
		}
		in.Out = out
		n, err := l.To.Side.Apply(t.Context(), in)
		switch {
		case errors.Is(err, idcqueue.ErrRefused):
		case err != nil:
			out.Close()
			t.Fatal(err)
		case n < 1:
			out.Close()
			t.Fatal("Apply took nothing and refused nothing")
		}
		if !apply(t, l.To, s.slot, in.Batch, out, in.Applied) {
			continue // somebody else has written: decide again
		}
		if err != nil {
			l.Refused = append(l.Refused, err)
		}
		rest = rest[n:]
		if err != nil {
			rest = rest[1:]
		}
	}
}

// apply applies a batch, and reports false if somebody else has written meanwhile.
func apply(t T, to End, slot kv.Slot, batch *kv.Batch, out *outbox.Turn, applied func(uint64)) bool {
	t.Helper()
	defer out.Close()
	if batch.Len() > 90 {
		t.Errorf("a batch has %d operations, at most 90 are allowed", batch.Len())
	}
	if err := out.Seal(batch); err != nil {
		t.Fatal(err)
	}
	if batch.Len() == 0 {
		return true
	}
	ver, err := to.Store.Apply(t.Context(), slot, batch)
	if errors.Is(err, kv.ErrConflict) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	out.Applied(ver)
	applied(ver)
	return true
}

// Snapshot carries the rows of some slots, or of all if none is named, whatever has been
// carried before.
func (l *Line) Snapshot(t T, slots ...kv.Slot) {
	t.Helper()
	for _, slot := range named(slots) {
		var from []byte
		for first := true; first || from != nil; first = false {
			rows, next, err := l.From.Side.Rows(t.Context(), l.To.Region, slot, from)
			if err != nil {
				t.Fatal(err)
			}
			for more := len(rows) > 0 || from != nil; more; {
				part := &idcqueue.Part{From: l.From.Region, Slot: slot, Start: from, End: next, Rows: rows, Released: l.Released, Batch: new(kv.Batch)}
				out, err := l.To.Box.Open(t.Context(), slot)
				if err != nil {
					t.Fatal(err)
				}
				part.Out = out
				more, err = l.To.Side.Merge(t.Context(), part)
				if errors.Is(err, idcqueue.ErrRefused) {
					out.Close()
					l.Refused = append(l.Refused, err)
					break
				}
				if err != nil {
					out.Close()
					t.Fatal(err)
				}
				more = !apply(t, l.To, slot, part.Batch, out, part.Applied) || more
			}
			from = next
		}
	}
}

// named gives slots, or all if there are none.
func named(slots []kv.Slot) []kv.Slot {
	if len(slots) > 0 {
		return slots
	}
	all := make([]kv.Slot, kv.Slots)
	for i := range all {
		all[i] = kv.Slot(i)
	}
	return all
}

// Rows gives what a store has under some first bytes of keys, for comparing: of some
// slots, or of all if none is named.
func Rows(t T, store kv.Store, tables string, slots ...kv.Slot) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, slot := range named(slots) {
		for _, table := range []byte(tables) {
			r := kv.Prefix([]byte{table}, kv.MaxScan)
			for {
				items, more, err := store.Scan(t.Context(), slot, r, kv.Linearizable)
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range items {
					all[string(it.Key)] = string(it.Value)
				}
				if !more {
					break
				}
				r.From = kv.Next(items[len(items)-1].Key)
			}
		}
	}
	return all
}
