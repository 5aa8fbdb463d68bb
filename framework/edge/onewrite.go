// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/qos"
)

// maxHeld is how much of an answer is held back; what is longer goes out in pieces.
const maxHeld = 16 << 10

// A conn sends an answer in one piece. net/http gives its connection 4 KiB at a time,
// which is not to be changed; a page of a few posts is a little longer, and the second
// piece costs a system call here and mostly another wake-up there.
//
// Between hold, when the answer's head is written, and its end what is written waits. It
// leaves with what the other side could be waiting for: a flush of the handler's, the end
// of the connection. A "100 Continue" comes before the head.
type conn struct {
	net.Conn
	server *Server
	since  time.Time

	requests, received, sent atomic.Uint64

	turn   turn
	remote string // address of the other side, once asked for

	mu      sync.Mutex
	holding bool
	held    *[]byte // nil while nothing waits
}

var heldBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxHeld); return &b }}

// hold lets what is written from now on wait. A nil conn lets nothing wait.
func (c *conn) hold() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.holding = true
	c.mu.Unlock()
}

// release sends what waits, and lets later writes through.
func (c *conn) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = false
	return c.send()
}

// flush sends what waits. What is written after it waits again.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send()
}

// send sends what waits. c.mu is held.
func (c *conn) send() error {
	if c.held == nil {
		return nil
	}
	n, err := c.Conn.Write(*c.held)
	c.sent.Add(uint64(n))
	*c.held = (*c.held)[:0]
	heldBuffers.Put(c.held)
	c.held = nil
	return err
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := 0
	if c.held != nil {
		waiting = len(*c.held)
	}
	if !c.holding || waiting+len(p) > maxHeld {
		if err := c.send(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Write(p)
		c.sent.Add(uint64(n))
		return n, err
	}
	if c.held == nil {
		c.held = heldBuffers.Get().(*[]byte)
	}
	*c.held = append(*c.held, p...)
	return len(p), nil
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		c.received.Add(uint64(n))
		if err != nil || !c.turn.begins(p[:n]) || !c.refuse(p[:n]) {
			return n, err
		}
		c.turn.next = true
	}
}

func (c *conn) Close() error {
	c.server.forget(c)
	_ = c.release() // whoever closes does not ask whether the other side has got everything
	return c.Conn.Close()
}

// CloseWrite is what net/http does before it closes, so that the answer arrives.
func (c *conn) CloseWrite() error {
	if err := c.release(); err != nil {
		return err
	}
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// wholeAnswers makes the connections of a listener.
type wholeAnswers struct {
	net.Listener
	server *Server
}

func (l wholeAnswers) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, server: l.server, since: time.Now(), turn: turn{next: true}}
	l.server.remember(c)
	return c, nil
}

func (s *Server) remember(c *conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// Connections implements peers.Source.
func (s *Server) Connections(all []peers.Connection) []peers.Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		all = append(all, peers.Connection{
			Accepted: true, HTTP: true, Service: s.cfg.Service, Local: c.LocalAddr().String(), Peer: c.RemoteAddr().String(), Since: c.since,
			Calls: c.requests.Load(), Received: c.received.Load(), Sent: c.sent.Load(), Level: qos.LastPriority,
		})
	}
	return all
}

type connKey struct{}

// connOf gives ours of a connection that net/http has, which may be TLS over it.
func connOf(nc net.Conn) *conn {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = over.NetConn()
	}
	c, _ := nc.(*conn)
	return c
}

func withConn(ctx context.Context, nc net.Conn) context.Context {
	if c := connOf(nc); c != nil {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// connState is told by net/http when an answer has been written.
func connState(nc net.Conn, state http.ConnState) {
	if state != http.StateIdle && state != http.StateHijacked {
		return
	}
	if c := connOf(nc); c != nil {
		if nc == net.Conn(c) { // over TLS nothing is refused here, and HTTP/2 reads meanwhile
			c.turn.next = state == http.StateIdle
		}
		_ = c.release() // the connection's next read tells
	}
}

// answerConn counts a request with its connection, and gives that if the answer can be
// held back in it until it is whole. It cannot with HTTP/2, which shares its connection
// with others.
func answerConn(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	if c == nil {
		return nil
	}
	c.requests.Add(1)
	if r.ProtoMajor != 1 {
		return nil
	}
	return c
}
