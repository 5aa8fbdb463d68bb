// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

func TestFrameRoundTrip(t *testing.T) {
	header := (&[rpc.HeaderLen]byte{1, 2, 3})[:]
	for _, c := range []struct {
		name, service, method string
		header, payload       []byte
	}{
		{"call", "test.v1.Echo", "Echo", header, []byte("payload")},
		{"no header", "test.v1.Echo", "Echo", nil, []byte("payload")},
		{"no service", "", "Echo", header, nil},
		{"nothing", "", "", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := append(appendPrefix(nil, 77, typeCall, c.service, c.method, "test.v1.Front/Show", c.header, len(c.payload)), c.payload...)
			n, err := frameLen(b, 1<<20)
			if err != nil || n != len(b) {
				t.Fatalf("length %d, %v; want %d", n, err, len(b))
			}
			var f frame
			if err := f.parse(b); err != nil {
				t.Fatal(err)
			}
			if f.seq != 77 || f.kind != typeCall || string(f.service) != c.service || string(f.method) != c.method ||
				!bytes.Equal(f.header, c.header) || !bytes.Equal(f.payload, c.payload) {
				t.Fatalf("got %+v", f)
			}
			if want := "test.v1.Front/Show"; c.header != nil && string(f.caller) != want || c.header == nil && f.caller != nil {
				t.Fatalf("caller %q", f.caller)
			}
		})
	}
}

func TestResetFrame(t *testing.T) {
	b := appendReset(nil)
	if n, err := frameLen(b, 1<<10); err != nil || n != len(b) {
		t.Fatalf("length %d, %v; want %d", n, err, len(b))
	}
	var f frame
	if err := f.parse(b); err != nil || f.seq != 0 || !f.reset {
		t.Fatalf("got %+v, %v", f, err)
	}
}

func TestFrameLenRefuses(t *testing.T) {
	long := appendPrefix(nil, 1, typeCall, "", "M", "", nil, 1<<20)
	for name, b := range map[string][]byte{
		"http":     []byte("GET / HTTP/1.1\r\n"),
		"too long": long,
		"zeroes":   make([]byte, minFrame),
	} {
		if n, err := frameLen(b, 1<<10); err == nil {
			t.Errorf("%s: accepted as a frame of %d bytes", name, n)
		}
	}
}

func TestErrorRoundTrip(t *testing.T) {
	detail, err := anypb.New(durationpb.New(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	want := &rpc.Error{
		Code: rpc.ResourceExhausted, Message: "full", Reason: rpc.ReasonOverload,
		Retry: 250 * time.Millisecond, NotRun: true, Details: []*anypb.Any{detail},
	}
	got := parseError(appendError(nil, want))
	if got.Code != want.Code || got.Message != want.Message || got.Reason != want.Reason || got.Retry != want.Retry ||
		!got.NotRun || len(got.Details) != 1 || !proto.Equal(got.Details[0], detail) {
		t.Fatalf("got %#v", got)
	}
}

func TestRefusal(t *testing.T) {
	r := newRefusal(admit.Overloaded)
	b := r.append(r.append(nil, 7, 300, 9), 1<<30, qos.LastPriority, 0)
	for _, want := range []struct {
		seq     int32
		level   qos.Priority
		backlog uint8
	}{{7, 300, 9}, {1 << 30, qos.LastPriority, 0}} {
		n, err := frameLen(b, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var f frame
		if err := f.parse(b[:n]); err != nil {
			t.Fatal(err)
		}
		if inner := int32(be.Uint32(b[n-len(f.payload)-4:])); f.seq != want.seq || inner != want.seq {
			t.Errorf("sequences %d and %d, want %d", f.seq, inner, want.seq)
		}
		var p pending
		if err := p.answer(&f); err == nil {
			t.Error("a refusal is no answer")
		}
		if p.level != want.level || p.backlog != want.backlog {
			t.Errorf("level %v and backlog %d, want %v and %d", p.level, p.backlog, want.level, want.backlog)
		}
		f.header, p = f.header[:replyHeaderLeast], pending{} // as the first servers sent it
		if _ = p.answer(&f); p.level != want.level || p.backlog != 0 {
			t.Errorf("from an old server level %v and backlog %d", p.level, p.backlog)
		}
		if len(f.method) == 0 {
			t.Error("an exception without a method name: a stock client cannot read it")
		}
		if e := parseError(f.payload); e.Reason != rpc.ReasonOverload || !e.NotRun || e.Retry != admit.RetryAfter {
			t.Errorf("got %#v", e)
		}
		b = b[n:]
	}
}

func FuzzReport(f *testing.F) {
	f.Add(make([]byte, rpc.HeaderLen+rpc.ReportLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, p, m := parseReport(b)
		if n == 0 {
			return
		}
		again := appendReport(append([]byte(nil), b[:rpc.HeaderLen]...), admission.Report{Count: n, Priority: p, Method: admission.Method(m)})
		if n2, p2, m2 := parseReport(again); n2 != n || p2 != p || m2 != m {
			t.Fatalf("%d %v %d became %d %v %d", n, p, m, n2, p2, m2)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(appendPrefix(nil, 1, typeCall, "test.v1.Echo", "Echo", "test.v1.Front/Show", make([]byte, rpc.HeaderLen), 0))
	header := replyHeader(qos.LastPriority, 0)
	f.Add(appendPrefix(nil, 2, typeException, "", "Echo", "", header[:], 0))
	refusal := newRefusal(admit.Overloaded)
	f.Add(refusal.append(nil, 3, 7, 0))
	f.Add(appendReset(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < minFrame {
			return
		}
		n, err := frameLen(b, 1<<20)
		if err != nil || n > len(b) {
			return
		}
		var fr frame
		if fr.parse(b[:n]) != nil || fr.seq == 0 {
			return
		}
		// What was understood must survive being written and read again.
		again := append(appendPrefix(nil, fr.seq, fr.kind, string(fr.service), string(fr.method), string(fr.caller), fr.header, len(fr.payload)), fr.payload...)
		var second frame
		if err := second.parse(again); err != nil {
			t.Fatalf("%+v does not parse again: %v", fr, err)
		}
		if second.seq != fr.seq || !bytes.Equal(second.method, fr.method) || !bytes.Equal(second.payload, fr.payload) ||
			!bytes.Equal(second.service, fr.service) || !bytes.Equal(second.header, fr.header) {
			t.Fatalf("%+v became %+v", fr, second)
		}
	})
}

// FuzzAnswer reads replies as any server, also one of kitex, may send them.
func FuzzAnswer(f *testing.F) {
	header := replyHeader(7, 3)
	f.Add(append(appendPrefix(nil, 1, typeReply, "", "Echo", "", header[:], 2), 8, 1))
	f.Add(append(appendPrefix(nil, 1, typeReply, "", "Echo", "", header[:], 1), 8))
	f.Add(appendErrorReply(nil, 1, []byte("Echo"), 7, 3, &rpc.Error{Code: rpc.NotFound, Message: "m"}, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr frame
		if fr.parse(b) != nil || fr.seq == 0 {
			return
		}
		p := pending{res: &anypb.Any{}}
		err := p.answer(&fr)
		if e, ok := errors.AsType[*rpc.Error](err); err != nil && (!ok || e == nil || e.Code == 0) {
			t.Fatalf("%v of %+v", err, fr)
		}
		if !p.heard || p.garbled && err == nil {
			t.Errorf("heard %t, garbled %t, %v", p.heard, p.garbled, err)
		}
	})
}

func FuzzError(f *testing.F) {
	f.Add(appendError(nil, &rpc.Error{Code: rpc.NotFound, Message: "m", Retry: time.Second}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := parseError(b)
		if e.Code == 0 {
			t.Fatal("an error reply read as success")
		}
		again := parseError(appendError(nil, e))
		if again.Code != e.Code || again.Reason != e.Reason || again.NotRun != e.NotRun {
			t.Fatalf("%#v became %#v", e, again)
		}
	})
}
