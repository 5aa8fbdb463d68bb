// SPDX-License-Identifier: Apache-2.0

package draw

import (
	"fmt"
	"math"
	"strings"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// SVG draws the graph as a picture that stands alone or within a page. It follows
// the reader's light or dark scheme; a page may set --callgraph-fg, -node, -muted,
// -bad, -warn, -link and -path. Each node and edge says in a title what it shows, and
// nothing is told by colour alone. labels writes rate, failures and latency on edges.
func SVG(g *callgraph.Graph, labels bool) ([]byte, error) {
	l, err := NewLayout(g, labels)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="callgraph" viewBox="0 0 %d %d" width="%d" height="%d" role="graphics-document document" aria-roledescription="call graph">`+"\n",
		l.Width, l.Height, l.Width, l.Height)
	fmt.Fprintf(&b, "<title>%s</title>\n<desc>%s</desc>\n", xmlText(g.Title), xmlText(summary(g)))
	b.WriteString(svgStyle)
	for i := range g.Edges {
		svgEdge(&b, g, &g.Edges[i], &l.Edges[i], labels)
	}
	for i := range g.Nodes {
		svgNode(&b, g, &g.Nodes[i], l.Nodes[i])
	}
	b.WriteString("</svg>\n")
	return []byte(b.String()), nil
}

const svgStyle = `<style>
.callgraph{--fg:var(--callgraph-fg,#1f2328);--node:var(--callgraph-node,#f6f8fa);--muted:var(--callgraph-muted,#59636e);--bad:var(--callgraph-bad,#c21c2e);--warn:var(--callgraph-warn,#8a5a00);--link:var(--callgraph-link,#0a5bc4);--path:var(--callgraph-path,#7a3fc4);color:var(--fg);font:12px system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif}
@media (prefers-color-scheme:dark){.callgraph{--fg:var(--callgraph-fg,#e6edf3);--node:var(--callgraph-node,#1c2129);--muted:var(--callgraph-muted,#9aa4af);--bad:var(--callgraph-bad,#ff7b72);--warn:var(--callgraph-warn,#e3b341);--link:var(--callgraph-link,#6cb0ff);--path:var(--callgraph-path,#c297ff)}}
.callgraph text{fill:currentColor}
.callgraph .muted{fill:var(--muted);font-size:11px}
.callgraph .name{font-weight:600}
.callgraph rect{fill:var(--node);stroke:currentColor}
.callgraph .entry rect{stroke-width:2}
.callgraph .s1 rect{stroke:var(--warn);stroke-width:2}
.callgraph .s2 rect{stroke:var(--warn);stroke-width:3;stroke-dasharray:8 3}
.callgraph .s3 rect{stroke:var(--bad);stroke-width:4;stroke-dasharray:4 3}
.callgraph .s1 .mark,.callgraph .s2 .mark{fill:var(--warn)}
.callgraph .s3 .mark{fill:var(--bad);font-weight:600}
.callgraph .edge{color:var(--muted)}
.callgraph .edge path{fill:none;stroke:currentColor}
.callgraph .edge .tip{fill:currentColor;stroke:none}
.callgraph .edge text{font-size:11px;text-anchor:end;fill:var(--fg)}
.callgraph .failed{color:var(--bad)}
.callgraph .link{color:var(--link)}
.callgraph .link .way{stroke-dasharray:7 4}
.callgraph .cycle .way{stroke-dasharray:9 3 2 3}
.callgraph .critical .way{stroke:var(--path)}
</style>
`

func svgEdge(b *strings.Builder, g *callgraph.Graph, e *callgraph.Edge, r *Route, labels bool) {
	class := "edge"
	for _, c := range []struct {
		is   bool
		name string
	}{
		{e.Seen().Failed() > 0, " failed"},
		{e.Link, " link"},
		{e.Cycle, " cycle"},
		{e.Critical > 0, " critical"},
	} {
		if c.is {
			class += c.name
		}
	}
	fmt.Fprintf(b, `<g class="%s" role="graphics-symbol" aria-roledescription="edge"><title>%s</title>`, class, xmlText(describe(g, e)))
	way, tip := r.SVGPath()
	fmt.Fprintf(b, `<path class="way" stroke-width="%.1f" d="%s"/><path class="tip" d="%s"/>`, edgeWidth(e), way, tip)
	if labels {
		text := signs(e) + Label(g, e)
		fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`, r.Label.X, r.Label.Y, xmlText(fit(text, 40)))
	}
	b.WriteString("</g>\n")
}

// edgeWidth grows with each power of ten.
func edgeWidth(e *callgraph.Edge) float64 {
	return min(1+math.Log10(1+float64(e.Seen().Calls()))/2, 5)
}

// SVGPath gives the way of an edge and its arrow head as SVG path data.
func (r *Route) SVGPath() (way, tip string) {
	p := r.Points
	if len(p) < 2 {
		return "", ""
	}
	if len(p) == 2 && p[0].Y == p[1].Y && r.Back { // the loop of a method that calls itself
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", p[0].X, p[0].Y, p[0].X, p[0].Y-24, p[1].X, p[1].Y-24, p[1].X, p[1].Y-8),
			fmt.Sprintf("M%d %dl-4 -9h8z", p[1].X, p[1].Y)
	}
	const head = 9
	end := p[len(p)-1]
	back := head
	if p[len(p)-2].X > end.X {
		back = -head
	}
	var b strings.Builder
	fmt.Fprintf(&b, "M%d %d", p[0].X, p[0].Y)
	for i := 1; i < len(p); i++ {
		from, to := p[i-1], p[i]
		if i == len(p)-1 {
			to.X -= back
		}
		if from.Y == to.Y {
			fmt.Fprintf(&b, "L%d %d", to.X, to.Y)
			continue
		}
		middle := (from.X + to.X) / 2
		fmt.Fprintf(&b, "C%d %d %d %d %d %d", middle, from.Y, middle, to.Y, to.X, to.Y)
	}
	return b.String(), fmt.Sprintf("M%d %dl%d -4v8z", end.X, end.Y, -back)
}

func svgNode(b *strings.Builder, g *callgraph.Graph, n *callgraph.Node, box Box) {
	fmt.Fprintf(b, `<g class="node %s s%d" role="graphics-symbol" aria-roledescription="node"><title>%s</title>`,
		n.Kind, min(n.Mark.Severity, callgraph.MaxSeverity), xmlText(describeNode(g, n)))
	round := 4
	if n.Kind == callgraph.EntryNode {
		round = 16
	}
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" rx="%d"/>`, box.X, box.Y, box.W, box.H, round)
	line := func(y int, class, text string) {
		if text != "" {
			fmt.Fprintf(b, `<text x="%d" y="%d" class="%s">%s</text>`, box.X+10, box.Y+(box.H-height)/2+y, class, xmlText(text))
		}
	}
	line(18, "name", fit(n.Method(), (box.W-20)/8))
	switch n.Kind {
	case callgraph.MethodNode:
		line(33, "muted", fit(n.Service(), (box.W-20)/6))
	default:
		line(33, "muted", n.Kind.String())
	}
	line(49, "muted", fit(nodeFacts(g, n), (box.W-20)*2/11))
	if n.Mark.Severity > 0 {
		line(66, "mark", fit(n.Mark.Text, (box.W-20)/7))
	}
	b.WriteString("</g>\n")
}
