// SPDX-License-Identifier: Apache-2.0

// Package otelmetrics hands the items of a registry to OpenTelemetry. It is a package
// of its own so that only who exports has the SDK in the binary.
package otelmetrics

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// scopeName is the instrumentation scope of all items.
const scopeName = "github.com/sluice-rpc/sluice/framework/metrics"

// Producer gives the items of a registry to a reader of the SDK:
//
//	metric.NewPeriodicReader(exporter, metric.WithProducer(otelmetrics.Producer(registry)))
//
// It is a producer, and not instruments, because recording stays as cheap as it is,
// and because an instrument of the SDK silently merges all attribute sets beyond
// 2,000. Names, units and attributes are those of the registry: what Prometheus gets
// by OTLP and what it scrapes have the same names. Counters are cumulative since the
// start of the process.
func Producer(r *metrics.Registry) metric.Producer { return producer{r} }

type producer struct{ registry *metrics.Registry }

// Produce implements metric.Producer.
func (p producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	snap := p.registry.Snapshot()
	out := make([]metricdata.Metrics, len(snap.Families))
	for i := range snap.Families {
		f := &snap.Families[i]
		out[i] = metricdata.Metrics{Name: f.Name, Description: f.Help, Unit: string(f.Unit), Data: aggregation(snap, f)}
	}
	return []metricdata.ScopeMetrics{{Scope: instrumentation.Scope{Name: scopeName}, Metrics: out}}, nil
}

func aggregation(snap *metrics.Snapshot, f *metrics.Family) metricdata.Aggregation {
	switch f.Kind {
	case metrics.KindHistogram:
		return metricdata.Histogram[float64]{DataPoints: histograms(snap, f), Temporality: metricdata.CumulativeTemporality}
	case metrics.KindCounter:
		return metricdata.Sum[float64]{DataPoints: points(snap, f), Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
	default:
		return metricdata.Gauge[float64]{DataPoints: points(snap, f)}
	}
}

func points(snap *metrics.Snapshot, f *metrics.Family) []metricdata.DataPoint[float64] {
	out := make([]metricdata.DataPoint[float64], len(f.Series))
	for i := range f.Series {
		s := &f.Series[i]
		out[i] = metricdata.DataPoint[float64]{Attributes: attributes(s.Labels), StartTime: snap.Began, Time: snap.Time, Value: s.Value}
	}
	return out
}

func histograms(snap *metrics.Snapshot, f *metrics.Family) []metricdata.HistogramDataPoint[float64] {
	out := make([]metricdata.HistogramDataPoint[float64], len(f.Series))
	for i := range f.Series {
		s := &f.Series[i]
		out[i] = metricdata.HistogramDataPoint[float64]{
			Attributes: attributes(s.Labels), StartTime: snap.Began, Time: snap.Time,
			Count: s.Count(), Sum: s.Sum, Bounds: f.Bounds, BucketCounts: s.Counts,
		}
	}
	return out
}

func attributes(labels []metrics.Label) attribute.Set {
	kvs := make([]attribute.KeyValue, len(labels))
	for i, l := range labels {
		kvs[i] = attribute.String(l.Name, l.Value)
	}
	return attribute.NewSet(kvs...)
}
