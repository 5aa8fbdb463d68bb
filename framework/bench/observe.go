// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/otlp"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// What the observe part compares: everything recorded, which is how sluice always is,
// with nothing recorded, and what the usual instrumentation costs others. Headers and
// deadlines are the same in all three of ours.
var (
	nothingPeer  = variant(sluicePeer, "nothing", "this tree with no items, no graph, no records", recordNothing)
	sampled1Peer = variant(sluicePeer, "sampled1", "this tree, one call in a hundred traced and exported to OpenTelemetry's SDK", sampleOnePercent)

	observePeers = []child.Peer{sluicePeer, nothingPeer, sampled1Peer, kitexPeer, kitexOTelPeer, grpcPeer, grpcOTelPeer}
)

// variant is a peer whose processes are prepared in some way first.
func variant(p child.Peer, name, about string, prepare func() error) child.Peer {
	serve, dial := p.Serve, p.Dial
	p.Name, p.About, p.Local = name, about, nil
	p.Serve = func(s *child.Service) (string, error) {
		if err := prepare(); err != nil {
			return "", err
		}
		return serve(s)
	}
	p.Dial = func(addr string) (child.Client, error) {
		if err := prepare(); err != nil {
			return nil, err
		}
		return dial(addr)
	}
	return p
}

func recordNothing() error {
	interceptor.RecordNothing()
	return nil
}

func sampleOnePercent() error {
	e, err := otlp.New(context.Background(), otlp.Config{Service: "bench", Spans: discard{}})
	if err != nil {
		return err
	}
	framework.Tracer().SetExporter(e)
	return framework.Tracer().SetRates(tracing.Rate{Ratio: .01}, nil)
}

// discard is a receiver that costs nothing.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

// observePart measures what recording costs, each round with all of them.
func observePart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("observe") {
		return nil
	}
	rep.title("recording: echo of %d bytes, %d connections, closed loop, %d rounds; each cell: calls/s, server + client µs of CPU a call",
		child.EchoBytes, child.Connections, cfg.rounds)
	for _, p := range observePeers {
		rep.line("  %-10s %s", p.Name, p.About)
	}
	got := map[string][]window{}
	for round := range cfg.rounds {
		var line []string
		for i := range observePeers {
			name := observePeers[(i+round)%len(observePeers)].Name
			only := cfg
			only.only = []string{"c100"}
			if err := throughputOf(ctx, only, name, func(_ string, w window) {
				rep.calls += w.calls
				got[name] = append(got[name], w)
				line = append(line, fmt.Sprintf("%s %6.0f %5.1f + %-5.1f", name, w.perSecond, w.server.micros, w.client.micros))
			}); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
		slices.Sort(line)
		rep.line("%3d/%d c100  %s", round+1, cfg.rounds, strings.Join(line, "   "))
	}
	rep.observe(got)
	return nil
}

// observe reports what recording costs. CPU is that of both ends together.
func (r *report) observe(c100 map[string][]window) {
	both := func(w window) float64 { return w.server.micros + w.client.micros }
	allocs := func(w window) float64 { return w.server.allocs + w.client.allocs }
	r.title("c100: medians of %d rounds", len(c100["sluice"]))
	r.line("  %-10s %10s %12s %12s %14s %14s", "", "calls/s", "server µs", "client µs", "server allocs", "client allocs")
	for _, p := range observePeers {
		of := func(f func(window) float64) float64 { _, m, _ := figure.Quartiles(each(c100[p.Name], f)); return m }
		r.line("  %-10s %10.0f %12.1f %12.1f %14.1f %14.1f", p.Name, of(perSecond), of(serverCPU), of(clientCPU),
			of(func(w window) float64 { return w.server.allocs }), of(func(w window) float64 { return w.client.allocs }))
	}
	r.metric("observe.cpu_ratio", "ratio", ratios(c100["sluice"], c100["nothing"], both), figure.AtMost(1.08))
	r.metric("observe.server_cpu_ratio", "ratio", ratios(c100["sluice"], c100["nothing"], serverCPU), nil)
	r.metric("observe.client_cpu_ratio", "ratio", ratios(c100["sluice"], c100["nothing"], clientCPU), nil)
	extra := each(c100["sluice"], allocs)
	for i, w := range c100["nothing"] {
		extra[i] -= allocs(w)
	}
	r.metric("observe.allocs_extra", "allocs/call", extra, figure.AtMost(2))
	r.metric("observe.sampled1.cpu_ratio", "ratio", ratios(c100["sampled1"], c100["nothing"], both), figure.AtMost(1.10))
	r.metric("observe.peer.kitex_otel.cpu_ratio", "ratio", ratios(c100["kitex-otel"], c100["kitex"], both), nil)
	r.metric("observe.peer.grpc_otel.cpu_ratio", "ratio", ratios(c100["grpc-otel"], c100["grpc"], both), nil)
}

// piecesPart measures the pieces of recording alone, in this process.
func piecesPart(_ context.Context, cfg config, rep *report) error {
	if !cfg.wants("observe") {
		return nil
	}
	const entries, calls = 32, 200_000
	recorder := callgraph.NewRecorder(callgraph.Config{})
	edges := recorder.Edges(callgraph.Server, "bench.v1.Echo/Echo")
	caller := recorder.Method("bench.v1.Front/Call")
	var names [entries]tracing.Entry
	for i := range names {
		names[i] = recorder.NameEntry(fmt.Sprintf("GET /%d", i))
	}
	edge := func(i int) {
		edges.Slot(names[i%entries], caller).Record(callgraph.OK, time.Duration(50+i%100)*time.Microsecond, child.EchoBytes, child.EchoBytes)
	}
	tracer, err := tracing.New(tracing.Config{})
	if err != nil {
		return err
	}
	method := tracer.Method(tracing.Server, "bench.v1.Echo/Echo")
	keep := func(i int) {
		method.Keep(&tracing.Ended{Took: time.Duration(50+i%100) * time.Microsecond, Span: tracing.SpanID{byte(i), byte(i >> 8)}})
	}
	var table inflight.Table
	var call inflight.Call
	shown := func(int) {
		table.Add(&call)
		table.Remove(&call)
	}
	rep.title("pieces, one goroutine, %d entries in turn; each value is the least of five batches of %d", entries, calls)
	for _, piece := range []struct {
		name string
		do   func(int)
		goal *figure.Goal
	}{
		{"edge_record", edge, figure.AtMost(25)},
		{"keep", keep, nil},
		{"in_flight", shown, figure.AtMost(30)},
	} {
		for i := range calls {
			piece.do(i)
		}
		var nanos, allocs []float64
		for range cfg.rounds {
			least := time.Duration(1<<63 - 1)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 5 {
				from, err := child.CPUTime()
				if err != nil {
					return err
				}
				for i := range calls {
					piece.do(i)
				}
				to, err := child.CPUTime()
				if err != nil {
					return err
				}
				least = min(least, to-from)
			}
			runtime.ReadMemStats(&after)
			nanos = append(nanos, float64(least)/calls)
			allocs = append(allocs, float64((after.Mallocs-before.Mallocs)/(5*calls)))
		}
		rep.metric("observe."+piece.name+".ns", "ns", nanos, piece.goal)
		rep.metric("observe."+piece.name+".allocs", "allocs", allocs, figure.AtMost(0))
	}
	return nil
}
