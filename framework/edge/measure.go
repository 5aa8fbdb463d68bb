// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A meter records the requests of one route: its items, the root of its call graph, and
// the roots of its traces.
type meter struct {
	items   *metrics.Route
	slot    *callgraph.Slot
	sampler *tracing.Sampler
	records *tracing.Method
}

func newMeter(name string) meter {
	method, pattern, ok := strings.Cut(name, " ")
	if !ok {
		method, pattern = "", name
	}
	return meter{
		items: process.Items().Route(method, pattern), slot: process.Graph().Entry(name),
		sampler: process.Tracer().Sampler(name), records: process.Tracer().Method(tracing.Server, name),
	}
}

// A request is one that has come and not ended. It is also the context of its handler.
type request struct {
	call inflight.Call // first, see there
	patience

	route  *route
	r      *http.Request
	out    answer
	user   string
	parent tracing.SpanID
	state  string // tracestate
	notes  tracing.Notes
	err    error // that it was answered with
}

type requestKey struct{}

// Value implements context.Context.
func (q *request) Value(key any) any {
	switch {
	case key == rpc.CallKey:
		return &q.call.Call
	case key == userKey{} && q.user != "":
		return q.user
	case key == requestKey{}:
		return q
	}
	if v := process.Tracer().ContextValue(key, q.identity(), &q.notes); v != nil {
		return v
	}
	return q.patience.Value(key)
}

func (q *request) identity() tracing.Identity {
	return tracing.Identity{Trace: q.call.Trace, Span: q.call.Span, Sampled: q.call.Flags&rpc.FlagSampled != 0}
}

// begin gives a request its place in a trace, and counts that it has come.
func (e *Entry) begin(rt *route, w http.ResponseWriter, r *http.Request) *request {
	q := &request{patience: patience{Context: r.Context()}, route: rt, r: r, out: answer{ResponseWriter: w, conn: answerConn(r)}}
	c := &q.call
	c.Header, c.Route, c.Edge, c.Began, c.Peer = rt.head, rt.name, rt.slot, time.Now(), r.RemoteAddr
	if rt.method != nil {
		c.Deadline = c.Began.Add(c.Budget)
		q.until = c.Deadline
	}
	from := parentOf(r.Header)
	if from.Trace.IsZero() {
		from.Trace = tracing.NewTraceID()
	} else {
		q.state = tracing.ParseTracestate(r.Header["Tracestate"])
	}
	c.Trace, q.parent, c.Span = from.Trace, from.Span, tracing.NewSpanID()
	sampled := rt.sampler.Sample(c.Began, from.Sampled && e.trusted != nil && e.trusted(r))
	if sampled {
		c.Flags |= rpc.FlagSampled
	}
	q.out.Header().Set("Traceparent", tracing.Traceparent(c.Trace, c.Span, sampled))
	rt.items.Started()
	return q
}

// parentOf gives what a valid traceparent says, else nothing.
func parentOf(h http.Header) (from tracing.Identity) {
	if v := h["Traceparent"]; len(v) == 1 {
		from.Trace, from.Span, from.Sampled, _ = tracing.ParseTraceparent(v[0])
	}
	return from
}

// end counts the end of a request, and keeps a record of it if it is worth one. It is
// deferred first, so that it sees the answer of a panic, too.
func (q *request) end(access *slog.Logger) {
	took := time.Since(q.call.Began)
	status := q.out.status
	if status == 0 {
		status = http.StatusOK
	}
	// A stream lasts until its client goes: whether that was too early only its handler
	// knows.
	gone := q.r.Context().Err() != nil && (!q.out.stream || q.err != nil)
	result := metrics.RouteResultOf(status, gone)
	class := classes[result]
	size := int(max(0, q.r.ContentLength))
	q.route.items.Ended(result, took, size, q.out.bytes)
	q.route.slot.Record(class, took, size, q.out.bytes)
	if access != nil {
		q.log(access, status, result, took)
	}
	ended := tracing.Ended{
		Class: uint8(class), Sampled: q.call.Flags&rpc.FlagSampled != 0,
		Took: took, At: q.call.Began.Add(took), Span: q.call.Span, Below: q.call.Progress().Kept(),
	}
	k := q.route.records.Keep(&ended)
	if k == 0 {
		return
	}
	r := tracing.Record{
		Trace: q.call.Trace, Span: q.call.Span, Parent: q.parent, State: q.state,
		Entry: q.call.Entry, Peer: q.r.RemoteAddr, Start: q.call.Began.UnixNano(), Duration: took,
		Class: class.String(), Status: status, Path: q.r.URL.Path, Scheme: "http",
		RequestBytes: int64(size), ResponseBytes: int64(q.out.bytes), Notes: q.notes.All(),
	}
	if q.r.TLS != nil {
		r.Scheme = "https"
	}
	interceptor.Describe(&r, q.err) // records are the operator's: they say what the client is not told
	q.route.records.Add(k, r)
}

// log writes the line of an access log.
func (q *request) log(access *slog.Logger, status int, result metrics.RouteResult, took time.Duration) {
	access.LogAttrs(q.r.Context(), slog.LevelInfo, "request",
		slog.String("entry", q.route.name), slog.Int("status", status), slog.String("result", result.String()), slog.Int("bytes", q.out.bytes),
		slog.Float64("took_ms", float64(took.Microseconds())/1000), slog.String("trace", q.call.Trace.String()), slog.String("peer", q.r.RemoteAddr))
}

var classes = [metrics.RouteResults]callgraph.Class{
	metrics.RouteOK: callgraph.OK, metrics.RouteClientError: callgraph.BusinessError,
	metrics.RouteServerError: callgraph.Internal, metrics.RouteTimeout: callgraph.Timeout,
	metrics.RouteCanceled: callgraph.Canceled, metrics.RouteRateLimited: callgraph.LocalRejected,
	metrics.RouteOverload: callgraph.Overloaded,
}
