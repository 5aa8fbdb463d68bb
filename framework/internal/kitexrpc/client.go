// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// ClientConfig is what the transport of a client needs.
type ClientConfig struct {
	Addrs          []string
	Connections    int // to each address
	MaxFrameBytes  int
	ConnectTimeout time.Duration
}

// Client makes calls to the instances of one service.
type Client struct {
	cfg   ClientConfig
	peers []*peer

	stop context.CancelFunc
	done sync.WaitGroup
}

// Dial starts connecting to every address and returns at once.
func Dial(cfg ClientConfig) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{cfg: cfg, stop: cancel}
	for _, addr := range cfg.Addrs {
		p := &peer{addr: addr}
		for range cfg.Connections {
			l := &link{addr: addr, cfg: &c.cfg, attempt: make(chan struct{})}
			p.links = append(p.links, l)
			c.done.Go(func() { l.run(ctx) })
		}
		c.peers = append(c.peers, p)
	}
	return c
}

// Close closes all connections. Calls in flight fail with Unavailable.
func (c *Client) Close() {
	c.stop()
	c.done.Wait()
}

// Call sends one attempt of a call and waits for its answer. A connection that was
// closed before anything was sent on it costs the call nothing but another pick.
func (c *Client) Call(ctx context.Context, call *interceptor.ClientCall) error {
	for {
		conn, err := c.pick(ctx, call)
		if err != nil {
			return err
		}
		if err = conn.call(ctx, call); !errors.Is(err, errNotSent) {
			return err
		}
		conn.stopUsing()
	}
}

// peer is one instance.
type peer struct {
	addr  string
	links []*link
	next  atomic.Uint32
}

// conn gives a connection that is up, nil if none is.
func (p *peer) conn() *clientConn {
	start := int(p.next.Add(1))
	for i := range p.links {
		if c := p.links[(start+i)%len(p.links)].conn.Load(); c != nil {
			return c
		}
	}
	return nil
}

// pick gives a connection to the less loaded of two instances drawn by chance
// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
// While connections are being made it waits for them, at most for the deadline;
// when every attempt has failed it gives up at once.
func (c *Client) pick(ctx context.Context, call *interceptor.ClientCall) (*clientConn, error) {
	n := len(c.peers)
	if n == 1 {
		if conn := c.peers[0].conn(); conn != nil {
			return conn, nil
		}
		return c.pickSlowly(ctx, call)
	}
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	a, b := c.peers[i].conn(), c.peers[j].conn()
	switch {
	case a != nil && (b == nil || a.inFlight.Load() <= b.inFlight.Load()):
		return a, nil
	case b != nil:
		return b, nil
	}
	return c.pickSlowly(ctx, call)
}

func (c *Client) pickSlowly(ctx context.Context, call *interceptor.ClientCall) (*clientConn, error) {
	for {
		var pending <-chan struct{}
		var lastErr error
		for _, p := range c.peers {
			if conn := p.conn(); conn != nil {
				return conn, nil
			}
			for _, l := range p.links {
				wait, err := l.state()
				if err == nil {
					pending = wait
				} else {
					lastErr = err
				}
			}
		}
		if pending == nil {
			return nil, &rpc.Error{
				Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true,
				Message: fmt.Sprintf("%s: no instance of the service can be reached: %v", call.Method.FullName(), lastErr),
			}
		}
		if err := waitFor(ctx, pending, call); err != nil {
			return nil, err
		}
	}
}

func waitFor(ctx context.Context, ready <-chan struct{}, call *interceptor.ClientCall) error {
	t := time.NewTimer(time.Until(call.Deadline))
	defer t.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return contextError(ctx, call, true)
	case <-t.C:
		return deadlineError(call, "waiting for a connection", true)
	}
}

// link keeps one connection to one address alive.
type link struct {
	addr string
	cfg  *ClientConfig
	conn atomic.Pointer[clientConn] // nil unless calls may be sent on it

	mu      sync.Mutex
	attempt chan struct{} // closed when the running attempt has ended; guarded by mu
	err     error         // of the last attempt, nil while one runs; guarded by mu
}

// Back-off between attempts to connect, doubled from first to last with a jitter
// of a half, as in gRPC's connection back-off protocol, but shorter: the callees
// are in the same campus.
const (
	backoffFirst = 50 * time.Millisecond
	backoffLast  = 2 * time.Second
	goodLife     = time.Second // a connection that lived so long resets the back-off
)

var (
	errClosed    = errors.New("the connection has been closed by Close")
	errShortLife = errors.New("the connection was closed soon after it was made")
	errNotSent   = errors.New("the connection was closed before the call was sent")
)

func (l *link) run(ctx context.Context) {
	backoff := backoffFirst
	for ctx.Err() == nil {
		began := time.Now()
		conn, err := l.dial(ctx)
		if err == nil {
			l.use(conn)
			select {
			case <-conn.unusable: // closed, or the server is going away
			case <-ctx.Done():
				_ = conn.conn.Close()
				<-conn.unusable
				conn.wait()
			}
			if time.Since(began) > goodLife {
				backoff = backoffFirst
				continue
			}
			err = errShortLife
		}
		l.fail(err)
		t := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		backoff = min(2*backoff, backoffLast)
		l.again()
	}
	l.fail(errClosed)
}

// use lets calls go out on a new connection.
func (l *link) use(conn *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn.left {
		return // already lost: run will see it
	}
	l.conn.Store(conn)
	close(l.attempt)
}

// lose is called once for every connection, when no more calls may be sent on it.
func (l *link) lose(conn *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.left = true
	if l.conn.CompareAndSwap(conn, nil) {
		l.attempt, l.err = make(chan struct{}), nil // run goes on to the next attempt
	}
}

// fail notes why the running attempt ended and lets the waiting callers go on.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.attempt)
	}
}

// again notes that an attempt runs once more.
func (l *link) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempt, l.err = make(chan struct{}), nil
}

// state gives what to wait for, or why there is nothing to wait for.
func (l *link) state() (<-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempt, l.err
}

// dial connects with package net and hands the socket to netpoll. Netpoll v0.7's own
// dialer may, when a connection is refused, still work on the number of a file
// descriptor that it has closed, and so on another connection's.
func (l *link) dial(ctx context.Context) (*clientConn, error) {
	d := net.Dialer{Timeout: l.cfg.ConnectTimeout}
	nc, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = nc.Close() }() // the duplicate lives on
	fd, err := duplicate(nc)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", l.addr, err)
	}
	np, err := netpoll.NewFDConnection(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", l.addr, err)
	}
	return newClientConn(l, np)
}

// duplicate gives a file descriptor of our own for a connection's socket.
func duplicate(nc net.Conn) (int, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T has no file descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dupErr)
}

// shards splits the table of waiting calls so that callers and reader seldom meet.
const shards = 16

type shard struct {
	mu    sync.Mutex
	calls map[int32]*pending // guarded by mu; nil once the connection is gone
	_     [40]byte           // a cache line of its own
}

// clientConn is one connection of a client.
type clientConn struct {
	writer
	link     *link
	addr     string
	maxFrame int
	left     bool // no more calls may be sent; guarded by link.mu
	seq      atomic.Int32
	inFlight atomic.Int64
	shards   [shards]shard

	leave    sync.Once
	unusable chan struct{} // closed when no more calls may be sent
}

func newClientConn(l *link, nc netpoll.Connection) (*clientConn, error) {
	c := &clientConn{link: l, addr: l.addr, maxFrame: l.cfg.MaxFrameBytes, unusable: make(chan struct{})}
	for i := range c.shards {
		c.shards[i].calls = map[int32]*pending{}
	}
	if err := c.init(nc, defaultWriteLimit); err != nil {
		_ = nc.Close()
		return nil, err
	}
	if err := nc.AddCloseCallback(func(netpoll.Connection) error { c.gone(); return nil }); err != nil {
		_ = nc.Close()
		return nil, err
	}
	if err := nc.SetOnRequest(c.read); err != nil {
		_ = nc.Close()
		return nil, err
	}
	if !nc.IsActive() { // closed before the callback was there
		c.gone()
	}
	return c, nil
}

// stopUsing makes the link look for another connection; calls in flight go on.
func (c *clientConn) stopUsing() {
	c.leave.Do(func() {
		c.link.lose(c)
		close(c.unusable)
	})
}

// gone fails every waiting call. It may run more than once.
func (c *clientConn) gone() {
	c.closed(netpoll.ErrConnClosed)
	c.stopUsing()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		calls := s.calls
		s.calls = nil
		s.mu.Unlock()
		for _, p := range calls {
			p.done <- lostError(c.addr)
		}
	}
}

func (c *clientConn) put(seq int32, p *pending) bool {
	s := &c.shards[uint32(seq)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		return false
	}
	s.calls[seq] = p
	return true
}

// take removes a waiting call. Whoever gets it, and nobody else, may answer it.
func (c *clientConn) take(seq int32) *pending {
	s := &c.shards[uint32(seq)%shards]
	s.mu.Lock()
	p := s.calls[seq]
	if p != nil {
		delete(s.calls, seq)
	}
	s.mu.Unlock()
	return p
}

// pending is a call that waits for its answer. The one who takes it out of the
// table sends exactly one value on done.
type pending struct {
	done  chan error // capacity 1
	res   proto.Message
	level uint16
	seq   int32
	conn  *clientConn
	timer *time.Timer // fires expire at the deadline
}

var pendingPool = sync.Pool{New: func() any {
	p := &pending{done: make(chan error, 1)}
	p.timer = time.AfterFunc(time.Hour, p.expire)
	p.timer.Stop()
	return p
}}

var errExpired = errors.New("expired")

func (p *pending) expire() {
	if p.conn.take(p.seq) != nil {
		p.done <- errExpired
	}
}

// call sends and waits. Encoding and writing happen in a function that has
// returned before the wait, so that their frames are not on a blocked stack.
func (c *clientConn) call(ctx context.Context, call *interceptor.ClientCall) error {
	p, err := c.send(call)
	if err != nil {
		return err
	}
	if done := c.foreignDone(ctx); done == nil {
		err = <-p.done
	} else {
		select {
		case err = <-p.done:
		case <-done:
			if c.take(p.seq) != nil {
				err = contextError(ctx, call, false)
			} else {
				err = <-p.done
			}
		}
	}
	return c.finish(p, call, err)
}

// foreignDone gives the channel to watch besides the call's own timer. The
// framework's own context needs no watching: its deadline is the call's, and
// asking it for Done would make the timer and channel that it is there to save.
func (c *clientConn) foreignDone(ctx context.Context) <-chan struct{} {
	if _, ours := ctx.(*interceptor.ServerCall); ours {
		return nil
	}
	return ctx.Done()
}

//go:noinline
func (c *clientConn) finish(p *pending, call *interceptor.ClientCall, err error) error {
	c.inFlight.Add(-1)
	call.Level = p.level
	p.res = nil
	if p.timer.Stop() { // else expire may still be looking at p: leave it to the collector
		p.conn = nil
		pendingPool.Put(p)
	}
	if err == errExpired { //nolint:errorlint // our own sentinel, never wrapped, on the hot path
		return deadlineError(call, "waiting for the answer", false)
	}
	return err
}

// send registers the call, arms its deadline, and hands its frame to the writer.
//
//go:noinline
func (c *clientConn) send(call *interceptor.ClientCall) (*pending, error) {
	size := proto.Size(call.Request)
	if size > c.maxFrame-maxFrameOverhead {
		return nil, &rpc.Error{
			Code: rpc.ResourceExhausted, Reason: rpc.ReasonDecode, NotRun: true,
			Message: fmt.Sprintf("%s: a request of %d bytes is larger than MaxFrameBytes of %d allows", call.Method.FullName(), size, c.maxFrame),
		}
	}
	p := pendingPool.Get().(*pending)
	seq := c.seq.Add(1)
	for seq == 0 { // zero is for control frames
		seq = c.seq.Add(1)
	}
	p.res, p.level, p.seq, p.conn = call.Response, levelOpen, seq, c
	if err := c.begin(call.Deadline); err != nil {
		p.res, p.conn = nil, nil
		pendingPool.Put(p)
		return nil, c.sendError(call, err)
	}
	var header [rpc.HeaderLen]byte
	call.Header.Put(header[:])
	start := len(c.buf)
	b := appendPrefix(c.buf, seq, typeCall, call.Method.Service, call.Method.Name, header[:], size)
	b, err := appendMessage(b, call.Request, size)
	if err == nil && !c.put(seq, p) {
		err = netpoll.ErrConnClosed
	}
	if err != nil {
		c.abort(start)
		p.res, p.conn = nil, nil
		pendingPool.Put(p)
		return nil, c.sendError(call, err)
	}
	c.buf = b
	c.inFlight.Add(1)
	p.timer.Reset(time.Until(call.Deadline))
	c.end()
	return p, nil
}

// sendError is the error of a call that was not sent.
func (c *clientConn) sendError(call *interceptor.ClientCall, err error) error {
	switch {
	case errors.Is(err, errBusy):
		return deadlineError(call, "waiting for room in the write buffer", true)
	case errors.Is(err, errEncode):
		return &rpc.Error{Code: rpc.InvalidArgument, Reason: rpc.ReasonDecode, NotRun: true, Message: call.Method.FullName() + ": " + err.Error()}
	}
	return errNotSent
}

func (c *clientConn) read(_ context.Context, nc netpoll.Connection) error {
	r := nc.Reader()
	for r.Len() > 0 {
		if err := c.readFrame(r); err != nil {
			_ = nc.Close()
			return err
		}
	}
	return nil
}

func (c *clientConn) readFrame(r netpoll.Reader) error {
	head, err := r.Peek(minFrame)
	if err != nil {
		return err
	}
	n, err := frameLen(head, c.maxFrame)
	if err != nil {
		return err
	}
	b, err := r.Next(n)
	if err != nil {
		return err
	}
	var f frame
	if err := f.parse(b); err != nil {
		return err
	}
	if f.seq == 0 {
		if f.reset {
			c.stopUsing()
			c.closeIfIdle()
		}
	} else if p := c.take(f.seq); p != nil { // else it came too late
		p.done <- p.answer(&f)
		c.closeIfIdle()
	}
	return r.Release()
}

// answer decodes in the reader's goroutine into the caller's message: no copy of
// the payload, and no deep stack for the one who waits.
func (p *pending) answer(f *frame) error {
	if len(f.header) >= replyHeaderLen && f.header[0] != 0 {
		p.level = be.Uint16(f.header[2:])
	}
	if f.kind == typeException {
		return parseError(f.payload)
	}
	if e := parseBizStatus(f); e != nil {
		return e
	}
	if err := proto.Unmarshal(f.payload, p.res); err != nil {
		return &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonDecode, Message: fmt.Sprintf("the answer is not a valid %s", p.res.ProtoReflect().Descriptor().FullName())}
	}
	return nil
}

// closeIfIdle closes a connection whose server is going away once nothing waits
// on it any more.
func (c *clientConn) closeIfIdle() {
	select {
	case <-c.unusable:
	default:
		return
	}
	waiting := 0
	for i := range c.shards {
		c.shards[i].mu.Lock()
		waiting += len(c.shards[i].calls)
	}
	for i := range c.shards {
		if waiting == 0 {
			c.shards[i].calls = nil // a caller that comes now takes another connection
		}
		c.shards[i].mu.Unlock()
	}
	if waiting == 0 {
		_ = c.conn.Close()
	}
}

func deadlineError(call *interceptor.ClientCall, doing string, notRun bool) error {
	return &rpc.Error{
		Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: notRun,
		Message: call.Method.FullName() + ": the deadline passed while " + doing,
	}
}

func contextError(ctx context.Context, call *interceptor.ClientCall, notRun bool) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return deadlineError(call, "waiting for the answer", notRun)
	}
	return &rpc.Error{
		Code: rpc.Canceled, Reason: rpc.ReasonCanceled, NotRun: notRun,
		Message: call.Method.FullName() + ": the caller gave up",
	}
}

func lostError(addr string) error {
	return &rpc.Error{
		Code: rpc.Unavailable, Reason: rpc.ReasonNetwork,
		Message: "the connection to " + addr + " was lost before the answer came; the method may have run",
	}
}
