// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

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
	link   *link
	addr   string
	local  string // address on this side, which netpoll does not know
	left   bool   // no more calls may be sent; guarded by link.mu
	seq    atomic.Int32
	shards [shards]shard

	leave    sync.Once
	endOnce  sync.Once
	since    time.Time
	reader   dialedReader
	received count                 // by the reader
	pings    atomic.Uint32         // of the sequence numbers
	failed   atomic.Pointer[error] // of reading
	told     atomic.Bool           // the server has asked to leave it
	unusable chan struct{}         // closed when no more calls may be sent
	ended    chan struct{}         // closed when the connection is
}

func newClientConn(l *link, nc netpoll.Connection, k *codec, local string) (*clientConn, error) {
	c := &clientConn{link: l, addr: l.addr, local: local, unusable: make(chan struct{}), ended: make(chan struct{}), since: time.Now()}
	for i := range c.shards {
		c.shards[i].calls = map[int32]*pending{}
	}
	c.codec, c.reader.Reader = k, nc.Reader()
	if err := c.init(nc, defaultWriteLimit, &l.cfg.Load().Items.Traffic); err != nil {
		_ = nc.Close()
		return nil, err
	}
	l.cfg.Load().Items.Connected.Inc()
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
	c.ending.count(c.traffic)
	c.stopUsing()
	c.endOnce.Do(func() { close(c.ended) })
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
	done    chan error // capacity 1
	res     proto.Message
	level   qos.Priority
	backlog uint8
	heard   bool // an answer has come
	garbled bool // and cannot be read
	kept    bool // the server makes a record
	size    int  // of it, in bytes
	seq     int32
	conn    *clientConn
	timer   *time.Timer // fires expire at the deadline
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
func (c *clientConn) call(ctx context.Context, call *interceptor.ClientCall, report admission.Report) error {
	p, err := c.send(call, report)
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
				err = contextError(ctx, call)
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
	call.Level, call.Backlog, call.Answered, call.Garbled, call.Below, call.ResponseBytes = p.level, p.backlog, p.heard, p.garbled, p.kept, p.size
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
func (c *clientConn) send(call *interceptor.ClientCall, report admission.Report) (*pending, error) {
	size := proto.Size(call.Request)
	if longest := c.link.cfg.Load().MaxFrameBytes; size > longest-maxFrameOverhead {
		return nil, &rpc.Error{
			Code: rpc.ResourceExhausted, Reason: rpc.ReasonDecode, NotRun: true,
			Message: fmt.Sprintf("%s: a request of %d bytes is larger than MaxFrameBytes of %d allows", call.Method.FullName(), size, longest),
		}
	}
	p := pendingPool.Get().(*pending)
	seq := c.seq.Add(1)
	for seq == 0 { // zero is for control frames
		seq = c.seq.Add(1)
	}
	p.res, p.level, p.backlog, p.heard, p.garbled, p.kept, p.size, p.seq, p.conn = call.Response, qos.LastPriority, 0, false, false, false, 0, seq, c
	call.RequestBytes = size
	if err := c.begin(call.Deadline); err != nil {
		p.res, p.conn = nil, nil
		pendingPool.Put(p)
		return nil, c.sendError(call, err)
	}
	var room [rpc.HeaderLen + rpc.ReportLen]byte
	header := room[:rpc.HeaderLen]
	call.Header.Put(header)
	if report.Count > 0 {
		header = appendReport(header, report)
	}
	start := len(c.buf)
	b := appendPrefix(c.buf, seq, typeCall, call.Method.Service, call.Method.Name, call.Caller, header, size)
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
	var r source = &c.reader
	if c.codec != nil {
		r = c.codec
		defer c.codec.rest()
		defer c.Flush() // an answer of TLS itself
		if !c.codec.retired && c.codec.aged(time.Now()) {
			c.codec.retired = true
			c.stopUsing()
			defer c.closeIfIdle()
		}
	}
	before := c.received.n.Load()
	defer func() { c.traffic.Received.Add(c.received.n.Load() - before) }()
	for r.Len() > 0 {
		if err := c.readFrame(r); err != nil {
			c.ending.because(causeOf(err))
			c.failed.CompareAndSwap(nil, &err)
			_ = nc.Close()
			return err
		}
	}
	return nil
}

func (c *clientConn) readFrame(r source) error {
	head, err := r.Peek(minFrame)
	if err != nil {
		return err
	}
	n, err := frameLen(head, c.link.cfg.Load().MaxFrameBytes)
	if err != nil {
		c.ending.because(metrics.ClosedMalformed)
		return err
	}
	b, err := r.Next(n)
	if err != nil {
		return err
	}
	c.received.add(n)
	var f frame
	if err := f.parse(b); err != nil {
		c.ending.because(metrics.ClosedMalformed)
		return err
	}
	if f.seq == 0 {
		if f.reset {
			c.told.Store(true)
			c.stopUsing()
			c.closeIfIdle()
		}
	} else if p := c.take(f.seq); p != nil {
		p.done <- p.answer(&f)
		c.closeIfIdle()
	} else {
		c.link.cfg.Load().Items.LateReplies.Inc()
		c.closeIfIdle() // whoever gave up may have been the last
	}
	return r.Release()
}

// answer decodes in the reader's goroutine into the caller's message: no copy of
// the payload, and no deep stack for the one who waits.
func (p *pending) answer(f *frame) error {
	if len(f.header) >= replyHeaderLeast && f.header[0] != 0 {
		p.level, p.kept = qos.Priority(be.Uint16(f.header[2:])), f.header[1]&replyKept != 0
		if len(f.header) >= replyHeaderLen {
			p.backlog = f.header[4]
		}
	}
	p.heard, p.size = true, f.size
	if f.kind == typeException {
		e := parseError(f.payload)
		p.garbled = e == errMalformed
		return e
	}
	if e := parseBizStatus(f); e != nil {
		return e
	}
	if err := proto.Unmarshal(f.payload, p.res); err != nil {
		p.garbled = true
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
		c.ending.because(metrics.ClosedByPeer) // it has said that it is going away
		c.sayGoodbye()
		_ = c.conn.Close()
	}
}

func deadlineError(call *interceptor.ClientCall, doing string, notRun bool) error {
	return &rpc.Error{
		Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: notRun,
		Message: call.Method.FullName() + ": the deadline passed while " + doing,
	}
}

func contextError(ctx context.Context, call *interceptor.ClientCall) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return deadlineError(call, "waiting for the answer", false)
	}
	return &rpc.Error{
		Code: rpc.Canceled, Reason: rpc.ReasonCanceled,
		Message: call.Method.FullName() + ": the caller gave up",
	}
}

func lostError(addr string) error {
	return &rpc.Error{
		Code: rpc.Unavailable, Reason: rpc.ReasonNetwork,
		Message: "the connection to " + addr + " was lost before the answer came; the method may have run",
	}
}
