// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/kitexrpc"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Conn makes calls to one service. It is safe for concurrent use.
type Conn struct {
	invoke  rpc.Invoke
	send    atomic.Pointer[interceptor.Transport]
	streams atomic.Pointer[interceptor.Transport] // what carries none is nil, or points to nil
	dialed  *dialed                               // nil within the process
	close   func()
	once    sync.Once
	callee  string                                  // as items name it
	key     func(*rpc.Method, proto.Message) string // nil if calls have none
}

var (
	_ rpc.Invoker  = (*Conn)(nil)
	_ rpc.Streamer = (*Conn)(nil)
)

// Dial connects to a service in the background and returns at once; an error means
// that the configuration is wrong. A call waits for a connection being made, and
// fails with Unavailable when no instance can be reached.
func Dial(cfg ClientConfig, opts ...ClientOption) (*Conn, error) {
	o := clientOptionsOf(opts)
	cfg, err := cfg.withDefaults(o.source != nil)
	if err != nil {
		return nil, err
	}
	d := &dialed{now: cfg, discovered: o.source != nil, log: o.log.With(slog.String("callee", cfg.Service))}
	if cfg.TLS.on() {
		secured, err := cfg.TLS.open(d.log, cfg.TLS.Peers)
		if err != nil {
			return nil, fmt.Errorf("framework.ClientConfig: %w", err)
		}
		d.secured.Store(secured)
	}
	if o.dialer == nil {
		d.client = kitexrpc.Dial(d.transport(cfg))
	} else {
		d.protocol = o.dialer.Protocol()
		if d.client, err = o.dialer.Dial(d.transport(cfg)); err != nil {
			return nil, fmt.Errorf("framework: client %s: %w", cfg.Service, err)
		}
	}
	callee := &interceptor.Callee{Refuses: d.client.Refuses}
	d.list = interceptor.ClientConfig{Service: cfg.Service, Callee: callee, Observer: interceptor.ProcessObserver()}
	d.budget = new(interceptor.Budget)
	follow(cfg, &o, d.client)
	leave := callee.Join()
	c := newConn(cfg.Service, d.steps(cfg), func() {
		leave()
		d.close()
	}, o)
	c.dialed = d
	streams := d.stepsOfStreams(cfg)
	c.streams.Store(&streams)
	openConns.join(c)
	return c, nil
}

// follow tells a client its instances, until it is closed.
func follow(cfg ClientConfig, o *clientOptions, client transport.Client) {
	if o.source == nil {
		client.Follow(instancesAt(cfg.Addrs))
		return
	}
	log := o.log.With(slog.String("callee", cfg.Service))
	client.Watch(func(ctx context.Context) {
		err := o.source.Watch(ctx, cfg.Service, func(all []discovery.Instance) {
			checked, err := discovery.Check(all)
			if err != nil {
				log.Error("list of instances refused, the one before goes on", slog.Any("err", err))
				return
			}
			log.Info("instances", slog.Int("count", len(checked)))
			client.Follow(checked)
		})
		if err != nil {
			log.Error("instances are not followed any more", slog.Any("err", err))
		}
	})
}

// instancesAt gives the instances of a list of addresses.
func instancesAt(addrs []string) []discovery.Instance {
	instances := make([]discovery.Instance, 0, len(addrs))
	for _, addr := range slices.Compact(slices.Sorted(slices.Values(addrs))) {
		instances = append(instances, discovery.Instance{Addr: addr, Weight: discovery.DefaultWeight})
	}
	return instances
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
	return newConn(s.cfg.Service, interceptor.Client(list, s.callLocally), closeDoor, clientOptionsOf(opts))
}

func clientOptionsOf(opts []ClientOption) clientOptions {
	o := clientOptions{log: slog.Default()}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

func newConn(callee string, send interceptor.Transport, closeTransport func(), o clientOptions) *Conn {
	c := &Conn{close: closeTransport, callee: callee, key: o.key}
	c.send.Store(&send)
	c.invoke = c.direct
	if o.fallback != nil {
		c.invoke = o.fallback.around(c.invoke)
	}
	for i := len(o.interceptors) - 1; i >= 0; i-- {
		c.invoke = o.interceptors[i](c.invoke)
	}
	return c
}

// around puts the fallback behind calls.
func (f Fallback) around(next rpc.Invoke) rpc.Invoke {
	return func(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
		res, err := next(ctx, m, req)
		if err == nil {
			return res, nil
		}
		switch rpc.ReasonOf(err) {
		case rpc.ReasonHandler, rpc.ReasonPanic, rpc.ReasonUnknown, rpc.ReasonCanceled, rpc.ReasonDenied:
			return res, err
		default:
			return f(ctx, m, req, err)
		}
	}
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
	if c.key != nil {
		if key := c.key(m, req); key != "" {
			call.Key = balance.KeyOf(key)
		}
	}
	err := (*c.send.Load())(ctx, call)
	res := call.Response
	*call = interceptor.ClientCall{}
	callPool.Put(call)
	if err != nil {
		return nil, err
	}
	return res, nil
}

// OpenStream begins a call of a method that streams, on a connection that carries streams:
// one over gRPC, see WithClientTransport. Others give Unimplemented. Generated code calls
// it. The stream lasts no longer than ctx, the contract and the connection allow; it is
// never made again, and interceptors and fallbacks of the connection do not see it.
func (c *Conn) OpenStream(ctx context.Context, m *rpc.Method, req proto.Message) (rpc.ClientStream, error) {
	if !m.Streams() || m.ClientStreams != (req == nil) {
		return nil, rpc.Errorf(rpc.Internal, "%s: it has another kind of stream: generate its code anew", m.FullName())
	}
	list := c.streams.Load()
	if list == nil || *list == nil {
		return nil, m.NoStream()
	}
	return c.dialed.client.(transport.Streamer).OpenStream(ctx, m, req, c.streamItems(m), *list)
}

func (c *Conn) streamItems(m *rpc.Method) *metrics.Stream {
	if !m.Streams() || interceptor.ProcessObserver() == nil {
		return nil
	}
	return process.Items().ClientStream(c.callee, m)
}

// Expect makes the items of the methods of svc, which count its calls from now on.
// Generated code calls it.
func (c *Conn) Expect(svc *rpc.Service) {
	if interceptor.ProcessObserver() == nil {
		return
	}
	for _, m := range svc.Methods {
		process.Items().ClientMethod(c.callee, m)
		if c.streams.Load() != nil && *c.streams.Load() != nil {
			c.streamItems(m)
		}
	}
}

// Close closes the connections. Calls in flight fail with Unavailable. It may be
// called more than once.
func (c *Conn) Close() error {
	c.once.Do(func() {
		openConns.leave(c)
		c.close()
	})
	return nil
}
