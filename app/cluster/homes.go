// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/topology"
)

const (
	// homeHead bounds how long another region's gateway may take to begin its answer: an
	// ocean, and what a request may take there.
	homeHead = 15 * time.Second
	// homeConns is how many connections to it are kept.
	homeConns = 32
)

// abroad is how gateways and edges of this process meet those of other regions: HTTP under
// the certificates of lines, nothing in the clear.
type abroad struct {
	doors *path.Doors
	ways  atomic.Pointer[map[wayKey]way] // replaced, never changed
}

// wayKey is a role of another region.
type wayKey struct {
	role   topology.Role
	region id.Region
}

// openAbroad reads the certificates, if there are other regions.
func (n *Node) openAbroad() error {
	t := n.cfg.Topology
	if !t.Abroad() || !n.runs(topology.Gateway) && !n.runs(topology.Edge) {
		return nil
	}
	doors, err := path.NewDoors(path.Files{CA: t.Line.CA, Cert: t.Line.Cert, Key: t.Line.Key}, t.Region.Name, nil, n.log)
	if err != nil {
		return fmt.Errorf("meet other regions: %w", err)
	}
	n.abroad = &abroad{doors: doors}
	n.abroad.ways.Store(&map[wayKey]way{})
	n.abroad.set(n.regions())
	return nil
}

// set goes by another list of regions. It is called once at a time.
func (a *abroad) set(regions []topology.Peer) {
	if a == nil {
		return
	}
	before, next := *a.ways.Load(), map[wayKey]way{}
	var names []string
	for _, p := range regions {
		names = append(names, p.Name)
		for _, r := range []topology.Role{topology.Gateway, topology.Edge} {
			key, at := wayKey{r, p.ID()}, p.Addr(r)
			if at == "" {
				continue
			}
			if next[key] = before[key]; next[key].host != p.Name || next[key].addr != at {
				next[key] = newWay(a.doors, p.Name, at)
			}
		}
	}
	a.doors.SetPeers(names)
	a.ways.Store(&next)
	for key, w := range before {
		if next[key] != w {
			w.by.CloseIdleConnections()
		}
	}
}

// to gives the ways to a role of other regions. The function is nil if there are none, and
// gives nil for one that has no such door.
func (a *abroad) to(r topology.Role) func(id.Region) http.RoundTripper {
	if a == nil {
		return nil
	}
	return func(region id.Region) http.RoundTripper {
		if w, ok := (*a.ways.Load())[wayKey{r, region}]; ok {
			return w
		}
		return nil
	}
}

// tls is how peers are let in, nil if there are none.
func (a *abroad) tls() *tls.Config {
	if a == nil {
		return nil
	}
	return a.doors.TLS()
}

// bindAbroad gives the listener of a role for its peers, nil if it has none.
func (n *Node) bindAbroad(ctx context.Context, r topology.Role) (net.Listener, error) {
	if n.abroad == nil || n.cfg.Sockets[lineSocket(r)] == nil && n.cfg.Topology.Line.Addr(r) == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	return n.bind(ctx, lineSocket(r), n.cfg.Topology.Line.Addr(r))
}

// close ends the connections that are kept.
func (a *abroad) close() {
	if a == nil {
		return
	}
	for _, w := range *a.ways.Load() {
		w.by.CloseIdleConnections()
	}
}

// way sends requests to one peer, whatever their URLs say.
type way struct {
	host string
	addr string
	by   *http.Transport
}

func newWay(doors *path.Doors, name, addr string) way {
	return way{host: name, addr: addr, by: &http.Transport{
		DialTLSContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return doors.Dial(ctx, name, addr) },
		ResponseHeaderTimeout: homeHead,
		MaxIdleConnsPerHost:   homeConns,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true, // what comes is passed on as it is
	}}
}

// RoundTrip implements http.RoundTripper.
func (w way) RoundTrip(r *http.Request) (*http.Response, error) {
	out, at := r.WithContext(r.Context()), *r.URL // a copy: a request is not to be changed
	at.Scheme, at.Host = "https", w.host
	out.URL = &at
	return w.by.RoundTrip(out)
}
