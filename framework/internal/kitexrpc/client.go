// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// ClientConfig is what the transport of a client needs.
type ClientConfig = transport.ClientConfig

// Client makes calls to the instances of one service.
type Client struct {
	*balance.Balancer
	cfg atomic.Pointer[ClientConfig]
	ctx context.Context // ends with the client

	stop  context.CancelFunc
	leave func() // what shows its connections
	done  sync.WaitGroup
}

// Dial gives a client that waits to be told its instances by Follow.
func Dial(cfg ClientConfig) *Client {
	if cfg.Items == nil {
		cfg.Items = &metrics.ClientTransport{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{ctx: ctx, stop: cancel}
	c.cfg.Store(&cfg)
	c.Balancer = balance.New(balance.Config{Campus: cfg.Campus, Connect: c.connect, Behind: cfg.Behind, Breaks: cfg.Breaks}, ctx.Done())
	c.leave = peers.Join(c)
	return c
}

// Change takes another configuration, of the same service and number of connections, and
// with TLS if there was TLS. Timeouts of connections count for those that are made from
// then on. A breaker that is open of a method that has one no more is passed by.
func (c *Client) Change(cfg ClientConfig) {
	cfg.Items = c.cfg.Load().Items
	c.cfg.Store(&cfg)
	c.Rules(cfg.Campus, cfg.Breaks)
}

// Watch has something call Follow until Close, which ends its context and waits for it.
func (c *Client) Watch(watch func(context.Context)) { c.done.Go(func() { watch(c.ctx) }) }

// Close closes all connections. Calls in flight fail with Unavailable.
func (c *Client) Close() {
	c.leave()
	c.stop()
	c.done.Wait()
}

// Call makes one attempt of a call and waits for its answer. A connection that was
// closed before anything was sent on it costs the call nothing but another pick.
func (c *Client) Call(ctx context.Context, call *interceptor.ClientCall) error {
	for {
		p, report, err := c.Pick(ctx, call)
		if err != nil {
			return err
		}
		call.Answered, call.Garbled, call.Below = false, false, false
		conn := p.Endpoint.(*instance).conn()
		if conn == nil { // lost a moment ago
			c.Returned(p, call, false, errNotSent)
			continue
		}
		call.Attempt(p.Addr)
		err = conn.call(ctx, call, report)
		if err == errNotSent { //nolint:errorlint // our own sentinel, never wrapped
			c.Returned(p, call, false, err)
			conn.stopUsing()
			continue
		}
		c.Returned(p, call, true, err)
		call.Attempted(err)
		return err
	}
}
