// SPDX-License-Identifier: Apache-2.0

package rpc

import "context"

// Call is the request being worked on: what its entry or its caller said of it.
// It is read-only.
type Call struct {
	Header
	Method *Method // the method being served; nil at an entry
	Peer   string  // address of the caller; "local" for a call within the process, empty at an entry
}

type callKey struct{}

// CallKey is the key under which a context holds its *Call. The framework's own
// contexts answer it without a map or a chain of values; everyone else uses
// CallFrom and WithCall.
var CallKey any = callKey{}

// CallFrom gives the call that ctx belongs to, nil if it belongs to none.
func CallFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(CallKey).(*Call)
	return c
}

// WithCall gives a context whose outgoing calls carry c's header. An entry uses
// it: an HTTP request, a job, a record of a queue.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, CallKey, c)
}
