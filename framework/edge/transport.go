// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// Transport makes HTTP requests part of what they are made for. Each gets a W3C
// traceparent, and tracestate as it came in; it is an edge of the call graph, to
// Service + "/" + its method, and becomes a record if it is traced, fails or is slow. A
// request whose context belongs to none is an entry itself. What is measured ends when
// the head of the answer has come.
//
// The ids tell the other side nothing but that two requests belong together. It is for
// services of one's own, and for others that are to know as much.
//
//	client := &http.Client{Transport: &edge.Transport{Service: "payments"}}
type Transport struct {
	// Service is the name of the called service as graphs and records show it. Empty
	// means "http".
	Service string
	// Base sends the requests; nil means http.DefaultTransport.
	Base http.RoundTripper

	callees sync.Map // HTTP method to *callee
}

// callee is one method of the called service.
type callee struct {
	entry   tracing.Entry
	edges   *callgraph.Edges
	sampler *tracing.Sampler
	records *tracing.Method
}

// callee gives that of an HTTP method. Unusual ones share one: their number is bounded.
func (t *Transport) callee(method string) *callee {
	switch method {
	case "":
		method = http.MethodGet
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "_OTHER"
	}
	if c, ok := t.callees.Load(method); ok {
		return c.(*callee)
	}
	name := "http/" + method
	if t.Service != "" {
		name = t.Service + "/" + method
	}
	c, _ := t.callees.LoadOrStore(method, &callee{
		entry: process.Graph().NameEntry(name), edges: process.Graph().Edges(callgraph.Client, name),
		sampler: process.Tracer().Sampler(name), records: process.Tracer().Method(tracing.Client, name),
	})
	return c.(*callee)
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	c, began := t.callee(r.Method), time.Now()
	span := tracing.NewSpanID()
	entry, caller, parent := c.place(r.Context(), began)

	out := r.Clone(r.Context()) // a RoundTripper does not change what it is given
	out.Header.Set("Traceparent", tracing.Traceparent(parent.Trace, span, parent.Sampled))
	out.Header.Del("Tracestate")
	if q, ok := r.Context().Value(requestKey{}).(*request); ok && q.state != "" {
		out.Header.Set("Tracestate", q.state)
	}
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	res, err := base.RoundTrip(out)

	took := time.Since(began)
	class, size := classOfAnswer(res, err), int(max(0, r.ContentLength))
	slot := c.edges.Slot(entry, process.Graph().Method(caller))
	slot.Attempt(class)
	slot.Record(class, took, size, 0)
	ended := tracing.Ended{Class: uint8(class), Sampled: parent.Sampled, Took: took, At: began.Add(took), Span: span}
	if k := c.records.Keep(&ended); k != 0 {
		if in := rpc.CallFrom(r.Context()); in != nil {
			in.Progress().Keep()
		}
		rec := tracing.Record{
			Trace: parent.Trace, Span: span, Parent: parent.Span, Entry: entry, Caller: caller,
			Peer: r.URL.Host, Start: began.UnixNano(), Duration: took, Class: class.String(),
			Path: r.URL.Path, Scheme: r.URL.Scheme, Attempt: 1, RequestBytes: int64(size),
		}
		if res != nil {
			rec.Status = res.StatusCode
		}
		interceptor.Describe(&rec, err)
		c.records.Add(k, rec)
	}
	return res, err
}

// place gives the entry, the calling method and the parent of a request.
func (c *callee) place(ctx context.Context, now time.Time) (entry tracing.Entry, caller string, parent tracing.Identity) {
	if in := rpc.CallFrom(ctx); in != nil {
		if in.Method != nil {
			caller = in.Method.FullName()
		}
		parent = tracing.Identity{Trace: in.Trace, Span: in.Span, Sampled: in.Flags&rpc.FlagSampled != 0}
		if parent.Sampled {
			parent = process.Tracer().Parent(ctx, parent)
		}
		return in.Entry, caller, parent
	}
	if parent = process.Tracer().Parent(ctx, parent); parent.Trace.IsZero() {
		parent = tracing.Identity{Trace: tracing.NewTraceID(), Sampled: c.sampler.Sample(now, false)}
	}
	return c.entry, "", parent
}

// classOfAnswer tells how a request has ended. Whether one that failed has reached the
// other side is not known.
func classOfAnswer(res *http.Response, err error) callgraph.Class {
	switch {
	case errors.Is(err, context.Canceled):
		return callgraph.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return callgraph.Timeout
	case err != nil:
		return callgraph.Network
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable:
		return callgraph.Overloaded
	case res.StatusCode == http.StatusGatewayTimeout:
		return callgraph.Timeout
	case res.StatusCode >= 500:
		return callgraph.Internal
	case res.StatusCode >= 400:
		return callgraph.BusinessError
	}
	return callgraph.OK
}
