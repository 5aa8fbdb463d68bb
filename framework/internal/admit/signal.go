// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// coresOfProcess gives how many calls can truly run at once, and sees to it that as
// many do: netpoll's poller blocks in epoll_wait and keeps its P until sysmon takes
// it away, up to 10 ms later. With GOMAXPROCS = cores and a limit as short the
// machine idles meanwhile (measured: goodput .54 to .88 at 2 to 4 times the
// capacity); with one P more it is .92 to .99, for 5 % of what a closed loop
// reaches. Who sets GOMAXPROCS in the environment is left alone.
func coresOfProcess() int {
	n := runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") != "" {
		return max(1, n-1)
	}
	runtime.GOMAXPROCS(n + 1)
	return n
}

// signal reads how long goroutines that could run have waited for a processor.
type signal struct {
	sample []metrics.Sample
	before []uint64
}

// delay gives the mean since the last call, negative if it is not known.
func (s *signal) delay() time.Duration {
	if s.sample == nil {
		s.sample = []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	}
	metrics.Read(s.sample)
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return -1
	}
	h := s.sample[0].Value.Float64Histogram()
	if len(s.before) != len(h.Counts) {
		s.before = make([]uint64, len(h.Counts))
	}
	n, sum := uint64(0), 0.
	for i, count := range h.Counts {
		k := count - s.before[i]
		s.before[i] = count
		if k == 0 {
			continue
		}
		lo, hi := max(h.Buckets[i], 0), h.Buckets[i+1]
		if math.IsInf(hi, 1) {
			hi = lo
		}
		n += k
		sum += float64(k) * (lo + hi) / 2
	}
	if n == 0 {
		return -1
	}
	return time.Duration(sum / float64(n) * float64(time.Second))
}

// runDelay reads how long the process's threads that could run have waited for a core
// that others had: Go's own figure knows nothing of other processes on the same cores.
type runDelay struct {
	before map[string]threadTimes
}

// threadTimes is what /proc/self/task/N/schedstat says of a thread since it began.
type threadTimes struct{ ran, waited, slices uint64 }

// mean gives the mean wait for a core of the times that threads ran since the last
// call, zero if that is not known. It reads a small file a thread: about 5 µs each.
func (r *runDelay) mean(cores int) time.Duration {
	const dir = "/proc/self/task/"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	now := make(map[string]threadTimes, len(threads))
	var all threadTimes
	for _, thread := range threads {
		b, err := os.ReadFile(dir + thread.Name() + "/schedstat") // nanoseconds run, nanoseconds waited, times run
		if err != nil {
			continue // it has ended
		}
		var t threadTimes
		if _, err := fmt.Sscanf(string(b), "%d %d %d", &t.ran, &t.waited, &t.slices); err != nil {
			continue
		}
		now[thread.Name()] = t
		if old, ok := r.before[thread.Name()]; ok && t.ran >= old.ran && t.slices >= old.slices && t.waited >= old.waited {
			all.ran += t.ran - old.ran
			all.waited += t.waited - old.waited
			all.slices += t.slices - old.slices
		}
	}
	r.before = now
	return all.othersDelay(cores)
}

// othersDelay is the mean wait for other processes. The process's own threads wait for
// each other, too: there is one P more than cores, so that in the time in which they all
// run once one of them waits. That is no sign of anything (taken for one it held a server
// of one core, all its own, at a limit of one call: .3 more CPU an echo).
func (t threadTimes) othersDelay(cores int) time.Duration {
	own := t.ran / uint64(max(1, cores))
	if t.slices == 0 || t.waited <= own {
		return 0
	}
	return time.Duration((t.waited - own) / t.slices)
}

// active counts the goroutines that use a processor or wait for one. The calls inside
// that are not among them sleep.
type active struct {
	mu     sync.Mutex
	last   time.Duration
	sample [2]metrics.Sample
}

const (
	// activeEvery is how often arrivals look, for half a microsecond: 1 % of a core.
	activeEvery = 50 * time.Microsecond
	// pumpEvery is how often somebody looks while calls wait and none arrives.
	pumpEvery = time.Millisecond
)

// count gives how many there are at this instant; not ok if it is not known, or not yet
// worth another look.
func (a *active) count(now time.Duration) (n int, ok bool) {
	if !a.mu.TryLock() {
		return 0, false
	}
	defer a.mu.Unlock()
	if now-a.last < activeEvery {
		return 0, false
	}
	a.last = now
	if a.sample[0].Name == "" {
		a.sample[0].Name = "/sched/goroutines/runnable:goroutines"
		a.sample[1].Name = "/sched/goroutines/running:goroutines"
	}
	metrics.Read(a.sample[:])
	sum := uint64(0)
	for _, s := range a.sample {
		if s.Value.Kind() != metrics.KindUint64 {
			return 0, false
		}
		sum += s.Value.Uint64()
	}
	return int(sum), true
}
