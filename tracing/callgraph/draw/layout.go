// SPDX-License-Identifier: Apache-2.0

package draw

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// Layout is where the nodes and edges of a graph stand, in pixels. Calls go from
// left to right. It depends on the graph's nodes and edges alone, not on their
// counts, so that a live picture does not jump.
type Layout struct {
	Width, Height int
	Nodes         []Box   // by index of Graph.Nodes
	Edges         []Route // by index of Graph.Edges
}

// Box is where a node stands.
type Box struct {
	X, Y, W, H int
	Layer      int // columns from the left
}

// Point is a place in the picture.
type Point struct{ X, Y int }

// Route is the way of an edge, from its caller to its callee: straight between two
// points of the same Y, a curve otherwise.
type Route struct {
	Points []Point
	Back   bool  // against the direction of the others, closing a cycle
	Label  Point // where the edge's label ends, on the left of a node
}

// The bounds of what can be drawn.
const (
	MaxNodes = 10_000
	MaxEdges = 20_000
	// maxBends bounds the memory that edges over many layers take: a chain of
	// thousands, each of which is called by the entry, too. Further edges go straight.
	maxBends = 20_000
)

// ErrTooLarge is in the error for a graph that must be filtered before it is drawn.
var ErrTooLarge = errors.New("draw: graph too large")

const (
	margin    = 24
	minWidth  = 210
	maxWidth  = 280
	height    = 76 // of a node: method, service, counts, mark
	rowHeight = 16 // of an edge that has a label
	portGap   = 4  // of edges without
	layerGap  = 90
	labelRoom = 230 // before a layer, when edges have labels: edges are straight there
	nodeGap   = 28  // room for the loop of a method that calls itself
	bendSize  = 10
)

// vertex is a node, or a bend of an edge that passes a layer.
type vertex struct {
	node       int // -1 for a bend
	layer      int
	h          int
	next, prev []int   // vertices in the layers beside it
	centre     int     // y
	pos        int     // in its layer
	key        float64 // to sort by
}

// segment is an edge as the layout sees it: from the upper layer to the lower, over
// its bends.
type segment struct {
	edge     int
	vertices []int // first and last are nodes
	back     bool
}

type layouter struct {
	g        *callgraph.Graph
	labels   bool
	back     []bool // by edge
	vertices []vertex
	layers   [][]int
	segments []segment
}

// NewLayout lays a graph out: cycles are broken, nodes put into layers, crossings
// reduced by barycentres and positions balanced (Sugiyama, Tagawa and Toda, Methods
// for Visual Understanding of Hierarchical System Structures, 1981). labels says
// whether there must be room for a label at each edge.
func NewLayout(g *callgraph.Graph, labels bool) (*Layout, error) {
	if len(g.Nodes) > MaxNodes || len(g.Edges) > MaxEdges {
		return nil, fmt.Errorf("%w: %d nodes, %d edges; at most %d, %d: filter it by hops or share",
			ErrTooLarge, len(g.Nodes), len(g.Edges), MaxNodes, MaxEdges)
	}
	l := &layouter{g: g, labels: labels}
	l.breakCycles()
	l.assignLayers()
	l.addBends()
	l.order()
	l.place()
	return l.result(), nil
}

// breakCycles finds edges whose reversal leaves no cycle: those that a depth-first
// walk from the entries finds closing one.
func (l *layouter) breakCycles() {
	g := l.g
	l.back = make([]bool, len(g.Edges))
	out := make([][]int, len(g.Nodes))
	called := make([]bool, len(g.Nodes))
	for i, e := range g.Edges {
		if e.From != e.To {
			out[e.From] = append(out[e.From], i)
			called[e.To] = true
		}
	}
	const fresh, open, done = 0, 1, 2
	state := make([]uint8, len(g.Nodes))
	var visit func(v int)
	visit = func(v int) {
		state[v] = open
		for _, i := range out[v] {
			switch w := g.Edges[i].To; state[w] {
			case fresh:
				visit(w)
			case open:
				l.back[i] = true
			}
		}
		state[v] = done
	}
	for _, starts := range []func(int) bool{
		func(v int) bool { return g.Nodes[v].Kind == callgraph.EntryNode },
		func(v int) bool { return !called[v] },
		func(int) bool { return true },
	} {
		for v := range g.Nodes {
			if state[v] == fresh && starts(v) {
				visit(v)
			}
		}
	}
}

// ends gives the ends of an edge, the one in the upper layer first.
func (l *layouter) ends(edge int) (upper, lower int) {
	e := l.g.Edges[edge]
	if l.back[edge] {
		return e.To, e.From
	}
	return e.From, e.To
}

// assignLayers gives each node the length of the longest way to it.
func (l *layouter) assignLayers() {
	n := len(l.g.Nodes)
	l.vertices = make([]vertex, n)
	down := make([][]int, n)
	waiting := make([]int, n)
	for i := range l.g.Edges {
		if a, b := l.ends(i); a != b {
			down[a] = append(down[a], b)
			waiting[b]++
		}
	}
	ready := make([]int, 0, n)
	var sources []int
	for v := range n {
		l.vertices[v].node = v
		if waiting[v] == 0 {
			ready = append(ready, v)
			if l.g.Nodes[v].Kind != callgraph.EntryNode && len(down[v]) > 0 {
				sources = append(sources, v)
			}
		}
	}
	for len(ready) > 0 {
		v := ready[0]
		ready = ready[1:]
		for _, w := range down[v] {
			l.vertices[w].layer = max(l.vertices[w].layer, l.vertices[v].layer+1)
			if waiting[w]--; waiting[w] == 0 {
				ready = append(ready, w)
			}
		}
	}
	// What nobody calls stands beside what it calls, not at the far left.
	for _, v := range sources {
		nearest := math.MaxInt
		for _, w := range down[v] {
			nearest = min(nearest, l.vertices[w].layer)
		}
		l.vertices[v].layer = nearest - 1
	}
}

// addBends puts vertices where edges pass layers, and sizes the nodes.
func (l *layouter) addBends() {
	left, right := make([]int, len(l.g.Nodes)), make([]int, len(l.g.Nodes))
	for i := range l.g.Edges {
		a, b := l.ends(i)
		if a == b {
			continue
		}
		right[a]++
		left[b]++
		s := segment{edge: i, back: l.back[i], vertices: []int{a}}
		from, to := l.vertices[a].layer, l.vertices[b].layer
		if len(l.vertices)-len(l.g.Nodes)+to-from-1 <= maxBends {
			for layer := from + 1; layer < to; layer++ {
				s.vertices = append(s.vertices, len(l.vertices))
				l.vertices = append(l.vertices, vertex{node: -1, layer: layer, h: bendSize})
			}
			chain := append(s.vertices, b)
			for k := 1; k < len(chain); k++ {
				u, v := chain[k-1], chain[k]
				l.vertices[u].next = append(l.vertices[u].next, v)
				l.vertices[v].prev = append(l.vertices[v].prev, u)
			}
		}
		s.vertices = append(s.vertices, b)
		l.segments = append(l.segments, s)
	}
	for v := range l.g.Nodes {
		ports := portGap * max(left[v], right[v])
		if l.labels {
			ports = max(rowHeight*left[v], portGap*right[v])
		}
		l.vertices[v].h = max(height, (ports+rowHeight)&^1)
	}
	depth := 0
	for i := range l.vertices {
		depth = max(depth, l.vertices[i].layer+1)
	}
	l.layers = make([][]int, depth)
	for i := range l.vertices {
		v := &l.vertices[i]
		v.pos = len(l.layers[v.layer])
		l.layers[v.layer] = append(l.layers[v.layer], i)
	}
}

// order puts the vertices of each layer into an order with few crossings: layer
// after layer, forward and back, each is sorted by the mean place of its neighbours.
// The best order found is kept.
func (l *layouter) order() {
	links := 0
	for i := range l.vertices {
		links += len(l.vertices[i].next)
	}
	// The time for huge graphs is bounded by fewer passes.
	passes := min(max(1_000_000/(links+1), 4), 24)
	best := l.copyOrder()
	fewest := l.crossings()
	for pass := 0; pass < passes && fewest > 0; pass++ {
		forward := pass%2 == 0
		for i := range l.layers {
			layer := i
			if !forward {
				layer = len(l.layers) - 1 - i
			}
			l.sortLayer(l.layers[layer], forward)
		}
		if n := l.crossings(); n < fewest {
			fewest, best = n, l.copyOrder()
		}
	}
	l.layers = best
	l.number()
}

func (l *layouter) copyOrder() [][]int {
	c := make([][]int, len(l.layers))
	for i := range l.layers {
		c[i] = slices.Clone(l.layers[i])
	}
	return c
}

func (l *layouter) number() {
	for _, layer := range l.layers {
		for pos, v := range layer {
			l.vertices[v].pos = pos
		}
	}
}

func (l *layouter) sortLayer(layer []int, forward bool) {
	for _, i := range layer {
		v := &l.vertices[i]
		beside := v.prev
		if !forward {
			beside = v.next
		}
		v.key = float64(v.pos)
		if len(beside) > 0 {
			sum := 0
			for _, u := range beside {
				sum += l.vertices[u].pos
			}
			v.key = float64(sum) / float64(len(beside))
		}
	}
	slices.SortStableFunc(layer, func(a, b int) int { return cmp.Compare(l.vertices[a].key, l.vertices[b].key) })
	for pos, v := range layer {
		l.vertices[v].pos = pos
	}
}

// crossings counts the crossings of all layers with a Fenwick tree (Barth, Jünger
// and Mutzel, Simple and Efficient Bilayer Cross Counting, 2002).
func (l *layouter) crossings() int {
	count := 0
	var tree, ends []int
	for i := 0; i+1 < len(l.layers); i++ {
		size := len(l.layers[i+1])
		tree = slices.Grow(tree[:0], size+1)[:size+1]
		clear(tree)
		seen := 0
		for _, v := range l.layers[i] {
			ends = ends[:0]
			for _, w := range l.vertices[v].next {
				ends = append(ends, l.vertices[w].pos)
			}
			// Edges that share an end do not cross: first ask for all, then add all.
			for _, pos := range ends {
				upTo := 0
				for k := pos + 1; k > 0; k &= k - 1 {
					upTo += tree[k]
				}
				count += seen - upTo
			}
			for _, pos := range ends {
				for k := pos + 1; k <= size; k += k & -k {
					tree[k]++
				}
			}
			seen += len(ends)
		}
	}
	return count
}

// place gives each vertex its height: as near to the mean of its neighbours as the
// order and the gaps of its layer allow.
func (l *layouter) place() {
	for _, layer := range l.layers {
		y := 0
		for k, i := range layer {
			if k > 0 {
				y += l.gap(layer[k-1], i)
			}
			l.vertices[i].centre = y
		}
	}
	const passes = 10
	for pass := range passes {
		for i := range l.layers {
			if pass%2 == 0 {
				l.balance(l.layers[i], true)
			} else {
				l.balance(l.layers[len(l.layers)-1-i], false)
			}
		}
	}
	top := math.MaxInt
	for i := range l.vertices {
		top = min(top, l.vertices[i].centre-l.vertices[i].h/2)
	}
	for i := range l.vertices {
		l.vertices[i].centre += margin - top
	}
}

// gap is the distance that the centres of two neighbours in a layer must have.
func (l *layouter) gap(a, b int) int {
	between := nodeGap
	if l.vertices[a].node < 0 && l.vertices[b].node < 0 {
		between = bendSize / 2
	}
	return (l.vertices[a].h+l.vertices[b].h)/2 + between
}

// balance moves a layer to where its neighbours on one side pull it. The least sum
// of squares that keeps order and gaps is an isotonic regression, which is found by
// pooling adjacent violators (Ayer et al., 1955). All is whole numbers but the means,
// so that every machine gives the same picture.
func (l *layouter) balance(layer []int, forward bool) {
	type block struct {
		sum    int // of weight times wish
		weight int
		n      int
	}
	mean := func(b block) float64 { return float64(b.sum) / float64(b.weight) }
	var blocks []block
	offset := 0
	for k, i := range layer {
		if k > 0 {
			offset += l.gap(layer[k-1], i)
		}
		wish, weight := l.wish(&l.vertices[i], forward)
		b := block{sum: (wish - offset) * weight, weight: weight, n: 1}
		for len(blocks) > 0 && mean(blocks[len(blocks)-1]) >= mean(b) {
			last := blocks[len(blocks)-1]
			blocks = blocks[:len(blocks)-1]
			b = block{sum: b.sum + last.sum, weight: b.weight + last.weight, n: b.n + last.n}
		}
		blocks = append(blocks, b)
	}
	k, offset := 0, 0
	for _, b := range blocks {
		y := int(math.Round(mean(b)))
		for range b.n {
			if k > 0 {
				offset += l.gap(layer[k-1], layer[k])
			}
			l.vertices[layer[k]].centre = y + offset
			k++
		}
	}
}

// wish gives where a vertex wants to be, and how much. Bends want it most: a long
// edge is to be straight.
func (l *layouter) wish(v *vertex, forward bool) (y, weight int) {
	beside := v.prev
	if !forward {
		beside = v.next
	}
	if len(beside) == 0 {
		return v.centre, 1
	}
	sum := 0
	for _, u := range beside {
		sum += l.vertices[u].centre
	}
	weight = min(len(beside), 8)
	if v.node < 0 {
		weight = 4
	}
	return sum / len(beside), weight
}

// result gives boxes and routes their places.
func (l *layouter) result() *Layout {
	out := &Layout{Nodes: make([]Box, len(l.g.Nodes)), Edges: make([]Route, len(l.g.Edges))}
	lefts, widths := make([]int, len(l.layers)), make([]int, len(l.layers))
	x := margin
	room := 0
	if l.labels {
		room = labelRoom
	}
	for i, layer := range l.layers {
		for _, v := range layer {
			if node := l.vertices[v].node; node >= 0 {
				widths[i] = max(widths[i], nodeWidth(&l.g.Nodes[node]))
			}
		}
		lefts[i] = x
		x += widths[i] + layerGap + room
	}
	out.Width, out.Height = 2*margin, 2*margin
	for i := range l.vertices {
		v := &l.vertices[i]
		out.Height = max(out.Height, v.centre+v.h/2+margin)
		if v.node >= 0 {
			out.Nodes[v.node] = Box{X: lefts[v.layer], Y: v.centre - v.h/2, W: widths[v.layer], H: v.h, Layer: v.layer}
			out.Width = max(out.Width, lefts[v.layer]+widths[v.layer]+margin)
		}
	}
	l.route(out, lefts, widths, room)
	return out
}

// route gives the edges of each node ports of their own, in the order in which they
// come, and joins these over the bends.
func (l *layouter) route(out *Layout, lefts, widths []int, room int) {
	left, right := make([][]int, len(l.g.Nodes)), make([][]int, len(l.g.Nodes)) // segments
	for i := range l.segments {
		s := &l.segments[i]
		right[s.vertices[0]] = append(right[s.vertices[0]], i)
		left[s.vertices[len(s.vertices)-1]] = append(left[s.vertices[len(s.vertices)-1]], i)
	}
	starts, stops := make([]int, len(l.segments)), make([]int, len(l.segments)) // y
	spread := func(box Box, segments []int, beside func(*segment) int, ports []int) {
		slices.SortStableFunc(segments, func(a, b int) int {
			return cmp.Compare(l.vertices[beside(&l.segments[a])].centre, l.vertices[beside(&l.segments[b])].centre)
		})
		for k, s := range segments {
			ports[s] = box.Y + box.H*(2*k+1)/(2*len(segments))
		}
	}
	for v, box := range out.Nodes {
		spread(box, right[v], func(s *segment) int { return s.vertices[1] }, starts)
		spread(box, left[v], func(s *segment) int { return s.vertices[len(s.vertices)-2] }, stops)
	}
	for i := range l.segments {
		s := &l.segments[i]
		a, b := out.Nodes[s.vertices[0]], out.Nodes[s.vertices[len(s.vertices)-1]]
		points := []Point{{a.X + a.W, starts[i]}}
		for _, v := range s.vertices[1 : len(s.vertices)-1] {
			bend := &l.vertices[v]
			points = append(points, Point{lefts[bend.layer] - room, bend.centre}, Point{lefts[bend.layer] + widths[bend.layer], bend.centre})
		}
		if room > 0 {
			points = append(points, Point{b.X - room, stops[i]})
		}
		points = append(points, Point{b.X, stops[i]})
		if s.back {
			slices.Reverse(points)
		}
		out.Edges[s.edge] = Route{Points: points, Back: s.back, Label: Point{b.X - 14, stops[i] - 4}}
	}
	for i, e := range l.g.Edges {
		if e.From == e.To { // a loop on the upper right corner
			box := out.Nodes[e.From]
			r := box.X + box.W
			out.Edges[i] = Route{Points: []Point{{r - 34, box.Y}, {r - 14, box.Y}}, Back: true, Label: Point{r - 40, box.Y - 4}}
		}
	}
}

// nodeWidth is about the width of the node's texts: what font the reader has is not
// known here.
func nodeWidth(n *callgraph.Node) int {
	return min(max(minWidth, 24+8*cells(n.Method()), 24+7*cells(n.Service())), maxWidth)
}

// cells gives the width of a text in narrow letters; those of East Asia take two.
func cells(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if r >= 0x1100 {
			n++
		}
	}
	return n
}

// fit cuts a text to a width in narrow letters.
func fit(s string, width int) string {
	if cells(s) <= width {
		return s
	}
	n := 1 // the ellipsis
	for i, r := range s {
		if n += cells(string(r)); n > width {
			return s[:i] + "…"
		}
	}
	return s
}
