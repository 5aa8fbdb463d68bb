// SPDX-License-Identifier: Apache-2.0

// Package child is a server or a client process of a run: a framework under measurement
// behind a pipe, over which it is told what to do and says what it has done.
package child

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"
)

// Arg as the first argument makes a program a child; the rest is for Main.
const Arg = "child"

// A Command is one line of JSON that a child process is sent.
type Command struct {
	Op string
	N  int `json:",omitempty"` // callers of load, calls of hold
}

// The operations. A child answers each with one sample.
const (
	OpSample  = "sample"  // counters as they are
	OpLoad    = "load"    // client: start N callers in a closed loop
	OpStop    = "stop"    // client: stop them, wait for them
	OpHold    = "hold"    // client: make N calls at once that the server blocks
	OpProbe   = "probe"   // client: make one echo call
	OpRelease = "release" // server: let all blocked calls go
	OpWait    = "wait"    // client: wait for all blocked calls
	OpTime    = "time"    // client: one caller times N batches of BatchCalls echo calls
)

// BatchCalls is short enough that most batches of local calls see no other process
// take the core away.
const BatchCalls = 100

// A Sample is what a process says of itself at one moment. Counters only grow.
type Sample struct {
	Addr       string        `json:",omitempty"` // of a server, in its first Sample
	At         time.Duration // on the process's own monotonic clock
	CPU        time.Duration // user + system
	Calls      int64         // echo calls served or answered
	Held       int64         // server: blocked calls; client: those that were answered
	Mallocs    uint64
	AllocBytes uint64
	RSS        int64   // resident bytes
	Stack      uint64  // bytes of goroutine stacks in use
	Heap       uint64  // bytes of heap in use
	Failed     int64   // calls that returned an error
	Mismatched int64   // calls with a wrong answer
	Batch      float64 // after time: the median batch, ns a call
	Probe      float64 // after probe: how long it took, ms
	Lost       int64   // client: blocked calls that failed
	Refused    int64   // client: times that one was asked to come again, and did
	Error      string  `json:",omitempty"` // the first failure
}

var started = time.Now()

// Main runs a child with the frameworks that find knows, and gives its exit status.
func Main(args []string, find func(name string) (Peer, error)) int {
	if err := run(args, find); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n", args, err)
		return 1
	}
	return 0
}

// run is a server ("server NAME"), one that asks another server ("middle NAME ADDR"), a
// client ("client NAME ADDR") or a server and a client in one ("local NAME"). It ends when
// its standard input does, so that it never outlives the run.
func run(args []string, find func(name string) (Peer, error)) error {
	if len(args) < 2 {
		return errors.New("want a role and a framework")
	}
	p, err := find(args[1])
	if err != nil {
		return err
	}
	c := &process{svc: newService(), deadline: p.Deadline}
	var first Sample
	switch {
	case args[0] == "server":
		if first.Addr, err = p.Serve(c.svc); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	case args[0] == "middle" && len(args) == 3 && p.Middle != nil:
		if first.Addr, err = p.Middle(c.svc, args[2]); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	case args[0] == "client" && len(args) == 3:
		c.client, err = p.Dial(args[2])
	case args[0] == "local" && p.Local != nil:
		c.client, err = p.Local(c.svc)
	default:
		return errors.New("unknown role")
	}
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	return c.obey(os.Stdin, json.NewEncoder(os.Stdout), first)
}

// process is the state of a child: the service of a server, the calls of a client.
type process struct {
	svc      *Service
	client   Client // nil in a server
	deadline bool

	calls, answered  atomic.Int64 // echo and hold calls that succeeded
	failed, mismatch atomic.Int64
	lost, refused    atomic.Int64 // of the hold calls
	stopping         atomic.Bool
	running          sync.WaitGroup
	batch, probe     float64 // of the last time and probe operation
	mu               sync.Mutex
	first            error // guarded by mu
}

func (c *process) obey(in io.Reader, out *json.Encoder, first Sample) error {
	if err := out.Encode(first); err != nil {
		return err
	}
	commands := json.NewDecoder(bufio.NewReader(in))
	for {
		var cmd Command
		switch err := commands.Decode(&cmd); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read a command: %w", err)
		}
		if err := c.do(cmd); err != nil {
			return err
		}
		s, err := c.sample()
		if err != nil {
			return err
		}
		if err := out.Encode(s); err != nil {
			return err
		}
	}
}

func (c *process) do(cmd Command) error {
	if c.client == nil && cmd.Op != OpSample && cmd.Op != OpRelease {
		return fmt.Errorf("a server cannot %s", cmd.Op)
	}
	switch cmd.Op {
	case OpSample:
	case OpLoad:
		c.stopping.Store(false)
		for i := range cmd.N {
			c.running.Go(func() { c.loop(int64(i) << 32) })
		}
	case OpStop:
		c.stopping.Store(true)
		c.running.Wait()
	case OpHold:
		c.holdAll(cmd.N)
	case OpProbe:
		ctx, cancel := c.context(30 * time.Second)
		defer cancel()
		call, begin := c.client.Echo(make([]byte, HoldBytes)), time.Now()
		c.count(call(ctx, 1), &c.calls)
		c.probe = float64(time.Since(begin)) / 1e6
	case OpTime:
		c.batch = c.time(cmd.N)
	case OpRelease:
		close(c.svc.released)
	case OpWait:
		c.running.Wait()
	default:
		return fmt.Errorf("unknown operation %q", cmd.Op)
	}
	return nil
}

// context gives the context of a caller. Where the framework is measured with
// deadlines every call of the caller has this one.
func (c *process) context(limit time.Duration) (context.Context, context.CancelFunc) {
	if !c.deadline {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.Background(), limit)
}

// loop calls until it is told to stop or a call fails.
func (c *process) loop(id int64) {
	ctx, cancel := c.context(30 * time.Second)
	defer cancel()
	call := c.client.Echo(make([]byte, EchoBytes))
	for !c.stopping.Load() {
		id++
		err := call(ctx, id)
		for err != nil {
			after, refused := c.client.ComeAgain(err)
			if !refused {
				break
			}
			if c.refused.Add(1); c.stopping.Load() {
				return
			}
			time.Sleep(after)
			err = call(ctx, id)
		}
		if !c.count(err, &c.calls) {
			c.stopping.Store(true)
		}
	}
}

// time gives the median time of a call over n batches, in ns.
func (c *process) time(n int) float64 {
	ctx, cancel := c.context(30 * time.Second)
	defer cancel()
	call := c.client.Echo(make([]byte, EchoBytes))
	nanos := make([]float64, n)
	for i := range nanos {
		begin := time.Now()
		for id := range int64(BatchCalls) {
			if !c.count(call(ctx, id), &c.calls) {
				return 0
			}
		}
		nanos[i] = float64(time.Since(begin)) / BatchCalls
	}
	_, median, _ := figure.Quartiles(nanos)
	return median
}

// holdAll makes n calls that stay, as quickly as their server takes them in: after each
// wave of them comes one that is answered. Even so, who makes ten thousands of calls a
// second overloads a server, and one that is refused comes again when it was told to.
// The data and the context are shared and the goroutine does nothing else: what is
// measured is a blocked call.
func (c *process) holdAll(n int) {
	const wave = 500
	ctx, cancel := c.context(10 * time.Minute)
	data := make([]byte, HoldBytes)
	echo := c.client.Echo(data)
	var left atomic.Int64
	left.Store(int64(n))
	for i := range n {
		if i%wave == wave-1 {
			c.patiently(func() error { return echo(ctx, int64(i)) })
		}
		c.running.Go(func() {
			call := c.client.Hold(data)
			err := call(ctx, int64(i))
			if _, refused := c.client.ComeAgain(err); refused {
				err = c.patiently(func() error { return call(ctx, int64(i)) })
			}
			c.heldBack(err)
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
}

// patiently makes a call until it is not refused.
func (c *process) patiently(call func() error) error {
	for {
		err := call()
		after, refused := c.client.ComeAgain(err)
		if !refused {
			return err
		}
		c.refused.Add(1)
		time.Sleep(after)
	}
}

// heldBack takes what has become of a call that was blocked.
func (c *process) heldBack(err error) {
	switch {
	case err == nil:
		c.answered.Add(1)
	case errors.Is(err, ErrMismatch):
		c.mismatch.Add(1)
	default:
		c.lost.Add(1)
		c.note(err)
	}
}

// count takes a call's result and reports whether it was right.
func (c *process) count(err error, ok *atomic.Int64) bool {
	switch {
	case err == nil:
		ok.Add(1)
		return true
	case errors.Is(err, ErrMismatch):
		c.mismatch.Add(1)
	default:
		c.failed.Add(1)
	}
	c.note(err)
	return false
}

func (c *process) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = err
	}
}

// CPUTime gives the user and system time of this process.
func CPUTime() (time.Duration, error) {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()), nil
}

func (c *process) sample() (Sample, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	cpu, err := CPUTime()
	if err != nil {
		return Sample{}, err
	}
	rss, err := residentBytes()
	if err != nil {
		return Sample{}, err
	}
	s := Sample{
		At:         time.Since(started),
		CPU:        cpu,
		Calls:      c.calls.Load(),
		Held:       c.answered.Load(),
		Mallocs:    mem.Mallocs,
		AllocBytes: mem.TotalAlloc,
		RSS:        rss,
		Stack:      mem.StackInuse,
		Heap:       mem.HeapInuse,
		Failed:     c.failed.Load(),
		Mismatched: c.mismatch.Load(),
		Batch:      c.batch,
		Probe:      c.probe,
		Lost:       c.lost.Load(),
		Refused:    c.refused.Load(),
	}
	if c.client == nil {
		s.Calls, s.Held = c.svc.served.Load(), c.svc.held.Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first != nil {
		s.Error = c.first.Error()
	}
	return s, nil
}

// residentBytes reads the process's resident memory from Linux.
func residentBytes() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("read resident memory, which needs Linux: %w", err)
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0, fmt.Errorf("read resident memory: /proc/self/statm says %q", b)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// Serve runs a server until the process ends; a server that stops earlier takes
// the process, and so the run, with it.
func Serve(run func() error) {
	err := run()
	fmt.Fprintln(os.Stderr, "the server stopped:", err)
	os.Exit(1)
}
