// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options are what an operator may choose. The zero Options are good.
type Options struct {
	// CacheBytes is the memory for blocks of data read from the disk, if Cache is nil.
	// 0 means 32 MiB.
	CacheBytes int64
	// Cache is memory for blocks that stores share: where one has much to read and
	// another little, it is used by the one that needs it. Nil means one for this store.
	Cache *Cache
	// RowCacheBytes is memory for rows that Get read, and for the knowledge that a row
	// is absent: for stores whose same keys are read again and again. 0 means none.
	RowCacheBytes int64
	// ScanCacheBytes is memory for the beginnings of ranges that Scan read, up to 32
	// rows at a time: for stores whose same pages are read again and again, written to
	// or not. 0 means none.
	ScanCacheBytes int64
	// MemTableBytes is the memory for recent writes; up to four times as much is used
	// when the disk cannot keep up. 0 means 32 MiB.
	MemTableBytes uint64
	// ReserveBytes is kept free on the disk: below it, writes get kv.ErrQuota. 0 means
	// 256 MiB; negative means no reserve, and a full disk ends the process.
	ReserveBytes int64
	// Logger gets warnings, and at debug level what Pebble has to say. Nil means
	// slog.Default().
	Logger *slog.Logger
	// Fatal is called when the disk fails under the log. Nil means to log the error
	// and to end the process with status 1. If it returns, every later call fails.
	Fatal func(error)

	fs vfs.FS // of Pebble's own directory; tests take the power away from it
}

// Cache is memory for blocks of data read from the disk. It may be used concurrently.
type Cache struct{ blocks *pebble.Cache }

// NewCache makes a Cache of at most so many bytes, which are taken as they are needed.
func NewCache(bytes int64) *Cache { return &Cache{pebble.NewCache(bytes)} }

// Release gives up the caller's hold of the cache, once: its memory is given back when
// the last store that uses it is closed. No store is opened with it any more.
func (c *Cache) Release() { c.blocks.Unref() }

func (o Options) withDefaults() Options {
	if o.CacheBytes <= 0 {
		o.CacheBytes = 32 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 32 << 20
	}
	switch {
	case o.ReserveBytes == 0:
		o.ReserveBytes = 256 << 20
	case o.ReserveBytes < 0:
		o.ReserveBytes = 0
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Fatal == nil {
		logger := o.Logger
		o.Fatal = func(err error) {
			logger.Error("the store failed, the process ends; mend the disk and start again", "err", err)
			os.Exit(1) //nolint:forbidigo // Pebble cannot go on after its log failed, nor may anyone who believes in it
		}
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	return o
}

// engine gives the options of Pebble. Values are small, reads are points and short
// scans, every write is synced.
func (o Options) engine() *pebble.Options {
	p := &pebble.Options{
		FS: logFS{o.fs},
		// Named, not newest: a new Pebble must not change the files so that the old one
		// cannot read them, unless the FORMAT file says so.
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		LBaseMaxBytes:               64 << 20,
		BytesPerSync:                512 << 10,
		WALBytesPerSync:             256 << 10,
		Logger:                      engineLog{o},
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				o.Fatal(fmt.Errorf("file %s of the store is damaged, restore a backup: %w", info.Path, info.Details))
			},
			BackgroundError: func(err error) { o.Logger.Error("store: background work failed", "err", err.Error()) },
			WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
				o.Logger.Warn("store: writes wait, the disk cannot keep up", "reason", info.Reason)
			},
		},
	}
	// Ten bits per key: one read in a hundred looks in vain into a file.
	for i := range p.Levels {
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return p
}

// engineLog takes Pebble's log lines, which are for the developers of Pebble.
type engineLog struct{ opt Options }

func (l engineLog) Infof(format string, args ...any) {
	l.opt.Logger.Debug("pebble", slog.Any("says", lazyText{format, args}))
}

func (l engineLog) Errorf(format string, args ...any) {
	l.opt.Logger.Error("pebble", slog.Any("says", lazyText{format, args}))
}

func (l engineLog) Fatalf(format string, args ...any) {
	l.opt.Fatal(fmt.Errorf(format, args...))
}

// lazyText is formatted only if somebody reads the line.
type lazyText struct {
	format string
	args   []any
}

// LogValue implements slog.LogValuer.
func (t lazyText) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(t.format, t.args...)) }
