// SPDX-License-Identifier: Apache-2.0

package callgraph

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sluice-rpc/sluice/tracing"
)

// Method numbers a caller within one Recorder. Numbers differ between processes;
// on the wire a caller is its name.
type Method uint32

// The callers that have no name.
const (
	AtEntry        Method = 0 // the entry itself made the call
	UnknownCaller  Method = 1 // the caller did not say who it is
	OverflowCaller Method = 2 // there are more callers or edges than the Recorder holds
)

// The names of those callers in a Key. No protobuf method has such a name.
const (
	AtEntryName        = ""
	UnknownCallerName  = "(unknown)"
	OverflowCallerName = "(overflow)"
)

// The bounds of a Recorder unless its Config says otherwise.
const (
	DefaultMaxSlots   = 4096
	DefaultMaxMethods = 1024
	DefaultMaxEntries = 1024
)

// Config says what a Recorder records for, and how much. Zero fields get defaults.
type Config struct {
	Process    Process
	MaxSlots   int // edges, each of up to 9 KiB; further ones are counted in overflow slots
	MaxMethods int // named callers; further ones become OverflowCaller
	MaxEntries int // names of entries; further ones stay without a name
	Stripes    int // copies of each counter that processors share; rounded up to a power of two
}

// A Recorder counts the calls of one process. It is safe for concurrent use.
type Recorder struct {
	config Config
	mask   uintptr // stripes - 1

	methods atomic.Pointer[map[string]Method] // replaced as a whole, so that lookups need no lock
	full    atomic.Bool                       // no slot is left

	mu      sync.Mutex // guards what follows, and all that is added to the above
	names   []string   // of methods, by Method
	entries map[tracing.Entry]string
	edges   map[edgesKey]*Edges
	slots   []*Slot // all there are
	budget  int     // slots that may still be made, without those of overflow
}

type edgesKey struct {
	side   Side
	callee string
}

// NewRecorder makes a Recorder that has counted nothing.
func NewRecorder(c Config) *Recorder {
	c.Process.Service = cleanName(c.Process.Service)
	c.Process.Instance = cleanName(c.Process.Instance)
	c.MaxSlots = cmp.Or(max(c.MaxSlots, 0), DefaultMaxSlots)
	c.MaxMethods = cmp.Or(max(c.MaxMethods, 0), DefaultMaxMethods)
	c.MaxEntries = cmp.Or(max(c.MaxEntries, 0), DefaultMaxEntries)
	if c.Stripes <= 0 {
		// With more stripes than 8 a slot takes more memory than it saves waiting.
		c.Stripes = min(runtime.GOMAXPROCS(0), 8)
	}
	stripes := 1
	for stripes < min(c.Stripes, 64) {
		stripes *= 2
	}
	r := &Recorder{
		config:  c,
		mask:    uintptr(stripes - 1),
		names:   []string{AtEntryName, UnknownCallerName, OverflowCallerName},
		entries: map[tracing.Entry]string{},
		edges:   map[edgesKey]*Edges{},
		budget:  c.MaxSlots,
	}
	r.methods.Store(&map[string]Method{AtEntryName: AtEntry, UnknownCallerName: UnknownCaller, OverflowCallerName: OverflowCaller})
	return r
}

// Process gives whom the Recorder records for.
func (r *Recorder) Process() Process { return r.config.Process }

// Method gives the number of the caller of that full name ("package.Service/Method"),
// or OverflowCaller when there are too many. The empty name is AtEntry. A known name
// takes no lock and no allocation.
func (r *Recorder) Method(name string) Method {
	if m, ok := (*r.methods.Load())[name]; ok {
		return m
	}
	return r.addMethod(name)
}

// MethodBytes is Method for a name that stands in a buffer, which is not kept.
func (r *Recorder) MethodBytes(name []byte) Method {
	if m, ok := (*r.methods.Load())[string(name)]; ok {
		return m
	}
	return r.addMethod(string(name))
}

func (r *Recorder) addMethod(name string) Method {
	// Of a name that had to be cleaned only the clean form is kept: there are endlessly
	// many others.
	clean := cleanName(name)
	if old := *r.methods.Load(); len(old)-3 >= r.config.MaxMethods {
		if m, ok := old[clean]; ok {
			return m
		}
		return OverflowCaller // without the lock: whoever sends ever new names must not hold up others
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := *r.methods.Load()
	if m, ok := old[clean]; ok {
		return m
	}
	if len(r.names)-3 >= r.config.MaxMethods {
		return OverflowCaller
	}
	m := Method(len(r.names))
	r.names = append(r.names, clean)
	grown := make(map[string]Method, len(old)+1)
	for k, v := range old {
		grown[k] = v
	}
	grown[clean] = m
	r.methods.Store(&grown)
	return m
}

// NameEntry makes the name of an entry known to those who read snapshots: on the
// wire an entry is only a number. It may be called again with the same name.
func (r *Recorder) NameEntry(name string) tracing.Entry {
	id := tracing.EntryOf(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.entries[id]; !ok && len(r.entries) < r.config.MaxEntries {
		r.entries[id] = cleanName(name)
	}
	return id
}

// Entry gives the slot in which an entry (an HTTP route, a job) counts what it
// served, and makes the entry's name known. It is meant to be asked for once.
func (r *Recorder) Entry(name string) *Slot {
	return r.Edges(Server, "").Slot(r.NameEntry(name), AtEntry)
}

// Room gives how many slots are used, and how many more there may be.
func (r *Recorder) Room() (used, room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.slots), r.budget
}

// Edges gives all edges to one callee, of full name "package.Service/Method" or the
// name of a queue, as one side sees them. It is meant to be asked for once: when a
// method is registered, or first called.
func (r *Recorder) Edges(side Side, callee string) *Edges {
	callee = cleanName(callee)
	r.mu.Lock()
	defer r.mu.Unlock()
	key := edgesKey{side, callee}
	if e, ok := r.edges[key]; ok {
		return e
	}
	e := &Edges{recorder: r, side: side, callee: callee}
	e.table.Store(newTable(8))
	r.edges[key] = e
	return e
}

// Edges are all edges to one callee as one side sees them. It is safe for
// concurrent use.
type Edges struct {
	recorder *Recorder
	side     Side
	callee   string
	table    atomic.Pointer[table]
	overflow atomic.Pointer[Slot] // made when first needed
	own      []*Slot              // guarded by recorder.mu
}

// Slot gives the slot of one edge, and makes it when there is none. When the
// Recorder is full it gives the callee's overflow slot, so that the sum over the
// edges of a method stays exact. A known edge takes no lock and no allocation.
func (e *Edges) Slot(entry tracing.Entry, caller Method) *Slot {
	key := uint64(entry)<<32 | uint64(caller)
	if s := e.table.Load().find(key); s != nil {
		return s
	}
	return e.slowSlot(key)
}

func (e *Edges) slowSlot(key uint64) *Slot {
	r := e.recorder
	if r.full.Load() {
		if s := e.overflow.Load(); s != nil {
			return s
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := e.table.Load()
	if s := t.find(key); s != nil {
		return s
	}
	if r.budget == 0 {
		if e.overflow.Load() == nil {
			e.overflow.Store(e.newSlot(0, OverflowCaller))
		}
		return e.overflow.Load()
	}
	r.budget--
	if r.budget == 0 {
		r.full.Store(true)
	}
	s := e.newSlot(tracing.Entry(key>>32), Method(key))
	if (t.used+1)*2 > len(t.cells) {
		grown := newTable(len(t.cells) * 2)
		for i := range t.cells {
			if old := t.cells[i].slot.Load(); old != nil {
				grown.put(t.cells[i].key, old)
			}
		}
		t = grown
	}
	t.put(key, s)
	e.table.Store(t)
	return s
}

// newSlot is called with recorder.mu held.
func (e *Edges) newSlot(entry tracing.Entry, caller Method) *Slot {
	r := e.recorder
	if int(caller) >= len(r.names) { // a number of another Recorder
		caller = UnknownCaller
	}
	s := &Slot{
		key:     Key{Side: e.side, Entry: entry, Caller: r.names[caller], Callee: e.callee},
		mask:    r.mask,
		stripes: make([]stripe, r.mask+1),
	}
	e.own = append(e.own, s)
	r.slots = append(r.slots, s)
	return s
}

// Total gives the sum over all edges: what is known of the callee itself, from this
// side and in this process.
func (e *Edges) Total() Stats {
	e.recorder.mu.Lock()
	own := slices.Clone(e.own)
	e.recorder.mu.Unlock()
	var sum sums
	for _, s := range own {
		s.addTo(&sum)
	}
	return sum.stats()
}

// table is an open-addressed hash table that only grows. Readers take no lock: a
// cell's key is written before its slot is stored, and read after it was loaded.
type table struct {
	cells []cell // a power of two, at most half of them used
	shift uint
	used  int // by the writer alone
}

type cell struct {
	key  uint64
	slot atomic.Pointer[Slot]
}

func newTable(size int) *table {
	t := &table{cells: make([]cell, size), shift: 64}
	for 1<<(64-t.shift) < size {
		t.shift--
	}
	return t
}

func (t *table) find(key uint64) *Slot {
	for i := key * golden >> t.shift; ; i++ {
		c := &t.cells[i&uint64(len(t.cells)-1)]
		s := c.slot.Load()
		if s == nil || c.key == key {
			return s
		}
	}
}

func (t *table) put(key uint64, s *Slot) {
	for i := key * golden >> t.shift; ; i++ {
		c := &t.cells[i&uint64(len(t.cells)-1)]
		if c.slot.Load() == nil {
			c.key = key
			c.slot.Store(s)
			t.used++
			return
		}
	}
}

// golden is 2^64 divided by the golden ratio: Fibonacci hashing (Knuth, The Art of
// Computer Programming, volume 3, 6.4).
const golden = 0x9E3779B97F4A7C15

// A Slot counts the calls of one edge, as one side sees them. It is safe for
// concurrent use and lives as long as its Recorder.
type Slot struct {
	key     Key
	mask    uintptr
	stripes []stripe
}

// stripe is one of the copies of a slot's counters. What every call touches stands
// together; the size is a multiple of a pair of cache lines, so that two processors
// do not share one.
type stripe struct {
	nanos, requestBytes, responseBytes atomic.Uint64

	results  [NumClasses]atomic.Uint64
	attempts [NumClasses]atomic.Uint64
	buckets  [NumBuckets]atomic.Uint64
	_        [40]byte
}

// Record counts a call that has ended: on a server one that was answered or
// refused, on a client one with all its attempts, retries and hedges together.
// Sizes are those of the encoded messages; zero where there was none.
func (s *Slot) Record(c Class, latency time.Duration, requestBytes, responseBytes int) {
	t := s.stripe()
	t.results[min(c, Other)].Add(1)
	t.buckets[BucketOf(latency)].Add(1)
	if latency > 0 {
		t.nanos.Add(uint64(latency))
	}
	if requestBytes > 0 {
		t.requestBytes.Add(uint64(requestBytes))
	}
	if responseBytes > 0 {
		t.responseBytes.Add(uint64(responseBytes))
	}
}

// Attempt counts one attempt of a client's call: the server counts attempts, too,
// and cannot know which of them belong to one call. A call that was refused before
// its first attempt counts as one attempt of its class.
func (s *Slot) Attempt(c Class) {
	s.stripe().attempts[min(c, Other)].Add(1)
}

// stripe picks a copy by the address of the goroutine's stack: goroutines that run
// at the same time have different ones, and looking at it costs nothing.
func (s *Slot) stripe() *stripe {
	var here byte
	stack := uintptr(unsafe.Pointer(&here)) >> 11 // the smallest stack has 2 KiB
	return &s.stripes[(stack^stack>>3^stack>>7)&s.mask]
}

// Key gives what the slot counts.
func (s *Slot) Key() Key { return s.key }

// Stats gives what the slot has counted. Calls that end meanwhile may be in some of
// the counters and not yet in others.
func (s *Slot) Stats() Stats {
	var sum sums
	s.addTo(&sum)
	return sum.stats()
}

func (s *Slot) addTo(sum *sums) {
	for i := range s.stripes {
		t := &s.stripes[i]
		sum.nanos += t.nanos.Load()
		sum.requestBytes += t.requestBytes.Load()
		sum.responseBytes += t.responseBytes.Load()
		for c := range NumClasses {
			sum.results[c] += t.results[c].Load()
			sum.attempts[c] += t.attempts[c].Load()
		}
		for b := range NumBuckets {
			sum.buckets[b] += t.buckets[b].Load()
		}
	}
}

// Snapshot gives all that was counted since the process started, with marks for the
// nodes this process serves (see Mark). now is the process's time of day.
func (r *Recorder) Snapshot(now time.Time, marks ...NodeMark) *Snapshot {
	r.mu.Lock()
	slots := slices.Clone(r.slots)
	names := make([]EntryName, 0, len(r.entries))
	for id, name := range r.entries {
		names = append(names, EntryName{ID: id, Name: name})
	}
	r.mu.Unlock()
	rows := make([]Row, len(slots))
	for i, s := range slots {
		rows[i] = Row{Key: s.key, Stats: s.Stats()}
	}
	return &Snapshot{
		Process: r.config.Process,
		Time:    time.UnixMilli(now.UnixMilli()).UTC(),
		Period:  Merge(Period{Entries: names, Marks: marks, Rows: rows}),
	}
}
