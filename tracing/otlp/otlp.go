// SPDX-License-Identifier: Apache-2.0

// Package otlp exports kept calls as OpenTelemetry spans, over OTLP/HTTP, and lets the
// spans of user code join them.
//
// An [Exporter] is what a tracing.Tracer exports to. Records become spans of the
// OpenTelemetry SDK in one goroutine, off the path of any call. Between the two stands
// a queue of fixed length: when the receiver is down or slow, spans are dropped and
// counted, and nothing waits.
//
// User code needs nothing of this package. In a handler trace.SpanFromContext gives the
// span of the call: attributes that are set on it are exported with it, and spans that
// are started below it, with [Exporter.TracerProvider] or with the global one if that
// was set to it, are in the same trace. They are recorded if the request is sampled.
//
// It is a package of its own because the SDK and its exporter, which links gRPC, would
// else be part of every program.
package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-rpc/sluice/tracing"
)

// Config says who exports, and where to. Zero fields get defaults.
type Config struct {
	Service  string // service.name; required
	Instance string // service.instance.id
	Version  string // service.version

	// Endpoint is the URL of the receiver, for example "http://127.0.0.1:4318". If it
	// has no path, spans go to /v1/traces. Empty means what the environment says in
	// OTEL_EXPORTER_OTLP_ENDPOINT and its siblings, else http://127.0.0.1:4318.
	Endpoint string
	// Spans takes the spans in place of a receiver at Endpoint.
	Spans sdktrace.SpanExporter

	QueueSize int           // spans that may wait; zero means DefaultQueueSize
	BatchSize int           // spans sent at once; zero means DefaultBatchSize
	Interval  time.Duration // longest that a span waits for others; zero means DefaultInterval
	Timeout   time.Duration // of one batch, repetitions included; zero means DefaultTimeout

	// Roots says how many of the spans are recorded that user code starts outside of
	// any request; each name is an entry of its own. The zero Rate means
	// tracing.DefaultRate.
	Roots tracing.Rate
	// Log hears when the receiver fails and when it is back; nil means slog.Default().
	Log *slog.Logger
}

// The defaults. A queue of 4,096 spans is of some megabytes when it is full.
const (
	DefaultEndpoint  = "http://127.0.0.1:4318"
	DefaultQueueSize = 4096
	DefaultBatchSize = 512
	DefaultInterval  = time.Second
	DefaultTimeout   = 10 * time.Second
)

// An Exporter exports until it is shut down. It is safe for concurrent use.
type Exporter struct {
	config Config
	spans  sdktrace.SpanExporter
	log    *slog.Logger

	users   *sdktrace.TracerProvider // of user code
	records *sdktrace.TracerProvider // makes the spans of records
	tracer  trace.Tracer             // of records
	made    batch                    // where records puts them

	queue    chan item
	closed   atomic.Bool
	stop     chan struct{}      // closed by Shutdown
	abandon  context.CancelFunc // of what is being sent
	finished chan struct{}      // closed when the goroutine has ended

	exported, failed, dropped atomic.Uint64
}

var _ tracing.Exporter = (*Exporter)(nil)

// item is what waits to be exported: one of the two.
type item struct {
	record *tracing.Record
	span   sdktrace.ReadOnlySpan // of user code
}

// New makes an Exporter and starts its goroutine, which Shutdown ends. The context is
// for making it alone. It fails for a configuration that cannot work; that nobody
// listens at the endpoint is not one.
func New(ctx context.Context, c Config) (*Exporter, error) {
	if c.Service == "" {
		return nil, errors.New("otlp: Config.Service is empty: it is the name under which spans are found")
	}
	c.QueueSize = cmp.Or(max(c.QueueSize, 0), DefaultQueueSize)
	c.BatchSize = cmp.Or(max(c.BatchSize, 0), DefaultBatchSize)
	c.Interval = cmp.Or(max(c.Interval, 0), DefaultInterval)
	c.Timeout = cmp.Or(max(c.Timeout, 0), DefaultTimeout)
	e := &Exporter{
		config: c, spans: c.Spans, log: c.Log,
		queue: make(chan item, c.QueueSize), stop: make(chan struct{}), finished: make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	roots, err := newRoots(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("otlp: rate of user code's own traces: %w", err)
	}
	if e.spans == nil {
		if e.spans, err = newHTTP(ctx, c); err != nil {
			return nil, fmt.Errorf("otlp: exporter to %q: %w", c.Endpoint, err)
		}
	}
	res := resourceOf(c)
	limits := sdktrace.NewSpanLimits()
	limits.AttributeCountLimit, limits.AttributeValueLengthLimit = 64, 1024
	limits.EventCountLimit, limits.LinkCountLimit = 32, 32
	e.users = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithSampler(sdktrace.ParentBased(roots)), sdktrace.WithSpanProcessor(toQueue{e}))
	e.records = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithIDGenerator(recordIDs{}), sdktrace.WithSpanProcessor(&e.made))
	e.tracer = e.records.Tracer("github.com/sluice-rpc/sluice/tracing", trace.WithSchemaURL(semconv.SchemaURL))

	// What is being sent outlives New, and is given up by Shutdown alone.
	sending, abandon := context.WithCancel(context.WithoutCancel(ctx))
	e.abandon = abandon
	go func() {
		defer close(e.finished)
		e.run(sending)
	}()
	return e, nil
}

func newHTTP(ctx context.Context, c Config) (sdktrace.SpanExporter, error) {
	options := []otlptracehttp.Option{
		otlptracehttp.WithTimeout(c.Timeout),
		// The whole of a batch's time, so that what has failed is given up while there
		// is still room for what comes behind it.
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: min(500*time.Millisecond, c.Timeout/4),
			MaxInterval: max(c.Timeout/4, 1), MaxElapsedTime: c.Timeout,
		}),
	}
	if endpoint, err := endpointOf(c.Endpoint); err != nil {
		return nil, err
	} else if endpoint != "" {
		options = append(options, otlptracehttp.WithEndpointURL(endpoint))
	}
	return otlptracehttp.New(ctx, options...)
}

func resourceOf(c Config) *resource.Resource {
	attributes := []attribute.KeyValue{semconv.ServiceName(c.Service)}
	if c.Instance != "" {
		attributes = append(attributes, semconv.ServiceInstanceID(c.Instance))
	}
	if c.Version != "" {
		attributes = append(attributes, semconv.ServiceVersion(c.Version))
	}
	return resource.NewWithAttributes(semconv.SchemaURL, attributes...)
}

// TracerProvider is what user code makes its tracers of. A program that sets it as the
// global one (otel.SetTracerProvider) has the spans of its libraries, too.
func (e *Exporter) TracerProvider() trace.TracerProvider { return e.users }

// Export implements tracing.Exporter. A record without ids is dropped: a receiver may
// refuse all that comes with it.
func (e *Exporter) Export(r *tracing.Record) bool {
	if r.Trace.IsZero() || r.Span.IsZero() {
		e.dropped.Add(1)
		return false
	}
	return e.put(item{record: r})
}

func (e *Exporter) put(i item) bool {
	if !e.closed.Load() {
		select {
		case e.queue <- i:
			return true
		default:
		}
	}
	e.dropped.Add(1)
	return false
}

// Stats counts what an Exporter has done with spans.
type Stats struct {
	Exported uint64 // taken by the receiver
	Failed   uint64 // given up after the receiver did not take them
	Dropped  uint64 // not taken, because the queue was full or the Exporter shut down
	Queued   int    // waiting now
}

// Stats gives the counts. They are read one after the other.
func (e *Exporter) Stats() Stats {
	return Stats{
		Exported: e.exported.Load(), Failed: e.failed.Load(), Dropped: e.dropped.Load(), Queued: len(e.queue),
	}
}

// Shutdown takes nothing more, sends what is waiting and returns when that is done or
// ctx ends, whichever is first: what has not been sent by then is counted as failed,
// and is in the error. It may be called once.
func (e *Exporter) Shutdown(ctx context.Context) error {
	if e.closed.Swap(true) {
		return errors.New("otlp: the exporter has been shut down before")
	}
	before := e.failed.Load()
	close(e.stop)
	defer e.abandon()
	gaveUp := context.AfterFunc(ctx, e.abandon)
	defer gaveUp()
	select {
	case <-e.finished:
	case <-ctx.Done():
		return fmt.Errorf("otlp: shut down with up to %d spans not exported: %w", len(e.queue)+e.config.BatchSize, context.Cause(ctx))
	}
	err := errors.Join(e.users.Shutdown(ctx), e.records.Shutdown(ctx), e.spans.Shutdown(ctx))
	if lost := e.failed.Load() - before; lost > 0 {
		err = errors.Join(fmt.Errorf("otlp: %d spans were not exported: the receiver did not take them", lost), err)
	}
	return err
}

// run exports until Shutdown, then what is left.
func (e *Exporter) run(sending context.Context) {
	tick := time.NewTicker(e.config.Interval)
	defer tick.Stop()
	down := false
	waiting := make([]item, 0, e.config.BatchSize)
	send := func() {
		if err := e.send(sending, waiting); err != nil && !down {
			down = true
			e.log.Warn("spans cannot be exported; more of them are counted and not told", slog.Any("err", err))
		} else if err == nil && down && len(waiting) > 0 {
			down = false
			e.log.Info("spans are exported again", slog.Uint64("failed", e.failed.Load()), slog.Uint64("dropped", e.dropped.Load()))
		}
		clear(waiting)
		waiting = waiting[:0]
	}
	for {
		select {
		case i := <-e.queue:
			if waiting = append(waiting, i); len(waiting) == cap(waiting) {
				send()
			}
		case <-tick.C:
			send()
		case <-e.stop:
			// Who had looked at closed before it was set may still put one in: a few
			// spans that nobody counts, at the very end.
			for {
				select {
				case i := <-e.queue:
					if waiting = append(waiting, i); len(waiting) == cap(waiting) {
						send()
					}
				default:
					send()
					return
				}
			}
		}
	}
}

// send makes spans of what has waited and exports them.
func (e *Exporter) send(sending context.Context, waiting []item) error {
	if len(waiting) == 0 {
		return nil
	}
	e.made.spans = make([]sdktrace.ReadOnlySpan, 0, len(waiting))
	for _, i := range waiting {
		if i.span != nil {
			e.made.spans = append(e.made.spans, i.span)
		} else {
			e.makeSpan(sending, i.record)
		}
	}
	spans := e.made.spans
	e.made.spans = nil
	ctx, cancel := context.WithTimeout(sending, e.config.Timeout)
	defer cancel()
	err := e.spans.ExportSpans(ctx, spans)
	if err != nil {
		e.failed.Add(uint64(len(spans)))
		return err
	}
	e.exported.Add(uint64(len(spans)))
	return nil
}
