// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"sync"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// An Observer is where the calls of a process are recorded: items for the methods, a
// graph for who calls whom, records of those that are worth one, and a list of those
// being served. A nil Observer records nothing. Every call of both sides is counted,
// once in each.
type Observer struct {
	Items    *metrics.Registry
	Graph    *callgraph.Recorder
	Tracer   *tracing.Tracer
	InFlight *inflight.Table

	callers   sync.Map // *rpc.Method to caller
	contracts sync.Map // full name to *rpc.Method
}

// Contracts gives the contracts of the methods that are served or have been called, by
// full name.
func (o *Observer) Contracts() map[string]*rpc.Method {
	all := map[string]*rpc.Method{}
	if o == nil {
		return all
	}
	o.contracts.Range(func(name, m any) bool {
		all[name.(string)] = m.(*rpc.Method)
		return true
	})
	return all
}

var observer = sync.OnceValue(func() *Observer {
	return &Observer{Items: process.Items(), Graph: process.Graph(), Tracer: process.Tracer(), InFlight: process.InFlight()}
})

var recordsNothing atomic.Bool

// RecordNothing makes ProcessObserver give nil from now on. It is for benches, which
// measure what recording costs.
func RecordNothing() { recordsNothing.Store(true) }

// ProcessObserver gives where this process records its calls.
func ProcessObserver() *Observer {
	if recordsNothing.Load() {
		return nil
	}
	return observer()
}

// A caller is a method being served, as the graph knows it.
type caller struct {
	number callgraph.Method
	name   string
}

// caller gives the one who works on a request: the method that serves it, or its entry.
func (o *Observer) caller(in *rpc.Call) caller {
	if o == nil || in == nil || in.Method == nil {
		return caller{number: callgraph.AtEntry}
	}
	if c, ok := o.callers.Load(in.Method); ok {
		return c.(caller)
	}
	name := in.Method.FullName()
	c := caller{number: o.Graph.Method(name), name: name}
	o.callers.Store(in.Method, c)
	return c
}

// callerOf gives the one who made a call that has come in.
func (o *Observer) callerOf(in *Incoming) callgraph.Method {
	switch {
	case o == nil:
		return callgraph.AtEntry
	case len(in.Header) == 0:
		return callgraph.UnknownCaller // a foreign client
	case len(in.Caller) == 0:
		return callgraph.AtEntry
	}
	return o.Graph.MethodBytes(in.Caller)
}
