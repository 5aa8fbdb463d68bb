// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run go test -update and look at the diff. Got:\n%s", path, got)
	}
}

func desc(name string, u metrics.Unit) metrics.Desc {
	return metrics.Desc{Name: name, Help: "Help of " + name + ".", Unit: u}
}

// shop registers an item of each kind and moves it.
func shop(r *metrics.Registry) {
	opened := r.Counter(desc("shop.cart.opened", "{cart}"), metrics.Label{Name: "channel", Value: "web"})
	r.Counter(desc("shop.cart.opened", "{cart}"), metrics.Label{Name: "channel", Value: `a "b"\` + "\n\x00\xff"})
	r.CounterFunc(desc("shop.sent", metrics.Bytes), func() float64 { return 1 << 40 })
	size := r.Gauge(desc("shop.stock", "{thing}"))
	r.GaugeFunc(desc("shop.load", metrics.Ratio), func() float64 { return .75 })
	r.GaugeFunc(desc("shop.broken", metrics.Percent), func() float64 { panic("no") })
	wait := r.Histogram(desc("shop.wait", metrics.Seconds), []float64{.001, .0025, 1}, metrics.Label{Name: "shop.till", Value: "1"})
	weight := r.Histogram(desc("shop.parcel.size", metrics.Bytes), []float64{1, 1024})

	opened.Inc()
	opened.Add(2)
	size.Set(7)
	size.Add(-.5)
	for _, d := range []time.Duration{-1, 0, time.Millisecond, time.Millisecond + 1, 2500 * time.Microsecond, time.Second, time.Hour} {
		wait.RecordTime(d)
	}
	for _, n := range []int64{0, 1, 2, 1024, 1025, math.MaxInt64} {
		weight.Record(n)
	}
}

func TestText(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	shop(r)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	snap := r.Snapshot()
	golden(t, "shop.txt", string(snap.AppendText(nil, metrics.PromText)))
	golden(t, "shop.openmetrics.txt", string(snap.AppendText(nil, metrics.OpenMetrics)))
	golden(t, "shop.catalogue.txt", string(snap.AppendCatalogue(nil)))
	lines := 0
	for line := range strings.Lines(string(snap.AppendText(nil, metrics.PromText))) {
		if !strings.HasPrefix(line, "#") {
			lines++
		}
	}
	if lines != snap.Items() || lines != r.Items() {
		t.Errorf("a scrape has %d series, the snapshot counts %d items and the registry %d", lines, snap.Items(), r.Items())
	}
}

func TestRefused(t *testing.T) {
	ok := desc("shop.cart.opened", "{cart}")
	label := metrics.Label{Name: "channel", Value: "web"}
	for name, c := range map[string]struct {
		register func(*metrics.Registry)
		want     string
	}{
		"no name":      {func(r *metrics.Registry) { r.Counter(metrics.Desc{Help: "Help.", Unit: "{x}"}) }, "no name"},
		"capitals":     {func(r *metrics.Registry) { r.Counter(desc("Shop.cart", "{x}")) }, "lower-case"},
		"one word":     {func(r *metrics.Registry) { r.Counter(desc("opened", "{x}")) }, "begin it with the name of the product"},
		"too long":     {func(r *metrics.Registry) { r.Counter(desc("a."+strings.Repeat("b", 100), "{x}")) }, "102 characters"},
		"total":        {func(r *metrics.Registry) { r.Counter(desc("shop.cart_total", "{x}")) }, `"total": counters get it by themselves`},
		"unit in name": {func(r *metrics.Registry) { r.Gauge(desc("shop.wait_ms", "{x}")) }, "use Seconds"},
		"kind in name": {func(r *metrics.Registry) { r.Gauge(desc("shop.gauge", "{x}")) }, "the kind"},
		"ends in sum":  {func(r *metrics.Registry) { r.Gauge(desc("shop.sum", "{x}")) }, "a meaning of its own"},
		"no help":      {func(r *metrics.Registry) { r.Counter(metrics.Desc{Name: "shop.x", Unit: "{x}"}) }, "no help"},
		"two lines":    {func(r *metrics.Registry) { r.Counter(metrics.Desc{Name: "shop.x", Help: "a\nb", Unit: "{x}"}) }, "one line"},
		"no unit":      {func(r *metrics.Registry) { r.Counter(desc("shop.x", "")) }, `unit "" is not known`},
		"milliseconds": {func(r *metrics.Registry) { r.Counter(desc("shop.x", "ms")) }, `unit "ms" is not known`},
		"bad label":    {func(r *metrics.Registry) { r.Counter(ok, metrics.Label{Name: "A"}) }, `label "A"`},
		"le":           {func(r *metrics.Registry) { r.Counter(ok, metrics.Label{Name: "le"}) }, "used by Prometheus"},
		"label twice":  {func(r *metrics.Registry) { r.With(label).Counter(ok, label) }, "given twice"},
		"nine labels":  {func(r *metrics.Registry) { r.Counter(ok, make([]metrics.Label, 9)...) }, "9 labels"},
		"twice":        {func(r *metrics.Registry) { r.Counter(ok, label); r.Counter(ok, label) }, "shop_cart_opened_total{channel=\"web\"} was registered twice"},
		"other kind":   {func(r *metrics.Registry) { r.Counter(ok); r.Counter(desc("shop.cart.opened", "{thing}")) }, "another kind"},
		"other labels": {func(r *metrics.Registry) { r.Counter(ok); r.Counter(ok, label) }, "same label names"},
		"other bounds": {func(r *metrics.Registry) {
			d := desc("x.y", "{x}")
			r.Histogram(d, []float64{1})
			r.Histogram(d, []float64{2}, label)
		}, "bounds"},
		"no bounds":      {func(r *metrics.Registry) { r.Histogram(desc("x.y", "{x}"), nil) }, "0 bounds"},
		"falling bounds": {func(r *metrics.Registry) { r.Histogram(desc("x.y", "{x}"), []float64{2, 1}) }, "must grow"},
		"infinite bound": {func(r *metrics.Registry) { r.Histogram(desc("x.y", "{x}"), []float64{math.Inf(1)}) }, "finite"},
		"two dots":       {func(r *metrics.Registry) { r.Gauge(desc("x.y_z", "{x}")); r.Gauge(desc("x.y.z", "{x}")) }, "was registered before"},
		"counter, gauge": {func(r *metrics.Registry) { r.Counter(desc("x.y", "{x}")); r.Gauge(desc("x.y", "{x}")) }, "another kind"},
	} {
		t.Run(name, func(t *testing.T) {
			r := metrics.NewRegistry(metrics.Config{})
			c.register(r)
			if err := r.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}

// What is refused works nevertheless: a mistake in an item must not stop a service.
func TestRefusedWorks(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	c, g, h := r.Counter(metrics.Desc{}), r.Gauge(metrics.Desc{}), r.Histogram(metrics.Desc{}, nil)
	c.Inc()
	g.Set(2)
	h.Record(1)
	if c.Value() != 1 || g.Value() != 2 {
		t.Errorf("got %v and %v", c.Value(), g.Value())
	}
	for range 100 {
		r.Counter(metrics.Desc{})
	}
	if lines := strings.Count(r.Err().Error(), "\n"); lines > 30 {
		t.Errorf("the error has %d lines", lines)
	}
}

func TestNil(t *testing.T) {
	var c *metrics.Counter
	var g *metrics.Gauge
	var h *metrics.Histogram
	c.Inc()
	g.Set(1)
	g.Add(1)
	h.Record(1)
	if c.Value() != 0 || g.Value() != 0 {
		t.Error("nothing holds something")
	}
}

func TestLimits(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{MaxItems: 10, MaxSeries: 2})
	view := r.With(metrics.Label{Name: "service", Value: "a"})
	for i := range 5 {
		view.Counter(desc("shop.x", "{x}"), metrics.Label{Name: "user", Value: fmt.Sprint(i)}).Inc()
	}
	for i := range 9 {
		r.Counter(desc(fmt.Sprintf("shop.y%d", i), "{x}")).Inc()
	}
	snap := r.Snapshot()
	for name, want := range map[string]float64{"sluice.metrics.folded": 3, "sluice.metrics.dropped": 6, "sluice.metrics.items": 10} {
		if got := snap.Find(name); got == nil || got.Value != want {
			t.Errorf("%s: got %+v, want %v", name, got, want)
		}
	}
	other := snap.Find("shop_x_total", metrics.Label{Name: "user", Value: "_other"}, metrics.Label{Name: "service", Value: "a"})
	if other == nil || other.Value != 3 {
		t.Errorf("got %+v: what is beyond the limit must be counted together", other)
	}
	if snap.Items() != 10 || r.Err() != nil {
		t.Errorf("%d items, %v", snap.Items(), r.Err())
	}
}

func TestConcurrent(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	c := r.Counter(desc("shop.x", "{x}"))
	h := r.Histogram(desc("shop.wait", metrics.Seconds), []float64{.001, 1})
	const goroutines, times = 8, 5_000
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := range times {
				c.Inc()
				h.Record(int64(i))
				if i%1000 == 0 {
					r.Counter(desc("shop.y", "{x}"), metrics.Label{Name: "n", Value: fmt.Sprint(g, i)}).Inc()
					r.Snapshot()
				}
			}
		})
	}
	all.Wait()
	snap := r.Snapshot()
	wait := snap.Find("shop.wait")
	if c.Value() != goroutines*times || wait.Count() != goroutines*times {
		t.Errorf("got %d and %d, want %d", c.Value(), wait.Count(), goroutines*times)
	}
	if want := float64(goroutines) * times * (times - 1) / 2 / 1e9; math.Abs(wait.Sum-want) > 1e-9 {
		t.Errorf("sum %v, want %v", wait.Sum, want)
	}
	if r.Err() != nil {
		t.Error(r.Err())
	}
}

func TestAllocations(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	c, g, h := r.Counter(desc("x.c", "{x}")), r.Gauge(desc("x.g", "{x}")), r.Histogram(desc("x.wait", metrics.Seconds), metrics.CallSeconds())
	if n := testing.AllocsPerRun(100, func() { c.Inc(); g.Set(1); g.Add(1); h.RecordTime(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCounter(b *testing.B) {
	c := metrics.NewRegistry(metrics.Config{}).Counter(desc("x.c", "{x}"))
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			c.Inc()
		}
	})
}

func BenchmarkHistogram(b *testing.B) {
	h := metrics.NewRegistry(metrics.Config{}).Histogram(desc("x.wait", metrics.Seconds), metrics.CallSeconds())
	b.RunParallel(func(p *testing.PB) {
		d := time.Duration(1)
		for p.Next() {
			h.RecordTime(d)
			d = (d*5 + 1) % time.Second
		}
	})
}
