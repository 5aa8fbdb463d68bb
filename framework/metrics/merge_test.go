// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"bytes"
	"encoding/gob"
	"slices"
	"testing"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// TestMerge adds two processes up, of which one comes over a wire.
func TestMerge(t *testing.T) {
	items := func(n uint64) *metrics.Snapshot {
		r := metrics.NewRegistry(metrics.Config{})
		a := metrics.Label{Name: "a.b", Value: "x"}
		r.Counter(metrics.Desc{Name: "test.made", Help: "A counter.", Unit: "{call}"}, a).Add(n)
		r.Gauge(metrics.Desc{Name: "test.open", Help: "A gauge.", Unit: "{call}"}).Set(float64(n))
		r.Gauge(metrics.Desc{Name: "test.longest", Help: "A time.", Unit: metrics.Seconds}).Set(float64(n))
		r.GaugeFunc(metrics.Desc{Name: "process.start_time", Help: "Another one.", Unit: metrics.Seconds}, func() float64 { return float64(n) })
		h := r.Histogram(metrics.Desc{Name: "test.sizes", Help: "Sizes.", Unit: metrics.Bytes}, []float64{2, 4})
		h.Record(int64(n))
		if n == 3 {
			r.Counter(metrics.Desc{Name: "test.alone", Help: "Of one.", Unit: "{call}"}).Inc()
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		return r.Snapshot()
	}
	one, two := items(1), items(3)
	var wire bytes.Buffer
	var came metrics.Snapshot
	if err := gob.NewEncoder(&wire).Encode(two); err != nil {
		t.Fatal(err)
	}
	if err := gob.NewDecoder(&wire).Decode(&came); err != nil {
		t.Fatal(err)
	}
	sum := metrics.Merge(one, nil, &came)
	for name, want := range map[string]float64{"test.made": 4, "test.open": 4, "test.longest": 3, "process.start_time": 1, "test.alone": 1} {
		var labels []metrics.Label
		if name == "test.made" {
			labels = []metrics.Label{{Name: "a.b", Value: "x"}}
		}
		if s := sum.Find(name, labels...); s == nil || s.Value != want {
			t.Errorf("%s: %+v, want %v", name, s, want)
		}
	}
	if s := sum.Find("test.sizes"); s == nil || s.Sum != 4 || !slices.Equal(s.Counts, []uint64{1, 1, 0}) {
		t.Errorf("histogram: %+v", s)
	}
	if !bytes.Contains(sum.AppendText(nil, metrics.PromText), []byte("test_made_total{a_b=\"x\"} 4\n")) {
		t.Error("the text does not have the counter")
	}
	if !sum.Began.Equal(one.Began) || sum.Time.Before(one.Time) {
		t.Errorf("from %v to %v", sum.Began, sum.Time)
	}
	if s := one.Find("test.sizes"); s.Sum != 1 || !slices.Equal(s.Counts, []uint64{1, 0, 0}) {
		t.Errorf("an argument has changed: %+v", s)
	}
	if c := sum.Counted(); c.Find("test.open") != nil || c.Find("test.alone") == nil {
		t.Error("counted: want counters without gauges")
	}
}
