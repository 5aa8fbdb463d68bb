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
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

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
