// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// What Open finds wrong with a directory.
var (
	// ErrForeign: the directory is not empty and not a store of this driver.
	ErrForeign = errors.New("pebblekv: not a store")
	// ErrNewer: a newer program wrote the store.
	ErrNewer = errors.New("pebblekv: store is of a newer format")
	// ErrInUse: another Store has the directory open.
	ErrInUse = errors.New("pebblekv: store is in use")
)

// The files of a store. A directory with FORMAT is a store; one with FORMAT.new and
// no FORMAT is a store that was never finished, in which nothing was ever stored.
const (
	formatFile    = "FORMAT"
	newFormatFile = "FORMAT.new"
	lockFile      = "LOCK"
	engineDir     = "db"
)

const formatWords = "sluice-kv pebble %d\n"

// formatTable knows the formats: steps[n] turns format n into n+1. A step may be
// interrupted and run again.
type formatTable struct {
	current int
	steps   map[int]func(*pebble.DB) error
}

// formats is the history of the layout. Format 1: stored keys and values as the
// package says.
var formats = formatTable{current: 1}

// inspect gives the format of the store in dir, 0 if there is none and one can be
// made. It changes nothing.
func inspect(dir string, known formatTable) (format int, err error) {
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, inspectFresh(dir)
	case err != nil:
		return 0, fmt.Errorf("store directory %s: %w", dir, err)
	}
	if _, err := fmt.Sscanf(string(text), formatWords, &format); err != nil || format < 1 || string(text) != fmt.Sprintf(formatWords, format) {
		return 0, fmt.Errorf("%w: %s in %s says %q; choose another directory", ErrForeign, formatFile, dir, clip(text))
	}
	if format > known.current {
		return 0, fmt.Errorf("%w: %s has format %d and this program knows up to %d; use the program that wrote it", ErrNewer, dir, format, known.current)
	}
	return format, nil
}

func clip(text []byte) string { return string(text[:min(len(text), 40)]) }

// inspectFresh says whether a store can be made in dir.
func inspectFresh(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store directory %s: %w", dir, err)
	}
	unfinished := false
	for _, e := range entries {
		unfinished = unfinished || e.Name() == newFormatFile
	}
	for _, e := range entries {
		ours := e.Name() == lockFile || e.Name() == newFormatFile || e.Name() == engineDir && unfinished
		if !ours {
			return fmt.Errorf("%w: %s holds other files, such as %s; choose an empty or a new directory", ErrForeign, dir, e.Name())
		}
	}
	return nil
}

// prepare makes dir ready for a new engine, clearing what an interrupted one left.
func prepare(dir string, format int) error {
	if err := writeSynced(filepath.Join(dir, newFormatFile), fmt.Sprintf(formatWords, format)); err != nil {
		return unwritable(dir, err)
	}
	if err := syncDir(dir); err != nil {
		return unwritable(dir, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, engineDir)); err != nil {
		return unwritable(dir, err)
	}
	return nil
}

// stamp writes the format of dir in one step.
func stamp(dir string, format int) error {
	next := filepath.Join(dir, newFormatFile)
	if err := writeSynced(next, fmt.Sprintf(formatWords, format)); err != nil {
		return unwritable(dir, err)
	}
	if err := os.Rename(next, filepath.Join(dir, formatFile)); err != nil {
		return unwritable(dir, err)
	}
	if err := syncDir(dir); err != nil {
		return unwritable(dir, err)
	}
	return nil
}

// upgrade brings a store to the current format, with a copy of the old one set aside
// first. Interrupted, it starts over from the same copy.
func (t formatTable) upgrade(dir string, db *pebble.DB, format int) error {
	if format == 0 || format == t.current {
		return nil
	}
	aside := filepath.Join(dir, fmt.Sprintf("before-format-%d", t.current))
	if err := checkpoint(db, aside, format); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("set a copy of %s aside before its upgrade: %w", dir, err)
	}
	for f := format; f < t.current; f++ {
		step := t.steps[f]
		if step == nil {
			return fmt.Errorf("store directory %s: no way from format %d to %d", dir, f, f+1)
		}
		if err := step(db); err != nil {
			return fmt.Errorf("upgrade %s from format %d to %d: %w; the old store is in %s", dir, f, f+1, err, aside)
		}
	}
	// A step need not sync: the stamp is written after this.
	if err := db.LogData(nil, pebble.Sync); err != nil {
		return fmt.Errorf("upgrade %s: %w", dir, err)
	}
	return nil
}

func writeSynced(name, text string) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := strings.NewReader(text).WriteTo(f); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes the names in dir durable.
func syncDir(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}

// makeDir makes dir and its parents durably.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	parent := filepath.Dir(dir)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}
