// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"net"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
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
		c := &conn{Conn: grpcwire.Conn{Conn: raw, Items: &l.server.items.Traffic, Since: time.Now()}, listener: l}
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
			Since: c.Since, Received: c.Received.Load(), Sent: c.Sent.Load(), Level: level,
		})
	}
	return all
}

// conn is one connection.
type conn struct {
	grpcwire.Conn
	listener *listener

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

// Close implements net.Conn. It may be called more than once.
func (c *conn) Close() error {
	c.noEnd()
	l := c.listener
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	return c.Conn.Close()
}
