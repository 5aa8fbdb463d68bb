// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-rpc/sluice/app/lockfile"
)

// lockDir makes dir if need be and locks it.
func lockDir(dir string) (*lockfile.Lock, error) {
	if err := makeDir(dir); err != nil {
		return nil, unwritable(dir, err)
	}
	lock, err := lockfile.Take(filepath.Join(dir, lockFile))
	held, ok := errors.AsType[*lockfile.HeldError](err)
	switch {
	case err == nil:
		return lock, nil
	case !ok:
		return nil, unwritable(dir, err)
	case held.PID == os.Getpid():
		return nil, fmt.Errorf("%w: %s, %w; close it first", ErrInUse, dir, held)
	default:
		return nil, fmt.Errorf("%w: %s, %w; stop it or choose another directory", ErrInUse, dir, held)
	}
}
