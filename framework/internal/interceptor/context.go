// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// callContext is the context of a call being served. Deadline and Err are
// computed; a timer and a channel are made only for a handler that asks for Done,
// since context.WithDeadline for every call would cost more than the rest of the
// chain together.
type callContext struct {
	call inflight.Call   // first, see there
	conn context.Context // ends with the connection, or with the local caller

	mu       sync.Mutex
	inner    context.Context    // made by the first Done; guarded by mu
	cancel   context.CancelFunc // of inner; guarded by mu
	finished bool               // the handler has returned; guarded by mu
}

var _ context.Context = (*callContext)(nil)

// Deadline implements context.Context. Every call has one.
func (c *callContext) Deadline() (time.Time, bool) { return c.call.Deadline, true }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithDeadline(c.conn, c.call.Deadline)
		if c.finished {
			c.cancel()
		}
	}
	return c.inner.Done()
}

// Err implements context.Context. Once Done has been asked for, the two agree at
// every moment, as the contract of Context demands.
func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.finished:
		return context.Canceled
	case !time.Now().Before(c.call.Deadline):
		return context.DeadlineExceeded
	}
	return c.conn.Err()
}

// Value implements context.Context. It passes other keys to the inner context so
// that package context finds its own there and starts no goroutine for a child.
func (c *callContext) Value(key any) any {
	if key == rpc.CallKey {
		return &c.call.Call
	}
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner == nil {
		return nil
	}
	return inner.Value(key)
}

// finish releases what Done made. What outlives the handler sees Canceled.
func (c *callContext) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	if c.cancel != nil {
		c.cancel()
	}
}

// cancelOnly lets a caller's cancellation through and none of its values: a local
// call sees what a remote one would.
type cancelOnly struct{ context.Context }

func (cancelOnly) Value(any) any { return nil }

// AfterFunc is looked for by package context; with it a child of this context
// costs no goroutine.
func (c cancelOnly) AfterFunc(f func()) func() bool { return context.AfterFunc(c.Context, f) }
