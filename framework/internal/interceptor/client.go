// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
)

// A ClientCall is one call being made. It lives on its caller's stack or in a
// pool: nothing keeps it after the call has returned.
type ClientCall struct {
	Method   *rpc.Method
	Header   rpc.Header
	Deadline time.Time
	Request  proto.Message
	Response proto.Message // set by the transport: decoded into, or handed over
	Level    uint16        // the server's level, if it answered
}

// A Transport sends one attempt of a call and waits for its answer.
type Transport func(ctx context.Context, c *ClientCall) error

// clientFunc is one step of the client's list with all that comes after it.
type clientFunc func(ctx context.Context, c *ClientCall) error

// clientSteps is the client side of the framework, in this order. Tracing and
// measuring come before deadline; gate, retry and hedge before pick. Picking an
// instance, encoding and sending are the transport's: they know the connections.
func clientSteps(limit time.Duration) []func(next clientFunc) clientFunc {
	return []func(next clientFunc) clientFunc{
		inherit,
		withDeadline(limit),
	}
}

// Client applies the client's list to a transport. limit caps every call of the
// connection; zero means that only contract and context do.
func Client(limit time.Duration, send Transport) Transport {
	f := clientFunc(send)
	steps := clientSteps(limit)
	for i := len(steps) - 1; i >= 0; i-- {
		f = steps[i](f)
	}
	return Transport(f)
}

// inherit takes entry, class, level, ticket and trace from the request being
// worked on. A call outside any request is an entry itself: it begins a trace and
// takes its class from the contract.
func inherit(next clientFunc) clientFunc {
	return func(ctx context.Context, c *ClientCall) error {
		if in := rpc.CallFrom(ctx); in != nil {
			c.Header = in.Header
			c.Header.Budget = 0
		} else {
			c.Header = rpc.Header{
				Class: c.Method.Class,
				Entry: tracing.EntryOf(c.Method.FullName()),
				Trace: tracing.NewTraceID(),
				Span:  tracing.NewSpanID(),
			}
		}
		return next(ctx, c)
	}
}

// withDeadline gives every call a deadline: the earliest of the context's, the
// contract's and the connection's. A call without time left is not sent.
func withDeadline(limit time.Duration) func(clientFunc) clientFunc {
	return func(next clientFunc) clientFunc {
		return func(ctx context.Context, c *ClientCall) error {
			now := time.Now()
			budget := c.Method.CallTimeout()
			if limit > 0 && limit < budget {
				budget = limit
			}
			c.Deadline = now.Add(budget)
			if d, ok := ctx.Deadline(); ok && d.Before(c.Deadline) {
				c.Deadline = d
				budget = d.Sub(now)
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
