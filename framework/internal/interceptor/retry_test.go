// SPDX-License-Identifier: Apache-2.0

package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

func method(level rpc.Idempotency, attempts int) *rpc.Method {
	return &rpc.Method{
		Service: "test.v1.Retry", Name: "Do", Timeout: time.Minute, Idempotency: level, MaxAttempts: attempts,
		NewResponse: func() proto.Message { return &emptypb.Empty{} },
	}
}

// fails is how an attempt ends.
func fails(code rpc.Code, reason rpc.Reason, notRun bool) *rpc.Error {
	return &rpc.Error{Code: code, Reason: reason, NotRun: notRun, Message: reason.String()}
}

var (
	lost     = fails(rpc.Unavailable, rpc.ReasonNetwork, false)
	garbled  = fails(rpc.Internal, rpc.ReasonDecode, false)
	refused  = fails(rpc.ResourceExhausted, rpc.ReasonOverload, true)
	draining = fails(rpc.Unavailable, rpc.ReasonShuttingDown, true)
	nobody   = fails(rpc.Unavailable, rpc.ReasonNoInstance, true)

	// passedOn and tooLong are answers of an instance that is well.
	passedOn = fails(rpc.Unavailable, rpc.ReasonNetwork, false)
	tooLong  = fails(rpc.ResourceExhausted, rpc.ReasonDecode, false)
)

// answered says whether an instance has told of an error itself.
func answered(err error) bool {
	return err != nil && !errors.Is(err, lost) && rpc.ReasonOf(err) != rpc.ReasonDeadline
}

// scripted is a transport whose attempts end as its script says, then well.
type scripted struct {
	script  []error
	unsent  bool // the last of the script does not even go out
	avoided []string
	strict  []bool
}

func (s *scripted) send(_ context.Context, c *interceptor.ClientCall) error {
	s.avoided, s.strict = append(s.avoided, c.Avoid), append(s.strict, c.Elsewhere)
	var err error
	if len(s.script) > 0 {
		err, s.script = s.script[0], s.script[1:]
	}
	if s.unsent && len(s.script) == 0 && err != nil {
		return err
	}
	c.Attempt(fmt.Sprintf("instance-%d", len(s.avoided)))
	c.Answered, c.Garbled = answered(err), errors.Is(err, garbled)
	c.Attempted(err)
	return err
}

func TestRetry(t *testing.T) {
	for _, tc := range []struct {
		name   string
		m      *rpc.Method
		script []error
		unsent bool
		sends  int
		want   error
	}{
		{name: "well at once", m: method(0, 0), sends: 1},
		{name: "lost, and may be repeated", m: method(rpc.NoSideEffects, 2), script: []error{lost}, sends: 2},
		{name: "an answer nobody can read", m: method(rpc.Idempotent, 2), script: []error{garbled}, sends: 2},
		{name: "lost, and may not be repeated", m: method(0, 0), script: []error{lost}, sends: 1, want: lost},
		{name: "may be repeated, but its contract says once", m: method(rpc.Idempotent, 0), script: []error{lost}, sends: 1, want: lost},
		{name: "as often as the contract says", m: method(rpc.Idempotent, 3), script: []error{lost, lost, lost, lost}, sends: 3, want: lost},
		{name: "refused: once more", m: method(0, 0), script: []error{refused, refused, refused}, sends: 2, want: refused},
		{name: "refused, whatever the contract says", m: method(rpc.Idempotent, 5), script: []error{refused, refused}, sends: 2, want: refused},
		{
			name: "refused, and the level of all others refuses it unsent", m: method(0, 0), script: []error{refused, refused}, unsent: true,
			sends: 2, want: refused,
		},
		{name: "what a service behind it has lost is its affair", m: method(rpc.Idempotent, 3), script: []error{passedOn}, sends: 1, want: passedOn},
		{name: "a response that is too long will be again", m: method(rpc.Idempotent, 3), script: []error{tooLong}, sends: 1, want: tooLong},
		{name: "draining costs nothing", m: method(0, 0), script: []error{draining, draining, draining}, sends: 4},
		{name: "all are draining", m: method(0, 0), script: []error{draining, draining, draining, draining, draining}, sends: 4, want: draining},
		{name: "nobody is there", m: method(rpc.Idempotent, 3), script: []error{nobody}, unsent: true, sends: 1, want: nobody},
		{
			name: "nobody is left: it may have run", m: method(rpc.Idempotent, 3), script: []error{lost, nobody}, unsent: true,
			sends: 2, want: lost,
		},
		{name: "the deadline has passed", m: method(rpc.Idempotent, 3), script: []error{fails(rpc.DeadlineExceeded, rpc.ReasonDeadline, false)}, sends: 1, want: context.DeadlineExceeded},
		{name: "the handler's own no", m: method(rpc.Idempotent, 3), script: []error{fails(rpc.Unavailable, rpc.ReasonHandler, false)}, sends: 1, want: rpc.Errorf(rpc.Unavailable, "handler")},
		{name: "a panic would come again", m: method(rpc.Idempotent, 3), script: []error{fails(rpc.Internal, rpc.ReasonPanic, false)}, sends: 1, want: rpc.Errorf(rpc.Internal, "panic")},
		{name: "the breaker is open", m: method(rpc.Idempotent, 3), script: []error{fails(rpc.Unavailable, rpc.ReasonBreaker, true)}, unsent: true, sends: 1, want: rpc.Errorf(rpc.Unavailable, "breaker")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &scripted{script: tc.script, unsent: tc.unsent}
			send := interceptor.Client(interceptor.ClientConfig{Budget: new(interceptor.Budget)}, s.send)
			err := send(t.Context(), &interceptor.ClientCall{Method: tc.m, Request: &emptypb.Empty{}})
			if len(s.avoided) != tc.sends || rpc.CodeOf(err) != rpc.CodeOf(tc.want) {
				t.Fatalf("%d attempts, %v; want %d, %v", len(s.avoided), err, tc.sends, tc.want)
			}
			for i, who := range s.avoided[1:] {
				if want := fmt.Sprintf("instance-%d", i+1); who != want {
					t.Errorf("attempt %d avoids %q, want the one before, %q", i+2, who, want)
				}
			}
			if wantStrict := len(tc.script) > 0 && errors.Is(tc.script[0], refused); slices.Contains(s.strict, true) != wantStrict && tc.sends > 1 {
				t.Errorf("only elsewhere: %v, want it to be %v after a refusal", s.strict, wantStrict)
			}
			if e, ok := errors.AsType[*rpc.Error](err); ok && errors.Is(tc.want, lost) && e.NotRun {
				t.Error("the error says that the method has not run, but it may have")
			}
		})
	}
}

// TestRetryBudget: when everything fails there are as many further attempts as were saved,
// and then a tenth of what is answered.
func TestRetryBudget(t *testing.T) {
	const calls = 2_000
	budget := new(interceptor.Budget)
	attempts := 0
	var err error = lost // of all attempts
	send := interceptor.Client(interceptor.ClientConfig{Budget: budget}, func(_ context.Context, c *interceptor.ClientCall) error {
		attempts++
		c.Attempt("somewhere")
		c.Answered = answered(err)
		c.Attempted(err)
		return err
	})
	m := method(rpc.Idempotent, 5)
	run := func() (further int) {
		attempts = 0
		for range calls {
			_ = send(t.Context(), &interceptor.ClientCall{Method: m, Request: &emptypb.Empty{}})
		}
		return attempts - calls
	}
	saved := run()
	if saved == 0 || saved > calls/20 {
		t.Errorf("%d further attempts of %d calls while nothing answers", saved, calls)
	}
	if n := run(); n != 0 {
		t.Errorf("%d further attempts although nothing has been answered since", n)
	}
	for _, well := range []error{nil, fails(rpc.NotFound, rpc.ReasonHandler, false)} {
		err = well
		run()
		err = lost
		if n := run(); n != saved {
			t.Errorf("%d further attempts after all calls were answered with %v, want %d", n, well, saved)
		}
	}
}

// TestRetryBudgetOfDraining: what has cost nothing is not given back.
func TestRetryBudgetOfDraining(t *testing.T) {
	const calls = 1_000
	budget := new(interceptor.Budget)
	further := 0
	for range calls {
		s := &scripted{script: []error{refused, draining, interceptor.ErrNowhereElse}, unsent: true}
		send := interceptor.Client(interceptor.ClientConfig{Budget: budget}, s.send)
		err := send(t.Context(), &interceptor.ClientCall{Method: method(0, 0), Request: &emptypb.Empty{}})
		if e, ok := errors.AsType[*rpc.Error](err); !ok || !e.NotRun {
			t.Fatal(err)
		}
		further += len(s.avoided) - 1
	}
	if further > calls/5 {
		t.Errorf("%d further attempts of %d calls that all fail", further, calls)
	}
}

func TestRetryLeavesNoTimeBehind(t *testing.T) {
	s := &scripted{script: []error{lost}}
	send := interceptor.Client(interceptor.ClientConfig{Budget: new(interceptor.Budget)}, func(ctx context.Context, c *interceptor.ClientCall) error {
		err := s.send(ctx, c)
		c.Deadline = time.Now().Add(-time.Second) // it took too long
		return err
	})
	err := send(t.Context(), &interceptor.ClientCall{Method: method(rpc.Idempotent, 3), Request: &emptypb.Empty{}})
	if len(s.avoided) != 1 || rpc.ReasonOf(err) != rpc.ReasonNetwork {
		t.Fatalf("%d attempts, %v: nothing is sent after the deadline", len(s.avoided), err)
	}
}
