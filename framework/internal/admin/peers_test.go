// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/peers"
)

// TestConnectionsLeftOut: the page says why an instance gets no calls, and finds those.
func TestConnectionsLeftOut(t *testing.T) {
	for _, tc := range []struct {
		out  peers.Out
		want string
	}{
		{"", "connected"},
		{peers.Draining, "left out: it is draining"},
		{peers.Silent, "left out: it does not answer"},
		{peers.Ejected, "left out: its last calls have failed"},
	} {
		t.Run("out="+string(tc.out), func(t *testing.T) {
			b := newBench(t, "")
			b.Connections = func() []peers.Connection {
				return []peers.Connection{{Service: "greeter", Peer: "10.0.0.1:7000", Since: time.Now(), Out: tc.out}}
			}
			_, text := b.get("/admin/peers?q="+string(tc.out), header("Accept", "text/plain"))
			if !strings.Contains(text, tc.want) || strings.Contains(text, "left out") != (tc.out != "") {
				t.Errorf("the page says %q, want %q", text, tc.want)
			}
			_, json := b.get("/admin/peers", header("Accept", "application/json"))
			if has := strings.Contains(json, `"out": "`+string(tc.out)+`"`); has != (tc.out != "") {
				t.Errorf("JSON: %s", json)
			}
		})
	}
}
