// SPDX-License-Identifier: Apache-2.0

// Package peers lists the connections of a process, whatever server, entry or client
// they belong to.
package peers

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/qos"
)

// A Connection is one connection of this process as pages show it, or, of a client, an
// attempt to have one.
type Connection struct {
	Accepted bool      // by a server or an entry; else made by a client
	HTTP     bool      // of an entry: what comes is requests
	Service  string    // that serves here, or that is called
	Local    string    // address on this side
	Peer     string    // address of the other end
	Since    time.Time // zero when there is no connection
	Calls    uint64    // that came or went, refused ones included
	Received uint64    // bytes
	Sent     uint64    // bytes
	Waiting  int       // calls of a client that wait for their answers
	Level    qos.Priority
	Foreign  bool  // the client does not send our header
	Err      error // why a client has no connection
	// Out is why the instance gets no calls of a client while there are others.
	Out Out
}

// Out is why a client leaves an instance out; empty if it does not.
type Out string

// The reasons, the first that holds.
const (
	Draining Out = "draining" // discovery says so
	Silent   Out = "silent"   // it has not answered whether it is there
	Ejected  Out = "ejected"  // its last calls have failed
)

// A Source appends its connections to all. It is asked from any goroutine.
type Source interface {
	Connections(all []Connection) []Connection
}

var alive struct {
	mu      sync.Mutex
	sources []Source // guarded by mu
}

// Join shows the connections of a source, which is comparable, until leave.
func Join(s Source) (leave func()) {
	alive.mu.Lock()
	defer alive.mu.Unlock()
	alive.sources = append(alive.sources, s)
	return func() {
		alive.mu.Lock()
		defer alive.mu.Unlock()
		alive.sources = slices.DeleteFunc(alive.sources, func(other Source) bool { return other == s })
	}
}

// List gives all connections of this process, accepted ones first. Calls go on
// meanwhile: numbers are those of different moments.
func List() []Connection {
	alive.mu.Lock()
	sources := slices.Clone(alive.sources)
	alive.mu.Unlock()
	var all []Connection
	for _, s := range sources {
		all = s.Connections(all)
	}
	slices.SortStableFunc(all, func(a, b Connection) int {
		if a.Accepted != b.Accepted {
			return map[bool]int{true: -1, false: 1}[a.Accepted]
		}
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Peer, b.Peer), a.Since.Compare(b.Since))
	})
	return all
}
