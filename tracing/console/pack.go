// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unique"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// key names a row. Rounds hold the same keys again and again, so each is kept once in
// the process, for as long as any round has it.
type key = unique.Handle[callgraph.Key]

// A packed is the rows of one round, or of several, in little memory: as Stats a row
// takes more than half a kilobyte, packed it takes some sixty bytes. It is read-only.
type packed struct {
	keys []key  // those whose caller is an entry come first
	at   []byte // the counts of each key, one after the other
	// doors is how many keys have an entry as their caller; doorsEnd is where their
	// counts end. Lists of entries read no further.
	doors    int
	doorsEnd int
}

// size is what it takes in bytes, without the names.
func (p *packed) size() int { return len(p.at) + 8*len(p.keys) }

// pack packs rows. Each key must be there once.
func pack(rows []callgraph.Row) packed {
	order := make([]*callgraph.Row, len(rows))
	for i := range rows {
		order[i] = &rows[i]
	}
	slices.SortFunc(order, func(a, b *callgraph.Row) int {
		if door := isDoor(&a.Key); door != isDoor(&b.Key) {
			if door {
				return -1
			}
			return 1
		}
		return a.Compare(b.Key)
	})
	p := packed{keys: make([]key, 0, len(rows)), at: make([]byte, 0, 64*len(rows))}
	for _, r := range order {
		p.keys = append(p.keys, unique.Make(r.Key))
		p.at = appendStats(p.at, &r.Stats)
		if isDoor(&r.Key) {
			p.doors, p.doorsEnd = len(p.keys), len(p.at)
		}
	}
	p.at = slices.Clip(p.at)
	return p
}

// isDoor reports whether the caller of a row is its entry.
func isDoor(k *callgraph.Key) bool { return k.Caller == callgraph.AtEntryName }

func appendStats(b []byte, s *callgraph.Stats) []byte {
	b = appendCounts(b, &s.Results)
	b = appendCounts(b, &s.Attempts)
	b = binary.AppendUvarint(b, s.Nanos)
	b = binary.AppendUvarint(b, s.RequestBytes)
	b = binary.AppendUvarint(b, s.ResponseBytes)
	b = append(b, byte(s.Latency.First), byte(len(s.Latency.Counts)))
	for _, n := range s.Latency.Counts {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// appendCounts writes which counts are not zero, and these.
func appendCounts(b []byte, counts *[callgraph.NumClasses]uint64) []byte {
	var set uint16
	for i, n := range counts {
		if n != 0 {
			set |= 1 << i
		}
	}
	b = binary.LittleEndian.AppendUint16(b, set)
	for _, n := range counts {
		if n != 0 {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// A tally adds up counts of one key. It stops at the largest number: a process that
// lies must not make a sum small.
type tally struct {
	results, attempts                  [callgraph.NumClasses]uint64
	nanos, requestBytes, responseBytes uint64
	first, end                         int // of the buckets that are not zero
	buckets                            [callgraph.NumBuckets]uint64
}

func addTo(sum *uint64, n uint64) {
	s, carry := bits.Add64(*sum, n, 0)
	if carry != 0 {
		s = math.MaxUint64
	}
	*sum = s
}

// stats gives the sum.
func (t *tally) stats() callgraph.Stats {
	s := callgraph.Stats{
		Results: t.results, Attempts: t.attempts,
		Nanos: t.nanos, RequestBytes: t.requestBytes, ResponseBytes: t.responseBytes,
	}
	if t.end > 0 {
		s.Latency = callgraph.Histogram{First: t.first, Counts: slices.Clone(t.buckets[t.first:t.end])}
	}
	return s
}

// reader reads what appendStats has written in this process: it is well-formed.
type reader struct{ b []byte }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.b = r.b[n:]
	return v
}

func (r *reader) counts(sum *[callgraph.NumClasses]uint64) {
	set := binary.LittleEndian.Uint16(r.b)
	r.b = r.b[2:]
	for set != 0 {
		i := bits.TrailingZeros16(set)
		set &^= 1 << i
		addTo(&sum[i], r.uvarint())
	}
}

// next adds the next row to t.
func (r *reader) next(t *tally) {
	r.counts(&t.results)
	r.counts(&t.attempts)
	addTo(&t.nanos, r.uvarint())
	addTo(&t.requestBytes, r.uvarint())
	addTo(&t.responseBytes, r.uvarint())
	first, n := int(r.b[0]), int(r.b[1])
	r.b = r.b[2:]
	if n > 0 {
		if t.end == 0 {
			t.first = first
		}
		t.first, t.end = min(t.first, first), max(t.end, first+n)
	}
	for i := first; i < first+n; i++ {
		addTo(&t.buckets[i], r.uvarint())
	}
}

// skip reads the next row for nothing.
func (r *reader) skip() {
	for range 2 {
		set := binary.LittleEndian.Uint16(r.b)
		r.b = r.b[2:]
		for range bits.OnesCount16(set) {
			r.uvarint()
		}
	}
	for range 3 {
		r.uvarint()
	}
	n := int(r.b[1])
	r.b = r.b[2:]
	for range n {
		r.uvarint()
	}
}

// sums adds up rounds.
type sums map[key]*tally

// add adds the rows that want asks for, all of them if it is nil.
func (s sums) add(p *packed, want func(callgraph.Key) bool) {
	s.addRows(p.keys, p.at, want)
}

// addDoors adds the rows whose caller is an entry.
func (s sums) addDoors(p *packed) { s.addRows(p.keys[:p.doors], p.at[:p.doorsEnd], nil) }

func (s sums) addRows(keys []key, at []byte, want func(callgraph.Key) bool) {
	r := reader{at}
	for _, k := range keys {
		t := s[k]
		if t == nil {
			if want != nil && !want(k.Value()) {
				r.skip()
				continue
			}
			t = new(tally)
			s[k] = t
		}
		r.next(t)
	}
}

// rows gives the sums in the order of their keys.
func (s sums) rows() []callgraph.Row {
	out := make([]callgraph.Row, 0, len(s))
	for k, t := range s {
		out = append(out, callgraph.Row{Key: k.Value(), Stats: t.stats()})
	}
	slices.SortFunc(out, func(a, b callgraph.Row) int { return a.Compare(b.Key) })
	return out
}

// serviceOf gives the part of a method's full name before the slash.
func serviceOf(method string) string {
	if i := strings.LastIndexByte(method, '/'); i >= 0 {
		return method[:i]
	}
	return method
}
