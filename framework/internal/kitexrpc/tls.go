// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// A source is where frames are read: netpoll's own reader, or a codec.
type source interface {
	Len() int
	Peek(n int) ([]byte, error)
	Next(n int) ([]byte, error)
	Skip(n int) error
	ReadBinary(n int) ([]byte, error)
	Release() error
}

// A codec puts TLS between netpoll and the frames, as ADR 4 says: crypto/tls is given the
// whole records that netpoll has, and what it seals is collected for the writer. Nothing
// waits outside of the handshake but who reads the rest of a frame or of a record, at most
// for the read timeout.
//
// Its reading half belongs to the reading goroutine, its sealing half to whoever flushes.
type codec struct {
	np      netpoll.Connection
	wire    wire
	tls     *tls.Conn
	timeout time.Duration // of a read
	peer    string        // the other side's identity
	until   time.Time     // its certificate is good
	retired bool          // the connection is to end soon; the reading goroutine's
	limited bool          // a wait is going on; likewise

	buf []byte // decrypted; nil while there is nothing
	pos int    // of buf, what has been taken
	err error  // of reading
}

// recordLimit is after how many records of one direction a connection is ended in good
// order, in favour of one with fresh keys: RFC 8446, section 5.5, allows 2^24.5 under one
// key of AES-GCM, and crypto/tls begins no change of keys.
const recordLimit = 1 << 24

const (
	recordHeader  = 5
	maxRecord     = 16<<10 + 256 // of TLS 1.3, without its header
	decryptBuffer = 32 << 10     // what a connection that has something to read has at least
)

// errNoMore is temporary, which makes crypto/tls go on at the next Read. That it does is
// how it behaves and not what it promises: TestReadMayBeRepeated holds it to that.
var errNoMore net.Error = noMore{}

type noMore struct{}

func (noMore) Error() string   { return "kitexrpc: no more bytes have come yet" }
func (noMore) Timeout() bool   { return false }
func (noMore) Temporary() bool { return true }

// newCodec gives the codec of a connection whose handshake is still to be done.
func newCodec(np netpoll.Connection, side func(net.Conn, *tls.Config) *tls.Conn, cfg *tls.Config, timeout time.Duration) *codec {
	c := &codec{np: np, timeout: timeout}
	c.wire.Connection, c.wire.shaking = np, true
	c.tls = side(&c.wire, cfg)
	return c
}

// handshake blocks until it is done, the connection is closed, or ctx ends, which closes it.
func (c *codec) handshake(ctx context.Context) error {
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return err
	}
	c.peer, c.until = identity.Peer(c.tls)
	c.wire.mu.Lock()
	c.wire.shaking = false
	c.wire.mu.Unlock()
	return nil
}

// wire is the net.Conn that crypto/tls sees.
type wire struct {
	netpoll.Connection
	left    int           // bytes of the record that is being given to crypto/tls
	read    atomic.Uint64 // records
	written atomic.Uint64

	mu      sync.Mutex // reading may make crypto/tls write while another seals
	shaking bool       // writes go straight to the socket; guarded by mu
	sealed  []byte     // what has not been sent; guarded by mu
	spare   []byte     // of an earlier flush, for sealed; guarded by mu
}

// Read implements net.Conn. It gives whole records only, so that a part of one that its
// peer does not complete is known as such. Between two it does not wait, unless there is a
// handshake.
func (w *wire) Read(p []byte) (int, error) {
	if w.left == 0 {
		r := w.Reader()
		if w.has() == 0 && !w.shaking { // set by this goroutine, or before it began
			return 0, errNoMore
		}
		head, err := r.Peek(recordHeader)
		if err != nil {
			return 0, err
		}
		n := recordHeader + int(be.Uint16(head[3:]))
		if n > recordHeader+maxRecord || w.shaking {
			n = recordHeader // crypto/tls refuses it, or reads on as it needs
		}
		if _, err := r.Peek(n); err != nil {
			return 0, err
		}
		if w.left = n; w.shaking {
			w.left = recordHeader + int(be.Uint16(head[3:]))
		}
		w.read.Add(1)
	}
	n, err := w.Connection.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

func (w *wire) has() int { return w.Reader().Len() }

// Write implements net.Conn. crypto/tls calls it once for each record.
func (w *wire) Write(p []byte) (int, error) {
	w.written.Add(1)
	w.mu.Lock()
	if w.shaking {
		w.mu.Unlock()
		return w.Connection.Write(p)
	}
	defer w.mu.Unlock()
	if w.sealed == nil {
		w.sealed, w.spare = w.spare[:0], nil
	}
	w.sealed = append(w.sealed, p...)
	return len(p), nil
}

// The writer has deadlines of its own; those of crypto/tls, for its last words, would meet
// a write that is going on.

// SetDeadline implements net.Conn.
func (w *wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (w *wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// seal encrypts the frames of a flush, which may be none, and gives all that is to be sent.
func (c *codec) seal(frames []byte) ([]byte, error) {
	if len(frames) > 0 {
		if _, err := c.tls.Write(frames); err != nil {
			return nil, err
		}
	}
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	out := c.wire.sealed
	c.wire.sealed = nil
	return out, nil
}

// sent takes back what seal has given.
func (c *codec) sent(out []byte) {
	if cap(out) > maxSpare {
		return
	}
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.spare = out[:0]
}

// owes says whether crypto/tls has sealed something of its own.
func (c *codec) owes() bool {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	return len(c.wire.sealed) > 0
}

// aged says whether the connection should be ended in favour of another: its keys have
// been used enough, or who is at the other end can no longer prove it.
func (c *codec) aged(now time.Time) bool {
	return c.wire.read.Load() > recordLimit || c.wire.written.Load() > recordLimit || now.After(c.until)
}

// outlived says that the other side has been told so, and has not gone.
func (c *codec) outlived(now time.Time) bool { return now.After(c.until.Add(retiresWithin)) }

// fill decrypts a record, or what is left of one, into p. It gives errNoMore if none has
// come.
func (c *codec) fill(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.tls.Read(p)
	if n > 0 {
		return n, nil // what else there is will be found the next time
	}
	if err != errNoMore { //nolint:errorlint // crypto/tls gives it as it is
		if c.err = err; errors.Is(err, io.EOF) {
			c.err = netpoll.ErrEOF
		}
		return 0, c.err
	}
	return 0, err
}

// room gives free space behind what is decrypted, for n bytes in all. What was peeked at
// stays where it is: it may still be looked at.
func (c *codec) room(n int) []byte {
	switch free := cap(c.buf) - len(c.buf); {
	case c.buf == nil && n <= decryptBuffer:
		c.buf, c.pos = (*decryptBuffers.Get().(*[decryptBuffer]byte))[:0], 0
	case free == 0, cap(c.buf)-c.pos < n:
		have := c.buf[c.pos:]
		grown := make([]byte, len(have), max(n, 2*len(have), decryptBuffer))
		copy(grown, have)
		c.buf, c.pos = grown, 0
	}
	return c.buf[len(c.buf):cap(c.buf)]
}

// Len gives how many bytes are decrypted, after it has decrypted at least one record if
// there is one. It implements source.
func (c *codec) Len() int {
	for len(c.buf) == c.pos {
		n, err := c.fill(c.room(1))
		c.buf = c.buf[:len(c.buf)+n]
		if err == errNoMore { //nolint:errorlint // our own, given as it is
			break
		}
		if err != nil {
			return 1 // who reads it finds the error
		}
	}
	return len(c.buf) - c.pos
}

// need waits until n bytes are decrypted, at most for the read timeout.
func (c *codec) need(n int) (err error) {
	for waits := false; len(c.buf)-c.pos < n && err == nil; {
		var got int
		got, err = c.fill(c.room(n))
		c.buf = c.buf[:len(c.buf)+got]
		if err == errNoMore { //nolint:errorlint // our own, given as it is
			err, waits = c.wait(waits), true
		}
	}
	c.waited()
	return err
}

// wait waits for bytes. The whole of several waits has one end, however they dribble in.
func (c *codec) wait(again bool) error {
	if !again {
		c.limited = true
		_ = c.np.SetReadDeadline(time.Now().Add(c.timeout))
	}
	_, err := c.np.Reader().Peek(1)
	return err
}

// waited ends the limit that wait has set.
func (c *codec) waited() {
	if c.limited {
		c.limited = false
		_ = c.np.SetReadTimeout(c.timeout)
	}
}

// Peek implements source.
func (c *codec) Peek(n int) ([]byte, error) {
	if err := c.need(n); err != nil {
		return nil, err
	}
	return c.buf[c.pos : c.pos+n], nil
}

// Next implements source.
func (c *codec) Next(n int) ([]byte, error) {
	p, err := c.Peek(n)
	if err == nil {
		c.pos += n
	}
	return p, err
}

// Skip implements source.
func (c *codec) Skip(n int) error {
	for n > 0 {
		if err := c.need(1); err != nil {
			return err
		}
		k := min(n, len(c.buf)-c.pos)
		c.pos += k
		n -= k
	}
	return nil
}

// ReadBinary implements source. Its memory grows with what comes, not with what is said to.
func (c *codec) ReadBinary(n int) (p []byte, err error) {
	k := min(n, len(c.buf)-c.pos)
	p = append(make([]byte, 0, min(n, max(k, 2*decryptBuffer))), c.buf[c.pos:c.pos+k]...)
	c.pos += k
	for waits := false; len(p) < n && err == nil; {
		if len(p) == cap(p) {
			p = slices.Grow(p, min(n-len(p), len(p)))
		}
		var got int
		got, err = c.fill(p[len(p):min(n, cap(p))])
		p = p[:len(p)+got]
		if err == errNoMore { //nolint:errorlint // our own, given as it is
			err, waits = c.wait(waits), true
		}
	}
	c.waited()
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Release implements source: what was taken is of no more use to anybody.
func (c *codec) Release() error {
	switch {
	case c.pos < len(c.buf):
		if c.pos > cap(c.buf)/2 {
			c.buf, c.pos = c.buf[:copy(c.buf, c.buf[c.pos:])], 0
		}
	case cap(c.buf) > 2*decryptBuffer:
		c.buf, c.pos = nil, 0
	default:
		c.buf, c.pos = c.buf[:0], 0
	}
	return nil
}

// rest lets the memory of a connection go that has nothing to read.
func (c *codec) rest() {
	if len(c.buf) != c.pos {
		return
	}
	if cap(c.buf) == decryptBuffer {
		decryptBuffers.Put((*[decryptBuffer]byte)(c.buf[:decryptBuffer]))
	}
	c.buf, c.pos = nil, 0
}

var decryptBuffers = sync.Pool{New: func() any { return new([decryptBuffer]byte) }}

// handshakeFault tells why a handshake has failed, as items count it.
func handshakeFault(err error, late bool) metrics.Handshake {
	switch {
	case late, errors.Is(err, netpoll.ErrReadTimeout):
		return metrics.HandshakeLate
	case errors.Is(err, netpoll.ErrEOF), errors.Is(err, netpoll.ErrConnClosed):
		return metrics.HandshakeHungUp
	}
	return transport.HandshakeFault(err)
}

const (
	// maxHandshakes is how many connections may be without a handshake at once. One more
	// costs the oldest its place: an honest one is done within milliseconds.
	maxHandshakes = 1024
	// handshakeTimeout is the longest that one may take.
	handshakeTimeout = 5 * time.Second
)

// handshakes are the connections whose handshake is not done. The zero value is ready.
type handshakes struct {
	mu  sync.Mutex
	all list.List // of *serverConn, the oldest first; guarded by mu
}

// add gives the connection that has to go for a new one, nil if none has.
func (h *handshakes) add(c *serverConn) (oldest *serverConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all.Len() >= maxHandshakes {
		oldest, _ = h.all.Remove(h.all.Front()).(*serverConn)
		oldest.place = nil
	}
	c.place = h.all.PushBack(c)
	return oldest
}

// done says whether the connection still had its place.
func (h *handshakes) done(c *serverConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.place == nil {
		return false
	}
	h.all.Remove(c.place)
	c.place = nil
	return true
}
