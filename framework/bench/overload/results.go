// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
)

// goals are those of the project; a metric without one is for information.
var goals = map[string]*figure.Goal{
	"overload.real.steady.mean":       figure.AtLeast(.93),
	"overload.real.steady.worst":      figure.AtLeast(.90),
	"overload.real.steady.waste":      figure.AtMost(.02),
	"overload.real.steady.p99_ms":     figure.AtMost(250),
	"overload.real.resend3.goodput":   figure.AtLeast(.93),
	"overload.real.chain2.waste":      figure.AtMost(.10),
	"overload.real.top20":             figure.AtLeast(.95),
	"overload.real.burst5.goodput":    figure.AtLeast(.95),
	"overload.real.burst5.recover_ms": figure.AtMost(500),
	"overload.real.brownout4.goodput": figure.AtLeast(.90),
	"overload.real.fair":              figure.AtLeast(.90),
	"overload.real.mixedcost.goodput": figure.AtLeast(.90),
	"overload.cpu.f1.2.goodput":       figure.AtLeast(.92),
	"overload.cpu.f2.goodput":         figure.AtLeast(.92),
	"overload.cpu.f4.goodput":         figure.AtLeast(.92),
	"overload.cpu.f8.goodput":         figure.AtLeast(.92),
	"overload.cpu.top20":              figure.AtLeast(.97),
	"overload.cpu.admitted_p99_ms":    figure.AtMost(150),
	"overload.cpu.refused_p99_ms":     figure.AtMost(130),
	"overload.cpu.burst5.goodput":     figure.AtLeast(.95),
	"overload.cpu.burst5.recover_ms":  figure.AtMost(500),
	"overload.cpu.mix_ratio_vs_fixed": figure.AtLeast(10),
	"qos.admit.ns":                    figure.AtMost(200),
	"qos.admit.allocs":                figure.AtMost(0),
	"qos.reject.payload_allocs":       figure.AtMost(0),
	"qos.reject.allocs":               figure.AtMost(1),
	"qos.reject.c64.cpu_ratio":        figure.AtMost(.45),
	"qos.reject.c1000.cpu_ratio":      figure.AtMost(.30),
	"qos.reject.cpu_ratio_1MB":        figure.AtMost(.50),
	"qos.served.cpu_ratio_vs_off":     figure.AtMost(1.10),
}

// row gives a metric as the tables show it.
func row(m figure.Metric) string {
	s := fmt.Sprintf("%-42s %9v %-10s", m.Name, m.Value, m.Unit)
	if m.N > 1 {
		s += fmt.Sprintf(" [%v, %v] n=%d", m.Q1, m.Q3, m.N)
	}
	if m.Goal == nil {
		return strings.TrimRight(s, " ")
	}
	verdict := "MISSED"
	if *m.Met {
		verdict = "met"
	}
	return fmt.Sprintf("%-82s goal %s %v %s", s, m.Goal.Op, m.Goal.Limit, verdict)
}

// results prints for people as the run goes and keeps the values for the end.
type results struct {
	w      io.Writer
	began  time.Time
	names  []string // in the order in which they came
	units  map[string]string
	values map[string][]float64
}

func newResults(w io.Writer) *results {
	return &results{w: w, began: time.Now(), units: map[string]string{}, values: map[string][]float64{}}
}

// line prints with the time since the run began.
func (r *results) line(format string, args ...any) {
	fmt.Fprintf(r.w, "%5.0fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// cpuShare is what of its cores the server got in the closed loops, which ask for all.
// The rest of a few hundredths is the time in which nobody called.
const (
	cpuShare = "overload.cpu.capacity.cpu_share"
	leastCPU = .85
)

// add takes a value of a round.
func (r *results) add(name, unit string, value float64) {
	if _, known := r.units[name]; !known {
		r.names = append(r.names, name)
		r.units[name] = unit
	}
	r.values[name] = append(r.values[name], value)
}

func (r *results) machine(cfg config) {
	r.line("%s, %d cores, %s/%s, load average %s before the run", runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, figure.LoadAverage())
	if cfg.quota > 0 {
		r.line("a server may use the time of %v cores", cfg.quota)
	}
	r.line("servers on cores %v, generator on cores %v; %.0f rounds of a loop are 1 µs of work", cfg.server, cfg.gen, cfg.loops)
	if len(cfg.server) == 1 && slices.Equal(cfg.server, cfg.gen) {
		r.line("there is one core: the generator takes from the server what it needs, and the figures are worth little")
	}
}

func (r *results) metrics() []figure.Metric {
	ms := make([]figure.Metric, 0, len(r.names))
	for _, name := range r.names {
		m := figure.Of(name, r.units[name], r.values[name])
		if g, ok := goals[name]; ok {
			m.Judge(g, m.Value)
		}
		ms = append(ms, m)
	}
	return ms
}

// table prints all that has been measured, and then the goals alone.
func (r *results) table() {
	ms := r.metrics()
	fmt.Fprintln(r.w)
	for _, m := range ms {
		fmt.Fprintln(r.w, row(m))
	}
	missed := 0
	fmt.Fprintln(r.w, "\ngoals")
	for _, m := range ms {
		if m.Goal == nil {
			continue
		}
		fmt.Fprintln(r.w, row(m))
		if !*m.Met {
			missed++
		}
	}
	fmt.Fprintln(r.w)
	if _, share, _ := figure.Quartiles(r.values[cpuShare]); len(r.values[cpuShare]) > 0 && share < leastCPU {
		r.line("THE MACHINE WAS BUSY OTHERWISE: a saturated server got %.2f of its cores; goodputs, times and the goals they meet or miss say nothing", share)
	}
	r.line("%d metrics, %d goals missed, load average %s after the run", len(ms), missed, figure.LoadAverage())
}

// writeJSON writes the metrics to path, one object a line.
func (r *results) writeJSON(path string) error {
	return figure.Write(path, r.metrics())
}
