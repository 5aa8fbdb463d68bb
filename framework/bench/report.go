// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// report prints for people as the run goes and keeps the metrics for the end.
type report struct {
	w       io.Writer
	metrics []figure.Metric
	calls   int64 // answered and checked
	lost    int64 // blocked calls that failed
}

func newReport(w io.Writer) *report { return &report{w: w} }

func (r *report) line(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

func (r *report) title(format string, args ...any) {
	r.line("\n"+format, args...)
}

// machine says what the figures were measured on, and of whom.
func (r *report) machine(cfg config) {
	r.line("%s, %d cores, %s/%s, load average %s before the run", runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, figure.LoadAverage())
	for _, name := range cfg.peers {
		if p, err := peerNamed(name); err == nil {
			r.line("  %-7s %s", p.Name, p.About)
		}
	}
}

// metric keeps a metric and prints it. A nil goal means that none was set.
func (r *report) metric(name, unit string, values []float64, g *figure.Goal) {
	m := figure.Of(name, unit, values)
	if g != nil {
		_, median, _ := figure.Quartiles(values)
		m.Judge(g, median)
	}
	r.metrics = append(r.metrics, m)
	r.line("  %s", row(m))
}

// row gives a metric as the tables show it.
func row(m figure.Metric) string {
	s := fmt.Sprintf("%-40s %10v %-12s", m.Name, m.Value, m.Unit)
	if m.N > 1 {
		s += fmt.Sprintf(" [%v, %v] n=%d", m.Q1, m.Q3, m.N)
	}
	if m.Goal == nil {
		return strings.TrimRight(s, " ")
	}
	if *m.Met {
		return s + "  goal " + m.Goal.String() + " met"
	}
	return s + "  goal " + m.Goal.String() + " MISSED"
}

// throughput reports one concurrency: what each framework did, and ours against
// the others round by round.
func (r *report) throughput(part string, names []string, got map[string][]window) {
	r.title("%s: medians of %d rounds", part, len(got[names[0]]))
	r.line("  %-8s %10s %12s %12s %14s %14s", "", "calls/s", "server µs", "client µs", "server allocs", "client allocs")
	for _, name := range names {
		of := func(f func(window) float64) float64 { _, m, _ := figure.Quartiles(each(got[name], f)); return m }
		r.line("  %-8s %10.0f %12.1f %12.1f %14.1f %14.1f", name, of(perSecond), of(serverCPU), of(clientCPU),
			of(func(w window) float64 { return w.server.allocs }), of(func(w window) float64 { return w.client.allocs }))
	}
	ours := got["sluice"]
	if ours == nil {
		return
	}
	prefix := "rpc." + part + "."
	var cpuGoal, clientGoal, qpsGoal *figure.Goal
	if part != "c1" {
		cpuGoal = figure.AtMost(0.85)
	}
	if part == "c100" {
		clientGoal, qpsGoal = figure.AtMost(0.65), figure.AtLeast(2.5)
	}
	if kitex := got["kitex"]; kitex != nil {
		r.metric(prefix+"cpu_ratio_vs_kitex", "ratio", ratios(ours, kitex, serverCPU), cpuGoal)
		r.metric(prefix+"client_cpu_ratio_vs_kitex", "ratio", ratios(ours, kitex, clientCPU), clientGoal)
		r.metric(prefix+"qps_ratio_vs_kitex", "ratio", ratios(ours, kitex, perSecond), nil)
	}
	if grpc := got["grpc"]; grpc != nil {
		r.metric(prefix+"qps_ratio_vs_grpc", "ratio", ratios(ours, grpc, perSecond), qpsGoal)
		r.metric(prefix+"cpu_ratio_vs_grpc", "ratio", ratios(ours, grpc, serverCPU), nil)
		r.metric(prefix+"client_cpu_ratio_vs_grpc", "ratio", ratios(ours, grpc, clientCPU), nil)
	}
	r.metric(prefix+"qps", "calls/s", each(ours, perSecond), nil)
	r.metric(prefix+"server_cpu_us", "µs/call", each(ours, serverCPU), nil)
	r.metric(prefix+"client_cpu_us", "µs/call", each(ours, clientCPU), nil)
	if part != "c100" {
		return
	}
	r.metric("rpc.allocs_server", "allocs/call", each(ours, func(w window) float64 { return w.server.allocs }), figure.AtMost(10))
	r.metric("rpc.allocs_client", "allocs/call", each(ours, func(w window) float64 { return w.client.allocs }), figure.AtMost(8))
	r.metric("rpc.alloc_bytes_server", "bytes/call", each(ours, func(w window) float64 { return w.server.bytes }), nil)
	r.metric("rpc.alloc_bytes_client", "bytes/call", each(ours, func(w window) float64 { return w.client.bytes }), nil)
}

// inflightPrefix begins the names of the metrics of so many blocked calls.
func inflightPrefix(calls int) string {
	switch {
	case calls%1_000_000 == 0:
		return fmt.Sprintf("inflight.%dm.", calls/1_000_000)
	case calls%1000 == 0:
		return fmt.Sprintf("inflight.%dk.", calls/1000)
	}
	return fmt.Sprintf("inflight.%d.", calls)
}

// inflightGoals are what a blocked call may take of resident memory.
var inflightGoals = map[string]*figure.Goal{"server": figure.AtMost(4500), "client": figure.AtMost(6500), "middle": figure.AtMost(7500)}

// inflight reports what one blocked call costs each process: the client is the first, the
// server the last. With a middle tier only that is reported.
func (r *report) inflight(calls int, name string, middle bool, idle, held []child.Sample) {
	for i, from := range idle {
		to, end, prefix := held[i], "middle", "inflight."
		switch i {
		case 0:
			end = "client"
		case len(idle) - 1:
			end = "server"
		}
		if middle != (end == "middle") {
			continue
		}
		goal := inflightGoals[end]
		if name != "sluice" {
			goal, prefix = nil, inflightPrefix(calls)+name+"."
		} else if calls != inflightCalls {
			prefix = inflightPrefix(calls)
		}
		per := func(from, to uint64) []float64 { return []float64{(float64(to) - float64(from)) / float64(calls)} }
		r.metric(prefix+end+"_bytes_per_call", "bytes", per(uint64(from.RSS), uint64(to.RSS)), goal)
		r.metric(prefix+end+"_stack_per_call", "bytes", per(from.Stack, to.Stack), nil)
		r.metric(prefix+end+"_heap_per_call", "bytes", per(from.Heap, to.Heap), nil)
	}
}

// inflightCalls is how many blocked calls are the measure: metrics of other numbers name
// them.
const inflightCalls = 300_000

// goals sums up the run. That it has come so far means that no call failed, but for
// blocked ones.
func (r *report) goals() {
	if r.calls > 0 {
		r.line("\n%d calls measured: %d failed, 0 answered wrong", r.calls+r.lost, r.lost)
	}
	r.title("goals")
	for _, m := range r.metrics {
		if m.Goal != nil {
			r.line("  %s", row(m))
		}
	}
}

// writeJSON writes the metrics to path, one object a line.
func (r *report) writeJSON(path string) error {
	if err := figure.Write(path, r.metrics); err != nil {
		return err
	}
	r.line("\n%d metrics written to %s at %s", len(r.metrics), path, time.Now().Format(time.RFC3339))
	return nil
}

func perSecond(w window) float64 { return w.perSecond }
func serverCPU(w window) float64 { return w.server.micros }
func clientCPU(w window) float64 { return w.client.micros }

func each(ws []window, f func(window) float64) []float64 {
	vs := make([]float64, len(ws))
	for i, w := range ws {
		vs[i] = f(w)
	}
	return vs
}

// ratios divides what two frameworks did in the same round.
func ratios(a, b []window, f func(window) float64) []float64 {
	vs := make([]float64, min(len(a), len(b)))
	for i := range vs {
		vs[i] = f(a[i]) / f(b[i])
	}
	return vs
}
