// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fill takes every slot of a door and gives what frees one. Goroutines that could run
// stand for those inside, who would seem asleep otherwise.
func fill(t *testing.T, d *admit.Door) (leave []func()) {
	t.Helper()
	limit := d.State().Limit
	end := make(chan struct{})
	var g sync.WaitGroup
	for range 4 * limit {
		g.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	t.Cleanup(func() {
		close(end)
		g.Wait()
	})
	for range limit {
		l, refused := d.Enter(t.Context(), time.Time{}, 0, 0, 0)
		if refused != nil {
			t.Fatal(refused)
		}
		leave = append(leave, l)
	}
	return leave
}

func TestEnterWaits(t *testing.T) {
	d := admit.New(1)
	leave := fill(t, d)
	let := make(chan error, 1)
	go func() { // ended by the slot that is freed
		l, refused := d.Enter(t.Context(), time.Time{}, 0, 0, 0)
		if refused != nil {
			let <- refused
			return
		}
		l()
		let <- nil
	}()
	until(t, func() bool { return d.State().Waiting == 1 })
	for _, l := range leave {
		l()
	}
	if err := <-let; err != nil {
		t.Fatal(err)
	}
	if st := d.State(); st.Running != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

func TestEnterGivesUp(t *testing.T) {
	d := admit.New(1)
	leave := fill(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan *rpc.Error, 1)
	go func() { // ended by cancel
		_, refused := d.Enter(ctx, time.Time{}, 0, 0, 0)
		gone <- refused
	}()
	until(t, func() bool { return d.State().Waiting == 1 })
	cancel()
	if err := <-gone; err == nil || !err.NotRun {
		t.Errorf("a caller that gave up was told %v", err)
	}
	if st := d.State(); st.Waiting != 0 || st.Withdrew != 1 {
		t.Errorf("%+v", st)
	}
	for _, l := range leave {
		l()
	}
}

// TestOverdueIsSwept: without arrivals and ends only the door's own clock can refuse
// who has waited too long.
func TestOverdueIsSwept(t *testing.T) {
	d := admit.New(1)
	d.Open()
	defer d.Close()
	leave := fill(t, d)
	var g sync.WaitGroup
	var refused atomic.Int64
	for range len(leave) { // as many as there are goroutines that stand for those inside
		g.Go(func() {
			l, err := d.Enter(t.Context(), time.Time{}, qos.LastPriority, 0, 0)
			if err != nil {
				refused.Add(1)
				return
			}
			defer l()
			until(t, func() bool { return d.State().Waiting == 0 })
		})
	}
	g.Wait()
	if refused.Load() == 0 {
		t.Error("all were let in while every slot was taken and every processor busy")
	}
	for _, l := range leave {
		l()
	}
}

func TestPin(t *testing.T) {
	d := admit.New(1)
	d.Pin(qos.PriorityOf(qos.Post, 5))
	if l := d.Level(); l != qos.PriorityOf(qos.Post, 5) {
		t.Errorf("level %v", l)
	}
	for _, tc := range []struct {
		p       qos.Priority
		t       qos.Ticket
		refused bool
	}{
		{qos.PriorityOf(qos.Post, 5), 0, false},
		{qos.PriorityOf(qos.Post, 6), 0, true},
		{qos.LastPriority, 1, false},
	} {
		leave, err := d.Enter(t.Context(), time.Time{}, tc.p, tc.t, 0)
		if (err != nil) != tc.refused {
			t.Errorf("%v with ticket %d: %v", tc.p, tc.t, err)
		}
		if err == nil {
			leave()
		}
	}
	st := d.State()
	if n := st.Counts.Total(admission.Refuse); n != 1 {
		t.Errorf("%d refused in the counts", n)
	}
	d.Unpin()
	if l := d.Level(); l != qos.LastPriority {
		t.Errorf("level %v after Unpin", l)
	}
}

func TestOpenIsCounted(t *testing.T) {
	d := admit.New(1)
	for range 3 {
		d.Open()
		d.Open()
		d.Close()
		d.Close()
	}
}

func TestReports(t *testing.T) {
	d := admit.New(2)
	m := &rpc.Method{Service: "test.v1.Echo", Name: "Echo"}
	if a, b := d.AddMethod(m), d.AddMethod(m); a != b {
		t.Errorf("one method has numbers %d and %d", a, b)
	}
	d.Suppressed(3, qos.LastPriority+1000, admit.MethodID(m)) // beyond the scale
	d.Suppressed(4, 0, 12345)                                 // no method of ours
	if n := d.State().Suppressed; n != 7 {
		t.Errorf("%d held back", n)
	}
}

func TestErrorOf(t *testing.T) {
	if e := admit.ErrorOf(admission.Late); !errors.Is(e, context.DeadlineExceeded) || !e.NotRun {
		t.Errorf("late: %v", e)
	}
	for _, v := range []admission.Verdict{admission.Refuse, admission.Evict, admission.Expire} {
		if e := admit.ErrorOf(v); e.Reason != rpc.ReasonOverload || e.Code != rpc.ResourceExhausted || e.Retry <= 0 || !e.NotRun {
			t.Errorf("%v: %#v", v, e)
		}
	}
}

// TestManyAtOnce has thousands of callers meet at a door that is far too small, and
// then counts.
func TestManyAtOnce(t *testing.T) {
	d := admit.New(2)
	d.Open()
	defer d.Close()
	var let, refused, inside, most atomic.Int64
	var g sync.WaitGroup
	for i := range 5_000 {
		g.Go(func() {
			leave, err := d.Enter(t.Context(), time.Now().Add(5*time.Second), qos.PriorityOf(qos.Class(1+i%6), uint8(i)), 0, 0)
			if err != nil {
				refused.Add(1)
				return
			}
			n := inside.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			let.Add(1)
			inside.Add(-1)
			leave()
		})
	}
	g.Wait()
	st := d.State()
	if let.Load()+refused.Load() != 5_000 || st.Running != 0 || st.Waiting != 0 {
		t.Errorf("%d let in, %d refused; %+v", let.Load(), refused.Load(), st)
	}
	if ran := st.Counts.Total(admission.Run); ran < uint64(let.Load()) {
		t.Errorf("%d runs counted of %d", ran, let.Load())
	}
}

func until(t *testing.T, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !fact(); {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
		pause := time.NewTimer(time.Millisecond)
		<-pause.C
	}
}

// passer is a guest that never has to wait.
type passer struct{ admission.Call }

func (*passer) Admit()                                 {}
func (*passer) Refuse(admission.Verdict) admit.Flusher { return nil }

func BenchmarkAdmit(b *testing.B) {
	d := admit.New(1 << 10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		g := new(passer)
		var batch admit.Batch
		for pb.Next() {
			g.Call = admission.Call{Priority: 100, Frame: g}
			if d.Arrive(d.Now(), &g.Call, &batch) != admission.Run {
				b.Fatal("no slot free")
			}
			d.Done(&g.Call)
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	d := admit.New(1)
	d.Pin(0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		g := new(passer)
		var batch admit.Batch
		for pb.Next() {
			g.Call = admission.Call{Priority: 100, Frame: g}
			if !d.Arrive(d.Now(), &g.Call, &batch).Refused() {
				b.Fatal("let in")
			}
		}
	})
}

// TestBacklogIsPassedOn: who waits for a process waits for those it waits for, too.
func TestBacklogIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := admit.New(1)
		d.Open()
		defer d.Close()
		d.Behind(3)
		d.Behind(19) // the furthest counts, less what the hop takes off
		d.Behind(5)
		time.Sleep(150 * time.Millisecond)
		if got := d.Backlog(); got != 15 {
			t.Errorf("%d ms, want 15", got)
		}
		if w := d.State().Window; w == 0 {
			t.Error("no window")
		}
		time.Sleep(100 * time.Millisecond)
		if got := d.Backlog(); got != 0 {
			t.Errorf("%d ms, want none a tick later", got)
		}
	})
}
