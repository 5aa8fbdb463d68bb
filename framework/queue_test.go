// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// TestQueue: the graph of an entry goes on through a queue, and the traces of both its
// ends are linked.
func TestQueue(t *testing.T) {
	name, entry := "test.v1.Outbox/"+tracing.NewSpanID().String(), "POST /"+tracing.NewSpanID().String() // counted nowhere else
	process.Graph().NameEntry(entry)
	queue := framework.NewQueue(name, qos.Background, testpb.EchoActMethod)
	client := testpb.NewEchoClient(rpctest.Local(t, testpb.NewServer().Register))
	producer := handlerFunc(nil)
	sent := make(chan tracing.Origin, 8)
	producer = func(ctx context.Context, req *testpb.ActRequest) (*testpb.EchoResponse, error) {
		sending := queue.Begin(ctx)
		defer sending.Done(nil)
		o, ok := tracing.ParseOrigin(sending.Origin.Append(nil))
		if !ok || o != sending.Origin {
			t.Errorf("%+v became %+v", sending.Origin, o)
		}
		sent <- o
		return &testpb.EchoResponse{}, nil
	}
	front := testpb.NewEchoClient(rpctest.Loopback(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, producer) }))
	put := func(sampled bool) (tracing.Origin, *rpc.Call) {
		ctx, call := entered(t.Context(), sampled)
		call.Entry = tracing.EntryOf(entry)
		if _, err := front.Act(ctx, &testpb.ActRequest{}); err != nil {
			t.Fatal(err)
		}
		return <-sent, call
	}
	plain, _ := put(false)
	traced, call := put(true)

	failed := errors.New("not now")
	var worked *rpc.Call
	for _, want := range []error{failed, nil} {
		err := queue.Take(t.Context(), []tracing.Origin{plain, traced}, func(ctx context.Context) error {
			worked = rpc.CallFrom(ctx)
			if want != nil {
				return want
			}
			_, err := client.Act(ctx, &testpb.ActRequest{Act: "hello"})
			return err
		})
		if !errors.Is(err, want) || (err != nil) != (want != nil) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}

	graph := callgraph.Build(process.Graph().Snapshot(time.Now()).Period, time.Minute, tracing.EntryOf(entry))
	edge := func(from, to string) callgraph.Edge {
		for _, e := range graph.Edges {
			if graph.Nodes[e.From].Name == from && graph.Nodes[e.To].Name == to {
				return e
			}
		}
		t.Fatalf("no edge from %q to %q", from, to)
		return callgraph.Edge{}
	}
	act := testpb.EchoActMethod.FullName()
	if e := edge(entry, act); e.Link || e.Client.Calls() != 2 {
		t.Errorf("entry to producer: %d calls", e.Client.Calls())
	}
	if e := edge(act, name); !e.Link || e.Client.Calls() != 2 || e.Server.Calls() != 4 || e.Server.Failed() != 2 {
		t.Errorf("producer to queue: %d in, %d out, %d failed", e.Client.Calls(), e.Server.Calls(), e.Server.Failed())
	}
	if e := edge(name, act); e.Link || e.Client.Calls() != 1 || e.Server.Calls() != 1 {
		t.Errorf("queue to its callee: %d and %d calls", e.Client.Calls(), e.Server.Calls())
	}

	var producing *tracing.Record
	for _, r := range records(t, call.Trace, 3) { // client, server, producer
		if r.Kind == tracing.Producer {
			producing = r
		}
	}
	if producing == nil || producing.Span != traced.Identity.Span || producing.Method != name {
		t.Fatalf("producer's record: %+v", producing)
	}
	taken := records(t, worked.Trace, 3) // consumer, client, server
	if r := taken[0]; r.Kind != tracing.Consumer || !slices.Equal(r.Links, []tracing.Identity{traced.Identity}) || r.Class != "ok" || !r.Parent.IsZero() {
		t.Errorf("consumer's record: %+v", r)
	}
	if r := taken[1]; r.Parent != taken[0].Span || r.Caller != name {
		t.Errorf("the consumer's call: %+v", r)
	}
}

// TestMixedQueue: messages of several entries worked on together belong to the queue.
func TestMixedQueue(t *testing.T) {
	queue := framework.NewQueue("test.v1.Outbox/mixed", qos.Background)
	for want, from := range map[tracing.Entry][]tracing.Origin{
		tracing.EntryOf("GET /a"):               {{Entry: tracing.EntryOf("GET /a")}, {Entry: tracing.EntryOf("GET /a")}},
		tracing.EntryOf("test.v1.Outbox/mixed"): {{Entry: tracing.EntryOf("GET /a")}, {Entry: tracing.EntryOf("GET /b")}},
	} {
		_ = queue.Take(t.Context(), from, func(ctx context.Context) error {
			if call := rpc.CallFrom(ctx); call.Entry != want || call.Class != qos.Background || call.Trace.IsZero() {
				t.Errorf("call = %+v, want entry %v", call.Header, want)
			}
			return nil
		})
	}
	if s := queue.Begin(t.Context()); s.Origin.Entry != tracing.EntryOf("test.v1.Outbox/mixed") || !s.Origin.Identity.Trace.IsZero() {
		t.Errorf("a message of no request comes from %+v", s.Origin)
	}
}

// TestJob: a job is an entry of its own.
func TestJob(t *testing.T) {
	name := "sweep " + tracing.NewSpanID().String()
	job := framework.NewJob(name, qos.Background)
	client := testpb.NewEchoClient(rpctest.Local(t, testpb.NewServer().Register))
	var call *rpc.Call
	err := job.Run(t.Context(), func(ctx context.Context) error {
		call = rpc.CallFrom(ctx)
		_, err := client.Act(ctx, &testpb.ActRequest{Act: "error"})
		return err
	})
	if rpc.CodeOf(err) != rpc.NotFound {
		t.Fatal(err)
	}
	got := records(t, call.Trace, 3)
	if r := got[0]; r.Kind != tracing.Internal || r.Method != name || r.Named != name || r.Class != "business_error" || r.Message != "no such thing" {
		t.Errorf("the job's record: %+v", r)
	}
	if got[1].Parent != got[0].Span || got[1].Named != name {
		t.Errorf("the job's call: %+v", got[1])
	}
	if calls := process.Graph().Entry(name).Stats().Calls(); calls != 1 {
		t.Errorf("the job ran %d times, counted", calls)
	}
}
