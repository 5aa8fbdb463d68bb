// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"sync/atomic"
)

// Call is the request being worked on: what its entry or its caller said of it.
// It is read-only.
type Call struct {
	Header
	Method *Method // the method being served; nil at an entry
	Peer   string  // address of the caller; "local" for a call within the process, empty for a job
	// Identity is who the caller is, as its certificate proves: a SPIFFE id. It is empty
	// without mutual TLS, and for a call within the process.
	Identity string

	progress Progress
}

// Progress is how far the work on the call has come. The framework keeps it.
func (c *Call) Progress() *Progress { return &c.progress }

// Progress is what the framework remembers of a request while it is worked on. It is
// safe for concurrent use; the zero value has begun nothing.
type Progress struct {
	admitted atomic.Bool
	gated    atomic.Bool
	kept     atomic.Bool
	worked   atomic.Uint32
	called   atomic.Uint64
}

// Admit notes that the request has been let in by this process: calls that it makes
// to services of the same process do not queue again.
func (p *Progress) Admit() { p.admitted.Store(true) }

// Admitted says whether Admit has been called.
func (p *Progress) Admitted() bool { return p.admitted.Load() }

// Gate notes that the services which such requests call have been asked whether they
// would refuse it.
func (p *Progress) Gate() { p.gated.Store(true) }

// Gated says whether Gate has been called.
func (p *Progress) Gated() bool { return p.gated.Load() }

// Keep notes that a record was made of a call that the request has made.
func (p *Progress) Keep() { p.kept.Store(true) }

// Kept says whether Keep has been called.
func (p *Progress) Kept() bool { return p.kept.Load() }

// Work notes that a callee has done something for the request.
func (p *Progress) Work() { p.worked.Add(1) }

// Ticket gives the ticket of the request's next call when it came with so many.
func (p *Progress) Ticket(came uint16) uint16 {
	return uint16(min(uint32(came)+p.worked.Load(), 1<<16-1))
}

// Call notes a call to one of 64 callees. It says whether it is the first to it, and
// the first of all.
func (p *Progress) Call(callee uint8) (first, firstOfAll bool) {
	before := p.called.Or(1 << (callee % 64))
	return before&(1<<(callee%64)) == 0, before == 0
}

type callKey struct{}

// CallKey is the key under which a context holds its *Call. The framework's own
// contexts answer it without a map or a chain of values; everyone else uses
// CallFrom and WithCall.
var CallKey any = callKey{}

// CallFrom gives the call that ctx belongs to, nil if it belongs to none.
func CallFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(CallKey).(*Call)
	return c
}

// WithCall gives a context whose outgoing calls carry c's header. An entry uses
// it: an HTTP request, a job, a record of a queue.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, CallKey, c)
}
