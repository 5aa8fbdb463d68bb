// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"net/http"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A meter counts the requests of one route: its items, and the root of its call graph.
type meter struct {
	items *metrics.Route
	slot  *callgraph.Slot
}

func newMeter(name string) *meter {
	method, pattern, ok := strings.Cut(name, " ")
	if !ok {
		method, pattern = "", name
	}
	return &meter{items: process.Items().Route(method, pattern), slot: process.Graph().Entry(name)}
}

// A measured request has come and not ended.
type measured struct {
	meter *meter
	out   *answer
	r     *http.Request
	at    time.Time
}

func (m *meter) began(out *answer, r *http.Request) measured {
	m.items.Started()
	return measured{meter: m, out: out, r: r, at: time.Now()}
}

// ended counts the end of a request. It is deferred first, so that it sees the answer
// of a panic, too.
func (m measured) ended() {
	took := time.Since(m.at)
	status := m.out.status
	if status == 0 {
		status = http.StatusOK
	}
	result := metrics.RouteResultOf(status, m.r.Context().Err() != nil)
	request := int(max(0, m.r.ContentLength))
	m.meter.items.Ended(result, took, request, m.out.bytes)
	m.meter.slot.Record(classes[result], took, request, m.out.bytes)
}

var classes = [metrics.RouteResults]callgraph.Class{
	metrics.RouteOK: callgraph.OK, metrics.RouteClientError: callgraph.BusinessError,
	metrics.RouteServerError: callgraph.Internal, metrics.RouteTimeout: callgraph.Timeout,
	metrics.RouteCanceled: callgraph.Canceled, metrics.RouteRateLimited: callgraph.LocalRejected,
	metrics.RouteOverload: callgraph.Overloaded,
}
