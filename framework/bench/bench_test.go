// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// TestMain lets the test binary be the server and client processes of a run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == child.Arg {
		os.Exit(child.Main(os.Args[2:], peerNamed))
	}
	os.Exit(m.Run())
}

// TestRun measures everything but the example's size once, tiny.
func TestRun(t *testing.T) {
	cfg := config{
		rounds: 1, warmUp: 20 * time.Millisecond, window: 100 * time.Millisecond, calls: []int{1000}, peerCalls: 1000, probes: 1,
		settle: 50 * time.Millisecond, only: []string{"c100", "c1000", "inflight", "local", "tls", "observe"}, peers: peerNames(),
		json: filepath.Join(t.TempDir(), "out", "bench.jsonl"),
	}
	err := run(t.Context(), cfg)
	for try := 1; err != nil && strings.Contains(err.Error(), "resource_exhausted") && try < 4; try++ {
		t.Logf("a busy machine: the server refused, and the run is void: %v", err)
		err = run(t.Context(), cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(cfg.json)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]figure.Metric{}
	for line := range bytes.Lines(b) {
		var m figure.Metric
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, twice := got[m.Name]; twice {
			t.Errorf("%s is there twice", m.Name)
		}
		if m.Unit == "" || m.N < 1 {
			t.Errorf("%s: unit or count is missing", line)
		}
		got[m.Name] = m
	}
	for _, name := range []string{
		"rpc.c100.cpu_ratio_vs_kitex", "rpc.c1000.cpu_ratio_vs_kitex", "rpc.c100.client_cpu_ratio_vs_kitex",
		"rpc.c100.qps_ratio_vs_grpc", "rpc.allocs_server", "rpc.allocs_client", "rpc.local.ns", "rpc.tls.c100.cpu_ratio_vs_plain",
		"inflight.1k.server_bytes_per_call", "inflight.1k.client_bytes_per_call", "inflight.1k.middle_bytes_per_call", "inflight.1k.ok_share", "inflight.1k.probe_ms",
		"observe.cpu_ratio", "observe.allocs_extra", "observe.sampled1.cpu_ratio", "observe.edge_record.ns",
		"observe.peer.kitex_otel.cpu_ratio", "observe.peer.grpc_otel.cpu_ratio",
	} {
		if m, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		} else if strings.HasPrefix(name, "rpc.") && m.Value <= 0 {
			t.Errorf("%s = %v, want more than 0", name, m.Value)
		}
	}
}

// TestVoid shows that a failing call voids the run.
func TestVoid(t *testing.T) {
	cfg := config{}
	server, err := start(t.Context(), cfg, "server", "grpc")
	if err != nil {
		t.Fatal(err)
	}
	addr := server.first.Addr
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	client, err := start(t.Context(), cfg, "client", "grpc", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.stop()
	if _, err := client.do(t.Context(), child.OpProbe, 0); err == nil || !strings.Contains(err.Error(), "1 calls failed") {
		t.Errorf("a call to nobody: %v, want an error that says so", err)
	}
}

func TestQuartiles(t *testing.T) {
	for _, tt := range []struct {
		name           string
		values         []float64
		q1, median, q3 float64
	}{
		{"none", nil, 0, 0, 0},
		{"one", []float64{7}, 7, 7, 7},
		{"two", []float64{4, 2}, 2.5, 3, 3.5},
		{"odd, unsorted", []float64{5, 1, 4, 2, 3}, 2, 3, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if q1, m, q3 := figure.Quartiles(tt.values); q1 != tt.q1 || m != tt.median || q3 != tt.q3 {
				t.Errorf("quartiles(%v) = %v, %v, %v, want %v, %v, %v", tt.values, q1, m, q3, tt.q1, tt.median, tt.q3)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, args, want string }{
		{"defaults", "", ""},
		{"a part", "-only c100,inflight", ""},
		{"unknown part", "-only c10", "there is no such part"},
		{"unknown framework", "-peers thrift", "there is no such framework"},
		{"no rounds", "-rounds 0", "at least 1"},
		{"long window", "-window 25s", "at most 20s"},
		{"leftover", "c100", "unexpected argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(strings.Fields(tt.args))
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("parse(%q): %v, want %q", tt.args, err, tt.want)
			}
		})
	}
}
