// SPDX-License-Identifier: Apache-2.0

package grpcclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// netpoll's pollers and pooled workers live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
	)
}

type server struct {
	grpc *grpcserver.Server
	own  *framework.Server
	echo *testpb.Server
	flow *testpb.FlowService
	stop func()
}

// serve runs both services until the test ends, or stop is called.
func serve(t *testing.T, drain time.Duration) *server {
	t.Helper()
	s := &server{grpc: grpcserver.New(grpcserver.Config{}), echo: testpb.NewServer(), flow: &testpb.FlowService{Told: make(chan struct{}, 1)}}
	s.own = framework.NewServer(framework.ServerConfig{Service: "flow", DrainTimeout: drain}, framework.WithTransport(s.grpc), framework.WithoutSignals())
	s.echo.Register(s.own)
	s.flow.Register(s.own)
	if err := s.own.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.own.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	}
	t.Cleanup(s.stop)
	return s
}

// serveUntilEnd runs a server with a gRPC listener until the test ends.
func serveUntilEnd(t *testing.T, g *grpcserver.Server, register func(rpc.Registrar)) {
	t.Helper()
	srv := framework.NewServer(framework.ServerConfig{Service: "flow", DrainTimeout: 5 * time.Second},
		framework.WithTransport(g), framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	register(srv)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	})
}

func dial(t *testing.T, s *server) *framework.Conn {
	t.Helper()
	return dialWith(t, framework.ClientConfig{Addrs: []string{s.grpc.Addr()}}, grpcclient.Config{})
}

func dialWith(t *testing.T, cfg framework.ClientConfig, own grpcclient.Config, opts ...framework.ClientOption) *framework.Conn {
	t.Helper()
	cfg.Service = "flow"
	conn, err := framework.Dial(cfg, append(opts, framework.WithClientTransport(grpcclient.New(own)), framework.WithClientLogger(slog.New(slog.DiscardHandler)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestCall(t *testing.T) {
	client := testpb.NewEchoClient(dial(t, serve(t, 5*time.Second)))
	for _, size := range []int{0, 9 << 10, 1 << 20} {
		res, err := client.Echo(t.Context(), &testpb.EchoRequest{Id: 3, Name: "x", Data: make([]byte, size)})
		if err != nil || res.Id != 3 || res.Name != "x" || len(res.Data) != size {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}

// TestErrors: what the framework knows of an error crosses gRPC.
func TestErrors(t *testing.T) {
	client := testpb.NewEchoClient(dial(t, serve(t, 5*time.Second)))
	for _, c := range []struct {
		act    string
		code   rpc.Code
		reason rpc.Reason
	}{
		{"error", rpc.NotFound, rpc.ReasonHandler},
		{"exhausted", rpc.ResourceExhausted, rpc.ReasonHandler},
		{"panic", rpc.Internal, rpc.ReasonPanic},
		{"plain-error", rpc.Internal, rpc.ReasonHandler},
	} {
		t.Run(c.act, func(t *testing.T) {
			_, err := client.Act(t.Context(), &testpb.ActRequest{Act: c.act})
			e, ok := errors.AsType[*rpc.Error](err)
			if !ok || e.Code != c.code || e.Reason != c.reason || e.NotRun {
				t.Fatalf("got %#v", err)
			}
			detail := &testpb.ActRequest{}
			if got := rpc.Detail(err, detail); got != (c.act == "error") || got && detail.Ms != 7 {
				t.Errorf("detail %v, %v", got, detail)
			}
		})
	}
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := client.Act(ctx, &testpb.ActRequest{Act: "block"})
		if rpc.CodeOf(err) != rpc.DeadlineExceeded || rpc.ReasonOf(err) != rpc.ReasonDeadline {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		_, err := client.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 17<<20)})
		if rpc.CodeOf(err) != rpc.ResourceExhausted || rpc.ReasonOf(err) != rpc.ReasonDecode {
			t.Errorf("got %v", err)
		}
	})
}

func TestNobodyThere(t *testing.T) {
	s := serve(t, 5*time.Second)
	conn := dial(t, s)
	s.stop()
	_, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{})
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok || e.Code != rpc.Unavailable || !e.NotRun || e.Reason != rpc.ReasonNoInstance {
		t.Errorf("got %#v", err)
	}
	_, err = testpb.NewFlowClient(conn).Count(t.Context(), &testpb.Drop{})
	if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Code != rpc.Unavailable || !e.NotRun {
		t.Errorf("stream: %#v", err)
	}
}

func TestServerStream(t *testing.T) {
	client := testpb.NewFlowClient(dial(t, serve(t, 5*time.Second)))
	for _, n := range []int64{0, 1, 1000, 1001} {
		stream, err := client.Count(t.Context(), &testpb.Drop{N: n, Data: make([]byte, 1000)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(n, 1000) {
			d, err := stream.Recv()
			if err != nil || d.N != i || len(d.Data) != 1000 {
				t.Fatalf("message %d: %v, %v", i, d.GetN(), err)
			}
		}
		_, err = stream.Recv()
		if n <= 1000 {
			if !errors.Is(err, io.EOF) {
				t.Errorf("%d messages end with %v", n, err)
			}
			continue
		}
		detail := &testpb.Drop{}
		if rpc.CodeOf(err) != rpc.OutOfRange || !rpc.Detail(err, detail) || detail.N != 1000 {
			t.Errorf("%d messages end with %v", n, err)
		}
	}
}

func TestClientStream(t *testing.T) {
	client := testpb.NewFlowClient(dial(t, serve(t, 5*time.Second)))
	stream, err := client.Sum(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(100) {
		if err := stream.Send(&testpb.Drop{N: n}); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := stream.CloseAndRecv(); err != nil || sum.N != 4950 {
		t.Errorf("%v, %v", sum, err)
	}

	refused, err := client.Sum(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for { // until the server's refusal is heard of
		if err := refused.Send(&testpb.Drop{N: -1}); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("Send: %v", err)
			}
			break
		}
	}
	if _, err := refused.CloseAndRecv(); rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestBidiStream(t *testing.T) {
	client := testpb.NewFlowClient(dial(t, serve(t, 5*time.Second)))
	stream, err := client.Back(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(100) {
		if err := stream.Send(&testpb.Drop{N: n}); err != nil {
			t.Fatal(err)
		}
		if d, err := stream.Recv(); err != nil || d.N != n {
			t.Fatalf("%v, %v", d, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}

	panics, err := client.Back(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := panics.Send(&testpb.Drop{N: -1}); err != nil {
		t.Fatal(err)
	}
	if _, err := panics.Recv(); rpc.CodeOf(err) != rpc.Internal || rpc.ReasonOf(err) != rpc.ReasonPanic {
		t.Errorf("got %v", err)
	}
}

// TestStreamDeadline: a stream ends with its caller's deadline, and with the caller.
func TestStreamDeadline(t *testing.T) {
	client := testpb.NewFlowClient(dial(t, serve(t, 5*time.Second)))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	stream, err := client.Hang(ctx, &testpb.Drop{})
	if err == nil {
		for err == nil {
			_, err = stream.Recv()
		}
	}
	if rpc.CodeOf(err) != rpc.DeadlineExceeded {
		t.Errorf("got %v", err)
	}

	closed, err := client.Hang(t.Context(), &testpb.Drop{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := closed.Recv(); err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := closed.Recv(); rpc.CodeOf(err) != rpc.Canceled {
		t.Errorf("got %v", err)
	}
}

// TestDrain: a stream is told, and what it still has to say arrives; one that does not
// listen is cut when its time is over.
func TestDrain(t *testing.T) {
	for _, c := range []struct {
		name    string
		listens int64
		drain   time.Duration
	}{{"listens", 1, 30 * time.Second}, {"does not listen", 0, 50 * time.Millisecond}} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.drain)
			stream, err := testpb.NewFlowClient(dial(t, s)).Hang(t.Context(), &testpb.Drop{N: c.listens})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			s.stop()
			if c.listens == 0 {
				if _, err := stream.Recv(); rpc.CodeOf(err) != rpc.Unavailable {
					t.Errorf("got %v", err)
				}
				return
			}
			<-s.flow.Told
			if d, err := stream.Recv(); err != nil || d.N != 1 {
				t.Errorf("%v, %v", d, err)
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestOtherTransports say how a stream can be had.
func TestOtherTransports(t *testing.T) {
	s := serve(t, 5*time.Second)
	far, err := framework.Dial(framework.ClientConfig{Service: "flow", Addrs: []string{s.own.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	near := framework.DialLocal(s.own)
	defer func() { _ = near.Close() }()
	for name, conn := range map[string]*framework.Conn{"far": far, "near": near} {
		_, err := testpb.NewFlowClient(conn).Count(t.Context(), &testpb.Drop{})
		if rpc.CodeOf(err) != rpc.Unimplemented || !strings.Contains(err.Error(), "grpcclient") {
			t.Errorf("%s: %v", name, err)
		}
		_, err = conn.Invoke(t.Context(), testpb.FlowCountMethod, &testpb.Drop{}) // an older client
		if rpc.CodeOf(err) != rpc.Unimplemented || !strings.Contains(err.Error(), "grpcclient") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  framework.ClientConfig
		own  grpcclient.Config
		want string
	}{
		"keepalive":     {framework.ClientConfig{}, grpcclient.Config{Keepalive: time.Second}, "10s to 1h"},
		"TLS or not":    {framework.ClientConfig{Plaintext: framework.PlaintextAnywhere}, grpcclient.Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13}}, "leave one out"},
		"the wrong one": {framework.ClientConfig{Hedge: []string{"x"}}, grpcclient.Config{}, "Hedge[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Service, c.cfg.Addrs = "a", []string{":1"}
			if _, err := framework.Dial(c.cfg, framework.WithClientTransport(grpcclient.New(c.own))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
