// SPDX-License-Identifier: Apache-2.0

// Package grpcserver serves the methods of a server to gRPC clients, on a listener of its
// own, with everything that calls over the framework's wire have: the same interceptors,
// items, call graph, traces and admission. Methods with streams are served here alone.
// Reflection and the gRPC health service come with it.
//
//	srv := framework.NewServer(cfg, framework.WithTransport(grpcserver.New(grpcserver.Config{Addr: ":7002"})))
//
// A server with TLS serves gRPC under the same certificates and rules: who connects proves
// who it is, and its allow-list holds. The listener is an entry of the system. A caller's deadline and the ids of its W3C
// traceparent count; priority and sampling are the entry's own. Errors are statuses with
// the details of the error; one that the framework has made says so in a
// google.rpc.ErrorInfo, see package grpcclient, which reads it. Compressed messages are
// not taken: nobody can make the server unpack more than was sent.
package grpcserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/runner"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/restart"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// Server is the listener. It belongs to one framework.Server, which starts and stops it.
type Server struct {
	cfg Config // but for what reloads change: what it was made with
	key qos.Key
	err error // of the configuration

	maxConnections, maxInFlight atomic.Int64 // in effect

	mu   sync.Mutex
	lis  *listener                            // guarded by mu
	told func(string, []config.Change, error) // what became of a Reload; nil before Serve; guarded by mu

	security *transport.Security // nil if the server has no TLS
	host     *transport.Host
	grpc     *grpc.Server
	methods  map[string]*method // by "/package.Service/Method"
	draining chan struct{}      // closed by Drain
	served   chan struct{}      // closed when Serve has begun
	stopped  sync.Once
	inFlight atomic.Int64
	idle     chan struct{} // pinged when inFlight falls to zero
	items    *metrics.ServerTransport
}

var _ transport.Listener = (*Server)(nil)

// A method is one that is served, as its entry.
type method struct {
	*interceptor.Method
	rpc  *rpc.Method
	head rpc.Header
}

// New makes a listener, for framework.WithTransport. What is wrong with the configuration
// is told when the server starts.
func New(cfg Config) *Server {
	s := &Server{methods: map[string]*method{}, draining: make(chan struct{}), served: make(chan struct{}), idle: make(chan struct{}, 1), items: process.Listeners()}
	s.cfg, s.err = cfg.withDefaults()
	s.limit(&s.cfg)
	if s.key = cfg.Key; s.key == (qos.Key{}) {
		_, _ = rand.Read(s.key[:]) // never fails, see there
	}
	return s
}

// Addr is the address that is listened on, empty before the server does.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lis == nil {
		return ""
	}
	return s.lis.Addr().String()
}

// Listen implements the server's side of framework.WithTransport.
func (s *Server) Listen(security *transport.Security) error {
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lis != nil {
		return errors.New("grpcserver: it listens already: make one for each server")
	}
	lis, err := restart.Process().Listen("grpc "+s.cfg.Addr, s.cfg.Addr) // or what the program before has handed on
	if err != nil {
		return fmt.Errorf("grpcserver: Addr: %w", err)
	}
	s.security = security
	if s.cfg.TLS == nil && security == nil && !s.cfg.Plaintext && !runner.IsLoopback(lis.Addr()) {
		restart.Process().Forget(lis)
		return errors.Join(fmt.Errorf("grpcserver: other machines reach %v and there is no TLS: give the server or this listener certificates, or say Plaintext", lis.Addr()), lis.Close())
	}
	s.lis = newListener(lis, s)
	return nil
}

// Serve implements the server's side of framework.WithTransport.
func (s *Server) Serve(h *transport.Host) error {
	s.host = h
	s.mu.Lock()
	s.told = h.Note
	s.mu.Unlock()
	s.grpc = grpc.NewServer(s.options()...)
	for _, svc := range h.Services {
		s.register(svc)
	}
	if !s.cfg.NoReflection {
		reflection.Register(s.grpc)
	}
	health := newHealth(s)
	defer health.stop()
	defer peers.Join(s.lis)()
	defer restart.Process().Forget(s.lis.Listener)
	close(s.served)
	h.Log.Info("serving gRPC", slog.String("addr", s.Addr()), slog.Bool("tls", s.credentials() != nil))
	return s.grpc.Serve(s.lis)
}

func (s *Server) options() []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(grpcwire.Codec),
		grpc.MaxRecvMsgSize(s.cfg.MaxMessageBytes),
		grpc.MaxSendMsgSize(s.cfg.MaxMessageBytes),
		grpc.MaxHeaderListSize(uint32(s.cfg.MaxHeaderBytes)),
		grpc.MaxConcurrentStreams(uint32(s.cfg.MaxStreams)),
		grpc.ConnectionTimeout(s.cfg.HandshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: s.cfg.IdleTimeout, MaxConnectionAge: s.cfg.MaxAge, Time: s.cfg.Keepalive, Timeout: s.cfg.Keepalive / 3,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: s.cfg.MinPing, PermitWithoutStream: true}),
		grpc.InTapHandle(s.tap),
		grpc.StreamInterceptor(s.reflects),
		grpc.UnknownServiceHandler(unknown),
	}
	if creds := s.credentials(); creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	return opts
}

// unknown answers calls of methods that are not served.
func unknown(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	return grpcwire.StatusOf(&rpc.Error{
		Code: rpc.Unimplemented, Reason: rpc.ReasonUnknown, NotRun: true, Message: "unknown method " + strings.TrimPrefix(name, "/"),
	}).Err()
}

// reflects refuses to show contracts while an allow-list says who may call what: it does
// not have reflection. Health is told to everybody.
func (s *Server) reflects(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if strings.HasPrefix(info.FullMethod, "/grpc.reflection.") && s.restricted() {
		s.items.Faults[metrics.FrameUnknownMethod].Inc()
		return status.Error(codes.PermissionDenied, "the server has an allow-list: it shows its contracts to nobody")
	}
	return next(srv, stream)
}

func (s *Server) restricted() bool {
	for _, m := range s.methods {
		if m.Restricted() {
			return true
		}
	}
	return false
}

// register gives grpc-go a service of our method table. Calls with one request are
// streams to it, too: so their requests are read when they have been let in.
func (s *Server) register(svc transport.Service) {
	desc := &grpc.ServiceDesc{ServiceName: svc.Contract.Name, HandlerType: (*any)(nil), Metadata: svc.Contract.File}
	for i, m := range svc.Contract.Methods {
		name := "gRPC " + m.FullName()
		served := &method{Method: svc.Methods[i], rpc: m, head: rpc.Header{Entry: tracing.EntryOf(name)}}
		process.Graph().NameEntry(name)
		s.methods["/"+m.FullName()] = served
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: m.Name, ClientStreams: m.ClientStreams, ServerStreams: m.ServerStreams,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.handle(served, stream) },
		})
	}
	s.grpc.RegisterService(desc, nil)
}

// tap sees the head of each call on the connection's reading goroutine. It bounds the
// life of the call by its contract, so that no peer can hold one by not sending.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	m := s.methods[info.FullMethodName]
	if m == nil {
		if !ofGRPC(info.FullMethodName) {
			s.items.Faults[metrics.FrameUnknownMethod].Inc()
		}
		return ctx, nil // grpc-go knows its own services; the rest is unknown
	}
	deadline := time.Now().Add(m.rpc.CallTimeout())
	if own, ok := ctx.Deadline(); ok && own.Before(deadline) {
		return ctx, nil
	}
	inner, cancel := context.WithDeadline(ctx, deadline)
	return bounded{inner, cancel}, nil
}

// bounded is the context of a call until its contract's deadline. Grpc-go cancels the
// parent when the call ends, and that releases it.
type bounded struct {
	context.Context
	cancel context.CancelFunc
}

// Drain implements the server's side of framework.WithTransport: clients are told to go
// elsewhere, and the handlers of streams that the server shuts down.
func (s *Server) Drain() error {
	select {
	case <-s.served:
	default:
		return s.Close()
	}
	s.stopped.Do(func() { close(s.draining) })
	limit := time.NewTimer(s.host.DrainTimeout)
	defer limit.Stop()
	graceful := make(chan struct{})
	go func() { // ended by Stop below, unless a handler ignores its context for good
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	select {
	case <-graceful:
		return nil
	case <-limit.C:
	}
	s.grpc.Stop() // their contexts end
	return s.leftBehind()
}

// cutGrace is how long calls whose time to drain is over have to notice it.
const cutGrace = time.Second

// leftBehind waits for what has been cut.
func (s *Server) leftBehind() error {
	limit := time.NewTimer(cutGrace)
	defer limit.Stop()
	for s.inFlight.Load() > 0 {
		select {
		case <-s.idle:
		case <-limit.C:
			return fmt.Errorf("grpcserver: %d calls go on although their contexts have ended: a handler must return when its context ends", s.inFlight.Load())
		}
	}
	return nil
}

// Close implements the server's side of framework.WithTransport.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lis == nil {
		return nil
	}
	select {
	case <-s.served:
		s.grpc.Stop()
		return nil
	default:
		restart.Process().Forget(s.lis.Listener)
		return s.lis.Close()
	}
}

func (s *Server) release() {
	if s.inFlight.Add(-1) == 0 {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

// isDraining says whether Drain has begun.
func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}
