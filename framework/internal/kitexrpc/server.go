// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/remote/remotesvr"
	npserver "github.com/cloudwego/kitex/pkg/remote/trans/netpoll"
	"github.com/cloudwego/netpoll"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/qos"
)

// ServerConfig is what the transport of a server needs.
type ServerConfig struct {
	Service  string // as pages show it
	Listener net.Listener
	// Turns says that other processes accept on the same socket: connections are spread.
	Turns  bool
	Lookup func(service, method []byte) *interceptor.Method // nil: there is no such method
	Limits
	DrainTimeout   time.Duration // longest a stop waits for the calls being served
	Threads, Queue int           // that serve, and calls that may wait for one; none: a goroutine for each call
	// Behind is told how long calls wait for a thread, in ms.
	Behind func(ms uint8)
	// Trusted callers are believed what they say of a call's priority; those under mutual
	// TLS always are.
	Trusted bool
	// TLS gives the configuration of one connection's handshake; nil serves in the clear.
	TLS func() *tls.Config
	// Level is what to tell callers that the server lets in.
	Level func() qos.Priority
	// Backlog is how long the work takes that waits there, in ms.
	Backlog func() uint8
	// Suppressed takes the reports of callers.
	Suppressed func(n uint16, p qos.Priority, method uint32)
	Items      *metrics.ServerTransport // of the connections; nil counts nothing
	Log        *slog.Logger
}

// Limits bound what peers may ask of a server. They may change while it serves.
type Limits struct {
	MaxFrameBytes  int
	MaxConnections int
	MaxInFlight    int           // calls being served at once
	ReadTimeout    time.Duration // longest a peer may take to send the rest of a frame; of new connections
	IdleTimeout    time.Duration // longest a connection may bring nothing; 0 for ever
}

// Limit changes the limits.
func (s *Server) Limit(l Limits) {
	s.limits.Store(&l)
	select {
	case s.relimited <- struct{}{}:
	default: // it has not been looked at since the last change
	}
}

// Server serves calls on one listener.
type Server struct {
	cfg     ServerConfig
	remote  remotesvr.Server
	stop    sync.Once
	leave   func()        // what shows its connections
	threads *threads      // nil: a goroutine for each call
	ended   chan struct{} // closed when the event loop has ended
	endErr  error         // why; readable once ended is closed

	overloaded, tooLate refusal

	limits   atomic.Pointer[Limits]
	inFlight atomic.Int64
	idle     chan struct{} // pinged when inFlight falls to zero or a connection ends

	shaking  handshakes
	quiet    atomic.Int64 // no connection's fault is logged before, in ns of Unix
	unlogged atomic.Int64 // faults since the last that was

	relimited chan struct{}  // pinged when limits change
	stopped   chan struct{}  // closed by Stop
	sweeper   sync.WaitGroup // Stop waits for it
	sweeping  sync.Mutex

	mu       sync.Mutex
	conns    map[*serverConn]struct{} // guarded by mu
	draining bool                     // guarded by mu
}

func init() {
	// Kitex logs each refused frame and each start through a logger of its own;
	// what matters of it is logged here.
	klog.SetLevel(klog.LevelFatal)
}

// Serve starts serving and returns when it does. If it fails the listener may be closed,
// or not.
func Serve(cfg ServerConfig) (*Server, error) {
	np, err := listenerOf(cfg.Listener, cfg.Turns)
	if err != nil {
		return nil, err
	}
	lis := &watchedListener{Listener: np, serves: make(chan struct{})}
	if cfg.Items == nil {
		cfg.Items = &metrics.ServerTransport{}
	}
	s := &Server{
		cfg: cfg, conns: map[*serverConn]struct{}{}, idle: make(chan struct{}, 1), ended: make(chan struct{}),
		overloaded: newRefusal(admit.Overloaded), tooLate: newRefusal(admit.TooLate),
		relimited: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	s.Limit(cfg.Limits)
	opt := &remote.ServerOption{
		TransServerFactory: npserver.NewTransServerFactory(),
		Listener:           lis,
		ExitWaitTime:       cfg.DrainTimeout,
		ReadWriteTimeout:   cfg.ReadTimeout,
	}
	if s.remote, err = remotesvr.NewServer(opt, (*serverHandler)(s)); err != nil {
		return nil, errors.Join(err, np.Close(), np.Close()) // the socket, and what the loop was given
	}
	s.threads = startThreads(cfg.Threads, cfg.Queue, cfg.Behind)
	errs := s.remote.Start()
	go func() { // Stop waits for it
		s.endErr = <-errs
		close(s.ended)
	}()
	select {
	case <-lis.serves:
		s.leave = peers.Join(s)
		s.sweeper.Go(s.sweeps)
	case <-s.ended:
		s.threads.stop(true)
		return nil, s.endErr
	}
	return s, nil
}

// Ended is closed when serving has ended, by Stop or by itself.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Err tells why serving has ended, once Ended is closed.
func (s *Server) Err() error { return s.endErr }

// Stop closes the listener, tells the clients to go elsewhere, serves what has
// been accepted, at most for the drain timeout, and closes the connections.
func (s *Server) Stop() error {
	var err error
	s.stop.Do(func() {
		defer s.leave()
		err = s.remote.Stop()
		<-s.ended
		close(s.stopped)
		s.sweeper.Wait()
		s.mu.Lock()
		left := s.accepted()
		s.mu.Unlock()
		for _, c := range left {
			c.ending.because(metrics.ClosedByUs)
			if c.open.Load() {
				c.sayGoodbye()
			}
			_ = c.conn.Close()
		}
		for _, c := range left {
			c.wait()
		}
		s.threads.stop(s.InFlight() == 0)
	})
	return err
}

// watchedListener tells when the event loop has begun to serve. Kitex starts the
// loop in the background and forgets a stop that comes before.
type watchedListener struct {
	netpoll.Listener
	once   sync.Once
	serves chan struct{}
}

// Fd implements netpoll.Listener: the loop asks for it when it registers.
func (l *watchedListener) Fd() int {
	l.once.Do(func() { close(l.serves) })
	return l.Listener.Fd()
}

// InFlight is the number of calls being served.
func (s *Server) InFlight() int { return int(s.inFlight.Load()) }

// lingerAfterIdle is how long a drained server waits for clients to close their
// connections before it does: a call may be on its way. Our own client closes at
// once, a stock kitex client never does.
const lingerAfterIdle = 200 * time.Millisecond

func (s *Server) drain(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	conns := s.accepted()
	s.mu.Unlock()
	for _, c := range conns {
		// A stock kitex v0.16 client panics on the control frame of its own protocol
		// (netpollmux decodes it without a configuration) and would lose its calls.
		if !c.stock.Load() && c.open.Load() {
			c.sayReset()
		}
	}
	linger := time.NewTimer(lingerAfterIdle)
	defer linger.Stop()
	for {
		s.mu.Lock()
		open := len(s.conns)
		s.mu.Unlock()
		if busy := s.inFlight.Load() > 0; !busy && open == 0 {
			return nil
		} else if busy {
			linger.Reset(lingerAfterIdle)
		}
		select {
		case <-s.idle:
		case <-linger.C:
			if s.inFlight.Load() == 0 {
				return nil
			}
		case <-ctx.Done():
			return errors.New("calls were still being served when drain_timeout had passed: raise it, or give them less time")
		}
	}
}

func (s *Server) ping() {
	select {
	case s.idle <- struct{}{}:
	default:
	}
}

func (s *Server) release() {
	if s.inFlight.Add(-1) == 0 {
		s.ping()
	}
}

// serverHandler is what kitex's shell calls.
type serverHandler Server

var _ remote.ServerTransHandler = (*serverHandler)(nil)

type connKey struct{}

// OnActive implements remote.ServerTransHandler: a connection has come.
func (h *serverHandler) OnActive(_ context.Context, nc net.Conn) (context.Context, error) {
	s := (*Server)(h)
	ctx, cancel := context.WithCancel(context.Background())
	c := &serverConn{server: s, ctx: ctx, cancel: cancel, peer: nc.RemoteAddr().String(), since: time.Now()}
	c.rest.since = c.since
	np := nc.(netpoll.Connection)
	_ = np.SetReadTimeout(s.limits.Load().ReadTimeout)
	if err := c.init(np, defaultWriteLimit, &s.cfg.Items.Traffic); err != nil {
		cancel()
		return ctx, err
	}
	s.mu.Lock()
	over := len(s.conns) >= s.limits.Load().MaxConnections
	if !over {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if over {
		cancel()
		s.cfg.Items.Refused.Inc()
		return ctx, errTooMany
	}
	s.cfg.Items.Accepted.Inc()
	if err := np.AddCloseCallback(func(netpoll.Connection) error { c.gone(); return nil }); err != nil {
		return ctx, err
	}
	if s.cfg.TLS != nil {
		c.await()
	} else {
		c.opens()
	}
	return context.WithValue(ctx, connKey{}, c), nil
}

// OnRead implements remote.ServerTransHandler: a connection has bytes. It runs on
// the connection's reading goroutine; an error closes the connection.
func (h *serverHandler) OnRead(ctx context.Context, _ net.Conn) error {
	c, ok := ctx.Value(connKey{}).(*serverConn)
	if !ok {
		return net.ErrClosed // refused by OnActive
	}
	if !c.open.Load() {
		if err := c.shake(ctx); err != nil {
			return err
		}
	}
	before := c.received.n.Load()
	err := c.read()
	h.cfg.Items.Received.Add(c.received.n.Load() - before)
	if err != nil {
		c.ending.because(causeOf(err))
	}
	return err
}

// OnError implements remote.ServerTransHandler.
func (h *serverHandler) OnError(_ context.Context, err error, nc net.Conn) {
	if errors.Is(err, netpoll.ErrEOF) || errors.Is(err, netpoll.ErrConnClosed) || errors.Is(err, net.ErrClosed) {
		return
	}
	// Strangers decide how often this happens: the log has a line a second of it.
	now := time.Now().UnixNano()
	if next := h.quiet.Load(); now < next || !h.quiet.CompareAndSwap(next, now+int64(time.Second)) {
		h.unlogged.Add(1)
		return
	}
	h.cfg.Log.Warn("connection closed", slog.String("peer", nc.RemoteAddr().String()), slog.Any("err", err), slog.Int64("others_before", h.unlogged.Swap(0)))
}

var errTooMany = errors.New("kitexrpc: too many connections are open: raise MaxConnections, or find out who opens them")

// GracefulShutdown implements remote.GracefulShutdown: the listener is closed.
func (h *serverHandler) GracefulShutdown(ctx context.Context) error { return (*Server)(h).drain(ctx) }

// The rest of remote.ServerTransHandler is for handlers that go through kitex's
// own codec and pipeline. Ours answers on its own.

// OnInactive implements remote.ServerTransHandler; the close callback has done it.
func (h *serverHandler) OnInactive(context.Context, net.Conn) {}

// OnMessage implements remote.ServerTransHandler.
func (h *serverHandler) OnMessage(ctx context.Context, _, _ remote.Message) (context.Context, error) {
	return ctx, nil
}

// SetPipeline implements remote.ServerTransHandler.
func (h *serverHandler) SetPipeline(*remote.TransPipeline) {}

// SetInvokeHandleFunc implements remote.InvokeHandleFuncSetter.
func (h *serverHandler) SetInvokeHandleFunc(endpoint.Endpoint) {}

// Write implements remote.ServerTransHandler.
func (h *serverHandler) Write(ctx context.Context, _ net.Conn, _ remote.Message) (context.Context, error) {
	return ctx, nil
}

// Read implements remote.ServerTransHandler.
func (h *serverHandler) Read(ctx context.Context, _ net.Conn, _ remote.Message) (context.Context, error) {
	return ctx, nil
}
