// SPDX-License-Identifier: Apache-2.0

package tracing

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Method keeps what is worth keeping of the calls of one method, as one end of them
// sees it. It is safe for concurrent use.
type Method struct {
	tracer *Tracer
	kind   Kind
	name   string

	threshold atomic.Int64 // ns; about one call in a hundred takes longer
	bar       atomic.Int64 // ns; the least of the slowest, once there are enough of them

	slowLimit   limiter
	belowLimit  limiter
	errorLimits [numClasses]limiter
	limited     atomic.Uint64

	mu      sync.Mutex             // guards what follows
	errors  [numClasses]*errorRing // made when first needed
	slowest [2][]*Record           // of this period and the one before, slowest first
	ends    time.Duration          // of this period, since the tracer's start
}

const (
	// numClasses is the number of classes that are told apart. What they are is the
	// caller's affair; zero is success.
	numClasses = 16
	// errorsOfClass is how many errors a method shows of each class.
	errorsOfClass = 8
	// maxErrorRings bounds the rings of all methods together: they hold at most
	// maxErrorRings * errorsOfClass records.
	maxErrorRings = 1024
	// slowestOf is how many of its slowest calls a method shows, of the present
	// period and of the one before.
	slowestOf  = 8
	slowPeriod = time.Minute
)

// Keep says why a record is to be made of a call; zero if none is.
type Keep uint16

// The reasons.
const (
	KeepSampled Keep = 1 << 0 // the request is traced
	KeepError   Keep = 1 << 1 // the call has failed
	KeepSlow    Keep = 1 << 2 // the call was slow for its method
	KeepBelow   Keep = 1 << 3 // a call that it has made is kept; only if nothing else is the case

	keepClass = 8 // the class stands above this bit
)

var keepNames = [...]string{
	0:                                  "",
	KeepSampled:                        "sampled",
	KeepError:                          "error",
	KeepSampled | KeepError:            "sampled+error",
	KeepSlow:                           "slow",
	KeepSampled | KeepSlow:             "sampled+slow",
	KeepError | KeepSlow:               "error+slow",
	KeepSampled | KeepError | KeepSlow: "sampled+error+slow",
	KeepBelow:                          "below",
}

// String gives the reasons by name.
func (k Keep) String() string { return keepNames[k&15] }

// Ended is what Keep is told of a call.
type Ended struct {
	Class   uint8         // zero for success, else one of fifteen ways to fail that are told apart in what is kept
	Sampled bool          // the request is traced
	Took    time.Duration // from start to end
	At      time.Time     // when it ended
	Span    SpanID        // of the call or of its caller: what differs from call to call serves as chance
	Below   bool          // a record was made of a call that it has made: with this one that has its place in the whole
}

// Keep says whether a call that has ended is worth a record, and is asked for each of
// them: most often the answer is no, and costs a few nanoseconds.
func (m *Method) Keep(c *Ended) Keep {
	k := m.keepItself(c)
	if k == 0 && c.Below && m.belowLimit.allow(m.tracer.since(c.At)) {
		return KeepBelow
	}
	return k
}

// Slow says whether a call that has taken so long will be slow for its method. A record
// need not be made of it: there may be too many.
func (m *Method) Slow(took time.Duration) bool {
	slow := m.threshold.Load()
	return slow > 0 && int64(took) > slow && took >= m.tracer.floor
}

func (m *Method) keepItself(c *Ended) Keep {
	if c.Class != 0 {
		return m.keepError(c)
	}
	slow := m.threshold.Load()
	if int64(c.Took) > slow {
		return m.keepSlow(slow, c)
	}
	if uint32((binary.NativeEndian.Uint64(c.Span[:])^uint64(c.Took))*golden>>32) < downShare {
		m.threshold.Store(max(slow-slow>>thresholdShift, int64(minThreshold)))
	}
	if c.Sampled {
		return KeepSampled
	}
	return 0
}

// The threshold of slowness is an estimate of the 99th percentile that needs no
// histogram: a call above it raises it by 1/16, one below lowers it by 1/16 with the
// probability that holds it in place when one in a hundred is above (Ma, Muthukrishnan
// and Sandler, Frugal Streaming for Estimating Quantiles, arXiv 1407.1121, with steps
// in proportion). It forgets: after a change it is there within some hundred calls
// upward and some thousand downward.
const (
	thresholdShift = 4
	minThreshold   = 1024 * time.Nanosecond
	// downShare is of 1<<32: .01 ln(17/16) / (.99 ln(16/15)).
	downShare = 40_752_800
	// golden is 2^64 divided by the golden ratio: it spreads what differs in any bits
	// over the upper ones (Knuth, The Art of Computer Programming, volume 3, 6.4).
	golden = 0x9E3779B97F4A7C15
)

func (m *Method) keepSlow(threshold int64, c *Ended) (k Keep) {
	if c.Sampled {
		k = KeepSampled
	}
	if threshold == 0 { // the first call: there is nothing to compare it with
		m.threshold.CompareAndSwap(0, max(int64(c.Took), int64(minThreshold)))
		return k
	}
	m.threshold.Store(threshold + threshold>>thresholdShift)
	if c.Took < m.tracer.floor {
		return k
	}
	// One that is slower than all that are shown is kept in any case.
	if !c.Sampled && !m.slowLimit.allow(m.tracer.since(c.At)) && int64(c.Took) <= m.bar.Load() {
		m.limit()
		return k
	}
	return k | KeepSlow
}

func (m *Method) keepError(c *Ended) (k Keep) {
	class := min(c.Class, numClasses-1)
	if m.errorLimits[class].allow(m.tracer.since(c.At)) {
		k = KeepError
	} else {
		m.limit()
	}
	if c.Sampled {
		k |= KeepSampled
	}
	if k != 0 {
		k |= Keep(class) << keepClass
	}
	return k
}

func (m *Method) limit() {
	m.limited.Add(1)
	m.tracer.limited.Add(1)
}

func (t *Tracer) since(at time.Time) time.Duration { return at.Sub(t.start) }

// Add keeps a record for the reasons that Keep gave: the process holds it for a while
// and the exporter gets it. The record is given away. Kind, Method,
// Named, Seq and Kept are set here.
func (m *Method) Add(k Keep, r Record) {
	t := m.tracer
	r.Kind, r.Method, r.Named, r.Kept = m.kind, m.name, t.EntryName(r.Entry), k.String()
	r.bound()
	kept := &r
	t.made.Add(1)
	t.records.add(kept)
	if k&(KeepError|KeepSlow) != 0 {
		m.show(k, kept)
	}
	if e := t.exporter.Load(); e != nil && !(*e).Export(kept) {
		t.dropped.Add(1)
	}
}

// show keeps a record by its method, where it outlives what others do meanwhile.
func (m *Method) show(k Keep, r *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if class := k >> keepClass; k&KeepError != 0 {
		ring := m.errors[class]
		if ring == nil {
			if m.tracer.rings.Add(-1) < 0 {
				m.tracer.rings.Add(1)
				return
			}
			ring = &errorRing{}
			m.errors[class] = ring
		}
		ring.records[ring.next%errorsOfClass] = r
		ring.next++
	}
	if k&KeepSlow != 0 {
		m.showSlow(r)
	}
}

func (m *Method) showSlow(r *Record) {
	if now := m.tracer.since(time.Now()); now >= m.ends {
		before := m.slowest[0]
		if now >= m.ends+slowPeriod {
			before = nil
		}
		m.slowest = [2][]*Record{nil, before}
		m.ends = now + slowPeriod
		m.bar.Store(0)
	}
	list := m.slowest[0]
	i, _ := slices.BinarySearchFunc(list, r, func(a, b *Record) int { return cmp.Compare(b.Duration, a.Duration) })
	list = slices.Insert(list, i, r)
	if len(list) >= slowestOf {
		list = list[:slowestOf]
		m.bar.Store(int64(list[slowestOf-1].Duration))
	}
	m.slowest[0] = list
}

type errorRing struct {
	records [errorsOfClass]*Record
	next    int
}

// MethodRecords is what is kept of one method at one end of its calls.
type MethodRecords struct {
	Kind    Kind          `json:"kind"`
	Method  string        `json:"method"`
	Slow    time.Duration `json:"slow_ns"` // what takes longer is slow
	Limited uint64        `json:"limited"` // calls not kept because there were too many
	Errors  []*Record     `json:"errors"`  // newest first, up to eight of each class
	Slowest []*Record     `json:"slowest"` // slowest first, of the last one to two minutes in which any was slow
}

// Methods gives what is kept of each method, by name: the page "rpcz" of a server.
func (t *Tracer) Methods() []MethodRecords {
	t.mu.Lock()
	methods := make([]*Method, 0, len(t.methods))
	for _, m := range t.methods {
		methods = append(methods, m)
	}
	t.mu.Unlock()
	out := make([]MethodRecords, 0, len(methods))
	for _, m := range methods {
		out = append(out, m.kept())
	}
	slices.SortFunc(out, func(a, b MethodRecords) int {
		return cmp.Or(cmp.Compare(a.Method, b.Method), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

func (m *Method) kept() MethodRecords {
	out := MethodRecords{
		Kind: m.kind, Method: m.name, Limited: m.limited.Load(),
		Slow: max(time.Duration(m.threshold.Load()), m.tracer.floor),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ring := range m.errors {
		if ring != nil {
			out.Errors = append(out.Errors, ring.records[:min(ring.next, errorsOfClass)]...)
		}
	}
	slices.SortFunc(out.Errors, func(a, b *Record) int { return cmp.Compare(b.Seq, a.Seq) })
	out.Slowest = append(slices.Clone(m.slowest[0]), m.slowest[1]...)
	slices.SortStableFunc(out.Slowest, func(a, b *Record) int { return cmp.Compare(b.Duration, a.Duration) })
	return out
}

// ring holds the last records of the process.
type ring struct {
	mu    sync.Mutex
	cells []*Record // guarded by mu
	next  uint64    // sequence number of the next, less one; guarded by mu
}

func (r *ring) add(rec *Record) {
	r.mu.Lock()
	r.next++
	rec.Seq = r.next
	r.cells[(r.next-1)%uint64(len(r.cells))] = rec
	r.mu.Unlock()
}

// Since gives the records after the one numbered seq, oldest first and at most limit
// of them, the number to ask with next time, and how many there were that are gone
// already. Zero asks for all that the process still holds. A number from before a
// restart of the process is taken for zero.
func (t *Tracer) Since(seq uint64, limit int) (records []*Record, next, lost uint64) {
	r := &t.records
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq > r.next {
		seq = 0
	}
	if oldest := r.next - min(r.next, uint64(len(r.cells))); seq < oldest {
		seq, lost = oldest, oldest-seq
	}
	n := min(r.next-seq, uint64(max(limit, 0)))
	records = make([]*Record, 0, n)
	for i := range n {
		records = append(records, r.cells[(seq+i)%uint64(len(r.cells))])
	}
	return records, seq + n, lost
}
