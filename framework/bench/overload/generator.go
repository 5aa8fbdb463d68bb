// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"

	leafv1 "github.com/sluice-rpc/sluice/framework/bench/overload/idl/leaf/v1"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// generatorMain is the process that makes the load.
func generatorMain() error {
	first, err := sample()
	if err != nil {
		return err
	}
	var f flood
	return obey(first, func(o order) (report, error) {
		switch o.Op {
		case opPlay:
			out, err := play(o.Cell, o.Addrs)
			return report{Outcome: out}, err
		case opSaturate:
			rate, err := saturate(o)
			return report{Rate: rate}, err
		case opFrame:
			b, err := frameOf(o.Addrs[0], o.Bytes)
			return report{Frame: b}, err
		case opFlood:
			return report{}, f.start(o)
		case opStop:
			return report{}, f.stop()
		case opSample:
			r, err := sample()
			r.Ran, r.Refused = f.answered.Load(), f.refused.Load()
			return r, err
		}
		return report{}, fmt.Errorf("a generator cannot %s", o.Op)
	})
}

var methods = [...]*rpc.Method{leafv1.LeafServiceWorkMethod, leafv1.LeafServiceDearMethod}

func methodOf(m mix, method int) *rpc.Method {
	if m == sleepy && method == 1 {
		return leafv1.LeafServiceWaitMethod
	}
	return methods[method]
}

func dial(addrs []string) (conns []*framework.Conn, err error) {
	for i, addr := range addrs {
		c, err := framework.Dial(framework.ClientConfig{Service: fmt.Sprintf("leaf-%d", i), Addrs: []string{addr}})
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*framework.Conn) {
	for _, c := range conns {
		_ = c.Close() // it has no error to give
	}
}

// An entry makes the calls of tasks, as an HTTP server in front of the services would.
type entry struct {
	cell  cell
	conns []*framework.Conn
	start time.Time

	mu      sync.Mutex
	refused []int32 // guarded by mu
	local   atomic.Int64
	other   atomic.Pointer[error] // one that is neither refusal nor deadline
}

// play runs the tasks of a cell at the instants they are scheduled for, whatever has
// become of those before.
func play(c cell, addrs []string) (outcome, error) {
	conns, err := dial(addrs)
	if err != nil {
		return outcome{}, err
	}
	defer closeAll(conns)
	tasks := c.tasks()
	out := outcome{Took: make([]int32, len(tasks))}
	lags := make([]float64, len(tasks))
	e := &entry{cell: c, conns: conns, start: time.Now().Add(100 * time.Millisecond)}
	var running sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range tasks {
		at := e.start.Add(tasks[i].born)
		if wait := time.Until(at); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		running.Go(func() {
			lags[i] = float64(time.Since(at)) / 1e6
			out.Took[i] = -1
			if e.task(&tasks[i], i+1, at) {
				out.Took[i] = int32(time.Since(at).Microseconds())
			}
		})
	}
	running.Wait()
	if err := e.other.Load(); err != nil {
		return out, fmt.Errorf("a call failed: %w", *err)
	}
	out.RefusedUS, out.Local, out.Lag = e.refused, int(e.local.Load()), quantile(lags, .99)
	return out, nil
}

var benchEntry = tracing.EntryOf("GET /task")

// task makes the calls of a task; true if all of them have been answered in time.
func (e *entry) task(t *task, number int, at time.Time) bool {
	ctx, cancel := context.WithDeadline(context.Background(), at.Add(deadline))
	defer cancel()
	ctx = rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Entry: benchEntry, Class: t.class, UserLevel: t.user, Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(),
	}})
	m := methodOf(e.cell.Mix, t.method)
	for i := range t.x {
		req := &leafv1.WorkRequest{
			Task: uint32(number), SpinUs: uint32(t.spin[i].Microseconds()), SleepUs: uint32(t.sleep[i].Microseconds()),
		}
		for again := 0; ; again++ {
			began := time.Now()
			_, err := e.conns[t.services[i]].Invoke(ctx, m, req)
			if err == nil {
				break
			}
			if !e.failed(err, t, time.Since(began)) || again >= e.cell.Resends {
				return false
			}
		}
	}
	return time.Since(at) <= deadline
}

// failed takes note of a call that failed; true if it may be made again.
func (e *entry) failed(err error, t *task, took time.Duration) (again bool) {
	counts := e.cell.counts(t)
	switch {
	case err == error(admit.Overloaded): // the client's own answer: it was not sent
		if counts {
			e.local.Add(1)
		}
		return true
	case rpc.ReasonOf(err) == rpc.ReasonOverload:
		if counts {
			e.mu.Lock()
			e.refused = append(e.refused, int32(took.Microseconds()))
			e.mu.Unlock()
		}
		return true
	case rpc.CodeOf(err) == rpc.DeadlineExceeded:
	default:
		e.other.CompareAndSwap(nil, &err)
	}
	return false
}

// saturate gives the calls/s that a server answers when so many callers each make the
// next call when the last one is answered.
func saturate(o order) (float64, error) {
	conns, err := dial(o.Addrs)
	if err != nil {
		return 0, err
	}
	defer closeAll(conns)
	const warmUp = 200 * time.Millisecond
	// In calls of mean cost: which of them are dear is chance, and in a second of 555 calls
	// two more or less of them are 7 % of the capacity.
	var answered atomic.Int64 // millionths
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	for i := range o.Callers {
		running.Go(func() {
			c := o.Cell
			c.Seed, c.Capacity, c.Phases = uint64(i), 1, []phase{{1 << 10, 1}}
			for j, tasks := 0, c.tasks(); ctx.Err() == nil; j++ {
				t := &tasks[j%len(tasks)]
				req := &leafv1.WorkRequest{SpinUs: uint32(t.spin[0].Microseconds()), SleepUs: uint32(t.sleep[0].Microseconds())}
				if _, err := conns[0].Invoke(context.Background(), methodOf(c.Mix, t.method), req); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				answered.Add(int64(c.Mix.weight(t.method) * 1e6))
			}
		})
	}
	_ = wait.For(ctx, warmUp)
	from, begin := answered.Load(), time.Now()
	_ = wait.For(ctx, time.Duration(o.Seconds*float64(time.Second)))
	rate := float64(answered.Load()-from) / 1e6 / time.Since(begin).Seconds()
	stop()
	running.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return rate, nil
}
