// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// listener bounds the connections, counts what goes over them, and shows them.
type listener struct {
	net.Listener
	server *Server

	mu    sync.Mutex
	conns map[*conn]struct{} // open ones; guarded by mu
}

func newListener(l net.Listener, s *Server) *listener {
	return &listener{Listener: l, server: s, conns: map[*conn]struct{}{}}
}

// Accept implements net.Listener. What comes beyond the limit is closed at once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, listener: l, since: time.Now()}
		l.mu.Lock()
		full := int64(len(l.conns)) >= l.server.maxConnections.Load()
		if !full {
			l.conns[c] = struct{}{}
		}
		l.mu.Unlock()
		if full {
			l.server.items.Refused.Inc()
			_ = raw.Close()
			continue
		}
		l.server.items.Accepted.Inc()
		return c, nil
	}
}

// Connections implements peers.Source.
func (l *listener) Connections(all []peers.Connection) []peers.Connection {
	level := l.server.host.Level()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		all = append(all, peers.Connection{
			Accepted: true, Foreign: true, Service: l.server.host.Service, Local: c.LocalAddr().String(), Peer: c.RemoteAddr().String(),
			Since: c.since, Received: c.received.Load(), Sent: c.sent.Load(), Level: level,
		})
	}
	return all
}

// conn is one connection.
type conn struct {
	net.Conn
	listener       *listener
	since          time.Time
	received, sent atomic.Uint64 // bytes
	cause          atomic.Uint32 // a metrics.CloseCause, once one side has ended it; plus one
	once           sync.Once

	mu    sync.Mutex
	end   *time.Timer // closes it; guarded by mu
	ended bool        // guarded by mu
}

// endAt has the connection closed at a time.
func (c *conn) endAt(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.end = time.AfterFunc(time.Until(at), func() { _ = c.Close() })
	}
}

// noEnd says that the connection is closed.
func (c *conn) noEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended = true; c.end != nil {
		c.end.Stop()
	}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(uint64(n))
	c.listener.server.items.Received.Add(uint64(n))
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		c.because(metrics.ClosedByPeer)
	case !errors.Is(err, net.ErrClosed):
		c.because(metrics.ClosedOnError)
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(uint64(n))
	c.listener.server.items.Sent.Add(uint64(n))
	c.listener.server.items.Flushes.Inc()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.because(metrics.ClosedOnError)
	}
	return n, err
}

func (c *conn) because(cause metrics.CloseCause) { c.cause.CompareAndSwap(0, uint32(cause)+1) }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.noEnd()
		c.because(metrics.ClosedByUs)
		l := c.listener
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
		l.server.items.Closed[c.cause.Load()-1].Inc()
	})
	return c.Conn.Close()
}
