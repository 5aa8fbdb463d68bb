// SPDX-License-Identifier: Apache-2.0

package callgraph

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/tracing"
)

// Key says what is counted together: the calls that one side saw, of one entry,
// from caller to callee. Both are full method names; a caller AtEntryName is the
// entry itself. With an empty callee, too, it is the entry's own requests.
type Key struct {
	Side   Side
	Entry  tracing.Entry // 0 is unknown
	Caller string
	Callee string
}

// Compare orders keys: by entry, caller, callee, side.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		cmp.Compare(k.Entry, o.Entry),
		strings.Compare(k.Caller, o.Caller),
		strings.Compare(k.Callee, o.Callee),
		cmp.Compare(k.Side, o.Side),
	)
}

// Overflow reports whether the row stands for edges that had no slot.
func (k Key) Overflow() bool { return k.Caller == OverflowCallerName }

// Stats are the counts of one edge as one side saw it. They are read-only.
type Stats struct {
	Results       [NumClasses]uint64 // calls by the class of their end
	Attempts      [NumClasses]uint64 // on the client side: attempts by the class of theirs
	Nanos         uint64             // sum of the latencies, in nanoseconds
	RequestBytes  uint64
	ResponseBytes uint64
	Latency       Histogram
}

// Calls gives the number of calls, whatever their end.
func (s Stats) Calls() uint64 { return total(&s.Results) }

// AttemptCount gives the number of attempts.
func (s Stats) AttemptCount() uint64 { return total(&s.Attempts) }

// Failed gives the number of calls that did not end well.
func (s Stats) Failed() uint64 { return sub(s.Calls(), s.Results[OK]) }

// Mean gives the mean latency, zero when there are no calls.
func (s Stats) Mean() time.Duration {
	if n := s.Latency.Count(); n > 0 {
		return time.Duration(s.Nanos / n)
	}
	return 0
}

// IsZero reports whether nothing was counted.
func (s Stats) IsZero() bool {
	return s.Results == [NumClasses]uint64{} && s.Attempts == [NumClasses]uint64{} &&
		s.Nanos == 0 && s.RequestBytes == 0 && s.ResponseBytes == 0 && s.Latency.Count() == 0
}

// largest gives the largest of the counts.
func (s Stats) largest() uint64 {
	n := max(s.Nanos, s.RequestBytes, s.ResponseBytes, slices.Max(s.Results[:]), slices.Max(s.Attempts[:]))
	for _, c := range s.Latency.Counts {
		n = max(n, c)
	}
	return n
}

// Plus gives the sum of both.
func (s Stats) Plus(o Stats) Stats {
	var sum sums
	sum.add(&s)
	sum.add(&o)
	return sum.stats()
}

func total(counts *[NumClasses]uint64) uint64 {
	var n uint64
	for _, c := range counts {
		n = add(n, c)
	}
	return n
}

// sums is Stats with room for every bucket, to add up in.
type sums struct {
	results, attempts                  [NumClasses]uint64
	nanos, requestBytes, responseBytes uint64
	buckets                            [NumBuckets]uint64
}

func (sum *sums) add(s *Stats) {
	for i := range NumClasses {
		sum.results[i] = add(sum.results[i], s.Results[i])
		sum.attempts[i] = add(sum.attempts[i], s.Attempts[i])
	}
	sum.nanos = add(sum.nanos, s.Nanos)
	sum.requestBytes = add(sum.requestBytes, s.RequestBytes)
	sum.responseBytes = add(sum.responseBytes, s.ResponseBytes)
	s.Latency.addTo(&sum.buckets)
}

// A tally adds up Stats. Most of them stay alone, and are then kept as they are: sums
// are large.
type tally struct {
	only *Stats
	sum  *sums
}

func (t *tally) add(s *Stats) {
	switch {
	case t.sum != nil:
		t.sum.add(s)
	case t.only != nil:
		t.sum = new(sums)
		t.sum.add(t.only)
		t.sum.add(s)
	default:
		t.only = s
	}
}

func (t *tally) stats() Stats {
	switch {
	case t.sum != nil:
		return t.sum.stats()
	case t.only == nil:
		return Stats{}
	case !t.only.Latency.trimmed():
		var sum sums
		sum.add(t.only)
		return sum.stats()
	}
	return *t.only
}

// take takes o from the sum and reports whether every counter had as much.
func (sum *sums) take(o *Stats) bool {
	ok := true
	one := func(a *uint64, b uint64) {
		ok = ok && *a >= b
		*a = sub(*a, b)
	}
	for i := range NumClasses {
		one(&sum.results[i], o.Results[i])
		one(&sum.attempts[i], o.Attempts[i])
	}
	one(&sum.nanos, o.Nanos)
	one(&sum.requestBytes, o.RequestBytes)
	one(&sum.responseBytes, o.ResponseBytes)
	for i, n := range o.Latency.Counts {
		one(&sum.buckets[o.Latency.First+i], n)
	}
	return ok
}

func (sum *sums) stats() Stats {
	return Stats{
		Results: sum.results, Attempts: sum.attempts,
		Nanos: sum.nanos, RequestBytes: sum.requestBytes, ResponseBytes: sum.responseBytes,
		Latency: makeHistogram(&sum.buckets),
	}
}

// Row is what one side has counted of one edge.
type Row struct {
	Key
	Stats
}

// EntryName is the name of an entry, for example "POST /posts".
type EntryName struct {
	ID   tracing.Entry
	Name string
}

// Mark is what someone else knows of a node and wants to see on it, for example
// that it is overloaded. This package does not look into it.
type Mark struct {
	Severity uint8 // 0 is good, MaxSeverity the worst
	Text     string
}

// MaxSeverity is the worst severity of a Mark.
const MaxSeverity = 3

// NodeMark is the mark of the node of that full method name, or of all the methods
// of a service ("package.Service").
type NodeMark struct {
	Node string
	Mark Mark
}

// Period is what was counted in a stretch of time by one process or by many. It is
// in order: sorted, each key once, nothing that is zero. It is read-only.
type Period struct {
	Entries []EntryName // by ID
	Marks   []NodeMark  // by Node
	Rows    []Row       // by Key
}

// Merge gives the sum of periods. Of several names of an entry it keeps the first in
// order, of several marks of a node the worst. The order of the arguments does not
// matter, nor whether parts were merged before.
func Merge(periods ...Period) Period {
	entries := map[tracing.Entry]string{}
	marks := map[string]Mark{}
	rows := map[Key]*tally{}
	for _, p := range periods {
		for _, e := range p.Entries {
			if old, ok := entries[e.ID]; !ok || e.Name < old {
				entries[e.ID] = e.Name
			}
		}
		for _, m := range p.Marks {
			node := cleanName(m.Node)
			mark := Mark{Severity: min(m.Mark.Severity, MaxSeverity), Text: cleanName(m.Mark.Text)}
			if old, ok := marks[node]; !ok || worse(mark, old) {
				marks[node] = mark
			}
		}
		for i := range p.Rows {
			r := &p.Rows[i]
			if r.IsZero() {
				continue
			}
			t := rows[r.Key]
			if t == nil {
				t = new(tally)
				rows[r.Key] = t
			}
			t.add(&r.Stats)
		}
	}
	var out Period
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		out.Entries = append(out.Entries, EntryName{ID: id, Name: entries[id]})
	}
	for _, node := range slices.Sorted(maps.Keys(marks)) {
		out.Marks = append(out.Marks, NodeMark{Node: node, Mark: marks[node]})
	}
	if len(rows) > 0 {
		out.Rows = make([]Row, 0, len(rows))
	}
	for _, key := range slices.SortedFunc(maps.Keys(rows), Key.Compare) {
		out.Rows = append(out.Rows, Row{Key: key, Stats: rows[key].stats()})
	}
	return out
}

func worse(a, b Mark) bool {
	if a.Severity != b.Severity {
		return a.Severity > b.Severity
	}
	return a.Text < b.Text
}

// Continuity says how two snapshots of a process hang together.
type Continuity uint8

// The ways.
const (
	Continuous Continuity = 0 // one process, later on
	Restarted  Continuity = 1 // the process is a new one: what the old one counted last is lost
	Regressed  Continuity = 2 // counters of one process went down: it lies, or the order is wrong
)

// Window gives what a process has counted between two snapshots. After a restart
// that is all that the new process has counted; no counter of a window is ever
// below zero. Without an older snapshot it is all that was ever counted.
func Window(older, newer *Snapshot) (Period, Continuity) {
	if older == nil {
		return newer.Period, Continuous
	}
	if older.Process != newer.Process {
		return newer.Period, Restarted
	}
	p, ok := newer.minus(older.Period)
	if !ok {
		return p, Regressed
	}
	return p, Continuous
}

// minus gives what p has more than o, and whether it has at least as much of all.
func (p Period) minus(o Period) (Period, bool) {
	rest := make(map[Key]*Stats, len(o.Rows))
	for i := range o.Rows {
		rest[o.Rows[i].Key] = &o.Rows[i].Stats
	}
	out := Period{Entries: p.Entries, Marks: p.Marks}
	ok := true
	for i := range p.Rows {
		row := p.Rows[i]
		if old := rest[row.Key]; old != nil {
			delete(rest, row.Key)
			var sum sums
			sum.add(&row.Stats)
			ok = sum.take(old) && ok
			row.Stats = sum.stats()
		}
		if !row.IsZero() {
			out.Rows = append(out.Rows, row)
		}
	}
	return out, ok && len(rest) == 0
}

// MaxNameLen is the length in bytes to which names are cut.
const MaxNameLen = 256

// cleanName makes a name that is fit to be shown: valid UTF-8, no controls, nothing
// that turns the direction of text, not too long. It leaves a clean name as it is.
func cleanName(s string) string {
	clean := len(s) <= MaxNameLen
	for i := 0; clean && i < len(s); i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f
	}
	if clean { // nearly always
		return s
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s[:min(len(s), 4*MaxNameLen)])
	const ellipsis = "…"
	if len(s) > MaxNameLen {
		cut := MaxNameLen - len(ellipsis)
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + ellipsis
	}
	return s
}
