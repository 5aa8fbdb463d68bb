// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework/internal/transport"
)

// others are the listeners of other protocols while they serve.
type others struct {
	all      []transport.Listener
	serving  errgroup.Group
	draining errgroup.Group
	failed   chan error // the first that has ended by itself; capacity 1
}

func (s *Server) serveOthers() *others {
	o := &others{all: s.opts.transports, failed: make(chan error, 1)}
	host := &transport.Host{
		Service: s.cfg.Service, Services: s.served, Log: s.opts.log, Ready: s.opts.ready,
		Level: s.level, Backlog: s.backlog, DrainTimeout: s.cfg.DrainTimeout, Note: s.noteOf,
	}
	for _, l := range o.all {
		o.serving.Go(func() error {
			if err := l.Serve(host); err != nil {
				select {
				case o.failed <- err:
				default:
				}
			}
			return nil
		})
	}
	return o
}

// drain begins to stop them all; wait waits for it.
func (o *others) drain() {
	for _, l := range o.all {
		o.draining.Go(l.Drain)
	}
}

func (o *others) wait() error {
	err := o.draining.Wait()
	_ = o.serving.Wait() // what ended by itself is in failed
	return err
}
