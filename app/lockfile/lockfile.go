// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Package lockfile keeps a directory to one process at a time, by a lock of the
// operating system on a file in it: a killed process leaves none.
package lockfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A killed process keeps its lock until the kernel has taken it down, which takes
// milliseconds, more with much memory. Who starts the next one must not trip over it.
const (
	patience = 2 * time.Second
	interval = 5 * time.Millisecond
)

// Lock is a lock that is held.
type Lock struct{ file *os.File }

// HeldError says that somebody else holds the lock.
type HeldError struct {
	PID int // of the holder, 0 if it did not tell
}

// Error implements error.
func (e *HeldError) Error() string {
	switch e.PID {
	case 0:
		return "another process has it"
	case os.Getpid():
		return "this process has it itself"
	}
	return fmt.Sprintf("process %d has it", e.PID)
}

// Take locks the file at path, which it makes if need be, until Release or the end of
// the process. It fails with a *HeldError if the file is locked: at once if the holder
// lives, after two seconds if the holder is dead or dying and the lock remains.
//
// The lock is flock's and not fcntl's: two takers within one process exclude each
// other too.
func Take(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// For whoever finds the door locked; the lock itself does not depend on it.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{file: f}, nil
}

// Release gives the lock back. The file stays.
func (l *Lock) Release() error { return l.file.Close() }

func lock(f *os.File) error {
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for alive := 0; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return os.NewSyscallError("flock", err)
		}
		pid := holder(f)
		if pid == 0 || pid == os.Getpid() {
			return &HeldError{PID: pid}
		}
		// Twice: on its way from the signal to the exit a process looks alive for a moment.
		if !dying(pid) {
			alive++
		}
		if alive == 2 {
			return &HeldError{PID: pid}
		}
		select {
		case <-tick.C:
		case <-end.C:
			return &HeldError{PID: pid}
		}
	}
}

// holder reads who has the lock, 0 if nobody told.
func holder(f *os.File) int {
	var text [32]byte
	n, _ := f.ReadAt(text[:], 0) // what it could not read does not parse
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// dying reports whether a process is gone, was killed, or is on its way out. Where
// there is no /proc it knows only who is gone.
func dying(pid int) bool {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return true
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if stat, err := os.ReadFile(filepath.Join(proc, "stat")); err == nil {
		// proc_pid_stat(5): state is the first field after the name in brackets, flags
		// the seventh.
		_, after, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(after); len(f) > 6 {
			const exiting = 0x4 // PF_EXITING of linux/sched.h
			flags, _ := strconv.ParseUint(f[6], 10, 64)
			if f[0] == "Z" || f[0] == "X" || flags&exiting != 0 {
				return true
			}
		}
	}
	status, _ := os.ReadFile(filepath.Join(proc, "status"))
	for line := range strings.Lines(string(status)) {
		name, set, _ := strings.Cut(line, ":")
		if name == "SigPnd" || name == "ShdPnd" {
			pending, _ := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			if pending&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return false
}
