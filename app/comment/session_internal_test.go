// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"testing"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
)

// TestFloorsAreOfEachRegionsClock: what a session forgets of a region is dated by that
// region's clock, which may be an hour away from the one here.
func TestFloorsAreOfEachRegionsClock(t *testing.T) {
	s := &session{clock: func(r id.Region) int64 { return int64(r) * 3_600_000 }}
	for i := range maxPosts + 1 {
		s.note(id.Post{byte(i)}, causal.Vector{}.With(1, 7).With(2, 9))
	}
	if len(s.posts) != maxPosts || len(s.floors) != 2 {
		t.Fatalf("%d posts, floors %v", len(s.posts), s.floors)
	}
	for _, f := range s.floors {
		if f.at != int64(f.region)*3_600_000 {
			t.Errorf("region %d: %d", f.region, f.at)
		}
	}
}
