// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// halves splits the processors that this program may use: the servers get the first half, the generator the rest.
func halves() (servers, generator []int, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, nil, fmt.Errorf("asking which processors may be used: %w", err)
	}
	var cpus []int
	for i := range len(all) * 64 {
		if all.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < 2 {
		return nil, nil, errors.New("one processor alone: servers and generator cannot be kept apart, two are needed")
	}
	return cpus[:len(cpus)/2], cpus[len(cpus)/2:], nil
}

func setOf(cpus []int) *unix.CPUSet {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return &set
}

// pinSelf keeps this program to some processors: every thread that there is, and so all that they make.
func pinSelf(cpus []int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, setOf(cpus)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("keeping thread %d to processors %v: %w", tid, cpus, err)
		}
	}
	runtime.GOMAXPROCS(len(cpus))
	return nil
}

// pinned calls do, which starts processes, so that they and all that they start are kept to some processors.
func pinned(cpus []int, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, setOf(cpus)); err != nil {
		return fmt.Errorf("keeping the servers to processors %v: %w", cpus, err)
	}
	return errors.Join(do(), unix.SchedSetaffinity(0, &before))
}

// cpuOfSelf returns the CPU time of this program alone.
func cpuOfSelf() time.Duration {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// cpusOf returns the processors that a process may use.
func cpusOf(pid int) ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		return nil, err
	}
	var cpus []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return slices.Clip(cpus), nil
}
