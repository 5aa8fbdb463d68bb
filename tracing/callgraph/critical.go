// SPDX-License-Identifier: Apache-2.0

package callgraph

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
)

// Span is one span of a kept trace. A call has two, one of either side.
type Span struct {
	ID, Parent tracing.SpanID // Parent is zero at the root
	Side       Side
	Method     string // full name of the callee; empty for the entry
	Start, End int64  // Unix nanoseconds by the clock of its own process
}

// MaxSpans is the largest number of spans that a trace may have.
const MaxSpans = 100_000

// maxTime is in the year 2116: differences and shifts of such times do not go round.
const maxTime = 1 << 62

// Path is the critical path of a trace: what its end-to-end time was spent on. To
// make the request faster one of these parts must become shorter.
type Path struct {
	Total time.Duration
	Steps []Step // in order of time, without gaps

	waited map[[2]string]time.Duration // by caller and callee: what was under way there
	self   map[string]time.Duration    // by method
}

// Step is a stretch of time that passed in one span itself, not in calls that it
// waited for. Times are those of the root's clock.
type Step struct {
	Span       int // index of the spans given
	Start, End int64
}

// CriticalPath finds the critical path of one trace: from the end of the root
// backward, always into the child that ended last (Zhang, Ramanathan et al., CRISP,
// USENIX ATC 2022). Children that outlive their parent are cut off, for it did not
// wait; consumers of a queue are left out. Where the clocks of two processes are
// apart, a server's span is moved into the middle of its client's. The spans are
// not trusted: unknown parents, circles and times that go backward do no harm; there
// is an error when there are too many, none is a root, or a time is absurd.
func CriticalPath(spans []Span) (Path, error) {
	if len(spans) > MaxSpans {
		return Path{}, fmt.Errorf("critical path: %d spans, more than %d", len(spans), MaxSpans)
	}
	for i, s := range spans {
		if min(s.Start, s.End) < 0 || max(s.Start, s.End) > maxTime {
			return Path{}, fmt.Errorf("critical path: span %d, %d to %d, is not in this age", i, s.Start, s.End)
		}
	}
	w := pathWalk{spans: spans, children: make([][]int, len(spans)), visited: make([]bool, len(spans))}
	w.path = Path{waited: map[[2]string]time.Duration{}, self: map[string]time.Duration{}}
	root, err := w.findRoot()
	if err != nil {
		return Path{}, err
	}
	r := spans[root]
	w.visited[root] = true
	w.walk(root, r.Start, max(r.End, r.Start), 0, visit{})
	slices.Reverse(w.path.Steps)
	w.path.Total = time.Duration(max(r.End, r.Start) - r.Start)
	return w.path, nil
}

type pathWalk struct {
	spans    []Span
	children [][]int
	visited  []bool
	path     Path
}

func (w *pathWalk) findRoot() (int, error) {
	byID := make(map[tracing.SpanID]int, len(w.spans))
	for i, s := range w.spans {
		if _, twice := byID[s.ID]; !twice {
			byID[s.ID] = i
		}
	}
	root := -1
	for i, s := range w.spans {
		parent, known := byID[s.Parent]
		if !s.Parent.IsZero() && known {
			w.children[parent] = append(w.children[parent], i)
			continue
		}
		if root < 0 || w.betterRoot(s, w.spans[root]) {
			root = i
		}
	}
	if root < 0 {
		return 0, errors.New("critical path: no span is a root")
	}
	return root, nil
}

// betterRoot prefers a true root to a span whose parent is missing, then the
// longer one.
func (w *pathWalk) betterRoot(a, b Span) bool {
	if a.Parent.IsZero() != b.Parent.IsZero() {
		return a.Parent.IsZero()
	}
	return a.End-a.Start > b.End-b.Start
}

// visit is where a walk stands: the method in which it is, and who called it.
type visit struct {
	caller, method string
	inside         bool // not the root
}

// walk adds the steps between from and to that span i accounts for, last first.
// shift is added to its clock. A parent is at most MaxSpans deep.
func (w *pathWalk) walk(i int, from, to, shift int64, at visit) {
	s := w.spans[i]
	switch {
	case !at.inside:
		at = visit{method: s.Method, inside: true}
	case s.Method != at.method || s.Side == Client || s.Side == Producer:
		at = visit{caller: at.method, method: s.Method, inside: true}
		w.path.waited[[2]string{at.caller, at.method}] += time.Duration(to - from)
	}
	type child struct {
		span              int
		start, end, shift int64
	}
	var children []child
	for _, c := range w.children[i] {
		cs := w.spans[c]
		if w.visited[c] || cs.Side == Consumer {
			continue
		}
		w.visited[c] = true
		move := shift
		start, end := cs.Start+move, max(cs.End, cs.Start)+move
		if s.Side == Client && cs.Side == Server && (start < from || end > to) && end-start <= to-from {
			middle := from + (to-from-(end-start))/2
			move += middle - start
			start, end = middle, middle+(end-start)
		}
		children = append(children, child{c, max(start, from), min(end, to), move})
	}
	slices.SortFunc(children, func(a, b child) int {
		return cmp.Or(cmp.Compare(b.end, a.end), cmp.Compare(b.start, a.start), cmp.Compare(a.span, b.span))
	})
	reached := to
	for _, c := range children {
		if c.end > reached || c.start >= c.end { // it ran beside the one that was waited for
			continue
		}
		w.step(i, at, c.end, reached)
		w.walk(c.span, c.start, c.end, c.shift, at)
		reached = c.start
	}
	w.step(i, at, from, reached)
}

func (w *pathWalk) step(i int, at visit, from, to int64) {
	if from >= to {
		return
	}
	w.path.Steps = append(w.path.Steps, Step{Span: i, Start: from, End: to})
	w.path.self[at.method] += time.Duration(to - from)
}

// WithCritical gives the graph with the shares that nodes and edges have in the
// critical paths of kept traces of its entry. Traces are a sample: Graph.Traces says
// how large.
func (g *Graph) WithCritical(paths ...Path) *Graph {
	out := *g
	out.Nodes, out.Edges = slices.Clone(g.Nodes), slices.Clone(g.Edges)
	out.Traces = len(paths)
	var total time.Duration
	waited, self := map[[2]string]time.Duration{}, map[string]time.Duration{}
	for _, p := range paths {
		total += p.Total
		for k, d := range p.waited {
			waited[k] += d
		}
		for k, d := range p.self {
			self[k] += d
		}
	}
	name := func(n *Node) string {
		if n.Kind == EntryNode {
			return AtEntryName
		}
		return n.Name
	}
	share := func(d time.Duration) float64 {
		if total <= 0 {
			return 0
		}
		return min(max(float64(d)/float64(total), 0), 1)
	}
	for i := range out.Nodes {
		out.Nodes[i].Critical = share(self[name(&out.Nodes[i])])
	}
	for i := range out.Edges {
		e := &out.Edges[i]
		e.Critical = 0
		if !e.Link {
			e.Critical = share(waited[[2]string{name(&out.Nodes[e.From]), name(&out.Nodes[e.To])}])
		}
	}
	return &out
}
