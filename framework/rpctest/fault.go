// SPDX-License-Identifier: Apache-2.0

package rpctest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Fault makes some calls of a connection go wrong. Rules may be set at any time;
// it is safe for concurrent use.
type Fault struct {
	next rpc.Invoker

	mu    sync.Mutex
	rng   *rand.Rand      // guarded by mu
	rules map[string]Rule // by full method name, "" for all; guarded by mu
}

// Rule says what goes wrong with a method's calls.
type Rule struct {
	Share float64       // of the calls that are hit, 0 to 1
	Delay time.Duration // before the call goes on
	Err   error         // returned instead of making the call
	Lost  bool          // make the call but lose its answer: the caller gets Unavailable
}

var _ rpc.Invoker = (*Fault)(nil)

// NewFault puts a Fault before a connection. The seed decides which calls are hit.
func NewFault(next rpc.Invoker, seed uint64) *Fault {
	return &Fault{next: next, rng: rand.New(rand.NewPCG(seed, 0)), rules: map[string]Rule{}}
}

// Set sets the rule of a method, given as rpc.Method.FullName gives it; "" stands
// for every method without a rule of its own. A zero Rule ends it.
func (f *Fault) Set(method string, r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules[method] = r
}

// Invoke implements rpc.Invoker.
func (f *Fault) Invoke(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
	r, hit := f.rule(m)
	if !hit {
		return f.next.Invoke(ctx, m, req)
	}
	if r.Delay > 0 {
		t := time.NewTimer(r.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			e := &rpc.Error{Code: rpc.CodeOf(ctx.Err()), Reason: rpc.ReasonDeadline, NotRun: true, Message: "injected delay outlasted the context"}
			if e.Code == rpc.Canceled {
				e.Reason = rpc.ReasonCanceled
			}
			return nil, e
		}
	}
	if r.Err != nil {
		return nil, r.Err
	}
	res, err := f.next.Invoke(ctx, m, req)
	if r.Lost {
		return nil, &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonNetwork, Message: "injected loss of the answer"}
	}
	return res, err
}

func (f *Fault) rule(m *rpc.Method) (Rule, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.rules[m.FullName()]
	if !ok {
		r = f.rules[""]
	}
	return r, r.Share > 0 && f.rng.Float64() < r.Share
}
