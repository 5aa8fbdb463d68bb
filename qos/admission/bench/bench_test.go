// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// measured runs the cells of ours whose names begin with one of only.
func measured(t *testing.T, seed uint64, only ...string) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	cfg := config{topo: standard, only: only}
	for _, e := range cfg.experiments() {
		tasks := e.cell.arrivals(seed)
		newWorld(e.cell, ours, seed).play(tasks)
		for _, m := range e.read(e.cell.measure(tasks)) {
			got[m.Metric] = m.Value
		}
	}
	return got
}

func TestOursIsBitEqualPerSeed(t *testing.T) {
	run := func(seed uint64) string {
		var text strings.Builder
		for _, cell := range []string{"steady.f4.x4", "burst5", "chain2.f4", "mixedcost"} {
			for name, v := range measured(t, seed, cell) {
				if strings.HasSuffix(name, "goodput") {
					fmt.Fprintln(&text, name, math.Float64bits(v))
				}
			}
		}
		return text.String()
	}
	if a, b := run(1), run(1); a != b {
		t.Errorf("seed 1 twice:\n%s%s", a, b)
	}
	if run(1) == run(2) {
		t.Error("seeds 1 and 2 give the same")
	}
}

// TestGoals holds what the project promises, over three seeds.
func TestGoals(t *testing.T) {
	for _, tc := range []struct {
		cell, metric string
		least, most  float64
	}{
		{"steady.f0.9.x4", "steady.f0.9.x4.goodput", .999, 1},
		{"steady.f1.x4", "steady.f1.x4.goodput", .975, 2},
		{"steady.f1.x4", "steady.f1.x4.p99_ms", 0, 250},
		{"steady.f1.2.", "steady.f1.2.x4.p99_ms", 0, 250},
		{"steady.f1.2.", "steady.f1.2.x1.goodput", .97, 2},
		{"steady.f4.", "steady.f4.x1.goodput", .97, 2},
		{"steady.f4.", "steady.f4.x2.goodput", .97, 2},
		{"steady.f4.", "steady.f4.x4.goodput", .97, 2},
		{"steady.f4.", "steady.f4.x4.waste", 0, .01},
		{"steady.f4.", "steady.f4.x4.p99_ms", 0, 250},
		{"steady.f4.", "top20", .97, 2},
		{"steady.f8.x2", "steady.f8.x2.goodput", .97, 2},
		{"fair", "fair", .95, 1},
		{"burst5", "burst5.goodput", .98, 2},
		{"burst5", "burst5.recover_ms", 0, 300},
		{"brownout4", "brownout4.goodput", .95, 2},
		{"resend3", "resend3.goodput", .97, 2},
		{"rejectcost10", "rejectcost10.goodput", .88, 2},
		{"chain2", "chain2.f1.5.waste", 0, .08},
		{"chain2", "chain2.f4.waste", 0, .08},
		{"mixedcost", "mixedcost.goodput", .95, 2},
		{"mixedcost", "mixedcost.fair", .90, 1},
	} {
		t.Run(tc.metric, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 3; seed++ {
				v, ok := measured(t, seed, tc.cell)[tc.metric]
				if !ok || v < tc.least || v > tc.most {
					t.Errorf("seed %d: %.4f, want %g to %g", seed, v, tc.least, tc.most)
				}
			}
		})
	}
}

func TestFlags(t *testing.T) {
	for _, bad := range []string{"-slots 0", "-x 5", "-dist normal", "-policies theirs", "-factor -1", "more"} {
		if _, err := parse(strings.Fields(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
