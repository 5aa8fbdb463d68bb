// SPDX-License-Identifier: Apache-2.0

package main

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

// A command is one line of JSON that a child process is sent.
type command struct {
	Op string
	N  int `json:",omitempty"` // callers of load, calls of hold
}

// The operations. A child answers each with one sample.
const (
	opSample  = "sample"  // counters as they are
	opLoad    = "load"    // client: start N callers in a closed loop
	opStop    = "stop"    // client: stop them, wait for them
	opHold    = "hold"    // client: make N calls at once that the server blocks
	opProbe   = "probe"   // client: make one echo call
	opRelease = "release" // server: let all blocked calls go
	opWait    = "wait"    // client: wait for all blocked calls
	opTime    = "time"    // client: one caller times N batches of batchCalls echo calls
)

// batchCalls is short enough that most batches of local calls see no other process
// take the core away.
const batchCalls = 100

// A sample is what a process says of itself at one moment. Counters only grow.
type sample struct {
	Addr       string        `json:",omitempty"` // of a server, in its first sample
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
	Error      string  `json:",omitempty"` // the first failure
}

var started = time.Now()

func childMain(args []string) int {
	if err := child(args); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n", args, err)
		return 1
	}
	return 0
}

// child is a server ("server NAME"), a client ("client NAME ADDR") or both in one
// ("local NAME"). It ends when its standard input does, so that it never outlives
// the run.
func child(args []string) error {
	if len(args) < 2 {
		return errors.New("want a role and a framework")
	}
	p, err := peerNamed(args[1])
	if err != nil {
		return err
	}
	c := &process{svc: newService(), deadline: p.deadline}
	var first sample
	switch {
	case args[0] == "server":
		if first.Addr, err = p.serve(c.svc); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	case args[0] == "client" && len(args) == 3:
		c.client, err = p.dial(args[2])
	case args[0] == "local" && p.local != nil:
		c.client, err = p.local(c.svc)
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
	svc      *service
	client   client // nil in a server
	deadline bool

	calls, answered  atomic.Int64 // echo and hold calls that succeeded
	failed, mismatch atomic.Int64
	stopping         atomic.Bool
	running          sync.WaitGroup
	batch            float64 // of the last time operation
	mu               sync.Mutex
	first            error // guarded by mu
}

func (c *process) obey(in io.Reader, out *json.Encoder, first sample) error {
	if err := out.Encode(first); err != nil {
		return err
	}
	commands := json.NewDecoder(bufio.NewReader(in))
	for {
		var cmd command
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

func (c *process) do(cmd command) error {
	if c.client == nil && cmd.Op != opSample && cmd.Op != opRelease {
		return fmt.Errorf("a server cannot %s", cmd.Op)
	}
	switch cmd.Op {
	case opSample:
	case opLoad:
		c.stopping.Store(false)
		for i := range cmd.N {
			c.running.Go(func() { c.loop(int64(i) << 32) })
		}
	case opStop:
		c.stopping.Store(true)
		c.running.Wait()
	case opHold:
		c.holdAll(cmd.N)
	case opProbe:
		ctx, cancel := c.context(30 * time.Second)
		defer cancel()
		c.count(c.client.echo(make([]byte, holdBytes))(ctx, 1), &c.calls)
	case opTime:
		c.batch = c.time(cmd.N)
	case opRelease:
		close(c.svc.released)
	case opWait:
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
	call := c.client.echo(make([]byte, echoBytes))
	for !c.stopping.Load() {
		id++
		if !c.count(call(ctx, id), &c.calls) {
			c.stopping.Store(true)
		}
	}
}

// time gives the median time of a call over n batches, in ns.
func (c *process) time(n int) float64 {
	ctx, cancel := c.context(30 * time.Second)
	defer cancel()
	call := c.client.echo(make([]byte, echoBytes))
	nanos := make([]float64, n)
	for i := range nanos {
		begin := time.Now()
		for id := range int64(batchCalls) {
			if !c.count(call(ctx, id), &c.calls) {
				return 0
			}
		}
		nanos[i] = float64(time.Since(begin)) / batchCalls
	}
	_, median, _ := figure.Quartiles(nanos)
	return median
}

// holdAll makes n calls at once. The data and the context are shared and the
// goroutine does nothing else: what is measured is a blocked call.
func (c *process) holdAll(n int) {
	ctx, cancel := c.context(10 * time.Minute)
	data := make([]byte, holdBytes)
	var left atomic.Int64
	left.Store(int64(n))
	for i := range n {
		c.running.Go(func() {
			c.count(c.client.hold(data)(ctx, int64(i)), &c.answered)
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
}

// count takes a call's result and reports whether it was right.
func (c *process) count(err error, ok *atomic.Int64) bool {
	switch {
	case err == nil:
		ok.Add(1)
		return true
	case errors.Is(err, errMismatch):
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

// cpuTime gives the user and system time of this process.
func cpuTime() (time.Duration, error) {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()), nil
}

func (c *process) sample() (sample, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	cpu, err := cpuTime()
	if err != nil {
		return sample{}, err
	}
	rss, err := residentBytes()
	if err != nil {
		return sample{}, err
	}
	s := sample{
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

// serve runs a server until the process ends; a server that stops earlier takes
// the process, and so the run, with it.
func serve(run func() error) {
	err := run()
	fmt.Fprintln(os.Stderr, "the server stopped:", err)
	os.Exit(1)
}
