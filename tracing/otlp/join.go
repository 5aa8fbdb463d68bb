// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"

	"github.com/sluice-rpc/sluice/tracing"
)

// spanKey is the key under which OpenTelemetry looks for the current span. It does not
// export the key, but it asks any context for it: this one remembers what it was asked.
var spanKey = func() any {
	var asked keyCatcher
	trace.SpanFromContext(&asked)
	return asked.key
}()

type keyCatcher struct {
	context.Context
	key any
}

func (c *keyCatcher) Value(key any) any {
	c.key = key
	return nil
}

// ContextValue implements tracing.Exporter: a call's context has a current span, which
// is made when somebody asks for it.
func (e *Exporter) ContextValue(key any, current tracing.Identity, notes *tracing.Notes) any {
	if key != spanKey || current.Trace.IsZero() || current.Span.IsZero() {
		return nil
	}
	return callSpan{exporter: e, context: spanContext(current), notes: notes}
}

// SpanOf implements tracing.Exporter.
func (e *Exporter) SpanOf(ctx context.Context) (tracing.Identity, bool) {
	c := trace.SpanContextFromContext(ctx)
	return tracing.Identity{Trace: tracing.TraceID(c.TraceID()), Span: tracing.SpanID(c.SpanID()), Sampled: c.IsSampled()}, c.IsValid()
}

func spanContext(id tracing.Identity) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(id.Trace), SpanID: trace.SpanID(id.Span), TraceFlags: trace.TraceFlags(0).WithSampled(id.Sampled),
	})
}

// callSpan is the span of a call that is being served, as user code sees it. The real
// one is made of the call's record, when the call has ended: name, kind, status and end
// are the framework's, events and links are not kept. What the user adds is attributes.
type callSpan struct {
	embedded.Span

	exporter *Exporter
	context  trace.SpanContext
	notes    *tracing.Notes
}

var _ trace.Span = callSpan{}

func (s callSpan) SpanContext() trace.SpanContext       { return s.context }
func (s callSpan) TracerProvider() trace.TracerProvider { return s.exporter.users }

// IsRecording says whether attributes are worth computing.
func (s callSpan) IsRecording() bool { return s.context.IsSampled() && s.notes != nil }

// SetAttributes notes the attributes. Values are kept as text.
func (s callSpan) SetAttributes(kv ...attribute.KeyValue) {
	if !s.IsRecording() {
		return
	}
	for _, a := range kv {
		if a.Valid() {
			s.notes.Set(string(a.Key), a.Value.String())
		}
	}
}

// RecordError notes the last error, as OpenTelemetry's event of an exception has it.
func (s callSpan) RecordError(err error, _ ...trace.EventOption) {
	if err == nil || !s.IsRecording() {
		return
	}
	s.notes.Set("exception.type", fmt.Sprintf("%T", err))
	s.notes.Set("exception.message", err.Error())
}

func (callSpan) End(...trace.SpanEndOption)            {}
func (callSpan) AddEvent(string, ...trace.EventOption) {}
func (callSpan) AddLink(trace.Link)                    {}
func (callSpan) SetStatus(codes.Code, string)          {}
func (callSpan) SetName(string)                        {}

// toQueue takes the spans of user code.
type toQueue struct{ exporter *Exporter }

func (q toQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		q.exporter.put(item{span: s})
	}
}

func (toQueue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (toQueue) Shutdown(context.Context) error                  { return nil }
func (toQueue) ForceFlush(context.Context) error                { return nil }

// roots samples the spans that user code starts outside of any request.
type roots struct {
	tracer *tracing.Tracer
	rate   tracing.Rate
}

func newRoots(r tracing.Rate) (roots, error) {
	t, err := tracing.New(tracing.Config{Rate: r, MaxRecords: 1})
	return roots{tracer: t, rate: r}, err
}

func (r roots) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	decision := sdktrace.Drop
	if r.tracer.Sampler(p.Name).Sample(time.Now(), false) {
		decision = sdktrace.RecordAndSample
	}
	return sdktrace.SamplingResult{Decision: decision, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
}

func (r roots) Description() string {
	return fmt.Sprintf("SluiceRate{%g/s,%g}", r.rate.PerSecond, r.rate.Ratio)
}

// environmentSays tells whether the environment names a receiver, which the SDK reads
// itself.
func environmentSays() bool {
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}
