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
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childArg as the first argument makes the program a process of a run.
const childArg = "child"

// An order is one line of JSON that a child is sent; it answers with one report.
type order struct {
	Op      string
	Cell    cell     `json:",omitzero"` // of play and saturate
	Addrs   []string `json:",omitempty"`
	Tasks   int      `json:",omitempty"` // server: of how many to report
	Callers int      `json:",omitempty"` // of saturate and flood
	Seconds float64  `json:",omitempty"` // of saturate
	Bytes   int      `json:",omitempty"` // of frame: how much the echo carries
	Frame   []byte   `json:",omitempty"` // of flood
}

// The operations.
const (
	opSample   = "sample"   // any: counters as they are
	opPlay     = "play"     // generator: the tasks of a cell
	opSaturate = "saturate" // generator: a closed loop
	opFrame    = "frame"    // generator: what a client writes for an echo, see frameOf
	opFlood    = "flood"    // generator: start sending a frame again and again
	opStop     = "stop"     // generator: end that
)

// A report is what a child answers. Counters only grow.
type report struct {
	Addr    string        `json:",omitempty"` // of a server, in its first report
	At      time.Duration // on the process's own monotonic clock
	CPU     time.Duration // user + system
	Mallocs uint64
	Bytes   uint64 // allocated
	Ran     int64  // server: handlers begun; generator: answers of a flood
	Refused int64  // generator: refusals of a flood
	Done    []byte // server: by task
	Outcome outcome
	Rate    float64 // of saturate: calls/s
	Frame   []byte
	Value   float64 // of a calibration, or a time in ns
	Error   string  `json:",omitempty"`
}

var started = time.Now()

// sample fills in what is known of every process.
func sample() (report, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return report{}, fmt.Errorf("getrusage: %w", err)
	}
	return report{
		At: time.Since(started), CPU: time.Duration(use.Utime.Nano() + use.Stime.Nano()),
		Mallocs: mem.Mallocs, Bytes: mem.TotalAlloc,
	}, nil
}

// obey answers orders until the input ends, so that a child never outlives the run.
// The first report says that the child is ready.
func obey(first report, do func(order) (report, error)) error {
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(first); err != nil {
		return err
	}
	orders := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o order
		switch err := orders.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read an order: %w", err)
		}
		r, err := do(o)
		if err != nil {
			r = report{Error: err.Error()}
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

// A proc is a child process as the run sees it.
type proc struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr *bytes.Buffer
	first  report
	group  group
}

// start runs this very program as a child on some cores and waits until it is ready.
func start(ctx context.Context, cores []int, args ...string) (*proc, error) {
	return startLimited(ctx, cores, 0, args...)
}

// startLimited starts one that may use so many cores' time on them, unless that is 0.
func startLimited(ctx context.Context, cores []int, quota float64, args ...string) (*proc, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &proc{
		name:   fmt.Sprint(args),
		cmd:    exec.CommandContext(ctx, exe, append([]string{childArg}, args...)...),
		stderr: new(bytes.Buffer),
	}
	p.cmd.WaitDelay = 10 * time.Second // one that does not end when its input does is killed
	p.cmd.Stderr = p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(bufio.NewReader(out))
	if quota > 0 {
		if p.group, err = newGroup(quota); err != nil {
			return nil, err
		}
	}
	if err := startOn(p.cmd, cores, p.group); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", p.name, err), p.group.remove())
	}
	if p.first, err = p.answer(); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// startOn starts a command on some cores: it has them before its first instruction,
// so that its GOMAXPROCS is their number, or follows its group's quota.
func startOn(cmd *exec.Cmd, cores []int, g group) error {
	runtime.LockOSThread() // a child has the cores of the thread that starts it
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("read the cores of this process: %w", err)
	}
	var some unix.CPUSet
	for _, c := range cores {
		some.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &some); err != nil {
		return fmt.Errorf("take cores %v: %w", cores, err)
	}
	err := g.enter()
	if err == nil {
		err = cmd.Start()
		err = errors.Join(err, g.leave())
	}
	if back := unix.SchedSetaffinity(0, &all); back != nil {
		return errors.Join(err, fmt.Errorf("give the cores back: %w", back))
	}
	return err
}

// halves splits the cores of this process between server and generator. A single one
// is both's.
func halves() (server, generator []int, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, nil, fmt.Errorf("read the cores of this process: %w", err)
	}
	var cores []int
	for i := range len(all) * 64 {
		if all.IsSet(i) {
			cores = append(cores, i)
		}
	}
	if len(cores) == 1 {
		return cores, cores, nil
	}
	return cores[:len(cores)/2], cores[len(cores)/2:], nil
}

// send gives the child an order; answer must follow.
func (p *proc) send(o order) error {
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return fmt.Errorf("%s: %s: %w", p.name, o.Op, err)
	}
	return nil
}

// answer waits for the report to an order.
func (p *proc) answer() (report, error) {
	var r report
	if err := p.out.Decode(&r); err != nil {
		return r, fmt.Errorf("%s gave no answer: %w", p.name, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s: %s", p.name, r.Error)
	}
	return r, nil
}

func (p *proc) do(o order) (report, error) {
	if err := p.send(o); err != nil {
		return report{}, err
	}
	return p.answer()
}

// stop ends the child by closing its input and waits for it.
func (p *proc) stop() error {
	_ = p.in.Close()
	kill := time.AfterFunc(p.cmd.WaitDelay, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		b := p.stderr.Bytes()
		return errors.Join(fmt.Errorf("%s ended with %w; it wrote:\n%s", p.name, err, b[max(0, len(b)-2000):]), p.group.remove())
	}
	return p.group.remove()
}

// stopAll stops children, the last one first.
func stopAll(ps ...*proc) error {
	var err error
	for i := len(ps) - 1; i >= 0; i-- {
		if ps[i] != nil {
			err = errors.Join(err, ps[i].stop())
		}
	}
	return err
}
