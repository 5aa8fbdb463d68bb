// SPDX-License-Identifier: Apache-2.0

// Package draw lays call graphs out and draws them: as SVG, as text for Graphviz
// (DOT) and Mermaid, as JSON for a page that draws by itself, and as a table that
// says the same in words. All come from one model, and the same graph gives the same
// bytes. Names are hostile: each format has its own escaping.
package draw

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// Label gives what is written on an edge: rate or number of calls, share of
// failures, 99th percentile, and the change against the other period.
func Label(g *callgraph.Graph, e *callgraph.Edge) string {
	return strings.Join(facts(g, e.Seen(), e.Base), " · ")
}

func facts(g *callgraph.Graph, s, base callgraph.Stats) []string {
	out := []string{strings.TrimRight(volume(g, s)+" "+change(g, s, base), " ")}
	if s.Failed() > 0 {
		out = append(out, percent(share(s.Failed(), s.Calls()))+" failed")
	}
	if s.Latency.Count() > 0 {
		out = append(out, "p99 "+duration(s.Latency.Quantile(0.99)))
	}
	return out
}

// nodeFacts are the facts of a node; none of one that only calls.
func nodeFacts(g *callgraph.Graph, n *callgraph.Node) string {
	if s := n.Seen(); s.Calls() > 0 || n.Base.Calls() > 0 {
		return strings.Join(facts(g, s, n.Base), " · ")
	}
	return ""
}

// signs stand before the label of an edge that is part of a cycle, on the critical
// path, or counted differently by its ends.
func signs(e *callgraph.Edge) string {
	var out string
	if e.TwoSided() && !e.Check().OK() {
		out += "≠ "
	}
	if e.Cycle {
		out += "↺ "
	}
	if e.Critical > 0 {
		out += "◆ "
	}
	return out
}

func volume(g *callgraph.Graph, s callgraph.Stats) string {
	if g.Duration > 0 {
		return number(g.Rate(s)) + "/s"
	}
	if s.Calls() == 1 {
		return "1 call"
	}
	return number(float64(s.Calls())) + " calls"
}

// change says how the rate differs from the other period's; empty when there is none.
func change(g *callgraph.Graph, s, base callgraph.Stats) string {
	if !g.Compared {
		return ""
	}
	switch c := g.Change(s, base); {
	case math.IsInf(c, 1):
		return "new"
	case c == 0:
		return "gone"
	default:
		return "×" + strconv.FormatFloat(c, 'f', 2, 64)
	}
}

func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// percent never writes 0 % for something, nor 100 % for not all.
func percent(f float64) string {
	switch p := f * 100; {
	case f <= 0:
		return "0%"
	case p < 0.01:
		return "<0.01%"
	case f < 1 && p >= 99.95:
		return ">99.9%"
	default:
		return strconv.FormatFloat(p, 'g', max(3, int(math.Log10(p))+1), 64) + "%"
	}
}

// number writes three digits: 0.012, 1.23, 45.6, 789, 12.3k, 4.56M.
func number(f float64) string {
	for _, unit := range []string{"", "k", "M", "G", "T", "P"} {
		if f < 999.5 {
			digits := 2
			switch {
			case f >= 99.95 || f == math.Trunc(f):
				digits = 0
			case f >= 9.995:
				digits = 1
			case f < 0.1:
				digits = 4
			}
			return strconv.FormatFloat(f, 'f', digits, 64) + unit
		}
		f /= 1000
	}
	return strconv.FormatFloat(f, 'g', 3, 64) + "E"
}

// duration writes three digits.
func duration(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + " ns"
	case d < time.Millisecond:
		return number(float64(d)/1e3) + " µs"
	case d < time.Second:
		return number(float64(d)/1e6) + " ms"
	default:
		return number(float64(d)/1e9) + " s"
	}
}

// describe says all of an edge in words.
func describe(g *callgraph.Graph, e *callgraph.Edge) string {
	verb := "calls"
	if e.Link {
		verb = "sends over a queue to"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s: %s", g.Nodes[e.From].Name, verb, g.Nodes[e.To].Name, Label(g, e))
	if e.Cycle {
		b.WriteString(", part of a cycle")
	}
	if e.TwoSided() {
		if c := e.Check(); !c.OK() {
			fmt.Fprintf(&b, ", both ends disagree by %d", c.Lost)
		}
	}
	if e.Critical > 0 {
		fmt.Fprintf(&b, ", on the critical path for %s of the time", percent(e.Critical))
	}
	return b.String()
}

// describeNode says all of a node in words.
func describeNode(g *callgraph.Graph, n *callgraph.Node) string {
	text := n.Name
	if facts := nodeFacts(g, n); facts != "" {
		text += ": " + facts
	}
	if n.Kind != callgraph.MethodNode {
		text = n.Kind.String() + " " + text
	}
	if n.Mark.Text != "" {
		text += ", " + n.Mark.Text
	}
	if n.Cycle {
		text += ", part of a cycle"
	}
	if n.Critical > 0 {
		text += ", itself " + percent(n.Critical) + " of the critical path"
	}
	return text
}

// summary says in a sentence what the picture shows and what it leaves out.
func summary(g *callgraph.Graph) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Call graph of %s: %d nodes, %d edges", g.Title, len(g.Nodes), len(g.Edges))
	if g.Duration > 0 {
		fmt.Fprintf(&b, ", %s", g.Duration)
	}
	if g.HiddenNodes > 0 || g.HiddenEdges > 0 {
		fmt.Fprintf(&b, "; hidden: %d nodes, %d edges", g.HiddenNodes, g.HiddenEdges)
	}
	if g.Overflow > 0 {
		fmt.Fprintf(&b, "; %d calls could not be attributed, for a process had no slot left", g.Overflow)
	}
	if g.Compared {
		b.WriteString("; compared with another period")
	}
	if g.Traces > 0 {
		how := "sampled"
		if g.Unfair {
			how = "of failed and slow requests"
		}
		fmt.Fprintf(&b, "; critical path (◆) %s, traces: %d", how, g.Traces)
	}
	return b.String() + "."
}
