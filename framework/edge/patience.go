// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"sync"
	"time"
)

// patience is the context of a request with the deadline of its route. Deadline and Err
// are computed; a timer and a channel are made only for who asks for Done, which most
// handlers never do: their calls look at the deadline.
type patience struct {
	context.Context           // of the connection's request
	until           time.Time // zero: the request has no deadline of its own

	mu       sync.Mutex
	inner    context.Context    // made by the first Done; guarded by mu
	cancel   context.CancelFunc // of inner; guarded by mu
	finished bool               // the handler has returned; guarded by mu
}

// Deadline implements context.Context.
func (p *patience) Deadline() (time.Time, bool) {
	at, ok := p.Context.Deadline()
	if p.until.IsZero() || ok && at.Before(p.until) {
		return at, ok
	}
	return p.until, true
}

// Done implements context.Context.
func (p *patience) Done() <-chan struct{} {
	if p.until.IsZero() {
		return p.Context.Done()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inner == nil {
		p.inner, p.cancel = context.WithDeadline(p.Context, p.until)
		if p.finished {
			p.cancel()
		}
	}
	return p.inner.Done()
}

// Err implements context.Context. Once Done has been asked for, the two agree at every
// moment, as the contract of Context demands.
func (p *patience) Err() error {
	if p.until.IsZero() {
		return p.Context.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.inner != nil:
		return p.inner.Err()
	case p.finished:
		return context.Canceled
	case !time.Now().Before(p.until):
		return context.DeadlineExceeded
	}
	return p.Context.Err()
}

// Value implements context.Context. Keys go through the inner context, so that package
// context finds its own there and starts no goroutine for a child.
func (p *patience) Value(key any) any {
	p.mu.Lock()
	inner := p.inner
	p.mu.Unlock()
	if inner == nil {
		return p.Context.Value(key)
	}
	return inner.Value(key)
}

// finish releases what Done made. What outlives the handler sees Canceled.
func (p *patience) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
	if p.cancel != nil {
		p.cancel()
	}
}
