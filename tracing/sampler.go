// SPDX-License-Identifier: Apache-2.0

package tracing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Rate says how many of an entry's requests are traced. The zero Rate means
// DefaultRate.
type Rate struct {
	// PerSecond is the reservoir: so many requests of each second are traced in any
	// case, so that a rare entry is seen at all.
	PerSecond float64
	// Ratio is the share, from 0 to 1, of the requests beyond the reservoir.
	Ratio float64
	// Off traces none but those that are forced.
	Off bool
}

// DefaultRate is one request a second and one in a thousand of the others. (AWS
// X-Ray has one a second, too; Dapper found one in a thousand enough.)
var DefaultRate = Rate{PerSecond: 1, Ratio: 0.001}

func (r Rate) check() error {
	if !(r.PerSecond >= 0 && r.PerSecond <= 1e6) { // so written, NaN is refused
		return fmt.Errorf("tracing: PerSecond is %v: it is a number from 0 to a million", r.PerSecond)
	}
	if !(r.Ratio >= 0 && r.Ratio <= 1) {
		return fmt.Errorf("tracing: Ratio is %v: it is a share from 0 to 1", r.Ratio)
	}
	return nil
}

// A Sampler decides which requests of one entry are traced. It is safe for
// concurrent use and allocates nothing.
type Sampler struct {
	tracer *Tracer
	name   string

	threshold atomic.Uint64 // of 1<<53 the share that is traced
	reservoir limiter
}

// Sample decides on a request that has come in just now. Force is set for a caller
// that may be trusted and asks for a trace, be it by the sampled flag of its own.
// The decision is made once, at the entry, and travels with the request.
func (s *Sampler) Sample(now time.Time, force bool) bool {
	if force {
		s.tracer.forced.Add(1)
		return true
	}
	if s.reservoir.allow(s.tracer.since(now)) || s.byRatio() {
		s.tracer.sampled.Add(1)
		return true
	}
	return false
}

// byRatio draws itself: a trace id may come from outside, from one who would like to
// be traced.
func (s *Sampler) byRatio() bool {
	t := s.threshold.Load()
	return t != 0 && rand.Uint64()>>11 < t
}

func (s *Sampler) setRate(r Rate) {
	if r == (Rate{}) {
		r = DefaultRate
	}
	if r.Off {
		r = Rate{}
	}
	s.threshold.Store(uint64(r.Ratio * (1 << 53)))
	s.reservoir.set(r.PerSecond)
}

// limiter lets through so many a second, as a token bucket of one second's tokens,
// at least one. It is the generic cell rate algorithm (ITU-T I.371): one number, no
// lock. The zero limiter lets nothing through.
type limiter struct {
	interval  atomic.Int64 // between two, in ns; 0 lets none through
	tolerance atomic.Int64 // how far next may be ahead
	next      atomic.Int64 // when the next is due, if they come evenly
}

func (l *limiter) set(perSecond float64) {
	if perSecond <= 0 {
		l.interval.Store(0)
		return
	}
	interval := int64(math.Min(float64(time.Second)/perSecond, float64(24*time.Hour)))
	l.tolerance.Store(max(int64(time.Second)-interval, 0))
	l.interval.Store(interval)
}

// allow takes a token. The time is since any one moment.
func (l *limiter) allow(now time.Duration) bool {
	interval := l.interval.Load()
	if interval == 0 {
		return false
	}
	for {
		next := l.next.Load()
		if next-int64(now) > l.tolerance.Load() {
			return false
		}
		if l.next.CompareAndSwap(next, max(next, int64(now))+interval) {
			return true
		}
	}
}
