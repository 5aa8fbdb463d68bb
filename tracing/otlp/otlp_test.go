// SPDX-License-Identifier: Apache-2.0

package otlp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is an OTLP/HTTP receiver.
type receiver struct {
	url string

	mu       sync.Mutex
	resource []string // of each batch
	spans    []*tracepb.Span
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	server := httptest.NewServer(r)
	// The SDK keeps connections for all exporters of a process; here they must not
	// outlive the test.
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var in collectorpb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, fmt.Sprint("not OTLP: ", err), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range in.ResourceSpans {
		r.resource = append(r.resource, attributesOf(rs.Resource.Attributes)["service.name"])
		for _, ss := range rs.ScopeSpans {
			r.spans = append(r.spans, ss.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	answer, _ := proto.Marshal(&collectorpb.ExportTraceServiceResponse{})
	w.Write(answer)
}

// byName gives the spans by name, and fails if a name is there twice.
func (r *receiver) byName(t *testing.T) map[string]*tracepb.Span {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]*tracepb.Span{}
	for _, s := range r.spans {
		name := s.Kind.String()[len("SPAN_KIND_"):] + " " + s.Name
		if out[name] != nil {
			t.Errorf("two spans %q", name)
		}
		out[name] = s
	}
	return out
}

func attributesOf(list []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			out[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[kv.Key] = fmt.Sprint(v.IntValue)
		default:
			out[kv.Key] = fmt.Sprintf("%T", v)
		}
	}
	return out
}

func newExporter(t *testing.T, c otlp.Config) *otlp.Exporter {
	t.Helper()
	c.Service = "test"
	c.Log = slog.New(slog.DiscardHandler)
	// Whoever makes an exporter may be in a span of his own: no record is below that.
	ctx, span := sdktrace.NewTracerProvider().Tracer("main").Start(t.Context(), "start")
	defer span.End()
	e, err := otlp.New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newTracer(t *testing.T, c tracing.Config) *tracing.Tracer {
	t.Helper()
	tr, err := tracing.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// callContext is the context of a call being served, as the framework has it.
type callContext struct {
	context.Context
	tracer  *tracing.Tracer
	current tracing.Identity
	notes   tracing.Notes
}

func (c *callContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.tracer.ContextValue(key, c.current, &c.notes)
}

// TestTrace sends one request through entry, client, server, user code and a further
// client, as the framework does, and looks at what a receiver is told.
func TestTrace(t *testing.T) {
	r := newReceiver(t)
	e := newExporter(t, otlp.Config{Endpoint: r.url, Instance: "test-1", Version: "v1"})
	tr := newTracer(t, tracing.Config{Exporter: e, Rate: tracing.Rate{Ratio: 1}})
	const publish, store = "moments.v1.PostService/Publish", "moments.v1.MediaService/Get"

	id := tracing.Identity{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()}
	id.Sampled = tr.Sampler("POST /posts").Sample(time.Now(), false)
	entry, outside := tracing.EntryOf("POST /posts"), tracing.NewSpanID()
	start := time.Now().Add(-time.Second)
	client, server := tracing.NewSpanID(), tracing.NewSpanID()

	// In the handler of publish.
	ctx := &callContext{Context: t.Context(), tracer: tr, current: tracing.Identity{Trace: id.Trace, Span: server, Sampled: true}}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() || !span.SpanContext().IsSampled() {
		t.Fatal("a handler has no current span")
	}
	span.SetAttributes(attribute.Int("pictures", 9), attribute.String("rpc.method", "a lie"), attribute.StringSlice("tags", []string{"a"}))
	span.RecordError(errors.New("first"))
	span.RecordError(nil)
	userCtx, userSpan := e.TracerProvider().Tracer("user").Start(ctx, "resize")
	parent := tr.Parent(userCtx, ctx.current)
	if parent.Span.String() != userSpan.SpanContext().SpanID().String() || parent.Trace != id.Trace || !parent.Sampled {
		t.Errorf("the parent of a call below a user's span is %v", parent)
	}
	if got := tr.Parent(ctx, ctx.current); got != ctx.current {
		t.Errorf("the parent of a call outside of a user's span is %v", got)
	}
	_, inner := span.TracerProvider().Tracer("user").Start(userCtx, "encode")
	inner.AddEvent("half")
	inner.SetStatus(codes.Error, "no")
	inner.End()
	userSpan.End()
	otherCtx, other := e.TracerProvider().Tracer("user").Start(ctx, "own", trace.WithNewRoot())
	if got := tr.Parent(otherCtx, ctx.current); got != ctx.current {
		t.Errorf("a trace of the user's own takes the request's calls: %v", got)
	}
	if got := tr.Parent(otherCtx, tracing.Identity{}); got.Trace.String() != other.SpanContext().TraceID().String() {
		t.Errorf("outside of a request the user's trace is not joined: %v", got)
	}
	other.End()

	add := func(kind tracing.Kind, method string, rec tracing.Record) {
		t.Helper()
		m := tr.Method(kind, method)
		k := m.Keep(&tracing.Ended{Sampled: id.Sampled, Took: rec.Duration, At: time.Now(), Span: rec.Span})
		if k == 0 {
			t.Fatalf("%s is not kept", method)
		}
		rec.Trace, rec.Entry, rec.Class, rec.Start = id.Trace, entry, "ok", start.UnixNano()
		m.Add(k, rec)
	}
	add(tracing.Client, store, tracing.Record{
		Span: tracing.NewSpanID(), Parent: parent.Span, Caller: publish, Code: "not_found", Reason: "handler",
		Message: "no such picture", Peer: "10.0.0.7:7000", Attempt: 2, Duration: time.Millisecond, RequestBytes: 12,
	})
	add(tracing.Server, publish, tracing.Record{
		Span: server, Parent: client, Peer: "10.0.0.1:40000", Duration: 200 * time.Millisecond, Code: "invalid_argument",
		Notes: ctx.notes.All(), RequestBytes: 100, ResponseBytes: 20,
	})
	add(tracing.Client, publish, tracing.Record{Span: client, Parent: id.Span, Peer: "local", Attempt: 1, Duration: 300 * time.Millisecond})
	add(tracing.Server, "POST /posts", tracing.Record{
		Span: id.Span, Parent: outside, State: "vendor=1", Path: "/posts", Scheme: "https", Status: 503, Peer: "[::1]:5", Duration: 400 * time.Millisecond,
	})
	add(tracing.Producer, "timeline.fanout", tracing.Record{Span: tracing.NewSpanID(), Parent: server})
	add(tracing.Consumer, "timeline.fanout", tracing.Record{Span: tracing.NewSpanID(), Links: []tracing.Identity{{Trace: tracing.NewTraceID(), Span: server, Sampled: true}}})
	add(tracing.Internal, "nightly", tracing.Record{Span: tracing.NewSpanID(), Code: "internal"})
	add(tracing.Client, "GET /v1/weather", tracing.Record{Span: tracing.NewSpanID(), Parent: server, Path: "/v1/weather", Status: 404, Peer: "weather:80", Attempt: 2})

	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := r.byName(t)
	if len(spans) != 11 || e.Stats() != (otlp.Stats{Exported: 11}) || r.resource[0] != "test" {
		t.Fatalf("%d spans of %v, %+v: %v", len(spans), r.resource, e.Stats(), spans)
	}
	for name, want := range map[string]struct {
		parent  string // in hex
		status  tracepb.Status_StatusCode
		remote  bool
		has     map[string]string
		hasNone []string
	}{
		"SERVER POST /posts": {
			parent: outside.String(), remote: true, status: tracepb.Status_STATUS_CODE_ERROR,
			has: map[string]string{
				"http.request.method": "POST", "http.route": "/posts", "url.path": "/posts", "url.scheme": "https",
				"http.response.status_code": "503", "error.type": "503", "client.address": "::1", "sluice.entry": "POST /posts", "sluice.kept": "sampled",
			},
			hasNone: []string{"rpc.method"},
		},
		"CLIENT " + publish: {
			parent: id.Span.String(),
			has: map[string]string{
				"rpc.system.name": "sluice", "rpc.method": publish, "rpc.response.status_code": "OK", "sluice.attempt": "1", "sluice.class": "ok",
			},
			hasNone: []string{"error.type", "server.address", "network.peer.address"},
		},
		"SERVER " + publish: {
			parent: client.String(), remote: true, // the caller's mistake is no error of the server
			has: map[string]string{
				"rpc.method": publish, "rpc.response.status_code": "INVALID_ARGUMENT", "error.type": "INVALID_ARGUMENT", "network.peer.address": "10.0.0.1",
				"network.peer.port": "40000", "sluice.request.size": "100", "sluice.response.size": "20", "pictures": "9", "tags": `["a"]`,
				"exception.type": "*errors.errorString", "exception.message": "first",
			},
		},
		"INTERNAL resize": {parent: server.String()},
		"INTERNAL encode": {parent: userSpan.SpanContext().SpanID().String(), status: tracepb.Status_STATUS_CODE_ERROR},
		"CLIENT " + store: {
			parent: userSpan.SpanContext().SpanID().String(), status: tracepb.Status_STATUS_CODE_ERROR,
			has: map[string]string{
				"server.address": "10.0.0.7", "server.port": "7000", "sluice.attempt": "2", "sluice.caller": publish, "sluice.reason": "handler",
				"rpc.response.status_code": "NOT_FOUND", "error.type": "NOT_FOUND",
			},
		},
		"PRODUCER send timeline.fanout":    {parent: server.String(), has: map[string]string{"messaging.operation.type": "send", "messaging.destination.name": "timeline.fanout"}},
		"CONSUMER process timeline.fanout": {has: map[string]string{"messaging.operation.type": "process", "messaging.system": "sluice"}},
		"INTERNAL nightly":                 {status: tracepb.Status_STATUS_CODE_ERROR, has: map[string]string{"error.type": "INTERNAL"}},
		"CLIENT GET /v1/weather": {
			parent: server.String(), status: tracepb.Status_STATUS_CODE_ERROR,
			has: map[string]string{"url.full": "http://weather:80/v1/weather", "http.request.resend_count": "1", "error.type": "404"},
		},
	} {
		s := spans[name]
		if s == nil {
			t.Errorf("no span %q", name)
			continue
		}
		if got := fmt.Sprintf("%x", s.ParentSpanId); got != want.parent {
			t.Errorf("%s: parent %s, not %s", name, got, want.parent)
		}
		if got := fmt.Sprintf("%x", s.TraceId); got != id.Trace.String() {
			t.Errorf("%s: trace %s", name, got)
		}
		// Flags: 0x100 says that 0x200, is remote, is known.
		if s.Status.GetCode() != want.status || s.Flags&1 != 1 || (s.Flags&0x200 != 0) != want.remote {
			t.Errorf("%s: status %v, flags %x", name, s.Status, s.Flags)
		}
		a := attributesOf(s.Attributes)
		for key, value := range want.has {
			if a[key] != value {
				t.Errorf("%s: %s is %q, not %q", name, key, a[key], value)
			}
		}
		for _, key := range want.hasNone {
			if v, ok := a[key]; ok {
				t.Errorf("%s: %s is %q", name, key, v)
			}
		}
	}
	s := spans["SERVER "+publish]
	if fmt.Sprintf("%x", s.SpanId) != server.String() || s.StartTimeUnixNano != uint64(start.UnixNano()) || s.EndTimeUnixNano-s.StartTimeUnixNano != uint64(200*time.Millisecond) {
		t.Errorf("span %x from %d to %d", s.SpanId, s.StartTimeUnixNano, s.EndTimeUnixNano)
	}
	if got := spans["SERVER POST /posts"].TraceState; got != "vendor=1" {
		t.Errorf("tracestate %q", got)
	}
	if l := spans["CONSUMER process timeline.fanout"].Links; len(l) != 1 || fmt.Sprintf("%x", l[0].SpanId) != server.String() {
		t.Errorf("links %v", l)
	}
}

// TestNotSampled proves that user code's spans are not recorded in a request that is
// not, and that its ids are right all the same: they go into logs.
func TestNotSampled(t *testing.T) {
	r := newReceiver(t)
	e := newExporter(t, otlp.Config{Endpoint: r.url, Roots: tracing.Rate{Off: true}})
	tr := newTracer(t, tracing.Config{Exporter: e})
	ctx := &callContext{Context: t.Context(), tracer: tr, current: tracing.Identity{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()}}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(attribute.Int("n", 1))
	span.RecordError(io.EOF)
	if span.IsRecording() || span.SpanContext().TraceID().String() != ctx.current.Trace.String() || ctx.notes.All() != nil {
		t.Error("a request that is not sampled is recorded")
	}
	_, child := e.TracerProvider().Tracer("user").Start(ctx, "child")
	_, root := e.TracerProvider().Tracer("user").Start(t.Context(), "root")
	if child.IsRecording() || root.IsRecording() {
		t.Error("user code's spans are recorded")
	}
	child.End()
	root.End()
	if trace.SpanFromContext(&callContext{Context: t.Context(), tracer: tr}).SpanContext().IsValid() {
		t.Error("there is a span without an id")
	}
	if trace.SpanFromContext(&callContext{Context: t.Context(), tracer: newTracer(t, tracing.Config{})}).SpanContext().IsValid() {
		t.Error("there is a span without an exporter")
	}
	// What has failed is exported all the same.
	m := tr.Method(tracing.Server, "a.B/C")
	m.Add(m.Keep(&tracing.Ended{Class: 4, Took: time.Second, At: time.Now()}), tracing.Record{Trace: ctx.current.Trace, Span: ctx.current.Span, Code: "deadline_exceeded", Message: "too late"})
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := r.byName(t)
	if s := spans["SERVER a.B/C"]; len(spans) != 1 || s.Status.Message != "too late" || attributesOf(s.Attributes)["sluice.kept"] != "error" {
		t.Errorf("got %v", spans)
	}
}

// TestReceiverDown proves that nothing waits for a receiver that takes no spans, that
// memory does not grow, and that every span is accounted for.
func TestReceiverDown(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"refuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
		"answers nonsense": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(strings.Repeat("\xff", 1<<16))) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
			e := newExporter(t, otlp.Config{Endpoint: server.URL, QueueSize: 100, BatchSize: 10, Timeout: 20 * time.Millisecond, Interval: time.Millisecond})
			tr := newTracer(t, tracing.Config{Exporter: e, MaxRecords: 10})
			m := tr.Method(tracing.Server, "a.B/C")
			add := func(n int) {
				for range n {
					m.Add(tracing.KeepSampled, tracing.Record{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Message: "m"})
				}
			}
			add(1000)
			before := heap()
			const n = 100_000
			add(n)
			if grown := int64(heap()) - int64(before); grown > 4<<20 {
				t.Errorf("the heap has grown by %d bytes", grown)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := e.Shutdown(ctx); err == nil && name != "answers nonsense" {
				t.Error("spans were lost and nobody was told")
			}
			s := e.Stats()
			if total := s.Exported + s.Failed + s.Dropped + uint64(s.Queued); total != n+1000 || s.Dropped == 0 || s.Dropped != tr.Stats().Dropped {
				t.Errorf("%+v do not add up to %d", s, n+1000)
			}
			if name != "answers nonsense" && s.Exported != 0 {
				t.Errorf("%d spans were exported to nobody", s.Exported)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReceiverComesBack proves that spans flow again, and that batches are sent when
// they are full and when they have waited.
func TestReceiverComesBack(t *testing.T) {
	spans := &fake{fail: true}
	e := newExporter(t, otlp.Config{Spans: spans, BatchSize: 4, Interval: time.Millisecond})
	export := func() {
		e.Export(&tracing.Record{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()})
	}
	export()
	waitFor(t, func() bool { return e.Stats().Failed == 1 })
	spans.set(false)
	for range 9 {
		export()
	}
	waitFor(t, func() bool { return e.Stats().Exported == 9 })
	if e.Export(&tracing.Record{}) || e.Stats().Dropped != 1 {
		t.Error("a record without ids is exported")
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	whole := &tracing.Record{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()}
	if e.Export(whole) || e.Stats().Dropped != 2 || e.Shutdown(t.Context()) == nil {
		t.Error("an exporter lives on after its shutdown")
	}
}

func TestShutdownHasALimit(t *testing.T) {
	release := make(chan struct{})
	e := newExporter(t, otlp.Config{Spans: &fake{wait: release}, Interval: time.Millisecond})
	e.Export(&tracing.Record{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shut down with %v", err)
	}
	close(release) // an exporter that does not heed its context
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]otlp.Config{
		"no service":   {},
		"no scheme":    {Service: "x", Endpoint: "localhost:4318"},
		"other scheme": {Service: "x", Endpoint: "ftp://localhost"},
		"no host":      {Service: "x", Endpoint: "http:///v1/traces"},
		"no URL":       {Service: "x", Endpoint: "http://[::1"},
		"wrong rate":   {Service: "x", Roots: tracing.Rate{Ratio: 2}},
	} {
		if _, err := otlp.New(t.Context(), c); err == nil || !strings.HasPrefix(err.Error(), "otlp: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []otlp.Config{{Service: "x"}, {Service: "x", Endpoint: "http://127.0.0.1:1/own/path"}} {
		e, err := otlp.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// fake is a receiver within the process.
type fake struct {
	mu   sync.Mutex
	fail bool // guarded by mu
	wait chan struct{}
}

func (f *fake) set(fail bool) {
	f.mu.Lock()
	f.fail = fail
	f.mu.Unlock()
}

func (f *fake) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	if f.wait != nil {
		<-f.wait
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail {
		return errors.New("down")
	}
	return nil
}

func (*fake) Shutdown(context.Context) error { return nil }

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func BenchmarkExport(b *testing.B) {
	e, err := otlp.New(b.Context(), otlp.Config{Service: "bench", Spans: &fake{}, QueueSize: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	r := &tracing.Record{
		Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Parent: tracing.NewSpanID(), Kind: tracing.Server, Method: "a.B/C",
		Peer: "10.0.0.1:4000", Class: "ok", Kept: "sampled", Named: "POST /posts", RequestBytes: 10, ResponseBytes: 10,
	}
	b.ReportAllocs()
	for b.Loop() {
		for !e.Export(r) {
			runtime.Gosched()
		}
	}
	if err := e.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
}
