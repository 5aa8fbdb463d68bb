// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// TestDeathOnArrival: a region whose process ends in the moment in which it becomes ready has
// either arrived, and is started again, or has not joined, and the others go on.
func TestDeathOnArrival(t *testing.T) {
	for name, c := range map[string]struct {
		before bool // it has arrived before its process ends
		starts int
	}{
		"ended before":  {false, 1},
		"arrived first": {true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			died := errors.New("died")
			var r worldRegion
			r.comes()
			starts, arrived := 0, error(nil)
			err := keepRunning(t.Context(), slog.New(slog.DiscardHandler), "r", func() bool {
				if starts > 1 {
					return false // enough is seen
				}
				if c.before {
					arrived = r.arrived()
				}
				up := !r.diedComing(errDiedComing)
				if !c.before {
					arrived = r.arrived()
				}
				return up
			}, func(_ context.Context) error { starts++; return died })
			if starts != c.starts || (arrived == nil) != c.before {
				t.Errorf("it was started %d times, arrived: %v", starts, arrived)
			}
			if told := r.diedComing(err); told == c.before {
				t.Errorf("who waits is told: %v", told)
			}
		})
	}
}
