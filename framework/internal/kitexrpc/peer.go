// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// instance is the connections to one instance.
type instance struct {
	links   []*link
	retired chan struct{} // closed when it is one of the service's instances no more
	next    atomic.Uint32
}

var _ balance.Endpoint = (*instance)(nil)

// connect starts connecting to an instance.
func (c *Client) connect(p *balance.Peer) balance.Endpoint {
	e := &instance{retired: make(chan struct{})}
	for range c.cfg.Load().Connections {
		l := &link{addr: p.Addr, cfg: &c.cfg, attempt: make(chan struct{}), retired: e.retired}
		e.links = append(e.links, l)
		c.done.Go(func() { l.run(c.ctx) })
	}
	c.done.Go(func() { c.watch(p, e) })
	return e
}

// conn gives a connection that is up, nil if none is.
func (e *instance) conn() *clientConn {
	start := int(e.next.Add(1))
	for i := range e.links {
		if c := e.links[(start+i)%len(e.links)].conn.Load(); c != nil {
			return c
		}
	}
	return nil
}

// Up implements balance.Endpoint.
func (e *instance) Up() bool {
	for _, l := range e.links {
		if l.conn.Load() != nil {
			return true
		}
	}
	return false
}

// Attempt implements balance.Endpoint.
func (e *instance) Attempt(first bool) (ended <-chan struct{}, failed error) {
	for _, l := range e.links {
		switch wait, err := l.state(); {
		case err != nil:
			failed = err
		case !first || !l.tried.Load():
			ended = wait
		}
	}
	return ended, failed
}

// Retire implements balance.Endpoint.
func (e *instance) Retire() { close(e.retired) }

// pingMethod asks whether there is somebody who speaks our language. Every server knows
// that it has no such method, and says so before anything else is done: also a stock one
// of kitex.
var pingMethod = &rpc.Method{Service: pingService, Name: pingName}

const (
	pingService = "sluice.Link"
	pingName    = "Ping"
)

const (
	// watchEvery is how often it is looked at whether an instance that owes answers has
	// sent anything, and the longest that a ping may then take.
	watchEvery = 500 * time.Millisecond
	// keepAlive is how long nothing may come over a connection that owes nothing before
	// it is asked whether its other end is still there.
	keepAlive = 10 * time.Second
	// silence is how long an instance may be silent before its connections are given up:
	// what lies between may have forgotten them.
	silence = 10 * time.Second
)

// watch finds out whether an instance is there: one that is stopped, or behind a line
// that is cut without notice, keeps its connections and answers nothing. Calls that
// people wait for do not have to find out.
func (c *Client) watch(p *balance.Peer, e *instance) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	received, heard := e.received(), time.Now()
	for {
		select {
		case <-t.C:
		case <-e.retired:
			return
		case <-c.ctx.Done():
			return
		}
		conn := e.conn()
		if conn == nil {
			heard = time.Now()
			continue
		}
		owes, silent := c.Owes(p)
		if n := e.received(); n != received {
			received, heard = n, time.Now()
			if !silent {
				continue
			}
		}
		if !owes && !silent && time.Since(heard) < keepAlive {
			continue
		}
		// An instance that has very much to send may take long to come to the ping: its
		// connections are given up only if nothing at all comes over them.
		if c.pinged(p, conn) {
			received, heard = e.received(), time.Now()
		} else if e.received() == received && time.Since(heard) > silence {
			e.giveUp()
		}
	}
}

// pinged asks an instance over one of its connections and notes what comes of it.
func (c *Client) pinged(p *balance.Peer, conn *clientConn) bool {
	level, err := conn.ping(c.ctx, watchEvery)
	if err != nil {
		if rpc.ReasonOf(err) == rpc.ReasonDeadline { // a connection that is lost is the link's affair
			c.Silent(p)
		}
		return false
	}
	c.Alive(p, level)
	return true
}

// ping waits for any answer at all, and gives the level that came with it.
func (c *clientConn) ping(ctx context.Context, within time.Duration) (qos.Priority, error) {
	call := interceptor.ClientCall{
		Method: pingMethod, Request: &emptypb.Empty{}, Response: &emptypb.Empty{},
		Deadline: time.Now().Add(within), Header: rpc.Header{Class: qos.Critical, Budget: within},
	}
	c.pings.Add(1)
	err := c.call(ctx, &call, admission.Report{})
	if call.Answered {
		return call.Level, nil
	}
	return qos.LastPriority, err
}

// received is how many bytes have come over the connections that are up.
func (e *instance) received() (n uint64) {
	for _, l := range e.links {
		if c := l.conn.Load(); c != nil {
			n += c.received.n.Load()
		}
	}
	return n
}

// giveUp closes the connections; the links make new ones.
func (e *instance) giveUp() {
	for _, l := range e.links {
		if c := l.conn.Load(); c != nil {
			_ = c.conn.Close()
		}
	}
}
