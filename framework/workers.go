// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/child"
	"github.com/sluice-rpc/sluice/framework/internal/prefork"
	"github.com/sluice-rpc/sluice/framework/restart"
)

// isWorker says whether this process is one of those that serve in the mode process.
func (s *Server) isWorker() bool {
	return s.cfg.Mode == ModeProcess && child.Process().Worker() > 0
}

// manyProcesses is the one server of this program in the mode process.
var manyProcesses atomic.Pointer[Server]

// alone refuses a second server in the mode process: each would start processes with both.
func (s *Server) alone() error {
	if s.cfg.Mode == ModeProcess && !manyProcesses.CompareAndSwap(nil, s) {
		return fmt.Errorf("framework: service %s: the mode %s: service %s of this program has it already: give each a program of its own",
			s.cfg.Service, ModeProcess, manyProcesses.Load().cfg.Service)
	}
	return nil
}

// beyondDrain is how long a worker may take to end when it has drained.
const beyondDrain = 5 * time.Second

// supervise keeps the workers of the mode process, which serve on the sockets that this
// process has bound, and the admin pages of them all.
func (s *Server) supervise(ctx context.Context, lis, adminLis net.Listener) error {
	defer s.handOver(lis, adminLis)
	s.opts.log.Info("supervising", slog.String("addr", lis.Addr().String()), slog.String("admin", addrOf(adminLis)), slog.Int("workers", s.cfg.Workers))
	all := admin.NewWorkers(s.opts.log)
	state := admin.NewState(all.Ready)
	dashboard := s.dashboard(state)
	dashboard.Workers, dashboard.Call = all, all.Call
	if s.admission != nil {
		defer s.admission.Join()() // for operators, whose orders the workers are given
	}
	s.reloads.supervises(s.cfg)
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAdmin()
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	if adminLis != nil {
		g.Go(func() error { return dashboard.Serve(adminCtx, adminLis, s.opts.admin) })
		g.Go(func() error { all.Follow(adminCtx); return nil })
	}
	g.Go(func() error { // what comes while the workers drain is refused, and does not wait for nobody
		<-working.Done()
		state.Drain()
		err := lis.Close()
		for _, t := range s.opts.transports {
			err = errors.Join(err, t.Close())
		}
		return err
	})
	g.Go(func() error {
		defer stopAdmin()
		defer cancel()
		program := restart.Process()
		err := prefork.Run(ctx, prefork.Config{
			Program: child.Process(), Workers: s.cfg.Workers, Patience: program.Timeout(), Grace: s.cfg.DrainTimeout + beyondDrain,
			Healthy: program.Ready, Joined: all.Join, Log: s.opts.log,
		})
		if err != nil {
			return fmt.Errorf("framework: service %s: %w", s.cfg.Service, err)
		}
		s.opts.log.Info("stopped")
		return nil
	})
	return g.Wait()
}

// answer shows a worker to its supervisor.
func (s *Server) answer(ctx context.Context, state *admin.State) error {
	conn, err := child.Process().Control()
	if err != nil {
		return fmt.Errorf("framework: service %s: %w", s.cfg.Service, err)
	}
	return s.dashboard(state).Answer(ctx, conn, s.opts.admin)
}
