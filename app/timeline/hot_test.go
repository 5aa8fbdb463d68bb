// SPDX-License-Identifier: Apache-2.0

package timeline_test

import (
	"testing"

	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// TestHotAuthor: an author of 5,000 friends reaches each of them exactly once; who is
// unfriended and what is deleted while that is under way is not seen.
func TestHotAuthor(t *testing.T) {
	const friends = 5000
	h := build(t, houseConfig{bare: true})
	for i := range friends {
		h.account.Befriend(mary, user(1000+i))
	}
	first, gone, last := h.publish(mary, "first"), h.publish(mary, "to be deleted"), h.publish(mary, "last")
	stop := h.run()
	h.remove(mary, gone) // fan-out may be anywhere now
	parted := []id.User{user(1000), user(1000 + friends/2), user(1000 + friends - 1)}
	for _, u := range parted {
		h.account.Part(mary, u)
		want(t, "unfriended", h.home(u, 5), []string{})
	}
	h.settle()
	stop()
	status, err := h.Post.FanOutStatus(t.Context(), &momentsv1.FanOutStatusRequest{})
	if err != nil || status.GetFailures() != 0 {
		t.Errorf("fan-out: %v, %v", status, err)
	}
	for _, u := range parted {
		want(t, "unfriended, after fan-out", h.home(u, 5), []string{})
		h.account.Befriend(mary, u)
		if _, err := h.Timeline.Backfill(t.Context(), &momentsv1.BackfillRequest{ReaderId: u.String(), AuthorId: mary.String()}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range friends {
		want(t, "a friend", h.home(user(1000+i), 5), []string{last, first})
		if t.Failed() {
			break
		}
	}
}
