// SPDX-License-Identifier: Apache-2.0

package kitexrpc_test

import (
	"net"
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// TestConnectionItems: connections, their bytes and their ends are counted at both ends,
// and tell the same.
func TestConnectionItems(t *testing.T) {
	server, client := process.Listeners(), process.Items().ClientTransport("test")
	counters := map[string]*metrics.Counter{
		"accepted": server.Accepted, "malformed": server.Faults[metrics.FrameMalformed], "unknown": server.Faults[metrics.FrameUnknownMethod],
		"closed malformed": server.Closed[metrics.ClosedMalformed], "closed by peer": server.Closed[metrics.ClosedByPeer],
		"received": server.Received, "sent": server.Sent, "frames": server.Frames,
		"connected": client.Connected, "closed by us": client.Closed[metrics.ClosedByUs],
		"client sent": client.Sent, "client received": client.Received, "client frames": client.Frames,
	}
	before := map[string]uint64{}
	for name, c := range counters {
		before[name] = c.Value()
	}
	since := func(name string) uint64 { return counters[name].Value() - before[name] }

	addr, _ := start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	const links = 4
	conn, err := framework.Dial(framework.ClientConfig{Service: "test", Addrs: []string{addr}, Connections: links})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	missing := &rpc.Method{Service: "test", Name: "Missing", NewRequest: testpb.EchoEchoMethod.NewRequest, NewResponse: testpb.EchoEchoMethod.NewResponse}
	if _, err := conn.Invoke(t.Context(), missing, &testpb.EchoRequest{}); rpc.CodeOf(err) != rpc.Unimplemented {
		t.Fatal(err)
	}
	waitUntil(t, func() bool {
		return since("accepted") == links && since("connected") == links && since("frames") == links+11 && since("client frames") == links+11 && // each connection is asked first
			since("received") == since("client sent") && since("sent") == since("client received")
	})
	if n := since("received"); n < 10_000 || since("unknown") != 1 {
		t.Errorf("%d bytes received and %d unknown methods", n, since("unknown"))
	}

	garbage, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := garbage.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return since("malformed") == 1 && since("closed malformed") == 1 })
	_ = garbage.Close()

	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return since("closed by us") == links && since("closed by peer") == links })
}
