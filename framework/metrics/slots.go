// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// slots are words to count in, held once for each of a few stripes, so that cores
// that count at the same time seldom take a cache line from each other. The value
// of a word is its sum over the stripes. It wraps like any uint64.
type slots struct {
	words  []atomic.Uint64
	stride int // words of a stripe
}

const (
	wordsPerLine = 8
	maxStripes   = 16
)

// stripes is a power of two: twice the cores, since the choice is by chance.
var stripes = 1 << bits.Len(uint(min(2*runtime.NumCPU(), maxStripes)-1))

func newSlots(n int) *slots {
	// One line more than needed: stripes share none wherever the slice begins.
	stride := (n+wordsPerLine-1)/wordsPerLine*wordsPerLine + wordsPerLine
	return &slots{words: make([]atomic.Uint64, stride*stripes), stride: stride}
}

// row gives the words of the stripe that this goroutine counts in. It is chosen by
// the address of the goroutine's stack: that costs a nanosecond, needs nothing of
// the runtime's inside, and goroutines that run at the same time have different ones.
func (s *slots) row() []atomic.Uint64 {
	var here byte
	const spread = 0x9e3779b97f4a7c15                     // 2^64 / golden ratio (Knuth, TAOCP 3, 6.4): neighbours fall far apart
	stack := uint64(uintptr(unsafe.Pointer(&here))) >> 11 // the smallest stack is 2 KiB
	i := int(stack*spread>>56) & (stripes - 1)
	return s.words[i*s.stride:][:s.stride]
}

// sum is the value of word i.
func (s *slots) sum(i int) uint64 {
	n := uint64(0)
	for ; i < len(s.words); i += s.stride {
		n += s.words[i].Load()
	}
	return n
}

// A Counter only grows. It is safe for concurrent use; the zero Counter and a nil
// one count nothing.
type Counter struct{ slots *slots }

func newCounter() *Counter { return &Counter{slots: newSlots(1)} }

// Inc adds one.
func (c *Counter) Inc() { c.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) {
	if c != nil && c.slots != nil {
		c.slots.row()[0].Add(n)
	}
}

// Value is what has been counted so far.
func (c *Counter) Value() uint64 {
	if c == nil || c.slots == nil {
		return 0
	}
	return c.slots.sum(0)
}

func (c *Counter) read() float64 { return float64(c.Value()) }

// A Gauge holds a value that goes up and down. It is safe for concurrent use; a nil
// Gauge holds nothing.
type Gauge struct{ bits atomic.Uint64 }

// Set sets the value.
func (g *Gauge) Set(v float64) {
	if g != nil {
		g.bits.Store(math.Float64bits(v))
	}
}

// Add adds v, which may be negative.
func (g *Gauge) Add(v float64) {
	if g == nil {
		return
	}
	for {
		old := g.bits.Load()
		if g.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Value is the value.
func (g *Gauge) Value() float64 {
	if g == nil {
		return 0
	}
	return math.Float64frombits(g.bits.Load())
}

// peak is the largest value of late: of the last 30 to 60 seconds if it is read at
// least as often, else since it was last read.
type peak struct {
	now    atomic.Uint64
	before uint64    // of the window before; used by reads alone, which take turns
	turned time.Time // when the window began; as before
}

const peakWindow = 30 * time.Second

func (p *peak) note(v uint64) {
	for old := p.now.Load(); v > old; old = p.now.Load() {
		if p.now.CompareAndSwap(old, v) {
			return
		}
	}
}

func (p *peak) read(at time.Time) uint64 {
	top := max(p.before, p.now.Load())
	if at.Sub(p.turned) >= peakWindow {
		p.before, p.turned = p.now.Swap(0), at
	}
	return top
}
