// SPDX-License-Identifier: Apache-2.0

package grpcclient

import (
	"context"
	"maps"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// WithMetadata gives a context whose calls over gRPC send this beside their requests, in
// addition to what ctx sends already. Keys are letters, digits, dots, hyphens and
// underscores; values of keys that end in "-bin" may be any bytes. Keys that gRPC or the
// framework use themselves are refused: those that begin with ":", "grpc-" or "sluice-",
// and traceparent. What a handler is called with does not go along by itself.
func WithMetadata(ctx context.Context, md map[string][]string) (context.Context, error) {
	all, _ := metadata.FromOutgoingContext(ctx)
	all = all.Copy()
	if all == nil {
		all = metadata.MD{}
	}
	for key, values := range md {
		if lower := strings.ToLower(key); strings.HasPrefix(lower, ":") || strings.HasPrefix(lower, "grpc-") || strings.HasPrefix(lower, "sluice-") || lower == "traceparent" {
			return nil, rpc.Errorf(rpc.InvalidArgument, "metadata %q: gRPC and the framework use such keys themselves", key)
		}
		all.Append(key, values...)
	}
	return metadata.NewOutgoingContext(ctx, all), nil
}

// An Answer is the metadata that came with the answer of a call. It is safe for concurrent
// use; calls made with one context one after the other each take the place of the last.
type Answer struct {
	mu              sync.Mutex
	header, trailer metadata.MD // guarded by mu
}

// Header gives what came before the response, by lower-case key. It is a copy.
func (a *Answer) Header() map[string][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.header)
}

// Trailer gives what came after the response, or with the error.
func (a *Answer) Trailer() map[string][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.trailer)
}

func (a *Answer) set(header, trailer metadata.MD) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header, a.trailer = header, trailer
}

type answerKey struct{}

// WithAnswer gives a context whose calls over gRPC note in a what came beside their
// answers: that of the last attempt which was answered. A stream has noted it when it has
// ended.
func WithAnswer(ctx context.Context, a *Answer) context.Context {
	return context.WithValue(ctx, answerKey{}, a)
}

func answerOf(ctx context.Context) *Answer {
	a, _ := ctx.Value(answerKey{}).(*Answer)
	return a
}
