// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// RetryAfter is what a refused caller is asked to wait: a level is believed as long.
const RetryAfter = time.Second

// The errors of refused calls. They are shared, since a refusal must cost nothing:
// nobody changes them.
var (
	Overloaded = &rpc.Error{
		Code: rpc.ResourceExhausted, Reason: rpc.ReasonOverload, NotRun: true, Retry: RetryAfter,
		Message: "the server has more to do than it can, and what is asked of it matters more: try again later",
	}
	TooLate = &rpc.Error{
		Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: true,
		Message: "the call could not have ended before its deadline, and was not begun",
	}
)

// ErrorOf gives the error of a refusal.
func ErrorOf(v admission.Verdict) *rpc.Error {
	if v == admission.Late {
		return TooLate
	}
	return Overloaded
}

// A visit is a guest that has a goroutine of its own to wait in.
type visit struct {
	admission.Call
	decided chan admission.Verdict // capacity 1
}

var visits = sync.Pool{New: func() any { return &visit{decided: make(chan admission.Verdict, 1)} }}

// Admit implements Guest.
func (v *visit) Admit() { v.decided <- admission.Run }

// Refuse implements Guest.
func (v *visit) Refuse(verdict admission.Verdict) Flusher {
	v.decided <- verdict
	return nil
}

// Enter lets in a caller that has a goroutine of its own, after a wait if need be. If
// the error is nil the caller must call leave. It waits no longer than until the
// deadline, if there is one, and while ctx lasts.
func (d *Door) Enter(ctx context.Context, deadline time.Time, p qos.Priority, t qos.Ticket, m admission.Method) (leave func(), refused *rpc.Error) {
	if d.Excludes(p, t, m) {
		return nil, Overloaded
	}
	v := visits.Get().(*visit)
	v.Call = admission.Call{Priority: p, Ticket: t, Method: m, Frame: v}
	if !deadline.IsZero() {
		v.Deadline = d.At(deadline)
	}
	var b Batch
	verdict := d.Arrive(d.Now(), &v.Call, &b)
	b.Flush()
	if verdict == admission.Queue {
		verdict = d.await(ctx, deadline, v)
	}
	if verdict != admission.Run {
		visits.Put(v)
		return nil, ErrorOf(verdict)
	}
	return func() {
		d.Done(&v.Call)
		visits.Put(v)
	}, nil
}

// await waits for the decision about a visit.
func (d *Door) await(ctx context.Context, deadline time.Time, v *visit) admission.Verdict {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	select {
	case verdict := <-v.decided:
		return verdict
	case <-ctx.Done():
		if d.Withdraw(&v.Call) {
			return admission.Late
		}
		return <-v.decided
	}
}
