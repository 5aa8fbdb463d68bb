// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// blocked is a handler that waits until it is let go.
type blocked struct {
	testpb.UnimplementedEchoServer
	inside, release chan struct{}
}

func (b blocked) Echo(_ context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	b.inside <- struct{}{}
	<-b.release
	return &testpb.EchoResponse{Id: req.Id}, nil
}

// TestThreads fills the threads and their queue: what comes beyond is refused, not run, and
// what waits is served.
func TestThreads(t *testing.T) {
	const threads, queue, more = 2, 3, 5
	b := blocked{inside: make(chan struct{}), release: make(chan struct{})}
	srv := framework.NewServer(framework.ServerConfig{
		Service: "threads", Mode: framework.ModeThread, Threads: threads, ThreadQueue: queue, Admission: framework.Off,
	}, framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.RegisterEchoServer(srv, b)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	conn, err := framework.Dial(framework.ClientConfig{Service: "threads", Addrs: []string{srv.Addr()}, Retries: framework.Off})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := testpb.NewEchoClient(conn)
	errs := make(chan error, threads+queue+more)
	call := func() {
		_, err := client.Echo(ctx, &testpb.EchoRequest{})
		errs <- err
	}
	for range threads {
		go call()
		<-b.inside
	}
	for range queue + more {
		go call()
	}
	for range more {
		if err := <-errs; rpc.ReasonOf(err) != rpc.ReasonOverload || rpc.CodeOf(err) != rpc.ResourceExhausted {
			t.Errorf("beyond the queue: %v, want it refused for overload", err)
		}
	}
	close(b.release)
	for range queue {
		<-b.inside
	}
	for range threads + queue {
		if err := <-errs; err != nil {
			t.Errorf("served: %v", err)
		}
	}
}
