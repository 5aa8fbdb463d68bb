// SPDX-License-Identifier: Apache-2.0

package otelmetrics_test

import (
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/metrics/otelmetrics"
)

// collect reads a registry through the SDK, as an exporter does.
func collect(t *testing.T, r *metrics.Registry) map[string]metricdata.Metrics {
	t.Helper()
	reader := metric.NewManualReader(metric.WithProducer(otelmetrics.Producer(r)))
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	defer func() {
		if err := provider.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			out[m.Name] = m
		}
	}
	return out
}

func TestProducer(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	r.Counter(metrics.Desc{Name: "shop.cart.opened", Help: "Carts opened.", Unit: "{cart}"}, metrics.Label{Name: "shop.channel", Value: "web"}).Add(3)
	r.Gauge(metrics.Desc{Name: "shop.stock", Help: "Things.", Unit: "{thing}"}).Set(2.5)
	r.Histogram(metrics.Desc{Name: "shop.wait", Help: "Waits.", Unit: metrics.Seconds}, []float64{.5, 1}).RecordTime(time.Second)

	got := collect(t, r)
	for _, want := range []metricdata.Metrics{
		{Name: "shop.cart.opened", Description: "Carts opened.", Unit: "{cart}", Data: metricdata.Sum[float64]{
			Temporality: metricdata.CumulativeTemporality, IsMonotonic: true,
			DataPoints: []metricdata.DataPoint[float64]{{Attributes: attribute.NewSet(attribute.String("shop.channel", "web")), Value: 3}},
		}},
		{Name: "shop.stock", Description: "Things.", Unit: "{thing}", Data: metricdata.Gauge[float64]{
			DataPoints: []metricdata.DataPoint[float64]{{Value: 2.5}},
		}},
		{Name: "shop.wait", Description: "Waits.", Unit: "s", Data: metricdata.Histogram[float64]{
			Temporality: metricdata.CumulativeTemporality,
			DataPoints:  []metricdata.HistogramDataPoint[float64]{{Count: 1, Sum: 1, Bounds: []float64{.5, 1}, BucketCounts: []uint64{0, 1, 0}}},
		}},
	} {
		metricdatatest.AssertEqual(t, want, got[want.Name], metricdatatest.IgnoreTimestamp())
	}
	sum := got["shop.cart.opened"].Data.(metricdata.Sum[float64]).DataPoints[0]
	if sum.StartTime.IsZero() || sum.Time.Before(sum.StartTime) {
		t.Errorf("counted from %v to %v", sum.StartTime, sum.Time)
	}
}

// The SDK merges an instrument's attribute sets beyond 2,000; a producer's it does not.
func TestProducerManySeries(t *testing.T) {
	const series = 3_000
	r := metrics.NewRegistry(metrics.Config{MaxSeries: series})
	for i := range series {
		r.Counter(metrics.Desc{Name: "shop.sold", Help: "Things sold.", Unit: "{thing}"}, metrics.Label{Name: "thing", Value: fmt.Sprint(i)}).Inc()
	}
	if got := len(collect(t, r)["shop.sold"].Data.(metricdata.Sum[float64]).DataPoints); got != series {
		t.Errorf("%d series, want %d", got, series)
	}
}
