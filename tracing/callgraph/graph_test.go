// SPDX-License-Identifier: Apache-2.0

package callgraph_test

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// calls makes a row: an edge that both ends saw alike has one of either side.
func calls(side callgraph.Side, entry tracing.Entry, caller, callee string, ok, failed uint64) callgraph.Row {
	r := callgraph.Row{Key: callgraph.Key{Side: side, Entry: entry, Caller: caller, Callee: callee}}
	r.Results[callgraph.OK], r.Results[callgraph.BusinessError] = ok, failed
	if side == callgraph.Client {
		r.Attempts = r.Results
	}
	r.Latency = callgraph.Histogram{First: 40, Counts: []uint64{ok + failed}}
	return r
}

// both gives the rows of either side.
func both(entry tracing.Entry, caller, callee string, ok, failed uint64) []callgraph.Row {
	return []callgraph.Row{
		calls(callgraph.Client, entry, caller, callee, ok, failed),
		calls(callgraph.Server, entry, caller, callee, ok, failed),
	}
}

func period(rows ...[]callgraph.Row) callgraph.Period {
	return callgraph.Merge(callgraph.Period{
		Entries: []callgraph.EntryName{{ID: 1, Name: "POST /posts"}, {ID: 2, Name: "GET /timeline"}},
		Rows:    slices.Concat(rows...),
	})
}

func nodeNamed(t *testing.T, g *callgraph.Graph, name string) (int, *callgraph.Node) {
	t.Helper()
	for i := range g.Nodes {
		if g.Nodes[i].Name == name {
			return i, &g.Nodes[i]
		}
	}
	t.Fatalf("no node %q", name)
	return 0, nil
}

func TestGraphOfOneEntryHasOnlyItsCalls(t *testing.T) {
	// The case users of other systems ask for: A1 -> B -> D and A2 -> B -> E.
	p := period(
		both(1, "", "b.B/Do", 5, 0), both(1, "b.B/Do", "d.D/Do", 5, 0),
		both(2, "", "b.B/Do", 7, 1), both(2, "b.B/Do", "e.E/Do", 8, 0),
	)
	g := callgraph.Build(p, time.Second, 2)
	if g.Title != "GET /timeline" || len(g.Nodes) != 3 || len(g.Edges) != 2 {
		t.Fatalf("%q has %d nodes and %d edges", g.Title, len(g.Nodes), len(g.Edges))
	}
	if g.Nodes[0].Kind != callgraph.EntryNode || g.Nodes[0].Name != "GET /timeline" {
		t.Errorf("the first node is %+v", g.Nodes[0])
	}
	if _, n := nodeNamed(t, g, "b.B/Do"); n.Served.Calls() != 8 || n.Served.Failed() != 1 || n.Service() != "b.B" || n.Method() != "Do" {
		t.Errorf("B served %d, failed %d", n.Served.Calls(), n.Served.Failed())
	}
	if all := callgraph.Build(p, time.Second); len(all.Nodes) != 5 || len(all.Edges) != 4 {
		t.Errorf("all entries: %d nodes, %d edges", len(all.Nodes), len(all.Edges))
	}
	if none := callgraph.Build(p, time.Second, 3); len(none.Nodes) != 1 || none.Nodes[0].Name != "entry 00000003" {
		t.Errorf("an entry without calls: %+v", none.Nodes)
	}
}

func TestSumsOverEdgesAreTheCallsOfTheMethod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPeriod(t, "rows")
		served, called := map[string]uint64{}, map[string]uint64{}
		for _, r := range p.Rows {
			if r.Side == callgraph.Server || r.Side == callgraph.Consumer {
				served[r.Callee] += r.Calls()
			} else {
				called[r.Callee] += r.Calls()
			}
		}
		g := callgraph.Build(p, 0)
		in := make([]uint64, len(g.Nodes))
		for _, e := range g.Edges {
			in[e.To] += e.Server.Calls()
		}
		entries := uint64(0)
		for i, n := range g.Nodes {
			switch n.Kind {
			case callgraph.EntryNode:
				entries += n.Served.Calls()
			case callgraph.MethodNode:
				if n.Served.Calls() != served[n.Name] || n.Called.Calls() != called[n.Name] || in[i] != served[n.Name] {
					t.Fatalf("%s: served %d, called %d, over the edges %d; counted %d, %d",
						n.Name, n.Served.Calls(), n.Called.Calls(), in[i], served[n.Name], called[n.Name])
				}
			}
		}
		if entries != served[""] || g.Requests != entries {
			t.Fatalf("entries served %d and %d, counted %d", entries, g.Requests, served[""])
		}
		// The graphs of the entries are the parts of the whole.
		var parts uint64
		for entry := range tracing.Entry(3) {
			for _, e := range callgraph.Build(p, 0, entry).Edges {
				parts += e.Server.Calls() + e.Client.Calls()
			}
		}
		var whole uint64
		for _, e := range g.Edges {
			whole += e.Server.Calls() + e.Client.Calls()
		}
		if parts != whole {
			t.Fatalf("the parts have %d calls, the whole %d", parts, whole)
		}
	})
}

func TestCyclesAreMarked(t *testing.T) {
	g := callgraph.Build(period(
		both(1, "", "a.A/Do", 1, 0), both(1, "a.A/Do", "b.B/Do", 1, 0), both(1, "b.B/Do", "a.A/Do", 1, 0),
		both(1, "b.B/Do", "c.C/Do", 1, 0), both(1, "c.C/Do", "c.C/Do", 1, 0), both(1, "c.C/Do", "d.D/Do", 1, 0),
	), 0, 1)
	var got []string
	for _, e := range g.Edges {
		if e.Cycle {
			got = append(got, g.Nodes[e.From].Name+" "+g.Nodes[e.To].Name)
		}
	}
	want := []string{"a.A/Do b.B/Do", "b.B/Do a.A/Do", "c.C/Do c.C/Do"}
	if !slices.Equal(got, want) {
		t.Errorf("cycles %q, want %q", got, want)
	}
	if _, n := nodeNamed(t, g, "d.D/Do"); n.Cycle {
		t.Error("d.D/Do calls nobody")
	}
}

func TestLongChain(t *testing.T) {
	rows := make([]callgraph.Row, 10_000)
	for i := range rows {
		rows[i] = calls(callgraph.Client, 1, fmt.Sprintf("a.A/%05d", i), fmt.Sprintf("a.A/%05d", (i+1)%len(rows)), 1, 0)
	}
	g := callgraph.Build(callgraph.Merge(callgraph.Period{Rows: rows}), 0)
	if len(g.Edges) != len(rows) || !g.Edges[0].Cycle {
		t.Errorf("%d edges, the first in a cycle: %t", len(g.Edges), g.Edges[0].Cycle)
	}
}

func TestMarks(t *testing.T) {
	p := period(both(1, "", "a.A/One", 1, 0), both(1, "", "a.A/Two", 1, 0), both(1, "", "b.B/One", 1, 0))
	p = callgraph.Merge(p, callgraph.Period{Marks: []callgraph.NodeMark{
		{Node: "a.A", Mark: callgraph.Mark{Severity: 1, Text: "level 3"}},
		{Node: "a.A/Two", Mark: callgraph.Mark{Severity: 9, Text: "stuck"}},
		{Node: "a.A/One", Mark: callgraph.Mark{Text: "fine"}},
		{Node: "b.B", Mark: callgraph.Mark{Text: "open"}},
	}})
	g := callgraph.Build(p, 0, 1)
	for name, want := range map[string]callgraph.Mark{
		"a.A/One": {Severity: 1, Text: "level 3"},
		"a.A/Two": {Severity: callgraph.MaxSeverity, Text: "stuck"},
		"b.B/One": {Text: "open"},
	} {
		if _, n := nodeNamed(t, g, name); n.Mark != want {
			t.Errorf("%s: %+v, want %+v", name, n.Mark, want)
		}
	}
}

func TestOverflowIsVisible(t *testing.T) {
	p := period(both(1, "", "a.A/One", 1, 0), both(0, callgraph.OverflowCallerName, "a.A/One", 9, 0))
	for _, g := range []*callgraph.Graph{callgraph.Build(p, 0, 1), callgraph.Build(p, 0, 0), callgraph.Build(p, 0)} {
		if g.Overflow != 9 {
			t.Errorf("%s: overflow %d", g.Title, g.Overflow)
		}
	}
	if _, n := nodeNamed(t, callgraph.Build(p, 0), callgraph.OverflowCallerName); n.Kind != callgraph.OverflowNode {
		t.Errorf("%+v", n)
	}
	if g := callgraph.Build(p, 0, 1); len(g.Edges) != 1 {
		t.Errorf("the graph of one entry has %d edges", len(g.Edges))
	}
}

func TestFilter(t *testing.T) {
	g := callgraph.Build(period(
		both(1, "", "a.A/Do", 100, 0), both(1, "a.A/Do", "b.B/Do", 100, 0), both(1, "b.B/Do", "c.C/Do", 100, 0),
		both(1, "a.A/Do", "minor.M/Do", 1, 0), both(1, "a.A/Do", "failing.F/Do", 0, 1),
		both(1, callgraph.UnknownCallerName, "c.C/Do", 50, 0),
	), 0, 1)
	tests := []struct {
		name   string
		filter callgraph.Filter
		nodes  []string
	}{
		{"nothing", callgraph.Filter{}, []string{"POST /posts", "a.A/Do", "b.B/Do", "c.C/Do", "failing.F/Do", "minor.M/Do", "(unknown)"}},
		{"minor edges", callgraph.Filter{MinShare: 0.02}, []string{"POST /posts", "a.A/Do", "b.B/Do", "c.C/Do", "failing.F/Do", "(unknown)"}},
		{"one hop", callgraph.Filter{MaxHops: 1}, []string{"POST /posts", "a.A/Do", "c.C/Do", "(unknown)"}},
		{"around a node", callgraph.Filter{MaxHops: 1, Around: "method:b.B/Do"}, []string{"POST /posts", "a.A/Do", "b.B/Do", "c.C/Do"}},
		{"around nothing", callgraph.Filter{MaxHops: 1, Around: "method:x.X/Do"}, []string{"POST /posts"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := g.Filter(test.filter)
			var names []string
			for _, n := range f.Nodes {
				names = append(names, n.Name)
			}
			if !slices.Equal(names, test.nodes) {
				t.Errorf("nodes %q, want %q", names, test.nodes)
			}
			if f.HiddenNodes != len(g.Nodes)-len(f.Nodes) || f.HiddenEdges != len(g.Edges)-len(f.Edges) {
				t.Errorf("hidden: %d nodes, %d edges", f.HiddenNodes, f.HiddenEdges)
			}
			for _, e := range f.Edges {
				if e.From >= len(f.Nodes) || e.To >= len(f.Nodes) {
					t.Fatalf("edge %d -> %d", e.From, e.To)
				}
			}
		})
	}
}

func TestSearch(t *testing.T) {
	g := callgraph.Build(period(both(1, "", "post.v1.Post/Publish", 1, 0), both(1, "", "post.v1.Post/Get", 1, 0)), 0, 1)
	for query, want := range map[string]int{"post": 3, "POST publish": 1, "v1 get": 1, "nothing": 0, "": 0, "  ": 0} {
		if got := g.Search(query); len(got) != want {
			t.Errorf("%q finds %v, want %d nodes", query, got, want)
		}
	}
}

func TestCompare(t *testing.T) {
	before := callgraph.Build(period(both(1, "", "a.A/Do", 10, 0), both(1, "a.A/Do", "old.O/Do", 5, 0)), 10*time.Second, 1)
	after := callgraph.Build(period(both(1, "", "a.A/Do", 60, 0), both(1, "a.A/Do", "new.N/Do", 5, 0)), 20*time.Second, 1)
	g, back := callgraph.Compare(after, before), callgraph.Compare(before, after)
	change := map[string]float64{}
	for i := range g.Edges {
		e := &g.Edges[i]
		change[g.Nodes[e.To].Name] = g.Change(e.Seen(), e.Base)
	}
	want := map[string]float64{"a.A/Do": 3, "new.N/Do": math.Inf(1), "old.O/Do": 0}
	if !reflect.DeepEqual(change, want) {
		t.Errorf("changes %v, want %v", change, want)
	}
	// Whichever way one looks, the same nodes and edges in the same order.
	if len(g.Nodes) != len(back.Nodes) || len(g.Edges) != len(back.Edges) {
		t.Fatal("not the same size")
	}
	for i := range g.Nodes {
		if g.Nodes[i].ID != back.Nodes[i].ID {
			t.Errorf("node %d: %s and %s", i, g.Nodes[i].ID, back.Nodes[i].ID)
		}
	}
	for i := range g.Edges {
		if g.Edges[i].From != back.Edges[i].From || g.Edges[i].To != back.Edges[i].To {
			t.Errorf("edge %d differs", i)
		}
	}
	if got := g.Change(callgraph.Stats{}, callgraph.Stats{}); got != 1 {
		t.Errorf("nothing to nothing is a change of %v", got)
	}
}

func TestPerRequest(t *testing.T) {
	own := calls(callgraph.Server, 1, "", "", 10, 0)
	g := callgraph.Build(period([]callgraph.Row{own}, both(1, "", "a.A/Do", 25, 0)), 5*time.Second, 1)
	if got := g.PerRequest(g.Edges[0].Seen()); got != 2.5 {
		t.Errorf("%v calls a request, want 2.5", got)
	}
	if got := g.Rate(g.Edges[0].Seen()); got != 5 {
		t.Errorf("rate %v, want 5", got)
	}
	if len(g.Edges) != 1 {
		t.Errorf("%d edges: an entry's own requests are none", len(g.Edges))
	}
}
