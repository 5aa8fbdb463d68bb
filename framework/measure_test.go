// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// counted gives what the process has counted on one side of the edges of an entry to
// a method.
func counted(entry tracing.Entry, callee string, side callgraph.Side) (calls, attempts [callgraph.NumClasses]uint64) {
	for _, e := range process.Graph().Snapshot(time.Now()).Rows {
		if e.Key.Entry == entry && e.Key.Callee == callee && e.Key.Side == side {
			for c := range calls {
				calls[c] += e.Results[c]
				attempts[c] += e.Attempts[c]
			}
		}
	}
	return calls, attempts
}

// TestEveryCallIsCounted: a scripted client gives exactly its numbers on both sides.
func TestEveryCallIsCounted(t *testing.T) {
	conn := rpctest.Loopback(t, testpb.NewServer().Register)
	client := testpb.NewEchoClient(conn)
	entry := tracing.EntryOf(t.Name() + tracing.NewSpanID().String()) // counted nowhere else
	ctx := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Entry: entry, Trace: tracing.NewTraceID()}})
	act := func(n int, act string) {
		for range n {
			_, _ = client.Act(ctx, &testpb.ActRequest{Act: act})
		}
	}
	act(7, "")
	act(5, "error")
	act(3, "plain-error")
	act(2, "panic")
	act(1, "exhausted")
	for range 4 {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		_, _ = client.Act(short, &testpb.ActRequest{Act: "block"})
		cancel()
	}
	want := [callgraph.NumClasses]uint64{
		callgraph.OK: 7, callgraph.BusinessError: 6, callgraph.Internal: 3, callgraph.Panic: 2, callgraph.Timeout: 4,
	}
	callee := testpb.EchoActMethod.FullName()
	calls, attempts := counted(entry, callee, callgraph.Client)
	if calls != want || attempts != want {
		t.Errorf("client: %v calls and %v attempts, want %v", calls, attempts, want)
	}
	until(t, "the server has counted the same", func() bool { // the last ones end after their callers
		calls, _ := counted(entry, callee, callgraph.Server)
		return calls == want
	})
}
