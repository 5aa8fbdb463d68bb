// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-rpc/sluice/framework/bench/child"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
)

// What the full part compares: everything on, each in its own way, one call in a hundred
// traced. go-zero and Kratos are in a program of their own, ./governed: what they link
// must not weigh on the others.
var (
	fullPeer = variant(sluicePeer, "full", "this tree, which has everything on, and one call in a hundred exported to OpenTelemetry's SDK", sampleOnePercent)

	grpcFullPeer = variant(child.Peer{
		Deadline: true,
		Serve: grpcServe(func() []grpc.ServerOption {
			return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler())}
		}, func(srv *grpc.Server) { healthv1.RegisterHealthServer(srv, health.NewServer()) }),
		Dial: grpcDial(func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler()), grpc.WithDefaultServiceConfig(grpcGovernance)}
		}),
	}, "grpc-full", "grpc-go v1.85.0 with otelgrpc v0.72.0 (spans of one in a hundred, metrics), timeout, retries with throttling, health checks", startOTelOnePercent)
)

// grpcGovernance is what grpc-go has of its own.
const grpcGovernance = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": ""},
	"retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
	"methodConfig": [{"name": [{}], "timeout": "10s", "retryPolicy": {
		"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
	}}]
}`

func startOTelOnePercent() error {
	otel.SetTracerProvider(sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(.01))), sdktrace.WithBatcher(discard{})))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return nil
}

// The frameworks of the full part: ours first, those of ./governed, and bare kitex.
var (
	governed  = []string{"go-zero", "kratos"}
	fullPeers = slices.Concat([]string{fullPeer.Name, grpcFullPeer.Name}, governed, []string{kitexPeer.Name})
	fullGoals = map[string]*figure.Goal{
		grpcFullPeer.Name: figure.AtMost(.35), "go-zero": figure.AtMost(.35), "kratos": figure.AtMost(.35), kitexPeer.Name: figure.AtMost(.95),
	}
)

// fullPart measures everything on, beside others with their own governance on.
func fullPart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("full") {
		return nil
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "governed")
	rep.title("everything on: building go-zero and Kratos, which takes some minutes the first time")
	build := exec.CommandContext(ctx, "go", "build", "-C", "governed", "-tags", "governed,no_k8s", "-o", binary, ".")
	if msg, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build governed (run this from framework/bench): %w\n%s", err, msg)
	}
	cfg.programs = map[string]string{}
	for _, name := range governed {
		cfg.programs[name] = binary
	}
	about, err := exec.CommandContext(ctx, binary).Output()
	if err != nil {
		return fmt.Errorf("ask governed what it is: %w", err)
	}
	rep.line("everything on: echo of %d bytes, %d connections, closed loop, %d rounds; each cell: calls/s, server + client µs of CPU a call",
		child.EchoBytes, child.Connections, cfg.rounds)
	for _, p := range []child.Peer{fullPeer, grpcFullPeer, kitexPeer} {
		rep.line("  %-10s %s", p.Name, p.About)
	}
	rep.line("%s", strings.TrimRight(string(about), "\n"))
	cfg.only = []string{"c100", "c1000"}
	cfg.refusals = true
	got := map[string]map[string][]window{"c100": {}, "c1000": {}}
	for round := range cfg.rounds {
		lines := map[string][]string{}
		for i := range fullPeers {
			name := fullPeers[(i+round)%len(fullPeers)]
			if err := throughputOf(ctx, cfg, name, func(part string, w window) {
				rep.calls += w.calls
				got[part][name] = append(got[part][name], w)
				lines[part] = append(lines[part], fmt.Sprintf("%s %6.0f %5.1f + %-5.1f", name, w.perSecond, w.server.micros, w.client.micros))
			}); err != nil {
				return fmt.Errorf("round %d: %s: %w", round+1, name, err)
			}
		}
		for _, part := range cfg.only {
			slices.Sort(lines[part])
			rep.line("%3d/%d %-5s  %s", round+1, cfg.rounds, part, strings.Join(lines[part], "   "))
		}
	}
	for _, part := range cfg.only {
		rep.full(part, got[part])
	}
	return nil
}

// full reports one concurrency: server, client and both together beside each of the others.
func (r *report) full(part string, got map[string][]window) {
	both := func(w window) float64 { return w.server.micros + w.client.micros }
	refused := func(w window) float64 { return w.refusedShare() }
	ours := got[fullPeer.Name]
	r.title("%s, everything on: medians of %d rounds", part, len(ours))
	r.line("  %-10s %10s %12s %12s %14s %14s %10s", "", "calls/s", "server µs", "client µs", "server allocs", "client allocs", "refused")
	for _, name := range fullPeers {
		of := func(f func(window) float64) float64 { _, m, _ := figure.Quartiles(each(got[name], f)); return m }
		r.line("  %-10s %10.0f %12.1f %12.1f %14.1f %14.1f %9.2f%%", name, of(perSecond), of(serverCPU), of(clientCPU),
			of(func(w window) float64 { return w.server.allocs }), of(func(w window) float64 { return w.client.allocs }), 100*of(refused))
	}
	prefix := "rpc.full." + part + "."
	for _, name := range fullPeers[1:] {
		vs := "_vs_" + strings.ReplaceAll(strings.TrimSuffix(name, "-full"), "-", "")
		r.metric(prefix+"cpu_ratio"+vs, "ratio", ratios(ours, got[name], serverCPU), fullGoals[name])
		r.metric(prefix+"client_cpu_ratio"+vs, "ratio", ratios(ours, got[name], clientCPU), nil)
		r.metric(prefix+"both_cpu_ratio"+vs, "ratio", ratios(ours, got[name], both), nil)
		r.metric(prefix+"qps_ratio"+vs, "ratio", ratios(ours, got[name], perSecond), nil)
	}
	r.metric(prefix+"server_cpu_us", "µs/call", each(ours, serverCPU), nil)
	r.metric(prefix+"client_cpu_us", "µs/call", each(ours, clientCPU), nil)
	r.metric(prefix+"refused_share", "share", each(ours, refused), nil)
}
