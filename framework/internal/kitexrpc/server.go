// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
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
		left := make([]*serverConn, 0, len(s.conns))
		for c := range s.conns {
			left = append(left, c)
		}
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
	conns := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
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
			return errors.New("calls were still being served when the drain timeout passed")
		}
	}
}

func (s *Server) ping() {
	select {
	case s.idle <- struct{}{}:
	default:
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

// serverConn is one connection of a server.
type serverConn struct {
	writer
	server *Server
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	peer   string
	since  time.Time
	stock  atomic.Bool // the client does not send our header
	open   atomic.Bool // frames may be sent: there is no TLS, or its handshake is done

	place    *list.Element // among those whose handshake is not done; guarded by Server.shaking.mu
	counted  atomic.Bool   // the end of the handshake
	late     atomic.Bool   // the handshake was not done in time
	crowded  atomic.Bool   // or had to make room for another
	overtime *time.Timer   // ends it
	identity string        // of the peer, as its certificate proves

	rest rest

	// What the reading goroutine has seen so far.
	calls, pings, received count

	// The rest is the reading goroutine's.
	frame    frame                   // that is being read
	large    source                  // where its payload still is, if that is large
	left     int                     // bytes of a large frame that have not been read
	hurried  bool                    // and for which there is a limit of time
	overlong *time.Timer             // that limit; nil until there was one
	largeErr error                   // of reading it
	spare    *interceptor.ServerCall // one that was refused: the next may have its memory
	batch    admit.Batch             // whose answers stand in buffers because of what was read
}

var _ interceptor.Origin = (*serverConn)(nil)

func (c *serverConn) gone() {
	c.closed(netpoll.ErrConnClosed)
	c.ending.count(c.traffic)
	c.cancel()
	if c.overlong != nil { // nobody reads any more
		c.overlong.Stop()
	}
	if c.overtime != nil {
		c.overtime.Stop()
		c.server.shaking.done(c)
		if !c.counted.Load() { // nothing has come at all
			c.server.cfg.Items.Handshakes[c.faultOf(netpoll.ErrEOF)].Inc()
		}
	}
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	c.server.ping()
}

// await gives the connection a place among those whose handshake is to come, for so long
// as one may take. The handshake begins with the first bytes that come.
func (c *serverConn) await() {
	s := c.server
	c.overtime = time.AfterFunc(min(handshakeTimeout, s.limits.Load().ReadTimeout), func() { c.giveUpShaking(&c.late) })
	if oldest := s.shaking.add(c); oldest != nil {
		oldest.crowded.Store(true)
		oldest.closeUnshaken()
	}
}

func (c *serverConn) giveUpShaking(why *atomic.Bool) {
	if c.server.shaking.done(c) {
		why.Store(true)
		c.closeUnshaken()
	}
}

// closeUnshaken closes a connection whose handshake will not be done.
func (c *serverConn) closeUnshaken() {
	c.ending.because(metrics.ClosedSlow)
	_ = c.conn.Close()
}

// shake does the handshake, on the connection's reading goroutine.
func (c *serverConn) shake(ctx context.Context) error {
	s := c.server
	k := newCodec(c.conn, tls.Server, s.cfg.TLS(), s.limits.Load().ReadTimeout)
	err := k.handshake(context.WithoutCancel(ctx)) // whose end is no news: the connection is closed by then
	inTime := s.shaking.done(c)
	c.overtime.Stop()
	if err == nil && !inTime {
		err = net.ErrClosed
	}
	if err != nil {
		s.cfg.Items.Handshakes[c.faultOf(err)].Inc()
		c.counted.Store(true)
		c.ending.because(metrics.ClosedOnError)
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.cfg.Items.Handshakes[metrics.HandshakeOK].Inc()
	c.counted.Store(true)
	c.codec = k // nothing is written before open is set
	c.identity = k.peer
	c.opens()
	return nil
}

// opens lets frames be sent, the first of which asks to leave if the server drains: drain
// asks those only that are open by then.
func (c *serverConn) opens() {
	c.server.mu.Lock()
	c.open.Store(true)
	draining := c.server.draining
	c.server.mu.Unlock()
	if draining {
		c.sayReset()
	}
}

func (c *serverConn) faultOf(err error) metrics.Handshake {
	if c.crowded.Load() {
		return metrics.HandshakeCrowded
	}
	return handshakeFault(err, c.late.Load())
}

// source is where frames are read.
func (c *serverConn) source() source {
	if c.codec != nil {
		return c.codec
	}
	return c.conn.Reader()
}

func (c *serverConn) sayReset() {
	if c.begin(time.Now().Add(writeTimeout)) != nil {
		return // it is gone anyway
	}
	c.buf = appendReset(c.buf)
	c.resets++
	c.end()
}

func (c *serverConn) read() error {
	defer c.batch.Flush()
	r := c.source()
	if c.codec != nil {
		defer c.codec.rest()
		defer c.Flush() // an answer of TLS itself
		if err := c.checkAge(); err != nil {
			return err
		}
	}
	for r.Len() > 0 {
		if c.left > 0 {
			if err := errors.Join(c.discard(r), r.Release()); err != nil {
				return err
			}
			continue
		}
		head, err := r.Peek(minFrame) // waits for a peer that sends in small pieces, at most the read timeout
		if err != nil {
			return err
		}
		n, err := frameLen(head, c.server.limits.Load().MaxFrameBytes)
		if err != nil {
			return c.malformed(faultOf(err), err)
		}
		if n > largeFrame {
			err = c.readLarge(r, n)
		} else {
			err = c.readSmall(r, n)
		}
		if err != nil {
			return err
		}
		c.received.add(n)
		if err := r.Release(); err != nil {
			return err
		}
	}
	c.hurry()
	return nil
}

// checkAge sends the client of a connection that is to be replaced elsewhere, and closes
// that of one that has not gone when it can no longer prove who it is.
func (c *serverConn) checkAge() error {
	now := time.Now()
	if !c.codec.aged(now) {
		return nil
	}
	if !c.codec.retired {
		c.codec.retired = true
		c.sayReset()
	}
	if c.codec.outlived(now) {
		c.ending.because(metrics.ClosedByUs)
		return errOutlived
	}
	return nil
}

var errOutlived = errors.New("kitexrpc: the peer's certificate has ended, and it has not made a new connection")

func (c *serverConn) readSmall(r source, n int) error {
	p, err := r.Next(n)
	if err != nil {
		return err
	}
	if err := c.frame.parse(p); err != nil {
		return c.malformed(metrics.FrameMalformed, err)
	}
	c.handle(&c.frame)
	return nil
}

// malformed counts a frame that cannot be read, which ends the connection.
func (c *serverConn) malformed(f metrics.FrameFault, err error) error {
	c.server.cfg.Items.Faults[f].Inc()
	c.ending.because(metrics.ClosedMalformed)
	return err
}

const (
	largeFrame = 64 << 10 // from here on a frame is decided about before all of it has come
	largeHead  = 4 << 10  // what is looked at for that
)

// readLarge reads a frame whose payload is left where it is unless the call is let in:
// a refused one costs no memory. One that is let in, and whose peer sends slowly, holds
// a slot that is seen to be asleep.
func (c *serverConn) readLarge(r source, n int) error {
	p, err := r.Peek(largeHead)
	if err != nil {
		return err
	}
	switch err = c.frame.parseHead(p, n); {
	case errors.Is(err, errShort): // a header of unusual length
		return c.readSmall(r, n)
	case err != nil:
		return c.malformed(metrics.FrameMalformed, err)
	}
	c.large, c.left = r, n
	c.handle(&c.frame)
	c.large = nil
	return c.largeErr
}

// discard skips what has come of a payload that nobody wants.
func (c *serverConn) discard(r source) error {
	n := min(c.left, r.Len())
	if c.left -= n; c.left == 0 && c.hurried {
		c.hurried = false
		c.overlong.Stop()
	}
	return r.Skip(n)
}

// Payload implements interceptor.Origin.
func (c *serverConn) Payload() (p []byte, own bool, err error) {
	f := &c.frame
	if c.large == nil {
		return f.payload, false, nil
	}
	size := f.size // the head dies with the next read
	if err = c.large.Skip(c.left - size); err == nil {
		p, err = c.large.ReadBinary(size)
	}
	c.left = 0
	if err != nil {
		c.largeErr = err
		c.cancel() // a call that has been let in meanwhile must not run on half a request
		return nil, true, errGone
	}
	return p, true, nil
}

// handle decides about one frame. When it returns nothing refers to the read
// buffer any more.
func (c *serverConn) handle(f *frame) {
	if f.seq == 0 {
		return // control frames are the server's to send
	}
	c.calls.add(1)
	if f.kind != typeCall {
		c.replyError(f.seq, f.method, &rpc.Error{
			Code: rpc.Unimplemented, Reason: rpc.ReasonUnknown, NotRun: true,
			Message: "only calls that wait for an answer are served",
		}, false)
		return
	}
	if f.header == nil {
		c.stock.Store(true)
		c.server.cfg.Items.Foreign.Inc()
	}
	trusted := c.server.cfg.Trusted || c.codec != nil
	if trusted {
		if n, p, method := parseReport(f.header); n > 0 {
			c.server.cfg.Suppressed(n, p, method)
		}
	}
	m := c.server.cfg.Lookup(f.service, f.method)
	if m == nil {
		if string(f.service) == pingService {
			c.pings.add(1)
			c.calls.add(-1) // nobody's call
		} else {
			c.server.cfg.Items.Faults[metrics.FrameUnknownMethod].Inc()
		}
		c.replyError(f.seq, f.method, &rpc.Error{
			Code: rpc.Unimplemented, Reason: rpc.ReasonUnknown, NotRun: true,
			Message: "unknown method " + printable(f.service) + "/" + printable(f.method),
		}, false)
		return
	}
	in := interceptor.Incoming{
		Conn: c.ctx, Origin: c, Peer: c.peer, Seq: f.seq,
		Trusted: trusted, Identity: c.identity, Header: f.header, Caller: f.caller, Size: f.size,
	}
	call := m.NewCall(&in, c.spare, time.Now())
	if c.server.inFlight.Add(1) > int64(c.server.limits.Load().MaxInFlight) {
		c.server.release()
		c.server.cfg.Items.Faults[metrics.FrameOverLimit].Inc()
		call.TurnAway(admit.Overloaded)
		c.refuse(f.seq, admit.Overloaded, nil)
		c.batch.Add(c)
		c.spare = call
		return
	}
	c.spare = nil
	switch waits, refused := call.Arrive(&c.batch); {
	case refused != nil:
		c.server.release()
		c.refuse(f.seq, refused, f.method)
		c.batch.Add(c)
		c.spare = call
	case !waits:
		c.start(call)
	}
}

// Serve implements interceptor.Origin.
func (c *serverConn) Serve(call *interceptor.ServerCall) { c.start(call) }

// Refuse implements interceptor.Origin.
func (c *serverConn) Refuse(call *interceptor.ServerCall, err *rpc.Error) {
	c.refuse(call.Seq, err, nil)
	c.server.release()
}

// refuse appends the answer of a call that is not run, for the next flush. It never
// waits: a peer that takes no answers gets none, and its deadlines end its calls.
func (c *serverConn) refuse(seq int32, err *rpc.Error, method []byte) {
	c.mu.Lock()
	if c.err != nil || len(c.buf) > c.limit {
		c.unanswered++
		c.mu.Unlock()
		return
	}
	level, backlog := c.server.cfg.Level(), c.server.cfg.Backlog()
	switch err {
	case admit.Overloaded:
		c.buf = c.server.overloaded.append(c.buf, seq, level, backlog)
	case admit.TooLate:
		c.buf = c.server.tooLate.append(c.buf, seq, level, backlog)
	default:
		c.buf = appendErrorReply(c.buf, seq, method, level, backlog, err, false)
	}
	c.add()
}

func (c *serverConn) serve(call *interceptor.ServerCall) {
	if c.ctx.Err() == nil {
		res, err := call.Run()
		c.answer(call, res, err)
	} else { // it has waited, and nobody waits for it any more
		call.End(errGone, 0)
	}
	call.Leave()
	c.server.release()
}

// answer is kept out of line, as reply is.
//
//go:noinline
func (c *serverConn) answer(call *interceptor.ServerCall, res proto.Message, err *rpc.Error) {
	sent := 0
	if err == nil {
		sent, err = c.reply(call, res)
	}
	if err != nil {
		c.replyError(call.Seq, []byte(call.Contract().Name), err, call.Keeps())
	}
	call.End(err, sent)
}

func (s *Server) release() {
	if s.inFlight.Add(-1) == 0 {
		s.ping()
	}
}

var errGone = &rpc.Error{Code: rpc.Canceled, Reason: rpc.ReasonCanceled, NotRun: true, Message: "the caller has gone"}

// reply sends a response and gives its size. It gives an error when the response
// cannot be sent but an error reply still can; a dead connection is nobody's error any
// more.
//
// It is kept out of line: its frame must not stay on the stack of a blocked call.
//
//go:noinline
func (c *serverConn) reply(call *interceptor.ServerCall, res proto.Message) (int, *rpc.Error) {
	method := call.Contract().Name
	size := proto.Size(res)
	if size > c.server.limits.Load().MaxFrameBytes-maxFrameOverhead {
		return 0, &rpc.Error{Code: rpc.ResourceExhausted, Reason: rpc.ReasonDecode, Message: "the response is larger than MaxFrameBytes; ask for less, or page"}
	}
	if c.begin(time.Time{}) != nil {
		return size, nil
	}
	start := len(c.buf)
	header := replyHeader(c.server.cfg.Level(), c.server.cfg.Backlog())
	if call.Keeps() {
		header[1] = replyKept
	}
	b, err := appendMessage(appendPrefix(c.buf, call.Seq, typeReply, "", method, "", header[:], size), res, size)
	if err != nil {
		c.abort(start)
		c.server.cfg.Log.Error("response not sent", slog.String("method", method), slog.Any("err", err))
		return 0, &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonDecode, Message: "the response could not be encoded"}
	}
	c.buf = b
	c.end()
	return size, nil
}

func (c *serverConn) replyError(seq int32, method []byte, e *rpc.Error, keeps bool) {
	if c.begin(time.Time{}) != nil {
		return
	}
	c.buf = appendErrorReply(c.buf, seq, method, c.server.cfg.Level(), c.server.cfg.Backlog(), e, keeps)
	c.end()
}

func appendErrorReply(b []byte, seq int32, method []byte, level qos.Priority, backlog uint8, e *rpc.Error, keeps bool) []byte {
	payload := appendError(nil, e)
	header := replyHeader(level, backlog)
	if keeps {
		header[1] = replyKept
	}
	return append(appendPrefix(b, seq, typeException, "", string(method), "", header[:], len(payload)), payload...)
}

// parseReport reads what a caller's header says of the calls that it has held back; n
// is zero if it says nothing.
func parseReport(header []byte) (n uint16, p qos.Priority, method uint32) {
	if len(header) < rpc.HeaderLen+rpc.ReportLen || header[0] == 0 {
		return 0, 0, 0
	}
	r := header[rpc.HeaderLen:]
	return be.Uint16(r), min(qos.Priority(be.Uint16(r[2:])), qos.LastPriority), be.Uint32(r[4:])
}

func appendReport(b []byte, r admission.Report) []byte {
	b = be.AppendUint16(b, r.Count)
	b = be.AppendUint16(b, uint16(r.Priority))
	return be.AppendUint32(b, uint32(r.Method))
}

// maxFrameOverhead bounds what a frame holds besides its message.
const maxFrameOverhead = 1 << 10

// printable gives at most 128 bytes of a name that a stranger sent, with anything
// unusual replaced.
func printable(name []byte) string {
	b := []byte(string(name[:min(len(name), 128)]))
	for i, ch := range b {
		if ch < '!' || ch > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
