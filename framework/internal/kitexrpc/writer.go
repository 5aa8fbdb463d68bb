// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// writer combines the frames of many goroutines into few writes. Whoever appends
// to an idle writer flushes for everyone who appends meanwhile; there is no
// goroutine for it and no allocation per frame. The flush never blocks: when the
// socket is full a goroutine takes over, so that no caller outwaits its deadline
// for another's bytes.
type writer struct {
	conn  netpoll.Connection
	codec *codec // nil without TLS; set before the first frame
	limit int    // bytes that may wait before appenders do

	mu         sync.Mutex
	buf        []byte        // frames that no flush has taken yet
	spare      []byte        // the buffer of the last flush, for the next
	flushing   bool          // somebody flushes
	frames     uint          // appended so far
	resets     uint          // among them, that say the server is going away
	unanswered uint          // calls that were refused without a frame
	sent       uint64        // bytes that flushes have written
	skip       int           // flushes to go without gathering
	skipNext   int           // skip after the next yield that does not pay
	room       chan struct{} // closed when there is room again; nil if nobody waits
	err        error         // set once, when the connection is of no more use
	slow       sync.WaitGroup
	counted    uint // of frames; those that traffic has been told of
	traffic    *metrics.Traffic
	ending     ending

	fdMu sync.Mutex
	fd   int // -1 once the connection has been closed: the number may by then be another's
}

const (
	defaultWriteLimit = 4 << 20
	maxSpare          = 256 << 10 // a larger buffer was for a burst and is let go
	writeTimeout      = 5 * time.Second
	pieceBytes        = 64 << 10              // of what a slow peer is given at once
	worthAFrame       = 50 * time.Microsecond // longest yield that one more frame in the flush is worth
	maxSkip           = 1024
)

var errBusy = errors.New("the connection's write buffer is full")

func (w *writer) init(conn netpoll.Connection, limit int, traffic *metrics.Traffic) error {
	c, ok := conn.(interface{ Fd() int })
	if !ok {
		return fmt.Errorf("kitexrpc: connection %T has no file descriptor", conn)
	}
	w.conn, w.fd, w.limit, w.skipNext, w.traffic = conn, c.Fd(), limit, 1, traffic
	return nil
}

// begin locks the writer for appending to w.buf, waiting for room until the
// deadline; a zero deadline waits as long as the connection lives. After an error
// the writer is not locked.
func (w *writer) begin(deadline time.Time) error {
	w.mu.Lock()
	for w.err == nil && len(w.buf) > w.limit {
		if err := w.waitForRoom(deadline); err != nil {
			return err
		}
	}
	if err := w.err; err != nil {
		w.mu.Unlock()
		return err
	}
	return nil
}

// waitForRoom is called with mu held and returns with it held, or, with an error,
// not.
func (w *writer) waitForRoom(deadline time.Time) error {
	if w.room == nil {
		w.room = make(chan struct{})
	}
	room := w.room
	w.mu.Unlock()
	if deadline.IsZero() {
		<-room
	} else {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		select {
		case <-room:
		case <-t.C:
			return errBusy
		}
	}
	w.mu.Lock()
	return nil
}

// abort unlocks the writer and drops what was appended since its length was n.
func (w *writer) abort(n int) {
	w.buf = w.buf[:n]
	w.mu.Unlock()
}

// end unlocks the writer and sees to it that the frame that was appended is sent.
func (w *writer) end() {
	w.frames++
	if w.flushing {
		w.mu.Unlock()
		return
	}
	w.flushing = true
	w.gather()
	w.flush()
}

// flush is called with mu held and flushing set; it returns without.
func (w *writer) flush() {
	for w.err == nil && (len(w.buf) > 0 || w.owes()) {
		out := w.take()
		w.mu.Unlock()
		wire, err := w.seal(out)
		n := 0
		if err == nil {
			n, err = w.writeNow(wire)
		}
		if err == nil && n < len(wire) {
			w.slow.Go(func() { w.writeSlowly(out, wire, n) })
			return // w.flushing stays: the goroutine has taken over
		}
		w.mu.Lock()
		w.done(out, wire, err)
	}
	w.release()
}

// owes says whether TLS has something of its own to say.
func (w *writer) owes() bool { return w.codec != nil && w.codec.owes() }

// sayGoodbye tells the peer, if there is TLS, that nothing more comes: a connection that
// ends without has been cut.
func (w *writer) sayGoodbye() {
	if w.codec != nil {
		_ = w.codec.tls.CloseWrite()
		w.Flush()
	}
}

// seal gives frames as they go out.
func (w *writer) seal(frames []byte) ([]byte, error) {
	if w.codec == nil {
		return frames, nil
	}
	return w.codec.seal(frames)
}

// add unlocks the writer after an append and leaves the frame to the next flush.
func (w *writer) add() {
	w.frames++
	w.mu.Unlock()
}

// Flush sends what add has left.
func (w *writer) Flush() {
	w.mu.Lock()
	if w.flushing || len(w.buf) == 0 && !w.owes() || w.err != nil {
		w.mu.Unlock()
		return
	}
	w.flushing = true
	w.flush()
}

// gather lets the goroutines that are ready to run go first, so that what they
// append shares the flush: one system call for a batch costs half the CPU of a
// call. Where they compute for long instead, the yield does not pay: it is then left
// out, for twice as many flushes each time. It is called and returns with mu held.
func (w *writer) gather() {
	if w.skip > 0 {
		w.skip--
		return
	}
	before := w.frames
	w.mu.Unlock()
	began := time.Now()
	runtime.Gosched()
	took := time.Since(began)
	w.mu.Lock()
	if took <= worthAFrame*time.Duration(w.frames-before+1) {
		w.skipNext = 1
		return
	}
	w.skip = w.skipNext
	w.skipNext = min(2*w.skipNext, maxSkip)
}

// writeSlowly sends the rest of out and all that has come meanwhile, waiting for
// the socket. A peer that takes nothing for the write timeout loses the connection.
func (w *writer) writeSlowly(out, wire []byte, sent int) {
	giveUp := time.AfterFunc(writeTimeout, func() {
		w.ending.because(metrics.ClosedSlow)
		_ = w.conn.Close()
	})
	defer giveUp.Stop()
	err := w.writePieces(wire[sent:], giveUp)
	w.mu.Lock()
	w.done(out, wire, err)
	for w.err == nil && (len(w.buf) > 0 || w.owes()) {
		out = w.take()
		w.mu.Unlock()
		if wire, err = w.seal(out); err == nil {
			err = w.writePieces(wire, giveUp)
		}
		w.mu.Lock()
		w.done(out, wire, err)
	}
	w.release()
}

// writePieces writes p and puts off giving up with each piece that the peer has taken: one
// that takes them slowly, since there is much to do there, is not one that takes nothing.
func (w *writer) writePieces(p []byte, giveUp *time.Timer) error {
	for len(p) > 0 {
		piece := p[:min(len(p), pieceBytes)]
		giveUp.Reset(writeTimeout)
		if _, err := w.conn.Write(piece); err != nil {
			return err
		}
		p = p[len(piece):]
	}
	return nil
}

// release ends the flushing. It is called with mu held and returns without. After
// an error it closes the connection, whose reader tells everyone who waits; that
// must be without mu, since the close callback takes it.
func (w *writer) release() {
	w.flushing = false
	failed := w.err != nil
	w.mu.Unlock()
	if failed {
		_ = w.conn.Close()
	}
}

// take gives all waiting bytes to a flush. It is called with mu held.
func (w *writer) take() []byte {
	out := w.buf
	w.buf, w.spare = w.spare[:0], nil
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
	return out
}

// done ends a flush of out, which went over the wire as TLS has sealed it. It is called
// with mu held.
func (w *writer) done(out, wire []byte, err error) {
	if w.codec != nil {
		w.codec.sent(wire)
	}
	if cap(out) <= maxSpare {
		w.spare = out
	}
	if err == nil {
		w.sent += uint64(len(out))
		w.traffic.Sent.Add(uint64(len(out)))
		w.traffic.Flushes.Inc()
		w.traffic.Frames.Add(uint64(w.frames - w.counted))
		w.counted = w.frames
	}
	if err != nil && w.err == nil {
		w.ending.because(causeOf(err))
		w.err = fmt.Errorf("write: %w", err)
	}
}

// writeNow writes what the socket takes at once, past netpoll's own buffer.
func (w *writer) writeNow(p []byte) (int, error) {
	w.fdMu.Lock()
	defer w.fdMu.Unlock()
	if w.fd < 0 {
		return 0, netpoll.ErrConnClosed
	}
	for {
		// Raw, as in netpoll: a write that never blocks need not tell the scheduler.
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// closed is called by netpoll's close callback, before the file descriptor is
// closed: from here on nobody writes to it.
func (w *writer) closed(err error) {
	w.fdMu.Lock()
	w.fd = -1
	w.fdMu.Unlock()

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// wait returns when no goroutine of the writer is left.
func (w *writer) wait() { w.slow.Wait() }
