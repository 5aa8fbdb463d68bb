// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	overloadv1 "github.com/sluice-rpc/sluice/examples/overload/overload/v1"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// A kind of task. Its class is the one of the contract of the method it stands for.
type kind struct {
	method *rpc.Method
	call   func(overloadv1.MiddleClient, context.Context, *overloadv1.TaskRequest) (*overloadv1.TaskResponse, error)
	share  float64 // of all tasks
}

var kinds = [...]kind{
	{overloadv1.MiddlePayMethod, overloadv1.MiddleClient.Pay, .1},
	{overloadv1.MiddleBrowseMethod, overloadv1.MiddleClient.Browse, .3},
	{overloadv1.MiddlePublishMethod, overloadv1.MiddleClient.Publish, .3},
	{overloadv1.MiddleSuggestMethod, overloadv1.MiddleClient.Suggest, .3},
}

const (
	users = 10_000

	// maxTasks bounds the tasks under way: at the longest each takes, and at any load
	// that one machine's cores can be offered, there are far fewer.
	maxTasks = 50_000
	// maxLag is how far the generator catches up after it could not run.
	maxLag = time.Second
)

// front is the first tier: where tasks enter. It makes them at random times that do
// not depend on how the last ones fared, as a crowd of users does.
type front struct {
	key    qos.Key
	meter  meter
	rate   atomic.Uint64 // tasks a second, as the bits of a float64
	active atomic.Int64  // tasks under way
}

func (f *front) setRate(perSecond float64) { f.rate.Store(math.Float64bits(perSecond)) }

// drive makes tasks until ctx ends, and then waits for those under way.
func (f *front) drive(ctx context.Context, client overloadv1.MiddleClient) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for number := int64(0); ; number++ {
		rate := math.Float64frombits(f.rate.Load())
		// At most a second, so that a new rate is soon heeded.
		gap := time.Duration(min(1, rand.ExpFloat64()/rate) * float64(time.Second))
		now := time.Now()
		if next = next.Add(gap); now.Sub(next) > maxLag {
			next = now
		}
		if next.After(now) {
			timer.Reset(next.Sub(now))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		if rate == 0 {
			continue
		}
		k := draw()
		f.meter.offer(k)
		if f.active.Add(1) > maxTasks {
			f.active.Add(-1)
			f.meter.end(k, 0, errTooMany)
			continue
		}
		tasks.Go(func() {
			defer f.active.Add(-1)
			began := time.Now()
			err := f.task(context.WithoutCancel(ctx), client, k, number)
			f.meter.end(k, time.Since(began), err)
		})
	}
}

var errTooMany = errors.New("the front has no room for one more task")

// draw gives the index of a kind, as often as its share says.
func draw() int {
	x := rand.Float64()
	for i, k := range kinds {
		if x -= k.share; x < 0 {
			return i
		}
	}
	return len(kinds) - 1
}

// task does one task for some user. This is all that an entry has to say of it; the
// edge package says it for an HTTP request.
func (f *front) task(ctx context.Context, client overloadv1.MiddleClient, i int, number int64) error {
	k := &kinds[i]
	user := strconv.Itoa(rand.IntN(users))
	ctx = rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{
		Class:     k.method.Class,
		UserLevel: f.key.UserLevel(user, time.Now()),
		Entry:     tracing.EntryOf(k.method.FullName()),
		Trace:     tracing.NewTraceID(),
		Span:      tracing.NewSpanID(),
	}})
	_, err := k.call(client, ctx, &overloadv1.TaskRequest{Number: number})
	return err
}

const (
	warmUp      = 500 * time.Millisecond
	measureTime = 2 * time.Second
	startTime   = 30 * time.Second
)

// measure gives the tasks a second that middle and leaf can do: those done in a while
// by workers of which each begins a task when its last one has ended.
func (f *front) measure(ctx context.Context, client overloadv1.MiddleClient) (float64, error) {
	if err := f.ready(ctx, client); err != nil {
		return 0, err
	}
	var done, failed atomic.Int64
	limit, stop := context.WithTimeout(ctx, warmUp+measureTime)
	defer stop()
	var workers sync.WaitGroup
	for range 4 * runtime.NumCPU() {
		workers.Go(func() {
			for limit.Err() == nil {
				if err := f.task(ctx, client, 0, 0); err != nil {
					failed.Add(1)
				} else {
					done.Add(1)
				}
			}
		})
	}
	warm := time.NewTimer(warmUp)
	defer warm.Stop()
	<-warm.C // workers end by themselves when ctx does
	before, began := done.Load(), time.Now()
	<-limit.Done()
	n, took := done.Load()-before, time.Since(began)
	workers.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if n == 0 {
		return 0, fmt.Errorf("no task was done in %v, %d failed: this machine is too busy to show anything", measureTime, failed.Load())
	}
	return float64(n) / took.Seconds(), nil
}

// ready waits until the tiers have done a task.
func (f *front) ready(ctx context.Context, client overloadv1.MiddleClient) error {
	limit, stop := context.WithTimeout(ctx, startTime)
	defer stop()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		err := f.task(limit, client, 0, 0)
		if err == nil {
			return nil
		}
		select {
		case <-pause.C:
		case <-limit.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("the tiers have not done a task in %v: %w", startTime, err)
		}
	}
}
