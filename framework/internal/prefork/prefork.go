// SPDX-License-Identifier: Apache-2.0

// Package prefork keeps a number of processes of this program at work on its sockets, its
// workers: one that ends is started again, and all end with this process.
package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework/internal/child"
)

// How long a worker that has ended waits to be started again: twice as long each time, and
// anew from the shortest when one has lived for a while. Of each half is chance, so that
// workers that end together do not come back together.
const (
	shortest = 100 * time.Millisecond
	longest  = 5 * time.Second
	aWhile   = 5 * time.Second
)

// Config is what is kept, and how.
type Config struct {
	Program  *child.Program
	Workers  int
	Patience time.Duration // longest until a worker says that it is healthy
	Grace    time.Duration // longest from SIGTERM until it has ended
	// Healthy is called once, when all are for the first time.
	Healthy func()
	// Joined is told of each process, with the connection to it, and left of its end.
	Joined func(number, pid int, conn net.Conn) (left func())
	Log    *slog.Logger
}

// Run keeps the workers until ctx ends, and then waits for all to drain. It fails if one
// does not become healthy when it is started for the first time; later ones are tried
// again.
func Run(ctx context.Context, cfg Config) error {
	s := &supervisor{Config: cfg, starts: make(chan func())}
	s.missing.Store(int64(cfg.Workers))
	var starter sync.WaitGroup
	starter.Go(func() {
		// A worker is told of the end of the thread that has started it. This one ends last.
		runtime.LockOSThread()
		for f := range s.starts {
			f()
		}
	})
	defer starter.Wait()
	defer close(s.starts)
	g, ctx := errgroup.WithContext(ctx)
	for n := range cfg.Workers {
		g.Go(func() error { return s.keep(ctx, n+1) })
	}
	return g.Wait()
}

type supervisor struct {
	Config
	starts  chan func()
	missing atomic.Int64 // workers that were not healthy yet
}

// keep keeps one worker.
func (s *supervisor) keep(ctx context.Context, number int) error {
	log := s.Log.With(slog.Int("worker", number))
	var delay time.Duration
	for first := true; ; first = false {
		began := time.Now()
		served, err := s.one(ctx, number, first, log)
		switch {
		case ctx.Err() != nil:
			return nil
		case first && !served:
			return fmt.Errorf("worker %d of %d did not become healthy: %w", number, s.Workers, err)
		case time.Since(began) >= aWhile:
			delay = 0
		}
		delay = min(max(2*delay, shortest), longest)
		wait := delay/2 + rand.N(delay/2) //nolint:gosec // it spreads load
		log.Error("a worker has ended: it is started again", slog.Any("err", err), slog.Bool("served", served),
			slog.Duration("lived", time.Since(began)), slog.Duration("in", wait))
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// one starts a worker and waits for its end.
func (s *supervisor) one(ctx context.Context, number int, first bool, log *slog.Logger) (served bool, err error) {
	c, conn, err := s.start(number)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	patient, cancel := context.WithTimeoutCause(ctx, s.Patience, fmt.Errorf("it was not healthy within %v", s.Patience))
	defer cancel()
	if err := c.Wait(patient, s.Grace); err != nil {
		return false, err
	}
	log.Info("a worker serves", slog.Int("pid", c.PID()))
	defer s.Joined(number, c.PID(), conn)()
	if first && s.missing.Add(-1) == 0 {
		s.Healthy()
	}
	err = c.End(ctx, s.Grace)
	if err == nil {
		err = errEnded
	}
	return true, err
}

var errEnded = errors.New("it has ended by itself")

// start starts a worker from the thread of the starter.
func (s *supervisor) start(number int) (c *child.Child, conn net.Conn, err error) {
	done := make(chan struct{})
	s.starts <- func() {
		defer close(done)
		c, conn, err = s.Program.Work(number)
	}
	<-done
	return c, conn, err
}
