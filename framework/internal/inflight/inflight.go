// SPDX-License-Identifier: Apache-2.0

// Package inflight lists the requests that a process is working on, and shows on demand
// where the goroutine of one of them stands.
package inflight

import (
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A Call is a request being worked on: a call being served, or a request at an entry.
// Once it is in a Table it is read-only.
//
// It stands at the very beginning of what the one who works on it knows of it, and a
// method of that is on the stack meanwhile: by this address Stack finds the goroutine.
type Call struct {
	rpc.Call
	Route    string // at an entry; a method being served has its own name
	Began    time.Time
	Deadline time.Time       // zero for none
	Edge     *callgraph.Slot // who calls whom; nil if nobody counts it

	cell uint32 // of the table, from 1; 0 if the call is in none, or crowded
}

// Name gives the full name of the method being served, or the route at an entry.
func (c *Call) Name() string {
	if c.Method != nil {
		return c.Method.FullName()
	}
	return c.Route
}

// Caller gives the full name of the method that calls, empty at an entry.
func (c *Call) Caller() string {
	if c.Edge == nil {
		return ""
	}
	return c.Edge.Key().Caller
}

const (
	cells  = 4096 // requests that a Table lists
	probes = 8    // cells that are looked at for a free one

	crowded = ^uint32(0) // the cell of a call that found none
)

// A Table lists requests. The zero Table is empty. It is safe for concurrent use.
type Table struct {
	cells    [cells]atomic.Pointer[Call]
	unlisted atomic.Int64
}

// Add lists a request until Remove. When there is no room for it, it is only counted.
// It takes no lock and no allocation.
func (t *Table) Add(c *Call) {
	// Goroutines that run after each other on a processor use the same stacks, so that
	// short calls stay within a few cache lines.
	var here byte
	const golden = 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio
	start := uint32(uint64(uintptr(unsafe.Pointer(&here))>>11) * golden >> 52)
	for i := range uint32(probes) {
		at := (start + i) % cells
		if t.cells[at].Load() != nil {
			continue
		}
		c.cell = at + 1 // before anybody else sees it
		if t.cells[at].CompareAndSwap(nil, c) {
			return
		}
	}
	c.cell = crowded
	t.unlisted.Add(1)
}

// Remove ends what Add has begun, if it has.
func (t *Table) Remove(c *Call) {
	switch c.cell {
	case 0:
	case crowded:
		t.unlisted.Add(-1)
	default:
		t.cells[c.cell-1].Store(nil)
	}
}

// Unlisted is how many requests are being worked on that found no room.
func (t *Table) Unlisted() int { return int(max(t.unlisted.Load(), 0)) }

// List gives the requests that are being worked on, the oldest first. They are
// read-only, and may have ended meanwhile.
func (t *Table) List() []*Call {
	var out []*Call
	for i := range t.cells {
		if c := t.cells[i].Load(); c != nil {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b *Call) int { return a.Began.Compare(b.Began) })
	return out
}

// Find gives the request of a span, nil if it is not listed (any more).
func (t *Table) Find(span tracing.SpanID) *Call {
	for i := range t.cells {
		if c := t.cells[i].Load(); c != nil && c.Span == span {
			return c
		}
	}
	return nil
}
