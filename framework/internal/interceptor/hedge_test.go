// SPDX-License-Identifier: Apache-2.0

package interceptor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// slowPlace is a transport to two instances, whose first attempts take as long as it is told.
type slowPlace struct {
	mu     sync.Mutex
	first  time.Duration // that a first attempt takes; guarded by mu
	second time.Duration // that a second one takes; guarded by mu
	err    error         // of all attempts; guarded by mu
	refuse error         // of a first attempt, in place of err; guarded by mu
	sent   int           // guarded by mu
	hedges int           // guarded by mu
	alone  bool          // there is one instance only; guarded by mu
}

func (p *slowPlace) send(ctx context.Context, c *interceptor.ClientCall) error {
	p.mu.Lock()
	takes, err := p.first, p.err
	if p.refuse != nil {
		err = p.refuse
	}
	if c.Elsewhere {
		err = p.err
		if p.alone {
			p.mu.Unlock()
			return interceptor.ErrNowhereElse
		}
		takes = p.second
		p.hedges++
	}
	p.sent++
	p.mu.Unlock()
	c.Attempt(map[bool]string{false: "a", true: "b"}[c.Elsewhere])
	t := time.NewTimer(takes)
	defer t.Stop()
	select {
	case <-t.C:
		c.Response = &emptypb.Empty{}
	case <-ctx.Done():
		err = fails(rpc.Canceled, rpc.ReasonCanceled, false)
	}
	c.Attempted(err)
	return err
}

func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &slowPlace{first: 10 * time.Millisecond, second: 5 * time.Millisecond}
		m := method(rpc.NoSideEffects, 2)
		send := interceptor.Client(interceptor.ClientConfig{
			Budget: new(interceptor.Budget), Hedges: func(*rpc.Method) bool { return true },
		}, p.send)
		call := func(m *rpc.Method) (time.Duration, error) {
			began := time.Now()
			c := &interceptor.ClientCall{Method: m, Request: &emptypb.Empty{}}
			err := send(t.Context(), c)
			if err == nil && c.Response == nil {
				t.Fatal("no answer and no error")
			}
			return time.Since(began), err
		}
		for range 100 { // what a call of the method takes is learnt
			if _, err := call(m); err != nil {
				t.Fatal(err)
			}
		}
		if p.sent != 100 {
			t.Fatalf("%d attempts of calls that take as long as ever", p.sent)
		}

		p.first = time.Second
		if took, err := call(m); err != nil || took > 20*time.Millisecond || p.hedges != 1 {
			t.Fatalf("a late call took %v, %v, with %d hedges", took, err, p.hedges)
		}
		p.second = time.Minute
		if took, err := call(m); err != nil || took != time.Second || p.hedges != 2 {
			t.Fatalf("a call whose hedge is later still took %v, %v, with %d hedges", took, err, p.hedges)
		}
		p.alone = true
		if took, err := call(m); err != nil || took != time.Second || p.hedges != 2 {
			t.Fatalf("with one instance: %v, %v, %d hedges", took, err, p.hedges)
		}
		p.alone, p.second = false, 5*time.Millisecond
		if _, err := call(method(0, 0)); err != nil || p.hedges != 2 {
			t.Fatalf("%v, %d hedges of a method that may not be repeated", err, p.hedges)
		}

		// One that may have run is not hidden behind one that has not.
		p.first, p.err, p.refuse = 12*time.Millisecond, lost, fails(rpc.ResourceExhausted, rpc.ReasonNoInstance, true)
		if _, err := call(m); !errors.Is(err, lost) || p.hedges != 3 {
			t.Fatalf("%v, with %d hedges", err, p.hedges)
		}
		p.first, p.err, p.refuse = time.Second, nil, nil

		// The budget ends it: all calls are late, and only some are hedged.
		p.second = time.Second
		for range 600 {
			_, _ = call(m)
		}
		if p.hedges > 200 {
			t.Errorf("%d of 600 calls were hedged", p.hedges)
		}

		// So does failure.
		p.err, p.first, p.second = fails(rpc.Internal, rpc.ReasonPanic, false), time.Second, time.Second
		for range 2000 {
			_, _ = call(m)
		}
		hedges := p.hedges
		p.first = 5 * time.Second
		for range 50 {
			_, _ = call(m)
		}
		if p.hedges != hedges {
			t.Errorf("%d hedges while all fails", p.hedges-hedges)
		}
	})
}
