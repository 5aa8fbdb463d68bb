// SPDX-License-Identifier: Apache-2.0

// Package rpctest runs servers and clients inside one test.
package rpctest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Local gives a connection to what register registers, without a socket. Requests
// and responses are cloned, and a side that changes what it was only lent fails
// the call.
func Local(t testing.TB, register func(rpc.Registrar), opts ...framework.ServerOption) *framework.Conn {
	t.Helper()
	srv := newServer(t, register, opts)
	if err := srv.Check(); err != nil {
		t.Fatal(err)
	}
	conn := framework.DialLocal(srv)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Loopback gives a connection to what register registers, over a real socket on a
// free loopback port. The server drains when the test ends.
func Loopback(t testing.TB, register func(rpc.Registrar), opts ...framework.ServerOption) *framework.Conn {
	t.Helper()
	srv := Serve(t, register, opts...)
	conn, err := framework.Dial(framework.ClientConfig{Service: "rpctest", Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Serve runs a server on a free loopback port until the test ends.
func Serve(t testing.TB, register func(rpc.Registrar), opts ...framework.ServerOption) *framework.Server {
	t.Helper()
	srv := newServer(t, register, opts)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return srv
}

func newServer(t testing.TB, register func(rpc.Registrar), opts []framework.ServerOption) *framework.Server {
	opts = append([]framework.ServerOption{
		framework.WithoutSignals(), framework.WithClonedLocalCalls(),
		framework.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))),
	}, opts...)
	// Without admission: what else the machine does must not decide what a test sees.
	srv := framework.NewServer(framework.ServerConfig{Service: "rpctest", Admin: "127.0.0.1:0", Admission: framework.Off}, opts...)
	register(srv)
	return srv
}
