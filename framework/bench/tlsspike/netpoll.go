// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"
)

// netpollPair is way a: crypto/tls as a codec between netpoll and the frames. Its
// Read is fed with what netpoll has and never waits; its Write fills a buffer that
// goes out in one system call, as without TLS.
func netpollPair(p *tlsPair) func(context.Context, sink, sink) (func([]byte) error, func([]byte) error, func(), error) {
	return func(ctx context.Context, server, client sink) (func([]byte) error, func([]byte) error, func(), error) {
		lis, err := netpoll.CreateListener("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		accepted := make(chan netpoll.Connection, 1)
		failed := make(chan error, 1)
		var s, c end
		s.sink, c.sink = server, client
		loop, err := netpoll.NewEventLoop(
			func(_ context.Context, nc netpoll.Connection) error { return s.read(nc) },
			netpoll.WithOnConnect(func(ctx context.Context, nc netpoll.Connection) context.Context {
				// The handshake waits here for the peer, on a goroutine of this
				// connection; OnRequest begins after it.
				var cfg *tls.Config
				if p != nil {
					cfg = p.server
				}
				if err := s.open(nc, cfg, tls.Server); err != nil {
					failed <- err
					return ctx
				}
				accepted <- nc
				return ctx
			}))
		if err != nil {
			return nil, nil, nil, err
		}
		serving := make(chan struct{})
		go func() {
			_ = loop.Serve(lis) // ends with Shutdown
			close(serving)
		}()
		nc, err := netpoll.DialConnection("tcp", lis.Addr().String(), time.Second)
		if err != nil {
			return nil, nil, nil, err
		}
		var cfg *tls.Config
		if p != nil {
			cfg = p.client
		}
		if err := c.open(nc, cfg, tls.Client); err != nil {
			return nil, nil, nil, err
		}
		if err := nc.SetOnRequest(func(_ context.Context, nc netpoll.Connection) error { return c.read(nc) }); err != nil {
			return nil, nil, nil, err
		}
		select {
		case <-accepted:
		case err := <-failed:
			return nil, nil, nil, err
		case <-ctx.Done():
			return nil, nil, nil, ctx.Err()
		}
		closeBoth := func() {
			_ = nc.Close()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = loop.Shutdown(ctx)
			<-serving
		}
		return s.write, c.write, closeBoth, nil
	}
}

// end is one end of a connection.
type end struct {
	sink sink
	nc   netpoll.Connection
	fd   int
	tls  *tls.Conn // nil: plain
	wire wire
	rest []byte // decrypted, less than a frame
}

func (e *end) open(nc netpoll.Connection, cfg *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) error {
	e.nc, e.fd = nc, nc.(netpoll.Conn).Fd()
	if cfg == nil {
		return nil
	}
	if err := nc.SetReadTimeout(5 * time.Second); err != nil {
		return err
	}
	e.wire.Connection, e.wire.waits = nc, true
	e.tls = side(&e.wire, cfg)
	if err := e.tls.Handshake(); err != nil {
		return err
	}
	e.wire.waits = false
	// From here on what crypto/tls writes is collected.
	e.rest = make([]byte, 0, 64<<10)
	return nil
}

// read is OnRequest: bytes have come.
func (e *end) read(nc netpoll.Connection) error {
	if e.tls == nil {
		return e.readPlain(nc.Reader())
	}
	for {
		n, err := e.tls.Read(e.rest[len(e.rest):cap(e.rest)])
		e.rest = e.rest[:len(e.rest)+n]
		if errors.Is(err, errNoMore) {
			return nil
		}
		if err != nil {
			return err
		}
		used := e.sink(e.rest)
		e.rest = e.rest[:copy(e.rest, e.rest[used:])]
	}
}

func (e *end) readPlain(r netpoll.Reader) error {
	for r.Len() > 0 {
		head, err := r.Peek(4)
		if err != nil {
			return err
		}
		frame, err := r.Next(int(uint32(head[0])<<24 | uint32(head[1])<<16 | uint32(head[2])<<8 | uint32(head[3])))
		if err != nil {
			return err
		}
		e.sink(frame)
		if err := r.Release(); err != nil {
			return err
		}
	}
	return nil
}

// write is called by the combiner, which lets one goroutine at a time through.
func (e *end) write(p []byte) error {
	if e.tls != nil {
		if _, err := e.tls.Write(p); err != nil {
			return err
		}
		e.wire.mu.Lock()
		defer e.wire.mu.Unlock()
		p = e.wire.sealed
		e.wire.sealed = p[:0]
	}
	n, err := unix.Write(e.fd, p)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if n = max(n, 0); n < len(p) {
		_, err = e.nc.Write(p[n:])
		return err
	}
	return nil
}

// wire is the net.Conn that crypto/tls sees.
type wire struct {
	netpoll.Connection
	waits bool // during the handshake Read and Write are the socket's

	mu     sync.Mutex // reading may answer a key update while another writes
	sealed []byte
}

// errNoMore is temporary, which makes crypto/tls keep the part of a record it has
// and go on with it at the next Read.
var errNoMore net.Error = noMore{}

type noMore struct{}

func (noMore) Error() string   { return "no more bytes have come yet" }
func (noMore) Timeout() bool   { return false }
func (noMore) Temporary() bool { return true }

func (w *wire) Read(p []byte) (int, error) {
	if !w.waits && w.Reader().Len() == 0 {
		return 0, errNoMore
	}
	return w.Connection.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	if w.waits {
		return w.Connection.Write(p)
	}
	w.mu.Lock()
	w.sealed = append(w.sealed, p...)
	w.mu.Unlock()
	return len(p), nil
}
