// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// rest is what sweeps know of a connection. It is guarded by Server.sweeping.
type rest struct {
	asked uint64    // calls and pings that had come by the last sweep
	since time.Time // nothing more has come
	told  time.Time // the client was asked to leave; zero if it was not
}

// Sweep asks the clients of connections to leave that have brought nothing for the idle
// timeout and are owed nothing, and closes those that stay. Serve sees to it that it is
// called now and then: one look at each connection costs calls nothing, a timer for each
// would.
func (s *Server) Sweep(now time.Time) {
	timeout := s.limits.Load().IdleTimeout
	if timeout <= 0 {
		return
	}
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.mu.Lock()
	conns := s.accepted()
	s.mu.Unlock()
	for _, c := range conns {
		c.sweep(now, timeout)
	}
}

// sweeps sweeps until stopped is closed.
func (s *Server) sweeps() {
	const never = 24 * time.Hour
	t := time.NewTimer(never)
	defer t.Stop()
	for {
		every := never
		if timeout := s.limits.Load().IdleTimeout; timeout > 0 {
			every = min(max(timeout/4, 10*time.Millisecond), time.Minute)
		}
		t.Reset(every)
		select {
		case now := <-t.C:
			s.Sweep(now)
		case <-s.relimited:
		case <-s.stopped:
			return
		}
	}
}

// sweep looks at one connection. A call may be on its way at any moment, so a client is
// asked first, and served while it has not left; ours leaves at once, and loses nothing.
// Only who has never spoken, and a stock client of kitex, which does not understand the
// question, is not asked.
func (c *serverConn) sweep(now time.Time, timeout time.Duration) {
	if !c.open.Load() {
		return // a handshake has limits of its own
	}
	c.mu.Lock()
	answered := uint64(c.frames - c.resets + c.unanswered)
	unsent := c.flushing || len(c.buf) > 0
	c.mu.Unlock()
	asked := c.calls.n.Load() + c.pings.n.Load() // looked at last: what comes meanwhile is owed
	switch r := &c.rest; {
	case asked != r.asked, asked != answered, unsent:
		*r = rest{asked: asked, since: now}
	case now.Sub(r.since) < timeout:
	case r.told.IsZero() && asked > 0 && !c.stock.Load():
		r.told = now
		c.ending.because(metrics.ClosedIdle)
		c.sayReset()
	case r.told.IsZero(), now.Sub(r.told) > retiresWithin:
		c.ending.because(metrics.ClosedIdle)
		c.sayGoodbye()
		_ = c.conn.Close()
	}
}

// hurry gives a peer the read timeout to send the rest of a frame that nobody wants, since
// the reading goroutine does not wait for it.
func (c *serverConn) hurry() {
	within := c.server.limits.Load().ReadTimeout
	switch {
	case c.left == 0 || c.hurried:
		return
	case c.overlong == nil:
		c.overlong = time.AfterFunc(within, func() {
			c.ending.because(metrics.ClosedSlow)
			_ = c.conn.Close()
		})
	default:
		c.overlong.Reset(within)
	}
	c.hurried = true
}
