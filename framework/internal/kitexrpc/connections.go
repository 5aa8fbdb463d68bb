// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"maps"
	"net"
	"slices"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/qos"
)

// count is a number that one goroutine counts and others read: an addition that costs
// less than an atomic one.
type count struct{ n atomic.Uint64 }

func (c *count) add(n int) { c.n.Store(c.n.Load() + uint64(n)) }

// accepted gives the connections that there are, for what is done with each without mu. It
// is called with mu held.
func (s *Server) accepted() []*serverConn {
	return slices.AppendSeq(make([]*serverConn, 0, len(s.conns)), maps.Keys(s.conns))
}

// Connections implements peers.Source.
func (s *Server) Connections(all []peers.Connection) []peers.Connection {
	level := qos.LastPriority
	if s.cfg.Level != nil {
		level = s.cfg.Level()
	}
	s.mu.Lock()
	conns := s.accepted()
	s.mu.Unlock()
	for _, c := range conns {
		all = append(all, peers.Connection{
			Accepted: true, Service: s.cfg.Service, Local: addressOf(c.conn.LocalAddr()), Peer: c.peer, Since: c.since,
			Calls: c.calls.n.Load(), Received: c.received.n.Load(), Sent: c.sentBytes(), Level: level, Foreign: c.stock.Load(),
		})
	}
	return all
}

// Connections implements peers.Source.
func (c *Client) Connections(all []peers.Connection) []peers.Connection {
	for _, p := range c.Peers() {
		level, out := c.StateOf(p)
		for _, l := range p.Endpoint.(*instance).links {
			one := peers.Connection{Service: c.cfg.Load().Service, Peer: p.Addr, Level: level, Out: out}
			conn := l.conn.Load()
			if conn == nil {
				_, one.Err = l.state()
				all = append(all, one)
				continue
			}
			one.Local, one.Since = conn.local, conn.since
			one.Calls, one.Received, one.Sent = uint64(uint32(conn.seq.Load())-conn.pings.Load()), conn.received.n.Load(), conn.sentBytes()
			for i := range conn.shards {
				s := &conn.shards[i]
				s.mu.Lock()
				one.Waiting += len(s.calls)
				s.mu.Unlock()
			}
			all = append(all, one)
		}
	}
	return all
}

func addressOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// sentBytes is how many bytes have been given to the socket.
func (w *writer) sentBytes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}
