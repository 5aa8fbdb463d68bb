// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/sluice-rpc/sluice/tracing"

// Tracing registers the items of what decides about traces and keeps records: whether
// they can be relied on, and what is lost. It is called once.
func (r *Registry) Tracing(stats func() tracing.Stats) {
	counter := func(name, help, unit string, value func(tracing.Stats) uint64, labels ...Label) {
		r.CounterFunc(Desc{name, help, Unit(unit)}, func() float64 { return float64(value(stats())) }, labels...)
	}
	const sampled = "Requests that are traced, by why: chosen by the rate of their entry, or forced by a trusted caller."
	counter("sluice.trace.sampled", sampled, "{request}", func(s tracing.Stats) uint64 { return s.Sampled }, Label{"by", "rate"})
	counter("sluice.trace.sampled", sampled, "{request}", func(s tracing.Stats) uint64 { return s.Forced }, Label{"by", "caller"})
	counter("sluice.trace.records", "Records kept of calls that were traced, have failed, or were slow.", "{record}", func(s tracing.Stats) uint64 { return s.Kept })
	counter("sluice.trace.limited", "Errors and slow calls of which no record was kept, because there were too many.", "{call}", func(s tracing.Stats) uint64 { return s.Limited })
	counter("sluice.trace.dropped", "Records that the exporter had no room for: the receiver is down or too slow.", "{record}", func(s tracing.Stats) uint64 { return s.Dropped })
}

// CallGraph registers the items of the call graph of this process: whether its edges
// and the requests in flight have room. It is called once.
func (r *Registry) CallGraph(edges func() (used, room int), unlisted func() int) {
	r.GaugeFunc(Desc{"sluice.graph.edges", "Edges of the call graph that are counted one by one.", "{edge}"}, func() float64 {
		used, _ := edges()
		return float64(used)
	})
	r.GaugeFunc(Desc{"sluice.graph.edges_room", "Edges that may still come before further ones are counted together.", "{edge}"}, func() float64 {
		_, room := edges()
		return float64(room)
	})
	r.GaugeFunc(Desc{"sluice.requests.unlisted", "Requests being worked on that the page of requests in flight has no room for.", "{request}"}, func() float64 { return float64(unlisted()) })
}
