// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/kitexrpc"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Conn makes calls to one service. It is safe for concurrent use.
type Conn struct {
	invoke rpc.Invoke
	send   interceptor.Transport
	close  func()
	once   sync.Once
}

var _ rpc.Invoker = (*Conn)(nil)

// Dial connects to a service in the background and returns at once; an error means
// that the configuration is wrong. A call waits for a connection being made, and
// fails with Unavailable when no instance can be reached.
func Dial(cfg ClientConfig, opts ...ClientOption) (*Conn, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	client := kitexrpc.Dial(kitexrpc.ClientConfig{
		Service: cfg.Service, Items: process.Items().ClientTransport(cfg.Service),
		Addrs: cfg.Addrs, Connections: cfg.Connections,
		MaxFrameBytes: cfg.MaxFrameBytes, ConnectTimeout: cfg.ConnectTimeout,
	})
	send := func(ctx context.Context, c *interceptor.ClientCall) error {
		c.Response = c.Method.NewResponse()
		return client.Call(ctx, c)
	}
	callee := &interceptor.Callee{Refuses: client.Refuses}
	leave := callee.Join()
	closeAll := func() {
		leave()
		client.Close()
	}
	list := interceptor.ClientConfig{Service: cfg.Service, Limit: cfg.Timeout, Callee: callee, Observer: interceptor.ProcessObserver()}
	return newConn(interceptor.Client(list, send), closeAll, opts), nil
}

// DialLocal gives a connection to a server of the same process: calls take the
// same interceptors and no socket. The handler sees a context made from the header
// alone, as it would from afar. It works before Run, and until the server drains.
func DialLocal(s *Server, opts ...ClientOption) *Conn {
	closeDoor := func() {}
	if s.admission != nil {
		s.admission.Door().Open()
		closeDoor = s.admission.Door().Close
	}
	list := interceptor.ClientConfig{Service: s.cfg.Service, Observer: interceptor.ProcessObserver()}
	return newConn(interceptor.Client(list, s.callLocally), closeDoor, opts)
}

func newConn(send interceptor.Transport, closeTransport func(), opts []ClientOption) *Conn {
	var o clientOptions
	for _, opt := range opts {
		opt(&o)
	}
	c := &Conn{send: send, close: closeTransport}
	c.invoke = c.direct
	for i := len(o.interceptors) - 1; i >= 0; i-- {
		c.invoke = o.interceptors[i](c.invoke)
	}
	return c
}

// Invoke makes one call and waits for its answer, at most for the earliest of the
// deadlines of ctx, contract and connection. Generated code calls it. The caller
// does not touch req until Invoke returns; the response belongs to the caller. An
// error is an *rpc.Error; its NotRun says that the method has certainly not run.
func (c *Conn) Invoke(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
	return c.invoke(ctx, m, req)
}

var callPool = sync.Pool{New: func() any { return new(interceptor.ClientCall) }}

func (c *Conn) direct(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
	call := callPool.Get().(*interceptor.ClientCall)
	call.Method, call.Request = m, req
	err := c.send(ctx, call)
	res := call.Response
	*call = interceptor.ClientCall{}
	callPool.Put(call)
	if err != nil {
		return nil, err
	}
	return res, nil
}

// Close closes the connections. Calls in flight fail with Unavailable. It may be
// called more than once.
func (c *Conn) Close() error {
	c.once.Do(c.close)
	return nil
}
