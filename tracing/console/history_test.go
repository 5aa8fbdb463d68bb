// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

var began = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// row is calls of one edge.
func row(callee string, n uint64) callgraph.Row {
	return callgraph.Row{
		Key:   callgraph.Key{Side: callgraph.Server, Entry: tracing.EntryOf("GET /x"), Callee: callee},
		Stats: callgraph.Stats{Results: [callgraph.NumClasses]uint64{n}, Nanos: 1e6 * n, Latency: callgraph.Histogram{First: 40, Counts: []uint64{n}}},
	}
}

func calls(h *history, want span) (n uint64) {
	rounds, _, err := h.between(want)
	if err != nil {
		return 0
	}
	for _, r := range h.period(rounds, nil).Rows {
		n += r.Calls()
	}
	return n
}

// TestADayOfHistory: rounds go after an hour, blocks after a day, and what is asked for
// is neither counted twice nor lost in between.
func TestADayOfHistory(t *testing.T) {
	h := newHistory(256 << 20)
	now := began
	const rounds = 26 * 360
	for range rounds {
		from := now
		now = now.Add(10 * time.Second)
		h.add(&round{from: from, to: now, packed: pack([]callgraph.Row{row("a.B/C", 1)})})
	}
	if len(h.rounds) != 360 || len(h.blocks) < 286 || len(h.blocks) > 288 || h.early {
		t.Errorf("%d rounds, %d blocks, early %t", len(h.rounds), len(h.blocks), h.early)
	}
	for back, want := range map[time.Duration]uint64{10 * time.Second: 1, 5 * time.Minute: 30, time.Hour: 360, 2 * time.Hour: 720, 6 * time.Hour: 2160, 23 * time.Hour: 23 * 360} {
		got := calls(h, span{now.Add(-back), now})
		if diff := math.Abs(float64(got) - float64(want)); diff > 30 || back <= time.Hour && diff > 0 {
			t.Errorf("the last %v: %d calls, want %d give or take a block", back, got, want)
		}
	}
	// Two halves are the whole, wherever it is cut.
	whole := calls(h, span{now.Add(-3 * time.Hour), now})
	for _, back := range []time.Duration{5 * time.Minute, 55 * time.Minute, time.Hour, 61 * time.Minute, 2*time.Hour + 7*time.Second} {
		middle := now.Add(-back)
		if got := calls(h, span{now.Add(-3 * time.Hour), middle}) + calls(h, span{middle, now}); math.Abs(float64(got)-float64(whole)) > 30 {
			t.Errorf("cut %v ago: %d, want %d", back, got, whole)
		}
	}
	if n := calls(h, span{began.Add(-time.Hour), began}); n != 0 {
		t.Errorf("%d calls before the beginning", n)
	}
}

// TestMemoryIsBounded: a system that is too large loses its oldest history.
func TestMemoryIsBounded(t *testing.T) {
	const budget = 2 << 20
	h := newHistory(budget)
	now := began
	for i := range 400 {
		rows := make([]callgraph.Row, 200)
		for j := range rows {
			rows[j] = row(fmt.Sprintf("a.B/M%d-%d", i, j), 1) // never the same names
		}
		from := now
		now = now.Add(10 * time.Second)
		h.add(&round{from: from, to: now, packed: pack(rows)})
		sum := 0
		for _, r := range append(append([]*round{}, h.rounds...), h.blocks...) {
			sum += r.bytes
		}
		if sum != h.bytes || h.bytes > budget {
			t.Fatalf("round %d: %d bytes are said to be taken, %d are, at most %d may", i, h.bytes, sum, budget)
		}
	}
	if !h.early || len(h.rounds) < 10 {
		t.Errorf("early %t, %d rounds left", h.early, len(h.rounds))
	}
}

// TestBytesOfARow is the figure that the package tells.
func TestBytesOfARow(t *testing.T) {
	var rows []callgraph.Row
	for i := range 2000 {
		r := row(fmt.Sprintf("moments.v1.PostService/Method%d", i), 1)
		r.Results = [callgraph.NumClasses]uint64{4000, 3, 0, 0, 12}
		r.Nanos, r.RequestBytes, r.ResponseBytes = 4_000_000_000, 800_000, 8_000_000
		r.Latency = callgraph.Histogram{First: 30, Counts: []uint64{1, 5, 40, 300, 900, 1200, 800, 400, 200, 80, 40, 20, 9, 3, 1, 0, 1}}
		rows = append(rows, r)
	}
	p := pack(rows)
	if each := p.size() / len(rows); each > 70 {
		t.Errorf("%d bytes a row, want about 60", each)
	}
}

// TestPack: what is packed is what comes out, and sums are sums.
func TestPack(t *testing.T) {
	stats := rapid.Custom(func(t *rapid.T) callgraph.Stats {
		var s callgraph.Stats
		for i := range callgraph.NumClasses {
			s.Results[i] = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Max(1<<62)).Draw(t, "result")
			s.Attempts[i] = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Max(1000)).Draw(t, "attempt")
		}
		s.Nanos, s.RequestBytes, s.ResponseBytes = rapid.Uint64().Draw(t, "nanos"), rapid.Uint64().Draw(t, "in"), rapid.Uint64().Draw(t, "out")
		if counts := rapid.SliceOfN(rapid.Uint64Range(1, 1<<40), 0, 50).Draw(t, "counts"); len(counts) > 0 {
			s.Latency = callgraph.Histogram{First: rapid.IntRange(0, callgraph.NumBuckets-50).Draw(t, "first"), Counts: counts}
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		var a, b callgraph.Period
		for i := range rapid.IntRange(0, 5).Draw(t, "rows") {
			k := callgraph.Key{Side: callgraph.Side(i % 4), Entry: tracing.Entry(i), Caller: []string{"", "a.B/C"}[i%2], Callee: fmt.Sprint("x.Y/", i)}
			a.Rows = append(a.Rows, callgraph.Row{Key: k, Stats: stats.Draw(t, "a")})
			b.Rows = append(b.Rows, callgraph.Row{Key: k, Stats: stats.Draw(t, "b")})
		}
		all := sums{}
		for _, p := range []callgraph.Period{a, b} {
			packed := pack(p.Rows)
			all.add(&packed, nil)
			none := sums{}
			none.add(&packed, func(callgraph.Key) bool { return false })
			if len(none) != 0 {
				t.Fatalf("%d rows that nobody wanted", len(none))
			}
		}
		want := callgraph.Merge(a, b).Rows
		got := callgraph.Merge(callgraph.Period{Rows: all.rows()}).Rows
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
	})
}

// TestTrack: a value that changes is there for each round, and for each block as a mean.
func TestTrack(t *testing.T) {
	c := newClock(10 * time.Second)
	var still, moving track
	now := began
	for i := range 3 * 360 {
		now = now.Add(10 * time.Second)
		if c.tick(now) {
			still.closeBlock(c)
			moving.closeBlock(c)
		}
		still.add(c, 7)
		moving.add(c, float32(i/30))
	}
	if still.fine != nil || moving.fine == nil || c.bytes != 4*(360+288) {
		t.Errorf("%d bytes", c.bytes)
	}
	a := c.axis(span{now.Add(-2 * time.Hour), now})
	if len(a.times) != 12+360 {
		t.Errorf("%d times, want an hour of blocks and one of rounds", len(a.times))
	}
	for name, tr := range map[string]*track{"still": &still, "moving": &moving} {
		values := tr.between(c, a)
		for i, v := range values {
			want := 7.
			if name == "moving" {
				want = float64((a.times[i]-began.Unix()-10)/10) / 30
			}
			if v == nil || math.Abs(*v-want) > 1 {
				t.Fatalf("%s at %d: %v, want about %v", name, a.times[i], v, want)
			}
		}
	}
	moving.free(c)
	if c.bytes != 0 {
		t.Errorf("%d bytes after all is free", c.bytes)
	}
}

func TestPercentile(t *testing.T) {
	h := callgraph.Histogram{First: 40, Counts: []uint64{10, 80, 10}}
	for _, c := range []struct {
		d    time.Duration
		want float64
	}{
		{0, 0}, {callgraph.BucketBound(39), 0}, {callgraph.BucketBound(40), .1}, {callgraph.BucketBound(41), .9}, {callgraph.BucketBound(42), 1}, {time.Hour, 1},
	} {
		if got, ok := percentile(h, c.d); !ok || math.Abs(got-c.want) > .01 {
			t.Errorf("%v: %v, want %v", c.d, got, c.want)
		}
	}
	if _, ok := percentile(callgraph.Histogram{}, time.Second); ok {
		t.Error("a percentile of nothing")
	}
}

// TestTracesAreBounded: the oldest go, and one of endless spans is cut.
func TestTracesAreBounded(t *testing.T) {
	kept := newTraces()
	for i := range maxTraces + 100 {
		kept.add("p", []tracing.Record{{Trace: tracing.TraceID{1, byte(i), byte(i >> 8)}, Span: tracing.SpanID{1}, Start: int64(i)}})
	}
	if len(kept.order) != maxTraces || len(kept.byID) != maxTraces || kept.gone != 100 {
		t.Errorf("%d traces, %d gone", len(kept.order), kept.gone)
	}
	long := tracing.TraceID{9}
	for i := range maxTraceSpans + 10 {
		r := tracing.Record{Trace: long, Span: tracing.SpanID{byte(i), byte(i >> 8), 1}, Parent: tracing.SpanID{byte(i + 1), byte((i + 1) >> 8), 1}}
		kept.add("p", []tracing.Record{r, r}) // each twice
	}
	one := kept.byID[long]
	if len(one.records) != maxTraceSpans || !one.cut {
		t.Errorf("%d spans, cut %t", len(one.records), one.cut)
	}
	if records, depths := one.ordered(); len(records) != len(one.records) || len(depths) != len(records) {
		t.Errorf("%d of %d spans in order", len(records), len(one.records))
	}
}

// BenchmarkAnHour is the graph of an hour of a system of 1,000 edges, both ends counted.
func BenchmarkAnHour(b *testing.B) {
	h := newHistory(256 << 20)
	now := began
	entry := tracing.EntryOf("GET /x")
	for range 360 {
		rows := make([]callgraph.Row, 0, 2000)
		for j := range 1000 {
			r := row(fmt.Sprintf("a.B/M%d", j), 40)
			r.Caller, r.Latency = "a.B/C", callgraph.Histogram{First: 30, Counts: []uint64{1, 5, 4, 3, 9, 12, 2, 4}}
			rows = append(rows, r)
			r.Side = callgraph.Client
			rows = append(rows, r)
		}
		from := now
		now = now.Add(10 * time.Second)
		h.add(&round{from: from, to: now, packed: pack(rows)})
	}
	rounds, _, err := h.between(span{began, now})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		callgraph.Build(h.period(rounds, &entry), time.Hour, entry)
	}
	b.ReportMetric(float64(h.bytes)/1e6, "MB")
}
