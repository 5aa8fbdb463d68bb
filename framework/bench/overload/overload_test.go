// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/qos"
)

// TestMain lets the test binary be the processes of a run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestRun measures one cell once. What the figures are is not its
// business: other tests may run beside it.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "overload.jsonl")
	cfg, err := parse(strings.Fields("-rounds 1 -count 1 -only overload.cpu.f4,qos.admit.ns -json " + path))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]figure.Metric{}
	for line := range bytes.Lines(b) {
		var m figure.Metric
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, twice := got[m.Name]; twice || m.Unit == "" || m.N < 1 {
			t.Errorf("%s: twice, or without unit or count", line)
		}
		got[m.Name] = m
	}
	for _, name := range []string{
		"overload.cpu.capacity.uniform", "overload.cpu.f4.goodput", "overload.cpu.top20", "overload.real.steady.f4.x1.p99_ms",
		"qos.admit.ns",
	} {
		if m, ok := got[name]; !ok || m.Value <= 0 || math.IsNaN(m.Value) {
			t.Errorf("%s = %v, %v", name, m.Value, ok)
		}
	}
	if _, ok := got["overload.real.fair"]; ok {
		t.Error("a cell that was not asked for was played")
	}
}

// TestFlood lets every kind of server answer a flood: one refuses, the others serve.
func TestFlood(t *testing.T) {
	cfg := config{turns: 1}
	var err error
	if cfg.server, cfg.gen, err = halves(); err != nil {
		t.Fatal(err)
	}
	got := map[string][]spent{}
	for _, l := range []echoLoad{echoLoads[0], echoLoads[4]} { // the raw one, and kitex's client
		if err := echoes(t.Context(), cfg, l, 0, got); err != nil {
			t.Fatal(err)
		}
		for _, kind := range l.kinds {
			s := got[l.name+kind]
			if len(s) != 1 || s[0].micros <= 0 || (s[0].refused == 1) != (kind == kindRefusing) {
				t.Errorf("%s against %s: %+v", l.name, kind, s)
			}
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, args, want string }{
		{"defaults", "", ""},
		{"no rounds", "-rounds 0", "at least 1"},
		{"too short", "-count .5", "1 to 60"},
		{"leftover", "burst5", "unexpected argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(strings.Fields(tt.args))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("parse(%q): %v, want %q", tt.args, err, tt.want)
			}
		})
	}
}

// TestGoals shows that every goal is that of a metric which some experiment gives.
func TestGoals(t *testing.T) {
	given := map[string]bool{}
	values := map[string]float64{"overload.cpu.mix.fixed_per_s": 1}
	for _, e := range (config{count: 1}).experiments() {
		for _, n := range e.names() {
			given[n] = true
			if _, ok := values[n]; !ok {
				values[n] = 0
			}
		}
	}
	summary(values, func(m figure.Metric) { given[m.Name] = true })
	for name := range goals {
		if !given[name] && !strings.HasPrefix(name, "qos.") {
			t.Errorf("nothing gives %s", name)
		}
	}
}

func TestTasks(t *testing.T) {
	c := cell{Mix: costs, X: 0, Phases: []phase{{20, 2}}, To: 20, Capacity: 250, Seed: 3}
	ts := c.tasks()
	if again := c.tasks(); !reflect.DeepEqual(ts, again) {
		t.Error("a seed gives two loads")
	}
	if n := float64(len(ts)); math.Abs(n-4000) > 5*math.Sqrt(4000) { // 2 x 250 calls/s / 2.5 calls x 20 s
		t.Errorf("%v tasks, want about 4000", n)
	}
	top, dear := 0., 0.
	last := time.Duration(0)
	for _, task := range ts {
		if task.class <= qos.Browse {
			top++
		}
		dear += float64(task.method)
		if task.born < last || task.x < 1 || task.x > maxCalls || task.user >= qos.UserLevels {
			t.Fatalf("%+v after %v", task, last)
		}
		last = task.born
	}
	if share := top / float64(len(ts)); math.Abs(share-.2) > .01 {
		t.Errorf("%.3f of the tasks are of the best two classes, want .20 evenly", share)
	}
	if share := dear / float64(len(ts)); math.Abs(share-1./dearOneIn) > .017 { // 5 sigma
		t.Errorf("%.3f of the tasks are dear, want one in %d", share, dearOneIn)
	}
}

func TestMeasure(t *testing.T) {
	c := cell{Mix: uniform, X: 2, Phases: []phase{{1, 1}, {2, 4}, {2, .8}}, From: 1, To: 3, Capacity: 400, Seed: 1}
	var o outcome
	// The server does the best half of what the window's tasks ask for, and one call of
	// every eighth of the others.
	for i, task := range c.tasks() {
		in := task.born.Seconds() >= c.From && task.born.Seconds() < c.To
		if !in || task.class <= qos.Browse || task.class == qos.Post && task.user < 16 {
			o.Took, o.Done = append(o.Took, 20_000), append(o.Done, 2)
			continue
		}
		done := byte(0)
		if i%8 == 0 {
			done = 1
		}
		o.Took, o.Done = append(o.Took, -1), append(o.Done, done)
	}
	f := c.measure(o, c.Capacity)
	// A quarter of 4 times the capacity, give or take the chance of arrivals.
	if f.goodput < .9 || f.goodput > 1.1 || f.p99 != 20 || f.recover != 0 || f.fairX != 1 {
		t.Errorf("%+v", f)
	}
	if f.waste < .12 || f.waste > .18 { // .75/8 of .25*2 + .75/8
		t.Errorf("waste %.3f", f.waste)
	}
	if f.top20 < 1 || f.top20 > 1.1 {
		t.Errorf("top20 %.3f", f.top20)
	}
	if half := c.measure(o, 2*c.Capacity); math.Abs(half.goodput*2-f.goodput) > 1e-9 {
		t.Errorf("goodput %.3f of twice the capacity, %.3f of it", half.goodput, f.goodput)
	}
	for i := range o.Took {
		o.Took[i] = -1
	}
	if never := c.measure(o, c.Capacity); never.recover != 2000 || never.goodput != 0 || never.top20 != 0 || never.fairX != 0 {
		t.Errorf("nothing succeeds: %+v", never)
	}
}
