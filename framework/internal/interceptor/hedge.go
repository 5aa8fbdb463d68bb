// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// A hedge is a second attempt of a call beside a first one that is late ("The Tail at
// Scale", Dean and Barroso, 2013): sent when the first has taken longer than 95 of 100
// calls of the method do, to another instance, out of the same budget as retries.
const (
	hedgeAt     = .95
	hedgeLearn  = 64   // calls between two looks at the percentile; none is hedged before the first
	hedgeKeep   = 1024 // calls after which all counts are halved: the method changes
	hedgeErrors = .1   // share of failures from which on a second attempt makes it worse
	hedgeLeast  = time.Millisecond
)

// lateness is how long the calls of one method take. It is safe for concurrent use.
type lateness struct {
	delay atomic.Int64 // after which one is late; 0 while none is hedged

	mu      sync.Mutex
	buckets [160]uint32 // by bucketOf; guarded by mu
	calls   uint32      // in buckets; guarded by mu
	failed  uint32      // of them; guarded by mu
	since   uint32      // calls since the last look; guarded by mu
}

// bucketOf gives the bucket of a time: four to each power of two of microseconds.
func bucketOf(d time.Duration) int {
	us := uint64(max(d/time.Microsecond, 4))
	e := bits.Len64(us) - 1
	return min(4*e+int(us>>(e-2)&3), 159)
}

// endOf gives the time at which a bucket ends.
func endOf(bucket int) time.Duration {
	e, part := bucket/4, bucket%4
	return time.Duration(uint64(5+part)<<e/4) * time.Microsecond
}

// took notes how long an attempt has taken, or that it has failed.
func (l *lateness) took(d time.Duration, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.buckets[bucketOf(d)]++; failed {
		l.failed++
	}
	if l.since++; l.since < hedgeLearn {
		return
	}
	l.since = 0
	delay := time.Duration(0)
	if float64(l.failed) < hedgeErrors*float64(l.calls) {
		rest := uint32(hedgeAt * float64(l.calls))
		for i, n := range l.buckets {
			if n > rest {
				delay = max(endOf(i), hedgeLeast)
				break
			}
			rest -= n
		}
	}
	l.delay.Store(int64(delay))
	if l.calls >= hedgeKeep {
		l.calls = 0
		for i := range l.buckets {
			l.buckets[i] /= 2
			l.calls += l.buckets[i]
		}
		l.failed /= 2
	}
}

// hedged sends a second attempt beside one that is late, for methods that the contract
// lets run more than once and hedges picks.
func hedged(b *Budget, hedges func(*rpc.Method) bool) func(clientFunc) clientFunc {
	var methods sync.Map // *rpc.Method to *lateness, nil for one that is not hedged
	known := func(m *rpc.Method) *lateness {
		if l, ok := methods.Load(m); ok {
			return l.(*lateness)
		}
		var l *lateness
		if repeatable(m) && m.MaxAttempts > 1 && hedges(m) {
			l = new(lateness)
		}
		kept, _ := methods.LoadOrStore(m, l)
		return kept.(*lateness)
	}
	return func(next clientFunc) clientFunc {
		if b == nil || hedges == nil {
			return next
		}
		return func(ctx context.Context, c *ClientCall) error {
			l := known(c.Method)
			if l == nil {
				return next(ctx, c)
			}
			delay, began := time.Duration(l.delay.Load()), time.Now()
			var err error
			if delay == 0 || c.attempts+1 >= c.Method.MaxAttempts || !began.Add(delay).Before(c.Deadline) {
				err = next(ctx, c)
				l.took(time.Since(began), isFailure(err))
			} else {
				err = c.race(ctx, b, delay, next, func(err error) { l.took(time.Since(began), isFailure(err)) })
			}
			return err
		}
	}
}

// isFailure says whether an attempt has failed that a second one beside it may have made
// fail.
func isFailure(err error) bool {
	if err == nil {
		return false
	}
	r := errorOf(err).Reason
	return r != rpc.ReasonHandler && r != rpc.ReasonCanceled
}

// A race is run by two attempts of a call.
type race struct {
	peer atomic.Pointer[string] // of the first
}

// at notes where the first attempt goes. Kept out of line, or every call would have the
// address of its peer on the heap.
//
//go:noinline
func (r *race) at(peer string) { r.peer.Store(&peer) }

// race makes the attempt and, if it is late, a second one beside it. The first answer
// that is no error wins. Both have ended when it returns: the request is only lent. Ended
// is told when the first attempt has ended.
func (c *ClientCall) race(ctx context.Context, b *Budget, delay time.Duration, next clientFunc, ended func(error)) error {
	firstCtx, giveUpFirst := context.WithCancel(ctx)
	defer giveUpFirst()
	secondCtx, giveUpSecond := context.WithCancel(ctx)
	defer giveUpSecond()
	r := new(race)
	second := *c // before the first attempt changes it
	before := c.attempts + 1
	second.hedge, second.attempts = true, before
	c.rival = r
	secondErr := ErrNowhereElse
	over := make(chan struct{})
	timer := time.AfterFunc(delay, func() {
		defer close(over)
		peer := r.peer.Load()
		if peer == nil || !b.spend() { // it still waits for a connection
			return
		}
		second.Avoid, second.Elsewhere = *peer, true
		second.Header.Budget = time.Until(second.Deadline)
		if secondErr = next(secondCtx, &second); secondErr == nil {
			giveUpFirst()
		}
		if second.attempts == before {
			b.refund()
		}
	})
	err := next(firstCtx, c)
	ended(err)
	c.rival = nil
	if timer.Stop() {
		return err
	}
	if err == nil {
		giveUpSecond()
	}
	<-over
	c.attempts += second.attempts - before
	switch {
	case err == nil || second.attempts == before:
		return err
	case secondErr == nil:
		c.Response, c.Below, c.saved = second.Response, second.Below, true
	case !errorOf(err).NotRun || errorOf(secondErr).NotRun:
		return err
	default: // the first has not run, but the second one may have
	}
	c.Level, c.Backlog, c.Answered, c.Garbled = second.Level, second.Backlog, second.Answered, second.Garbled
	c.RequestBytes, c.ResponseBytes, c.peer, c.attemptBegan = second.RequestBytes, second.ResponseBytes, second.peer, second.attemptBegan
	c.Header.Span = second.Header.Span
	return secondErr
}
