// SPDX-License-Identifier: Apache-2.0

// Package figure is how the benches sum up what they measure, and write it down.
package figure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// Metric is one line of the JSON file: the median of N values with quartiles.
type Metric struct {
	Name  string  `json:"metric"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Q1    float64 `json:"q1"`
	Q3    float64 `json:"q3"`
	N     int     `json:"n"`
	Goal  *Goal   `json:"goal,omitempty"`
	Met   *bool   `json:"met,omitempty"`
	Cores int     `json:"cores"`
	Go    string  `json:"go"`
}

// Of sums up values. There is no goal yet.
func Of(name, unit string, values []float64) Metric {
	q1, median, q3 := Quartiles(values)
	return Metric{
		Name: name, Value: Round(median), Unit: unit, Q1: Round(q1), Q3: Round(q3), N: len(values),
		Cores: runtime.NumCPU(), Go: runtime.Version(),
	}
}

// Judge sets a goal, and whether v keeps it.
func (m *Metric) Judge(g *Goal, v float64) {
	met := g.Met(v)
	m.Goal, m.Met = g, &met
}

// Goal is a limit that a median should keep.
type Goal struct {
	Op    string  `json:"op"` // "<=" or ">="
	Limit float64 `json:"limit"`
}

// AtMost is the goal of values that should be small.
func AtMost(limit float64) *Goal { return &Goal{"<=", limit} }

// AtLeast is the goal of values that should be large.
func AtLeast(limit float64) *Goal { return &Goal{">=", limit} }

// Met says whether v keeps the goal.
func (g *Goal) Met(v float64) bool {
	if g.Op == "<=" {
		return v <= g.Limit
	}
	return v >= g.Limit
}

// String gives the goal as tables show it.
func (g *Goal) String() string { return fmt.Sprintf("%s %v", g.Op, g.Limit) }

// Write writes metrics to path, one object a line.
func Write(path string, metrics []Metric) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, m := range metrics {
		if err := enc.Encode(m); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// LoadAverage is that of the last minute, as the kernel writes it.
func LoadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return string(bytes.Fields(b)[0])
}

// Quartiles interpolates linearly between ranks. It gives zeros for no values.
func Quartiles(values []float64) (q1, median, q3 float64) {
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

// Round keeps what a reader can use: three decimals of small values, none of
// large ones.
func Round(v float64) float64 {
	if math.Abs(v) >= 1000 {
		return math.Round(v)
	}
	return math.Round(v*1000) / 1000
}
