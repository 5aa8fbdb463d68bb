// SPDX-License-Identifier: Apache-2.0

package grpcclient_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// twin is an instance that says in its answers which one it is.
type twin struct {
	testpb.UnimplementedEchoServer
	name   string
	grpc   *grpcserver.Server
	calls  atomic.Int64
	ailing atomic.Value // of func(context.Context) error, what its calls do
}

func (s *twin) Echo(ctx context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	s.calls.Add(1)
	if ail, _ := s.ailing.Load().(func(context.Context) error); ail != nil {
		if err := ail(ctx); err != nil {
			return nil, err
		}
	}
	if req.GetName() == "metadata" {
		if err := grpcserver.SetHeader(ctx, map[string][]string{"before": grpcserver.Metadata(ctx)["said"]}); err != nil {
			return nil, err
		}
		grpcserver.SetTrailer(ctx, map[string][]string{"after-bin": grpcserver.Metadata(ctx)["said-bin"]})
	}
	return &testpb.EchoResponse{Name: s.name}, nil
}

func (s *twin) Act(context.Context, *testpb.ActRequest) (*testpb.EchoResponse, error) { panic("ill") }

func newTwin(t *testing.T, name string) *twin {
	t.Helper()
	s := &twin{name: name, grpc: grpcserver.New(grpcserver.Config{})}
	serveUntilEnd(t, s.grpc, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, s) })
	return s
}

// source is a discovery.Source whose list the test changes.
type source chan []discovery.Instance

func (s source) Watch(ctx context.Context, _ string, changed func([]discovery.Instance)) error {
	for {
		select {
		case all := <-s:
			changed(all)
		case <-ctx.Done():
			return nil
		}
	}
}

// callUntil calls again and again until it is content.
func callUntil(t *testing.T, c testpb.EchoClient, what string, content func(who string, err error) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		res, err := c.Echo(ctx, &testpb.EchoRequest{})
		cancel()
		if content(res.GetName(), err) {
			return
		}
	}
	t.Fatalf("it did not happen within 30 s: %s", what)
}

func seen(names ...string) func(string, error) bool {
	return func(who string, _ error) bool {
		names = slices.DeleteFunc(names, func(n string) bool { return n == who })
		return len(names) == 0
	}
}

// TestDiscovery: instances come and go, and what is under way at one that goes is answered.
func TestDiscovery(t *testing.T) {
	all := []*twin{newTwin(t, "0"), newTwin(t, "1"), newTwin(t, "2")}
	one := func(i int) discovery.Instance { return discovery.Instance{Addr: all[i].grpc.Addr()} }
	s := make(source)
	c := testpb.NewEchoClient(dialWith(t, framework.ClientConfig{Connections: 2}, grpcclient.Config{}, framework.WithDiscovery(s)))
	s <- []discovery.Instance{one(0), one(1)}
	callUntil(t, c, "both serve", seen("0", "1"))

	began, end := make(chan struct{}, 1), make(chan struct{})
	all[0].ailing.Store(func(context.Context) error {
		select {
		case began <- struct{}{}:
		default:
		}
		<-end
		return nil
	})
	held := make(chan error, 1)
	go func() {
		for {
			res, err := c.Echo(t.Context(), &testpb.EchoRequest{})
			if err != nil || res.Name == "0" {
				held <- err
				return
			}
		}
	}()
	<-began
	s <- []discovery.Instance{one(1), one(2)}
	callUntil(t, c, "the new one serves", seen("2"))
	close(end)
	if err := <-held; err != nil {
		t.Errorf("a call under way when its instance left: %v", err)
	}
	s <- nil
	s <- nil // the first has been taken over
	if _, err := c.Echo(t.Context(), &testpb.EchoRequest{}); rpc.ReasonOf(err) != rpc.ReasonNoInstance {
		t.Errorf("without any instance: %v", err)
	}
}

// TestBreaker: a method that panics is not called any more, and another one is.
func TestBreaker(t *testing.T) {
	s := newTwin(t, "0")
	for _, off := range []bool{false, true} {
		cfg := framework.ClientConfig{Addrs: []string{s.grpc.Addr()}}
		if off {
			cfg.NoBreaker = []string{"*"}
		}
		c := testpb.NewEchoClient(dialWith(t, cfg, grpcclient.Config{}))
		kept := 0
		for range 20 {
			_, err := c.Act(t.Context(), &testpb.ActRequest{})
			switch rpc.ReasonOf(err) {
			case rpc.ReasonBreaker:
				kept++
			case rpc.ReasonPanic:
			default:
				t.Fatal(err)
			}
		}
		if (kept > 0) == off {
			t.Errorf("breaker off: %t; it kept %d calls back", off, kept)
		}
		if _, err := c.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
			t.Errorf("another method: %v", err)
		}
	}
}

// TestRetry: what an instance has certainly not run is made again at another one; what it
// has run, and failed, is not.
func TestRetry(t *testing.T) {
	all := []*twin{newTwin(t, "0"), newTwin(t, "1")}
	all[0].ailing.Store(func(context.Context) error {
		return rpc.Errorf(rpc.Unavailable, "of the handler")
	})
	c := testpb.NewEchoClient(dialWith(t, framework.ClientConfig{Addrs: []string{all[0].grpc.Addr(), all[1].grpc.Addr()}}, grpcclient.Config{}))
	failed := false
	callUntil(t, c, "the handler's own error comes through", func(_ string, err error) bool {
		failed = rpc.ReasonOf(err) == rpc.ReasonHandler && rpc.CodeOf(err) == rpc.Unavailable
		return failed
	})
	if n := all[0].calls.Load(); n != 1 {
		t.Errorf("a call that has run was made %d times", n)
	}
}

// TestHedge: calls to an instance that has become slow are answered by the other one.
func TestHedge(t *testing.T) {
	all := []*twin{newTwin(t, "0"), newTwin(t, "1")}
	conn := dialWith(t, framework.ClientConfig{Addrs: []string{all[0].grpc.Addr(), all[1].grpc.Addr()}, Hedge: []string{"*"}}, grpcclient.Config{})
	m := *testpb.EchoEchoMethod
	m.MaxAttempts = 2
	call := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		res, err := conn.Invoke(ctx, &m, &testpb.EchoRequest{})
		if err != nil {
			return "", err
		}
		return res.(*testpb.EchoResponse).Name, nil
	}
	for range 200 {
		if _, err := call(); err != nil {
			t.Fatal(err)
		}
	}
	release := make(chan struct{})
	all[0].ailing.Store(func(context.Context) error { <-release; return nil })
	hung := all[0].calls.Load()
	for all[0].calls.Load() < hung+3 { // each of them would wait for a minute
		if who, err := call(); err != nil || who != "1" {
			t.Fatal(who, err)
		}
	}
	close(release)
}

// TestFallback: that of any other connection.
func TestFallback(t *testing.T) {
	c := testpb.NewEchoClient(dialWith(t, framework.ClientConfig{Addrs: []string{"127.0.0.1:1"}}, grpcclient.Config{},
		framework.WithFallback(func(context.Context, *rpc.Method, proto.Message, error) (proto.Message, error) {
			return &testpb.EchoResponse{Name: "of yesterday"}, nil
		})))
	if res, err := c.Echo(t.Context(), &testpb.EchoRequest{}); err != nil || res.Name != "of yesterday" {
		t.Error(res, err)
	}
}

// TestMetadata goes out and comes back.
func TestMetadata(t *testing.T) {
	c := testpb.NewEchoClient(dialWith(t, framework.ClientConfig{Addrs: []string{newTwin(t, "0").grpc.Addr()}}, grpcclient.Config{}))
	ctx, err := grpcclient.WithMetadata(t.Context(), map[string][]string{"Said": {"a", "b"}, "said-bin": {"\x00\xff"}})
	if err != nil {
		t.Fatal(err)
	}
	var answer grpcclient.Answer
	if _, err := c.Echo(grpcclient.WithAnswer(ctx, &answer), &testpb.EchoRequest{Name: "metadata"}); err != nil {
		t.Fatal(err)
	}
	if got := answer.Header()["before"]; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("header %q", got)
	}
	if got := answer.Trailer()["after-bin"]; !slices.Equal(got, []string{"\x00\xff"}) {
		t.Errorf("trailer %q", got)
	}
	for _, key := range []string{"grpc-timeout", ":path", "traceparent", "Sluice-Level"} {
		if _, err := grpcclient.WithMetadata(t.Context(), map[string][]string{key: {"x"}}); rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestReload changes the settings of a connection while it is used.
func TestReload(t *testing.T) {
	all := []*twin{newTwin(t, "0"), newTwin(t, "1")}
	cfg := framework.ClientConfig{Service: "flow", Addrs: []string{all[0].grpc.Addr()}}
	conn := dialWith(t, cfg, grpcclient.Config{})
	c := testpb.NewEchoClient(conn)
	callUntil(t, c, "the first serves", seen("0"))
	cfg.Addrs = []string{all[1].grpc.Addr()}
	cfg.MaxFrameBytes = 2 << 10
	if _, err := conn.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	callUntil(t, c, "the second serves", seen("1"))
	if _, err := c.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 4<<10)}); rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("a message beyond the new limit: %v", err)
	}
}

// TestClosed: calls and streams through a connection that is closed say so.
func TestClosed(t *testing.T) {
	conn := dialWith(t, framework.ClientConfig{Addrs: []string{newTwin(t, "0").grpc.Addr()}}, grpcclient.Config{})
	callUntil(t, testpb.NewEchoClient(conn), "it serves", seen("0"))
	if err := errors.Join(conn.Close(), conn.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{})
	_, err2 := testpb.NewFlowClient(conn).Back(t.Context())
	for _, err := range []error{err, err2} {
		if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Code != rpc.Unavailable || e.Reason != rpc.ReasonNoInstance || !e.NotRun {
			t.Errorf("got %#v", err)
		}
	}
}
