// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A goal is a limit that a median should keep.
type goal struct {
	Op    string  `json:"op"` // "<=" or ">="
	Limit float64 `json:"limit"`
}

func atMost(limit float64) goal  { return goal{"<=", limit} }
func atLeast(limit float64) goal { return goal{">=", limit} }

func (g goal) met(v float64) bool {
	if g.Op == "<=" {
		return v <= g.Limit
	}
	return v >= g.Limit
}

// goals are those of the project; a metric without one is for information.
var goals = map[string]goal{
	"overload.real.steady.mean":       atLeast(.93),
	"overload.real.steady.worst":      atLeast(.90),
	"overload.real.steady.waste":      atMost(.02),
	"overload.real.steady.p99_ms":     atMost(250),
	"overload.real.resend3.goodput":   atLeast(.93),
	"overload.real.chain2.waste":      atMost(.10),
	"overload.real.top20":             atLeast(.95),
	"overload.real.burst5.goodput":    atLeast(.95),
	"overload.real.burst5.recover_ms": atMost(500),
	"overload.real.brownout4.goodput": atLeast(.90),
	"overload.real.fair":              atLeast(.90),
	"overload.real.mixedcost.goodput": atLeast(.90),
	"overload.cpu.f1.2.goodput":       atLeast(.92),
	"overload.cpu.f2.goodput":         atLeast(.92),
	"overload.cpu.f4.goodput":         atLeast(.92),
	"overload.cpu.f8.goodput":         atLeast(.92),
	"overload.cpu.top20":              atLeast(.97),
	"overload.cpu.admitted_p99_ms":    atMost(150),
	"overload.cpu.refused_p99_ms":     atMost(130),
	"overload.cpu.burst5.goodput":     atLeast(.95),
	"overload.cpu.burst5.recover_ms":  atMost(500),
	"overload.cpu.mix_ratio_vs_fixed": atLeast(10),
	"qos.admit.ns":                    atMost(200),
	"qos.admit.allocs":                atMost(0),
	"qos.reject.payload_allocs":       atMost(0),
	"qos.reject.allocs":               atMost(1),
	"qos.reject.c64.cpu_ratio":        atMost(.45),
	"qos.reject.c1000.cpu_ratio":      atMost(.30),
	"qos.reject.cpu_ratio_1MB":        atMost(.50),
	"qos.served.cpu_ratio_vs_off":     atMost(1.10),
}

// A metric is one line of the JSON file: the median of N values with quartiles.
type metric struct {
	Name  string  `json:"metric"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Q1    float64 `json:"q1"`
	Q3    float64 `json:"q3"`
	N     int     `json:"n"`
	Goal  *goal   `json:"goal,omitempty"`
	Met   *bool   `json:"met,omitempty"`
	Cores int     `json:"cores"`
	Go    string  `json:"go"`
}

func (m metric) String() string {
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

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return string(bytes.Fields(b)[0])
}

func (r *results) machine(cfg config) {
	r.line("%s, %d cores, %s/%s, load average %s before the run", runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, loadAverage())
	r.line("servers on cores %v, generator on cores %v; %.0f rounds of a loop are 1 µs of work", cfg.server, cfg.gen, cfg.loops)
	if slices.Equal(cfg.server, cfg.gen) {
		r.line("there is one core: the generator takes from the server what it needs, and the figures are worth little")
	}
}

func (r *results) metrics() []metric {
	ms := make([]metric, 0, len(r.names))
	for _, name := range r.names {
		q1, median, q3 := quartiles(r.values[name])
		m := metric{
			Name: name, Value: round(median), Unit: r.units[name], Q1: round(q1), Q3: round(q3), N: len(r.values[name]),
			Cores: runtime.NumCPU(), Go: runtime.Version(),
		}
		if g, ok := goals[name]; ok {
			met := g.met(m.Value)
			m.Goal, m.Met = &g, &met
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
		fmt.Fprintln(r.w, m)
	}
	missed := 0
	fmt.Fprintln(r.w, "\ngoals")
	for _, m := range ms {
		if m.Goal == nil {
			continue
		}
		fmt.Fprintln(r.w, m)
		if !*m.Met {
			missed++
		}
	}
	fmt.Fprintln(r.w)
	if _, share, _ := quartiles(r.values[cpuShare]); len(r.values[cpuShare]) > 0 && share < leastCPU {
		r.line("THE MACHINE WAS BUSY OTHERWISE: a saturated server got %.2f of its cores; goodputs, times and the goals they meet or miss say nothing", share)
	}
	r.line("%d metrics, %d goals missed, load average %s after the run", len(ms), missed, loadAverage())
}

// writeJSON writes the metrics to path, one object a line.
func (r *results) writeJSON(path string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, m := range r.metrics() {
		if err := enc.Encode(m); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// quartiles interpolates linearly between ranks. It gives zeros for no values.
func quartiles(values []float64) (q1, median, q3 float64) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	vs := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 {
		pos := q * float64(len(vs)-1)
		low := int(pos)
		high := min(low+1, len(vs)-1)
		return vs[low] + (pos-float64(low))*(vs[high]-vs[low])
	}
	return at(0.25), at(0.5), at(0.75)
}

// round keeps what a reader can use: three decimals of small values, none of
// large ones.
func round(v float64) float64 {
	if math.Abs(v) >= 1000 {
		return math.Round(v)
	}
	return math.Round(v*1000) / 1000
}
