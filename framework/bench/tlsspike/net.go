// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"net"
)

// netPair is way b: crypto/tls over net.Conn as everyone uses it. A goroutine for
// each connection blocks in Read, and every record is a write of its own.
func netPair(p *tlsPair) func(context.Context, sink, sink) (func([]byte) error, func([]byte) error, func(), error) {
	return func(ctx context.Context, server, client sink) (func([]byte) error, func([]byte) error, func(), error) {
		a, b, err := socketPair(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		if p != nil {
			s, c := tls.Server(a, p.server), tls.Client(b, p.client)
			if err := bothShake(ctx, s, c); err != nil {
				return nil, nil, nil, err
			}
			a, b = s, c
		}
		done := make(chan struct{}, 2)
		for conn, to := range map[net.Conn]sink{a: server, b: client} {
			go func() {
				readNet(conn, to)
				done <- struct{}{}
			}()
		}
		closeBoth := func() {
			_ = a.Close()
			_ = b.Close()
			<-done
			<-done
		}
		return writeNet(a), writeNet(b), closeBoth, nil
	}
}

// readNet reads until the connection is closed.
func readNet(conn net.Conn, to sink) {
	buf, have := make([]byte, 64<<10), 0
	for {
		n, err := conn.Read(buf[have:])
		have += n
		used := to(buf[:have])
		have = copy(buf, buf[used:have])
		if err != nil {
			return
		}
	}
}

func writeNet(conn net.Conn) func([]byte) error {
	return func(p []byte) error {
		_, err := conn.Write(p)
		return err
	}
}
