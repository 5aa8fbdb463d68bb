// SPDX-License-Identifier: Apache-2.0

package callgraph

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
)

// Graph is what called what in a period. Nodes and edges are in order, so the same
// counts give the same graph.
type Graph struct {
	Title    string
	Duration time.Duration // length of the period; 0 is unknown
	Nodes    []Node        // entries first, then by ID
	Edges    []Edge        // by From, To, Link
	Requests uint64        // that the graph's entries have served

	// Overflow is the number of calls that were counted without their entry and
	// caller, because a process had no slot left. They are in no graph of one entry.
	Overflow uint64
	// HiddenNodes and HiddenEdges are how many a filter has left out.
	HiddenNodes, HiddenEdges int

	// Compared says that Base of nodes and edges holds the counts of another period,
	// of length BaseDuration.
	Compared     bool
	BaseDuration time.Duration

	// Traces is the number of kept traces that the critical shares stand on.
	Traces int
	// Unfair says that those were kept for failing or being slow, and are no fair sample.
	Unfair bool
}

// NodeKind says what a node stands for.
type NodeKind uint8

// The kinds.
const (
	MethodNode   NodeKind = 0
	EntryNode    NodeKind = 1 // where requests come in
	UnknownNode  NodeKind = 2 // callers that did not say who they are
	OverflowNode NodeKind = 3 // callers that had no slot
)

// String gives the name of the kind.
func (k NodeKind) String() string {
	switch k {
	case EntryNode:
		return "entry"
	case UnknownNode:
		return "unknown"
	case OverflowNode:
		return "overflow"
	default:
		return "method"
	}
}

// Node is a method, or an entry.
type Node struct {
	ID    string // identifies the node in graphs of all periods
	Kind  NodeKind
	Name  string // full method name, or the name of the entry
	Mark  Mark
	Cycle bool // calls itself, directly or over others

	Served Stats // as the node itself has counted: of an entry its own requests
	Called Stats // as its callers have counted

	Base     Stats   // Seen of the other period, see Graph.Compared
	Critical float64 // share of the end-to-end time that passed in the node itself
}

// Seen gives the node's own counts, or its callers' when it has none.
func (n *Node) Seen() Stats {
	if n.Served.Calls() > 0 {
		return n.Served
	}
	return n.Called
}

// Service gives the part of a method's name before the slash; the name of an entry.
func (n *Node) Service() string {
	if i := strings.LastIndexByte(n.Name, '/'); i > 0 && n.Kind == MethodNode {
		return n.Name[:i]
	}
	return n.Name
}

// Method gives the part of a method's name after the slash; the name of an entry.
func (n *Node) Method() string {
	if n.Kind == MethodNode {
		return n.Name[strings.LastIndexByte(n.Name, '/')+1:]
	}
	return n.Name
}

// Edge is the calls of one node by another.
type Edge struct {
	From, To int  // indices of Nodes
	Link     bool // over a queue: nobody waits
	Cycle    bool // part of a cycle

	Client Stats // as the caller has counted
	Server Stats // as the callee has counted

	Base     Stats   // Seen of the other period, see Graph.Compared
	Critical float64 // share of the end-to-end time that was spent waiting for it
}

// Seen gives the counts of the caller, who sees what its users see, or the callee's
// when the caller has none.
func (e *Edge) Seen() Stats {
	if e.Client.Calls() > 0 {
		return e.Client
	}
	return e.Server
}

// Check compares both ends. It means nothing for the link of a queue and for callers
// that do not count.
func (e *Edge) Check() Check { return CheckEdge(e.Client, e.Server) }

// TwoSided reports whether both ends count, so that Check means something.
func (e *Edge) TwoSided() bool {
	return !e.Link && e.Client.AttemptCount() > 0 && e.Server.Calls() > 0
}

// Build makes the graph of one entry or of several; without any, of the whole
// period. length is the length of the period, for rates.
func Build(p Period, length time.Duration, entries ...tracing.Entry) *Graph {
	b := builder{nodes: map[string]*Node{}, edges: map[edgeKey]*edgeTally{}, names: map[tracing.Entry]string{}}
	for _, e := range p.Entries {
		b.names[e.ID] = e.Name
	}
	g := &Graph{Title: "all entries", Duration: length}
	if len(entries) > 0 {
		titles := make([]string, len(entries))
		for i, e := range entries {
			titles[i] = b.entryName(e)
			b.entryNode(e)
		}
		g.Title = strings.Join(titles, ", ")
	}
	for i := range p.Rows {
		row := &p.Rows[i]
		if row.Overflow() && row.Side != Client && row.Side != Producer {
			g.Overflow = add(g.Overflow, row.Calls())
		}
		if len(entries) == 0 || slices.Contains(entries, row.Entry) && !row.Overflow() {
			b.add(row)
		}
	}
	b.finish(g, p.Marks)
	return g
}

type edgeKey struct {
	from, to string
	link     bool
}

type edgeTally struct{ client, server tally }

type builder struct {
	nodes map[string]*Node
	edges map[edgeKey]*edgeTally
	names map[tracing.Entry]string
}

func (b *builder) entryName(e tracing.Entry) string {
	switch name, ok := b.names[e]; {
	case ok:
		return name
	case e == 0:
		return "(unknown entry)"
	default:
		return fmt.Sprintf("entry %08x", uint32(e))
	}
}

func (b *builder) node(id string, kind NodeKind, name string) string {
	if b.nodes[id] == nil {
		b.nodes[id] = &Node{ID: id, Kind: kind, Name: name}
	}
	return id
}

func (b *builder) entryNode(e tracing.Entry) string {
	return b.node(fmt.Sprintf("entry:%08x", uint32(e)), EntryNode, b.entryName(e))
}

func (b *builder) method(entry tracing.Entry, name string) string {
	switch name {
	case AtEntryName:
		return b.entryNode(entry)
	case UnknownCallerName:
		return b.node("unknown", UnknownNode, name)
	case OverflowCallerName:
		return b.node("overflow", OverflowNode, name)
	}
	return b.node("method:"+name, MethodNode, name)
}

func (b *builder) add(row *Row) {
	from := b.method(row.Entry, row.Caller)
	if row.Callee == AtEntryName { // the entry's own requests: they have no caller
		from = ""
	}
	key := edgeKey{from: from, to: b.method(row.Entry, row.Callee), link: row.Side.Link()}
	e := b.edges[key]
	if e == nil {
		e = new(edgeTally)
		b.edges[key] = e
	}
	if row.Side == Client || row.Side == Producer {
		e.client.add(&row.Stats)
	} else {
		e.server.add(&row.Stats)
	}
}

func (b *builder) finish(g *Graph, marks []NodeMark) {
	served, called := map[string]*tally{}, map[string]*tally{}
	for id := range b.nodes {
		served[id], called[id] = new(tally), new(tally)
	}
	edges := make(map[edgeKey]*Edge, len(b.edges))
	for key, t := range b.edges {
		e := &Edge{Client: t.client.stats(), Server: t.server.stats()}
		served[key.to].add(&e.Server)
		called[key.to].add(&e.Client)
		if key.from != "" {
			edges[key] = e
		}
	}
	byNode := make(map[string]Mark, len(marks))
	for _, m := range marks {
		byNode[m.Node] = m.Mark
	}
	for id, n := range b.nodes {
		n.Served, n.Called = served[id].stats(), called[id].stats()
		if n.Kind == EntryNode {
			g.Requests = add(g.Requests, n.Served.Calls())
		}
		own, marked := byNode[n.Name]
		n.Mark = own
		if m, ok := byNode[n.Service()]; ok && (!marked || worse(m, own)) {
			n.Mark = m
		}
	}
	g.fill(b.nodes, edges)
}

// fill puts nodes and edges in order into the graph.
func (g *Graph) fill(nodes map[string]*Node, edges map[edgeKey]*Edge) {
	g.Nodes, g.Edges = make([]Node, 0, len(nodes)), make([]Edge, 0, len(edges))
	index := make(map[string]int, len(nodes))
	for _, n := range slices.SortedFunc(maps.Values(nodes), compareNodes) {
		index[n.ID] = len(g.Nodes)
		g.Nodes = append(g.Nodes, *n)
	}
	keys := slices.SortedFunc(maps.Keys(edges), func(a, b edgeKey) int {
		return cmp.Or(cmp.Compare(index[a.from], index[b.from]), cmp.Compare(index[a.to], index[b.to]), compareBool(a.link, b.link))
	})
	for _, key := range keys {
		e := *edges[key]
		e.From, e.To, e.Link = index[key.from], index[key.to], key.link
		g.Edges = append(g.Edges, e)
	}
	g.markCycles()
}

func compareNodes(a, b *Node) int {
	if a.Kind != b.Kind && (a.Kind == EntryNode || b.Kind == EntryNode) {
		return compareBool(b.Kind == EntryNode, a.Kind == EntryNode)
	}
	return strings.Compare(a.ID, b.ID)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// markCycles marks the edges within a strongly connected component, and its nodes
// (Tarjan, Depth-First Search and Linear Graph Algorithms, 1972).
func (g *Graph) markCycles() {
	out := g.outgoing()
	component := make([]int, len(g.Nodes)) // 0 is none yet
	index, low := make([]int, len(g.Nodes)), make([]int, len(g.Nodes))
	var stack []int
	count, components := 0, 0
	var visit func(v int)
	visit = func(v int) {
		count++
		index[v], low[v] = count, count
		stack = append(stack, v)
		for _, e := range out[v] {
			switch w := g.Edges[e].To; {
			case index[w] == 0:
				visit(w)
				low[v] = min(low[v], low[w])
			case component[w] == 0:
				low[v] = min(low[v], index[w])
			}
		}
		if low[v] != index[v] {
			return
		}
		components++
		for {
			w := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			component[w] = components
			if w == v {
				return
			}
		}
	}
	for v := range g.Nodes {
		if index[v] == 0 {
			visit(v)
		}
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		if component[e.From] == component[e.To] {
			e.Cycle = true
			g.Nodes[e.From].Cycle, g.Nodes[e.To].Cycle = true, true
		}
	}
}

// outgoing gives the indices of the edges that leave each node.
func (g *Graph) outgoing() [][]int {
	out := make([][]int, len(g.Nodes))
	for i := range g.Edges {
		out[g.Edges[i].From] = append(out[g.Edges[i].From], i)
	}
	return out
}

// Rate gives calls per second; zero when the length of the period is unknown.
func (g *Graph) Rate(s Stats) float64 { return rate(s.Calls(), g.Duration) }

func rate(calls uint64, length time.Duration) float64 {
	if length <= 0 {
		return 0
	}
	return float64(calls) / length.Seconds()
}

// PerRequest gives calls for each request of the graph's entries; zero when these
// were not counted.
func (g *Graph) PerRequest(s Stats) float64 {
	if g.Requests == 0 {
		return 0
	}
	return float64(s.Calls()) / float64(g.Requests)
}

// Change gives the ratio of a rate to that of the other period: positive infinity
// for what is new, zero for what is gone, 1 where there was nothing either way.
func (g *Graph) Change(now, base Stats) float64 {
	a, b := float64(now.Calls()), float64(base.Calls())
	if g.Duration > 0 && g.BaseDuration > 0 {
		a, b = g.Rate(now), rate(base.Calls(), g.BaseDuration)
	}
	switch {
	case a == b:
		return 1
	case b == 0:
		return math.Inf(1)
	}
	return a / b
}

// Compare gives the graph of a period with the counts of another one, base, beside
// its own. It has the nodes and edges of both, so it is laid out the same whichever
// of the two is looked at.
func Compare(g, base *Graph) *Graph {
	out := *g
	out.Compared, out.BaseDuration = true, base.Duration
	out.HiddenNodes, out.HiddenEdges = max(g.HiddenNodes, base.HiddenNodes), max(g.HiddenEdges, base.HiddenEdges)
	nodes := make(map[string]*Node, len(g.Nodes))
	for _, n := range g.Nodes {
		n.Base, n.Cycle = Stats{}, false
		nodes[n.ID] = &n
	}
	for i := range base.Nodes {
		old := &base.Nodes[i]
		if nodes[old.ID] == nil {
			nodes[old.ID] = &Node{ID: old.ID, Kind: old.Kind, Name: old.Name}
		}
		nodes[old.ID].Base = old.Seen()
	}
	edges := make(map[edgeKey]*Edge, len(g.Edges))
	for _, e := range g.Edges {
		e.Base, e.Cycle = Stats{}, false
		edges[edgeKey{g.Nodes[e.From].ID, g.Nodes[e.To].ID, e.Link}] = &e
	}
	for i := range base.Edges {
		old := &base.Edges[i]
		key := edgeKey{base.Nodes[old.From].ID, base.Nodes[old.To].ID, old.Link}
		if edges[key] == nil {
			edges[key] = new(Edge)
		}
		edges[key].Base = old.Seen()
	}
	out.fill(nodes, edges)
	return &out
}

// Filter says what of a graph to keep.
type Filter struct {
	// MinShare hides minor edges: those with fewer calls than this share of the
	// busiest edge's. Edges on which calls failed stay.
	MinShare float64
	// MaxHops hides what is further away from Around; 0 is no limit.
	MaxHops int
	// Around is the ID of a node from which hops are counted in both directions.
	// Empty is from the entries, and from what nobody calls, downward.
	Around string
}

// Filter gives the part of the graph that f keeps. Nodes that lose all their edges
// go, too.
func (g *Graph) Filter(f Filter) *Graph {
	var busiest uint64
	for i := range g.Edges {
		busiest = max(busiest, g.Edges[i].Seen().Calls(), g.Edges[i].Base.Calls())
	}
	keep := make([]bool, len(g.Edges))
	for i := range g.Edges {
		e := &g.Edges[i]
		calls := max(e.Seen().Calls(), e.Base.Calls())
		keep[i] = float64(calls) >= f.MinShare*float64(busiest) || e.Seen().Failed() > 0
	}
	if f.MaxHops > 0 {
		near := g.hops(keep, f)
		for i, e := range g.Edges {
			// The edges between nodes at the rim stay: both are shown.
			keep[i] = keep[i] && near[e.From] && near[e.To]
		}
	}
	had, has := make([]bool, len(g.Nodes)), make([]bool, len(g.Nodes))
	for i, e := range g.Edges {
		had[e.From], had[e.To] = true, true
		if keep[i] {
			has[e.From], has[e.To] = true, true
		}
	}
	out := *g
	out.Nodes, out.Edges = nil, nil
	index := make([]int, len(g.Nodes))
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if has[i] || n.Kind == EntryNode || n.ID == f.Around || !had[i] && f.MaxHops == 0 {
			index[i] = len(out.Nodes)
			out.Nodes = append(out.Nodes, *n)
		}
	}
	for i, e := range g.Edges {
		if keep[i] {
			e.From, e.To = index[e.From], index[e.To]
			out.Edges = append(out.Edges, e)
		}
	}
	out.HiddenNodes += len(g.Nodes) - len(out.Nodes)
	out.HiddenEdges += len(g.Edges) - len(out.Edges)
	return &out
}

// hops reports which nodes are within f.MaxHops over the edges that are kept.
func (g *Graph) hops(keep []bool, f Filter) []bool {
	next := make([][]int, len(g.Nodes))
	called := make([]bool, len(g.Nodes))
	for i, e := range g.Edges {
		called[e.To] = called[e.To] || e.From != e.To
		if !keep[i] {
			continue
		}
		next[e.From] = append(next[e.From], e.To)
		if f.Around != "" {
			next[e.To] = append(next[e.To], e.From)
		}
	}
	near := make([]bool, len(g.Nodes))
	var rim []int
	for i := range g.Nodes {
		if n := &g.Nodes[i]; f.Around == n.ID || f.Around == "" && (n.Kind == EntryNode || !called[i]) {
			near[i] = true
			rim = append(rim, i)
		}
	}
	for range f.MaxHops {
		var further []int
		for _, v := range rim {
			for _, w := range next[v] {
				if !near[w] {
					near[w] = true
					further = append(further, w)
				}
			}
		}
		rim = further
	}
	return near
}

// Search gives the indices of the nodes whose name or mark has all the words of the
// query in it, whatever the case. An empty query finds nothing.
func (g *Graph) Search(query string) []int {
	words := strings.Fields(strings.ToLower(query))
	var found []int
	for i := range g.Nodes {
		n := &g.Nodes[i]
		text := strings.ToLower(n.Name + " " + n.Mark.Text)
		if len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			found = append(found, i)
		}
	}
	return found
}
