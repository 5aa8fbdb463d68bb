// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// A Callee is a service that this process calls, as the gate knows it.
type Callee struct {
	// Refuses says whether a fresh task of priority p would be refused there, as far as
	// one replica of it, drawn at random, has told; if so it is counted as held back
	// there. m is the method that the task was about to call first, wherever that is.
	Refuses func(p qos.Priority) bool

	number uint8 // among the gate's, from 1; 0 is not known to it
}

const (
	maxCallees = 63    // bits of a task's set, less the one of those beyond
	maxHabits  = 4_096 // entries and methods whose habits are remembered
	// usualShare of 1/2: a service that fewer of the tasks call is not worth refusing
	// one for.
	usualShare = 2
	learnTasks = 16    // with fewer nothing is known; after as many it is thought over
	forgetAt   = 1_024 // tasks after which all counts are halved: habits change
)

// The gate tests a task before anything is done for it against every service that tasks
// of its kind are known to call: work that a later service will refuse is not begun
// (measured with two services in a row: .20 to .33 of the work wasted without, .06
// with). A kind is an entry, tested before its first call, or a method being served,
// tested when a call of it arrives. An entry that lets its requests wait asks before, by
// EntryRefused.
type gate struct {
	mu      sync.Mutex
	callees [maxCallees + 1]atomic.Pointer[Callee]
	habits  sync.Map // kind to *habit
	kinds   atomic.Int64
}

var processGate gate

type kind struct {
	entry  tracing.Entry
	method *rpc.Method // nil at an entry
}

// A habit is what tasks of one kind call.
type habit struct {
	tasks atomic.Uint32 // whose first call has not been refused
	calls [maxCallees + 1]atomic.Uint32
	usual atomic.Uint64 // bit i: callee i is called by more than the usual share
}

// Join makes a callee known to the gate, until leave. Of more than the gate can hold
// the latest are not tested.
func (c *Callee) Join() (leave func()) {
	g := &processGate
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := 1; i <= maxCallees; i++ {
		if g.callees[i].Load() == nil {
			c.number = uint8(i)
			g.callees[i].Store(c)
			return func() { g.callees[c.number].Store(nil) }
		}
	}
	return func() {}
}

func gated(callee *Callee) func(clientFunc) clientFunc {
	return func(next clientFunc) clientFunc {
		if callee == nil {
			return next
		}
		return func(ctx context.Context, c *ClientCall) error {
			in := rpc.CallFrom(ctx)
			if in == nil {
				return next(ctx, c)
			}
			first, firstOfAll := in.Progress().Call(callee.number)
			if !first {
				return next(ctx, c)
			}
			return processGate.pass(ctx, c, in, callee.number, firstOfAll, next)
		}
	}
}

// pass lets a task make its first call to a service.
func (g *gate) pass(ctx context.Context, c *ClientCall, in *rpc.Call, number uint8, firstOfAll bool, next clientFunc) error {
	h := g.habitOf(kind{entry: in.Entry, method: in.Method})
	if h == nil {
		return next(ctx, c)
	}
	if !firstOfAll {
		h.calls[number].Add(1)
		return next(ctx, c)
	}
	tested := in.Method != nil && in.Peer != localPeer || in.Progress().Gated() // at the door
	if !tested && c.Header.Ticket == 0 && g.refuses(h, number, qos.PriorityOf(c.Header.Class, c.Header.UserLevel)) {
		return admit.Overloaded
	}
	err := next(ctx, c)
	if err == nil { // a refused task says nothing of what it would have called later
		h.calls[number].Add(1)
		if n := h.tasks.Add(1); n%learnTasks == 0 {
			h.think(n)
		}
	}
	return err
}

// EntryRefused asks for a request at its entry, before it waits for anything, whether a
// service that such requests are known to call would refuse it.
func EntryRefused(in *rpc.Call) bool {
	in.Progress().Gate()
	g := &processGate
	return g.refuses(g.habitOf(kind{entry: in.Entry}), 0, qos.PriorityOf(in.Class, in.UserLevel))
}

// refuses asks the services that the task is known to call, but the one of that number.
func (g *gate) refuses(h *habit, number uint8, p qos.Priority) bool {
	if h == nil {
		return false
	}
	for usual := h.usual.Load() &^ (1 << number); usual != 0; usual &= usual - 1 {
		if callee := g.callees[bits.TrailingZeros64(usual)].Load(); callee != nil && callee.Refuses(p) {
			return true
		}
	}
	return false
}

func (g *gate) habitOf(k kind) *habit {
	if k.method != nil {
		k.entry = 0 // what a method calls is its own affair
	}
	if h, ok := g.habits.Load(k); ok {
		return h.(*habit)
	}
	if g.kinds.Add(1) > maxHabits {
		g.kinds.Add(-1)
		return nil
	}
	h, loaded := g.habits.LoadOrStore(k, new(habit))
	if loaded {
		g.kinds.Add(-1)
	}
	return h.(*habit)
}

// think finds which callees are usual, and now and then forgets half of what was
// learnt. Counts that come at the same time may be lost: they are shares of many.
func (h *habit) think(tasks uint32) {
	usual := uint64(0)
	for i := range h.calls {
		n := h.calls[i].Load()
		if n*usualShare > tasks {
			usual |= 1 << i
		}
		if tasks >= forgetAt {
			h.calls[i].Store(n / 2)
		}
	}
	h.usual.Store(usual)
	if tasks >= forgetAt {
		h.tasks.Store(tasks / 2)
	}
}
