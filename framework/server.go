// SPDX-License-Identifier: Apache-2.0

// Package framework serves and makes calls that protect, trace and measure
// themselves. A server registers the handlers of generated code and runs; a client
// dials a service and hands the connection to generated code.
package framework

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/kitexrpc"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/runner"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/restart"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// Server serves the methods of one or more services. Create it with NewServer,
// register handlers, then Run it once.
type Server struct {
	cfg  ServerConfig
	opts serverOptions
	err  error // of configuration or registration; Listen returns it

	byName  map[string]map[string]*interceptor.Method // service, method
	byShort map[string]*interceptor.Method            // for callers that do not name the service
	served  []transport.Service                       // for other protocols

	mu       sync.Mutex
	lis      net.Listener // guarded by mu
	adminLis net.Listener // guarded by mu
	started  bool         // guarded by mu

	admission *admit.Service          // at the door of the process; nil without admission
	gate      gate                    // open while calls of this process are let in
	draining  chan struct{}           // closed when Run begins to shut down
	secured   atomic.Pointer[secured] // since Listen; nil without TLS
	reloads   reloads
}

var _ rpc.Registrar = (*Server)(nil)

// NewServer makes a server. What is wrong with the configuration is returned by
// Listen and Run, so that a main function has one place to look.
func NewServer(cfg ServerConfig, opts ...ServerOption) *Server {
	s := &Server{byName: map[string]map[string]*interceptor.Method{}, byShort: map[string]*interceptor.Method{}, draining: make(chan struct{})}
	s.reloads.began = make(chan struct{})
	s.cfg, s.err = cfg.withDefaults()
	process.Serves(cfg.Service)
	s.opts.log = slog.Default()
	for _, o := range opts {
		o(&s.opts)
	}
	s.opts.log = slog.New(LogHandler(s.opts.log.Handler())).With(slog.String("service", cfg.Service))
	if s.cfg.Mode == ModeProcess && s.opts.noSignals {
		s.err = errors.Join(s.err, fmt.Errorf("framework: service %s: WithoutSignals and the mode %s: its processes are steered by signals: leave one out", cfg.Service, ModeProcess))
	}
	door := admit.Process() // with or without admission: it gives netpoll's poller a processor
	if s.cfg.Admission == On {
		s.admission = door.NewService(s.cfg.Service)
	}
	return s
}

// Register implements rpc.Registrar. Generated code calls it, before Run. What is
// wrong is returned by Listen and Run.
func (s *Server) Register(svc *rpc.Service, handlers []rpc.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.started:
		s.err = errors.Join(s.err, fmt.Errorf("framework: service %s was registered after Run: register first", svc.Name))
		return
	case len(handlers) != len(svc.Methods):
		s.err = errors.Join(s.err, fmt.Errorf("framework: service %s has %d methods but %d handlers: generate its code anew", svc.Name, len(svc.Methods), len(handlers)))
		return
	case s.byName[svc.Name] != nil:
		s.err = errors.Join(s.err, fmt.Errorf("framework: service %s was registered twice", svc.Name))
		return
	}
	methods := make(map[string]*interceptor.Method, len(handlers))
	served := transport.Service{Contract: svc}
	for i, m := range svc.Methods {
		method := interceptor.NewMethod(m, handlers[i], s.opts.interceptors, s.opts.log, s.admission, interceptor.ProcessObserver())
		method.Allow(allowList(s.cfg.Allow).callersOf(svc.Name, m.Name))
		method.Drains(s.draining)
		methods[m.Name] = method
		served.Methods = append(served.Methods, method)
		if _, twice := s.byShort[m.Name]; twice {
			method = nil // ambiguous: only a caller that names the service reaches it
		}
		s.byShort[m.Name] = method
	}
	s.byName[svc.Name] = methods
	s.served = append(s.served, served)
}

// lookup finds a method by what a frame names. A stock kitex client names the
// service in its own way, so that an unknown service is looked for by the method
// alone if only one service has it.
func (s *Server) lookup(service, method []byte) *interceptor.Method {
	if methods, ok := s.byName[string(service)]; ok {
		return methods[string(method)]
	}
	return s.byShort[string(method)]
}

// level is what callers are told that the server lets in.
func (s *Server) level() qos.Priority { return s.admission.Level() }

func (s *Server) backlog() uint8 { return s.admission.Backlog() }

// behind takes how long calls wait for a thread.
func (s *Server) behind(ms uint8) {
	if s.admission != nil {
		s.admission.Door().Behind(ms)
	}
}

func (s *Server) suppressed(n uint16, p qos.Priority, method uint32) {
	if s.admission != nil {
		s.admission.Door().Suppressed(n, p, method)
	}
}

// Check gives what is wrong with the configuration or the registered services.
func (s *Server) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Listen binds the addresses without serving yet. Run does it if nobody has.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.lis != nil {
		return s.err
	}
	process.Listeners() // its items are there from the start
	if err := process.Items().Err(); err != nil {
		return fmt.Errorf("framework: service %s: items: %w", s.cfg.Service, err)
	}
	if err := s.secure(); err != nil {
		return fmt.Errorf("framework: service %s: %w", s.cfg.Service, err)
	}
	lis, adminLis := s.opts.lis, s.opts.adminLis
	var err error
	switch lis.(type) {
	case nil:
		if lis, err = s.listen(socketCalls, s.cfg.Addr); err != nil {
			return fmt.Errorf("framework: service %s: Addr: %w", s.cfg.Service, err)
		}
	case *net.TCPListener, *net.UnixListener:
	default: // the event loop needs the file below it
		return fmt.Errorf("framework: service %s: WithListeners: calls cannot be served on a %T: give a *net.TCPListener or *net.UnixListener", s.cfg.Service, lis)
	}
	if err := inTheClear(&s.cfg, lis.Addr()); err != nil {
		return errors.Join(fmt.Errorf("framework: service %s: %w", s.cfg.Service, err), lis.Close())
	}
	if adminLis == nil && s.cfg.Admin != "" && !s.isWorker() {
		if adminLis, err = s.listen(socketAdmin, s.cfg.Admin); err != nil {
			return errors.Join(fmt.Errorf("framework: service %s: Admin: %w", s.cfg.Service, err), lis.Close())
		}
	}
	for i, t := range s.opts.transports {
		if err := t.Listen(s.security()); err != nil {
			for _, bound := range s.opts.transports[:i] {
				err = errors.Join(err, bound.Close())
			}
			if adminLis != nil {
				err = errors.Join(err, adminLis.Close())
			}
			return errors.Join(fmt.Errorf("framework: service %s: %w", s.cfg.Service, err), lis.Close())
		}
	}
	s.noted(lis, adminLis)
	s.lis, s.adminLis = lis, adminLis
	return nil
}

// Addr is the address that calls are served on, empty before Listen.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return addrOf(s.lis)
}

// AdminAddr is the address of the admin pages, empty before Listen and without them.
func (s *Server) AdminAddr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return addrOf(s.adminLis)
}

func addrOf(lis net.Listener) string {
	if lis == nil {
		return ""
	}
	return lis.Addr().String()
}

// Run serves until ctx ends, the process gets SIGTERM or SIGINT, or, after SIGHUP, a new
// program has taken its listeners over, see package restart. Then it drains: no more
// connections, the clients are told to go elsewhere, what has been accepted is answered.
// It returns nil after that. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	lis, adminLis, again := s.lis, s.adminLis, s.started
	s.started = true
	s.mu.Unlock()
	if again {
		return errors.New("framework: Run was called twice: make another server")
	}
	if err := s.alone(); err != nil {
		return err
	}
	if !s.opts.noSignals {
		var stop context.CancelFunc
		ctx, stop = restart.Process().Watch(ctx, s.opts.log)
		defer stop()
	}
	if s.cfg.Mode == ModeProcess && !s.isWorker() {
		return s.supervise(ctx, lis, adminLis)
	}
	if s.admission != nil {
		s.admission.Door().Open()
		defer s.admission.Door().Close()
		defer s.admission.Join()()
	}
	calls, err := s.reloads.runs(s.cfg, func() (*kitexrpc.Server, error) {
		return kitexrpc.Serve(kitexrpc.ServerConfig{
			Service:  s.cfg.Service,
			Listener: lis, Turns: s.isWorker(), Lookup: s.lookup,
			Limits: limitsOf(&s.cfg), DrainTimeout: s.cfg.DrainTimeout, Log: s.opts.log,
			Threads: s.cfg.Threads, Queue: s.cfg.ThreadQueue, Behind: s.behind,
			TLS: s.handshakes(), Trusted: runner.IsLoopback(lis.Addr()), Level: s.level, Backlog: s.backlog, Suppressed: s.suppressed, Items: process.Listeners(),
		})
	})
	if err != nil {
		return fmt.Errorf("framework: service %s: %w", s.cfg.Service, errors.Join(err, s.abandon(lis, adminLis)))
	}
	s.opts.log.Info("serving", slog.String("addr", lis.Addr().String()), slog.String("admin", addrOf(adminLis)))

	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAdmin()
	state := admin.NewState(s.opts.ready)
	var g errgroup.Group
	if adminLis != nil {
		g.Go(func() error { return s.dashboard(state).Serve(adminCtx, adminLis, s.opts.admin) })
	}
	if s.isWorker() {
		g.Go(func() error { return s.answer(adminCtx, state) })
	}
	defer s.handOver(lis, adminLis)
	if !s.opts.noSignals {
		g.Go(func() error { s.tellReady(ctx); return nil })
	}
	others := s.serveOthers()
	g.Go(func() error {
		defer stopAdmin()
		var failed error
		select {
		case <-ctx.Done():
		case err := <-others.failed:
			failed = fmt.Errorf("framework: service %s: serving ended by itself: %w", s.cfg.Service, err)
		case <-calls.Ended():
			failed = fmt.Errorf("framework: service %s: serving ended by itself: %w", s.cfg.Service, calls.Err())
		}
		close(s.draining)
		state.Drain()
		others.drain()
		s.gate.close(s.cfg.DrainTimeout)
		err := errors.Join(calls.Stop(), others.wait())
		s.opts.log.Info("stopped", slog.Int("unfinished", calls.InFlight()))
		return errors.Join(failed, err)
	})
	return g.Wait()
}

// abandon closes the listeners of a server that cannot serve. That of the calls may be
// closed already.
func (s *Server) abandon(lis, adminLis net.Listener) error {
	s.handOver(lis, adminLis)
	err := lis.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if adminLis != nil {
		err = errors.Join(err, adminLis.Close())
	}
	for _, t := range s.opts.transports {
		err = errors.Join(err, t.Close())
	}
	return err
}
