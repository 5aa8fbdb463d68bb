// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/restart"
	"github.com/sluice-rpc/sluice/tracing"
)

// ServerConfig says how an HTTP listener behaves. Zero values mean the defaults.
type ServerConfig struct {
	// Service is the name under which pages show the connections. Default "entry".
	Service string
	// CertFile and KeyFile are PEM files; with them the server speaks HTTPS (TLS
	// 1.2 or later, HTTP/2) and nothing else. Both or none.
	CertFile, KeyFile string
	// TLS is another way to say it, for certificates that change or that clients must
	// have, too; nil for none.
	TLS *tls.Config
	// ReadTimeout bounds reading one request, head and body. Default 15 s.
	ReadTimeout time.Duration
	// WriteTimeout bounds one answer. Default 30 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may stay without a request. Default 2 min.
	IdleTimeout time.Duration
	// LameDuck is how long a stopping server still serves while /readyz says no and
	// answers ask clients to leave: requests that are on their way are not lost.
	// Default 200 ms.
	LameDuck time.Duration
	// HandOver is how long a server that a new program has replaced, see package restart,
	// waits for its connections to be used once more: only then clients can be asked to
	// leave, and a connection that is closed under a request loses it. Default 5 s.
	HandOver time.Duration
	// Drain bounds the wait for running requests after that. Default 10 s.
	Drain time.Duration
	// Ready says why the process cannot serve now; nil, and a nil error, mean that
	// it can. It must return at once.
	Ready func() error
	// Log receives what net/http has to say. Nil means slog.Default().
	Log *slog.Logger
}

// Server is an HTTP listener with sane limits, /livez, /readyz and a stop that
// fails no accepted request.
type Server struct {
	cfg      ServerConfig
	http     *http.Server
	routes   routes // nil if the handler has none
	draining atomic.Bool

	mu    sync.Mutex
	conns map[*conn]struct{} // open ones; guarded by mu
}

// NewServer makes a server for h. It reads the certificate, so that a bad one is
// told before anything listens.
func NewServer(cfg ServerConfig, h http.Handler) (*Server, error) {
	s := &Server{cfg: cfg, conns: map[*conn]struct{}{}}
	s.routes, _ = h.(routes)
	s.cfg.Service = cmp.Or(cfg.Service, defaultService)
	if s.cfg.Log == nil {
		s.cfg.Log = slog.Default()
	}
	s.cfg.LameDuck = cmp.Or(cfg.LameDuck, 200*time.Millisecond)
	s.cfg.HandOver = cmp.Or(cfg.HandOver, 5*time.Second)
	s.cfg.Drain = cmp.Or(cfg.Drain, 10*time.Second)
	s.http = &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       cmp.Or(cfg.ReadTimeout, 15*time.Second),
		WriteTimeout:      cmp.Or(cfg.WriteTimeout, 30*time.Second),
		IdleTimeout:       cmp.Or(cfg.IdleTimeout, 2*time.Minute),
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		Handler:           s.wrap(h),
		ConnContext:       withConn,
		ConnState:         connState,
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("edge: give both a certificate and a key, or none")
	}
	if cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("edge: load certificate %s and key %s: %w", cfg.CertFile, cfg.KeyFile, err)
		}
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	if cfg.TLS != nil {
		if cfg.CertFile != "" {
			return nil, errors.New("edge: give either files of a certificate or TLS")
		}
		s.http.TLSConfig = cfg.TLS
	}
	return s, nil
}

func (s *Server) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		switch r.URL.Path {
		case "/livez":
			s.health(w, r, nil)
		case "/readyz":
			var err error
			if s.cfg.Ready != nil {
				err = s.cfg.Ready()
			}
			if s.draining.Load() {
				err = errors.New("stopping")
			}
			s.health(w, r, err)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

func (s *Server) health(w http.ResponseWriter, r *http.Request, err error) {
	trace := parentOf(r.Header).Trace
	if trace.IsZero() {
		trace = tracing.NewTraceID()
	}
	w.Header().Set("Traceparent", tracing.Traceparent(trace, tracing.NewSpanID(), false))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, err)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// Serve answers requests of ln until ctx ends, then lets those it has accepted
// finish. It closes ln. It returns nil after a stop that lost nothing.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	defer peers.Join(s)()
	done := make(chan error, 1)
	go func() { // ended by Shutdown or Close below, or by the listener's own failure
		if s.http.TLSConfig != nil {
			done <- s.http.ServeTLS(wholeAnswers{ln, s}, "", "")
			return
		}
		done <- s.http.Serve(wholeAnswers{ln, s})
	}()
	select {
	case err := <-done:
		return fmt.Errorf("edge: serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	if errors.Is(context.Cause(ctx), restart.ErrReplaced) {
		_ = ln.Close() // who connects from now on is the new program's
		<-done         //nolint:errcheck // it is that of the closed listener
		s.untilEmpty()
		return s.shutdown(ctx)
	}
	lame := time.NewTimer(s.cfg.LameDuck)
	defer lame.Stop()
	select {
	case err := <-done:
		return fmt.Errorf("edge: serve %s: %w", ln.Addr(), err)
	case <-lame.C:
	}
	return errors.Join(s.shutdown(ctx), closed(<-done))
}

func (s *Server) shutdown(ctx context.Context) error {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	err := s.http.Shutdown(stop)
	if err != nil {
		err = fmt.Errorf("edge: requests still running after %v were cut: %w", s.cfg.Drain, errors.Join(err, s.http.Close()))
	}
	return err
}

// untilEmpty waits until no connection is left, at most for HandOver.
func (s *Server) untilEmpty() {
	const look = 20 * time.Millisecond
	t := time.NewTicker(look)
	defer t.Stop()
	for end := time.Now().Add(s.cfg.HandOver); time.Now().Before(end); <-t.C {
		s.mu.Lock()
		open := len(s.conns)
		s.mu.Unlock()
		if open == 0 {
			return
		}
	}
}

// ServeAdmin serves what framework.Server has on its admin port, for a process of
// which the entry is all there is: /livez, /readyz, /metrics and the pages under
// /admin/. It ends with ctx, closes ln and then returns nil. ready may be nil.
func (e *Entry) ServeAdmin(ctx context.Context, ln net.Listener, ready func(context.Context) error) error {
	dashboard := admin.ForProcess()
	dashboard.Service, dashboard.State, dashboard.Log = defaultService, admin.NewState(ready), e.log
	dashboard.Token = func() string { return string(e.token) }
	settings := make([]admin.Setting, 0, len(e.settings))
	for _, set := range e.settings {
		settings = append(settings, admin.SettingOf(set))
	}
	dashboard.Config = func() ([]admin.Setting, []admin.Reload) { return settings, nil }
	if e.service != nil {
		dashboard.Service, dashboard.Door = e.service.Name(), e.service.Door()
	}
	return dashboard.Serve(ctx, ln, nil)
}

// closed drops the error that says no more than that Shutdown was called.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
