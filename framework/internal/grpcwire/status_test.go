// SPDX-License-Identifier: Apache-2.0

package grpcwire_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func same(a, b *rpc.Error) bool {
	if a.Code != b.Code || a.Message != b.Message || a.Reason != b.Reason || a.NotRun != b.NotRun || a.Retry != b.Retry || len(a.Details) != len(b.Details) {
		return false
	}
	for i := range a.Details {
		if !proto.Equal(a.Details[i], b.Details[i]) {
			return false
		}
	}
	return true
}

// TestRoundTrip: an error comes out as it went in.
func TestRoundTrip(t *testing.T) {
	retry := pack(t, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
	foreign := pack(t, &errdetails.ErrorInfo{Reason: "X", Domain: "example.org"})
	for name, e := range map[string]*rpc.Error{
		"answer":   {Code: rpc.NotFound, Message: "no such thing"},
		"details":  {Code: rpc.NotFound, Message: "no such thing", Details: []*anypb.Any{foreign}},
		"overload": {Code: rpc.ResourceExhausted, Reason: rpc.ReasonOverload, NotRun: true, Retry: time.Second},
		"both":     {Code: rpc.Unavailable, Reason: rpc.ReasonShuttingDown, NotRun: true, Retry: time.Second, Details: []*anypb.Any{foreign, retry}},
		"panic":    {Code: rpc.Internal, Reason: rpc.ReasonPanic, Details: []*anypb.Any{retry}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := grpcwire.ErrorOf(grpcwire.StatusOf(e)); !same(e, got) {
				t.Errorf("got %#v, want %#v", got, e)
			}
		})
	}
}

func TestForeignStatus(t *testing.T) {
	st, err := status.New(codes.Unavailable, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if e := grpcwire.ErrorOf(st); e.Code != rpc.Unavailable || e.Reason != rpc.ReasonHandler || e.Retry != time.Minute || len(e.Details) != 1 || e.NotRun {
		t.Errorf("got %#v", e)
	}
	if e := grpcwire.ErrorOf(status.New(codes.OK, "")); e.Code != rpc.Internal {
		t.Errorf("OK became %v", e)
	}
}

// TestBounds: a status fits into headers whatever the error holds.
func TestBounds(t *testing.T) {
	big := &rpc.Error{Code: rpc.Internal, Message: strings.Repeat("é", 5000)}
	for range 10 {
		big.Details = append(big.Details, pack(t, &errdetails.ErrorInfo{Reason: strings.Repeat("x", 1000)}))
	}
	if n := proto.Size(grpcwire.StatusOf(big).Proto()); n > 7<<10 {
		t.Errorf("%d bytes", n)
	}
}

// FuzzErrorOf reads statuses as any server may send them.
func FuzzErrorOf(f *testing.F) {
	seed, err := proto.Marshal(grpcwire.StatusOf(&rpc.Error{Code: rpc.ResourceExhausted, Reason: rpc.ReasonOverload, NotRun: true, Retry: time.Second}).Proto())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &spb.Status{}
		if proto.Unmarshal(b, s) != nil {
			return
		}
		e := grpcwire.ErrorOf(status.FromProto(s))
		if e.Code == 0 || e.Code > rpc.Unauthenticated || e.Retry < 0 {
			t.Errorf("%v became %#v", s, e)
		}
		if again := grpcwire.ErrorOf(grpcwire.StatusOf(e)); again.Code != e.Code || again.Reason != e.Reason || again.NotRun != e.NotRun {
			t.Errorf("%#v became %#v", e, again)
		}
	})
}

// FuzzParent reads what callers send as their trace.
func FuzzParent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Fuzz(func(t *testing.T, v string) {
		var h rpc.Header
		grpcwire.Parent(&h, map[string][]string{grpcwire.TraceKey: {v}})
		if h.Flags != 0 || h.Trace.IsZero() != h.Span.IsZero() {
			t.Errorf("%q became %+v", v, h)
		}
	})
}

// FuzzLevelOf reads what a server says that it lets in.
func FuzzLevelOf(f *testing.F) {
	f.Add("12", "7")
	f.Add("-1", "256")
	f.Add("", "0x10")
	f.Fuzz(func(t *testing.T, level, backlog string) {
		md := map[string][]string{grpcwire.LevelKey: {level}, grpcwire.BacklogKey: {backlog}}
		p, ms := grpcwire.LevelOf(md)
		if p > qos.LastPriority {
			t.Fatalf("%q became %d", level, p)
		}
		if p2, ms2 := grpcwire.LevelOf(grpcwire.AppendLevel(nil, p, ms)); p2 != p || ms2 != ms {
			t.Errorf("%d, %d became %d, %d", p, ms, p2, ms2)
		}
		md[grpcwire.LevelKey] = append(md[grpcwire.LevelKey], level)
		if p, _ := grpcwire.LevelOf(md); p != qos.LastPriority {
			t.Errorf("of two levels %d was believed", p)
		}
	})
}
