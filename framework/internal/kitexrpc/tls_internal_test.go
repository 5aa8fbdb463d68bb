// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/identity/devca"
)

// trickle is a net.Conn of which Read gives one byte at a time and a temporary error
// before each.
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

// pair gives the configurations of two ends that believe each other.
func pair(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.Issue(t.TempDir(), "x", "spiffe://test/x", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := identity.Open(files, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	everybody, err := identity.NewSet([]string{identity.Everybody})
	if err != nil {
		t.Fatal(err)
	}
	return credentials.Server(&everybody), credentials.Client(&everybody)
}

// TestReadMayBeRepeated holds crypto/tls to what the codec stands on: a Read that had no
// bytes may be repeated, and loses none that came before.
func TestReadMayBeRepeated(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	b, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	serverConfig, clientConfig := pair(t)
	var out bytes.Buffer
	in := &trickle{Conn: a}
	server, client := tls.Server(in, serverConfig), tls.Client(sealed{b, &out}, clientConfig)
	shaken := make(chan error, 1)
	go func() { shaken <- server.HandshakeContext(t.Context()) }()
	if err := errors.Join(client.HandshakeContext(t.Context()), <-shaken); err != nil {
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
