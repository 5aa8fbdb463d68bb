// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"math"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/topology"
)

// room is how much the services of a process may keep in memory. A page costs several
// times as much as one whose rows are all kept, so what is kept grows with the machine.
// All is taken as it is needed: if everything is full, an eighth of the memory for blocks
// and some twentieth of it for the rest, which is on the heap.
type room struct {
	blocks  int64 // bytes of stored blocks that the stores of this process share
	rows    map[topology.Role]int64
	scans   map[topology.Role]int64
	friends int    // friendships of the account service, and of the timeline service
	facts   int    // how people stand to each other, of the post and of the comment service
	posts   int    // bytes of posts, parsed
	table   uint64 // bytes of each store's recent writes
}

const (
	mib = 1 << 20

	// ample is the memory from which there is room for the least that keeps a Moments quick.
	// With less, as in a small container, that is less too, down to an eighth of it.
	ample = 2 << 30
)

// roomIn gives the room that some roles have in a machine with so many bytes of memory.
func roomIn(memory int64, roles []topology.Role) room {
	least := func(n int64) int64 { return n * min(max(memory, ample/8), ample) / ample }
	m := room{
		// Single rows are kept of what a page reads again and again: sessions, versions of
		// friendships, posts, heads of comment threads, most of them absent, and where trimmed
		// timelines end. A timeline is read by scans of its newest page, and one that ends there
		// with the own posts.
		rows: map[topology.Role]int64{
			topology.Account:  max(least(32*mib), memory/256),
			topology.Post:     max(least(64*mib), memory/256),
			topology.Comment:  max(least(32*mib), memory/512),
			topology.Timeline: max(least(8*mib), memory/1024),
		},
		scans: map[topology.Role]int64{
			topology.Timeline: max(least(64*mib), memory/64),
			topology.Post:     max(least(16*mib), memory/256),
		},
		friends: int(max(least(1_000_000), memory/4096)),
		facts:   int(max(least(500_000), memory/8192)),
		posts:   int(max(least(32*mib), memory/128)),
		table:   uint64(least(32 * mib)),
	}
	for _, r := range roles {
		switch r {
		case topology.Account, topology.Post, topology.Timeline:
			m.blocks += max(least(64*mib), memory/32)
		case topology.Comment:
			m.blocks += max(least(32*mib), memory/64)
		case topology.Notify, topology.Media:
			m.blocks += max(least(32*mib), memory/128)
		case topology.Gateway, topology.Edge:
		}
	}
	return m
}

// store gives the memory of a role's store, but for its blocks.
func (m room) store(r topology.Role) pebblekv.Options {
	return pebblekv.Options{RowCacheBytes: m.rows[r], ScanCacheBytes: m.scans[r], MemTableBytes: m.table}
}

// Memory gives the bytes of memory that a process may plan with, of which its caches take
// a part: those of the machine, of its control group (version 2) if that has a limit, or
// of GOMEMLIMIT. It is 2 GiB if none of them is known.
func Memory() int64 {
	memory := int64(math.MaxInt64)
	if os.Getenv("GOMEMLIMIT") != "" { // else the limit may be one that was made of this
		memory = debug.SetMemoryLimit(-1)
	}
	if kib, ok := memTotal("/proc/meminfo"); ok {
		memory = min(memory, kib<<10)
	}
	group, _ := os.ReadFile("/proc/self/cgroup") // absent elsewhere
	for line := range bytes.Lines(group) {
		if path, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::")); ok {
			text, err := os.ReadFile("/sys/fs/cgroup" + string(path) + "/memory.max")
			if err != nil {
				continue // the root has none
			}
			if limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil { // not "max"
				memory = min(memory, limit)
			}
		}
	}
	if memory == math.MaxInt64 {
		return 2 << 30
	}
	return memory
}

// memTotal reads the machine's memory in KiB.
func memTotal(path string) (kib int64, ok bool) {
	text, _ := os.ReadFile(path) // absent elsewhere
	for line := range bytes.Lines(text) {
		if rest, found := bytes.CutPrefix(line, []byte("MemTotal:")); found {
			fields := bytes.Fields(rest)
			if len(fields) == 0 {
				return 0, false
			}
			kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
			return kib, err == nil
		}
	}
	return 0, false
}
