// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c)) S 7 42 42 0 -1 4194304 100 0 0 0 11 22 3 4 20 0 1 0 100 0 0"
	parent, ticks, err := parseStat([]byte(line))
	if err != nil || parent != 7 || ticks != 40 {
		t.Errorf("parent %d, ticks %d, %v; want 7, 40", parent, ticks, err)
	}
	for _, bad := range []string{"", "42 (a) S 7", "42 a S 7 42 42 0 -1", "42 (a) S x 42 42 0 -1 0 0 0 0 0 1 2 3 4 20 0"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) b (c)) S 7 42 42 0 -1 4194304 100 0 0 0 11 22 3 4 20 0 1 0 100 0 0"))
	f.Fuzz(func(_ *testing.T, line []byte) { _, _, _ = parseStat(line) })
}

func TestCPUOfOwnAndChildren(t *testing.T) {
	before, err := cpuOf([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Fatal(err)
	}
	after, err := cpuOf([]int{os.Getpid()})
	if err != nil || after <= before {
		t.Errorf("CPU %v then %v, %v", before, after, err)
	}
	if _, err := cpuOf([]int{1 << 30}); err == nil {
		t.Error("a process that is not there was measured")
	}
}

func TestQuartiles(t *testing.T) {
	q1, median, q3 := quartiles([]float64{4, 1, 3, 2})
	if q1 != 1.75 || median != 2.5 || q3 != 3.25 {
		t.Errorf("quartiles %v %v %v", q1, median, q3)
	}
	if _, median, _ := quartiles(nil); !math.IsNaN(median) {
		t.Errorf("median of nothing %v", median)
	}
}

func TestRatioIsVoidBesideAPoorReference(t *testing.T) {
	m := &measurement{figures: map[string][]float64{
		"moments.F.deliveries_per_s":        {50_000, 60_000},
		"moments.ref.F.deliveries_per_s":    {100_000, 100_000},
		"moments.ref.F.cpu_us_per_delivery": {18, 20},
	}}
	got := m.ratio("F", "deliveries_per_s", "cpu_us_per_delivery", refDeliveries, refDeliverCPU, atLeast(0.5))[0]
	if got.Value != 0.55 || got.Void != "" || !*got.Met {
		t.Errorf("ratio %+v", got)
	}
	m.figures["moments.ref.F.cpu_us_per_delivery"] = []float64{30, 30}
	if got := m.ratio("F", "deliveries_per_s", "cpu_us_per_delivery", refDeliveries, refDeliverCPU, atLeast(0.5))[0]; got.Void == "" {
		t.Error("a ratio beside a wasteful reference counts")
	}
}

func TestRefusesBadArguments(t *testing.T) {
	edges := filepath.Join(t.TempDir(), "edges")
	if err := os.WriteFile(edges, []byte("0 1\n1 x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"duration":  {[]string{"-duration", "0s"}, "-duration"},
		"rounds":    {[]string{"-rounds", "0"}, "-rounds"},
		"only":      {[]string{"-only", "both"}, "-only"},
		"runs":      {[]string{"-runs", "F,X"}, "-runs"},
		"argument":  {[]string{"extra"}, "unexpected argument"},
		"no graph":  {[]string{"-graph", "/nonexistent"}, "no such file"},
		"bad graph": {[]string{"-graph", edges}, "line 2"},
		"no redis":  {[]string{"-graph", "", "-people", "3", "-only", "ref", "-redis-server", "/nonexistent"}, "apt-get install redis-server"},
	} {
		t.Run(name, func(t *testing.T) {
			err := bench(t.Context(), append(tc.args, "-dir", t.TempDir()), t.Output())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestReferenceAlone(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server; on Debian: apt-get install redis-server")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "out", "bench.jsonl")
	args := []string{
		"-people", "30", "-duration", "1s", "-rounds", "1", "-only", "ref", "-dir", dir,
		"-read-rate", "100", "-post-rate", "50", "-json", file,
	}
	began := time.Now()
	if err := bench(t.Context(), args, t.Output()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", time.Since(began))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for line := range bytes.Lines(b) {
		var m metric
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		names[m.Name] = true
	}
	for _, want := range []string{"moments.ref.F.deliveries_per_s", "moments.ref.R.cpu_us_per_read", "moments.ref.O.p99_ms", "moments.ref.post.p99_ms"} {
		if !names[want] {
			t.Errorf("no %s among %v", want, names)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "bench-moments-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMain(m *testing.M) {
	// The bench starts its own executable as the reference's front, which in a test is the test.
	if len(os.Args) > 1 && os.Args[1] == frontArg {
		main()
		return
	}
	os.Exit(m.Run())
}
