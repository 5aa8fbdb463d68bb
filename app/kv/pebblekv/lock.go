// SPDX-License-Identifier: Apache-2.0

//go:build unix

package pebblekv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dirLock is a lock of the operating system, so that a killed process leaves none.
// It is flock's and not fcntl's: two opens within one process exclude each other too.
type dirLock struct{ file *os.File }

// lockDir makes dir if need be and locks it.
func lockDir(dir string) (*dirLock, error) {
	if err := makeDir(dir); err != nil {
		return nil, unwritable(dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, inUse(dir, f)
		}
		return nil, fmt.Errorf("lock store directory %s: %w", dir, err)
	}
	// For whoever finds the door locked; the lock itself does not depend on it.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(unwritable(dir, err), f.Close())
	}
	return &dirLock{file: f}, nil
}

func inUse(dir string, f *os.File) error {
	var text [32]byte
	n, _ := f.ReadAt(text[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s, by another process; stop it or choose another directory", ErrInUse, dir)
	case pid == os.Getpid():
		return fmt.Errorf("%w: %s, by this process itself; close it first", ErrInUse, dir)
	default:
		return fmt.Errorf("%w: %s, by process %d; stop it or choose another directory", ErrInUse, dir, pid)
	}
}

func (l *dirLock) release() error { return l.file.Close() }
