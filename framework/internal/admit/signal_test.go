// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"testing"
	"time"
)

// TestDelayOfOthers gives what the kernel says of a tenth of a second, in which the
// process had the cores for itself or shared them.
func TestDelayOfOthers(t *testing.T) {
	const ms = uint64(time.Millisecond)
	for _, tt := range []struct {
		name  string
		times threadTimes
		cores int
		want  time.Duration
	}{
		{"nothing ran", threadTimes{}, 2, 0},
		{"alone on one core, which two threads share", threadTimes{ran: 100 * ms, waited: 100 * ms, slices: 40}, 1, 0},
		{"alone on two cores, which three threads share", threadTimes{ran: 200 * ms, waited: 100 * ms, slices: 60}, 2, 0},
		{"idle, and never waiting", threadTimes{ran: 10 * ms, slices: 100}, 2, 0},
		{"half of one core, beside another process", threadTimes{ran: 50 * ms, waited: 150 * ms, slices: 50}, 1, 2 * time.Millisecond},
		{"a tenth of two cores, beside many", threadTimes{ran: 20 * ms, waited: 280 * ms, slices: 27}, 2, 10 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.times.othersDelay(tt.cores); got != tt.want {
				t.Errorf("othersDelay = %v, want %v", got, tt.want)
			}
		})
	}
}
