// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(envTruth); spec != "" {
		if err := serveTruth(spec, os.Stdin, os.Stdout); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "serve:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		// netpoll's pollers and pooled workers live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
	)
}

// both runs a test near and far: a call must behave alike.
func both(t *testing.T, test func(t *testing.T, srv *testpb.Server, conn *framework.Conn)) {
	t.Run("local", func(t *testing.T) {
		srv := testpb.NewServer()
		test(t, srv, rpctest.Local(t, srv.Register))
	})
	t.Run("loopback", func(t *testing.T) {
		srv := testpb.NewServer()
		test(t, srv, rpctest.Loopback(t, srv.Register))
	})
}

func TestEcho(t *testing.T) {
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		client := testpb.NewEchoClient(conn)
		for _, size := range []int{0, 1, 1000, 8 << 10, 9 << 10, 1 << 20, 8 << 20} {
			data := bytes.Repeat([]byte{7}, size)
			res, err := client.Echo(t.Context(), &testpb.EchoRequest{Id: int64(size), Name: "n", Data: data})
			if err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			if res.Id != int64(size) || res.Name != "n" || !bytes.Equal(res.Data, data) {
				t.Fatalf("size %d: wrong answer: id %d, %d bytes", size, res.Id, len(res.Data))
			}
		}
	})
}

// TestClientInterceptors: the first is outermost, each may change what the next ones are
// asked and what they answer, or answer in their place.
func TestClientInterceptors(t *testing.T) {
	var trail []string
	noting := func(name string) rpc.ClientInterceptor {
		return func(next rpc.Invoke) rpc.Invoke {
			return func(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
				trail = append(trail, name+" asks "+m.Name)
				res, err := next(ctx, m, req)
				trail = append(trail, name+" hears "+rpc.CodeOf(err).String())
				return res, err
			}
		}
	}
	refuses := func(next rpc.Invoke) rpc.Invoke {
		return func(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
			if req.(*testpb.EchoRequest).GetName() == "nobody" {
				return nil, rpc.Errorf(rpc.PermissionDenied, "not you")
			}
			return next(ctx, m, req)
		}
	}
	srv := testpb.NewServer()
	addr := rpctest.Serve(t, srv.Register).Addr()
	client := echoOf(t, framework.ClientConfig{Addrs: []string{addr}},
		framework.WithClientInterceptors(noting("first"), noting("second")), framework.WithClientInterceptors(refuses))
	for name, want := range map[string]rpc.Code{"mary": 0, "nobody": rpc.PermissionDenied} {
		trail = nil
		res, err := client.Echo(t.Context(), &testpb.EchoRequest{Name: name})
		if rpc.CodeOf(err) != want || err == nil && res.Name != name {
			t.Errorf("%s: %v, %v", name, res, err)
		}
		if wantTrail := []string{"first asks Echo", "second asks Echo", "second hears " + want.String(), "first hears " + want.String()}; !slices.Equal(trail, wantTrail) {
			t.Errorf("%s: %q, want %q", name, trail, wantTrail)
		}
	}
}

func TestManyCallersShareConnections(t *testing.T) {
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		client := testpb.NewEchoClient(conn)
		var callers sync.WaitGroup
		for i := range 64 {
			callers.Go(func() {
				for j := range 40 {
					id := int64(i*1000 + j)
					res, err := client.Echo(t.Context(), &testpb.EchoRequest{Id: id, Data: make([]byte, id%5000)})
					if err != nil || res.Id != id || len(res.Data) != int(id%5000) {
						t.Errorf("call %d: %v, %v", id, res.GetId(), err)
						return
					}
				}
			})
		}
		callers.Wait()
	})
}

func TestErrors(t *testing.T) {
	cases := []struct {
		act     string
		code    rpc.Code
		reason  rpc.Reason
		message string
	}{
		{"error", rpc.NotFound, rpc.ReasonHandler, "no such thing"},
		{"plain-error", rpc.Internal, rpc.ReasonHandler, "internal error"},
		{"panic", rpc.Internal, rpc.ReasonPanic, "internal error"},
		{"nothing", rpc.Internal, rpc.ReasonHandler, "internal error"},
		{"exhausted", rpc.ResourceExhausted, rpc.ReasonHandler, "the handler's own limit"},
	}
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		client := testpb.NewEchoClient(conn)
		for _, c := range cases {
			_, err := client.Act(t.Context(), &testpb.ActRequest{Act: c.act})
			e, ok := errors.AsType[*rpc.Error](err)
			if !ok {
				t.Errorf("%s: %v is no *rpc.Error", c.act, err)
				continue
			}
			if e.Code != c.code || e.Reason != c.reason || e.Message != c.message || e.NotRun {
				t.Errorf("%s: got %v (reason %v, not run %v), want %v, %v: %q", c.act, e, e.Reason, e.NotRun, c.code, c.reason, c.message)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: the error tells of the inside: %v", c.act, err)
			}
		}
		_, err := client.Act(t.Context(), &testpb.ActRequest{Act: "error"})
		var detail testpb.ActRequest
		if !rpc.Detail(err, &detail) || detail.Act != "detail" || detail.Ms != 7 {
			t.Errorf("detail did not come back: %v", &detail)
		}
	})
}

func TestUnknownMethod(t *testing.T) {
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		m := *testpb.EchoEchoMethod
		m.Name = "Missing"
		_, err := conn.Invoke(t.Context(), &m, &testpb.EchoRequest{})
		e, ok := errors.AsType[*rpc.Error](err)
		if !ok || e.Code != rpc.Unimplemented || e.Reason != rpc.ReasonUnknown || !e.NotRun {
			t.Fatalf("got %#v", err)
		}
	})
}

func TestDeadline(t *testing.T) {
	both(t, func(t *testing.T, srv *testpb.Server, conn *framework.Conn) {
		client := testpb.NewEchoClient(conn)
		t.Run("passes while the call is served", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			_, err := client.Act(ctx, &testpb.ActRequest{Act: "block"})
			if rpc.CodeOf(err) != rpc.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || rpc.ReasonOf(err) != rpc.ReasonDeadline {
				t.Fatalf("got %v", err)
			}
		})
		t.Run("has passed before", func(t *testing.T) {
			before := srv.Acted.Load()
			ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
			defer cancel()
			_, err := client.Act(ctx, &testpb.ActRequest{})
			e, ok := errors.AsType[*rpc.Error](err)
			if !ok || e.Code != rpc.DeadlineExceeded || !e.NotRun {
				t.Fatalf("got %#v", err)
			}
			if srv.Acted.Load() != before {
				t.Fatal("an expired call was executed")
			}
		})
		t.Run("is the contract's when nobody says", func(t *testing.T) {
			began := time.Now()
			_, err := client.Act(context.Background(), &testpb.ActRequest{Act: "block"})
			if rpc.CodeOf(err) != rpc.DeadlineExceeded {
				t.Fatalf("got %v after %v", err, time.Since(began))
			}
		})
	})
}

func TestCancel(t *testing.T) {
	both(t, func(t *testing.T, srv *testpb.Server, conn *framework.Conn) {
		client := testpb.NewEchoClient(conn)
		ctx, cancel := context.WithCancel(t.Context())
		before := srv.Acted.Load()
		go func() {
			for srv.Acted.Load() == before {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := client.Act(ctx, &testpb.ActRequest{Act: "block"})
		if rpc.CodeOf(err) != rpc.Canceled || rpc.ReasonOf(err) != rpc.ReasonCanceled {
			t.Fatalf("got %v", err)
		}
		close(srv.Release)
	})
}

func TestHeaderTravels(t *testing.T) {
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		trace := tracing.NewTraceID()
		ctx := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Class: qos.Extra, UserLevel: 42, Trace: trace}})
		res, err := testpb.NewEchoClient(conn).Act(ctx, &testpb.ActRequest{Act: "header"})
		if err != nil {
			t.Fatal(err)
		}
		if res.Id != 42 || res.Name != "extra" || !bytes.Equal(res.Data, trace[:]) {
			t.Fatalf("got %v", res)
		}
	})
}

func TestLentRequestIsChecked(t *testing.T) {
	srv := testpb.NewServer()
	client := testpb.NewEchoClient(rpctest.Local(t, srv.Register))
	_, err := client.Act(t.Context(), &testpb.ActRequest{Act: "change"})
	if rpc.CodeOf(err) != rpc.Internal || !strings.Contains(err.Error(), "only lent") {
		t.Fatalf("got %v", err)
	}
}
