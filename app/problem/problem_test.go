// SPDX-License-Identifier: Apache-2.0

package problem_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

func TestStore(t *testing.T) {
	shown := problem.NotFound("post")
	broken := errors.New("checksum of block 7")
	for _, c := range []struct {
		name string
		err  error
		code rpc.Code
		same error // what the result is or wraps
	}{
		{"none", nil, 0, nil},
		{"made for users", shown, rpc.NotFound, shown},
		{"out of time", fmt.Errorf("wait: %w", context.DeadlineExceeded), rpc.DeadlineExceeded, context.DeadlineExceeded},
		{"given up", context.Canceled, rpc.Canceled, context.Canceled},
		{"full", fmt.Errorf("write: %w", kv.ErrQuota), rpc.ResourceExhausted, nil},
		{"outcome lost", kv.ErrUnknown, rpc.Unavailable, nil},
		{"away", kv.ErrUnavailable, rpc.Unavailable, nil},
		{"lost every race", kv.ErrConflict, rpc.Unavailable, nil},
		{"broken", broken, rpc.Unknown, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := problem.Store("read post", c.err)
			if rpc.CodeOf(got) != c.code || c.same != nil && !errors.Is(got, c.same) {
				t.Errorf("got %v of code %v, want %v", got, rpc.CodeOf(got), c.code)
			}
		})
	}
}
