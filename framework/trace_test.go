// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/race"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	"github.com/sluice-rpc/sluice/tracing"
)

// entered gives a context as an entry makes it, of a trace of its own.
func entered(ctx context.Context, sampled bool) (context.Context, *rpc.Call) {
	call := &rpc.Call{Header: rpc.Header{Entry: tracing.EntryOf("GET /test"), Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()}}
	if sampled {
		call.Flags = rpc.FlagSampled
	}
	return rpc.WithCall(ctx, call), call
}

// records gives what the process has kept of a trace, once there are n of it, in the
// order of their beginning.
func records(t *testing.T, trace tracing.TraceID, n int) (out []*tracing.Record) {
	t.Helper()
	until(t, "the records of the trace are there", func() bool {
		out = recorded(trace)
		return len(out) >= n
	})
	if len(out) != n {
		t.Errorf("%d records, want %d", len(out), n)
	}
	return out
}

// recorded gives what the process has kept of a trace, in the order of their beginning.
func recorded(trace tracing.TraceID) []*tracing.Record {
	all, _, _ := framework.Tracer().Since(0, 1<<20)
	all = slices.DeleteFunc(all, func(r *tracing.Record) bool { return r.Trace != trace })
	slices.SortFunc(all, func(a, b *tracing.Record) int { return int(a.Start - b.Start) })
	return all
}

// failures gives the n records of a request that is not traced. Of those so many are kept
// in a second, which tests before may have used up: then another request is made.
func failures(t *testing.T, n int, request func() tracing.TraceID) []*tracing.Record {
	t.Helper()
	for range 30 {
		trace := request()
		for end := time.Now().Add(time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
			if all := recorded(trace); len(all) >= n {
				return all
			}
		}
	}
	t.Fatalf("never: %d records of a request", n)
	return nil
}

// relay makes one call for each that it serves.
type relay struct {
	testpb.UnimplementedEchoServer
	next testpb.EchoClient
	seen chan<- *rpc.Call
}

func (r relay) Act(ctx context.Context, req *testpb.ActRequest) (*testpb.EchoResponse, error) {
	if r.seen != nil {
		r.seen <- rpc.CallFrom(ctx)
	}
	return r.next.Act(ctx, req)
}

// TestTrace: each attempt and each call being served has a span of its own, below that
// of its caller, near and far.
func TestTrace(t *testing.T) {
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		register := func(r rpc.Registrar) { testpb.RegisterEchoServer(r, relay{next: testpb.NewEchoClient(conn)}) }
		first := testpb.NewEchoClient(rpctest.Loopback(t, register))
		ctx, call := entered(t.Context(), true)
		if _, err := first.Act(ctx, &testpb.ActRequest{Act: "hello"}); err != nil {
			t.Fatal(err)
		}
		got := records(t, call.Trace, 4)
		parent := call.Span
		for i, r := range got {
			if want := [...]tracing.Kind{tracing.Client, tracing.Server}[i%2]; r.Kind != want || r.Parent != parent || r.Span.IsZero() || r.Span == parent {
				t.Errorf("record %d is %v %v below %v, want %v below %v", i, r.Kind, r.Span, r.Parent, want, parent)
			}
			parent = r.Span
			if r.Method != testpb.EchoActMethod.FullName() || r.Class != "ok" || !strings.HasPrefix(r.Kept, "sampled") || r.Entry != call.Entry || r.Duration <= 0 || r.Peer == "" {
				t.Errorf("record %d: %+v", i, r)
			}
			if want := [...]string{"", "", r.Method, r.Method}[i]; r.Caller != want {
				t.Errorf("record %d has caller %q, want %q", i, r.Caller, want)
			}
			if want := [...]int{1, 0}[i%2]; r.Attempt != want {
				t.Errorf("record %d is of attempt %d, want %d", i, r.Attempt, want)
			}
		}
	})
}

// TestUntracedErrors: of a request that is not traced nothing is kept but what failed,
// and what its caller may not know stands in the server's record alone.
func TestUntracedErrors(t *testing.T) {
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		client := testpb.NewEchoClient(conn)
		ctx, call := entered(t.Context(), false)
		if _, err := client.Act(ctx, &testpb.ActRequest{Act: "hello"}); err != nil {
			t.Fatal(err)
		}
		for act, want := range map[string][2]string{ // messages of client and server
			"error":       {"no such thing", "no such thing"},
			"plain-error": {"internal error", "secret of the inside"},
			"panic":       {"internal error", "panic: secret of the inside"},
		} {
			for i, r := range failures(t, 2, func() tracing.TraceID {
				ctx, call := entered(t.Context(), false)
				_, _ = client.Act(ctx, &testpb.ActRequest{Act: act})
				return call.Trace
			}) {
				if !strings.HasSuffix(r.Kept, "error") || r.Message != want[i] || r.Class == "ok" || r.Code == "" {
					t.Errorf("%s: record %d: %+v, want message %q", act, i, r, want[i])
				}
			}
		}
		all, _, _ := framework.Tracer().Since(0, 1<<20)
		for _, r := range all {
			if r.Trace == call.Trace && r.Kept != "slow" {
				t.Errorf("kept of a call that went well: %+v", r)
			}
		}
	})
}

// forgiving answers although the call that it makes fails.
type forgiving struct {
	testpb.UnimplementedEchoServer
	next testpb.EchoClient
}

func (f forgiving) Echo(ctx context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	_, _ = f.next.Act(ctx, &testpb.ActRequest{Act: req.GetName()})
	return &testpb.EchoResponse{}, nil
}

// TestCallersOfKeptCallsAreKept: of an untraced request that goes well what has led to a
// failure is kept, too, over sockets as within the process, so that it has its place.
func TestCallersOfKeptCallsAreKept(t *testing.T) {
	type kept struct {
		kind tracing.Kind
		call string
		why  string
	}
	want := []kept{ // from the outside in
		{tracing.Client, "Echo", "below"},
		{tracing.Server, "Echo", "below"},
		{tracing.Client, "Act", "error"},
		{tracing.Server, "Act", "error"},
	}
	for name, connect := range map[string]func(testing.TB, func(rpc.Registrar), ...framework.ServerOption) *framework.Conn{
		"local": rpctest.Local, "loopback": rpctest.Loopback,
	} {
		t.Run(name, func(t *testing.T) {
			leaf := testpb.NewEchoClient(connect(t, testpb.NewServer().Register))
			client := testpb.NewEchoClient(connect(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, forgiving{next: leaf}) }))
			var call *rpc.Call
			got := make([]*tracing.Record, len(want))
			for _, r := range failures(t, len(want), func() tracing.TraceID {
				var ctx context.Context
				ctx, call = entered(t.Context(), false)
				if _, err := client.Echo(ctx, &testpb.EchoRequest{Name: "error"}); err != nil {
					t.Fatal(err)
				}
				return call.Trace
			}) {
				if i := slices.IndexFunc(want, func(k kept) bool { return k.kind == r.Kind && strings.HasSuffix(r.Method, "/"+k.call) }); i >= 0 {
					got[i] = r
				}
			}
			if slices.Contains(got, nil) {
				t.Fatalf("records of other calls: %+v", got)
			}
			// On a busy machine any of the calls may be kept for being slow, too.
			for i, r := range got {
				if why, _ := strings.CutSuffix(r.Kept, "+slow"); why != want[i].why && r.Kept != "slow" {
					t.Errorf("kept for %s, want %s: %+v", r.Kept, want[i].why, r)
				}
				if i > 0 && r.Parent != got[i-1].Span {
					t.Errorf("%+v is not below its caller", r)
				}
			}
			if !call.Progress().Kept() {
				t.Error("the entry was not told")
			}
		})
	}
}

// TestTraceOfRetry: a call that is refused and made again elsewhere has two attempts,
// each with a span of its own, and the server that served it stands below the second.
func TestTraceOfRetry(t *testing.T) {
	full := framework.NewServer(framework.ServerConfig{Service: "full", MaxInFlight: 1}, framework.WithoutSignals())
	free := framework.NewServer(framework.ServerConfig{Service: "free", Admission: framework.Off}, framework.WithoutSignals())
	busy := testpb.NewServer()
	busy.Register(full)
	testpb.NewServer().Register(free)
	run(t, full)
	run(t, free)
	conn, err := framework.Dial(framework.ClientConfig{Service: "full", Addrs: []string{full.Addr(), free.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	only, err := framework.Dial(framework.ClientConfig{Service: "full", Addrs: []string{full.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = only.Close() }()
	var g sync.WaitGroup
	g.Go(func() { _, _ = testpb.NewEchoClient(only).Act(t.Context(), &testpb.ActRequest{Act: "block"}) })
	until(t, "the blocking call is inside", func() bool { return busy.Acted.Load() == 1 })
	retried := false
	for range 8 { // each is likely to be tried at the full one first
		ctx, call := entered(t.Context(), true)
		if _, err := testpb.NewEchoClient(conn).Echo(ctx, &testpb.EchoRequest{}); err != nil {
			t.Fatal(err)
		}
		var got []*tracing.Record
		until(t, "the server's record is there", func() bool {
			all, _, _ := framework.Tracer().Since(0, 1<<20)
			got = slices.DeleteFunc(all, func(r *tracing.Record) bool { return r.Trace != call.Trace })
			return slices.ContainsFunc(got, func(r *tracing.Record) bool { return r.Kind == tracing.Server && r.Class == "ok" })
		})
		attempts := map[int]*tracing.Record{}
		var served, refused *tracing.Record
		for _, r := range got {
			switch {
			case r.Kind == tracing.Client:
				attempts[r.Attempt] = r
			case r.Class == "ok":
				served = r
			default:
				refused = r
			}
		}
		last := attempts[len(attempts)]
		if last == nil || served.Parent != last.Span || last.Parent != call.Span {
			t.Fatalf("served below %v, attempts %+v", served.Parent, attempts)
		}
		if len(attempts) == 2 {
			retried = true
			if a := attempts[1]; a.Span == last.Span || refused == nil || refused.Class != "overloaded" || refused.Parent != a.Span || a.Class != "overloaded" || a.Peer != full.Addr() || last.Peer != free.Addr() {
				t.Fatalf("first attempt %+v, second %+v", a, last)
			}
		}
	}
	if !retried {
		t.Error("no call was made again")
	}
	close(busy.Release)
	g.Wait()
}

// TestNothingSent: a call that never went out is one record of no attempt.
func TestNothingSent(t *testing.T) {
	client := testpb.NewEchoClient(rpctest.Loopback(t, testpb.NewServer().Register))
	ctx, call := entered(t.Context(), true)
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer cancel()
	if _, err := client.Echo(ctx, &testpb.EchoRequest{}); err == nil {
		t.Fatal("the deadline had passed")
	}
	if r := records(t, call.Trace, 1)[0]; r.Kind != tracing.Client || r.Attempt != 0 || r.Class != "unsent" || r.Parent != call.Span || r.Span.IsZero() {
		t.Errorf("got %+v", r)
	}
}

// outside is an exporter that knows one span of the user's.
type outside struct {
	tracing.Exporter
	mu   sync.Mutex
	took []*tracing.Record
}

type spanKey struct{}

func (o *outside) Export(r *tracing.Record) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.took = append(o.took, r)
	return len(o.took)%2 == 0 // as if it were full now and then
}

func (o *outside) ContextValue(key any, current tracing.Identity, notes *tracing.Notes) any {
	if key != (spanKey{}) {
		return nil
	}
	notes.Set("asked", "yes")
	return current
}

func (o *outside) SpanOf(ctx context.Context) (tracing.Identity, bool) {
	id, ok := ctx.Value(spanKey{}).(tracing.Identity)
	return id, ok
}

// TestUsersSpansJoin: the current span of a handler is that of its call, what the user
// notes on it stands in the record, and calls below a span of the user's are its
// children. An exporter that takes nothing holds nobody up.
func TestUsersSpansJoin(t *testing.T) {
	exporter := &outside{}
	framework.Tracer().SetExporter(exporter)
	defer framework.Tracer().SetExporter(nil)
	both(t, func(t *testing.T, _ *testpb.Server, conn *framework.Conn) {
		below := tracing.NewSpanID()
		type asked struct{ before, current tracing.Identity }
		got := make(chan asked, 1)
		handler := handlerFunc(func(ctx context.Context, req *testpb.ActRequest) (*testpb.EchoResponse, error) {
			id, _ := exporter.SpanOf(ctx)
			call := rpc.CallFrom(ctx)
			got <- asked{id, tracing.Identity{Trace: call.Trace, Span: call.Span, Sampled: true}}
			id.Span = below
			return testpb.NewEchoClient(conn).Act(context.WithValue(ctx, spanKey{}, id), req)
		})
		first := testpb.NewEchoClient(rpctest.Loopback(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, handler) }))
		ctx, call := entered(t.Context(), true)
		if _, err := first.Act(ctx, &testpb.ActRequest{Act: "hello"}); err != nil {
			t.Fatal(err)
		}
		if a := <-got; a.before != a.current || a.current.Trace != call.Trace {
			t.Errorf("the handler's span is %+v, its call's %+v", a.before, a.current)
		}
		kept := records(t, call.Trace, 4)
		if r := kept[1]; !slices.Contains(r.Notes, tracing.Note{Key: "asked", Value: "yes"}) {
			t.Errorf("the server's record has notes %v", r.Notes)
		}
		if r := kept[2]; r.Parent != below {
			t.Errorf("the second call is below %v, want %v", r.Parent, below)
		}
	})
	users := tracing.Identity{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Sampled: true}
	client := testpb.NewEchoClient(rpctest.Local(t, testpb.NewServer().Register))
	if _, err := client.Echo(context.WithValue(t.Context(), spanKey{}, users), &testpb.EchoRequest{}); err != nil {
		t.Fatal(err)
	}
	if r := records(t, users.Trace, 2)[0]; r.Parent != users.Span {
		t.Errorf("a call outside of any request is below %v, want %v", r.Parent, users.Span)
	}
	exporter.mu.Lock()
	defer exporter.mu.Unlock()
	if len(exporter.took) < 10 || framework.Tracer().Stats().Dropped == 0 {
		t.Errorf("the exporter was given %d records, %d dropped", len(exporter.took), framework.Tracer().Stats().Dropped)
	}
}

type handlerFunc func(context.Context, *testpb.ActRequest) (*testpb.EchoResponse, error)

func (f handlerFunc) Act(ctx context.Context, req *testpb.ActRequest) (*testpb.EchoResponse, error) {
	return f(ctx, req)
}

func (handlerFunc) Echo(context.Context, *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	return &testpb.EchoResponse{}, nil
}

// TestInFlight: a call being served is listed with its caller and its goroutine's stack.
func TestInFlight(t *testing.T) {
	both(t, func(t *testing.T, srv *testpb.Server, conn *framework.Conn) {
		register := func(r rpc.Registrar) { testpb.RegisterEchoServer(r, relay{next: testpb.NewEchoClient(conn)}) }
		first := testpb.NewEchoClient(rpctest.Loopback(t, register))
		ctx, call := entered(t.Context(), false)
		var g sync.WaitGroup
		g.Go(func() { _, _ = first.Act(ctx, &testpb.ActRequest{Act: "block"}) })
		until(t, "the call blocks", func() bool { return srv.Acted.Load() == 1 })
		var running []*inflight.Call
		for _, c := range process.InFlight().List() {
			if c.Trace == call.Trace {
				running = append(running, c)
			}
		}
		if len(running) != 2 {
			t.Fatalf("%d calls are listed, want 2", len(running))
		}
		for i, c := range running {
			stack, err := inflight.Stack(c)
			if err != nil || !strings.Contains(string(stack), [...]string{"relay.Act", "testpb.(*Server).Act"}[i]) {
				t.Errorf("stack of call %d: %v\n%s", i, err, stack)
			}
			if c.Name() != testpb.EchoActMethod.FullName() || c.Caller() != [...]string{"", c.Name()}[i] || time.Until(c.Deadline) <= 0 {
				t.Errorf("call %d: %s called by %q", i, c.Name(), c.Caller())
			}
		}
		close(srv.Release)
		g.Wait()
		until(t, "the calls are no longer listed", func() bool {
			return !slices.ContainsFunc(process.InFlight().List(), func(c *inflight.Call) bool { return c.Trace == call.Trace })
		})
	})
}

// TestUntracedCallAllocates: what a call allocates that is not traced. A span would be
// among it.
func TestUntracedCallAllocates(t *testing.T) {
	if race.Enabled {
		t.Log("the race detector allocates; counted without it")
		return
	}
	srv := framework.NewServer(framework.ServerConfig{Service: "echo", Admission: framework.Off})
	testpb.NewServer().Register(srv)
	client, req := testpb.NewEchoClient(framework.DialLocal(srv)), &testpb.EchoRequest{Id: 1}
	ctx, call := entered(t.Context(), false)
	call.Progress().Admit()
	got := testing.AllocsPerRun(2000, func() {
		if _, err := client.Echo(ctx, req); err != nil {
			t.Fatal(err)
		}
	})
	if got > 3 { // the call, which is the handler's context, what is left of the caller's, and the response
		t.Errorf("%v allocations, want 3", got)
	}
}
