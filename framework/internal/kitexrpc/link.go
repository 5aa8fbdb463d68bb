// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"crypto/tls"
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

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// link keeps one connection to one address alive.
type link struct {
	addr  string
	cfg   *atomic.Pointer[ClientConfig]
	conn  atomic.Pointer[clientConn] // nil unless calls may be sent on it
	tried atomic.Bool                // an attempt to connect has ended
	// retired is closed when there is to be no connection any more.
	retired <-chan struct{}

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

var errNotSent = errors.New("the connection was closed before the call was sent")

func (l *link) run(ctx context.Context) {
	backoff := backoffFirst
	for ctx.Err() == nil && !l.isRetired() {
		began := time.Now()
		conn, err := l.dial(ctx)
		if err != nil {
			l.cfg.Load().Items.ConnectFailed.Inc()
		} else {
			l.cfg.Load().Items.ConnectTime.RecordTime(time.Since(began))
			l.use(conn)
			select {
			case <-conn.unusable: // closed, or the server is going away
			case <-l.retired:
				conn.retire(ctx)
			case <-ctx.Done():
				conn.close()
			}
			if time.Since(began) > goodLife {
				backoff = backoffFirst
				continue
			}
			if conn.told.Load() {
				backoff = backoffFirst
			}
		}
		// Who has connected has been answered, so callers wait for the next connection: only
		// an attempt that has failed tells them that there is nobody.
		if err != nil {
			l.fail(err)
		}
		t := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-t.C:
		case <-l.retired:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
		}
		backoff = min(2*backoff, backoffLast)
		if err != nil {
			l.again()
		}
	}
	l.fail(balance.ErrClosed)
}

func (l *link) isRetired() bool {
	select {
	case <-l.retired:
		return true
	default:
		return false
	}
}

// close ends a connection and waits for it.
func (c *clientConn) close() {
	c.ending.because(metrics.ClosedByUs)
	c.sayGoodbye()
	_ = c.conn.Close()
	<-c.unusable
	c.wait()
}

// retiresWithin is how long a connection of no more use waits for its last answers.
const retiresWithin = 30 * time.Second

// retire ends a connection when nothing waits for an answer on it.
func (c *clientConn) retire(ctx context.Context) {
	c.stopUsing()
	c.closeIfIdle()
	t := time.NewTimer(retiresWithin)
	defer t.Stop()
	select {
	case <-c.ended:
		c.wait()
	case <-t.C:
		c.close()
	case <-ctx.Done():
		c.close()
	}
}

// use lets calls go out on a new connection.
func (l *link) use(conn *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn.left {
		return // already lost: run will see it
	}
	l.tried.Store(true)
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
		l.tried.Store(true)
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
	cfg := l.cfg.Load()
	d := net.Dialer{Timeout: cfg.ConnectTimeout}
	nc, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = nc.Close() }() // the duplicate lives on
	if to, ok := nc.RemoteAddr().(*net.TCPAddr); ok && cfg.TLS == nil && !cfg.Plaintext && !to.IP.IsLoopback() {
		return nil, fmt.Errorf("%s is another machine, and calls would go there in the clear: configure TLS, or say plaintext: anywhere", l.addr)
	}
	fd, err := duplicate(nc)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", l.addr, err)
	}
	np, err := netpoll.NewFDConnection(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", l.addr, err)
	}
	_ = np.SetReadTimeout(cfg.ReadTimeout)
	k, err := shake(ctx, cfg, np)
	if err != nil {
		_ = np.Close()
		return nil, fmt.Errorf("%s: TLS handshake: %w", l.addr, err)
	}
	conn, err := newClientConn(l, np, k, nc.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	// Calls go only to who has answered: what accepts connections may not serve them.
	if _, err := conn.ping(ctx, cfg.ConnectTimeout); err != nil {
		conn.close()
		if why := conn.failed.Load(); why != nil { // of TLS 1.3 a server refuses who has begun to speak
			return nil, fmt.Errorf("%s has ended the connection at once: %w", l.addr, *why)
		}
		if cfg.TLS == nil && rpc.ReasonOf(err) == rpc.ReasonNetwork {
			return nil, fmt.Errorf("%s has ended the connection before it answered: it wants TLS, of which this client has none, or has too many connections, or is no server of this protocol", l.addr)
		}
		return nil, fmt.Errorf("%s accepts connections but does not answer: %w", l.addr, err)
	}
	return conn, nil
}

// shake does the handshake of a new connection, nil without TLS.
func shake(ctx context.Context, cfg *ClientConfig, np netpoll.Connection) (*codec, error) {
	if cfg.TLS == nil {
		return nil, nil //nolint:nilnil // none is needed
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	k := newCodec(newDialed(np), tls.Client, cfg.TLS(), cfg.ReadTimeout)
	return k, k.handshake(ctx)
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
