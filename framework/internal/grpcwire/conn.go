// SPDX-License-Identifier: Apache-2.0

package grpcwire

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// A Conn counts what goes over a connection, and why it ends.
type Conn struct {
	net.Conn
	Items          *metrics.Traffic
	Since          time.Time
	Received, Sent atomic.Uint64 // bytes

	cause atomic.Uint32 // a metrics.CloseCause, once one side has ended it; plus one
	once  sync.Once
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.Received.Add(uint64(n))
	c.Items.Received.Add(uint64(n))
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
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.Sent.Add(uint64(n))
	c.Items.Sent.Add(uint64(n))
	c.Items.Flushes.Inc()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.because(metrics.ClosedOnError)
	}
	return n, err
}

func (c *Conn) because(cause metrics.CloseCause) { c.cause.CompareAndSwap(0, uint32(cause)+1) }

// Close implements net.Conn. It may be called more than once and is counted once.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.because(metrics.ClosedByUs)
		c.Items.Closed[c.cause.Load()-1].Inc()
	})
	return c.Conn.Close()
}
