// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluice-rpc/sluice/app/kv"
)

// Checkpoint copies the store, as it is at one moment with everything acknowledged
// so far, to the new directory dest while it goes on working. On the same file system
// the files are linked, which takes little time and room. Restore, or Open itself,
// uses the copy. If it fails, dest does not exist.
func (s *Store) Checkpoint(ctx context.Context, dest string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if err := checkpoint(s.db, dest, formats.current); err != nil {
		return fmt.Errorf("back up %s: %w", s.dir, err)
	}
	return nil
}

// checkpoint makes the copy under another name first: dest is there whole or not.
func checkpoint(db *pebble.DB, dest string, format int) error {
	dest, err := filepath.Abs(dest)
	if err != nil {
		return err
	}
	return intoNew(dest, func(tmp string) error {
		if err := db.Checkpoint(filepath.Join(tmp, engineDir), pebble.WithFlushedWAL()); err != nil {
			return err
		}
		return stamp(tmp, format)
	})
}

// intoNew lets fill make a directory that appears as dest when it is complete.
func intoNew(dest string, fill func(tmp string) error) (err error) {
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("%s: %w; choose a new directory", dest, fs.ErrExist)
	}
	if err := makeDir(filepath.Dir(dest)); err != nil {
		return unwritable(filepath.Dir(dest), err)
	}
	tmp := dest + ".partial"
	if err := os.RemoveAll(tmp); err != nil {
		return unwritable(tmp, err)
	}
	if err := makeDir(tmp); err != nil {
		return unwritable(tmp, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dest); err != nil {
		return unwritable(dest, err)
	}
	return syncDir(filepath.Dir(dest))
}

// Restore copies the backup that Checkpoint made to the new directory dest, and reads
// every item of the copy to see that it is whole, before dest appears. It refuses a
// store that is in use: that needs a Checkpoint first.
func Restore(ctx context.Context, backup, dest string, opt Options) error {
	opt = opt.withDefaults()
	backup, err := filepath.Abs(backup)
	if err != nil {
		return err
	}
	if dest, err = filepath.Abs(dest); err != nil {
		return err
	}
	format, err := inspect(backup, formats)
	if err != nil {
		return err
	}
	if format == 0 {
		return fmt.Errorf("%w: no backup in %s", ErrForeign, backup)
	}
	if _, err := os.Stat(filepath.Join(backup, lockFile)); err == nil {
		lock, err := lockDir(backup)
		if err != nil {
			return fmt.Errorf("%w; make a checkpoint of it and restore that", err)
		}
		defer func() { _ = lock.Release() }()
	}
	err = intoNew(dest, func(tmp string) error {
		if err := copyDir(ctx, filepath.Join(backup, engineDir), filepath.Join(tmp, engineDir)); err != nil {
			return err
		}
		if err := stamp(tmp, format); err != nil {
			return err
		}
		return verify(ctx, tmp, opt)
	})
	if err != nil {
		return fmt.Errorf("restore %s: %w", backup, err)
	}
	return nil
}

// verify reads all of a closed store, checksums and versions included.
func verify(ctx context.Context, dir string, opt Options) (err error) {
	// Damage is what this looks for: it ends the restore and not the process.
	opt.Fatal = func(error) {}
	options := opt.engine()
	options.ReadOnly = true
	db, err := openEngine(filepath.Join(dir, engineDir), opt, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	iter, err := db.NewIterWithContext(ctx, &pebble.IterOptions{UpperBound: storedKey(kv.Slots, nil)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	for ok := iter.First(); ok; ok = iter.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		raw, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		if _, _, err := split(raw); err != nil {
			return fmt.Errorf("read %x: %w", iter.Key(), err)
		}
	}
	return nil
}

func copyDir(ctx context.Context, from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := makeDir(to); err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%w: %s is no regular file", ErrForeign, filepath.Join(from, e.Name()))
		}
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(to)
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Sync()
}

// Metrics are figures of an open store.
type Metrics struct {
	DiskBytes     uint64 // all files of the store
	LogBytes      uint64 // of these, the log
	MemTableBytes uint64 // memory of recent writes
	CacheBytes    int64  // memory of cached blocks, as the next two of all stores that share them
	CacheHits     int64
	CacheMisses   int64
	RowBytes      int64 // memory of cached rows
	RowHits       int64
	RowMisses     int64
	ScanBytes     int64 // memory of cached ranges
	ScanHits      int64
	ReadAmp       int   // files a scan has to merge, at most
	Compactions   int64 // since Open
}

// Metrics gives the figures of now; all zero when the store is closed.
func (s *Store) Metrics() Metrics {
	if err := s.hold(); err != nil {
		return Metrics{}
	}
	defer s.leave()
	m := s.db.Metrics()
	rowBytes, rowHits, rowMisses := s.rows.figures()
	scanBytes, scanHits := s.scans.figures()
	return Metrics{
		DiskBytes:     m.DiskSpaceUsage(),
		LogBytes:      m.WAL.PhysicalSize,
		MemTableBytes: m.MemTable.Size,
		CacheBytes:    m.BlockCache.Size,
		CacheHits:     m.BlockCache.Hits,
		CacheMisses:   m.BlockCache.Misses,
		RowBytes:      rowBytes,
		RowHits:       rowHits,
		RowMisses:     rowMisses,
		ScanBytes:     scanBytes,
		ScanHits:      scanHits,
		ReadAmp:       m.ReadAmp(),
		Compactions:   m.Compact.Count,
	}
}
