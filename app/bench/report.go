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
)

// metric is one line of the JSON file: the median over the rounds with quartiles.
type metric struct {
	Name  string  `json:"metric"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Q1    float64 `json:"q1"`
	Q3    float64 `json:"q3"`
	N     int     `json:"n"`
	Goal  *goal   `json:"goal,omitempty"`
	Met   *bool   `json:"met,omitempty"`
	Void  string  `json:"void,omitempty"` // why the value must not be used
	Cores int     `json:"cores"`
	Go    string  `json:"go"`
}

// goal is a limit that a median should keep.
type goal struct {
	Op    string  `json:"op"` // "<=" or ">="
	Limit float64 `json:"limit"`
}

func atMost(limit float64) *goal  { return &goal{"<=", limit} }
func atLeast(limit float64) *goal { return &goal{">=", limit} }

func (g *goal) met(v float64) bool {
	if g.Op == "<=" {
		return v <= g.Limit
	}
	return v >= g.Limit
}

func newMetric(name, unit string, values []float64, g *goal) metric {
	q1, median, q3 := quartiles(values)
	m := metric{
		Name: name, Value: round(median), Unit: unit, Q1: round(q1), Q3: round(q3), N: len(values),
		Goal: g, Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
	if g != nil {
		met := g.met(median)
		m.Met = &met
	}
	return m
}

// String is the metric's line in the table.
func (m metric) String() string {
	s := fmt.Sprintf("%-34s %12v %-6s [%v, %v] n=%d", m.Name, m.Value, m.Unit, m.Q1, m.Q3, m.N)
	switch {
	case m.Void != "":
		s += "  VOID: " + m.Void
	case m.Goal != nil && *m.Met:
		s += fmt.Sprintf("  goal %s %v met", m.Goal.Op, m.Goal.Limit)
	case m.Goal != nil:
		s += fmt.Sprintf("  goal %s %v MISSED", m.Goal.Op, m.Goal.Limit)
	}
	return s
}

// quartiles returns the lower quartile, the median and the upper quartile; NaN without values.
func quartiles(values []float64) (q1, median, q3 float64) {
	if len(values) == 0 {
		return math.NaN(), math.NaN(), math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 {
		pos := q * float64(len(v)-1)
		low := int(pos)
		if low == len(v)-1 {
			return v[low]
		}
		return v[low] + (pos-float64(low))*(v[low+1]-v[low])
	}
	return at(0.25), at(0.5), at(0.75)
}

// round keeps four significant digits: the machine is not steadier than that.
func round(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil || len(bytes.Fields(b)) == 0 {
		return "unknown"
	}
	return string(bytes.Fields(b)[0])
}

// tell ends a drill: its metrics for people, and to the file at path if there is one.
func tell(out io.Writer, metrics []metric, path string) error {
	for _, m := range metrics {
		fmt.Fprintln(out, m)
	}
	fmt.Fprintf(out, "load average %s\n", loadAverage())
	if path == "" {
		return nil
	}
	return writeJSON(out, path, metrics)
}

// writeJSON writes the metrics to path, one object a line.
func writeJSON(w io.Writer, path string, metrics []metric) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // "<=" stays readable
	for _, m := range metrics {
		if err := enc.Encode(m); err != nil {
			return fmt.Errorf("metric %s: %w", m.Name, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d metrics written to %s\n", len(metrics), path)
	return nil
}
