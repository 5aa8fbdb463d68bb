// SPDX-License-Identifier: Apache-2.0

package path_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/idcqueue/path/pathtest"
)

// TestDoors: HTTP between regions is let in by the same rules as lines.
func TestDoors(t *testing.T) {
	files := pathtest.Files(t, "sh", "hk", "ca")
	other := pathtest.Files(t, "hk")
	doors := func(f path.Files, self string, peers ...string) *path.Doors {
		t.Helper()
		d, err := path.NewDoors(f, self, peers, nil)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	at := doors(files["sh"], "sh", "hk")
	lis, err := tls.Listen("tcp", "127.0.0.1:0", at.TLS())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	for _, tt := range []struct {
		name string
		from *path.Doors
		to   string
		ok   bool
	}{
		{"a peer", doors(files["hk"], "hk", "sh"), "sh", true},
		{"not in the list", doors(files["ca"], "ca", "sh"), "sh", false},
		{"of another authority", doors(other["hk"], "hk", "sh"), "sh", false},
		{"who takes it for another one", doors(files["hk"], "hk", "sh"), "ca", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heard := make(chan string, 1)
			go func() { // heard is waited for below
				conn, err := lis.Accept()
				if err != nil {
					heard <- ""
					return
				}
				b, _ := io.ReadAll(conn) // what came is looked at
				_ = conn.Close()
				heard <- string(b)
			}()
			conn, err := tt.from.Dial(t.Context(), tt.to, lis.Addr().String())
			if err == nil { // in TLS 1.3 the server's no comes after the client's handshake
				_, _ = io.WriteString(conn, "hello")
				_ = conn.Close()
			}
			if got := <-heard; (got == "hello") != tt.ok {
				t.Errorf("it heard %q, and dialling gave %v", got, err)
			}
		})
	}
	for _, peers := range [][]string{{"hk", "ca"}, {"hk"}} { // ca comes, and goes again
		at.SetPeers(peers)
		heard := make(chan error, 1)
		go func() { // heard is waited for below
			conn, err := lis.Accept()
			if err == nil {
				_, err = io.ReadAll(conn)
				_ = conn.Close()
			}
			heard <- err
		}()
		if conn, err := doors(files["ca"], "ca", "sh").Dial(t.Context(), "sh", lis.Addr().String()); err == nil {
			_ = conn.Close()
		}
		if err := <-heard; (err == nil) != (len(peers) == 2) {
			t.Errorf("with the peers %v: %v", peers, err)
		}
	}
	if _, err := path.NewDoors(files["hk"], "sh", nil, nil); err == nil {
		t.Error("another region's certificate is taken")
	}
	raw, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	heard := make(chan string, 1)
	go func() { // heard is waited for below
		conn, err := lis.Accept()
		if err != nil {
			heard <- ""
			return
		}
		b, _ := io.ReadAll(conn)
		_ = conn.Close()
		heard <- string(b)
	}()
	_, _ = io.WriteString(raw, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := <-heard; got != "" {
		t.Errorf("in the clear it heard %q", got)
	}
}
