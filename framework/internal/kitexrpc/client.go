// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// ClientConfig is what the transport of a client needs.
type ClientConfig struct {
	Addrs          []string
	Connections    int // to each address
	MaxFrameBytes  int
	ConnectTimeout time.Duration
}

// Client makes calls to the instances of one service.
type Client struct {
	cfg   ClientConfig
	peers []*peer

	stop context.CancelFunc
	done sync.WaitGroup
}

// Dial starts connecting to every address and returns at once.
func Dial(cfg ClientConfig) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{cfg: cfg, stop: cancel}
	for _, addr := range cfg.Addrs {
		p := &peer{addr: addr}
		for range cfg.Connections {
			l := &link{addr: addr, cfg: &c.cfg, attempt: make(chan struct{})}
			p.links = append(p.links, l)
			c.done.Go(func() { l.run(ctx) })
		}
		c.peers = append(c.peers, p)
	}
	return c
}

// Close closes all connections. Calls in flight fail with Unavailable.
func (c *Client) Close() {
	c.stop()
	c.done.Wait()
}

// Call sends one attempt of a call and waits for its answer. A connection that was
// closed before anything was sent on it costs the call nothing but another pick.
func (c *Client) Call(ctx context.Context, call *interceptor.ClientCall) error {
	for {
		conn, err := c.pick(ctx, call)
		if err != nil {
			return err
		}
		if err = conn.call(ctx, call); !errors.Is(err, errNotSent) {
			return err
		}
		conn.stopUsing()
	}
}

// peer is one instance.
type peer struct {
	addr  string
	links []*link
	next  atomic.Uint32
}

// conn gives a connection that is up, nil if none is.
func (p *peer) conn() *clientConn {
	start := int(p.next.Add(1))
	for i := range p.links {
		if c := p.links[(start+i)%len(p.links)].conn.Load(); c != nil {
			return c
		}
	}
	return nil
}

// pick gives a connection to the less loaded of two instances drawn by chance
// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
// While connections are being made it waits for them, at most for the deadline;
// when every attempt has failed it gives up at once.
func (c *Client) pick(ctx context.Context, call *interceptor.ClientCall) (*clientConn, error) {
	n := len(c.peers)
	if n == 1 {
		if conn := c.peers[0].conn(); conn != nil {
			return conn, nil
		}
		return c.pickSlowly(ctx, call)
	}
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	a, b := c.peers[i].conn(), c.peers[j].conn()
	switch {
	case a != nil && (b == nil || a.inFlight.Load() <= b.inFlight.Load()):
		return a, nil
	case b != nil:
		return b, nil
	}
	return c.pickSlowly(ctx, call)
}

func (c *Client) pickSlowly(ctx context.Context, call *interceptor.ClientCall) (*clientConn, error) {
	for {
		var pending <-chan struct{}
		var lastErr error
		for _, p := range c.peers {
			if conn := p.conn(); conn != nil {
				return conn, nil
			}
			for _, l := range p.links {
				wait, err := l.state()
				if err == nil {
					pending = wait
				} else {
					lastErr = err
				}
			}
		}
		if pending == nil {
			return nil, &rpc.Error{
				Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true,
				Message: fmt.Sprintf("%s: no instance of the service can be reached: %v", call.Method.FullName(), lastErr),
			}
		}
		if err := waitFor(ctx, pending, call); err != nil {
			return nil, err
		}
	}
}

func waitFor(ctx context.Context, ready <-chan struct{}, call *interceptor.ClientCall) error {
	t := time.NewTimer(time.Until(call.Deadline))
	defer t.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return contextError(ctx, call, true)
	case <-t.C:
		return deadlineError(call, "waiting for a connection", true)
	}
}
