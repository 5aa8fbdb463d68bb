// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// The bounds of the traces that are kept: beyond them the oldest go.
const (
	maxTraces      = 20_000
	maxTraceBytes  = 64 << 20
	maxTraceSpans  = 2_000  // of one trace
	maxRecordsEach = 10_000 // of one answer
	maxRecordText  = 1 << 10
	maxNotes       = 64
)

// recordsAnswer is what is read of a process's page of kept calls.
type recordsAnswer struct {
	Records []tracing.Record
	Next    uint64 // number to ask with next time
	Lost    uint64 // records that were gone before we asked
}

// readRecords reads record by record, so that bounds hold before memory is taken.
func readRecords(r io.Reader) (*recordsAnswer, error) {
	dec := json.NewDecoder(r)
	if err := expect(dec, json.Delim('{')); err != nil {
		return nil, err
	}
	a := &recordsAnswer{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch name {
		case "next":
			err = dec.Decode(&a.Next)
		case "lost":
			err = dec.Decode(&a.Lost)
		case "records":
			err = a.readList(dec)
		default:
			var skip json.RawMessage
			err = dec.Decode(&skip)
		}
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
	}
	return a, expect(dec, json.Delim('}'))
}

func (a *recordsAnswer) readList(dec *json.Decoder) error {
	if t, err := dec.Token(); err != nil || t == nil {
		return err
	} else if t != json.Delim('[') {
		return fmt.Errorf("%v instead of a list", t)
	}
	for dec.More() {
		var r tracing.Record
		if err := dec.Decode(&r); err != nil {
			return err
		}
		if len(a.Records) < maxRecordsEach {
			cleanRecord(&r)
			a.Records = append(a.Records, r)
		}
	}
	return expect(dec, json.Delim(']'))
}

// cleanRecord cuts what is too long.
func cleanRecord(r *tracing.Record) {
	for _, s := range []*string{&r.Kept, &r.State, &r.Named, &r.Method, &r.Caller, &r.Peer, &r.Class, &r.Code, &r.Reason, &r.Message, &r.Path, &r.Scheme} {
		*s = cut(*s, maxRecordText)
	}
	r.Notes = r.Notes[:min(len(r.Notes), maxNotes)]
	for i := range r.Notes {
		r.Notes[i].Key, r.Notes[i].Value = cut(r.Notes[i].Key, 200), cut(r.Notes[i].Value, maxRecordText)
	}
	r.Links = r.Links[:min(len(r.Links), maxNotes)]
	r.Duration = max(r.Duration, 0)
}

// A kept record knows which process has kept it.
type keptRecord struct {
	tracing.Record
	process string
}

// trace is what all processes have kept of one request.
type trace struct {
	id      tracing.TraceID
	records []keptRecord
	bytes   int
	number  uint64 // traces come in this order
	cut     bool   // it has more spans than are kept
}

// traces are the traces that are kept.
type traces struct {
	byID   map[tracing.TraceID]*trace
	order  []*trace // the oldest first
	bytes  int
	number uint64
	gone   uint64 // traces that had to go
}

func newTraces() *traces { return &traces{byID: map[tracing.TraceID]*trace{}} }

func (t *traces) add(process string, records []tracing.Record) {
	for i := range records {
		r := &records[i]
		if r.Trace.IsZero() {
			continue
		}
		one := t.byID[r.Trace]
		if one == nil {
			t.number++
			one = &trace{id: r.Trace, number: t.number}
			t.byID[r.Trace] = one
			t.order = append(t.order, one)
		}
		if len(one.records) >= maxTraceSpans {
			one.cut = true
			continue
		}
		if slices.ContainsFunc(one.records, func(k keptRecord) bool {
			return k.Span == r.Span && k.Kind == r.Kind && k.Attempt == r.Attempt && k.Start == r.Start
		}) {
			continue // pulled twice
		}
		size := 400 + len(r.Method) + len(r.Caller) + len(r.Message) + len(r.Path) + len(r.Peer)
		for _, n := range r.Notes {
			size += 32 + len(n.Key) + len(n.Value)
		}
		one.records = append(one.records, keptRecord{*r, process})
		one.bytes += size
		t.bytes += size
	}
	for len(t.order) > maxTraces || t.bytes > maxTraceBytes && len(t.order) > 1 {
		old := t.order[0]
		t.order[0] = nil
		t.order = t.order[1:]
		t.bytes -= old.bytes
		t.gone++
		delete(t.byID, old.id)
	}
}

// root gives the record that began it: the one without a parent, else the earliest
// whose parent was not kept.
func (t *trace) root() *keptRecord {
	var best *keptRecord
	for i := range t.records {
		r := &t.records[i]
		if r.Parent.IsZero() && r.Kind == tracing.Server { // an entry sees what its users see
			return r
		}
		if best == nil || rootRank(r) < rootRank(best) || rootRank(r) == rootRank(best) && r.Start < best.Start {
			best = r
		}
	}
	return best
}

// causedBy reports whether a trace works on what another one has put into a queue.
func (t *trace) causedBy(id tracing.TraceID) bool {
	return slices.ContainsFunc(t.records, func(r keptRecord) bool {
		return slices.ContainsFunc(r.Links, func(l tracing.Identity) bool { return l.Trace == id })
	})
}

func rootRank(r *keptRecord) int {
	if r.Parent.IsZero() {
		return 0
	}
	return 1
}

// failed reports whether a record is of a call that did not end well.
func failed(r *keptRecord) bool { return r.Class != "" && r.Class != "ok" }

// A traceFilter says which traces are wanted. Empty fields want all. All that concern a
// span must be true of the same one.
type traceFilter struct {
	entry    string
	name     func(tracing.Entry) string // of an entry: a process alone may not know it
	service  string                     // of the callee: "moments.v1.PostService"
	from, to string                     // an edge: full names, from is a method or an entry
	code     string                     // class, code or reason of the end
	failed   bool                       // some call of it failed
	min, max time.Duration
	key, val string // of a note, or path, peer, status, kept, process
	text     string // anywhere
	since    int64  // Unix nanoseconds
	until    int64
}

func (f *traceFilter) wants(t *trace) bool {
	root := t.root()
	if root == nil || root.Start < f.since || f.until != 0 && root.Start > f.until {
		return false
	}
	if f.entry != "" && !slices.ContainsFunc(t.records, func(r keptRecord) bool { return f.name(r.Entry) == f.entry }) {
		return false
	}
	if f.failed && !slices.ContainsFunc(t.records, func(r keptRecord) bool { return failed(&r) }) {
		return false
	}
	// Duration alone is that of the whole; with a service or an edge that of the span.
	spans := f.service != "" || f.to != ""
	if !spans && !f.lasts(root) {
		return false
	}
	if !spans && f.code == "" && f.key == "" && f.text == "" {
		return true
	}
	for i := range t.records {
		r := &t.records[i]
		if f.wantsSpan(r) && (!spans || f.lasts(r)) {
			return true
		}
	}
	return false
}

func (f *traceFilter) lasts(r *keptRecord) bool {
	return r.Duration >= f.min && (f.max == 0 || r.Duration <= f.max)
}

func (f *traceFilter) wantsSpan(r *keptRecord) bool {
	caller := r.Caller
	if caller == "" {
		caller = f.name(r.Entry)
	}
	return (f.service == "" || serviceOf(r.Method) == f.service) &&
		(f.to == "" || r.Method == f.to) &&
		(f.from == "" || caller == f.from) &&
		(f.code == "" || strings.EqualFold(r.Class, f.code) || strings.EqualFold(r.Code, f.code) || strings.EqualFold(r.Reason, f.code)) &&
		(f.key == "" || f.has(r)) &&
		(f.text == "" || contains(r, f.text))
}

// has finds an attribute: a note, or a field of the record by its name.
func (f *traceFilter) has(r *keptRecord) bool {
	equal := func(v string) bool { return v != "" && (f.val == "" || strings.Contains(v, f.val)) }
	switch f.key {
	case "path":
		return equal(r.Path)
	case "peer":
		return equal(r.Peer)
	case "kept":
		return equal(r.Kept)
	case "process":
		return equal(r.process)
	case "status":
		return r.Status != 0 && equal(fmt.Sprint(r.Status))
	}
	return slices.ContainsFunc(r.Notes, func(n tracing.Note) bool { return n.Key == f.key && (f.val == "" || strings.Contains(n.Value, f.val)) })
}

func contains(r *keptRecord, text string) bool {
	text = strings.ToLower(text)
	for _, s := range []string{r.Method, r.Caller, r.Named, r.Message, r.Path, r.Peer, r.process, r.Trace.String()} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	return slices.ContainsFunc(r.Notes, func(n tracing.Note) bool {
		return strings.Contains(strings.ToLower(n.Key+"="+n.Value), text)
	})
}

// find gives the traces that are wanted, the newest first, and how many there are.
func (t *traces) find(f *traceFilter, most int) (found []*trace, all int) {
	for i := len(t.order) - 1; i >= 0; i-- {
		if one := t.order[i]; f.wants(one) {
			if all++; len(found) < most {
				found = append(found, one)
			}
		}
	}
	return found, all
}

// spans gives the records as the critical path wants them.
func (t *trace) spans() []callgraph.Span {
	out := make([]callgraph.Span, 0, len(t.records))
	for i := range t.records {
		r := &t.records[i]
		side := callgraph.Server
		if r.Kind <= tracing.Consumer {
			side = callgraph.Side(r.Kind)
		}
		method := r.Method
		if r.Path != "" {
			method = "" // the entry itself
		}
		out = append(out, callgraph.Span{ID: r.Span, Parent: r.Parent, Side: side, Method: method, Start: r.Start, End: r.Start + int64(r.Duration)})
	}
	return out
}

// maxPaths is how many traces the critical path of an entry stands on.
const maxPaths = 200

// criticalPaths gives the critical paths of kept traces of an entry. A fair sample is
// that of requests which were chosen before anybody knew how they would end; where there
// is none, because nothing is sampled, those that were kept for failing or being slow
// are better than nothing, and told to be that. What works on the entry's messages is
// asked for only if the entry itself is not seen: nobody waits for it.
func (c *Console) criticalPaths(entry string, want span) (paths []callgraph.Path, sampled bool) {
	t := c.traces
	var best [numFair][]*trace
	for i := len(t.order) - 1; i >= 0; i-- {
		one := t.order[i]
		root := one.root()
		if root == nil || c.graphs.entryName(root.Entry) != entry || one.cut ||
			root.Start < want.from.UnixNano() || root.Start > want.to.UnixNano() {
			continue
		}
		if f := fairnessOf(root); len(best[f]) < maxPaths {
			best[f] = append(best[f], one)
		}
	}
	for f, traces := range best[:notWhole] {
		for _, one := range traces {
			if path, err := callgraph.CriticalPath(one.spans()); err == nil {
				paths = append(paths, path)
			}
		}
		if len(paths) > 0 {
			return paths, fairness(f) < keptRequest
		}
	}
	return nil, false
}

// fairness is how well a trace stands for the requests of its entry, the best first.
type fairness int

const (
	sampledRequest fairness = iota
	sampledMessage
	keptRequest
	keptMessage
	notWhole // its beginning was not kept
	numFair
)

func fairnessOf(root *keptRecord) fairness {
	sampled, message := strings.Contains(root.Kept, "sampled"), root.Kind == tracing.Consumer
	switch {
	case sampled && !message:
		return sampledRequest
	case sampled:
		return sampledMessage
	case !root.Parent.IsZero() && root.Path == "": // an HTTP entry may have been told of a parent
		return notWhole
	case !message:
		return keptRequest
	}
	return keptMessage
}

// ordered gives the records of a trace as a tree, depth first: parents before their
// calls, calls by their start.
func (t *trace) ordered() (records []*keptRecord, depths []int) {
	byParent := map[tracing.SpanID][]*keptRecord{}
	ids := map[tracing.SpanID]bool{}
	for i := range t.records {
		ids[t.records[i].Span] = true
	}
	var roots []*keptRecord
	for i := range t.records {
		r := &t.records[i]
		if r.Parent.IsZero() || r.Parent == r.Span || !ids[r.Parent] {
			roots = append(roots, r)
		} else {
			byParent[r.Parent] = append(byParent[r.Parent], r)
		}
	}
	byStart := func(a, b *keptRecord) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Span.String(), b.Span.String()))
	}
	seen := map[*keptRecord]bool{}
	var walk func(list []*keptRecord, depth int)
	walk = func(list []*keptRecord, depth int) {
		slices.SortFunc(list, byStart)
		for _, r := range list {
			if seen[r] {
				continue
			}
			seen[r] = true
			records, depths = append(records, r), append(depths, min(depth, 64))
			walk(byParent[r.Span], depth+1)
		}
	}
	walk(roots, 0)
	for i := range t.records { // parents in a circle
		if r := &t.records[i]; !seen[r] {
			walk([]*keptRecord{r}, 0)
		}
	}
	return records, depths
}

// percentile gives the share of calls that took at most d.
func percentile(h callgraph.Histogram, d time.Duration) (share float64, ok bool) {
	total := h.Count()
	if total == 0 {
		return 0, false
	}
	at, below := callgraph.BucketOf(d), 0.
	for i := range at {
		below += float64(h.At(i))
	}
	var lower time.Duration
	if at > 0 {
		lower = callgraph.BucketBound(at - 1)
	}
	if width := callgraph.BucketBound(at) - lower; at < callgraph.NumBuckets-1 && width > 0 {
		below += float64(h.At(at)) * float64(d-lower) / float64(width)
	} else {
		below += float64(h.At(at))
	}
	return below / float64(total), true
}
