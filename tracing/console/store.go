// SPDX-License-Identifier: Apache-2.0

package console

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// How long rounds are kept. A round is what all processes have counted between two
// pulls; later on only blocks of rounds are left.
const (
	KeepRounds = time.Hour
	BlockTime  = 5 * time.Minute
	KeepBlocks = 24 * time.Hour
)

const (
	maxEntryNames = 1 << 14
	maxMarks      = 1 << 14
)

// A round is what was counted between from and to. It is read-only once it is kept.
type round struct {
	from, to time.Time
	packed   packed
	marks    map[string]callgraph.Mark // at the end of the round, by node
	bytes    int                       // what it is taken to need
}

// A history keeps rounds for an hour and blocks of rounds for a day, within a budget
// of memory: if that is used up, the oldest go early. It is not safe for concurrent
// use.
type history struct {
	budget int
	bytes  int
	rounds []*round // the oldest first
	blocks []*round
	names  map[tracing.Entry]string // of entries; only names that are true to their number
	early  bool                     // rounds went before their time
}

func newHistory(budget int) *history {
	return &history{budget: budget, names: map[tracing.Entry]string{}}
}

// name makes the name of an entry known. A name that does not give that number is a lie.
func (h *history) name(e callgraph.EntryName) {
	if _, known := h.names[e.ID]; !known && tracing.EntryOf(e.Name) == e.ID && len(h.names) < maxEntryNames {
		h.names[e.ID] = e.Name
	}
}

// add keeps a round and lets go of what is too old.
func (h *history) add(r *round) {
	r.bytes = r.packed.size() + 64*len(r.marks)
	// Names are shared by the rounds that have them: they are charged to the first.
	known := map[key]bool{}
	if n := len(h.rounds); n > 0 {
		for _, k := range h.rounds[n-1].packed.keys {
			known[k] = true
		}
	}
	for _, k := range r.packed.keys {
		if !known[k] {
			v := k.Value()
			r.bytes += len(v.Caller) + len(v.Callee) + 64
		}
	}
	if n := len(h.rounds); n > 0 && !block(h.rounds[n-1].to).Equal(block(r.to)) {
		h.closeBlock(block(h.rounds[n-1].to))
	}
	h.rounds = append(h.rounds, r)
	h.bytes += r.bytes
	h.rounds = h.trim(h.rounds, r.to.Add(-KeepRounds))
	h.blocks = h.trim(h.blocks, r.to.Add(-KeepBlocks))
	for h.bytes > h.budget && (len(h.rounds) > 1 || len(h.blocks) > 0) {
		h.early = true
		if len(h.blocks) > 0 {
			h.blocks = h.drop(h.blocks)
		} else {
			h.rounds = h.drop(h.rounds)
		}
	}
}

// block gives the beginning of the block that a round with that end is part of.
func block(end time.Time) time.Time { return end.Add(-1).Truncate(BlockTime) }

func (h *history) trim(list []*round, before time.Time) []*round {
	for len(list) > 0 && !list[0].to.After(before) {
		list = h.drop(list)
	}
	return list
}

func (h *history) drop(list []*round) []*round {
	h.bytes -= list[0].bytes
	list[0] = nil
	return list[1:]
}

// closeBlock makes one of the rounds of a block.
func (h *history) closeBlock(begin time.Time) {
	all := sums{}
	b := &round{marks: map[string]callgraph.Mark{}}
	for _, r := range h.rounds {
		if !block(r.to).Equal(begin) {
			continue
		}
		if b.from.IsZero() {
			b.from = r.from
		}
		b.to = r.to
		all.add(&r.packed, nil)
		for node, m := range r.marks { // of a block the worst state counts
			if old, ok := b.marks[node]; !ok || m.Severity > old.Severity {
				b.marks[node] = m
			}
		}
	}
	b.packed = pack(all.rows())
	b.bytes = b.packed.size() + 64*len(b.marks)
	h.blocks = append(h.blocks, b)
	h.bytes += b.bytes
}

// span is a stretch of time.
type span struct{ from, to time.Time }

func (s span) length() time.Duration { return s.to.Sub(s.from) }

// errNothingKept says that there is no round in a span.
var errNothingKept = errors.New("nothing is kept of that time")

// between gives the rounds that end within a span, and what these cover together.
// Where rounds are gone already there are blocks.
func (h *history) between(want span) ([]*round, span, error) {
	var out []*round
	oldest := time.Time{}
	if len(h.rounds) > 0 {
		oldest = h.rounds[0].from
	}
	for _, b := range h.blocks {
		// A block counts as a whole: where its middle is says whether it belongs.
		middle := b.from.Add(b.to.Sub(b.from) / 2)
		if !middle.Before(want.from) && middle.Before(want.to) && !b.to.After(oldest.Add(BlockTime)) && b.from.Before(oldest) {
			out = append(out, b)
		}
	}
	after := want.from
	if n := len(out); n > 0 && out[n-1].to.After(after) {
		after = out[n-1].to
	}
	for _, r := range h.rounds {
		if r.to.After(after) && !r.to.After(want.to) {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return nil, span{}, errNothingKept
	}
	got := span{out[0].from, out[len(out)-1].to}
	return out, got, nil
}

// covered is how long the rounds have taken together: pauses of the console do not
// count.
func covered(rounds []*round) time.Duration {
	var d time.Duration
	for _, r := range rounds {
		d += r.to.Sub(r.from)
	}
	return d
}

// period gives what was counted in rounds, of one entry or of all, with the marks that
// nodes had last.
func (h *history) period(rounds []*round, entry *tracing.Entry) callgraph.Period {
	var want func(callgraph.Key) bool
	if entry != nil {
		want = func(k callgraph.Key) bool { return k.Entry == *entry || k.Overflow() }
	}
	all, marks := sums{}, map[string]callgraph.Mark{}
	for _, r := range rounds {
		all.add(&r.packed, want)
		for node, m := range r.marks {
			marks[node] = m
		}
	}
	p := callgraph.Period{Rows: all.rows()}
	for id, name := range h.names {
		p.Entries = append(p.Entries, callgraph.EntryName{ID: id, Name: name})
	}
	for node, m := range marks {
		p.Marks = append(p.Marks, callgraph.NodeMark{Node: node, Mark: m})
	}
	return callgraph.Merge(p)
}

// entryName gives the name of an entry as pages show it.
func (h *history) entryName(e tracing.Entry) string {
	switch name, ok := h.names[e]; {
	case ok:
		return name
	case e == 0:
		return "(unknown entry)"
	default:
		return fmt.Sprintf("entry %08x", uint32(e))
	}
}

// entry finds an entry by its name as entryName gives it.
func (h *history) entry(name string) (tracing.Entry, error) {
	if name == "(unknown entry)" {
		return 0, nil
	}
	if e := tracing.EntryOf(name); h.names[e] == name {
		return e, nil
	}
	var id uint32
	if _, err := fmt.Sscanf(name, "entry %08x", &id); err == nil && len(name) == len("entry 00000000") {
		return tracing.Entry(id), nil
	}
	return 0, fmt.Errorf("entry %q: no process has told of it; the page of entries lists those there are", name)
}
