// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/go-kratos/aegis/ratelimit"
	"github.com/go-kratos/aegis/ratelimit/bbr"
	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/platinummonkey/go-concurrency-limits/limit"
	"github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"
	"github.com/zeromicro/go-zero/core/load"

	"github.com/sluice-rpc/sluice/qos"
)

// The packaged peers are the modules of go.mod, unchanged, with their defaults. They
// read the time of day, so that their cells run inside a testing/synctest bubble
// whose clock follows the simulator's: in a test of this package, which the program
// starts for them. Two of them read the CPU from /proc; they are built from a copy in
// which that one reading is replaced by the true share of busy workers of the leaf
// that asks, smoothed as the module smooths it.

// packaged are the policies that need the bubble.
var packaged = []policy{
	peer("failsafe", func(w *world, l *leaf) admitter { return newFailsafe(w, l, false) }),
	peer("failsafe-prioritized", func(w *world, l *leaf) admitter { return newFailsafe(w, l, true) }),
	peer("go-zero", func(w *world, l *leaf) admitter {
		load.DisableLog()
		return &goZero{load.NewAdaptiveShedder(), smoothCPU(w, l, 250*time.Millisecond)}
	}),
	peer("kratos-bbr", func(w *world, l *leaf) admitter {
		return &kratos{bbr.NewLimiter(), smoothCPU(w, l, 500*time.Millisecond)}
	}),
	peer("vegas", func(*world, *leaf) admitter {
		return newLimits(limit.NewDefaultVegasLimit("vegas", limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance))
	}),
	peer("gradient2", func(*world, *leaf) admitter {
		return newLimits(limit.NewDefaultGradient2Limit("gradient2", limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance))
	}),
}

// admitter asks a peer about one call. It answers at once, or through later: with
// the function that ends the call, or with nil, which refuses it.
type admitter interface {
	admit(c *call, later func(end func(ok bool))) (end func(ok bool), now bool)
}

func peer(name string, build func(w *world, l *leaf) admitter) policy {
	return policy{
		name: name,
		leaf: func(w *world, l *leaf) leafPolicy {
			return &peerLeaf{leaf: l, peer: build(w, l), ends: map[*call]func(bool){}}
		},
		entry: newPlainEntry,
	}
}

type peerLeaf struct {
	leaf *leaf
	peer admitter
	ends map[*call]func(ok bool)
}

func (p *peerLeaf) arrive(c *call) {
	if end, now := p.peer.admit(c, func(end func(bool)) { p.answer(c, end) }); now {
		p.answer(c, end)
	}
}

func (p *peerLeaf) answer(c *call, end func(bool)) {
	if end == nil {
		o := refused
		if p.leaf.gone(c) {
			o = late
		}
		p.leaf.refuse(c, o)
		return
	}
	p.ends[c] = end
	p.leaf.execute(c)
}

func (p *peerLeaf) finished(c *call) {
	end := p.ends[c]
	delete(p.ends, c)
	end(!p.leaf.gone(c))
}

func (p *peerLeaf) level() int { return 0 }

// simulatedCPU is what the changed readers read, in thousandths. There is one event at a
// time: whoever asks a peer sets it first.
var simulatedCPU = expvar.NewInt("simulated-cpu")

// smoothCPU gives the share of busy workers as both modules smooth it: 0.95 of the
// last value and 0.05 of the new one, each interval.
func smoothCPU(w *world, l *leaf, every time.Duration) func() {
	usage, last := 0., time.Duration(0)
	w.every(every, func() {
		worked := l.worked()
		share := float64(worked-last) / float64(every) / float64(l.slots)
		last = worked
		usage = .95*usage + .05*1000*share
	})
	return func() { simulatedCPU.Set(int64(usage)) }
}

type goZero struct {
	shedder load.Shedder
	setCPU  func()
}

func (g *goZero) admit(*call, func(func(bool))) (func(bool), bool) {
	g.setCPU()
	p, err := g.shedder.Allow()
	if err != nil {
		return nil, true
	}
	return func(ok bool) {
		if ok {
			p.Pass()
		} else {
			p.Fail()
		}
	}, true
}

type kratos struct {
	limiter *bbr.BBR
	setCPU  func()
}

func (k *kratos) admit(*call, func(func(bool))) (func(bool), bool) {
	k.setCPU()
	done, err := k.limiter.Allow()
	if err != nil {
		return nil, true
	}
	return func(bool) { done(ratelimit.DoneInfo{}) }, true
}

type limits struct{ limiter *limiter.DefaultLimiter }

func newLimits(l core.Limit) *limits {
	// The windows and the least number of samples are the module's defaults.
	lim, err := limiter.NewDefaultLimiter(l, 1e9, 1e9, 1e5, 100, strategy.NewSimpleStrategy(20), limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
	if err != nil {
		panic(err) // arguments are constants: a mistake of this program
	}
	return &limits{lim}
}

func (l *limits) admit(*call, func(func(bool))) (func(bool), bool) {
	tok, ok := l.limiter.Acquire(context.Background())
	if !ok {
		return nil, true
	}
	return func(ok bool) {
		if ok {
			tok.OnSuccess()
		} else {
			tok.OnDropped()
		}
	}, true
}

// failsafe waits for permits in goroutines of its own; the bubble lets them run
// between two events.
type failsafe struct {
	bubble      *bubble
	plain       adaptivelimiter.AdaptiveLimiter[any]
	prioritized adaptivelimiter.PriorityLimiter[any]
}

// calibration of the prioritizer. The module's example uses 500 ms, which gives .56;
// 20 ms was the best of 5 intervals tried.
const calibration = 20 * time.Millisecond

func newFailsafe(w *world, _ *leaf, prioritized bool) admitter {
	f := &failsafe{bubble: w.bubble}
	if !prioritized {
		f.plain = adaptivelimiter.NewWithDefaults[any]()
		return f
	}
	p := adaptivelimiter.NewPrioritizer()
	f.prioritized = adaptivelimiter.NewBuilder[any]().WithQueueing(2, 3).BuildPrioritized(p)
	w.every(calibration, p.Calibrate)
	return f
}

func (f *failsafe) admit(c *call, later func(func(bool))) (func(bool), bool) {
	if f.plain != nil {
		p, ok := f.plain.TryAcquirePermit()
		if !ok {
			return nil, true
		}
		return ending(p), true
	}
	f.bubble.ask(c.task.deadline, func(ctx context.Context) func() {
		p, err := f.prioritized.AcquirePermitWithLevel(ctx, failsafeLevel(c.Priority))
		return func() {
			if err != nil {
				later(nil)
				return
			}
			later(ending(p))
		}
	})
	return nil, false
}

func ending(p adaptivelimiter.Permit) func(bool) {
	return func(ok bool) {
		if ok {
			p.Record()
		} else {
			p.Drop()
		}
	}
}

// failsafeLevel spreads the four classes in use over its 500 levels, larger is
// better.
func failsafeLevel(p qos.Priority) int {
	worst := worstUsed - int(p)
	return worst * 499 / (worstUsed - bestUsed)
}

// bubble is a synctest bubble whose clock follows a simulator.
type bubble struct {
	start   time.Time
	ready   sync.Mutex // guards answers
	answers []func()
	asking  int // goroutines that wait for a peer; of the simulator's goroutine
}

// follow makes the clock of the bubble go with the simulator's.
func (b *bubble) follow(s *sim) {
	b.start = time.Now()
	s.advance = func(to time.Duration) {
		if d := time.Until(b.start.Add(to)); d > 0 {
			time.Sleep(d)
		}
	}
	s.settle = func() {
		for b.asking > 0 {
			synctest.Wait()
			b.ready.Lock()
			answers := b.answers
			b.answers = nil
			b.ready.Unlock()
			if len(answers) == 0 {
				return
			}
			for _, answer := range answers {
				b.asking--
				answer()
			}
		}
	}
}

// ask waits for a peer until the deadline and runs what it answers at the
// simulator's next settling. The goroutine ends with the deadline at the latest.
func (b *bubble) ask(deadline time.Duration, wait func(context.Context) func()) {
	b.asking++
	go func() {
		ctx, cancel := context.WithDeadline(context.Background(), b.start.Add(deadline))
		defer cancel()
		answer := wait(ctx)
		b.ready.Lock()
		b.answers = append(b.answers, answer)
		b.ready.Unlock()
	}()
}

// peersEnv hands the arguments to the test that runs the bubble.
const peersEnv = "SLUICE_BENCH_PEERS"

// cpuReaders are where two modules read the CPU, and what stands
// there instead.
var cpuReaders = []struct{ module, file, old, new string }{
	{
		"github.com/zeromicro/go-zero", "core/stat/usage.go",
		"return atomic.LoadInt64(&cpuUsage)", `return expvar.Get("simulated-cpu").(*expvar.Int).Value()`,
	},
	{
		"github.com/go-kratos/aegis", "ratelimit/bbr/bbr.go",
		"func() int64 { return atomic.LoadInt64(&gCPU) },", `func() int64 { return expvar.Get("simulated-cpu").(*expvar.Int).Value() },`,
	},
}

// modfile writes into dir a go.mod that takes the modules of cpuReaders from copies
// with that one line changed. (A build overlay may not reach the module cache.)
func modfile(ctx context.Context, dir string) (string, error) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		return "", fmt.Errorf("peers are built from the program's own directory: %w", err)
	}
	for i, r := range cpuReaders {
		out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", r.module).Output()
		if err != nil {
			return "", fmt.Errorf("find module %s: %w", r.module, err)
		}
		to := filepath.Join(dir, fmt.Sprint("module", i))
		if err := os.CopyFS(to, os.DirFS(string(bytes.TrimSpace(out)))); err != nil {
			return "", err
		}
		path := filepath.Join(to, r.file)
		src, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		changed := bytes.Replace(src, []byte(r.old), []byte(r.new), 1)
		changed = bytes.Replace(changed, []byte("import (\n"), []byte("import (\n\t\"expvar\"\n"), 1)
		if !bytes.Contains(changed, []byte(r.new)) {
			return "", fmt.Errorf("%s %s does not read the CPU as expected: another version than go.mod's?", r.module, r.file)
		}
		if err := os.Remove(path); err != nil { // copies of the cache are read-only
			return "", err
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			return "", err
		}
		text = fmt.Appendf(text, "\nreplace %s => %s\n", r.module, to)
	}
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "go.mod")
	return file, errors.Join(os.WriteFile(file, text, 0o600), os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o600))
}

// runPackaged runs the packaged peers in the bubble and hands each metric to emit.
func runPackaged(ctx context.Context, args []string, emit func(metric) error) error {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file, err := modfile(ctx, dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-modfile", file, "-count=1", "-timeout=3h", "-run", "^TestPackagedPeers$")
	cmd.Env = append(os.Environ(), peersEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var said bytes.Buffer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var m metric
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.Metric == "" { // or what a peer logs
			fmt.Fprintln(&said, lines.Text())
			continue
		}
		if err := emit(m); err != nil {
			return err
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("packaged peers: %w\n%s", err, &said)
	}
	return nil
}
