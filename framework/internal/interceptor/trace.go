// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// show lists the call as one that is being served.
func show(c *ServerCall) *rpc.Error {
	c.method.observer.InFlight.Add(&c.call)
	return nil
}

func unshow(c *ServerCall, _ ending) { c.method.observer.InFlight.Remove(&c.call) }

// identify gives the call a span id of its own, below that of its caller. The ids are
// all there is of a span; what comes from outside of the system gets here what else an
// entry gives.
func identify(c *ServerCall, _ *admit.Batch) arrival {
	h := &c.call.Header
	c.parent, h.Span = h.Span, tracing.NewSpanID()
	if h.Trace.IsZero() {
		h.Trace, c.parent = tracing.NewTraceID(), tracing.SpanID{}
	}
	if !c.believed && c.method.sampler.Sample(c.call.Began, false) {
		h.Flags |= rpc.FlagSampled
	}
	return arrival{}
}

// keep makes a record of a call that is worth one: it is traced, has failed, or was
// slow.
func keep(c *ServerCall, e ending) {
	h := &c.call.Header
	class := serverClasses[e.result]
	ended := tracing.Ended{
		Class: uint8(class), Sampled: h.Flags&rpc.FlagSampled != 0,
		Took: e.took, At: c.call.Began.Add(e.took), Span: h.Span, Below: c.Kept(),
	}
	if k := c.method.records.Keep(&ended); k != 0 {
		c.call.Progress().Keep() // its caller in this process will ask
		c.record(k, class, e)
	}
}

// Kept says whether a record was made of the call, or of one that it has made.
func (c *ServerCall) Kept() bool { return c.call.Progress().Kept() }

// Keeps says, before the call has ended, whether its caller should make a record of it:
// one was made of a call that it has made, or it is slow already. A failure the caller
// sees for itself, and a request that is traced is kept everywhere.
func (c *ServerCall) Keeps() bool {
	if c.Kept() {
		return true
	}
	r := c.method.records
	return r != nil && r.Slow(time.Since(c.call.Began))
}

//go:noinline
func (c *ServerCall) record(k tracing.Keep, class callgraph.Class, e ending) {
	h := &c.call.Header
	r := tracing.Record{
		Trace: h.Trace, Span: h.Span, Parent: c.parent,
		Entry: h.Entry, Caller: c.call.Caller(), Peer: c.call.Peer,
		Start: c.call.Began.UnixNano(), Duration: e.took, Class: class.String(),
		RequestBytes: int64(c.size), ResponseBytes: int64(e.response), Notes: c.notes.All(),
	}
	describe(&r, e.err)
	if c.hidden != nil {
		r.Message = c.hidden.Error() // records are the operator's
	}
	c.method.records.Add(k, r)
}

// describe notes an error.
func describe(r *tracing.Record, e *rpc.Error) {
	if e != nil {
		r.Code, r.Reason, r.Message = e.Code.String(), e.Reason.String(), e.Message
	}
}

// Describe notes what went wrong with work that is no call.
func Describe(r *tracing.Record, err error) {
	if err == nil {
		return
	}
	r.Message = err.Error()
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		r.Code, r.Reason = e.Code.String(), e.Reason.String()
		if err == error(e) { //nolint:errorlint // not wrapped: the code is not said twice
			r.Message = e.Message
		}
	}
}

// ClassOf tells how work has ended that is no call.
func ClassOf(err error) callgraph.Class {
	if err == nil {
		return callgraph.OK
	}
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		e = &rpc.Error{Code: rpc.CodeOf(err)}
		switch e.Code {
		case rpc.DeadlineExceeded:
			e.Reason = rpc.ReasonDeadline
		case rpc.Canceled:
			e.Reason = rpc.ReasonCanceled
		}
	}
	return serverClasses[metrics.ServerResultOf(e, true)]
}

// Value implements context.Context. What the framework does not know may be that of
// the current span, which the user's own spans join.
func (c *ServerCall) Value(key any) any {
	if c.opened && key == rpc.StreamKey {
		return rpc.MessageStream(c.origin.(*opened).stream)
	}
	v := c.callContext.Value(key)
	switch {
	case v != nil:
		return v
	case key == rpc.DrainKey:
		return c.method.draining
	case c.method.observer == nil:
		return nil
	}
	h := &c.call.Header
	id := tracing.Identity{Trace: h.Trace, Span: h.Span, Sampled: h.Flags&rpc.FlagSampled != 0}
	return c.method.observer.Tracer.ContextValue(key, id, &c.notes)
}

// traced gives a call its place in a trace, and keeps what is worth it: a record for
// each attempt, since that is what the server sees.
func traced(o *Observer) func(clientFunc) clientFunc {
	return func(next clientFunc) clientFunc {
		if o == nil {
			return next
		}
		return func(ctx context.Context, c *ClientCall) error {
			c.join(ctx, o.Tracer)
			err := next(ctx, c)
			switch {
			case c.attempts == 0:
				e := errorOf(err)
				c.attemptBegan, c.Header.Span = c.began, tracing.NewSpanID()
				c.keep(classOf(e, false, c.Answered), e, c.took)
			case err == nil:
				c.keep(callgraph.OK, nil, c.took-c.attemptBegan.Sub(c.began))
			}
			return err
		}
	}
}

// join finds the parent of the call: the span of the request being worked on, or one
// that the user has begun below it. A call outside of any is an entry itself.
func (c *ClientCall) join(ctx context.Context, t *tracing.Tracer) {
	h := &c.Header
	if c.in != nil {
		c.parent = c.in.Span
		if h.Flags&rpc.FlagSampled != 0 {
			c.parent = t.Parent(ctx, tracing.Identity{Trace: h.Trace, Span: c.in.Span, Sampled: true}).Span
		}
		return
	}
	users := t.Parent(ctx, tracing.Identity{})
	sampled := users.Sampled
	if users.Trace.IsZero() {
		sampled = c.known.sampler.Sample(c.began, false)
	} else {
		h.Trace, c.parent = users.Trace, users.Span
	}
	if sampled {
		h.Flags |= rpc.FlagSampled
	}
}

// Attempt gives the next attempt its span, and notes whom it goes to. The transport
// calls it before each, and Attempted after each that went out.
func (c *ClientCall) Attempt(peer string) {
	c.peer, c.Header.Span = peer, tracing.NewSpanID()
	if c.rival != nil {
		c.rival.at(peer)
	}
	if c.attemptBegan = c.began; c.attempts > 0 {
		c.attemptBegan = time.Now()
	}
}

// keep makes a record of an attempt that is worth one.
func (c *ClientCall) keep(class callgraph.Class, e *rpc.Error, took time.Duration) {
	h := &c.Header
	ended := tracing.Ended{
		Class: uint8(class), Sampled: h.Flags&rpc.FlagSampled != 0,
		Took: took, At: c.attemptBegan.Add(took), Span: h.Span, Below: c.Below,
	}
	if k := c.known.records.Keep(&ended); k != 0 {
		if c.in != nil {
			c.in.Progress().Keep()
		}
		c.record(k, class, e, took)
	}
}

//go:noinline
func (c *ClientCall) record(k tracing.Keep, class callgraph.Class, e *rpc.Error, took time.Duration) {
	h := &c.Header
	r := tracing.Record{
		Trace: h.Trace, Span: h.Span, Parent: c.parent,
		Entry: h.Entry, Caller: c.Caller, Peer: c.peer,
		Start: c.attemptBegan.UnixNano(), Duration: took, Class: class.String(), Attempt: c.attempts,
		RequestBytes: int64(c.RequestBytes), ResponseBytes: int64(c.ResponseBytes),
	}
	describe(&r, e)
	c.known.records.Add(k, r)
}
