// SPDX-License-Identifier: Apache-2.0

// Package process holds what there is one of in a process, however many servers,
// entries and clients run in it.
package process

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

var items = sync.OnceValue(func() *metrics.Registry {
	r := metrics.NewRegistry(metrics.Config{})
	r.Process()
	r.Tracing(Tracer().Stats)
	r.CallGraph(Graph().Room, inFlight.Unlisted)
	return r
})

var graph = sync.OnceValue(func() *callgraph.Recorder {
	return callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Epoch: uint64(time.Now().UnixNano())}})
})

var services struct {
	mu    sync.Mutex
	names []string // guarded by mu
}

// maxServices is how many services the identity of a process names.
const maxServices = 16

// Serves notes that a service, or an entry of that name, runs in this process.
func Serves(name string) {
	services.mu.Lock()
	defer services.mu.Unlock()
	if len(services.names) < maxServices && !slices.Contains(services.names, name) {
		services.names = append(services.names, name)
	}
}

// Identity tells this process from all others: the services that ran in it when it was
// first asked for, host and number of the process, and when it began to count. It does
// not change, for whoever pulls takes another identity for another process.
var Identity = sync.OnceValue(func() callgraph.Process {
	services.mu.Lock()
	defer services.mu.Unlock()
	slices.Sort(services.names)
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return callgraph.Process{
		Service: strings.Join(services.names, "+"), Instance: fmt.Sprintf("%s/%d", host, os.Getpid()), Epoch: Graph().Process().Epoch,
	}
})

var tracer = sync.OnceValue(func() *tracing.Tracer {
	t, err := tracing.New(tracing.Config{})
	if err != nil {
		panic(err) //nolint:forbidigo // the zero configuration is a valid one
	}
	return t
})

var listeners = sync.OnceValue(func() *metrics.ServerTransport { return Items().ServerTransport() })

// Listeners gives the items of the connections that the servers of this process accept.
func Listeners() *metrics.ServerTransport { return listeners() }

// Graph gives the recorder of all calls of this process.
func Graph() *callgraph.Recorder { return graph() }

// Items gives the registry of all items of this process.
func Items() *metrics.Registry { return items() }

// Tracer gives what decides which requests of this process are traced, and keeps the
// records of its calls. Rates and exporter may be changed at any time.
func Tracer() *tracing.Tracer { return tracer() }

var inFlight inflight.Table

// InFlight gives the list of the requests that this process works on, calls being
// served and requests at its entries.
func InFlight() *inflight.Table { return &inFlight }
