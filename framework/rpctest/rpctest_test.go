// SPDX-License-Identifier: Apache-2.0

package rpctest_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

func TestFault(t *testing.T) {
	srv := testpb.NewServer()
	fault := rpctest.NewFault(rpctest.Local(t, srv.Register), 1)
	client := testpb.NewEchoClient(fault)
	call := func() error {
		_, err := client.Act(t.Context(), &testpb.ActRequest{})
		return err
	}
	act := testpb.EchoActMethod.FullName()

	if err := call(); err != nil {
		t.Fatalf("without a rule: %v", err)
	}
	fault.Set(act, rpctest.Rule{Share: 1, Err: rpc.Errorf(rpc.Unavailable, "injected")})
	if err := call(); rpc.CodeOf(err) != rpc.Unavailable || srv.Acted.Load() != 1 {
		t.Fatalf("an error instead of the call: got %v, the method ran %d times", err, srv.Acted.Load())
	}
	fault.Set(act, rpctest.Rule{Share: 1, Lost: true})
	if err := call(); rpc.ReasonOf(err) != rpc.ReasonNetwork || srv.Acted.Load() != 2 {
		t.Fatalf("a lost answer: got %v, the method ran %d times", err, srv.Acted.Load())
	}
	fault.Set(act, rpctest.Rule{Share: 1, Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Act(ctx, &testpb.ActRequest{}); rpc.CodeOf(err) != rpc.Canceled {
		t.Fatalf("a delay that outlasts the caller: got %v", err)
	}
	fault.Set(act, rpctest.Rule{})
	fault.Set("", rpctest.Rule{Share: 0.5, Err: rpc.Errorf(rpc.Aborted, "injected")})
	failed := 0
	for range 1000 {
		if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
			failed++
		}
	}
	if failed < 400 || failed > 600 {
		t.Errorf("half of the calls should fail; %d of 1000 did", failed)
	}
	if err := call(); err != nil {
		t.Errorf("a method whose own rule has ended: %v", err)
	}
}

func TestRecorder(t *testing.T) {
	rec := rpctest.NewRecorder(rpctest.Loopback(t, testpb.NewServer().Register))
	client := testpb.NewEchoClient(rec)
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{Id: 7}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Act(t.Context(), &testpb.ActRequest{Act: "error"}); err == nil {
		t.Fatal("no error")
	}
	calls := rec.Calls()
	if len(calls) != 2 || calls[0].Method != testpb.EchoEchoMethod || calls[0].Request.(*testpb.EchoRequest).Id != 7 ||
		calls[0].Response.(*testpb.EchoResponse).Id != 7 || rpc.CodeOf(calls[1].Err) != rpc.NotFound || calls[1].Response != nil {
		t.Fatalf("got %+v", calls)
	}
}
