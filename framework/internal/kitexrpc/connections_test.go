// SPDX-License-Identifier: Apache-2.0

package kitexrpc_test

import (
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/qos"
)

// TestConnections makes calls and looks at both ends of what they went over.
func TestConnections(t *testing.T) {
	const calls = 20
	before := len(peers.List())
	addr, stop := start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	conn := dial(t, addr)
	client := testpb.NewEchoClient(conn)
	for range calls {
		if _, err := client.Echo(t.Context(), &testpb.EchoRequest{Name: "hello"}); err != nil {
			t.Fatal(err)
		}
	}
	type sum struct {
		conns                 int
		calls, received, sent uint64
	}
	look := func() (accepted, made sum) {
		for _, c := range peers.List() {
			s := &made
			switch {
			case c.Service != "test" || c.Accepted && c.Local != addr || !c.Accepted && c.Peer != addr:
				continue
			case c.Accepted:
				s = &accepted
			}
			if c.Err == nil && c.Since.IsZero() {
				continue // being made
			}
			if c.Err != nil || c.Foreign || c.Level != qos.LastPriority || c.Waiting != 0 || c.Peer == "" || c.Local == "" {
				t.Errorf("%+v", c)
			}
			s.conns++
			s.calls += c.Calls
			s.received += c.Received
			s.sent += c.Sent
		}
		return accepted, made
	}
	var accepted, made sum
	waitUntil(t, func() bool { // what has been written is counted a moment later
		accepted, made = look()
		return made.conns == 4 && accepted.conns == 4 && accepted.received == made.sent && made.received == accepted.sent
	})
	if accepted.calls != calls || made.calls != calls || made.sent == 0 || made.received == 0 {
		t.Errorf("accepted %+v, made %+v", accepted, made)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if after := len(peers.List()); after != before {
		t.Errorf("%d connections are shown after all is closed, %d before", after, before)
	}
}
