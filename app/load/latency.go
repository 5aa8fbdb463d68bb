// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math/bits"
	"time"
)

const (
	subBits    = 7 // a bucket is at most 1/128 of its value wide
	subBuckets = 1 << subBits
	latBuckets = (64 - subBits) << subBits
)

// Latency counts durations in log-linear buckets of less than 1 % width, in constant memory. Not safe for concurrent use: each
// worker has its own and they are merged.
type Latency struct {
	counts [latBuckets]uint64
	total  uint64
	max    time.Duration
}

// Record counts d; a negative d counts as 0.
func (l *Latency) Record(d time.Duration) {
	d = max(d, 0)
	l.counts[bucketOf(uint64(d))]++
	l.total++
	l.max = max(l.max, d)
}

// Merge adds all that other has counted.
func (l *Latency) Merge(other *Latency) {
	for i, n := range other.counts {
		l.counts[i] += n
	}
	l.total += other.total
	l.max = max(l.max, other.max)
}

// Count returns how many durations were recorded.
func (l *Latency) Count() uint64 { return l.total }

// Max returns the largest duration recorded.
func (l *Latency) Max() time.Duration { return l.max }

// Quantile returns a duration that the fraction q of all recorded ones did not exceed, at most 1 % above the true one;
// 0 if none was recorded.
func (l *Latency) Quantile(q float64) time.Duration {
	if l.total == 0 {
		return 0
	}
	rank := uint64(min(max(q, 0), 1) * float64(l.total))
	rank = min(rank, l.total-1)
	var below uint64
	for i, n := range l.counts {
		below += n
		if below > rank {
			return min(time.Duration(bucketTop(i)), l.max)
		}
	}
	return l.max
}

func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift) - subBuckets
}

func bucketTop(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i&(subBuckets-1))+subBuckets+1)<<shift - 1
}
