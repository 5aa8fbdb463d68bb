// SPDX-License-Identifier: Apache-2.0

// Package wait lets benches and drills pass time.
package wait

import (
	"context"
	"time"
)

// For waits, or gives up when ctx ends, and then says why that has ended.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
