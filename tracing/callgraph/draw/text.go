// SPDX-License-Identifier: Apache-2.0

package draw

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// DOT writes the graph for Graphviz.
func DOT(g *callgraph.Graph) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph callgraph {\n\tlabel=%s;\n\trankdir=LR;\n\tnode [shape=box, fontname=\"sans-serif\"];\n\tedge [fontname=\"sans-serif\", fontsize=10];\n", dotString(summary(g)))
	for i := range g.Nodes {
		n := &g.Nodes[i]
		attrs := "label=" + dotString(nodeLines(g, n)...)
		if n.Kind == callgraph.EntryNode {
			attrs += ", shape=oval"
		}
		switch min(n.Mark.Severity, callgraph.MaxSeverity) {
		case 1:
			attrs += ", color=goldenrod"
		case 2:
			attrs += ", color=darkorange, penwidth=2, style=dashed"
		case 3:
			attrs += ", color=red, penwidth=3, style=dashed"
		}
		fmt.Fprintf(&b, "\tn%d [%s];\n", i, attrs)
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		attrs := fmt.Sprintf("label=%s, penwidth=%.1f", dotString(signs(e)+Label(g, e)), edgeWidth(e))
		if e.Link {
			attrs += ", style=dashed"
		}
		if e.Seen().Failed() > 0 {
			attrs += ", color=red"
		}
		fmt.Fprintf(&b, "\tn%d -> n%d [%s];\n", e.From, e.To, attrs)
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

// Mermaid writes the graph as a Mermaid flowchart.
func Mermaid(g *callgraph.Graph) []byte {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for i := range g.Nodes {
		n := &g.Nodes[i]
		open, closing := "[", "]"
		if n.Kind == callgraph.EntryNode {
			open, closing = "([", "])"
		}
		fmt.Fprintf(&b, "\tn%d%s%s%s\n", i, open, mermaidString(nodeLines(g, n)...), closing)
		if s := min(n.Mark.Severity, callgraph.MaxSeverity); s > 0 {
			fmt.Fprintf(&b, "\tclass n%d s%d\n", i, s)
		}
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		arrow := "-->"
		if e.Link {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "\tn%d %s|%s| n%d\n", e.From, arrow, mermaidString(signs(e)+Label(g, e)), e.To)
		if e.Seen().Failed() > 0 {
			fmt.Fprintf(&b, "\tlinkStyle %d stroke:#c21c2e\n", i)
		}
	}
	b.WriteString("\tclassDef s1 stroke:#8a5a00,stroke-width:2px\n\tclassDef s2 stroke:#8a5a00,stroke-width:3px,stroke-dasharray:8 3\n\tclassDef s3 stroke:#c21c2e,stroke-width:4px,stroke-dasharray:4 3\n")
	return []byte(b.String())
}

func nodeLines(g *callgraph.Graph, n *callgraph.Node) []string {
	lines := []string{n.Method()}
	if n.Kind == callgraph.MethodNode {
		lines = append(lines, n.Service())
	}
	if facts := nodeFacts(g, n); facts != "" {
		lines = append(lines, facts)
	}
	if n.Mark.Severity > 0 { // what is as it should be is said in words only
		lines = append(lines, n.Mark.Text)
	}
	return lines
}

// Text writes the graph as two tables, which say all that the picture shows.
func Text(g *callgraph.Graph) []byte {
	var b strings.Builder
	b.WriteString(plain(summary(g)) + "\n\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(columns ...string) {
		for i, c := range columns {
			columns[i] = plain(c)
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(columns, "\t"), "\t"))
	}
	stats := func(s, base callgraph.Stats) []string {
		out := []string{strconv.FormatUint(s.Calls(), 10), "", percent(share(s.Failed(), s.Calls())), "", "", "", change(g, s, base)}
		if s.Calls() == 0 && base.Calls() == 0 {
			return []string{"0", "", "", "", "", "", ""}
		}
		if g.Duration > 0 {
			out[1] = number(g.Rate(s)) + "/s"
		}
		if s.Latency.Count() > 0 {
			out[3], out[4] = duration(s.Latency.Quantile(0.5)), duration(s.Latency.Quantile(0.99))
		}
		out[5] = number(float64(s.RequestBytes)) + "B/" + number(float64(s.ResponseBytes)) + "B"
		return out
	}
	header := []string{"CALLS", "RATE", "FAILED", "P50", "P99", "BYTES", "CHANGE"}
	row(append(append([]string{"NODE", "KIND"}, header...), "CRITICAL", "NOTES")...)
	for i := range g.Nodes {
		n := &g.Nodes[i]
		var notes []string
		switch {
		case n.Mark.Severity > 0:
			notes = append(notes, fmt.Sprintf("%s (severity %d)", n.Mark.Text, n.Mark.Severity))
		case n.Mark.Text != "":
			notes = append(notes, n.Mark.Text)
		}
		if n.Cycle {
			notes = append(notes, "cycle")
		}
		row(append(append([]string{n.Name, n.Kind.String()}, stats(n.Seen(), n.Base)...), critical(n.Critical), strings.Join(notes, ", "))...)
	}
	row()
	row(append(append([]string{"CALLER", "CALLEE"}, header...), "CRITICAL", "NOTES")...)
	for i := range g.Edges {
		e := &g.Edges[i]
		row(append(append([]string{g.Nodes[e.From].Name, g.Nodes[e.To].Name}, stats(e.Seen(), e.Base)...), critical(e.Critical), edgeNotes(e))...)
	}
	_ = w.Flush() // a strings.Builder takes all
	return []byte(b.String())
}

func critical(share float64) string {
	if share == 0 {
		return ""
	}
	return percent(share)
}

func edgeNotes(e *callgraph.Edge) string {
	var notes []string
	if e.Link {
		notes = append(notes, "link")
	}
	if e.Cycle {
		notes = append(notes, "cycle")
	}
	if s := e.Seen(); s.Failed() > 0 {
		for c, n := range s.Results {
			if n > 0 && callgraph.Class(c) != callgraph.OK {
				notes = append(notes, fmt.Sprintf("%d %s", n, callgraph.Class(c)))
			}
		}
	}
	if e.Client.AttemptCount() > e.Client.Calls() {
		notes = append(notes, fmt.Sprintf("%d attempts", e.Client.AttemptCount()))
	}
	if e.TwoSided() {
		if c := e.Check(); !c.OK() {
			notes = append(notes, fmt.Sprintf("ends disagree by %d", c.Lost))
		}
	}
	return strings.Join(notes, ", ")
}

// The JSON form, for a page that draws by itself. Fields are only ever added.
type (
	jsonGraph struct {
		Title       string     `json:"title"`
		Summary     string     `json:"summary"`
		Seconds     float64    `json:"seconds"`
		BaseSeconds float64    `json:"base_seconds,omitempty"`
		Compared    bool       `json:"compared"`
		Traces      int        `json:"traces"`
		Unfair      bool       `json:"unfair,omitempty"` // they were kept for failing or being slow
		Overflow    uint64     `json:"overflow"`
		HiddenNodes int        `json:"hidden_nodes"`
		HiddenEdges int        `json:"hidden_edges"`
		Width       int        `json:"width"`
		Height      int        `json:"height"`
		Nodes       []jsonNode `json:"nodes"`
		Edges       []jsonEdge `json:"edges"`
	}
	jsonNode struct {
		ID       string     `json:"id"`
		Kind     string     `json:"kind"`
		Name     string     `json:"name"`
		Service  string     `json:"service"`
		Method   string     `json:"method"`
		Mark     *jsonMark  `json:"mark,omitempty"`
		Cycle    bool       `json:"cycle,omitempty"`
		Critical float64    `json:"critical,omitempty"`
		Stats    jsonStats  `json:"stats"`
		Base     *jsonStats `json:"base,omitempty"`
		Change   string     `json:"change,omitempty"`
		X        int        `json:"x"`
		Y        int        `json:"y"`
		W        int        `json:"w"`
		H        int        `json:"h"`
		Layer    int        `json:"layer"`
	}
	jsonMark struct {
		Severity uint8  `json:"severity"`
		Text     string `json:"text"`
	}
	jsonEdge struct {
		From     int        `json:"from"`
		To       int        `json:"to"`
		Link     bool       `json:"link,omitempty"`
		Cycle    bool       `json:"cycle,omitempty"`
		Back     bool       `json:"back,omitempty"`
		Critical float64    `json:"critical,omitempty"`
		Label    string     `json:"label"`
		Stats    jsonStats  `json:"stats"` // as seen from the outside
		Server   *jsonStats `json:"server,omitempty"`
		Base     *jsonStats `json:"base,omitempty"`
		Change   string     `json:"change,omitempty"`
		Check    *jsonCheck `json:"check,omitempty"`
		Path     string     `json:"path"`
		Tip      string     `json:"tip"`
		LabelX   int        `json:"label_x"`
		LabelY   int        `json:"label_y"`
	}
	jsonStats struct {
		Calls         uint64            `json:"calls"`
		Rate          float64           `json:"rate"` // calls per second
		PerRequest    float64           `json:"per_request,omitempty"`
		Failed        uint64            `json:"failed"`
		Results       map[string]uint64 `json:"results"`
		Attempts      uint64            `json:"attempts,omitempty"`
		Mean          float64           `json:"mean_ms"`
		P50           float64           `json:"p50_ms"`
		P90           float64           `json:"p90_ms"`
		P99           float64           `json:"p99_ms"`
		RequestBytes  uint64            `json:"request_bytes"`
		ResponseBytes uint64            `json:"response_bytes"`
	}
	jsonCheck struct {
		OK           bool              `json:"ok"`
		Attempts     uint64            `json:"attempts"`
		Served       uint64            `json:"served"`
		NotDelivered map[string]uint64 `json:"not_delivered"`
		Uncertain    uint64            `json:"uncertain"`
		Lost         int64             `json:"lost"`
	}
)

// JSON writes the graph with its layout. Numbers are those of the picture.
func JSON(g *callgraph.Graph, labels bool) ([]byte, error) {
	l, err := NewLayout(g, labels)
	if err != nil {
		return nil, err
	}
	out := jsonGraph{
		Title: plain(g.Title), Summary: plain(summary(g)),
		Seconds: g.Duration.Seconds(), BaseSeconds: g.BaseDuration.Seconds(), Compared: g.Compared,
		Traces: g.Traces, Unfair: g.Unfair, Overflow: g.Overflow, HiddenNodes: g.HiddenNodes, HiddenEdges: g.HiddenEdges,
		Width: l.Width, Height: l.Height,
		Nodes: make([]jsonNode, len(g.Nodes)), Edges: make([]jsonEdge, len(g.Edges)),
	}
	for i := range g.Nodes {
		n, box := &g.Nodes[i], l.Nodes[i]
		j := jsonNode{
			ID: plain(n.ID), Kind: n.Kind.String(), Name: plain(n.Name), Service: plain(n.Service()), Method: plain(n.Method()),
			Cycle: n.Cycle, Critical: n.Critical, Change: change(g, n.Seen(), n.Base), Stats: statsJSON(n.Seen(), g.Duration),
			X: box.X, Y: box.Y, W: box.W, H: box.H, Layer: box.Layer,
		}
		j.Stats.PerRequest = rounded(g.PerRequest(n.Seen()))
		if n.Mark != (callgraph.Mark{}) {
			j.Mark = &jsonMark{Severity: n.Mark.Severity, Text: plain(n.Mark.Text)}
		}
		if g.Compared {
			base := statsJSON(n.Base, g.BaseDuration)
			j.Base = &base
		}
		out.Nodes[i] = j
	}
	for i := range g.Edges {
		out.Edges[i] = edgeJSON(g, &g.Edges[i], &l.Edges[i])
	}
	return json.Marshal(out)
}

func edgeJSON(g *callgraph.Graph, e *callgraph.Edge, r *Route) jsonEdge {
	j := jsonEdge{
		From: e.From, To: e.To, Link: e.Link, Cycle: e.Cycle, Back: r.Back, Critical: e.Critical,
		Label: Label(g, e), Stats: statsJSON(e.Seen(), g.Duration), Change: change(g, e.Seen(), e.Base),
		LabelX: r.Label.X, LabelY: r.Label.Y,
	}
	j.Stats.PerRequest = rounded(g.PerRequest(e.Seen()))
	j.Path, j.Tip = r.SVGPath()
	if e.Client.Calls() > 0 && e.Server.Calls() > 0 {
		server := statsJSON(e.Server, g.Duration)
		j.Server = &server
	}
	if g.Compared {
		base := statsJSON(e.Base, g.BaseDuration)
		j.Base = &base
	}
	if e.TwoSided() {
		c := e.Check()
		j.Check = &jsonCheck{
			OK: c.OK(), Attempts: c.Attempts, Served: c.Served,
			NotDelivered: byClass(&c.NotDelivered), Uncertain: c.Uncertain, Lost: c.Lost,
		}
	}
	return j
}

func statsJSON(s callgraph.Stats, length time.Duration) jsonStats {
	ms := func(d time.Duration) float64 { return rounded(float64(d) / 1e6) }
	out := jsonStats{
		Calls: s.Calls(), Failed: s.Failed(), Results: byClass(&s.Results), Attempts: s.AttemptCount(),
		Mean: ms(s.Mean()), P50: ms(s.Latency.Quantile(0.5)), P90: ms(s.Latency.Quantile(0.9)), P99: ms(s.Latency.Quantile(0.99)),
		RequestBytes: s.RequestBytes, ResponseBytes: s.ResponseBytes,
	}
	if length > 0 {
		out.Rate = rounded(float64(s.Calls()) / length.Seconds())
	}
	return out
}

// rounded keeps six digits: the others say nothing.
func rounded(f float64) float64 {
	if f == 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0
	}
	r, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', 6, 64), 64)
	if err != nil {
		return f
	}
	return r
}

func byClass(counts *[callgraph.NumClasses]uint64) map[string]uint64 {
	m := map[string]uint64{}
	for c, n := range counts {
		if n > 0 {
			m[callgraph.Class(c).String()] = n
		}
	}
	return m
}
