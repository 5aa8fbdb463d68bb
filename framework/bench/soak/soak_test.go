// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := serve(os.Args[2:]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestRun soaks for a moment; what grows is for the figures to judge.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	if err := run(t.Context(), config{duration: 3 * time.Second, every: 200 * time.Millisecond, json: path}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"soak.server.goroutines_slope"`, `"soak.server.files_growth"`, `"soak.client.live_bytes"`, `"soak.client.rss_bytes_slope"`, `"soak.answered"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func TestTheilSen(t *testing.T) {
	for _, tt := range []struct {
		name string
		x, y []float64
		want float64
	}{
		{"nothing", nil, nil, 0},
		{"one", []float64{1}, []float64{5}, 0},
		{"flat", []float64{0, 1, 2}, []float64{7, 7, 7}, 0},
		{"line", []float64{0, 1, 2, 4}, []float64{1, 3, 5, 9}, 2},
		{"flat with a burst", []float64{0, 1, 2, 3, 4, 5}, []float64{7, 7, 99, 7, 7, 7}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := theilSen(tt.x, tt.y); math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	const scrape = "# HELP go_goroutines x\ngo_goroutines 12\nprocess_file_descriptors 7\ngo_memory_live_bytes 1e+06\n"
	if _, err := parse(strings.NewReader(scrape)); err == nil || !strings.Contains(err.Error(), "process.memory.usage") {
		t.Errorf("an item is missing: %v", err)
	}
	s, err := parse(strings.NewReader(scrape + "process_memory_usage_bytes{a=\"b\"} 5\n"))
	if err != nil || s != (sample{goroutines: 12, files: 7, live: 1e6, rss: 5}) {
		t.Errorf("got %+v, %v", s, err)
	}
}
