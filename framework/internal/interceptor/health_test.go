// SPDX-License-Identifier: Apache-2.0

package interceptor_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// instance drives the health of one.
type instance struct {
	interceptor.Health
	mayEject bool
}

func (i *instance) call(m *rpc.Method, v interceptor.Verdict) {
	c := &interceptor.ClientCall{Method: m}
	i.Sent(c, time.Now())
	i.Returned(c, v, true, i.mayEject, time.Now())
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var i instance
		m, other := method(0, 0), method(0, 0)
		i.call(m, interceptor.Well)
		if i.Troubled() {
			t.Fatal("a call that went well is remembered")
		}
		for range 4 {
			i.call(m, interceptor.MethodBroken)
		}
		i.call(m, interceptor.SaysNothing)
		if i.Breaks(m) {
			t.Fatal("four failures opened it")
		}
		i.call(m, interceptor.Broken)
		if !i.Breaks(m) || i.Breaks(other) {
			t.Fatal("five in a row open the breaker of this method and of no other")
		}
		time.Sleep(3 * time.Second)
		if i.Breaks(m) {
			t.Fatal("no call may try")
		}
		trial := &interceptor.ClientCall{Method: m}
		i.Sent(trial, time.Now())
		if !i.Breaks(m) {
			t.Fatal("a second call may try while the first does")
		}
		i.Returned(trial, interceptor.SaysNothing, true, false, time.Now())
		if i.Breaks(m) {
			t.Fatal("a trial that says nothing must leave room for another")
		}
		i.call(m, interceptor.Broken)
		if !i.Breaks(m) {
			t.Fatal("a failed trial leaves it open")
		}
		time.Sleep(3 * time.Second)
		i.call(m, interceptor.Well)
		if i.Breaks(m) {
			t.Fatal("a good trial closes it")
		}
		time.Sleep(time.Minute)
		i.call(m, interceptor.Well)
		if i.Troubled() {
			t.Fatal("all is well, and still something is remembered")
		}
	})
}

func TestBreakerByShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var i instance
		m := method(0, 0)
		for n := range 100 {
			i.call(m, interceptor.MethodBroken)
			if i.Breaks(m) {
				if n < 8 {
					t.Fatalf("open after %d failures and as many answers", n+1)
				}
				return
			}
			i.call(m, interceptor.Well)
		}
		t.Fatal("half of all calls fail and the breaker is closed")
	})
}

func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := instance{mayEject: true}
		m := method(0, 0)
		fail := func(n int) {
			for range n {
				i.call(m, interceptor.Broken)
			}
		}
		fail(4)
		i.call(m, interceptor.Well)
		fail(4)
		if i.Ejected(time.Now()) {
			t.Fatal("ejected for failures that are not in a row")
		}
		fail(1)
		if !i.Ejected(time.Now()) {
			t.Fatal("five in a row, and it stays")
		}
		for _, lasts := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			time.Sleep(lasts - time.Millisecond)
			if !i.Ejected(time.Now()) {
				t.Fatalf("back before %v", lasts)
			}
			time.Sleep(time.Millisecond)
			if i.Ejected(time.Now()) {
				t.Fatalf("still out after %v", lasts)
			}
			fail(1) // its trial
		}
		time.Sleep(time.Minute)
		trial := &interceptor.ClientCall{Method: m}
		i.Sent(trial, time.Now())
		if !i.Ejected(time.Now()) {
			t.Fatal("one call at a time tries")
		}
		i.Returned(trial, interceptor.Well, true, true, time.Now())
		if i.Ejected(time.Now()) {
			t.Fatal("a good trial brings it back")
		}

		i.mayEject = false
		fail(20)
		if i.Ejected(time.Now()) {
			t.Fatal("ejected although too many are")
		}
	})
}

// TestLostTogether: calls that are lost with one connection are one failure, and calls
// that are lost one after the other are as many.
func TestLostTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := instance{mayEject: true}
		m := method(0, 0)
		loses := func(n int) {
			under := make([]*interceptor.ClientCall, n)
			for k := range under {
				under[k] = &interceptor.ClientCall{Method: m}
				under[k].Attempted(nil) // the next attempt begins now
				under[k].Attempt("instance")
				i.Sent(under[k], time.Now())
			}
			time.Sleep(time.Millisecond)
			for _, c := range under {
				i.Returned(c, interceptor.Lost, true, i.mayEject, time.Now())
				time.Sleep(time.Microsecond)
			}
		}
		for range 4 {
			loses(100)
		}
		if i.Breaks(m) || i.Ejected(time.Now()) {
			t.Fatal("four connections that went have closed it")
		}
		loses(1)
		if !i.Breaks(m) || !i.Ejected(time.Now()) {
			t.Fatal("five in a row, and it stays")
		}
	})
}

func TestVerdict(t *testing.T) {
	late := fails(rpc.DeadlineExceeded, rpc.ReasonDeadline, false)
	for _, tc := range []struct {
		name             string
		err              *rpc.Error
		took             time.Duration // of a minute
		busy             bool
		unread, answered bool
		want             interceptor.Verdict
	}{
		{name: "answered", want: interceptor.Well},
		{name: "the handler's no", err: fails(rpc.Internal, rpc.ReasonHandler, false), want: interceptor.Well},
		{name: "no such method", err: fails(rpc.Unimplemented, rpc.ReasonUnknown, true), want: interceptor.Well},
		{name: "lost", err: lost, want: interceptor.Lost},
		{name: "garbled", err: garbled, answered: true, unread: true, want: interceptor.Broken},
		{name: "it does not understand us", err: fails(rpc.InvalidArgument, rpc.ReasonDecode, true), answered: true, want: interceptor.Well},
		{name: "its answer would be too long", err: tooLong, answered: true, want: interceptor.Well},
		{name: "our own message could not be encoded", err: fails(rpc.InvalidArgument, rpc.ReasonDecode, true), want: interceptor.SaysNothing},
		{name: "it has lost a service that it needs", err: passedOn, answered: true, want: interceptor.SaysNothing},
		{name: "a service that it needs was late", err: late, took: 40 * time.Second, answered: true, want: interceptor.SaysNothing},
		{name: "panic", err: fails(rpc.Internal, rpc.ReasonPanic, false), want: interceptor.MethodBroken},
		{name: "overload", err: refused, want: interceptor.SaysNothing},
		{name: "draining", err: draining, want: interceptor.SaysNothing},
		{name: "given up", err: fails(rpc.Canceled, rpc.ReasonCanceled, false), want: interceptor.SaysNothing},
		{name: "late", err: late, took: 40 * time.Second, want: interceptor.Broken},
		{name: "late, but it has too much to do", err: late, took: 40 * time.Second, busy: true, want: interceptor.SaysNothing},
		{name: "it had hardly any time", err: late, took: time.Second, want: interceptor.SaysNothing},
		{name: "it was not sent", err: fails(rpc.DeadlineExceeded, rpc.ReasonDeadline, true), took: 40 * time.Second, want: interceptor.SaysNothing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &interceptor.ClientCall{Method: method(0, 0)}
				c.Attempted(nil) // the next attempt begins now
				c.Attempt("instance")
				c.Answered, c.Garbled = tc.answered, tc.unread
				time.Sleep(tc.took)
				var err error
				if tc.err != nil {
					err = tc.err
				}
				if got := c.VerdictOf(err, tc.busy); got != tc.want {
					t.Errorf("got %d, want %d", got, tc.want)
				}
			})
		})
	}
}
