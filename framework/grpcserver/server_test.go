// SPDX-License-Identifier: Apache-2.0

package grpcserver_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
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

const (
	echoMethod = "/sluice.test.v1.Echo/Echo"
	actMethod  = "/sluice.test.v1.Echo/Act"
)

// serve runs the Echo service with a gRPC listener until the test ends, or stop is called.
func serve(t *testing.T, cfg grpcserver.Config, srv *testpb.Server, opts ...framework.ServerOption) (conn *grpc.ClientConn, stop func()) {
	t.Helper()
	g := grpcserver.New(cfg)
	s := framework.NewServer(framework.ServerConfig{Service: "echo", DrainTimeout: 5 * time.Second},
		append(opts, framework.WithTransport(g), framework.WithoutSignals())...)
	srv.Register(s)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	}
	t.Cleanup(stop)
	conn, err := grpc.NewClient(g.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, stop
}

func act(ctx context.Context, conn *grpc.ClientConn, what string) (*testpb.EchoResponse, error) {
	res := new(testpb.EchoResponse)
	return res, conn.Invoke(ctx, actMethod, &testpb.ActRequest{Act: what}, res)
}

func TestUnary(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer())
	for _, size := range []int{0, 10, 9 << 10, 1 << 20} {
		res := new(testpb.EchoResponse)
		if err := conn.Invoke(t.Context(), echoMethod, &testpb.EchoRequest{Id: 7, Name: "a", Data: make([]byte, size)}, res); err != nil {
			t.Fatal(err)
		}
		if res.Id != 7 || res.Name != "a" || len(res.Data) != size {
			t.Errorf("%d bytes: got %d %q and %d", size, res.Id, res.Name, len(res.Data))
		}
	}
}

func TestErrors(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer())
	for _, c := range []struct {
		act, message string
		code         codes.Code
		reason       string
	}{
		{"error", "no such thing", codes.NotFound, ""},
		{"exhausted", "the handler's own limit", codes.ResourceExhausted, ""},
		{"panic", "internal error", codes.Internal, "panic"},
		{"plain-error", "internal error", codes.Internal, ""},
		{"nothing", "internal error", codes.Internal, ""},
	} {
		t.Run(c.act, func(t *testing.T) {
			_, err := act(t.Context(), conn, c.act)
			st := status.Convert(err)
			if st.Code() != c.code || st.Message() != c.message {
				t.Fatalf("got %v", err)
			}
			reason := ""
			for _, d := range st.Details() {
				if info, ok := d.(*errdetails.ErrorInfo); ok {
					reason = info.GetReason()
				}
			}
			if reason != c.reason {
				t.Errorf("reason = %q, want %q", reason, c.reason)
			}
		})
	}
	_, err := act(t.Context(), conn, "error")
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(*testpb.ActRequest); ok && d.Act == "detail" && d.Ms == 7 {
			return
		}
	}
	t.Errorf("the typed detail is missing: %v", status.Convert(err).Details())
}

func TestUnknownMethod(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer())
	for _, name := range []string{"/sluice.test.v1.Echo/Nothing", "/other.v1.Service/Do"} {
		if err := conn.Invoke(t.Context(), name, &testpb.EchoRequest{}, &testpb.EchoResponse{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDeadline: the caller's deadline reaches the handler, and the contract's holds for
// who sets none.
func TestDeadline(t *testing.T) {
	srv := testpb.NewServer()
	conn, _ := serve(t, grpcserver.Config{}, srv)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := act(ctx, conn, "block"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("with a deadline: %v", err)
	}
	if _, err := act(t.Context(), conn, "block"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("without one: %v", err)
	}
}

// TestEntry: what a foreigner says of its importance is not believed; its trace is.
func TestEntry(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer())
	trace := tracing.NewTraceID()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", tracing.Traceparent(trace, tracing.NewSpanID(), true))
	res, err := act(ctx, conn, "header")
	if err != nil {
		t.Fatal(err)
	}
	if string(res.Data) != string(trace[:]) {
		t.Errorf("trace %x, want %x", res.Data, trace)
	}
	if want := testpb.EchoActMethod.Class.String(); res.Name != want {
		t.Errorf("class %s, want %s", res.Name, want)
	}
}

func TestMetadata(t *testing.T) {
	echo := func(_ *rpc.Method, next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			came := grpcserver.Metadata(ctx)
			if err := grpcserver.SetHeader(ctx, map[string][]string{"a": came["a"]}); err != nil {
				return nil, err
			}
			grpcserver.SetTrailer(ctx, map[string][]string{"b-bin": came["b-bin"]})
			return next(ctx, req)
		}
	}
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer(), framework.WithServerInterceptors(echo))
	var header, trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "a", "x", "b-bin", "\x00\xff")
	if err := conn.Invoke(ctx, echoMethod, &testpb.EchoRequest{}, &testpb.EchoResponse{}, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	if got := header["a"]; !slices.Equal(got, []string{"x"}) {
		t.Errorf("header %q", got)
	}
	if got := trailer["b-bin"]; !slices.Equal(got, []string{"\x00\xff"}) {
		t.Errorf("trailer %q", got)
	}
}

func TestHealthAndReflection(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer())
	health := healthpb.NewHealthClient(conn)
	for _, name := range []string{"", "sluice.test.v1.Echo"} {
		res, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", name, res, err)
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) string {
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return res.String()
	}
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if got := ask(list); !strings.Contains(got, "sluice.test.v1.Echo") {
		t.Errorf("list: %s", got)
	}
	symbol := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "sluice.test.v1.Echo"}}
	if got := ask(symbol); !strings.Contains(got, "file_descriptor_proto") {
		t.Errorf("symbol: %s", got)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestUnready(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer(), framework.WithReadiness(func(context.Context) error { return errors.New("cold") }))
	res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || res.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v, %v", res, err)
	}
}

func TestTooLarge(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{MaxMessageBytes: 4 << 10}, testpb.NewServer())
	err := conn.Invoke(t.Context(), echoMethod, &testpb.EchoRequest{Data: make([]byte, 8<<10)}, &testpb.EchoResponse{})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

// TestDrain: what has been accepted is answered.
func TestDrain(t *testing.T) {
	srv := testpb.NewServer()
	began := make(chan struct{})
	conn, stop := serve(t, grpcserver.Config{}, srv, framework.WithServerInterceptors(func(_ *rpc.Method, next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			close(began)
			return next(ctx, req)
		}
	}))
	answered := make(chan error, 1)
	go func() {
		_, err := act(t.Context(), conn, "block")
		answered <- err
	}()
	<-began
	released := make(chan struct{})
	go func() {
		defer close(released)
		srv.Release <- struct{}{}
	}()
	stop()
	<-released
	if err := <-answered; err != nil {
		t.Errorf("the call was lost: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  grpcserver.Config
		want string
	}{
		"address":   {grpcserver.Config{Addr: "nowhere"}, "host:port"},
		"plaintext": {grpcserver.Config{Addr: "0.0.0.0:0"}, "say Plaintext"},
		"limit":     {grpcserver.Config{MaxStreams: -1}, "MaxStreams"},
	} {
		t.Run(name, func(t *testing.T) {
			s := framework.NewServer(framework.ServerConfig{Service: "echo"}, framework.WithTransport(grpcserver.New(c.cfg)))
			if err := s.Listen(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
