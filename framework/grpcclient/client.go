// SPDX-License-Identifier: Apache-2.0

// Package grpcclient lets a connection of package framework speak gRPC, to servers of
// whatever making, and carry streams, which no other connection does.
//
//	conn, err := framework.Dial(cfg, framework.WithClientTransport(grpcclient.New(grpcclient.Config{})))
//
// Everything else is as over the framework's own wire, since it is the same code:
// settings, discovery, choice of the instance, circuit breakers, ejection, retries and
// hedges, fallbacks, items, call graph. Calls are traced and bounded as all others are; the
// trace goes along as a W3C traceparent, the deadline as gRPC has it.
//
// A status becomes an *rpc.Error with the same code, message and typed details. What a
// server of this framework says in its google.rpc.ErrorInfo is believed: who has made the
// error, and whether the method has run; so is a google.rpc.RetryInfo of anybody. A gRPC
// listener is an entry that gives calls a priority of its own: what a server says that it
// lets in makes others be called in its stead, and keeps no call back.
package grpcclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// Config is what only gRPC needs beside framework.ClientConfig, of which read_timeout
// means nothing here. The zero value of a field means its default.
type Config struct {
	// TLS is what connections speak to a server whose certificate names hosts, as public
	// ones do. Servers of the own trust domain are called by framework.ClientConfig.TLS.
	TLS *tls.Config
	// Keepalive is after how long without a sign of life a server is asked for one, 10 s
	// or more; it has a third of that to answer. Default 30 s.
	Keepalive time.Duration `config:"keepalive" doc:"after how long without a sign of life a server is asked for one"`
}

// DefaultConfig gives the settings of a client that was given none.
func DefaultConfig() Config {
	c, _ := Config{}.withDefaults() // is right
	return c
}

func (c Config) withDefaults() (Config, error) {
	if c.Keepalive == 0 {
		c.Keepalive = 30 * time.Second
	}
	if c.Keepalive < 10*time.Second || c.Keepalive > time.Hour { // grpc-go takes no less
		return c, fmt.Errorf("grpcclient.Config: Keepalive is %v: it must be 10s to 1h", c.Keepalive)
	}
	return c, nil
}

// Transport is what framework.WithClientTransport takes.
type Transport struct{ cfg Config }

var _ transport.Dialer = Transport{}

// New gives a transport. What is wrong with the configuration framework.Dial tells.
func New(cfg Config) Transport { return Transport{cfg} }

// Protocol implements transport.Dialer.
func (t Transport) Protocol() string { return "h2" }

// Dial implements transport.Dialer.
func (t Transport) Dial(cfg transport.ClientConfig) (transport.Client, error) {
	own, err := t.cfg.withDefaults()
	switch {
	case err != nil:
		return nil, err
	case own.TLS != nil && (cfg.TLS != nil || cfg.Plaintext):
		return nil, errors.New("grpcclient.Config: TLS is given beside that of framework.ClientConfig, or beside Plaintext: leave one out")
	}
	if cfg.Items == nil {
		cfg.Items = &metrics.ClientTransport{}
	}
	c := &client{own: own}
	c.cfg.Store(&cfg)
	c.ctx, c.stop = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Close
	c.Balancer = balance.New(balance.Config{
		Campus: cfg.Campus, Connect: c.connect, Behind: cfg.Behind, Breaks: cfg.Breaks, Entry: true,
	}, c.ctx.Done())
	c.leave = peers.Join(c)
	return c, nil
}

// client makes calls to the instances of one service.
type client struct {
	*balance.Balancer
	own Config
	cfg atomic.Pointer[transport.ClientConfig]

	ctx   context.Context // ends with the client
	stop  context.CancelFunc
	leave func() // what shows its connections

	mu   sync.Mutex
	shut bool           // guarded by mu
	done sync.WaitGroup // links, streams, and what Watch runs
}

var (
	_ transport.Client   = (*client)(nil)
	_ transport.Streamer = (*client)(nil)
)

// Change implements transport.Client.
func (c *client) Change(cfg transport.ClientConfig) {
	cfg.Items = c.cfg.Load().Items
	c.cfg.Store(&cfg)
	c.Rules(cfg.Campus, cfg.Breaks)
}

// Watch implements transport.Client.
func (c *client) Watch(watch func(context.Context)) { c.done.Go(func() { watch(c.ctx) }) }

// Close implements transport.Client.
func (c *client) Close() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.leave()
	c.stop()
	c.done.Wait()
}

// join counts a stream that begins, false if the client is closed.
func (c *client) join() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	c.done.Add(1)
	return true
}

// Connections implements peers.Source.
func (c *client) Connections(all []peers.Connection) []peers.Connection {
	for _, p := range c.Peers() {
		level, out := c.StateOf(p)
		for _, l := range p.Endpoint.(*instance).links {
			one := peers.Connection{Service: c.cfg.Load().Service, Peer: p.Addr, Level: level, Out: out}
			l.describe(&one)
			all = append(all, one)
		}
	}
	return all
}

// path gives a method as gRPC names it.
func path(m *rpc.Method) string { return "/" + m.FullName() }

// encode gives a message as it is sent.
func (c *client) encode(m *rpc.Method, msg proto.Message) (grpcwire.Payload, *rpc.Error) {
	size := proto.Size(msg)
	if longest := c.cfg.Load().MaxFrameBytes; size > longest {
		return nil, &rpc.Error{
			Code: rpc.ResourceExhausted, Reason: rpc.ReasonDecode, NotRun: true,
			Message: fmt.Sprintf("%s: a message of %d bytes is larger than MaxFrameBytes of %d; send less", m.FullName(), size, longest),
		}
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(make([]byte, 0, size), msg)
	if err != nil {
		return nil, &rpc.Error{Code: rpc.InvalidArgument, Reason: rpc.ReasonDecode, NotRun: true, Message: m.FullName() + ": the message could not be encoded: " + strings.ToValidUTF8(err.Error(), "?")}
	}
	return b, nil
}

// decode reads a message that came.
func decode(m *rpc.Method, p grpcwire.Payload, into proto.Message) *rpc.Error {
	if proto.Unmarshal(p, into) != nil {
		return &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonDecode, Message: m.FullName() + ": what the server has sent is not a valid " + string(into.ProtoReflect().Descriptor().FullName())}
	}
	return nil
}

// lets is what a server lets in that has said nothing of it.
const lets = qos.LastPriority

var errNotSent = errors.New("the connection was closed before the call was sent")

// picks is how often a call looks for an instance whose connection was closed, each time,
// before anything was sent on it.
const picks = 4

// lost says that there was no connection to send a call on.
func lost(call *interceptor.ClientCall, err error) error {
	return &rpc.Error{
		Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true,
		Message: fmt.Sprintf("%s: no connection to an instance of the service stays: %v", call.Method.FullName(), err),
	}
}
