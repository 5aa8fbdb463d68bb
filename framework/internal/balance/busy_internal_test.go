// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// TestBusy: who is late for having too much to do, or is the only one, is not broken.
func TestBusy(t *testing.T) {
	first, second := &Peer{}, &Peer{}
	c := &Balancer{epoch: time.Now(), peers: []*Peer{first}}
	if !c.isBusy(first) {
		t.Error("the only instance is blamed for being late")
	}
	c.peers = append(c.peers, second)
	if c.isBusy(first) {
		t.Error("one of two is busy that has said nothing")
	}
	first.behind = c.now() + admission.BehindFor
	second.replica.Heard(c.now(), qos.PriorityOf(qos.Browse, 1))
	if !c.isBusy(first) || !c.isBusy(second) {
		t.Error("instances that have too much to do are not busy")
	}
	first.behind = c.now()
	if c.isBusy(first) {
		t.Error("behind for ever")
	}
}
