// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// cpuGroups is where the kernel's CPU controller is mounted, in its first version.
const cpuGroups = "/sys/fs/cgroup/cpu"

// quotaPeriod is the period of a quota, in µs: what container runtimes set.
const quotaPeriod = 100_000

// group is the directory of a control group with a quota of CPU time; "" is none.
type group string

// newGroup makes a group whose processes get so many cores' time in each period, and
// stand still when they have used it up.
func newGroup(cores float64) (group, error) {
	if _, err := os.Stat(filepath.Join(cpuGroups, "tasks")); err != nil {
		return "", fmt.Errorf("a quota wants the CPU controller of control groups v1 at %s: %w", cpuGroups, err)
	}
	dir, err := os.MkdirTemp(cpuGroups, "overload-")
	if err != nil {
		return "", fmt.Errorf("make a control group (as root): %w", err)
	}
	g := group(dir)
	if err := g.set("cpu.cfs_period_us", quotaPeriod); err != nil {
		return "", err
	}
	return g, g.set("cpu.cfs_quota_us", int(cores*quotaPeriod))
}

func (g group) set(file string, value int) error {
	return os.WriteFile(filepath.Join(string(g), file), strconv.AppendInt(nil, int64(value), 10), 0)
}

// enter takes the calling thread into the group: what it starts is born there.
func (g group) enter() error {
	if g == "" {
		return nil
	}
	return g.set("tasks", unix.Gettid())
}

// leave takes it out again.
func (g group) leave() error {
	if g == "" {
		return nil
	}
	return group(cpuGroups).set("tasks", unix.Gettid())
}

// remove removes the group, whose processes have ended.
func (g group) remove() error {
	if g == "" {
		return nil
	}
	return os.Remove(string(g))
}
