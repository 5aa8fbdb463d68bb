// SPDX-License-Identifier: Apache-2.0

package grpcclient

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// attempt is what grpc-go tells of one.
type attempt struct {
	sent     atomic.Bool // its head was written to a connection
	answered atomic.Bool // the server has said how it ended
}

type attemptKey struct{}

// sizes hears what grpc-go does with calls.
type sizes struct{}

// TagRPC implements stats.Handler.
func (sizes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (sizes) HandleRPC(ctx context.Context, s stats.RPCStats) {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	if a == nil {
		return
	}
	switch s.(type) {
	case *stats.OutHeader:
		a.sent.Store(true)
	case *stats.InTrailer:
		a.answered.Store(true)
	}
}

// TagConn implements stats.Handler.
func (sizes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (sizes) HandleConn(context.Context, stats.ConnStats) {}

// begin gives the context of an attempt: with its deadline, its trace, and a place for
// what becomes of it.
func begin(ctx context.Context, call *interceptor.ClientCall) (context.Context, context.CancelFunc, *attempt) {
	a := &attempt{}
	ctx, cancel := context.WithDeadline(ctx, call.Deadline)
	ctx = context.WithValue(ctx, attemptKey{}, a)
	if !call.Header.Trace.IsZero() {
		ctx = metadata.AppendToOutgoingContext(ctx, grpcwire.TraceKey, grpcwire.Traceparent(&call.Header))
	}
	return ctx, cancel, a
}

// pick gives a connection to an instance. Returned and link.end must follow.
func (c *client) pick(ctx context.Context, call *interceptor.ClientCall) (*balance.Peer, *link, error) {
	for range picks {
		p, _, err := c.Pick(ctx, call)
		if err != nil {
			return nil, nil, err
		}
		call.Answered, call.Garbled, call.Below = false, false, false
		if l := p.Endpoint.(*instance).link(); l != nil {
			l.begin()
			call.Attempt(p.Addr)
			return p, l, nil
		}
		c.Returned(p, call, false, errNotSent) // lost a moment ago
	}
	return nil, nil, lost(call, errNotSent)
}

// Call implements transport.Client. A connection that was closed before anything was sent
// on it costs the call nothing but another pick.
func (c *client) Call(ctx context.Context, call *interceptor.ClientCall) error {
	req, refused := c.encode(call.Method, call.Request)
	if refused != nil {
		return refused
	}
	call.RequestBytes = len(req)
	for n := 1; ; n++ {
		p, l, err := c.pick(ctx, call)
		if err != nil {
			return err
		}
		e, sent := c.attempt(ctx, call, l, &req)
		l.end()
		if e == nil {
			c.Returned(p, call, true, nil)
			call.Attempted(nil)
			return nil
		}
		unsent := !sent && e.Reason == rpc.ReasonNoInstance
		c.Returned(p, call, !unsent, e)
		if unsent && n < picks {
			continue
		}
		call.Attempted(e)
		return e
	}
}

// attempt sends a call on a connection, and says whether it went out.
func (c *client) attempt(ctx context.Context, call *interceptor.ClientCall, l *link, req *grpcwire.Payload) (e *rpc.Error, sent bool) {
	out, cancel, a := begin(ctx, call)
	defer cancel()
	var res grpcwire.Payload
	var header, trailer metadata.MD
	longest := c.cfg.Load().MaxFrameBytes
	err := l.grpc.Invoke(out, path(call.Method), req, &res, grpc.Header(&header), grpc.Trailer(&trailer),
		grpc.MaxCallRecvMsgSize(longest), grpc.MaxCallSendMsgSize(longest))
	if a.answered.Load() {
		answerOf(ctx).set(header, trailer)
		call.Level, call.Backlog = grpcwire.LevelOf(trailer)
	}
	if e = c.ended(ctx, call, a, err); e == nil {
		call.ResponseBytes = len(res)
		if e = decode(call.Method, res, call.Response); e != nil {
			call.Garbled = true
		}
	}
	return e, a.sent.Load()
}

// ended gives how an attempt has ended, nil if well.
func (c *client) ended(ctx context.Context, call *interceptor.ClientCall, a *attempt, err error) *rpc.Error {
	call.Answered = a.answered.Load()
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	e := grpcwire.ErrorOf(st)
	if call.Answered {
		return e
	}
	e.NotRun = !a.sent.Load()
	switch e.Code {
	case rpc.Canceled:
		if c.ctx.Err() != nil || e.NotRun && ctx.Err() == nil { // by Close, or with its instance
			e.Code, e.Reason = rpc.Unavailable, rpc.ReasonNoInstance
			if !e.NotRun {
				e.Reason = rpc.ReasonNetwork
			}
			e.Message = balance.ErrClosed.Error()
		}
	case rpc.Unavailable:
		e.Reason = rpc.ReasonNetwork
		if e.NotRun {
			e.Reason = rpc.ReasonNoInstance
		}
	case rpc.Internal, rpc.Unknown:
		e.Reason = rpc.ReasonNetwork
	case rpc.ResourceExhausted: // a message beyond the limit
		e.Reason = rpc.ReasonDecode
	}
	return e
}
