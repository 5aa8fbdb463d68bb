// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS has every log written over bytes that are in the file already.
//
// A sync of an appended log must store the new size of the file as well, although
// Pebble allocates its blocks ahead: a second write, which on a busy machine also
// waits until the kernel's own writeback lets go of the file, or for the journal of
// the file system and so for what other programs wrote. A sync of bytes written over
// stores these bytes alone. Pebble has that only where it recycles logs, which begins
// after minutes of work; what it reads behind the last record of a log may be zeros
// as well as what a recycled log had there.
type logFS struct{ vfs.FS }

// Unwrap implements vfs.FS.
func (l logFS) Unwrap() vfs.FS { return l.FS }

// Create implements vfs.FS.
func (l logFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, category)
	if err != nil || !isLog(name) {
		return f, err
	}
	return &logFile{File: f}, nil
}

// ReuseForWrite implements vfs.FS.
func (l logFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(oldname, newname, category)
	if err != nil || !isLog(newname) {
		return f, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return &logFile{File: f, size: info.Size()}, nil
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// A log grows by as much as it has, within these: small stores stay small, and of a
// hundred syncs of a busy one far less than one stores a size.
const minGrowth, maxGrowth = 1 << 20, 4 << 20

var zeros [256 << 10]byte

// logFile is written by one goroutine, front to back.
type logFile struct {
	vfs.File
	at   int64 // of the next Write
	size int64 // of the file
}

// Write implements vfs.File.
func (f *logFile) Write(p []byte) (int, error) {
	if end := f.at + int64(len(p)); end > f.size {
		f.grow(end + min(max(f.size, minGrowth), maxGrowth))
	}
	n, err := f.File.Write(p)
	f.at += int64(n)
	f.size = max(f.size, f.at)
	return n, err
}

// grow writes zeros up to size, as far as it can: if the disk is full, Write says so
// when it has to.
func (f *logFile) grow(size int64) {
	for f.size < size {
		n, err := f.File.WriteAt(zeros[:min(int64(len(zeros)), size-f.size)], f.size)
		f.size += int64(n)
		if err != nil {
			return
		}
	}
}
