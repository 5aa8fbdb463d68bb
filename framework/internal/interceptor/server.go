// SPDX-License-Identifier: Apache-2.0

// Package interceptor holds what the framework does to every call, as one ordered
// list for each side. A transport brings calls and takes answers; it knows nothing
// of the list.
package interceptor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// A serverStep is one entry of the server's list. It may act when the call
// arrives, around the handler, or both.
type serverStep struct {
	name string
	// arrive runs on the connection's reading goroutine, before the call has a
	// goroutine of its own: it must not block. An error refuses the call.
	arrive func(*ServerCall) *rpc.Error
	// around wraps what comes after it in the call's own goroutine.
	around func(next serverFunc) serverFunc
}

type serverFunc func(*ServerCall) (proto.Message, error)

// serverSteps is the server side of the framework: what happens to a call, in this
// order. Tracing and measuring come after recover, admission after deadline.
func serverSteps(log *slog.Logger) []serverStep {
	return []serverStep{
		{name: "recover", around: recovered(log)},
		{name: "deadline", arrive: expired, around: checkDeadline},
		{name: "decode", arrive: decodeSmall, around: decodeRest},
	}
}

// A Method is a method with the list applied to its handler.
type Method struct {
	rpc     *rpc.Method
	arrive  []func(*ServerCall) *rpc.Error
	run     serverFunc
	handler rpc.Handler
	log     *slog.Logger
}

// NewMethod applies the server's list, then the user's interceptors, to a handler.
func NewMethod(m *rpc.Method, h rpc.Handler, user []rpc.ServerInterceptor, log *slog.Logger) *Method {
	for i := len(user) - 1; i >= 0; i-- {
		h = user[i](m, h)
	}
	method := &Method{rpc: m, handler: h, log: log}
	steps := serverSteps(log)
	run := callHandler
	for i := len(steps) - 1; i >= 0; i-- {
		if around := steps[i].around; around != nil {
			run = around(run)
		}
	}
	method.run = run
	for _, s := range steps {
		if s.arrive != nil {
			method.arrive = append(method.arrive, s.arrive)
		}
	}
	return method
}

// Contract gives the method's contract.
func (m *Method) Contract() *rpc.Method { return m.rpc }

// NewCall makes the call of one request that has just arrived. conn bounds the
// call's life and gives it no values. header is nil when the caller sent none.
// payload is only borrowed until Arrive has returned.
func (m *Method) NewCall(conn context.Context, peer string, header, payload []byte, now time.Time) *ServerCall {
	c := &ServerCall{method: m, payload: payload}
	c.conn = conn
	c.call.Method = m.rpc
	c.call.Peer = peer
	c.call.Header.Parse(header)
	c.deadline = now.Add(effectiveBudget(&c.call.Header, m.rpc))
	return c
}

// NewLocalCall makes the call of a caller in the same process. Cancellation
// crosses from ctx, its values do not.
func (m *Method) NewLocalCall(ctx context.Context, h *rpc.Header, req proto.Message, now time.Time) *ServerCall {
	c := &ServerCall{method: m, request: req}
	c.conn = cancelOnly{ctx}
	c.call.Method = m.rpc
	c.call.Peer = "local"
	c.call.Header = *h
	c.deadline = now.Add(effectiveBudget(h, m.rpc))
	return c
}

// effectiveBudget is the smaller of what the caller has left and what the
// contract allows.
func effectiveBudget(h *rpc.Header, m *rpc.Method) time.Duration {
	budget := m.CallTimeout()
	if h.Budget > 0 && h.Budget < budget {
		budget = h.Budget
	}
	return budget
}

// A ServerCall is one call being served. It is also the handler's context.
type ServerCall struct {
	callContext
	method  *Method
	payload []byte        // raw request; nil once decoded
	request proto.Message // nil until decoded
}

// Arrive decides on the reading goroutine whether the call goes on. After it has
// returned nil the call no longer needs the buffer that its payload came in.
func (c *ServerCall) Arrive() *rpc.Error {
	for _, f := range c.method.arrive {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

// Run serves the call and gives its response, or what the caller may see of the
// error. It is called once, in the call's own goroutine.
func (c *ServerCall) Run() (proto.Message, *rpc.Error) {
	res, err := c.method.run(c)
	c.finish()
	if err == nil {
		return res, nil
	}
	return nil, c.visible(err)
}

// Contract gives the contract of the called method.
func (c *ServerCall) Contract() *rpc.Method { return c.method.rpc }

// visible gives err as the caller may see it. A handler's own *rpc.Error goes out
// as it is; anything else becomes Internal, and its text goes to the log alone.
func (c *ServerCall) visible(err error) *rpc.Error {
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		if e.Code == 0 { // a handler's slip must not read as success
			e = &rpc.Error{Code: rpc.Unknown, Message: e.Message, Details: e.Details}
		}
		return e
	}
	switch code := rpc.CodeOf(err); code {
	case rpc.DeadlineExceeded:
		return &rpc.Error{Code: code, Reason: rpc.ReasonDeadline, Message: c.method.rpc.FullName() + ": the deadline passed while the call was served"}
	case rpc.Canceled:
		return &rpc.Error{Code: code, Reason: rpc.ReasonCanceled, Message: c.method.rpc.FullName() + ": the call was canceled while it was served"}
	}
	c.method.log.Error("handler returned an error that is no rpc.Error; the caller sees Internal",
		slog.String("method", c.method.rpc.FullName()), slog.Any("err", err), slog.String("trace", c.call.Trace.String()))
	return &rpc.Error{Code: rpc.Internal, Message: "internal error"}
}

func callHandler(c *ServerCall) (proto.Message, error) {
	res, err := c.method.handler(c, c.request)
	if err != nil {
		return nil, err
	}
	if res == nil || !res.ProtoReflect().IsValid() {
		return nil, fmt.Errorf("handler of %s returned neither a response nor an error", c.method.rpc.FullName())
	}
	return res, nil
}

// recovered turns a panic of anything after it into an Internal error that says
// nothing of the inside; the log says it all.
func recovered(log *slog.Logger) func(serverFunc) serverFunc {
	return func(next serverFunc) serverFunc {
		return func(c *ServerCall) (res proto.Message, err error) {
			defer func() {
				if r := recover(); r != nil {
					log.Error("handler panicked", slog.String("method", c.method.rpc.FullName()),
						slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
					res, err = nil, &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonPanic, Message: "internal error"}
				}
			}()
			return next(c)
		}
	}
}

// expired refuses a call whose time is up: nobody waits for its answer.
func expired(c *ServerCall) *rpc.Error {
	if time.Now().Before(c.deadline) {
		return nil
	}
	return &rpc.Error{
		Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: true,
		Message: c.method.rpc.FullName() + ": the deadline passed before the call was served",
	}
}

// checkDeadline looks once more when the call's goroutine at last runs: on a busy
// machine that may be long after it was made.
func checkDeadline(next serverFunc) serverFunc {
	return func(c *ServerCall) (proto.Message, error) {
		if err := expired(c); err != nil {
			return nil, err
		}
		return next(c)
	}
}

// smallPayload is the size in bytes up to which a request is decoded on the
// reading goroutine, straight from the read buffer. A larger one would hold up the
// connection's other calls: it is copied and decoded in its own goroutine.
const smallPayload = 8 << 10

func decodeSmall(c *ServerCall) *rpc.Error {
	if c.request != nil {
		return nil // a local call
	}
	if len(c.payload) > smallPayload {
		c.payload = append([]byte(nil), c.payload...)
		return nil
	}
	return c.decode()
}

func decodeRest(next serverFunc) serverFunc {
	return func(c *ServerCall) (proto.Message, error) {
		if c.request == nil {
			if err := c.decode(); err != nil {
				return nil, err
			}
		}
		return next(c)
	}
}

func (c *ServerCall) decode() *rpc.Error {
	req := c.method.rpc.NewRequest()
	if err := proto.Unmarshal(c.payload, req); err != nil {
		return &rpc.Error{
			Code: rpc.InvalidArgument, Reason: rpc.ReasonDecode, NotRun: true,
			Message: c.method.rpc.FullName() + ": the request is not a valid " + string(req.ProtoReflect().Descriptor().FullName()),
		}
	}
	c.request, c.payload = req, nil
	return nil
}
