// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := childMain(os.Args[2:]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestRun fills a small server: all who come then are closed, and calls go on.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	if err := run(t.Context(), config{connections: 300, json: path}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := map[string]float64{}
	for lines := json.NewDecoder(f); lines.More(); {
		var m figure.Metric
		if err := lines.Decode(&m); err != nil {
			t.Fatal(err)
		}
		got[m.Name] = m.Value
	}
	if got["idle.connections"] != 300 || got["idle.refused_share"] != 1 || got["idle.heap_per_connection"] <= 0 {
		t.Errorf("got %v", got)
	}
}
