// SPDX-License-Identifier: Apache-2.0

// Package admit is the door of a process: the one admission controller that all its
// servers and entries share, with the lock, the clock and the signal it needs.
package admit

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
	"github.com/sluice-rpc/sluice/tracing"
)

// A Guest is who stands before the door and may have to wait there. It is the Frame
// of its admission.Call.
type Guest interface {
	// Admit begins the work of a guest that has waited. It must not block.
	Admit()
	// Refuse turns away a guest that has waited. The answer may stay in a buffer;
	// then the guest gives the one who sends it, else nil. It must not block.
	Refuse(v admission.Verdict) Flusher
}

// A Flusher sends the answers that stand in its buffer.
type Flusher interface{ Flush() }

// A Batch collects who has answers to send, so that many share one write. The zero
// Batch is empty. It is one goroutine's.
type Batch struct{ pending []Flusher }

// Add remembers f; nil is nobody.
func (b *Batch) Add(f Flusher) {
	if f == nil {
		return
	}
	for _, p := range b.pending {
		if p == f {
			return
		}
	}
	b.pending = append(b.pending, f)
}

// Flush sends what is pending.
func (b *Batch) Flush() {
	for i, f := range b.pending {
		f.Flush()
		b.pending[i] = nil
	}
	b.pending = b.pending[:0]
}

// Door is the admission of one process. It is safe for concurrent use.
type Door struct {
	epoch time.Time
	cores int
	// processors is GOMAXPROCS.
	processors int

	mu      sync.Mutex
	ctl     *admission.Controller       // guarded by mu
	methods map[uint32]admission.Method // by the id that reports carry; guarded by mu

	level atomic.Uint32 // of the last tick
	// backlog is what callers are told of, heard the worst that callees have told of since
	// the tick; both in ms.
	backlog, heard atomic.Uint32
	pinned         atomic.Int32 // by an operator; unpinned for none
	signal         signal
	kernel         runDelay
	active         active
	items          *metrics.Admission // nil records nothing

	overrides overrides

	refusedByLevel [int(qos.MaxClass) + 1]atomic.Uint64

	users   int           // who has it open; guarded by mu
	stop    chan struct{} // closed to end the ticking; guarded by mu
	done    chan struct{} // closed when it has ended; guarded by mu
	waiting chan struct{} // pinged when a guest begins to wait
	sweeps  atomic.Bool   // somebody waits, and sweeping has been asked for
	kept    atomic.Int64  // bytes of requests that wait
}

// maxKept bounds the memory of waiting requests; the queue bounds their number.
const maxKept = 256 << 20

const unpinned = -1

// New makes a door for so many cores, one at least. Nothing ticks until it is open.
func New(cores int) *Door {
	d := newDoor(admission.Config{Cores: max(1, cores)})
	d.signal.delay()
	return d
}

func newDoor(cfg admission.Config) *Door {
	ctl, err := admission.New(cfg, 0)
	if err != nil {
		panic(err) //nolint:forbidigo // every value of these configurations is valid
	}
	d := &Door{
		epoch: time.Now(), cores: cfg.Cores, processors: runtime.GOMAXPROCS(0), ctl: ctl,
		methods: map[uint32]admission.Method{}, waiting: make(chan struct{}, 1),
	}
	d.level.Store(uint32(qos.LastPriority))
	d.pinned.Store(unpinned)
	return d
}

var ofProcess = sync.OnceValue(func() *Door {
	d := New(coresOfProcess())
	d.items = process.Items().Admission(d.State)
	return d
})

// Process gives the door of this process. What goes on there is among the process's
// items.
func Process() *Door { return ofProcess() }

// Cores is how many calls the door believes can run at once.
func (d *Door) Cores() int { return d.cores }

// Now is the time on the door's clock.
func (d *Door) Now() time.Duration { return time.Since(d.epoch) }

// At gives an instant on the door's clock; it is never zero, which means no time.
func (d *Door) At(t time.Time) time.Duration {
	if at := t.Sub(d.epoch); at != 0 {
		return at
	}
	return 1
}

// Backlog is how long the work takes that waits here, or at the services that calls
// here go on to, in ms: what callers hear with every reply.
func (d *Door) Backlog() uint8 { return uint8(d.backlog.Load()) }

// Behind takes in what a service that calls go on to from here tells of its backlog, in ms.
func (d *Door) Behind(ms uint8) {
	for old := d.heard.Load(); uint32(ms) > old; old = d.heard.Load() {
		if d.heard.CompareAndSwap(old, uint32(ms)) {
			return
		}
	}
}

// Level is the worst priority that has a chance now: what to tell callers.
func (d *Door) Level() qos.Priority {
	if p := d.pinned.Load(); p != unpinned {
		return qos.Priority(p)
	}
	return qos.Priority(d.level.Load())
}

var methodIDs sync.Map // *rpc.Method to uint32: a caller that holds back pays no hash

// MethodID is the number under which callers report on a method. Two methods of one
// number would share their costs in reports, and nothing else.
func MethodID(m *rpc.Method) uint32 {
	if id, ok := methodIDs.Load(m); ok {
		return id.(uint32)
	}
	id := uint32(tracing.EntryOf(m.FullName()))
	methodIDs.Store(m, id)
	return id
}

// AddMethod gives a method its number at this door.
func (d *Door) AddMethod(m *rpc.Method) admission.Method {
	id := MethodID(m)
	d.mu.Lock()
	defer d.mu.Unlock()
	n, known := d.methods[id]
	if !known {
		n = d.ctl.Add(1)
		d.methods[id] = n
	}
	return n
}

// Suppressed takes a caller's report of n calls that it held back.
func (d *Door) Suppressed(n uint16, p qos.Priority, id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, known := d.methods[id]
	if !known {
		m = -1
	}
	d.ctl.Suppressed(n, p, m)
	d.items.Suppressed(p.Class(), n)
}

// Arrive decides about a guest: Run, Queue, or a refusal. Others may have to make
// room for it; b collects who has to tell them. Done must follow a Run, at once or
// after Admit. After Queue the guest may be admitted or refused before Arrive returns.
func (d *Door) Arrive(now time.Duration, call *admission.Call, b *Batch) admission.Verdict {
	if p := d.pinned.Load(); p != unpinned && call.Ticket.Fresh() && call.Priority > qos.Priority(p) {
		d.refusedByLevel[call.Priority.Class()].Add(1)
		return admission.Refuse
	}
	var room [4]admission.Decision
	d.mu.Lock()
	out := d.ctl.Arrive(now, call, room[:0])
	d.mu.Unlock()
	last := len(out) - 1
	if last < 0 {
		return admission.Refuse // it is inside already: a mistake that must not run twice
	}
	v := out[last].Verdict
	if v == admission.Queue {
		d.sweepSoon()
		d.pump(now, b)
	}
	d.carry(now, out[:last], b)
	return v
}

// Excludes says whether the level leaves somebody who would begin a task no chance, and
// if so counts him as held back. Callers in other processes know the level and ask
// themselves; those of this process, and people, are asked here.
func (d *Door) Excludes(p qos.Priority, t qos.Ticket, m admission.Method) bool {
	if !t.Fresh() || p <= d.Level() {
		return false
	}
	d.refusedByLevel[p.Class()].Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctl.Suppressed(1, p, m)
	return true
}

// Done gives a guest's slot back. A guest that holds none is left alone.
func (d *Door) Done(call *admission.Call) {
	var room [4]admission.Decision
	var b Batch
	now := d.Now()
	d.mu.Lock()
	out := d.ctl.Done(now, call, room[:0])
	d.mu.Unlock()
	if call.Frame != nil { // else it has never stood here
		d.items.Ended(call.Priority.Class(), call.Deadline == 0 || now <= call.Deadline)
	}
	if len(out) > 0 {
		d.carry(now, out, &b)
		b.Flush()
	}
}

// Keep counts n bytes of a request that waits, until Forget; false if there is no
// room for them.
func (d *Door) Keep(n int) bool { return d.kept.Add(int64(n)) <= maxKept }

// KeptBytes is how many bytes of requests wait.
func (d *Door) KeptBytes() int { return int(d.kept.Load()) }

// Forget ends what Keep has begun.
func (d *Door) Forget(n int) { d.kept.Add(-int64(n)) }

// Withdraw takes a waiting guest back; false if it has been decided about.
func (d *Door) Withdraw(call *admission.Call) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctl.Withdraw(call)
}

// carry tells the guests. They have waited: nobody else is decided about here.
func (d *Door) carry(now time.Duration, out []admission.Decision, b *Batch) {
	for _, decision := range out {
		call := decision.Call
		guest, ok := call.Frame.(Guest)
		if !ok {
			continue
		}
		if decision.Verdict == admission.Run {
			d.items.Waited(call.Priority.Class(), now-call.Arrived())
			guest.Admit()
		} else {
			b.Add(guest.Refuse(decision.Verdict))
		}
	}
}

// pump lets guests in for those inside who sleep. Go tells nobody when a goroutine
// blocks, so that it has to be looked for while somebody waits.
func (d *Door) pump(now time.Duration, b *Batch) {
	active, ok := d.active.count(now)
	if !ok {
		return
	}
	var room [8]admission.Decision
	d.mu.Lock()
	out := d.ctl.Look(now, active, d.processors, room[:0])
	d.mu.Unlock()
	d.carry(now, out, b)
}

// sweepSoon has the queue swept until nobody waits any more.
func (d *Door) sweepSoon() {
	if d.sweeps.Load() || !d.sweeps.CompareAndSwap(false, true) {
		return
	}
	select {
	case d.waiting <- struct{}{}:
	default:
	}
}

// Open makes the door tick until as many have closed it as have opened it.
func (d *Door) Open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users++
	if d.users > 1 {
		return
	}
	d.stop, d.done = make(chan struct{}), make(chan struct{})
	go d.tick(d.stop, d.done) // Close waits for it
}

// Close ends what Open has begun, and waits for it.
func (d *Door) Close() {
	d.mu.Lock()
	d.users--
	stop, done := d.stop, d.done
	last := d.users == 0
	d.mu.Unlock()
	if last {
		close(stop)
		<-done
	}
}

func (d *Door) tick(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(admission.TickEvery)
	defer tick.Stop()
	pump := time.NewTimer(pumpEvery)
	defer pump.Stop()
	swept := d.Now()
	var out []admission.Decision
	var b Batch
	for {
		select {
		case <-stop:
			return
		case <-d.waiting:
			pump.Reset(pumpEvery)
			continue
		case <-tick.C:
			heard := time.Duration(d.heard.Swap(0)) * time.Millisecond
			delay := d.delay()
			d.mu.Lock()
			now := d.Now()
			d.ctl.Behind(heard)
			out = d.ctl.Tick(now, delay, out[:0])
			d.level.Store(uint32(d.ctl.Level()))
			d.backlog.Store(uint32(min(d.ctl.Backlog()/time.Millisecond, math.MaxUint8)))
			d.mu.Unlock()
			d.carry(now, out, &b)
		case <-pump.C:
			d.mu.Lock()
			now := d.Now()
			out = out[:0]
			if now-swept >= admission.SweepEvery {
				swept = now
				out = d.ctl.Sweep(now, out)
			}
			waiting := d.ctl.Waiting()
			if waiting == 0 {
				d.sweeps.Store(false) // under the lock: who comes after it asks anew
			}
			d.mu.Unlock()
			d.carry(now, out, &b)
			if waiting > 0 {
				d.pump(now, &b)
				pump.Reset(pumpEvery)
			}
		}
		b.Flush()
		clear(out)
	}
}

// delay is the mean wait for a core since the last tick, Go's and the kernel's.
func (d *Door) delay() time.Duration {
	mean := d.signal.delay()
	if kernel := d.kernel.mean(d.cores); kernel > 0 {
		return max(mean, 0) + kernel
	}
	return mean
}

// State gives what pages and metrics show.
func (d *Door) State() admission.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.ctl.State()
	for class := range d.refusedByLevel {
		s.Counts[admission.Refuse][class] += d.refusedByLevel[class].Load()
	}
	return s
}

// Waiting is how many calls and requests wait to be let in, and how long the oldest of
// them has.
func (d *Door) Waiting() (n int, oldest time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if arrived, ok := d.ctl.Oldest(); ok {
		oldest = max(0, d.Now()-arrived)
	}
	return d.ctl.Waiting(), oldest
}

// Pin tells callers level p, and refuses what is worse here, until Unpin.
func (d *Door) Pin(p qos.Priority) { d.pinned.Store(int32(min(p, qos.LastPriority))) }

// Unpin lets the door find its level again.
func (d *Door) Unpin() { d.pinned.Store(unpinned) }
