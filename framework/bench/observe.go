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
)

// What the observe part compares: everything recorded, which is how sluice always is,
// with nothing recorded, and what the usual instrumentation costs others. Headers and
// deadlines are the same in all three of ours.
var (
	nothingPeer  = variant(sluicePeer, "nothing", "this tree with no items, no graph, no records", recordNothing)
	sampled1Peer = variant(sluicePeer, "sampled1", "this tree, one call in a hundred traced and exported to OpenTelemetry's SDK", sampleOnePercent)

	observePeers = []peer{sluicePeer, nothingPeer, sampled1Peer, kitexPeer, kitexOTelPeer, grpcPeer, grpcOTelPeer}
)

// variant is a peer whose processes are prepared in some way first.
func variant(p peer, name, about string, prepare func() error) peer {
	serve, dial := p.serve, p.dial
	p.name, p.about, p.local = name, about, nil
	p.serve = func(s *service) (string, error) {
		if err := prepare(); err != nil {
			return "", err
		}
		return serve(s)
	}
	p.dial = func(addr string) (client, error) {
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
		echoBytes, connections, cfg.rounds)
	for _, p := range observePeers {
		rep.line("  %-10s %s", p.name, p.about)
	}
	got := map[string]map[string][]window{"c100": {}, "c1000": {}}
	for round := range cfg.rounds {
		lines := map[string][]string{}
		for i := range observePeers {
			name := observePeers[(i+round)%len(observePeers)].name
			only := cfg
			if only.only = []string{"c100"}; name == "sluice" || name == "kitex" {
				only.only = []string{"c100", "c1000"}
			}
			if err := throughputOf(ctx, only, name, func(part string, w window) {
				rep.calls += w.calls
				got[part][name] = append(got[part][name], w)
				lines[part] = append(lines[part], fmt.Sprintf("%s %6.0f %5.1f + %-5.1f", name, w.perSecond, w.server.micros, w.client.micros))
			}); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
		for _, part := range []string{"c100", "c1000"} {
			slices.Sort(lines[part])
			rep.line("%3d/%d %-5s  %s", round+1, cfg.rounds, part, strings.Join(lines[part], "   "))
		}
	}
	rep.observe(got)
	return nil
}

// observe reports what recording costs. CPU is that of both ends together.
func (r *report) observe(got map[string]map[string][]window) {
	both := func(w window) float64 { return w.server.micros + w.client.micros }
	allocs := func(w window) float64 { return w.server.allocs + w.client.allocs }
	c100 := got["c100"]
	r.title("c100: medians of %d rounds", len(c100["sluice"]))
	r.line("  %-10s %10s %12s %12s %14s %14s", "", "calls/s", "server µs", "client µs", "server allocs", "client allocs")
	for _, p := range observePeers {
		of := func(f func(window) float64) float64 { _, m, _ := figure.Quartiles(each(c100[p.name], f)); return m }
		r.line("  %-10s %10.0f %12.1f %12.1f %14.1f %14.1f", p.name, of(perSecond), of(serverCPU), of(clientCPU),
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
	for _, part := range []string{"c100", "c1000"} {
		r.metric("rpc.full."+part+".cpu_ratio_vs_kitex", "ratio", ratios(got[part]["sluice"], got[part]["kitex"], serverCPU), figure.AtMost(.95))
		r.metric("rpc.full."+part+".client_cpu_ratio_vs_kitex", "ratio", ratios(got[part]["sluice"], got[part]["kitex"], clientCPU), nil)
	}
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
		edges.Slot(names[i%entries], caller).Record(callgraph.OK, time.Duration(50+i%100)*time.Microsecond, echoBytes, echoBytes)
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
				from, err := cpuTime()
				if err != nil {
					return err
				}
				for i := range calls {
					piece.do(i)
				}
				to, err := cpuTime()
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
