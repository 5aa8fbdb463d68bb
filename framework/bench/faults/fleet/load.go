// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// How many there are, and how they call.
const (
	Instances = 4
	Callers   = 32
	Deadline  = 500 * time.Millisecond // of a call
	Settled   = 3 * time.Second        // after which callers should not notice a fault any more
	Patience  = 60 * time.Second       // for an instance to be called again

	pause = 10 * time.Millisecond // of a caller after each call
)

// Service is what the instances serve.
const Service = "faults"

// The two methods: both answer with the name of the instance.
var (
	again = method(rpc.NoSideEffects, 2)
	once  = method(rpc.IdempotencyUnknown, 0)
)

func method(level rpc.Idempotency, attempts int) *rpc.Method {
	m := *testpb.EchoEchoMethod
	m.Timeout, m.Idempotency, m.MaxAttempts = Deadline, level, attempts
	return &m
}

// Load is the callers, half of them of a method that may be repeated.
type Load struct {
	conn *framework.Conn
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	since  time.Time       // of the fault that is recorded; guarded by mu
	result *Result         // nil while nothing is recorded; guarded by mu
	served map[string]bool // who has answered since it was asked; guarded by mu
	news   chan struct{}   // somebody has answered
}

// Call starts the callers, for who dials addrs or finds the instances by an option.
func Call(ctx context.Context, addrs []string, opts ...framework.ClientOption) (*Load, error) {
	conn, err := framework.Dial(framework.ClientConfig{Service: Service, Addrs: addrs}, opts...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{conn: conn, end: cancel, served: map[string]bool{}, news: make(chan struct{}, 1)}
	for i := range Callers {
		m := again
		if i%2 == 0 {
			m = once
		}
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.call(ctx, m)
				_ = wait.For(ctx, pause)
			}
		})
	}
	return l, nil
}

// Stop ends them.
func (l *Load) Stop() {
	l.end()
	l.wg.Wait()
	_ = l.conn.Close()
}

// call makes one call and notes what comes of it.
func (l *Load) call(ctx context.Context, m *rpc.Method) {
	began := time.Now()
	res, err := l.conn.Invoke(ctx, m, &testpb.EchoRequest{Data: make([]byte, 100)})
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.result; r != nil && began.After(l.since) {
		late := began.Sub(l.since) >= Settled
		r.Calls++
		if late {
			r.lateCalls++
		}
		if err != nil {
			r.Errors++
			if late {
				r.lateErrors++
				if text := fmt.Sprintf("%v (%v)", err, rpc.ReasonOf(err)); len(r.examples) < 3 && !slices.Contains(r.examples, text) {
					r.examples = append(r.examples, text)
				}
			}
		}
	}
	if err == nil {
		l.served[res.(*testpb.EchoResponse).Name] = true
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
}

// Record counts the calls that begin from now on.
func (l *Load) Record(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.result = since, &Result{}
}

// Recorded ends it.
func (l *Load) Recorded() *Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.result
	l.result = nil
	return r
}

// UntilServed waits until each of the instances has answered a call.
func (l *Load) UntilServed(ctx context.Context, names ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, fmt.Errorf("not all of %v have answered a call within %v", names, Patience))
	defer cancel()
	l.mu.Lock()
	clear(l.served)
	l.mu.Unlock()
	for {
		l.mu.Lock()
		missing := slices.ContainsFunc(names, func(n string) bool { return !l.served[n] })
		l.mu.Unlock()
		if !missing {
			return nil
		}
		select {
		case <-l.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Attempts is how many attempts have been made so far.
func (l *Load) Attempts() (n float64) {
	for _, f := range process.Items().Snapshot().Families {
		if f.Name != "sluice.client.attempts" {
			continue
		}
		for _, s := range f.Series {
			n += s.Value
		}
	}
	return n
}
