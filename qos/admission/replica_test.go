// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"math"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

func TestReplicaLevel(t *testing.T) {
	post := qos.PriorityOf(qos.Post, 0)
	var r admission.Replica
	if !r.Admits(0, qos.LastPriority, 0) {
		t.Error("nothing is known, nothing is refused")
	}
	r.Heard(time.Second, post)
	for _, tc := range []struct {
		name   string
		now    time.Duration
		p      qos.Priority
		ticket qos.Ticket
		want   bool
	}{
		{"at the level", time.Second, post, 0, true},
		{"below it", time.Second, post + 1, 0, false},
		{"below it, with a ticket", time.Second, post + 1, 1, true},
		{"the level is old", 2*time.Second + 1, post + 1, 0, true},
		{"the level is from the future", time.Second - 1, post + 1, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := r.Admits(tc.now, tc.p, tc.ticket); got != tc.want {
				t.Error(got)
			}
		})
	}
	r.Heard(0, math.MaxUint16)
	if l := r.Level(0); l != qos.LastPriority {
		t.Errorf("a level off the scale reads %v", l)
	}
}

func TestReport(t *testing.T) {
	var r admission.Replica
	src := rnd()
	first := 0
	for range 1000 { // each of the held calls is the sample as often as another
		for p := range qos.Priority(4) {
			r.Hold(p, admission.Method(p), src)
		}
		rep := r.Sent()
		if rep.Count != 4 || admission.Method(rep.Priority) != rep.Method {
			t.Fatalf("%+v", rep)
		}
		if rep.Priority == 0 {
			first++
		}
	}
	if first < 200 || first > 300 {
		t.Errorf("the first of four is the sample %d times of 1,000", first)
	}
	if rep := r.Sent(); rep.Count != 0 {
		t.Errorf("reported twice: %+v", rep)
	}
	for range 1 << 17 {
		r.Hold(0, 0, src)
	}
	if rep := r.Sent(); rep.Count != math.MaxUint16 {
		t.Errorf("%d held: the count must stay at its end", rep.Count)
	}
}

func TestPick(t *testing.T) {
	post := qos.PriorityOf(qos.Post, 0)
	one := []*admission.Replica{{}}
	if i, ok := admission.Pick(0, one, post, 0, rnd()); i != 0 || !ok {
		t.Error(i, ok)
	}
	one[0].Heard(0, 0)
	if _, ok := admission.Pick(0, one, post, 0, rnd()); ok {
		t.Error("the only replica refuses")
	}
	rs := []*admission.Replica{{}, {}, {}, {}}
	for _, r := range rs[:3] {
		r.Heard(0, 0)
	}
	src := rnd()
	for range 50 {
		if i, ok := admission.Pick(0, rs, post, 0, src); i != 3 || !ok {
			t.Fatal("the one replica that admits the call is not found")
		}
	}
	rs[3].Returned() // more often than sent: harmless
}
