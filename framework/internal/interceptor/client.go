// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A ClientCall is one call being made. It lives on its caller's stack or in a
// pool: nothing keeps it after the call has returned.
type ClientCall struct {
	Method   *rpc.Method
	Header   rpc.Header
	Deadline time.Time
	Request  proto.Message
	Response proto.Message // set by the transport: decoded into, or handed over
	Level    qos.Priority  // what the server lets in, if it answered
	Backlog  uint8         // ms of work that wait there, if it answered
	Answered bool          // the server has said how the call ended
	Garbled  bool          // what it has said cannot be read
	Below    bool          // the server makes a record of it

	Caller                      string // full name of the method that makes the call; empty at an entry
	RequestBytes, ResponseBytes int    // of the messages as they were on the wire

	Key       uint64 // calls of the same key go to the same instance; 0 is none
	Avoid     string // the instance of the last attempt: the next goes to another one, if there is one
	Elsewhere bool   // and fails if there is none

	settle func(error) // tells a breaker how its one trial has ended; else nil
	rival  *race       // that another attempt may join, which wants to know where this one goes
	hedge  bool        // it is that other attempt
	saved  bool        // another attempt than the first was answered

	in       *rpc.Call // the request being worked on, nil outside of any
	known    *clientMethod
	attempts int             // that went out
	slot     *callgraph.Slot // nil if nothing is recorded
	parent   tracing.SpanID  // of the attempts' spans
	peer     string          // of the last attempt

	began, attemptBegan time.Time // the call, and its last attempt
	took                time.Duration
}

// A clientMethod is a method as those of this process know it that call it.
type clientMethod struct {
	entry   tracing.Entry // that of a call outside of any request
	records *tracing.Method
	sampler *tracing.Sampler
	items   *metrics.ClientMethod
	edges   *callgraph.Edges
}

func newClientMethod(cfg *ClientConfig, m *rpc.Method) *clientMethod {
	name := m.FullName()
	k := &clientMethod{entry: tracing.EntryOf(name)}
	if o := cfg.Observer; o != nil {
		o.Graph.NameEntry(name)
		o.contracts.Store(name, m)
		k.records, k.sampler = o.Tracer.Method(tracing.Client, name), o.Tracer.Sampler(name)
		k.items, k.edges = o.Items.ClientMethod(cfg.Service, m), o.Graph.Edges(callgraph.Client, name)
	}
	return k
}

// A Transport sends one attempt of a call and waits for its answer.
type Transport func(ctx context.Context, c *ClientCall) error

// clientFunc is one step of the client's list with all that comes after it.
type clientFunc func(ctx context.Context, c *ClientCall) error

// clientSteps is the client side of the framework, in this order. Picking an instance by
// its level, health and load, encoding and sending are the transport's: they know the
// connections.
func clientSteps(cfg *ClientConfig) []func(next clientFunc) clientFunc {
	return []func(next clientFunc) clientFunc{
		inherit(cfg),
		traced(cfg.Observer),
		measured(cfg.Observer),
		withDeadline(cfg.Limit),
		gated(cfg.Callee),
		retried(cfg.Budget),
		hedged(cfg.Budget, cfg.Hedges),
	}
}

// ClientConfig is what the client's list must know of a connection.
type ClientConfig struct {
	Service  string
	Limit    time.Duration // caps every call; zero means that only contract and context do
	Callee   *Callee       // the service at the other end; nil if it is in this process
	Observer *Observer     // nil records nothing
	Budget   *Budget       // for further attempts; nil makes none
	// Hedges says whether a second attempt of a method's call goes out beside a late one;
	// nil: none does.
	Hedges func(*rpc.Method) bool
}

// Client applies the client's list to a transport.
func Client(cfg ClientConfig, send Transport) Transport {
	f := clientFunc(send)
	steps := clientSteps(&cfg)
	for i := len(steps) - 1; i >= 0; i-- {
		f = steps[i](f)
	}
	return Transport(f)
}

// inherit takes entry, class, level, ticket and trace from the request being
// worked on. A call outside any request is an entry itself: it begins a trace and
// takes its class from the contract.
func inherit(cfg *ClientConfig) func(clientFunc) clientFunc {
	var methods sync.Map // *rpc.Method to *clientMethod
	known := func(m *rpc.Method) *clientMethod {
		if k, ok := methods.Load(m); ok {
			return k.(*clientMethod)
		}
		k, _ := methods.LoadOrStore(m, newClientMethod(cfg, m))
		return k.(*clientMethod)
	}
	return func(next clientFunc) clientFunc {
		return func(ctx context.Context, c *ClientCall) error {
			c.known, c.began = known(c.Method), time.Now()
			if in := rpc.CallFrom(ctx); in != nil {
				progress := in.Progress()
				c.in = in
				c.Header = in.Header
				c.Header.Budget = 0
				c.Header.Ticket = progress.Ticket(in.Ticket)
				err := next(ctx, c)
				if hasRun(err) {
					progress.Work()
				}
				return err
			}
			c.Header = rpc.Header{
				Class: c.Method.Class,
				// Nobody is behind the call that would care to be the same one next time.
				UserLevel: uint8(rand.UintN(qos.UserLevels)),
				Entry:     c.known.entry,
				Trace:     tracing.NewTraceID(),
			}
			return next(ctx, c)
		}
	}
}

// hasRun says whether the callee may have done something.
func hasRun(err error) bool {
	if err == nil {
		return true
	}
	e, ok := err.(*rpc.Error) //nolint:errorlint // a transport gives it as it is
	return ok && !e.NotRun && e.Reason == rpc.ReasonHandler
}

// withDeadline gives every call a deadline: the earliest of the context's, the
// contract's and the connection's. A call without time left is not sent.
func withDeadline(limit time.Duration) func(clientFunc) clientFunc {
	return func(next clientFunc) clientFunc {
		return func(ctx context.Context, c *ClientCall) error {
			budget := c.Method.CallTimeout()
			if limit > 0 && limit < budget {
				budget = limit
			}
			c.Deadline = c.began.Add(budget)
			if d, ok := ctx.Deadline(); ok && d.Before(c.Deadline) {
				c.Deadline = d
				budget = d.Sub(c.began)
			}
			if budget <= 0 {
				return &rpc.Error{
					Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: true,
					Message: c.Method.FullName() + ": the deadline passed before the call was sent",
				}
			}
			c.Header.Budget = budget
			return next(ctx, c)
		}
	}
}
