// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/idcqueue/flow"
)

// TestMark: what a peer has put before is here grows only, and its clock is what it last
// showed and went on, also while it has much to send that is older.
func TestMark(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(1_700_000_000+s, 0) }
	const ahead = 3600 // the peer's clock
	var st receiveState
	if got := st.clockAt(at(0)); !got.Equal(at(0)) {
		t.Errorf("the clock of a peer that has said nothing is %v, want the one here", got)
	}
	for _, step := range []struct {
		name          string
		said, clock   int64
		here, look    int64
		caught, shows int64
	}{
		{"idle", ahead - 5, ahead, 0, 2, ahead - 5, ahead + 2},
		{"not heard of for long", ahead - 5, ahead, 0, 600, ahead - 5, ahead + 600},
		{"back, with ten minutes to send", ahead + 1, ahead + 600, 600, 600, ahead + 1, ahead + 600},
		{"still sending", ahead + 1, ahead + 601, 601, 603, ahead + 1, ahead + 603},
		{"done", ahead + 605, ahead + 610, 610, 610, ahead + 605, ahead + 610},
		{"its clock set back", 5, 10, 611, 612, ahead + 605, 11},
		{"the clock here set back", 15, 20, 611, 600, ahead + 605, 20},
	} {
		st.mark(&flow.Mark{At: at(step.said), Now: at(step.clock)}, at(step.here))
		if !st.caught.Equal(at(step.caught)) {
			t.Errorf("%s: all before %v is here, want %v", step.name, st.caught, at(step.caught))
		}
		if got := st.clockAt(at(step.look)); !got.Equal(at(step.shows)) {
			t.Errorf("%s: its clock shows %v, want %v", step.name, got, at(step.shows))
		}
	}
}
