// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// system registers what Linux says of the process. All of it is read once for each
// snapshot; what cannot be read is zero.
func (r *Registry) system() {
	var now struct { // written by the reader of a snapshot, of which there is one at a time
		usage    unix.Rusage
		status   map[string]uint64
		io       map[string]uint64
		throttle map[string]uint64
		fds      int
		limit    unix.Rlimit
	}
	throttling := cgroupFile("cpu.stat")
	started := seconds(startTime())
	r.BeforeRead(func() {
		now.usage, now.limit = unix.Rusage{}, unix.Rlimit{}
		_ = unix.Getrusage(unix.RUSAGE_SELF, &now.usage)   // shown as zero
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &now.limit) // shown as zero
		now.status = numbers("/proc/self/status", ":")     // sizes in kB
		now.io = numbers("/proc/self/io", ":")             // empty where it is forbidden
		now.throttle = numbers(throttling, " ")            // empty without a CPU quota
		now.fds = countFiles("/proc/self/fd")
	})
	kib := func(key string) func() float64 { return func() float64 { return float64(now.status[key]) * 1024 } }
	of := func(name, value string) Label { return Label{name, value} }

	cpuTime := Desc{"process.cpu.time", "CPU time of the process, as the system accounts for it.", Seconds}
	r.CounterFunc(cpuTime, func() float64 { return time.Duration(now.usage.Utime.Nano()).Seconds() }, of("cpu.mode", "user"))
	r.CounterFunc(cpuTime, func() float64 { return time.Duration(now.usage.Stime.Nano()).Seconds() }, of("cpu.mode", "system"))
	r.CounterFunc(Desc{"process.cpu.throttled", "Time that the control group's CPU quota has held the process back.", Seconds},
		func() float64 { return time.Duration(now.throttle["throttled_usec"] * 1000).Seconds() })
	r.CounterFunc(Desc{"process.cpu.throttled_periods", "Periods in which the control group used up its CPU quota.", "{period}"},
		func() float64 { return float64(now.throttle["nr_throttled"]) })
	r.GaugeFunc(Desc{"process.memory.usage", "Resident memory.", Bytes}, kib("VmRSS"))
	r.GaugeFunc(Desc{"process.memory.usage.highest", "Highest resident memory since the start.", Bytes}, kib("VmHWM"))
	r.GaugeFunc(Desc{"process.memory.virtual", "Virtual memory.", Bytes}, kib("VmSize"))
	r.GaugeFunc(Desc{"process.memory.swapped", "Memory of the process that is swapped out.", Bytes}, kib("VmSwap"))
	r.GaugeFunc(Desc{"process.threads", "Threads of the process.", "{thread}"}, func() float64 { return float64(now.status["Threads"]) })
	r.GaugeFunc(Desc{"process.file_descriptors", "Open file descriptors, sockets included.", "{file_descriptor}"}, func() float64 { return float64(now.fds) })
	r.GaugeFunc(Desc{"process.file_descriptors.limit", "How many file descriptors may be open.", "{file_descriptor}"}, func() float64 { return float64(now.limit.Cur) })
	switches := Desc{"process.context_switches", "Switches to another thread: involuntary ones tell of too little CPU.", "{switch}"}
	r.CounterFunc(switches, func() float64 { return float64(now.usage.Nvcsw) }, of("process.context_switch.type", "voluntary"))
	r.CounterFunc(switches, func() float64 { return float64(now.usage.Nivcsw) }, of("process.context_switch.type", "involuntary"))
	faults := Desc{"process.paging.faults", "Page faults: major ones wait for the disk.", "{fault}"}
	r.CounterFunc(faults, func() float64 { return float64(now.usage.Majflt) }, of("system.paging.fault.type", "major"))
	r.CounterFunc(faults, func() float64 { return float64(now.usage.Minflt) }, of("system.paging.fault.type", "minor"))
	disk := Desc{"process.disk.io", "Bytes read from and written to storage.", Bytes}
	r.CounterFunc(disk, func() float64 { return float64(now.io["read_bytes"]) }, of("disk.io.direction", "read"))
	r.CounterFunc(disk, func() float64 { return float64(now.io["write_bytes"]) }, of("disk.io.direction", "write"))
	r.GaugeFunc(Desc{"process.start_time", "When the process started, since 1970.", Seconds}, func() float64 { return started })
}

// cgroupFile gives the path of a file of the process's own control group (version 2).
func cgroupFile(name string) string {
	b, _ := os.ReadFile("/proc/self/cgroup") // without one there is nothing to show
	for line := range bytes.Lines(b) {
		if path, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::")); ok {
			return "/sys/fs/cgroup" + string(path) + "/" + name
		}
	}
	return ""
}

// numbers reads a file of names and whole numbers, one pair a line; what follows the
// number is not read.
func numbers(path, separator string) map[string]uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	out := map[string]uint64{}
	for line := range bytes.Lines(b) {
		key, rest, _ := bytes.Cut(line, []byte(separator))
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseUint(string(fields[0]), 10, 64); err == nil {
			out[string(key)] = n
		}
	}
	return out
}

func countFiles(dir string) int {
	d, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return len(names) - 1 // one is the directory itself
}

// startTime is when the process started: the time it has run for, as the system
// counts it from boot, before now.
func startTime() time.Time {
	now := time.Now()
	const ticksPerSecond = 100 // USER_HZ, which Linux has fixed for programs
	var boot unix.Timespec
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return now
	}
	// The fields follow the command, which stands in brackets and may hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const starttime = 22 - 3 // proc(5) numbers it 22, and the first of these 3
	if len(fields) <= starttime {
		return now
	}
	ticks, err := strconv.ParseInt(string(fields[starttime]), 10, 64)
	if err != nil {
		return now
	}
	ran := time.Duration(boot.Nano()) - time.Duration(ticks)*(time.Second/ticksPerSecond)
	return now.Add(-ran)
}
