// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"cmp"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// A Connection is one connection of this process as pages show it, or, of a client, an
// attempt to have one.
type Connection struct {
	Accepted bool      // by a server; else made by a client
	Service  string    // that serves here, or that is called
	Local    string    // address on this side
	Peer     string    // address of the other end
	Since    time.Time // zero when there is no connection
	Calls    uint64    // that came or went, refused ones included
	Received uint64    // bytes
	Sent     uint64    // bytes
	Waiting  int       // calls of a client that wait for their answers
	Level    qos.Priority
	Foreign  bool  // the client does not send our header
	Err      error // why a client has no connection
}

// count is a number that one goroutine counts and others read: an addition that costs
// less than an atomic one.
type count struct{ n atomic.Uint64 }

func (c *count) add(n int) { c.n.Store(c.n.Load() + uint64(n)) }

// alive are the servers and clients of this process.
var alive struct {
	mu      sync.Mutex
	servers []*Server // guarded by mu
	clients []*Client // guarded by mu
}

// joinAlive shows a server or a client until leave.
func joinAlive[T comparable](list *[]T, one T) (leave func()) {
	alive.mu.Lock()
	defer alive.mu.Unlock()
	*list = append(*list, one)
	return func() {
		alive.mu.Lock()
		defer alive.mu.Unlock()
		*list = slices.DeleteFunc(*list, func(other T) bool { return other == one })
	}
}

// Connections gives all connections of this process, accepted ones first. Calls go on
// meanwhile: numbers are those of different moments.
func Connections() []Connection {
	alive.mu.Lock()
	servers, clients := slices.Clone(alive.servers), slices.Clone(alive.clients)
	alive.mu.Unlock()
	var all []Connection
	for _, s := range servers {
		all = s.connections(all)
	}
	for _, c := range clients {
		all = c.connections(all)
	}
	slices.SortStableFunc(all, func(a, b Connection) int {
		if a.Accepted != b.Accepted {
			return map[bool]int{true: -1, false: 1}[a.Accepted]
		}
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Peer, b.Peer), a.Since.Compare(b.Since))
	})
	return all
}

func (s *Server) connections(all []Connection) []Connection {
	level := qos.LastPriority
	if s.cfg.Level != nil {
		level = s.cfg.Level()
	}
	s.mu.Lock()
	conns := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		all = append(all, Connection{
			Accepted: true, Service: s.cfg.Service, Local: addressOf(c.conn.LocalAddr()), Peer: c.peer, Since: c.since,
			Calls: c.calls.n.Load(), Received: c.received.n.Load(), Sent: c.sentBytes(), Level: level, Foreign: c.stock.Load(),
		})
	}
	return all
}

func (c *Client) connections(all []Connection) []Connection {
	for _, p := range c.peers {
		c.mu.Lock()
		level := p.replica.Level(c.now())
		c.mu.Unlock()
		for _, l := range p.links {
			one := Connection{Service: c.cfg.Service, Peer: p.addr, Level: level}
			conn := l.conn.Load()
			if conn == nil {
				_, one.Err = l.state()
				all = append(all, one)
				continue
			}
			one.Local, one.Since = conn.local, conn.since
			one.Calls, one.Received, one.Sent = uint64(uint32(conn.seq.Load())), conn.received.n.Load(), conn.sentBytes()
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
