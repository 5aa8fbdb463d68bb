// SPDX-License-Identifier: Apache-2.0

package rpctest

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Recorder passes calls on and remembers them. It is safe for concurrent use.
type Recorder struct {
	next rpc.Invoker

	mu    sync.Mutex
	calls []Recorded // guarded by mu
}

// Recorded is one call that has ended. Its messages are clones.
type Recorded struct {
	Method   *rpc.Method
	Request  proto.Message
	Response proto.Message // nil after an error
	Err      error
}

var _ rpc.Invoker = (*Recorder)(nil)

// NewRecorder puts a Recorder before a connection.
func NewRecorder(next rpc.Invoker) *Recorder { return &Recorder{next: next} }

// Invoke implements rpc.Invoker.
func (r *Recorder) Invoke(ctx context.Context, m *rpc.Method, req proto.Message) (proto.Message, error) {
	made := Recorded{Method: m, Request: proto.Clone(req)}
	res, err := r.next.Invoke(ctx, m, req)
	if made.Err = err; err == nil {
		made.Response = proto.Clone(res)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, made)
	return res, err
}

// Calls gives the calls that have ended so far, in the order of their ends.
func (r *Recorder) Calls() []Recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}
