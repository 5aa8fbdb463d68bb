// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// traceLine is a trace in a list.
type traceLine struct {
	ID        string   `json:"id"`
	Entry     string   `json:"entry"`
	Method    string   `json:"method"` // of the root
	Start     float64  `json:"start"`  // Unix seconds
	Duration  float64  `json:"duration_ms"`
	Class     string   `json:"class"`
	Code      string   `json:"code,omitempty"`
	Status    int      `json:"status,omitempty"`
	Kept      string   `json:"kept"`
	Spans     int      `json:"spans"`
	Failed    int      `json:"failed"` // spans
	Processes []string `json:"processes"`
	Whole     bool     `json:"whole"` // its root was kept
}

type tracesView struct {
	Traces []traceLine `json:"traces"`
	All    int         `json:"all"` // that match; at most limit are given
	Kept   int         `json:"kept"`
}

func (c *Console) askTraces(q *asked) (any, error) {
	f := traceFilter{
		entry: q.text("entry"), name: c.graphs.entryName, service: q.text("service"), code: q.text("code"), text: q.text("text"),
		min: time.Duration(q.number("min_ms", 0, 0, 1e9) * 1e6), max: time.Duration(q.number("max_ms", 0, 0, 1e9) * 1e6),
	}
	if edge := q.text("edge"); edge != "" {
		from, to, ok := strings.Cut(edge, "->")
		if f.from, f.to = strings.TrimSpace(from), strings.TrimSpace(to); !ok || f.to == "" {
			q.fail("edge", "%q: want CALLER->CALLEE, or ->CALLEE", cut(edge, 100))
		}
	}
	if attr := q.text("attr"); attr != "" {
		f.key, f.val, _ = strings.Cut(attr, "=")
	}
	switch q.text("failed") {
	case "", "0", "false":
	case "1", "true":
		f.failed = true
	default:
		q.fail("failed", "want 1 or 0")
	}
	if s := q.span(""); s != nil {
		f.since, f.until = s.from.UnixNano(), s.to.Add(time.Minute).UnixNano() // clocks may be apart
	}
	limit := int(q.number("limit", defaultFound, 1, maxFound))
	if q.err != nil {
		return nil, q.err
	}
	found, all := c.traces.find(&f, limit)
	v := &tracesView{Traces: make([]traceLine, 0, len(found)), All: all, Kept: len(c.traces.order)}
	for _, t := range found {
		v.Traces = append(v.Traces, c.line(t))
	}
	slices.SortStableFunc(v.Traces, func(a, b traceLine) int { return cmp.Compare(b.Start, a.Start) })
	return v, nil
}

func (c *Console) line(t *trace) traceLine {
	root := t.root()
	l := traceLine{
		ID: t.id.String(), Entry: c.graphs.entryName(root.Entry), Method: root.Method, Start: float64(root.Start) / 1e9, Duration: ms(root.Duration),
		Class: root.Class, Code: root.Code, Status: root.Status, Kept: root.Kept, Spans: len(t.records), Whole: root.Parent.IsZero(),
	}
	seen := map[string]bool{}
	for i := range t.records {
		if failed(&t.records[i]) {
			l.Failed++
		}
		if p := t.records[i].process; !seen[p] {
			seen[p] = true
			l.Processes = append(l.Processes, p)
		}
	}
	slices.Sort(l.Processes)
	return l
}

// spanView is a line of a waterfall.
type spanView struct {
	tracing.Record
	Entry      string   `json:"entry"` // its name
	Process    string   `json:"process"`
	Depth      int      `json:"depth"`
	Orphan     bool     `json:"orphan,omitempty"`     // its parent was not kept
	Percentile *float64 `json:"percentile,omitempty"` // share of the calls of its method that took no longer
	Of         uint64   `json:"of,omitempty"`         // calls that this stands on
	Critical   float64  `json:"critical,omitempty"`   // share of the whole that passed in the span itself
}

type traceView struct {
	ID      string     `json:"id"`
	Line    traceLine  `json:"trace"`
	Start   int64      `json:"start_ns"`
	End     int64      `json:"end_ns"`
	Cut     bool       `json:"cut"` // it had more spans than are kept
	PathErr string     `json:"path_error,omitempty"`
	Spans   []spanView `json:"spans"`
	// Linked are traces that this one has caused over a queue, at most fifty.
	Linked []traceLine `json:"linked"`
}

func (c *Console) askTrace(q *asked) (any, error) {
	var id tracing.TraceID
	if err := id.UnmarshalText([]byte(q.text("id"))); err != nil || id.IsZero() {
		return nil, fmt.Errorf("id: %q: want 32 hexadecimal digits", cut(q.text("id"), 50))
	}
	t := c.traces.byID[id]
	if t == nil {
		return nil, fmt.Errorf("trace %v: %w: it was not kept, or had to go for later ones", id, errNotFound)
	}
	v := &traceView{ID: id.String(), Line: c.line(t), Cut: t.cut, Start: math.MaxInt64, Spans: []spanView{}, Linked: []traceLine{}}
	records, depths := t.ordered()
	critical := map[tracing.SpanID]map[tracing.Kind]int64{}
	path, err := callgraph.CriticalPath(t.spans())
	if err != nil {
		v.PathErr = err.Error()
	}
	for _, s := range path.Steps {
		r := &t.records[s.Span]
		if critical[r.Span] == nil {
			critical[r.Span] = map[tracing.Kind]int64{}
		}
		critical[r.Span][r.Kind] += s.End - s.Start
	}
	ids := map[tracing.SpanID]bool{}
	for _, r := range records {
		ids[r.Span] = true
	}
	stats := c.latencies(records)
	for i, r := range records {
		s := spanView{Record: r.Record, Entry: c.graphs.entryName(r.Entry), Process: r.process, Depth: depths[i], Orphan: !r.Parent.IsZero() && !ids[r.Parent]}
		s.Named = s.Entry
		if path.Total > 0 {
			s.Critical = rounded(float64(critical[r.Span][r.Kind]) / float64(path.Total))
		}
		h := stats[latencyKey{r.Kind == tracing.Client, methodOf(r)}]
		if share, ok := percentile(h, r.Duration); ok {
			share = rounded(share)
			s.Percentile, s.Of = &share, h.Count()
		}
		v.Start, v.End = min(v.Start, r.Start), max(v.End, r.Start+int64(r.Duration))
		v.Spans = append(v.Spans, s)
	}
	for _, other := range c.traces.order {
		if other != t && other.causedBy(id) && len(v.Linked) < maxNeighbours {
			v.Linked = append(v.Linked, c.line(other))
		}
	}
	return v, nil
}

// latencyKey says whose latencies: those of a method at its clients or its servers, or
// those of an entry.
type latencyKey struct {
	client bool
	method string
}

// methodOf gives what the call graph calls the callee of a record: nothing for an
// entry, which is named by its entry.
func methodOf(r *keptRecord) string {
	if r.Path != "" {
		return "entry " + r.Entry.String()
	}
	return r.Method
}

// latencies gives the distributions over the last hour of the methods in a trace.
func (c *Console) latencies(records []*keptRecord) map[latencyKey]callgraph.Histogram {
	wanted := map[latencyKey]bool{}
	for _, r := range records {
		wanted[latencyKey{r.Kind == tracing.Client, methodOf(r)}] = true
	}
	keyOf := func(k callgraph.Key) latencyKey {
		if k.Callee == "" {
			return latencyKey{false, "entry " + k.Entry.String()}
		}
		return latencyKey{k.Side == callgraph.Client, k.Callee}
	}
	all := sums{}
	for _, r := range c.graphs.rounds {
		all.add(&r.packed, func(k callgraph.Key) bool { return wanted[keyOf(k)] })
	}
	stats := map[latencyKey]callgraph.Stats{}
	for k, t := range all {
		at := keyOf(k.Value())
		stats[at] = stats[at].Plus(t.stats())
	}
	out := map[latencyKey]callgraph.Histogram{}
	for k, s := range stats {
		out[k] = s.Latency
	}
	return out
}
