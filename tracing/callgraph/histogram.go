// SPDX-License-Identifier: Apache-2.0

package callgraph

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// Latencies are counted in log-linear buckets: four to each power of two, so that a
// bucket is at most a quarter wide. The first ends at 1.024 µs, which is less than
// a call within the process takes; the last finite one at 51.5 s. A bucket includes
// its upper bound, as those of Prometheus and OpenTelemetry do; every fourth ends at
// 1.024 µs times a power of two.
const (
	// NumBuckets is the number of buckets, the last of which has no upper bound.
	NumBuckets = 104

	firstPower = 10 // the first bucket ends at 1<<firstPower ns
)

// BucketOf gives the bucket of a latency. Below zero counts as zero.
func BucketOf(d time.Duration) int {
	v := uint64(max(d, 1) - 1) // bounds are inclusive
	if v < 1<<firstPower {
		return 0
	}
	power := bits.Len64(v) - 1
	sub := int(v>>(power-2)) & 3
	return min(1+(power-firstPower)*4+sub, NumBuckets-1)
}

// BucketBound gives the upper bound of a bucket; that of the last one is the
// longest Duration there is.
func BucketBound(i int) time.Duration {
	switch {
	case i <= 0:
		return 1 << firstPower
	case i >= NumBuckets-1:
		return math.MaxInt64
	}
	power, sub := firstPower+(i-1)/4, (i-1)%4
	return time.Duration(5+sub) << (power - 2)
}

// Histogram is a distribution of latencies: the counts of adjacent buckets, from
// bucket First on. Those outside are zero. The zero value is empty. It is read-only.
type Histogram struct {
	First  int
	Counts []uint64
}

// makeHistogram keeps what is not zero of all buckets.
func makeHistogram(all *[NumBuckets]uint64) Histogram {
	lo, hi := 0, NumBuckets
	for hi > 0 && all[hi-1] == 0 {
		hi--
	}
	if hi == 0 {
		return Histogram{}
	}
	for all[lo] == 0 {
		lo++
	}
	return Histogram{First: lo, Counts: slices.Clone(all[lo:hi])}
}

// trimmed reports whether there are no zeros at the ends, as makeHistogram has it.
func (h Histogram) trimmed() bool {
	if len(h.Counts) == 0 {
		return h.First == 0 && h.Counts == nil
	}
	return h.Counts[0] != 0 && h.Counts[len(h.Counts)-1] != 0
}

// addTo adds the counts to those of all buckets.
func (h Histogram) addTo(all *[NumBuckets]uint64) {
	for i, n := range h.Counts {
		all[h.First+i] = add(all[h.First+i], n)
	}
}

// Count gives the number of calls.
func (h Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n = add(n, c)
	}
	return n
}

// At gives the number of calls in one bucket.
func (h Histogram) At(bucket int) uint64 {
	if i := bucket - h.First; i >= 0 && i < len(h.Counts) {
		return h.Counts[i]
	}
	return 0
}

// Quantile gives the latency below which the share q of the calls lies, for example
// 0.99: the place within its bucket is interpolated, so it is right to about an
// eighth. It is zero when there are no calls, and the lower bound of the last
// bucket for what lies there.
func (h Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank := min(max(q, 0), 1) * float64(total)
	var below float64
	for i, n := range h.Counts {
		if n == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		var lower time.Duration
		if b := h.First + i; b > 0 {
			lower = BucketBound(b - 1)
			if b == NumBuckets-1 {
				return lower
			}
		}
		width := float64(BucketBound(h.First+i) - lower)
		return lower + time.Duration(width*max(rank-below, 0)/float64(n))
	}
	return BucketBound(min(h.First+len(h.Counts)-1, NumBuckets-2)) // rounding left a remainder
}

// add stops at the largest number instead of going round: a process that lies must
// not make a sum small.
func add(a, b uint64) uint64 {
	if s, carry := bits.Add64(a, b, 0); carry == 0 {
		return s
	}
	return math.MaxUint64
}

// sub stops at zero.
func sub(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
