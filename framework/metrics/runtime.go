// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"runtime/metrics"
)

// runtimeItem is one metric of Go's runtime with the name it is shown under: that of
// OpenTelemetry's conventions for Go where they have one.
type runtimeItem struct {
	path   string // in runtime/metrics
	kind   Kind
	desc   Desc
	labels []Label
}

const usedHelp = "Memory mapped by the runtime and not given back, by use; the parts add up to go_memory_mapped_bytes less go_memory_released_bytes."

func used(path, of string) runtimeItem {
	return runtimeItem{path, KindGauge, Desc{"go.memory.used", usedHelp, Bytes}, []Label{{"go.memory.type", of}}}
}

const cpuHelp = "CPU time as the runtime accounts for it, by use; to be compared with each other, not with the system's."

func cpu(path, of string) runtimeItem {
	return runtimeItem{path, KindCounter, Desc{"go.cpu.time", cpuHelp, Seconds}, []Label{{"use", of}}}
}

const goroutineHelp = "Goroutines by state: many runnable ones mean too little CPU; waiting ones grow with a leak."

func goroutines(path, state string) runtimeItem {
	return runtimeItem{path, KindGauge, Desc{"go.goroutine.states", goroutineHelp, "{goroutine}"}, []Label{{"state", state}}}
}

// runtimeItems are what someone on call asks of the runtime. Left out are the
// counters of GODEBUG settings, sizes of single allocations, and what is the sum or
// the twin of others.
var runtimeItems = []runtimeItem{
	used("/memory/classes/heap/objects:bytes", "heap_objects"),
	used("/memory/classes/heap/unused:bytes", "heap_unused"),
	used("/memory/classes/heap/free:bytes", "heap_free"),
	used("/memory/classes/heap/stacks:bytes", "stack"),
	used("/memory/classes/os-stacks:bytes", "os_stack"),
	used("/memory/classes/metadata/mspan/inuse:bytes", "mspan"),
	used("/memory/classes/metadata/mspan/free:bytes", "mspan_free"),
	used("/memory/classes/metadata/mcache/inuse:bytes", "mcache"),
	used("/memory/classes/metadata/mcache/free:bytes", "mcache_free"),
	used("/memory/classes/metadata/other:bytes", "gc_metadata"),
	used("/memory/classes/profiling/buckets:bytes", "profiling"),
	used("/memory/classes/other:bytes", "other"),
	{"/memory/classes/heap/released:bytes", KindGauge, Desc{"go.memory.released", "Memory given back to the system and still reserved.", Bytes}, nil},
	{"/memory/classes/total:bytes", KindGauge, Desc{"go.memory.mapped", "All memory mapped by the runtime, given back or not.", Bytes}, nil},
	{"/gc/heap/live:bytes", KindGauge, Desc{"go.memory.live", "Heap that the last collection found in use.", Bytes}, nil},
	{"/gc/heap/goal:bytes", KindGauge, Desc{"go.memory.gc.goal", "Heap size at which the collection in progress should end.", Bytes}, nil},
	{"/gc/heap/objects:objects", KindGauge, Desc{"go.memory.objects", "Objects on the heap, swept or not.", "{object}"}, nil},
	{"/gc/heap/allocs:bytes", KindCounter, Desc{"go.memory.allocated", "Bytes allocated on the heap.", Bytes}, nil},
	{"/gc/heap/allocs:objects", KindCounter, Desc{"go.memory.allocations", "Objects allocated on the heap.", "{allocation}"}, nil},
	{"/gc/heap/frees:bytes", KindCounter, Desc{"go.memory.freed", "Bytes of the heap freed by the collector.", Bytes}, nil},
	{"/gc/heap/frees:objects", KindCounter, Desc{"go.memory.frees", "Objects of the heap freed by the collector.", "{object}"}, nil},
	{"/gc/gomemlimit:bytes", KindGauge, Desc{"go.memory.limit", "Soft memory limit (GOMEMLIMIT); the largest whole number if none is set.", Bytes}, nil},
	{"/gc/gogc:percent", KindGauge, Desc{"go.config.gogc", "Heap growth that starts a collection (GOGC).", Percent}, nil},
	{"/gc/scan/heap:bytes", KindGauge, Desc{"go.memory.gc.scan", "Memory that a collection has to scan, by kind.", Bytes}, []Label{{"of", "heap"}}},
	{"/gc/scan/stack:bytes", KindGauge, Desc{"go.memory.gc.scan", "Memory that a collection has to scan, by kind.", Bytes}, []Label{{"of", "stack"}}},
	{"/gc/scan/globals:bytes", KindGauge, Desc{"go.memory.gc.scan", "Memory that a collection has to scan, by kind.", Bytes}, []Label{{"of", "globals"}}},
	{"/gc/stack/starting-size:bytes", KindGauge, Desc{"go.stack.starting_size", "Stack size of new goroutines.", Bytes}, nil},
	{"/gc/cycles/automatic:gc-cycles", KindCounter, Desc{"go.gc.cycles", "Collections, by what began them.", "{cycle}"}, []Label{{"cause", "heap"}}},
	{"/gc/cycles/forced:gc-cycles", KindCounter, Desc{"go.gc.cycles", "Collections, by what began them.", "{cycle}"}, []Label{{"cause", "forced"}}},
	{"/gc/limiter/last-enabled:gc-cycle", KindGauge, Desc{"go.gc.limiter.last_cycle", "Collection in which the limiter last held the collector back for want of memory; 0 if never.", "{cycle}"}, nil},
	{"/gc/finalizers/queued:finalizers", KindCounter, Desc{"go.gc.finalizers.queued", "Finalizers queued to run.", "{finalizer}"}, nil},
	{"/gc/finalizers/executed:finalizers", KindCounter, Desc{"go.gc.finalizers.executed", "Finalizers that have run; far behind the queued ones means that one blocks.", "{finalizer}"}, nil},
	{"/gc/cleanups/queued:cleanups", KindCounter, Desc{"go.gc.cleanups.queued", "Cleanups queued to run.", "{cleanup}"}, nil},
	{"/gc/cleanups/executed:cleanups", KindCounter, Desc{"go.gc.cleanups.executed", "Cleanups that have run; far behind the queued ones means that one blocks.", "{cleanup}"}, nil},
	cpu("/cpu/classes/user:cpu-seconds", "user"),
	cpu("/cpu/classes/idle:cpu-seconds", "idle"),
	cpu("/cpu/classes/gc/mark/assist:cpu-seconds", "gc_assist"),
	cpu("/cpu/classes/gc/mark/dedicated:cpu-seconds", "gc_dedicated"),
	cpu("/cpu/classes/gc/mark/idle:cpu-seconds", "gc_idle"),
	cpu("/cpu/classes/gc/pause:cpu-seconds", "gc_pause"),
	cpu("/cpu/classes/scavenge/assist:cpu-seconds", "scavenge_assist"),
	cpu("/cpu/classes/scavenge/background:cpu-seconds", "scavenge_background"),
	{"/sched/goroutines:goroutines", KindGauge, Desc{"go.goroutines", "Goroutines there are.", "{goroutine}"}, nil},
	goroutines("/sched/goroutines/runnable:goroutines", "runnable"),
	goroutines("/sched/goroutines/running:goroutines", "running"),
	goroutines("/sched/goroutines/waiting:goroutines", "waiting"),
	goroutines("/sched/goroutines/not-in-go:goroutines", "not_in_go"),
	{"/sched/goroutines-created:goroutines", KindCounter, Desc{"go.goroutine.starts", "Goroutines started.", "{goroutine}"}, nil},
	{"/sched/threads/total:threads", KindGauge, Desc{"go.threads", "Threads of the runtime; they grow with blocking system calls.", "{thread}"}, nil},
	{"/sched/gomaxprocs:threads", KindGauge, Desc{"go.processor.limit", "Threads that may run Go code at once (GOMAXPROCS).", "{thread}"}, nil},
	{"/sync/mutex/wait/total:seconds", KindCounter, Desc{"go.mutex.wait", "Time that goroutines have been blocked on locks, roughly.", Seconds}, nil},
	{"/cgo/go-to-c-calls:calls", KindCounter, Desc{"go.cgo.calls", "Calls from Go to C.", "{call}"}, nil},
	{"/sched/latencies:seconds", KindHistogram, Desc{"go.schedule.duration", "Time that goroutines were ready to run and did not. The sum is an estimate.", Seconds}, nil},
	{"/sched/pauses/total/gc:seconds", KindHistogram, Desc{"go.memory.gc.pause.duration", "Time that the world stood still for the collector. The sum is an estimate.", Seconds}, nil},
	{"/sched/pauses/total/other:seconds", KindHistogram, Desc{"go.pause.duration", "Time that the world stood still for other reasons, such as profiles. The sum is an estimate.", Seconds}, nil},
}

// runtimeSeconds are the bounds of the runtime's histograms.
var runtimeSeconds = []float64{1e-6, 1e-5, 2.5e-5, 5e-5, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1}

// goRuntime registers the items of the runtime that this build of Go has.
func (r *Registry) goRuntime() {
	known := map[string]metrics.ValueKind{}
	for _, d := range metrics.All() {
		known[d.Name] = d.Kind
	}
	var samples []metrics.Sample // written by the reader of a snapshot, of which there is one at a time
	for _, item := range runtimeItems {
		if known[item.path] == metrics.KindBad {
			continue
		}
		i := len(samples)
		samples = append(samples, metrics.Sample{Name: item.path})
		s := &series{value: func() float64 { return scalar(samples[i].Value) }}
		var bounds []float64
		if item.kind == KindHistogram {
			bounds = runtimeSeconds
			s = &series{hist: func(counts []uint64) float64 { return fold(samples[i].Value, bounds, counts) }}
		}
		r.register(item.kind, item.desc, bounds, item.labels, s, false)
	}
	r.BeforeRead(func() { metrics.Read(samples) })
}

func scalar(v metrics.Value) float64 {
	switch v.Kind() {
	case metrics.KindUint64:
		return float64(v.Uint64())
	case metrics.KindFloat64:
		return v.Float64()
	default:
		return math.NaN()
	}
}

// fold adds a histogram of the runtime's to coarser buckets, each of its buckets by
// its upper end, so that no time looks shorter than it was, and gives an estimate of
// the sum: the runtime keeps none.
func fold(v metrics.Value, bounds []float64, counts []uint64) (sum float64) {
	if v.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	h := v.Float64Histogram()
	at := 0
	for i, n := range h.Counts {
		low, high := max(h.Buckets[i], 0), h.Buckets[i+1]
		for at < len(bounds) && high > bounds[at] {
			at++
		}
		counts[at] += n
		if math.IsInf(high, 1) {
			high = low
		}
		sum += float64(n) * (low + high) / 2
	}
	return sum
}
