// SPDX-License-Identifier: Apache-2.0

package pebblekv

import "github.com/cockroachdb/pebble/v2/vfs"

// Memory is a disk in memory, which syncs at once: for tests that are not about the disk.
type Memory = vfs.MemFS

// NewMemory makes an empty one.
func NewMemory() *Memory { return vfs.NewMem() }

// On has the engine keep its files on a disk in memory.
func (o Options) On(disk *Memory) Options {
	o.fs, o.ReserveBytes = disk, -1
	return o
}
