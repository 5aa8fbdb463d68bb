// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework/config"
)

// others is which other regions there are now. It is the one place that knows: what works
// with them is told by setPeers, and who wants to know asks regions.
type others struct {
	changing sync.Mutex // held while what works with them is told
	now      atomic.Pointer[[]topology.Peer]
}

// regions gives the other regions that there are now. The slice is not to be changed.
func (n *Node) regions() []topology.Peer { return *n.others.now.Load() }

// peers gives their numbers; nil if there never are any.
func (n *Node) peers() []id.Region {
	if !n.cfg.Topology.Abroad() {
		return nil
	}
	all := []id.Region{}
	for _, p := range n.regions() {
		all = append(all, p.ID())
	}
	return all
}

// meets is a service that has to know of a region before it joins.
type meets interface {
	Meet(ctx context.Context, region id.Region) error
}

// errAlone means that a region was started as the only one.
var errAlone = errors.New("this region was started alone, without a certificate for lines: give it one (see moments certs) and start it again")

// setPeers has everything in this process work with these other regions, and no others. It
// may be called again with the same: what has failed is done then.
//
// Who joins is met before it is kept for, and kept for before it is let in, so that it
// misses nothing; who leaves is cut off before nothing is kept for it any more.
func (n *Node) setPeers(ctx context.Context, want []topology.Peer) error {
	n.others.changing.Lock()
	defer n.others.changing.Unlock()
	if !n.cfg.Topology.Abroad() {
		if len(want) > 0 {
			return errAlone
		}
		return nil
	}
	var errs []error
	for _, r := range topology.Joined() {
		if n.queues[r] != nil {
			errs = append(errs, n.rejoin(ctx, r, want))
		}
	}
	n.abroad.set(want)
	have := n.regions()
	n.others.now.Store(&want)
	for _, p := range want {
		if !hasRegion(have, p) {
			n.log.InfoContext(ctx, "a region joins", "name", p.Name, "number", p.Number)
		}
	}
	for _, p := range have {
		if !hasRegion(want, p) {
			n.log.InfoContext(ctx, "a region has left", "name", p.Name, "number", p.Number)
		}
	}
	return errors.Join(errs...)
}

func hasRegion(all []topology.Peer, p topology.Peer) bool {
	return slices.ContainsFunc(all, func(q topology.Peer) bool { return q.Number == p.Number })
}

// rejoin has a service work with other peers. One that cannot join keeps no other from it.
func (n *Node) rejoin(ctx context.Context, r topology.Role, want []topology.Peer) error {
	queue, line := n.queues[r], n.lines[r]
	var errs []error
	var met []topology.Peer
	for _, p := range want {
		if err := n.meet(ctx, r, p); err != nil {
			errs = append(errs, fmt.Errorf("%s cannot join %s yet: %w", p.Name, r, err))
			continue
		}
		met = append(met, p)
	}
	if err := line.SetPeers(linePeers(r, met)); err != nil {
		return errors.Join(append(errs, err)...)
	}
	var gone []topology.Peer
	for _, st := range queue.Status().Peers {
		p := topology.Peer{Number: uint32(st.Region), Name: n.regionName(st.Region)}
		if !hasRegion(met, p) {
			queue.Leave(st.Region)
			gone = append(gone, p)
		}
	}
	hideSeams(n.cfg.Topology.Region.Name, r, gone, line)
	showSeams(n.cfg.Topology.Region.Name, r, met, line, queue)
	return errors.Join(errs...)
}

// meet takes a region in, unless it is there.
func (n *Node) meet(ctx context.Context, r topology.Role, p topology.Peer) error {
	queue := n.queues[r]
	if st := queue.Status(); st.Peer(p.ID()) != nil {
		return nil
	}
	if svc := n.met[r]; svc != nil {
		if err := svc.Meet(ctx, p.ID()); err != nil {
			return err
		}
	}
	return queue.Join(ctx, p.ID())
}

// linePeers gives how a role is reached in other regions.
func linePeers(r topology.Role, regions []topology.Peer) (all []path.Peer) {
	for _, p := range regions {
		all = append(all, path.Peer{Region: p.ID(), Name: p.Name, Addr: p.Addr(r)})
	}
	return all
}

const (
	// peersTime bounds one try of a change of peers.
	peersTime = 30 * time.Second
	// peersAgain is how long it is waited before what has failed of a change is done again.
	peersAgain = 5 * time.Second
)

// followPeers goes by the list of regions in the configuration's file until ctx ends.
func (n *Node) followPeers(ctx context.Context) error {
	changes := make(chan []topology.Peer, 1)
	g, ctx := errgroup.WithContext(ctx)
	watcher := config.Watcher[topology.Config]{
		Defaults: topology.Default(), Source: n.cfg.Source,
		Refused: func(err error) {
			n.log.ErrorContext(ctx, "the configuration is not right: the other regions stay as they are", "err", err)
		},
		Changed: func(t topology.Config) {
			if own := n.cfg.Topology.Region; t.Region.Number != own.Number || t.Region.Name != own.Name {
				n.log.ErrorContext(ctx, "the configuration is of another region: the other regions stay as they are", "file", n.cfg.Source.File, "region", t.Region.Name)
				return
			}
			select {
			case <-changes: // older, and nobody has seen it
			default:
			}
			changes <- t.Regions
		},
	}
	g.Go(func() error { return watcher.Run(ctx) })
	g.Go(func() error {
		var want []topology.Peer
		var again <-chan time.Time
		for {
			select {
			case <-ctx.Done():
				return nil
			case want = <-changes:
			case <-again:
			}
			again = nil
			bounded, cancel := context.WithTimeout(ctx, peersTime)
			err := n.setPeers(bounded, want)
			cancel()
			if err == nil || ctx.Err() != nil {
				continue
			}
			n.log.ErrorContext(ctx, "not all that works with other regions has taken a change of them", "err", err)
			if !errors.Is(err, errAlone) {
				again = time.After(peersAgain)
			}
		}
	})
	return g.Wait()
}
