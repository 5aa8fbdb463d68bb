// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// callee is a service as its callers see it.
type callee struct {
	Callee
	send    Transport
	sent    int
	refuses bool // fresh tasks, by its level
	answer  error
}

func newCallee(t *testing.T) *callee {
	t.Helper()
	c := &callee{}
	c.Refuses = func(qos.Priority) bool { return c.refuses }
	t.Cleanup(c.Join())
	c.send = Client(ClientConfig{Callee: &c.Callee}, func(context.Context, *ClientCall) error {
		c.sent++
		return c.answer
	})
	return c
}

var echo = &rpc.Method{Service: "test.v1.Echo", Name: "Echo", NewResponse: func() proto.Message { return nil }}

func (c *callee) call(ctx context.Context) error {
	return c.send(ctx, &ClientCall{Method: echo})
}

func task(t *testing.T, entry string) context.Context {
	return rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Entry: tracing.EntryOf(entry), Class: qos.Post}})
}

// TestGate: a task is not begun if a service that its kind is known to call later
// would refuse it.
func TestGate(t *testing.T) {
	first, second, rare := newCallee(t), newCallee(t), newCallee(t)
	for i := range 100 {
		ctx := task(t, t.Name())
		for _, c := range []*callee{first, second} {
			if err := c.call(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if i%4 == 0 {
			if err := rare.call(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	rare.refuses = true
	if err := first.call(task(t, t.Name())); err != nil {
		t.Errorf("a quarter of the tasks would be refused later: %v", err)
	}
	second.refuses = true
	sent := first.sent
	for range 2 * forgetAt { // a task that is refused does not make the gate forget why
		if err := first.call(task(t, t.Name())); rpc.ReasonOf(err) != rpc.ReasonOverload {
			t.Fatalf("every task would be refused later: %v", err)
		}
	}
	if first.sent != sent {
		t.Errorf("%d tasks were begun", first.sent-sent)
	}
	going := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Entry: tracing.EntryOf(t.Name()), Class: qos.Post, Ticket: 1}})
	if err := first.call(going); err != nil {
		t.Errorf("a task that leaves have worked for: %v", err)
	}
	if err := first.call(task(t, "another entry")); err != nil {
		t.Errorf("an entry that is not known to call it: %v", err)
	}
}

// TestGateAtTheEntry: an entry that lets requests wait asks all services before, and the
// request is not tested once more by its first call.
func TestGateAtTheEntry(t *testing.T) {
	first, second := newCallee(t), newCallee(t)
	asked := 0
	second.Refuses = func(qos.Priority) bool { asked++; return second.refuses }
	enter := func() (context.Context, bool) {
		ctx := task(t, t.Name())
		return ctx, EntryRefused(rpc.CallFrom(ctx))
	}
	for range 100 {
		ctx, refused := enter()
		if refused || first.call(ctx) != nil || second.call(ctx) != nil {
			t.Fatal("refused by nobody")
		}
	}
	asked = 0
	if ctx, refused := enter(); refused || first.call(ctx) != nil || asked != 1 {
		t.Errorf("the second service was asked %d times, want once", asked)
	}
	for _, c := range []*callee{first, second} {
		c.refuses = true
		if _, refused := enter(); !refused {
			t.Error("a service that every request calls would refuse it")
		}
		c.refuses = false
	}
}

// TestGateForgets: an entry that no longer calls a service is no longer refused for it.
func TestGateForgets(t *testing.T) {
	first, second := newCallee(t), newCallee(t)
	for range 100 {
		ctx := task(t, t.Name())
		if first.call(ctx) != nil || second.call(ctx) != nil {
			t.Fatal("refused")
		}
	}
	for range 2 * forgetAt {
		if err := first.call(task(t, t.Name())); err != nil {
			t.Fatal(err)
		}
	}
	second.refuses = true
	if err := first.call(task(t, t.Name())); err != nil {
		t.Errorf("nobody calls it any more: %v", err)
	}
}

// TestGateIsBounded: more entries and services than it holds are let through untested.
func TestGateIsBounded(t *testing.T) {
	t.Cleanup(func() {
		processGate.habits.Clear()
		processGate.kinds.Store(0)
	})
	var many []*callee
	for range maxCallees + 10 {
		many = append(many, newCallee(t))
	}
	last := many[len(many)-1]
	for i := range maxHabits + 10 {
		if err := last.call(task(t, t.Name()+string(rune('a'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	if n := processGate.kinds.Load(); n > maxHabits {
		t.Errorf("%d habits are kept", n)
	}
}

// origin is a connection that nothing waits on.
type origin struct{}

func (origin) Payload() ([]byte, bool, error) { return nil, true, nil }
func (origin) Serve(*ServerCall)              {}
func (origin) Refuse(*ServerCall, *rpc.Error) {}
func (origin) Flush()                         {}

// TestGateAtTheDoor: a call is refused on arrival if a service that its method is
// known to call would refuse it: otherwise its own work is in vain.
func TestGateAtTheDoor(t *testing.T) {
	leaf := newCallee(t)
	served := &rpc.Method{Service: "test.v1.Middle", Name: "Serve", Class: qos.Post, NewRequest: func() proto.Message { return new(emptypb.Empty) }}
	method := NewMethod(served, nil, nil, slog.New(slog.DiscardHandler), admit.New(2).NewService("middle"), nil)
	arrive := func(ticket uint16) *rpc.Error {
		var header [rpc.HeaderLen]byte
		(&rpc.Header{Class: qos.Post, Ticket: ticket, Budget: time.Second}).Put(header[:])
		c := method.NewCall(&Incoming{Conn: t.Context(), Origin: origin{}, Trusted: true, Header: header[:]}, nil, time.Now())
		_, refused := c.Arrive(new(admit.Batch))
		c.Leave()
		if refused != nil && refused.Reason == rpc.ReasonDecode { // there is nothing to decode into
			refused = nil
		}
		return refused
	}
	leaf.refuses = true
	if err := arrive(0); err != nil {
		t.Fatalf("nothing is known of the method: %v", err)
	}
	leaf.refuses = false
	for range 100 {
		in := &rpc.Call{Header: rpc.Header{Class: qos.Post}, Method: served, Peer: "192.0.2.1:1"}
		if err := leaf.call(rpc.WithCall(t.Context(), in)); err != nil {
			t.Fatal(err)
		}
	}
	if err := arrive(0); err != nil {
		t.Errorf("the leaf admits it: %v", err)
	}
	leaf.refuses = true
	if err := arrive(0); err != admit.Overloaded {
		t.Errorf("the leaf would refuse it: %v", err)
	}
	if err := arrive(1); err != nil {
		t.Errorf("a task that leaves have worked for: %v", err)
	}
}
