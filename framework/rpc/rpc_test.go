// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

func TestHeaderRoundTrip(t *testing.T) {
	want := rpc.Header{
		Flags: rpc.FlagSampled, Class: qos.Post, UserLevel: 99, Ticket: 7, Entry: tracing.EntryOf("POST /posts"),
		Budget: 1234567 * time.Microsecond, Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(),
	}
	b := make([]byte, rpc.HeaderLen+8)
	want.Put(b)
	var got rpc.Header
	if !got.Parse(b) || got != want { // what follows belongs to a later version
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestHeaderEdges(t *testing.T) {
	put := func(h rpc.Header) (got rpc.Header) {
		var b [rpc.HeaderLen]byte
		h.Put(b[:])
		if !got.Parse(b[:]) {
			t.Fatalf("%+v does not parse", h)
		}
		return got
	}
	if h := put(rpc.Header{Budget: time.Nanosecond}); h.Budget != time.Microsecond {
		t.Errorf("a nanosecond left reads as %v: zero would mean no deadline", h.Budget)
	}
	if h := put(rpc.Header{Budget: 100 * time.Hour}); h.Budget < time.Hour {
		t.Errorf("100 h read as %v", h.Budget)
	}
	if h := put(rpc.Header{Budget: -time.Second}); h.Budget != 0 {
		t.Errorf("a negative budget reads as %v", h.Budget)
	}
	if h := put(rpc.Header{Class: 200, UserLevel: 255}); h.Class != qos.MaxClass || h.UserLevel != qos.UserLevels-1 {
		t.Errorf("values of nobody's reach: class %v, level %d", h.Class, h.UserLevel)
	}
	kept := rpc.Header{Ticket: 5}
	if kept.Parse(make([]byte, rpc.HeaderLen)) || kept.Parse(make([]byte, rpc.HeaderLen-1)) || kept.Ticket != 5 {
		t.Error("version zero and a short value are no header, and change nothing")
	}
}

func FuzzHeader(f *testing.F) {
	var b [rpc.HeaderLen]byte
	(&rpc.Header{Class: qos.Browse, Budget: time.Second}).Put(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var h, again rpc.Header
		if !h.Parse(b) {
			return
		}
		var out [rpc.HeaderLen]byte
		h.Put(out[:])
		if !again.Parse(out[:]) || again != h {
			t.Fatalf("%+v became %+v", h, again)
		}
	})
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("load: %w", rpc.Errorf(rpc.NotFound, "post %d: %w", 7, io.EOF))
	if rpc.CodeOf(err) != rpc.NotFound || !errors.Is(err, io.EOF) {
		t.Errorf("got %v, code %v", err, rpc.CodeOf(err))
	}
	for want, err := range map[rpc.Code]error{
		0:                    nil,
		rpc.Unknown:          io.EOF,
		rpc.DeadlineExceeded: context.DeadlineExceeded,
		rpc.Canceled:         fmt.Errorf("read: %w", context.Canceled),
	} {
		if got := rpc.CodeOf(err); got != want {
			t.Errorf("%v has code %v, want %v", err, got, want)
		}
	}
	if !errors.Is(&rpc.Error{Code: rpc.DeadlineExceeded}, context.DeadlineExceeded) || !errors.Is(&rpc.Error{Code: rpc.Canceled}, context.Canceled) {
		t.Error("the framework's own errors must answer to those of package context")
	}
	if rpc.ReasonOf(rpc.Errorf(rpc.ResourceExhausted, "mine")) != rpc.ReasonHandler {
		t.Error("a handler's error has another reason than handler")
	}
}

func TestDetails(t *testing.T) {
	base := rpc.Errorf(rpc.InvalidArgument, "no")
	err := rpc.WithDetails(base, durationpb.New(time.Second))
	var d durationpb.Duration
	if !rpc.Detail(err, &d) || d.AsDuration() != time.Second || rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Fatalf("got %v, %v", err, &d)
	}
	if rpc.Detail(base, &d) || rpc.Detail(err, new(wrapperspb.StringValue)) || rpc.WithDetails(nil, &d) != nil {
		t.Fatal("a detail where there is none")
	}
}

func TestCallInContext(t *testing.T) {
	if rpc.CallFrom(t.Context()) != nil {
		t.Fatal("a call out of nothing")
	}
	c := &rpc.Call{Header: rpc.Header{Ticket: 3}}
	if got := rpc.CallFrom(rpc.WithCall(t.Context(), c)); got != c {
		t.Fatalf("got %v", got)
	}
}

func TestNames(t *testing.T) {
	m := &rpc.Method{Service: "a.v1.B", Name: "C"}
	if m.FullName() != "a.v1.B/C" || m.CallTimeout() != rpc.DefaultTimeout {
		t.Errorf("got %s, %v", m.FullName(), m.CallTimeout())
	}
	var names bytes.Buffer
	fmt.Fprint(&names, rpc.NotFound, " ", rpc.Code(99), " ", rpc.ReasonOverload, " ", rpc.Reason(99))
	if names.String() != "not_found code_99 overload reason_99" {
		t.Errorf("got %s", names.String())
	}
}
