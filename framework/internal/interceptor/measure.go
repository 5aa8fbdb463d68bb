// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// An ending is how a call being served has ended.
type ending struct {
	err      *rpc.Error
	result   metrics.ServerResult
	took     time.Duration
	response int // bytes
}

// begin counts a call that has come.
func begin(c *ServerCall, _ *admit.Batch) arrival {
	m := c.method
	c.call.Edge = m.edges.Slot(c.call.Entry, c.from)
	m.items.Started()
	return arrival{}
}

// TurnAway ends a call that was refused before the list had heard of it.
func (c *ServerCall) TurnAway(err *rpc.Error) {
	if c.method.observer != nil {
		identify(c, nil)
		begin(c, nil)
	}
	c.End(err, 0)
}

// End tells the steps of the list how the call has ended, and of how many bytes its
// answer was. It is called once.
func (c *ServerCall) End(err *rpc.Error, response int) {
	m := c.method
	if len(m.ended) == 0 {
		return
	}
	e := ending{err: err, result: metrics.ServerResultOf(err, c.ran), took: time.Since(c.call.Began), response: response}
	for _, f := range m.ended {
		f(c, e)
	}
}

// count counts a call that has ended.
func count(c *ServerCall, e ending) {
	c.method.items.Ended(e.result, e.took, c.size, e.response)
	c.call.Edge.Record(serverClasses[e.result], e.took, c.size, e.response)
}

var serverClasses = [metrics.ServerResults]callgraph.Class{
	metrics.ServerOK: callgraph.OK, metrics.ServerBizError: callgraph.BusinessError,
	metrics.ServerInternal: callgraph.Internal, metrics.ServerDependency: callgraph.Internal,
	metrics.ServerTimeout: callgraph.Timeout, metrics.ServerCanceled: callgraph.Canceled,
	metrics.ServerPanic: callgraph.Panic, metrics.ServerOverload: callgraph.Overloaded,
	metrics.ServerDraining: callgraph.Draining, metrics.ServerBadRequest: callgraph.BadRequest,
	metrics.ServerDenied: callgraph.BadRequest,
}

// measured counts every call that is made, as its caller sees it.
func measured(o *Observer) func(clientFunc) clientFunc {
	return func(next clientFunc) clientFunc {
		if o == nil {
			return next
		}
		return func(ctx context.Context, c *ClientCall) error {
			from, items := o.caller(c.in), c.known.items
			c.Caller = from.name
			c.slot = c.known.edges.Slot(c.Header.Entry, from.number)
			items.Started()
			err := next(ctx, c)
			c.took = time.Since(c.began)
			e := errorOf(err)
			result := metrics.ClientResultOf(e, c.attempts > 0)
			class := classOf(e, c.attempts > 0, c.Answered)
			if c.attempts == 0 {
				c.slot.Attempt(class)
			} else if c.saved && err == nil {
				items.Saved()
			}
			items.Ended(result, c.took, c.RequestBytes, c.ResponseBytes)
			c.slot.Record(class, c.took, c.RequestBytes, c.ResponseBytes)
			return err
		}
	}
}

// Attempted counts an attempt that went out, and how it ended.
func (c *ClientCall) Attempted(err error) {
	c.attempts++
	if c.slot == nil {
		return
	}
	kind := metrics.FirstAttempt
	switch {
	case c.hedge:
		kind = metrics.HedgeAttempt
	case c.attempts > 1:
		kind = metrics.RetryAttempt
	}
	e := errorOf(err)
	class := classOf(e, true, c.Answered)
	c.known.items.Attempted(kind)
	c.slot.Attempt(class)
	if e != nil {
		c.keep(class, e, time.Since(c.attemptBegan))
	}
}

// errorOf gives err as what every transport gives.
func errorOf(err error) *rpc.Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*rpc.Error); ok { //nolint:errorlint // a transport gives it as it is
		return e
	}
	return &rpc.Error{Code: rpc.CodeOf(err)}
}

// classOf tells how an attempt has ended so that both sides tell the same. sent says
// that it went out, answered that the server has said so itself.
func classOf(e *rpc.Error, sent, answered bool) callgraph.Class {
	if e == nil {
		return callgraph.OK
	}
	if answered && !e.NotRun { // the method's error, or that of a service it needs
		switch e.Reason {
		case rpc.ReasonDeadline:
			return callgraph.Timeout
		case rpc.ReasonCanceled:
			return callgraph.Canceled
		case rpc.ReasonPanic:
			return callgraph.Panic
		case rpc.ReasonHandler:
			if metrics.ServerResultOf(e, true) == metrics.ServerBizError {
				return callgraph.BusinessError
			}
		default:
		}
		return callgraph.Internal
	}
	switch e.Reason {
	case rpc.ReasonOverload:
		if answered {
			return callgraph.Overloaded
		}
		return callgraph.LocalRejected
	case rpc.ReasonDeadline, rpc.ReasonCanceled:
		switch {
		case !sent || !answered && e.NotRun:
			return callgraph.Unsent
		case e.Reason == rpc.ReasonCanceled:
			return callgraph.Canceled
		}
		return callgraph.Timeout
	case rpc.ReasonNoInstance:
		return callgraph.NoInstance
	case rpc.ReasonBreaker:
		return callgraph.CircuitOpen
	case rpc.ReasonNetwork:
		return callgraph.Network
	case rpc.ReasonUnknown, rpc.ReasonDecode, rpc.ReasonDenied:
		return callgraph.BadRequest
	case rpc.ReasonShuttingDown:
		return callgraph.Draining
	default:
		return callgraph.Internal
	}
}
