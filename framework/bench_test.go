// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

func BenchmarkLocal(b *testing.B) {
	for name, opts := range map[string][]framework.ServerOption{
		"shared": nil,
		"cloned": {framework.WithClonedLocalCalls()},
	} {
		b.Run(name, func(b *testing.B) {
			srv := framework.NewServer(framework.ServerConfig{Service: "bench"}, opts...)
			testpb.NewServer().Register(srv)
			benchEcho(b, framework.DialLocal(srv))
		})
	}
}

func BenchmarkLoopback(b *testing.B) { benchEcho(b, rpctest.Loopback(b, testpb.NewServer().Register)) }

func benchEcho(b *testing.B, conn *framework.Conn) {
	client := testpb.NewEchoClient(conn)
	req := &testpb.EchoRequest{Id: 1, Name: "name", Data: make([]byte, 1000)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Echo(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
