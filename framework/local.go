// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/race"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// callLocally is the transport of a connection within the process.
func (s *Server) callLocally(ctx context.Context, c *interceptor.ClientCall) error {
	m := s.byName[c.Method.Service][c.Method.Name]
	if m == nil {
		return &rpc.Error{Code: rpc.Unimplemented, Reason: rpc.ReasonUnknown, NotRun: true, Message: "unknown method " + c.Method.FullName()}
	}
	if !s.gate.enter() {
		return &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonShuttingDown, NotRun: true, Message: c.Method.FullName() + ": the server is shutting down"}
	}
	defer s.gate.leave()
	if ctx.Err() != nil { // the deadline is checked on arrival; this is the caller's giving up
		return &rpc.Error{Code: rpc.Canceled, Reason: rpc.ReasonCanceled, NotRun: true, Message: c.Method.FullName() + ": the caller gave up"}
	}
	if in := rpc.CallFrom(ctx); in == nil || !in.Progress().Admitted() {
		// The call is made from outside of any: by a job, or by a test.
		leave, refused := m.Enter(ctx, c.Deadline, &c.Header)
		if refused != nil {
			return refused
		}
		defer leave()
	}
	if s.opts.cloneLocal || race.Enabled {
		return callCloned(ctx, m, c)
	}
	return call(ctx, m, c, c.Request)
}

func call(ctx context.Context, m *interceptor.Method, c *interceptor.ClientCall, req proto.Message) error {
	c.Attempt("local")
	served := m.NewLocalCall(ctx, &c.Header, req, time.Now())
	if _, err := served.Arrive(nil); err != nil {
		c.Answered, c.Below = true, served.Kept()
		c.Attempted(err)
		return err
	}
	res, err := served.Run()
	served.End(err, 0)
	c.Answered, c.Below = true, served.Kept()
	c.Attempted(errorOrNil(err))
	if err != nil {
		return err
	}
	c.Response = res
	return nil
}

// errorOrNil keeps a nil pointer from becoming an error that is not nil.
func errorOrNil(err *rpc.Error) error {
	if err == nil {
		return nil
	}
	return err
}

// callCloned hands the handler a clone of the request and the caller a clone of the
// response, and fails the call if either side changed what was only lent.
func callCloned(ctx context.Context, m *interceptor.Method, c *interceptor.ClientCall) error {
	lent := proto.Clone(c.Request)
	err := call(ctx, m, c, lent)
	if !proto.Equal(lent, c.Request) {
		return &rpc.Error{
			Code: rpc.Internal, Reason: rpc.ReasonHandler,
			Message: c.Method.FullName() + ": the handler changed its request, or the caller did during the call; a request is only lent",
		}
	}
	if err == nil {
		c.Response = proto.Clone(c.Response)
	}
	return err
}

// gate lets local calls in until it is closed, and its close waits for those
// inside. The zero gate is open.
type gate struct {
	state atomic.Int64 // the calls inside, plus gateClosed
	empty chan struct{}
	once  sync.Once
}

const gateClosed = 1 << 62

func (g *gate) init() { g.once.Do(func() { g.empty = make(chan struct{}, 1) }) }

func (g *gate) enter() bool {
	if g.state.Add(1)&gateClosed == 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.state.Add(-1) == gateClosed {
		g.init()
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

// close waits for the calls inside, at most for the limit.
func (g *gate) close(limit time.Duration) {
	g.init()
	if g.state.Or(gateClosed) == 0 {
		return
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-g.empty:
	case <-t.C:
	}
}
