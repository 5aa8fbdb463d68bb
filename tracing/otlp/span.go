// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-rpc/sluice/tracing"
)

// The attributes of spans that semantic conventions have no name for.
const (
	EntryKey         = attribute.Key("sluice.entry")         // name of the entry, or its number
	CallerKey        = attribute.Key("sluice.caller")        // full name of the calling method
	ClassKey         = attribute.Key("sluice.class")         // how the call ended, as the call graph says it
	ReasonKey        = attribute.Key("sluice.reason")        // who made the error
	KeptKey          = attribute.Key("sluice.kept")          // why the span is there: sampled, error, slow
	AttemptKey       = attribute.Key("sluice.attempt")       // of a client: counts from 1
	RequestBytesKey  = attribute.Key("sluice.request.size")  // encoded message, bytes
	ResponseBytesKey = attribute.Key("sluice.response.size") // encoded message, bytes
)

// systemName is what rpc.system.name and messaging.system say.
const systemName = "sluice"

// recordContext is the context in which the span of a record is made: it holds the
// record for recordIDs.
type recordContext struct {
	context.Context
	record *tracing.Record
}

type recordKey struct{}

func (c recordContext) Value(key any) any {
	if key == (recordKey{}) {
		return c.record
	}
	return c.Context.Value(key)
}

// recordIDs gives a span the ids of its record: the SDK makes no span with ids that
// are given to it in another way.
type recordIDs struct{}

func (recordIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	r, _ := ctx.Value(recordKey{}).(*tracing.Record)
	return trace.TraceID(r.Trace), trace.SpanID(r.Span)
}

func (recordIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	r, _ := ctx.Value(recordKey{}).(*tracing.Record)
	return trace.SpanID(r.Span)
}

// batch gathers the spans of records. It belongs to the exporter's goroutine.
type batch struct{ spans []sdktrace.ReadOnlySpan }

func (b *batch) OnEnd(s sdktrace.ReadOnlySpan) { b.spans = append(b.spans, s) }

func (*batch) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (*batch) Shutdown(context.Context) error                  { return nil }
func (*batch) ForceFlush(context.Context) error                { return nil }

// makeSpan makes the span of a record. It arrives in e.made.
func (e *Exporter) makeSpan(ctx context.Context, r *tracing.Record) {
	ctx = recordContext{ctx, r}
	name, attributes := describe(r)
	start := time.Unix(0, r.Start)
	options := []trace.SpanStartOption{
		trace.WithTimestamp(start), trace.WithSpanKind(kinds[min(r.Kind, tracing.Internal)]), trace.WithAttributes(attributes...),
	}
	if r.Parent.IsZero() {
		options = append(options, trace.WithNewRoot()) // whatever span New was called in
	} else {
		// What cannot be parsed is from outside: it is the trace that matters.
		state, _ := trace.ParseTraceState(r.State)
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID(r.Trace), SpanID: trace.SpanID(r.Parent), TraceFlags: trace.FlagsSampled, TraceState: state,
			Remote: r.Kind == tracing.Server || r.Kind == tracing.Consumer,
		}))
	}
	if len(r.Links) > 0 {
		options = append(options, trace.WithLinks(linksOf(r)...))
	}
	_, span := e.tracer.Start(ctx, name, options...)
	if failed(r) {
		span.SetStatus(codes.Error, r.Message)
	}
	span.End(trace.WithTimestamp(start.Add(r.Duration)))
}

var kinds = [...]trace.SpanKind{
	tracing.Client:   trace.SpanKindClient,
	tracing.Server:   trace.SpanKindServer,
	tracing.Producer: trace.SpanKindProducer,
	tracing.Consumer: trace.SpanKindConsumer,
	tracing.Internal: trace.SpanKindInternal,
}

func linksOf(r *tracing.Record) []trace.Link {
	links := make([]trace.Link, len(r.Links))
	for i, l := range r.Links {
		links[i].SpanContext = spanContext(l).WithRemote(true)
	}
	return links
}

// describe gives the name of a span and its attributes, by the semantic conventions
// for RPC, HTTP and messaging.
func describe(r *tracing.Record) (string, []attribute.KeyValue) {
	name := r.Method
	a := make([]attribute.KeyValue, 0, 20+len(r.Notes))
	for _, n := range r.Notes {
		a = append(a, attribute.String(n.Key, n.Value)) // before ours: of two with one key the SDK has the later
	}
	switch {
	case r.Path != "":
		a = append(a, httpAttributes(r)...)
	case r.Kind == tracing.Client || r.Kind == tracing.Server:
		a = append(a, semconv.RPCSystemNameKey.String(systemName), semconv.RPCMethod(r.Method), semconv.RPCResponseStatusCode(statusCode(r)))
	case r.Kind == tracing.Producer:
		name = "send " + name
		a = append(a, semconv.MessagingSystemKey.String(systemName), semconv.MessagingOperationName("send"),
			semconv.MessagingOperationTypeSend, semconv.MessagingDestinationName(r.Method))
	case r.Kind == tracing.Consumer:
		name = "process " + name
		a = append(a, semconv.MessagingSystemKey.String(systemName), semconv.MessagingOperationName("process"),
			semconv.MessagingOperationTypeProcess, semconv.MessagingDestinationName(r.Method))
	}
	a = append(a, peerAttributes(r)...)
	if r.Code != "" || failed(r) {
		a = append(a, semconv.ErrorTypeKey.String(errorType(r)))
	}
	for _, kv := range [...]attribute.KeyValue{
		EntryKey.String(r.Named), CallerKey.String(r.Caller), ClassKey.String(r.Class), ReasonKey.String(r.Reason), KeptKey.String(r.Kept),
	} {
		if kv.Value.AsString() != "" {
			a = append(a, kv)
		}
	}
	if r.Kind == tracing.Client && r.Attempt > 0 {
		a = append(a, AttemptKey.Int(r.Attempt))
	}
	if r.RequestBytes > 0 {
		a = append(a, RequestBytesKey.Int64(r.RequestBytes))
	}
	if r.ResponseBytes > 0 {
		a = append(a, ResponseBytesKey.Int64(r.ResponseBytes))
	}
	return name, a
}

func httpAttributes(r *tracing.Record) []attribute.KeyValue {
	method, route, ok := strings.Cut(r.Method, " ")
	if !ok {
		method, route = "_OTHER", r.Method
	}
	scheme := r.Scheme
	if scheme == "" {
		scheme = "http"
	}
	a := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(method)}
	if r.Kind == tracing.Client {
		a = append(a, semconv.URLFull((&url.URL{Scheme: scheme, Host: r.Peer, Path: r.Path}).String()))
		if r.Attempt > 1 {
			a = append(a, semconv.HTTPRequestResendCount(r.Attempt-1))
		}
	} else {
		a = append(a, semconv.HTTPRoute(route), semconv.URLPath(r.Path), semconv.URLScheme(scheme))
	}
	if r.Status != 0 {
		a = append(a, semconv.HTTPResponseStatusCode(r.Status))
	}
	return a
}

func peerAttributes(r *tracing.Record) []attribute.KeyValue {
	host, portText, err := net.SplitHostPort(r.Peer)
	if err != nil {
		return nil // "local", or no address at all
	}
	a := []attribute.KeyValue{semconv.NetworkPeerAddress(host)}
	port, err := strconv.Atoi(portText)
	if err == nil {
		a = append(a, semconv.NetworkPeerPort(port))
	}
	switch {
	case r.Kind == tracing.Client:
		if a = append(a, semconv.ServerAddress(host)); err == nil {
			a = append(a, semconv.ServerPort(port))
		}
	case r.Kind == tracing.Server && r.Path != "":
		a = append(a, semconv.ClientAddress(host))
	}
	return a
}

// statusCode is the code as gRPC writes it on the wire's side: "OK", "NOT_FOUND".
func statusCode(r *tracing.Record) string {
	if r.Code == "" {
		return "OK"
	}
	return strings.ToUpper(r.Code)
}

// errorType is the most telling of what has few values.
func errorType(r *tracing.Record) string {
	switch {
	case r.Path != "" && r.Status >= 400:
		return strconv.Itoa(r.Status)
	case r.Code != "":
		return strings.ToUpper(r.Code)
	case r.Class != "":
		return r.Class
	}
	return "_OTHER"
}

// failed says whether the span's status is an error. The conventions tell the ends
// apart: that a caller asked for something that is not there is no error of the server.
func failed(r *tracing.Record) bool {
	if r.Path != "" && r.Status != 0 {
		return r.Status >= 500 || (r.Kind == tracing.Client && r.Status >= 400)
	}
	if r.Kind != tracing.Server {
		return r.Code != ""
	}
	switch r.Code {
	case "unknown", "deadline_exceeded", "unimplemented", "internal", "unavailable", "data_loss":
		return true
	}
	return false
}

// endpointOf makes the URL that the SDK wants of one that an operator writes.
func endpointOf(endpoint string) (string, error) {
	if endpoint == "" {
		if environmentSays() {
			return "", nil
		}
		endpoint = DefaultEndpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", errors.New("the endpoint is a URL like " + DefaultEndpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}
