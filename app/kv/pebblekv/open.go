// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
)

// versionsKey keeps the epoch of the versions. No slot has this number.
var versionsKey = []byte("\xff\xffversions")

// Open opens the store in dir, making it if dir is absent or empty. It fails, and
// changes nothing, with ErrInUse while another Store has dir open, in this process
// or another; with ErrForeign if dir holds something else; with ErrNewer if a newer
// program wrote it. A store of an older program is upgraded, after a copy of it is
// set aside in dir.
func Open(dir string, opt Options) (*Store, error) {
	return open(dir, opt, formats)
}

func open(dir string, opt Options, known formatTable) (*Store, error) {
	opt = opt.withDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store directory: %w", err)
	}
	// Before the lock, because taking it would change a directory that is not ours.
	if _, err := inspect(dir, known); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(dir, opt, known)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	s.lock = lock
	return s, nil
}

func openLocked(dir string, opt Options, known formatTable) (*Store, error) {
	format, err := inspect(dir, known)
	if err != nil {
		return nil, err
	}
	if format == 0 {
		if err := prepare(dir, known.current); err != nil {
			return nil, err
		}
	}
	options := opt.engine()
	// An engine that is gone is not to be replaced by an empty one.
	options.ErrorIfNotExists = format != 0
	db, err := openEngine(filepath.Join(dir, engineDir), opt, options)
	if err != nil {
		return nil, err
	}
	s, err := start(dir, opt, db, format, known)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func openEngine(dir string, opt Options, options *pebble.Options) (*pebble.DB, error) {
	cache := opt.Cache
	if cache == nil {
		cache = NewCache(opt.CacheBytes)
		defer cache.Release() // the database holds its own reference
	}
	options.Cache = cache.blocks
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, fmt.Errorf("open the store in %s: %w; if the files are damaged, restore a backup", dir, err)
	}
	return db, nil
}

// start brings an open engine to the current format and makes it a Store.
func start(dir string, opt Options, db *pebble.DB, format int, known formatTable) (*Store, error) {
	if err := known.upgrade(dir, db, format); err != nil {
		return nil, err
	}
	epoch, err := nextEpoch(db)
	if err != nil {
		return nil, fmt.Errorf("open the store in %s: %w", dir, err)
	}
	// Last, so that a directory has its stamp only when it can be used.
	if format != known.current {
		if err := stamp(dir, known.current); err != nil {
			return nil, err
		}
	}
	return &Store{
		dir:   dir,
		opt:   opt,
		db:    db,
		marks: newWatermark(epoch),
		rows:  newRowCache(opt.RowCacheBytes),
		scans: newScanCache(opt.ScanCacheBytes),
		space: space{fs: opt.fs, reserve: uint64(opt.ReserveBytes)},
	}, nil
}

// nextEpoch counts the opens of the store, durably.
func nextEpoch(db *pebble.DB) (uint64, error) {
	epoch := uint64(0)
	raw, closer, err := db.Get(versionsKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return 0, fmt.Errorf("read the epoch of its versions: %w", err)
	default:
		if len(raw) == 8 {
			epoch = binary.BigEndian.Uint64(raw)
		} else {
			err = fmt.Errorf("the epoch of its versions has %d bytes, want 8", len(raw))
		}
		if err = errors.Join(err, closer.Close()); err != nil {
			return 0, err
		}
	}
	epoch++
	if epoch >= 1<<epochBits-1 {
		return 0, fmt.Errorf("it was opened %d times, which uses up all versions", epoch)
	}
	if err := db.Set(versionsKey, binary.BigEndian.AppendUint64(nil, epoch), pebble.Sync); err != nil {
		return 0, fmt.Errorf("write the epoch of its versions: %w", err)
	}
	return epoch, nil
}

// unwritable says how to mend a directory that cannot be written.
func unwritable(dir string, err error) error {
	return fmt.Errorf("store directory %s cannot be written by user %d: %w; give it the permission or choose another directory", dir, os.Getuid(), err)
}
