// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/sluice-rpc/sluice/app/kv"
)

// spaceStep is how many bytes are written between two looks at the disk. A look is a
// system call; compaction can triple a byte, and the reserve is far larger.
const spaceStep = 4 << 20

// space refuses writes before the disk is full, because Pebble cannot go on after a
// failed write. Deletes pass until half of the reserve is gone.
type space struct {
	fs      vfs.FS
	reserve uint64
	left    atomic.Int64 // bytes until the next look
}

func (s *space) take(dir string, size int, deletes bool) error {
	if s.reserve == 0 || s.left.Add(-int64(size)) > 0 {
		return nil
	}
	usage, err := s.fs.GetDiskUsage(dir)
	if err != nil {
		return fmt.Errorf("%w: ask for the free space of %s: %w", kv.ErrUnavailable, dir, err)
	}
	need := s.reserve
	if deletes {
		need /= 2
	}
	if usage.AvailBytes < need {
		// left stays below zero, so that every write looks until there is room again.
		return fmt.Errorf("%w: the disk of %s has %d MiB left, %d MiB are kept free; make room", kv.ErrQuota, dir, usage.AvailBytes>>20, need>>20)
	}
	if usage.AvailBytes >= s.reserve {
		s.left.Store(spaceStep)
	}
	return nil
}
