// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// callSeconds are close together where the deadlines of calls are, and reach from a
// local call to five times the default deadline.
var callSeconds = []float64{
	.0001, .00025, .0005, .001, .0025, .005, .01, .02, .03, .05,
	.075, .1, .15, .2, .3, .5, .8, 1, 2.5, 5,
}

// CallSeconds gives the bounds of the histograms of calls: 20, from 0.1 ms to 5 s.
func CallSeconds() []float64 { return slices.Clone(callSeconds) }

// A Histogram counts values by size. It is safe for concurrent use; a nil Histogram
// counts nothing.
type Histogram struct {
	slots *slots
	index *index
}

func newHistogram(bounds []float64, u Unit) *Histogram {
	x := newIndex(bounds, u)
	return &Histogram{slots: newSlots(x.words()), index: x}
}

// Record counts a value: bytes or things as they are, a time in nanoseconds. What is
// below zero counts as zero.
func (h *Histogram) Record(v int64) {
	if h != nil {
		h.index.record(h.slots.row(), v)
	}
}

// RecordTime counts a time, in a histogram of Seconds.
func (h *Histogram) RecordTime(d time.Duration) { h.Record(int64(d)) }

func (h *Histogram) read(counts []uint64) float64 { return h.index.read(h.slots, 0, counts) }

// index finds the bucket of a value: a table by the leading bits of the value says
// where to look, and a step or two to the side is all that remains. It is exact and
// costs a third of a binary search.
type index struct {
	bounds []float64 // as shown
	scale  float64   // of the values recorded, to what is shown
	limits []uint64  // the largest value of each bucket; the last is +Inf's
	first  [65 << groupBits]uint8
}

// groupBits is how many bits after the leading one are looked at: a group of values
// is then no wider than a quarter of its least, and bounds are farther apart.
const groupBits = 2

func newIndex(bounds []float64, u Unit) *index {
	x := &index{bounds: bounds, scale: 1}
	if u == Seconds {
		x.scale = float64(time.Second)
	}
	for _, b := range bounds {
		v := uint64(math.MaxUint64)
		if f := math.Floor(b*x.scale + 1e-6); f < math.MaxUint64 { // .0003 s is 299999.99999999994 ns
			v = uint64(f)
		}
		x.limits = append(x.limits, v)
	}
	x.limits = append(x.limits, math.MaxUint64)
	for g := range x.first {
		least := leastOf(g)
		i, _ := slices.BinarySearch(x.limits, least)
		x.first[g] = uint8(min(i, len(bounds)))
	}
	return x
}

// groupOf numbers the groups of values: by the place of the leading bit and by the
// bits that follow.
func groupOf(v uint64) int {
	n := bits.Len64(v)
	if n <= groupBits {
		return n << groupBits
	}
	return n<<groupBits | int(v>>(n-1-groupBits))&(1<<groupBits-1)
}

// leastOf is the least value of a group.
func leastOf(g int) uint64 {
	n, rest := g>>groupBits, uint64(g&(1<<groupBits-1))
	switch {
	case n == 0:
		return 0
	case n <= groupBits:
		return 1 << (n - 1)
	}
	return (1<<groupBits | rest) << (n - 1 - groupBits)
}

func (x *index) bucket(v uint64) int {
	i := int(x.first[groupOf(v)])
	for v > x.limits[i] {
		i++
	}
	return i
}

// words is how many words a histogram takes: its buckets and the sum.
func (x *index) words() int { return len(x.limits) + 1 }

// record counts v in the words of a row.
func (x *index) record(row []atomic.Uint64, v int64) {
	u := uint64(max(v, 0))
	row[x.bucket(u)].Add(1)
	row[len(x.limits)].Add(u)
}

// read adds the buckets that begin at word at to counts and gives the sum.
func (x *index) read(s *slots, at int, counts []uint64) float64 {
	for i := range x.limits {
		counts[i] = s.sum(at + i)
	}
	return float64(s.sum(at+len(x.limits))) / x.scale
}
