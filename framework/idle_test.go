// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// idleFor is the timeout of the servers of these tests: what they see of the time that goes
// by meanwhile is nothing beside it.
const idleFor = 1000 * time.Hour

// idleServer serves Echo in the clear or under TLS, and gives what dials it.
func idleServer(t *testing.T, secure bool) (srv *framework.Server, echo *testpb.Server, dial func(*testing.T) testpb.EchoClient, raw func(*testing.T) net.Conn) {
	t.Helper()
	cfg := framework.ServerConfig{IdleTimeout: idleFor}
	cert := framework.TLS{}
	if secure {
		cert = issue(t, nil, t.TempDir(), "front", "spiffe://test/shop/front", time.Hour)
		srv, echo = secureServer(t, cfg)
	} else {
		srv, echo = plainServer(t, cfg)
	}
	raw = func(t *testing.T) net.Conn {
		t.Helper()
		nc, err := net.Dial("tcp", srv.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		if secure {
			own, err := tls.LoadX509KeyPair(cert.Cert, cert.Key)
			if err != nil {
				t.Fatal(err)
			}
			shaken := tls.Client(nc, &tls.Config{Certificates: []tls.Certificate{own}, InsecureSkipVerify: true, NextProtos: []string{identity.Protocol}, MinVersion: tls.VersionTLS13})
			if err := shaken.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			nc = shaken
		}
		return nc
	}
	return srv, echo, func(t *testing.T) testpb.EchoClient { return secureClient(t, srv.Addr(), cert) }, raw
}

func plainServer(t *testing.T, cfg framework.ServerConfig) (*framework.Server, *testpb.Server) {
	t.Helper()
	cfg.Service = "echo"
	srv := framework.NewServer(cfg, framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	echo := testpb.NewServer()
	echo.Register(srv)
	run(t, srv)
	return srv, echo
}

// pingFrame asks whether there is somebody, as our clients do and, without our header,
// as a stranger may.
func pingFrame(ours bool) []byte {
	const service, method = "sluice.Link", "Ping"
	be := binary.BigEndian
	info := []byte{0, 0}
	if ours {
		info = append(info, 0x10, 0, 1, 0x53, 0x4C, 0, 40)
		info = append(info, make([]byte, 40)...)
	}
	info = append(info, 0x01, 0, 1, 0, 3, 'i', 's', 'n')
	info = append(be.AppendUint16(info, uint16(len(service))), service...)
	for len(info)%4 != 0 {
		info = append(info, 0)
	}
	payload := be.AppendUint32(nil, 0x9001<<16|1)
	payload = append(be.AppendUint32(payload, uint32(len(method))), method...)
	payload = be.AppendUint32(payload, 7)
	b := be.AppendUint32(nil, uint32(10+len(info)+4+len(payload)))
	b = be.AppendUint16(be.AppendUint16(b, 0x1000), 1)
	b = be.AppendUint16(be.AppendUint32(b, 7), uint16(len(info)/4))
	b = append(b, info...)
	return append(be.AppendUint32(b, uint32(len(payload))), payload...)
}

// frameOf reads one frame and gives its sequence, which is zero if it asks to leave.
func frameOf(t *testing.T, nc net.Conn) uint32 {
	t.Helper()
	if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 12)
	if _, err := io.ReadFull(nc, head); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(head))-8); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint32(head[8:])
}

// closes sees that nothing more comes, and that the connection is closed.
func closes(t *testing.T, nc net.Conn) {
	t.Helper()
	if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := nc.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection stayed open: %d bytes, %v", n, err)
	}
}

func idleClosed(t *testing.T) float64 {
	t.Helper()
	return itemOf(t, "sluice.listener.closed", metrics.Label{Name: "cause", Value: "idle"})
}

// TestIdleConnections leaves connections of all kinds alone until it is too late for them.
func TestIdleConnections(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			srv, echo, dial, raw := idleServer(t, secure)
			silent, foreign, frozen := raw(t), raw(t), raw(t)
			for nc, ours := range map[net.Conn]bool{foreign: false, frozen: true} {
				if _, err := nc.Write(pingFrame(ours)); err != nil {
					t.Fatal(err)
				}
				if frameOf(t, nc) != 7 {
					t.Fatal("there is no answer")
				}
			}
			resting, busy := dial(t), dial(t)
			if _, err := resting.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
				t.Fatal(err)
			}
			blocked := make(chan error, 1)
			go func() {
				_, err := busy.Act(t.Context(), &testpb.ActRequest{Act: "block"})
				blocked <- err
			}()
			await(t, func() bool { return echo.Acted.Load() == 1 })
			before := idleClosed(t)
			now := time.Now()
			framework.Sweep(srv, now) // what it sees now
			framework.Sweep(srv, now.Add(idleFor-time.Hour))
			if n := idleClosed(t); n != before {
				t.Errorf("%v connections were closed too early", n-before)
			}
			framework.Sweep(srv, now.Add(idleFor)) // stays as it is
			closes(t, silent)
			closes(t, foreign) // which would not understand to be asked
			if frameOf(t, frozen) != 0 {
				t.Error("nobody was asked to leave")
			}
			for range 10 {
				if _, err := resting.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
					t.Errorf("a call of who was asked to leave: %v", err)
				}
			}
			close(echo.Release)
			if err := <-blocked; err != nil {
				t.Errorf("a call that was open all the time: %v", err)
			}
			framework.Sweep(srv, now.Add(idleFor+30*time.Second))
			framework.Sweep(srv, now.Add(idleFor+31*time.Second))
			closes(t, frozen)
			until(t, "all are counted", func() bool { return idleClosed(t) >= before+3+1 }) // and one at least of the client that rests
		})
	}
}

// TestIdleRace asks connections to leave at every moment, while calls go over them now and
// then. None may fail.
func TestIdleRace(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			srv, _, dial, _ := idleServer(t, secure)
			client := dial(t)
			before, stop, called := idleClosed(t), make(chan struct{}), make(chan struct{}, 1)
			var callers sync.WaitGroup
			for range 4 {
				callers.Go(func() {
					for {
						_, err := client.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 100)})
						if err != nil {
							t.Errorf("a call failed: %v", err)
						}
						select {
						case called <- struct{}{}:
						case <-stop:
							return
						}
					}
				})
			}
			now := time.Now()
			for idleClosed(t) < before+40 && !t.Failed() {
				<-called
				framework.Sweep(srv, now)
				framework.Sweep(srv, now.Add(idleFor)) // whom nothing reached in between is asked to leave
			}
			close(stop)
			callers.Wait()
		})
	}
}
