// SPDX-License-Identifier: Apache-2.0

package pebblekv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/sluice-rpc/sluice/app/kv"
)

// rename gives a step that renames a key of slot 1, for upgrades.
func rename(from, to string, then error) func(*pebble.DB) error {
	return func(db *pebble.DB) error {
		raw, closer, err := db.Get(storedKey(1, []byte(from)))
		if errors.Is(err, pebble.ErrNotFound) {
			return then // an interrupted step did it
		}
		if err != nil {
			return err
		}
		defer closer.Close()
		b := db.NewBatch()
		return errors.Join(b.Set(storedKey(1, []byte(to)), raw, nil), b.Delete(storedKey(1, []byte(from)), nil), b.Commit(pebble.NoSync), then)
	}
}

func mustOpen(t *testing.T, dir string, opt Options, known formatTable) *Store {
	t.Helper()
	s, err := open(dir, opt, known)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, s *Store, slot kv.Slot, key string) string {
	t.Helper()
	item, err := s.Get(t.Context(), slot, []byte(key), kv.Linearizable)
	if err != nil {
		t.Fatal(err)
	}
	return string(item.Value)
}

func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{}, formats)
	if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("one"), []byte("v"))); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)

	boom := errors.New("boom")
	broken := formatTable{current: 3, steps: map[int]func(*pebble.DB) error{1: rename("one", "two", nil), 2: rename("two", "three", boom)}}
	if _, err := open(dir, Options{}, broken); !errors.Is(err, boom) || !strings.Contains(err.Error(), "before-format-3") {
		t.Fatalf("interrupted upgrade = %v, want boom and the place of the copy", err)
	}
	if f, err := inspect(dir, broken); f != 1 || err != nil {
		t.Fatalf("after an interrupted upgrade the format is %d, %v; want 1 still", f, err)
	}
	missing := formatTable{current: 3, steps: map[int]func(*pebble.DB) error{1: rename("one", "two", nil)}}
	if _, err := open(dir, Options{}, missing); err == nil || !strings.Contains(err.Error(), "from format 2 to 3") {
		t.Fatalf("upgrade without a step = %v", err)
	}
	whole := formatTable{current: 3, steps: map[int]func(*pebble.DB) error{1: rename("one", "two", nil), 2: rename("two", "three", nil)}}
	for range 2 { // the second time there is nothing to do
		s = mustOpen(t, dir, Options{}, whole)
		if one, three := value(t, s, 1, "one"), value(t, s, 1, "three"); one != "" || three != "v" {
			t.Fatalf("after the upgrade one=%q, three=%q", one, three)
		}
		mustClose(t, s)
	}
	if _, err := open(dir, Options{}, formats); !errors.Is(err, ErrNewer) {
		t.Fatalf("the old program opens the new store: %v", err)
	}
	// The copy is what was there before the first attempt.
	s = mustOpen(t, filepath.Join(dir, "before-format-3"), Options{}, formats)
	if one, three := value(t, s, 1, "one"), value(t, s, 1, "three"); one != "v" || three != "" {
		t.Errorf("the copy set aside has one=%q, three=%q", one, three)
	}
	mustClose(t, s)
}

// TestPowerLoss takes the power away under load: all that was not synced is lost, and
// a part of it in pieces. What was acknowledged or seen by a linearizable read stays.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk := vfs.NewCrashableMem()
	for round := range 5 {
		opt := Options{fs: disk, ReserveBytes: -1, RowCacheBytes: int64(round%2) << 20}
		s := mustOpen(t, dir, opt, formats)
		promised, crashed := powerLossRound(t, s, disk, round)
		// The process goes on after the clone was made; its directory is no longer ours.
		mustClose(t, s)
		disk = crashed
		opt.fs = disk
		s = mustOpen(t, dir, opt, formats)
		for key := range promised {
			if v := value(t, s, 1, key); v != key {
				t.Fatalf("round %d: promised key %s is %q after the power loss", round, key, v)
			}
		}
		mustClose(t, s)
	}
}

func powerLossRound(t *testing.T, s *Store, disk *vfs.MemFS, round int) (promised map[string]bool, crashed *vfs.MemFS) {
	var mu sync.Mutex // guards promised
	promised = map[string]bool{}
	var snapshot map[string]bool // guarded by mu
	stop := make(chan struct{})
	var wg sync.WaitGroup
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	enough := make(chan struct{})
	promise := func(key string) {
		mu.Lock()
		promised[key] = true
		if len(promised) > 200 && crashed == nil {
			// Promises are made under this lock: the clone has at least these.
			crashed, snapshot = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 30, RNG: rand.New(rand.NewPCG(1, uint64(round)))}), maps.Clone(promised)
			close(enough)
		}
		mu.Unlock()
	}
	for w := range 4 {
		wg.Go(func() {
			for n := 0; running(); n++ {
				key := fmt.Sprintf("%d/%d/%d", round, w, n)
				if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte(key), []byte(key))); err != nil {
					t.Errorf("Apply: %v", err)
					return
				}
				promise(key)
			}
		})
		wg.Go(func() { // reads what the writer has perhaps not been told yet
			for n := 0; running(); {
				key := fmt.Sprintf("%d/%d/%d", round, w, n)
				// A cached row must not pass for a durable one.
				if _, err := s.Get(t.Context(), 1, []byte(key), kv.Local); err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				found, err := there(t.Context(), s, key, w%2 == 0)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if found {
					promise(key)
					n++
				}
			}
		})
	}
	<-enough
	close(stop)
	wg.Wait()
	return snapshot, crashed
}

// there reports whether a linearizable read shows a key of slot 1.
func there(ctx context.Context, s *Store, key string, sweep bool) (bool, error) {
	if !sweep {
		item, err := s.Get(ctx, 1, []byte(key), kv.Linearizable)
		return item.Ver != 0, err
	}
	r := kv.Range{From: []byte(key), To: kv.Next([]byte(key))}
	items, _, err := s.ScanSlots(ctx, kv.Place{Slot: 1}, r, kv.Linearizable)
	return len(items) > 0, err
}

// TestCachedRowIsNotTakenForDurable holds the sync of the log back: a row, and an
// absence, that the cache has already must not pass for one that is on the disk.
func TestCachedRowIsNotTakenForDurable(t *testing.T) {
	for _, test := range []struct {
		name  string
		write *kv.Batch
		there bool // after it
	}{
		{"a put", new(kv.Batch).Put([]byte("k"), []byte("new")), true},
		{"a delete", new(kv.Batch).Delete([]byte("k")), false},
		{"a delete of a range", new(kv.Batch).DeleteRange(nil, nil), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var gate atomic.Pointer[chan struct{}] // syncs wait for it
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if g := gate.Load(); g != nil && op.Kind == errorfs.OpFileSyncData {
					<-*g
				}
				return nil
			}))
			s := mustOpen(t, t.TempDir(), Options{fs: fs, ReserveBytes: -1, RowCacheBytes: 1 << 20}, formats)
			defer mustClose(t, s)
			if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("k"), []byte("old"))); err != nil {
				t.Fatal(err)
			}
			synced := make(chan struct{})
			gate.Store(&synced)
			acknowledged := make(chan error, 1)
			go func() {
				_, err := s.Apply(t.Context(), 1, test.write)
				acknowledged <- err
			}()
			get := func(mode kv.ReadMode) string {
				item, err := s.Get(t.Context(), 1, []byte("k"), mode)
				if err != nil {
					t.Errorf("Get: %v", err)
				}
				return string(item.Value)
			}
			for get(kv.Local) == "old" { // until the write shows
				runtime.Gosched()
			}
			hits := s.Metrics().RowHits
			for s.Metrics().RowHits == hits { // until it is cached
				get(kv.Local)
			}
			hits = s.Metrics().RowHits
			read, swept := make(chan string, 1), make(chan bool, 1)
			go func() { read <- get(kv.Linearizable) }()
			go func() {
				found, err := there(t.Context(), s, "k", true)
				if err != nil {
					t.Errorf("ScanSlots: %v", err)
				}
				swept <- found
			}()
			for s.Metrics().RowHits == hits { // until the cache has answered
				runtime.Gosched()
			}
			select {
			case v := <-read:
				t.Errorf("a linearizable Get gave %q before it was on the disk", v)
				read <- v
			case found := <-swept:
				t.Errorf("a linearizable sweep said %v before it was on the disk", found)
				swept <- found
			case err := <-acknowledged:
				t.Fatalf("Apply = %v before the sync", err)
			case <-time.After(20 * time.Millisecond): // a wrong answer comes sooner
			}
			gate.Store(nil)
			close(synced)
			if err := <-acknowledged; err != nil {
				t.Error(err)
			}
			if v := <-read; (v == "new") != test.there {
				t.Errorf("Get = %q", v)
			}
			if found := <-swept; found != test.there {
				t.Errorf("the sweep found it: %v", found)
			}
		})
	}
}

// TestDamagedRow: what is no row of this driver is never given as one.
func TestDamagedRow(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{ReserveBytes: -1}, formats)
	defer mustClose(t, s)
	if err := s.db.Set(storedKey(7, []byte("k")), []byte("short"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	_, get := s.Get(t.Context(), 7, []byte("k"), kv.Local)
	_, _, scan := s.Scan(t.Context(), 7, kv.Range{}, kv.Local)
	_, _, sweep := s.ScanSlots(t.Context(), kv.Place{}, kv.Range{}, kv.Local)
	for _, err := range []error{get, scan, sweep} {
		if err == nil || !strings.Contains(err.Error(), "has no version") || errors.Is(err, kv.ErrUnavailable) {
			t.Errorf("read of a damaged row = %v, want an error about its version", err)
		}
	}
}

// TestFailedDisk: when the log cannot be written the store must not go on as if
// nothing had happened, and says that the outcome is unknown.
func TestFailedDisk(t *testing.T) {
	var failed sync.Map
	var broken bool
	var mu sync.Mutex // guards broken
	boom := errors.New("disk on fire")
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if broken && strings.HasSuffix(op.Path, ".log") && op.Kind == errorfs.OpFileSyncData {
			return boom
		}
		return nil
	}))
	s := mustOpen(t, t.TempDir(), Options{fs: fs, ReserveBytes: -1, Fatal: func(err error) { failed.Store("err", err) }}, formats)
	if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("k"), nil)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	broken = true
	mu.Unlock()
	if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("l"), nil)); !errors.Is(err, kv.ErrUnknown) || !errors.Is(err, boom) {
		t.Errorf("Apply on a failed disk = %v, want ErrUnknown and the cause", err)
	}
	if err, _ := failed.Load("err"); err == nil {
		t.Error("Fatal was not called")
	}
	if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("m"), nil)); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("the next Apply = %v, want ErrUnavailable", err)
	}
	if _, err := s.Get(t.Context(), 1, []byte("k"), kv.Local); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("the next Get = %v, want ErrUnavailable", err)
	}
	_ = s.Close() // the log cannot be closed cleanly
}

func TestWatermark(t *testing.T) {
	w := newWatermark(3)
	first := uint64(3)<<verBits + 1
	var vers []uint64
	for i := range uint64(4) {
		ver, err := w.begin()
		if err != nil || ver != first+i {
			t.Fatalf("begin = %d, %v; want %d", ver, err, first+i)
		}
		vers = append(vers, ver)
	}
	for _, step := range []struct{ end, durable uint64 }{{vers[2], vers[0]}, {vers[0], vers[1]}, {vers[1], vers[3]}, {vers[3], vers[3] + 1}} {
		w.end(step.end)
		if got := w.durable(); got != step.durable {
			t.Errorf("after end of %d durable is below %d, want %d", step.end-first, got-first, step.durable-first)
		}
	}
	w.oldest.Store(w.limit)
	if _, err := w.begin(); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("begin past the last version = %v, want ErrUnavailable", err)
	}
}

func TestVersionsAreUsedUp(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{}, formats)
	if err := s.db.Set(versionsKey, []byte{0, 0, 0, 0, 0, 0x0f, 0xff, 0xfe}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "uses up all versions") {
		t.Errorf("Open = %v, want an error about versions", err)
	}
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err != nil {
		t.Error(err)
	}
}

// TestLogIsWrittenOver: a write finds its place in the log already in the file, or
// its sync would have to store a new size, too.
func TestLogIsWrittenOver(t *testing.T) {
	var mu sync.Mutex // guards the sizes
	sizes, steps, syncs := map[string]int64{}, 0, 0
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpFileSyncData || !isLog(op.Path) {
			return nil
		}
		info, err := os.Stat(op.Path)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		syncs++
		if sizes[op.Path] != info.Size() {
			sizes[op.Path] = info.Size()
			steps++
		}
		return nil
	}))
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{fs: fs, ReserveBytes: -1}, formats)
	const writes = 400
	long := make([]byte, 5<<10)
	for n := range writes {
		if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put(fmt.Append(nil, n), long)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	if logs := len(sizes); syncs < writes || steps > 3*logs {
		t.Errorf("%d syncs of %d logs stored %d sizes", syncs, logs, steps)
	}
	s = mustOpen(t, dir, Options{ReserveBytes: -1}, formats)
	defer mustClose(t, s)
	for n := range writes {
		if v := value(t, s, 1, fmt.Sprint(n)); len(v) != len(long) {
			t.Fatalf("key %d has %d bytes after the store was opened again", n, len(v))
		}
	}
}

// TestRecycledLogKeepsItsSize: what is there is written over, and grows from its end.
func TestRecycledLogKeepsItsSize(t *testing.T) {
	fs := logFS{vfs.NewMem()}
	size := func(name string) int64 {
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	write := func(f vfs.File, n int) {
		if _, err := f.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	old, err := fs.Create("1.log", "")
	if err != nil {
		t.Fatal(err)
	}
	write(old, 1)
	had := size("1.log")
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := fs.ReuseForWrite("1.log", "2.log", "")
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	write(next, int(had))
	if got := size("2.log"); got != had {
		t.Errorf("a recycled log of %d bytes has %d after as many were written over", had, got)
	}
	write(next, 1)
	if got := size("2.log"); got < had+minGrowth {
		t.Errorf("a recycled log of %d bytes has %d after one more was written, want %d at least", had, got, had+minGrowth)
	}
}
