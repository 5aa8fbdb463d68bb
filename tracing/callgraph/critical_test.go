// SPDX-License-Identifier: Apache-2.0

package callgraph_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

func spanID(n int) tracing.SpanID { return tracing.SpanID{6: byte(n >> 8), 7: byte(n)} }

func span(id, parent int, side callgraph.Side, method string, start, end int64) callgraph.Span {
	return callgraph.Span{ID: spanID(id), Parent: spanID(parent), Side: side, Method: method, Start: start, End: end}
}

func steps(p callgraph.Path) string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, fmt.Sprintf("%d:%d-%d", s.Span, s.Start, s.End))
	}
	return strings.Join(out, " ")
}

func TestCriticalPath(t *testing.T) {
	const client, server, consumer = callgraph.Client, callgraph.Server, callgraph.Consumer
	tests := []struct {
		name  string
		spans []callgraph.Span
		want  string
	}{
		{"only a root", []callgraph.Span{span(1, 0, server, "", 10, 30)}, "0:10-30"},
		{"one after the other", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, client, "a", 10, 40), span(3, 1, client, "b", 50, 90),
		}, "0:0-10 1:10-40 0:40-50 2:50-90 0:90-100"},
		{"side by side: the last to end counts", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, client, "a", 10, 60), span(3, 1, client, "b", 10, 90),
		}, "0:0-10 2:10-90 0:90-100"},
		{"into the callee", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, client, "a", 10, 90), span(3, 2, server, "a", 20, 80),
		}, "0:0-10 1:10-20 2:20-80 1:80-90 0:90-100"},
		{"clocks apart: into the middle", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, client, "a", 10, 90),
			span(3, 2, server, "a", 1020, 1080), span(4, 3, client, "b", 1030, 1070),
		}, "0:0-10 1:10-20 2:20-30 3:30-70 2:70-80 1:80-90 0:90-100"},
		{"nobody waits for what outlives its parent", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, client, "a", 50, 300),
		}, "0:0-50 1:50-100"},
		{"nobody waits for a queue", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, consumer, "a", 10, 90),
		}, "0:0-100"},
		{"an unknown parent", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 99, client, "a", 10, 900),
		}, "0:0-100"},
		{"no true root", []callgraph.Span{span(2, 99, client, "a", 10, 20), span(3, 98, client, "b", 10, 90)}, "1:10-90"},
		{"time goes backward", []callgraph.Span{span(1, 0, server, "", 100, 0)}, ""},
		{"the same id twice", []callgraph.Span{
			span(1, 0, server, "", 0, 100), span(2, 1, client, "a", 10, 20), span(2, 1, client, "b", 30, 40),
		}, "0:0-10 1:10-20 0:20-30 2:30-40 0:40-100"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := callgraph.CriticalPath(test.spans)
			if err != nil {
				t.Fatal(err)
			}
			if got := steps(p); got != test.want {
				t.Errorf("steps %s\nwant  %s", got, test.want)
			}
		})
	}
}

func TestCriticalPathRefuses(t *testing.T) {
	for name, spans := range map[string][]callgraph.Span{
		"nothing":        nil,
		"a circle":       {span(1, 2, callgraph.Server, "a", 0, 1), span(2, 1, callgraph.Server, "b", 0, 1)},
		"its own parent": {span(1, 1, callgraph.Server, "a", 0, 1)},
		"too many":       make([]callgraph.Span, callgraph.MaxSpans+1),
		"absurd times":   {span(1, 0, callgraph.Server, "a", -1<<63, 1<<62)},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := callgraph.CriticalPath(spans); err == nil {
				t.Errorf("no error, %d steps", len(p.Steps))
			}
		})
	}
}

func TestCriticalPathHasNoGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "spans")
		var spans []callgraph.Span
		for i := range n {
			spans = append(spans, span(i+1, rapid.IntRange(0, n).Draw(t, "parent"),
				callgraph.Side(rapid.IntRange(0, 3).Draw(t, "side")), rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "method"),
				rapid.Int64Range(0, 100).Draw(t, "start"), rapid.Int64Range(0, 100).Draw(t, "end")))
		}
		p, err := callgraph.CriticalPath(spans)
		if err != nil {
			return
		}
		var sum int64
		for i, s := range p.Steps {
			sum += s.End - s.Start
			if s.Start >= s.End || i > 0 && p.Steps[i-1].End != s.Start {
				t.Fatalf("steps %s", steps(p))
			}
		}
		if time.Duration(sum) != p.Total {
			t.Fatalf("steps of %d in all, the root took %d", sum, p.Total)
		}
	})
}

func TestCriticalPathOfADeepTrace(t *testing.T) {
	spans := make([]callgraph.Span, callgraph.MaxSpans)
	for i := range spans {
		id := func(n int) tracing.SpanID { return tracing.SpanID{5: byte(n >> 16), 6: byte(n >> 8), 7: byte(n)} }
		spans[i] = callgraph.Span{ID: id(i + 1), Parent: id(i), Side: callgraph.Client, Start: int64(i), End: 1 << 20}
	}
	p, err := callgraph.CriticalPath(spans)
	if err != nil || len(p.Steps) != len(spans) {
		t.Errorf("%d steps, error %v", len(p.Steps), err)
	}
}

func TestCriticalShares(t *testing.T) {
	g := callgraph.Build(period(both(1, "", "a.A/Do", 1, 0), both(1, "a.A/Do", "b.B/Do", 1, 0), both(1, "", "c.C/Do", 1, 0)), 0, 1)
	p, err := callgraph.CriticalPath([]callgraph.Span{
		span(1, 0, callgraph.Server, "", 0, 100),
		span(2, 1, callgraph.Client, "a.A/Do", 10, 90), span(3, 2, callgraph.Server, "a.A/Do", 20, 80),
		span(4, 3, callgraph.Client, "b.B/Do", 30, 60), span(5, 1, callgraph.Client, "c.C/Do", 10, 50),
	})
	if err != nil {
		t.Fatal(err)
	}
	g = g.WithCritical(p, p)
	if g.Traces != 2 {
		t.Errorf("%d traces", g.Traces)
	}
	got := map[string]float64{}
	for _, e := range g.Edges {
		got[g.Nodes[e.From].Name+" > "+g.Nodes[e.To].Name] = e.Critical
	}
	for _, n := range g.Nodes {
		got[n.Name] = n.Critical
	}
	for name, want := range map[string]float64{
		"POST /posts > a.A/Do": 0.8, "a.A/Do > b.B/Do": 0.3, "POST /posts > c.C/Do": 0,
		"POST /posts": 0.2, "a.A/Do": 0.5, "b.B/Do": 0.3, "c.C/Do": 0,
	} {
		if d := got[name] - want; d > 1e-9 || d < -1e-9 {
			t.Errorf("%s: share %v, want %v", name, got[name], want)
		}
	}
}
