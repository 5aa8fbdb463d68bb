// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const stopTimeout = 30 * time.Second

// process is a server that this program started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it has ended
	err  error         // how; read after done
}

// start runs a command that dies with this program at the latest.
func start(name, path string, args ...string) (*process, error) {
	p := &process{name: name, log: &tail{}, done: make(chan struct{})}
	p.cmd = exec.Command(path, args...) //nolint:noctx // ended in order by stop, not killed with a context
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	// In a session of its own, or a Ctrl-C at the terminal would end the servers under the running measurement, and the kernel would
	// give them one share of the processors together with the generator (autogroup, sched(7)).
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { // stop waits for it
		if p.err = p.cmd.Wait(); p.err == nil {
			p.err = errors.New("exit status 0")
		}
		close(p.done)
	}()
	return p, nil
}

// exited returns an error with the process's last words if it has ended.
func (p *process) exited() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %w; its last output:\n%s", p.name, p.err, p.log)
	default:
		return nil
	}
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

const tailBytes = 4 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// clockTick is the unit of the CPU times in /proc/PID/stat: 100 a second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuOf returns user plus system time of the processes and all their descendants, ended and waited-for ones included.
func cpuOf(roots []int) (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	type info struct {
		parent int
		ticks  int64
	}
	all := make(map[int]info)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it ended while we looked: its parent has its time
		}
		parent, ticks, err := parseStat(stat)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		all[pid] = info{parent, ticks}
	}
	wanted := make(map[int]bool, len(roots))
	for _, pid := range roots {
		if _, ok := all[pid]; !ok {
			return 0, fmt.Errorf("server process %d has ended", pid)
		}
		wanted[pid] = true
	}
	var sum int64
	for pid, p := range all {
		for at, hops := pid, 0; at > 1 && hops < 64; at, hops = all[at].parent, hops+1 {
			if wanted[at] {
				sum += p.ticks
				break
			}
		}
	}
	return time.Duration(sum) * clockTick, nil
}

// parseStat reads the parent and the CPU ticks, own and of waited-for children, from a line of /proc/PID/stat (proc(5)).
func parseStat(line []byte) (parent int, ticks int64, err error) {
	// The second field is the command in parentheses and may hold anything, so count from its end.
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return 0, 0, errors.New("no command name")
	}
	fields := bytes.Fields(line[end+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("%d fields after the command name, want 15 or more", len(fields))
	}
	if parent, err = strconv.Atoi(string(fields[1])); err != nil {
		return 0, 0, err
	}
	for _, f := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	return parent, ticks, nil
}

// cpuOfOne returns user plus system time of one process, without its children.
func cpuOfOne(pid int) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	_, ticks, err := parseStat(stat)
	return time.Duration(ticks) * clockTick, err
}

// residentOf returns the bytes of memory that a process has, 0 if there is none.
func residentOf(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}

// starvedOf returns how long the threads of a process have been ready to run and did not, for want of a processor; 0 if there is none.
func starvedOf(pid int) time.Duration {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, t := range threads {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + t.Name() + "/schedstat")
		if err != nil {
			continue
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(b), &ran, &waited); err == nil {
			sum += time.Duration(waited)
		}
	}
	return sum
}
