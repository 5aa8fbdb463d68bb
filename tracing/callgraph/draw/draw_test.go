// SPDX-License-Identifier: Apache-2.0

package draw_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/callgraph/draw"
)

var update = flag.Bool("update", false, "write the golden files anew")

const hostile = "\"><script>alert('x')</script>`${x}`\\N #quot; & ]] |%%{init}%% \x00\n\u202eend"

// system is one that has all there is to draw.
func system() callgraph.Period {
	type edge struct {
		caller, callee string
		calls, failed  int
		latency        time.Duration
		link           bool
	}
	rec := callgraph.NewRecorder(callgraph.Config{Stripes: 1})
	entry := rec.NameEntry("POST /posts")
	own := rec.Entry("POST /posts")
	for range 1000 {
		own.Record(callgraph.OK, 20*time.Millisecond, 900, 40)
	}
	for _, e := range []edge{
		{"", "post.v1.Post/Publish", 1000, 0, 12 * time.Millisecond, false},
		{"post.v1.Post/Publish", "account.v1.Account/Get", 1000, 4, 2 * time.Millisecond, false},
		{"post.v1.Post/Publish", "media.v1.Media/Check", 300, 120, 90 * time.Millisecond, false},
		{"post.v1.Post/Publish", "post.v1.Outbox/Drain", 1000, 0, 800 * time.Millisecond, true},
		{"post.v1.Outbox/Drain", "timeline.v1.Timeline/FanOut", 1000, 0, 300 * time.Millisecond, false},
		{"timeline.v1.Timeline/FanOut", "account.v1.Account/Friends", 4000, 0, 3 * time.Millisecond, false},
		{"timeline.v1.Timeline/FanOut", "timeline.v1.Timeline/FanOut", 20, 0, 9 * time.Millisecond, false},
		{"account.v1.Account/Friends", "account.v1.Account/Get", 8000, 0, time.Millisecond, false},
		{"account.v1.Account/Get", "account.v1.Account/Friends", 10, 0, time.Millisecond, false},
		{"", "account.v1.Account/Get", 1000, 0, 2 * time.Millisecond, false},
		{callgraph.UnknownCallerName, "media.v1.Media/Check", 7, 0, time.Second, false},
		{"media.v1.Media/Check", hostile + "/" + hostile, 1, 1, time.Nanosecond, false},
	} {
		for _, side := range []callgraph.Side{callgraph.Client, callgraph.Server} {
			if e.link {
				side += callgraph.Producer
			}
			slot := rec.Edges(side, e.callee).Slot(entry, rec.Method(e.caller))
			for i := range e.calls {
				class := callgraph.OK
				if i < e.failed {
					class = callgraph.Overloaded
				}
				slot.Record(class, e.latency, 512, 128)
				if side == callgraph.Client {
					slot.Attempt(class)
				}
			}
		}
	}
	rec.Edges(callgraph.Server, "post.v1.Post/Publish").Slot(entry, callgraph.AtEntry).Record(callgraph.OK, 1, 1, 1) // of a client that does not count
	return rec.Snapshot(time.UnixMilli(0),
		callgraph.NodeMark{Node: "media.v1.Media", Mark: callgraph.Mark{Severity: 3, Text: "overloaded, level 12"}},
		callgraph.NodeMark{Node: "post.v1.Post", Mark: callgraph.Mark{Severity: 1, Text: hostile}},
		callgraph.NodeMark{Node: "account.v1.Account", Mark: callgraph.Mark{Text: "level 0"}},
	).Period
}

func pictures(t testing.TB, g *callgraph.Graph) map[string][]byte {
	t.Helper()
	svg, err := draw.SVG(g, true)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := draw.SVG(g, false)
	if err != nil {
		t.Fatal(err)
	}
	js, err := draw.JSON(g, true)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"svg": svg, "plain.svg": plain, "json": append(js, '\n'),
		"dot": draw.DOT(g), "mmd": draw.Mermaid(g), "txt": draw.Text(g),
	}
}

func TestGolden(t *testing.T) {
	entry := tracing.EntryOf("POST /posts")
	now := callgraph.Build(system(), 10*time.Second, entry)
	path, err := callgraph.CriticalPath([]callgraph.Span{
		{ID: tracing.SpanID{1}, Side: callgraph.Server, Start: 0, End: 20},
		{ID: tracing.SpanID{2}, Parent: tracing.SpanID{1}, Method: "post.v1.Post/Publish", Start: 2, End: 18},
	})
	if err != nil {
		t.Fatal(err)
	}
	before := callgraph.Build(callgraph.Merge(
		callgraph.Period{Rows: system().Rows[:len(system().Rows)/2]},
		callgraph.Period{Rows: []callgraph.Row{{
			Key:   callgraph.Key{Side: callgraph.Client, Entry: entry, Callee: "legacy.v1.Legacy/Post"},
			Stats: callgraph.Stats{Results: [callgraph.NumClasses]uint64{100}},
		}}},
	), 20*time.Second, entry)
	for name, g := range map[string]*callgraph.Graph{
		"entry":    now.WithCritical(path),
		"compared": callgraph.Compare(now, before),
		"filtered": now.Filter(callgraph.Filter{MinShare: 0.1, MaxHops: 2}),
		"empty":    callgraph.Build(callgraph.Period{}, 0),
	} {
		for ext, got := range pictures(t, g) {
			file := filepath.Join("testdata", name+"."+ext)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; run go test -update and look at the change\ngot:\n%s", file, got)
			}
		}
	}
}

// random makes a graph with that many methods and edges, some closing cycles.
func random(methods, edges int, pick func(n int) int) *callgraph.Graph {
	name := func(i int) string {
		if i < 0 {
			return callgraph.AtEntryName
		}
		return fmt.Sprintf("service%d.v1.Service/Method%d", i/5, i)
	}
	p := callgraph.Period{}
	for range edges {
		from := pick(methods+1) - 1
		to := pick(methods)
		if pick(10) > 0 && from >= to { // most point one way
			from, to = to-1, max(from, to)
		}
		row := callgraph.Row{Key: callgraph.Key{Entry: 1, Side: callgraph.Client, Caller: name(from), Callee: name(to)}}
		row.Results[callgraph.OK] = uint64(1 + pick(1000))
		p.Rows = append(p.Rows, row)
	}
	return callgraph.Build(callgraph.Merge(p), time.Second, 1)
}

func TestLayoutLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		methods := rapid.IntRange(1, 40).Draw(t, "methods")
		seed := rapid.Uint64().Draw(t, "seed")
		edges := rapid.IntRange(0, 3*methods).Draw(t, "edges")
		g := random(methods, edges, rand.New(rand.NewPCG(seed, 0)).IntN)
		checkLayout(t, g, rapid.Bool().Draw(t, "labels"))
	})
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkLayout(t failer, g *callgraph.Graph, labels bool) {
	t.Helper()
	l, err := draw.NewLayout(g, labels)
	if err != nil {
		t.Fatalf("%v", err)
	}
	again, _ := draw.NewLayout(g, labels)
	if !reflect.DeepEqual(l, again) {
		t.Fatalf("the same graph has two layouts")
	}
	// Counts do not move anything.
	busy := *g
	busy.Edges = append([]callgraph.Edge(nil), g.Edges...)
	for i := range busy.Edges {
		busy.Edges[i].Server.Results[callgraph.Timeout] = uint64(i) * 1000
	}
	if again, _ = draw.NewLayout(&busy, labels); !reflect.DeepEqual(l, again) {
		t.Fatalf("the layout depends on counts")
	}
	for i, a := range l.Nodes {
		if a.X < 0 || a.Y < 0 || a.X+a.W > l.Width || a.Y+a.H > l.Height {
			t.Fatalf("node %d at %+v is outside of %d x %d", i, a, l.Width, l.Height)
		}
		for j, b := range l.Nodes[:i] {
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Fatalf("nodes %d and %d overlap: %+v, %+v", i, j, a, b)
			}
		}
	}
	for i, e := range g.Edges {
		from, to, r := l.Nodes[e.From], l.Nodes[e.To], l.Edges[i]
		first, last := r.Points[0], r.Points[len(r.Points)-1]
		if !touches(from, first) || !touches(to, last) {
			t.Fatalf("edge %d goes from %v to %v; its nodes are %+v, %+v", i, first, last, from, to)
		}
		if e.From != e.To && !r.Back && from.Layer >= to.Layer {
			t.Fatalf("edge %d goes from layer %d to %d", i, from.Layer, to.Layer)
		}
		for k := 1; k < len(r.Points); k++ {
			a, b := r.Points[k-1], r.Points[k]
			for n, box := range l.Nodes {
				if e.From != e.To && a.Y == b.Y && a.Y > box.Y && a.Y < box.Y+box.H && min(a.X, b.X) < box.X+box.W && max(a.X, b.X) > box.X {
					t.Fatalf("edge %d runs through node %d", i, n)
				}
			}
		}
	}
}

func touches(b draw.Box, p draw.Point) bool {
	return p.X >= b.X && p.X <= b.X+b.W && p.Y >= b.Y && p.Y <= b.Y+b.H
}

func TestLargeGraphs(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	checkLayout(t, random(300, 1000, chance.IntN), true)

	// A chain with an edge from the entry to each: more bends than there may be.
	var p callgraph.Period
	for i := range 400 {
		for _, caller := range []string{"", fmt.Sprintf("a.A/%04d", i)} {
			row := callgraph.Row{Key: callgraph.Key{Entry: 1, Caller: caller, Callee: fmt.Sprintf("a.A/%04d", i+1)}}
			row.Results[callgraph.OK] = 1
			p.Rows = append(p.Rows, row)
		}
	}
	if _, err := draw.NewLayout(callgraph.Build(callgraph.Merge(p), 0, 1), true); err != nil {
		t.Error(err)
	}
	for name, g := range map[string]*callgraph.Graph{
		"nodes": {Nodes: make([]callgraph.Node, draw.MaxNodes+1)},
		"edges": {Nodes: make([]callgraph.Node, 1), Edges: make([]callgraph.Edge, draw.MaxEdges+1)},
	} {
		if _, err := draw.SVG(g, true); !errors.Is(err, draw.ErrTooLarge) {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := draw.JSON(g, true); !errors.Is(err, draw.ErrTooLarge) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestNamesDoNotBreakLines(t *testing.T) {
	g := callgraph.Build(system(), 10*time.Second)
	text := string(draw.Text(g))
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if want := 1 + 1 + 1 + len(g.Nodes) + 1 + 1 + len(g.Edges); len(lines) != want {
		t.Errorf("%d lines, want %d: a name broke one\n%s", len(lines), want, text)
	}
}

// FuzzNames puts any name into every place that shows names, and reads the pictures
// back with readers of their formats.
func FuzzNames(f *testing.F) {
	f.Add(hostile)
	f.Add(`a"b\`)
	f.Add("]]>--><![CDATA[")
	f.Add("\xff\u2028\u200f\ufeff")
	f.Fuzz(func(t *testing.T, name string) {
		g := &callgraph.Graph{
			Title: name,
			Nodes: []callgraph.Node{
				{ID: name, Name: name, Mark: callgraph.Mark{Severity: 255, Text: name}, Kind: callgraph.EntryNode},
				{ID: "b", Name: name, Mark: callgraph.Mark{Text: name}},
			},
			Edges: []callgraph.Edge{{From: 0, To: 1}},
		}
		p := pictures(t, g)
		checkXML(t, p["svg"])
		checkDOT(t, string(p["dot"]))
		checkMermaid(t, string(p["mmd"]))
		if n := strings.Count(string(p["txt"]), "\n"); n != 8 {
			t.Errorf("%d lines of text:\n%s", n, p["txt"])
		}
	})
}

func checkXML(t *testing.T, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	elements := map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
		if start, ok := token.(xml.StartElement); ok {
			elements[start.Name.Local]++
			for _, a := range start.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" {
					t.Fatalf("attribute %s", a.Name.Local)
				}
			}
		}
	}
	delete(elements, "text") // as many as there are lines
	if want := map[string]int{"svg": 1, "title": 4, "desc": 1, "style": 1, "g": 3, "path": 2, "rect": 2}; !reflect.DeepEqual(elements, want) {
		t.Fatalf("elements %v, want %v", elements, want)
	}
}

// checkDOT reads quoted strings as Graphviz's scanner does and looks at the rest.
func checkDOT(t *testing.T, dot string) {
	t.Helper()
	rest, quoted := strip(t, dot, true)
	if len(quoted) != 6 {
		t.Fatalf("%d strings\n%s", len(quoted), dot)
	}
	want := "digraph callgraph {\n\tlabel=@;\n\trankdir=LR;\n\tnode [shape=box, fontname=@];\n\tedge [fontname=@, fontsize=10];\n" +
		"\tn0 [label=@, shape=oval, color=red, penwidth=3, style=dashed];\n\tn1 [label=@];\n\tn0 -> n1 [label=@, penwidth=1.0];\n}\n"
	if rest != want {
		t.Fatalf("statements\n%s\nwant\n%s", rest, want)
	}
}

func checkMermaid(t *testing.T, text string) {
	t.Helper()
	rest, quoted := strip(t, text, false)
	for _, q := range quoted {
		if strings.ContainsAny(strings.ReplaceAll(q, "<br>", ""), "<>`\\&{}[]|'$") {
			t.Fatalf("string %q", q)
		}
	}
	if lines := strings.Split(rest, "\n"); len(lines) != 9 || lines[1] != "\tn0([@])" || lines[2] != "\tclass n0 s3" || lines[3] != "\tn1[@]" || lines[4] != "\tn0 -->|@| n1" {
		t.Fatalf("statements\n%s", rest)
	}
}

// strip takes the quoted strings out of a text.
func strip(t *testing.T, text string, escapes bool) (rest string, quoted []string) {
	t.Helper()
	var b, q strings.Builder
	in := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case !in && c == '"':
			in = true
			q.Reset()
			b.WriteByte('@')
		case !in:
			b.WriteByte(c)
		case escapes && c == '\\' && i+1 < len(text):
			i++
			q.WriteByte(text[i])
			if text[i] != '"' && text[i] != '\\' && text[i] != 'n' {
				t.Fatalf("escape \\%c", text[i])
			}
		case c == '"':
			in = false
			quoted = append(quoted, q.String())
		case c < ' ':
			t.Fatalf("control in a string")
		default:
			q.WriteByte(c)
		}
	}
	if in {
		t.Fatalf("a string does not end")
	}
	return b.String(), quoted
}

func ExampleMermaid() {
	rec := callgraph.NewRecorder(callgraph.Config{})
	entry := rec.NameEntry("GET /timeline")
	slot := rec.Edges(callgraph.Client, "timeline.v1.Timeline/Home").Slot(entry, callgraph.AtEntry)
	slot.Record(callgraph.OK, time.Millisecond, 64, 4096)

	all := callgraph.Merge(rec.Snapshot(time.Now()).Period) // and those of the other processes
	fmt.Println(strings.Split(string(draw.Mermaid(callgraph.Build(all, 10*time.Second, entry))), "\n")[3])
	// Output: n0 -->|"0.10/s · p99 1.05 ms"| n1
}

func BenchmarkLayout(b *testing.B) {
	for _, size := range []struct{ methods, edges int }{{15, 30}, {60, 150}, {300, 700}, {300, 1000}, {2000, 6000}} {
		g := random(size.methods, size.edges, rand.New(rand.NewPCG(1, 2)).IntN)
		b.Run(fmt.Sprintf("%dx%d", len(g.Nodes), len(g.Edges)), func(b *testing.B) {
			for b.Loop() {
				if _, err := draw.NewLayout(g, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
