// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
)

// trickle is a net.Conn of which Read gives one byte at a time and a temporary
// error before each.
type trickle struct {
	net.Conn // the handshake's; nil after it
	left     []byte
	ready    bool
}

func (c *trickle) Read(p []byte) (int, error) {
	if c.Conn != nil {
		return c.Conn.Read(p)
	}
	c.ready = !c.ready
	if c.ready || len(c.left) == 0 {
		return 0, errNoMore
	}
	n := copy(p[:1], c.left)
	c.left = c.left[n:]
	return n, nil
}

// sealed keeps what crypto/tls writes after the handshake.
type sealed struct {
	net.Conn
	out *bytes.Buffer
}

func (c sealed) Write(p []byte) (int, error) {
	if c.out.Cap() == 0 {
		return c.Conn.Write(p)
	}
	return c.out.Write(p)
}

// TestTemporaryErrorKeepsThePartOfARecord holds crypto/tls to what the codec stands
// on: a Read that had no bytes may be repeated, and loses none that came before.
func TestTemporaryErrorKeepsThePartOfARecord(t *testing.T) {
	a, b, err := socketPair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	cfg := newTLS()
	var out bytes.Buffer
	in := &trickle{Conn: a}
	server, client := tls.Server(in, cfg.server), tls.Client(sealed{b, &out}, cfg.client)
	if err := bothShake(t.Context(), server, client); err != nil {
		t.Fatal(err)
	}
	in.Conn = nil
	out.Grow(1) // from here on the client's records are collected
	want := bytes.Repeat([]byte("sluice "), 5000)
	if _, err := client.Write(want); err != nil {
		t.Fatal(err)
	}
	in.left = out.Bytes()
	var got []byte
	buf := make([]byte, 4096)
	for misses := 0; len(got) < len(want) && misses < 10*len(want); {
		n, err := server.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case errors.Is(err, errNoMore):
			misses++
		case err != nil:
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came through, want the %d that were sent", len(got), len(want))
	}
}
