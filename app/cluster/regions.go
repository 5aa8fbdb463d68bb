// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/app/topology"
)

// lineSocket is what the socket is called on which a service accepts its peers in other
// regions.
func lineSocket(r topology.Role) string { return string(r) + "-line" }

// joined is a service whose log other regions get.
type joined interface {
	Side() idcqueue.Side
	Outbox() *outbox.Box
}

// join makes the queue and the line between a service and its peers in other regions.
func (n *Node) join(ctx context.Context, r topology.Role, svc joined) error {
	t := n.cfg.Topology
	queue, err := idcqueue.New(ctx, idcqueue.Config{
		Service: string(r), Region: t.Region.ID(), Store: n.stores[r], Outbox: svc.Outbox(), Peers: n.peers(), Side: svc.Side(),
		Limits: idcqueue.Limits{Rate: uint64(t.Line.CatchUp)}, Log: n.log, Now: t.Region.Now(),
	})
	if err != nil {
		return fmt.Errorf("join %s to other regions: %w", r, err)
	}
	cfg := path.Config{
		Self:     path.Peer{Region: t.Region.ID(), Name: t.Region.Name, Addr: loopback(t.Line.Addr(r))},
		Service:  string(r),
		Files:    path.Files{CA: t.Line.CA, Cert: t.Line.Cert, Key: t.Line.Key},
		Listener: n.cfg.Sockets[lineSocket(r)],
		Peers:    linePeers(r, n.regions()),
		Log:      n.log,
	}
	line, err := path.New(ctx, cfg)
	if err != nil {
		return fmt.Errorf("join %s to other regions: %w", r, err)
	}
	n.queues[r], n.lines[r] = queue, line
	if far, ok := svc.(meets); ok {
		n.met[r] = far
	}
	showSeams(t.Region.Name, r, n.regions(), line, queue)
	if r == topology.Comment && n.causality != nil {
		showTally(t.Region.Name, n.causality)
	}
	n.jobs = append(n.jobs, part{name: string(r) + "'s line", run: func(ctx context.Context) error {
		return line.Run(ctx, func(ctx context.Context, s *path.Session) error {
			return queue.Serve(ctx, s.Peer().Region, s.Dialled(), s)
		})
	}})
	return nil
}

// RegionsPage is what GET /regions of a service's admin pages says: how it is joined to
// its peers in other regions.
type RegionsPage struct {
	Region string          `json:"region"`
	Line   path.Status     `json:"line"`
	Queue  idcqueue.Status `json:"queue"`
	// Causality is of the comment service only.
	Causality *Causality `json:"causality,omitempty"`
}

// regionsPage answers it; of a service that is not joined, with 404.
func (n *Node) regionsPage(r topology.Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		line, queue := n.lines[r], n.queues[r]
		if line == nil || queue == nil {
			http.Error(w, fmt.Sprintf("%s is not joined to other regions", r), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The reader may have gone.
		_ = json.NewEncoder(w).Encode(RegionsPage{Region: n.cfg.Topology.Region.Name, Line: line.Status(), Queue: queue.Status(), Causality: n.causalityOf(r)})
	})
}

// AppendRegions adds what a topology says of other regions, as YAML.
func AppendRegions(b []byte, t topology.Config) []byte {
	if !t.Abroad() {
		return b
	}
	b = fmt.Appendf(b, "line:\n  ca: %q\n  cert: %q\n  key: %q\n  catch-up: %v\n  ahead: %v\n", t.Line.CA, t.Line.Cert, t.Line.Key, t.Line.CatchUp, t.Line.Ahead)
	for _, r := range topology.Facing() {
		b = fmt.Appendf(b, "  %s: %q\n", r, t.Line.Addr(r))
	}
	if len(t.Regions) > 0 {
		b = append(b, "regions:\n"...)
	}
	for _, p := range t.Regions {
		b = fmt.Appendf(b, "  - number: %d\n    name: %q\n", p.Number, p.Name)
		for _, r := range topology.Facing() {
			b = fmt.Appendf(b, "    %s: %q\n", r, p.Addr(r))
		}
	}
	return b
}
