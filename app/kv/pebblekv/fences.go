// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"bytes"

	"github.com/sluice-rpc/sluice/app/kv"
)

// fences knows the versions of the few rows of a slot that batches lately had a condition
// on and wrote, such as the end of a log: the next batch has a condition on them again,
// and need not ask the engine. It is read and changed by the holder of the slot's lock
// only, after each write that the engine shows, so it is exact.
type fences struct {
	rows []fence
	next int // the one to be replaced
}

type fence struct {
	key []byte
	ver uint64
}

// maxFences bounds the rows of a slot.
const maxFences = 4

// version gives the version of a key if it is known.
func (f *fences) version(key []byte) (uint64, bool) {
	for i := range f.rows {
		if bytes.Equal(f.rows[i].key, key) {
			return f.rows[i].ver, true
		}
	}
	return 0, false
}

// put says that a key has been written, and reports whether it is one that is known.
func (f *fences) put(key []byte, ver uint64) bool {
	for i := range f.rows {
		if bytes.Equal(f.rows[i].key, key) {
			f.rows[i].ver = ver
			return true
		}
	}
	return false
}

// written says that a batch has been.
func (f *fences) written(b *kv.Batch, ver uint64) {
	for _, w := range b.Writes() {
		switch {
		case w.Kind != kv.PutKey:
			f.clear() // rare, and it may have been any of them
		case f.put(w.Key, ver):
		case conditional(b, w.Key):
			f.keep(w.Key, ver)
		}
	}
}

func conditional(b *kv.Batch, key []byte) bool {
	for _, c := range b.Conds() {
		if bytes.Equal(c.Key, key) {
			return c.Ver != 0 // what was absent is written once
		}
	}
	return false
}

func (f *fences) keep(key []byte, ver uint64) {
	kept := fence{key: bytes.Clone(key), ver: ver}
	if len(f.rows) < maxFences {
		f.rows = append(f.rows, kept)
		return
	}
	f.rows[f.next] = kept
	f.next = (f.next + 1) % maxFences
}

func (f *fences) clear() { *f = fences{} }
