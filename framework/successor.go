// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"net"
	"time"

	"github.com/sluice-rpc/sluice/framework/restart"
)

// The sockets of a server as a program that replaces this one finds them.
const (
	socketCalls = "calls"
	socketAdmin = "admin"
)

// listen gives the socket that the program before has handed on, or binds the address.
func (s *Server) listen(which, addr string) (net.Listener, error) {
	return restart.Process().Listen(s.cfg.Service+"/"+which, addr)
}

// noted hands listeners that were given by an option on to the program after this one.
func (s *Server) noted(calls, admin net.Listener) {
	p := restart.Process()
	if s.opts.lis != nil {
		p.Keep(s.cfg.Service+"/"+socketCalls, s.cfg.Addr, calls)
	}
	if s.opts.adminLis != nil {
		p.Keep(s.cfg.Service+"/"+socketAdmin, s.cfg.Admin, admin)
	}
}

// handOver ends what listen has begun.
func (s *Server) handOver(all ...net.Listener) {
	for _, lis := range all {
		if lis != nil {
			restart.Process().Forget(lis)
		}
	}
}

// askEvery is how often a new program looks whether it is healthy.
const askEvery = 50 * time.Millisecond

// tellReady tells the program before that this one can serve, once it can.
func (s *Server) tellReady(ctx context.Context) {
	p := restart.Process()
	if p.IsSuccessor() && s.opts.ready != nil {
		t := time.NewTicker(askEvery)
		defer t.Stop()
		for s.opts.ready(ctx) != nil {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
		}
	}
	p.Ready()
}
