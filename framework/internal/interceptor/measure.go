// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// An Observer is where the calls of a process are counted: items for the methods, a
// graph for who calls whom. A nil Observer counts nothing. Every call of both sides
// is counted, once in each.
type Observer struct {
	Items *metrics.Registry
	Graph *callgraph.Recorder

	callers sync.Map // *rpc.Method to caller
}

// A caller is a method being served, as the graph knows it.
type caller struct {
	number callgraph.Method
	name   string
}

// caller gives the one who works on a request: the method that serves it, or its entry.
func (o *Observer) caller(in *rpc.Call) caller {
	if in == nil || in.Method == nil {
		return caller{number: callgraph.AtEntry}
	}
	if c, ok := o.callers.Load(in.Method); ok {
		return c.(caller)
	}
	name := in.Method.FullName()
	c := caller{number: o.Graph.Method(name), name: name}
	o.callers.Store(in.Method, c)
	return c
}

// serverMeter counts the calls of one method at its server.
type serverMeter struct {
	observer *Observer
	items    *metrics.ServerMethod
	edges    *callgraph.Edges
}

func (o *Observer) server(m *rpc.Method) *serverMeter {
	if o == nil {
		return nil
	}
	return &serverMeter{observer: o, items: o.Items.ServerMethod(m), edges: o.Graph.Edges(callgraph.Server, m.FullName())}
}

// begin counts a call that has come.
func (c *ServerCall) begin(from callgraph.Method, now time.Time) {
	m := c.method.meter
	if m == nil {
		return
	}
	c.began = now
	c.slot = m.edges.Slot(c.call.Entry, from)
	m.items.Started()
}

// End counts how the call has ended, and the bytes of its answer. It is called once.
func (c *ServerCall) End(err *rpc.Error, response int) {
	m := c.method.meter
	if m == nil {
		return
	}
	took := time.Since(c.began)
	result := metrics.ServerResultOf(err, c.ran)
	m.items.Ended(result, took, c.size, response)
	c.slot.Record(serverClasses[result], took, c.size, response)
}

var serverClasses = [metrics.ServerResults]callgraph.Class{
	metrics.ServerOK: callgraph.OK, metrics.ServerBizError: callgraph.BusinessError,
	metrics.ServerInternal: callgraph.Internal, metrics.ServerDependency: callgraph.Internal,
	metrics.ServerTimeout: callgraph.Timeout, metrics.ServerCanceled: callgraph.Canceled,
	metrics.ServerPanic: callgraph.Panic, metrics.ServerOverload: callgraph.Overloaded,
	metrics.ServerDraining: callgraph.Draining, metrics.ServerBadRequest: callgraph.BadRequest,
}

// clientMeter counts the calls of one method at one of its callers.
type clientMeter struct {
	items *metrics.ClientMethod
	edges *callgraph.Edges
}

// measured counts every call that is made, as its caller sees it.
func measured(o *Observer, service string) func(clientFunc) clientFunc {
	var meters sync.Map // *rpc.Method to *clientMeter
	meter := func(m *rpc.Method) *clientMeter {
		if c, ok := meters.Load(m); ok {
			return c.(*clientMeter)
		}
		name := m.FullName()
		o.Graph.NameEntry(name) // outside of any request the call is its own entry
		c, _ := meters.LoadOrStore(m, &clientMeter{items: o.Items.ClientMethod(service, m), edges: o.Graph.Edges(callgraph.Client, name)})
		return c.(*clientMeter)
	}
	return func(next clientFunc) clientFunc {
		if o == nil {
			return next
		}
		return func(ctx context.Context, c *ClientCall) error {
			m, from := meter(c.Method), o.caller(c.in)
			c.Caller = from.name
			c.slot = m.edges.Slot(c.Header.Entry, from.number)
			c.items = m.items
			m.items.Started()
			began := time.Now()
			err := next(ctx, c)
			took := time.Since(began)
			e := errorOf(err)
			result := metrics.ClientResultOf(e, c.attempts > 0)
			class := classOf(e, c.attempts > 0, c.Answered)
			if c.attempts == 0 {
				c.slot.Attempt(class)
			} else if c.attempts > 1 && err == nil {
				m.items.Saved()
			}
			m.items.Ended(result, took, c.RequestBytes, c.ResponseBytes)
			c.slot.Record(class, took, c.RequestBytes, c.ResponseBytes)
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
	if c.attempts > 1 {
		kind = metrics.RetryAttempt
	}
	c.items.Attempted(kind)
	c.slot.Attempt(classOf(errorOf(err), true, c.Answered))
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
	case rpc.ReasonUnknown, rpc.ReasonDecode:
		return callgraph.BadRequest
	case rpc.ReasonShuttingDown:
		return callgraph.Draining
	default:
		return callgraph.Internal
	}
}
