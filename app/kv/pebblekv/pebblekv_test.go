// SPDX-License-Identifier: Apache-2.0

package pebblekv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/kvtest"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, dir string) *pebblekv.Store {
	t.Helper()
	return openWith(t, dir, pebblekv.Options{})
}

func openWith(t testing.TB, dir string, opt pebblekv.Options) *pebblekv.Store {
	t.Helper()
	s, err := pebblekv.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

type reopener struct {
	*pebblekv.Store
	dir string
}

func (r reopener) Reopen(t testing.TB) kvtest.Reopener { return reopener{open(t, r.dir), r.dir} }

func TestContract(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, func(t testing.TB) kv.Store {
		dir := filepath.Join(t.TempDir(), "data", "store") // parents are made
		return reopener{open(t, dir), dir}
	})
}

// tree reads all names and contents below dir, to see that nothing changed.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			files[path] = "directory"
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestOpenRefuses(t *testing.T) {
	write := func(t *testing.T, dir, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, dir string)
		want error
		says string
	}{
		{"a directory with other files", func(t *testing.T, dir string) { write(t, dir, "photo.jpg", "x") }, pebblekv.ErrForeign, "photo.jpg"},
		{"a bare engine", func(t *testing.T, dir string) { write(t, dir, "db/CURRENT", "x") }, pebblekv.ErrForeign, "db"},
		{"a newer format", func(t *testing.T, dir string) { write(t, dir, "FORMAT", "sluice-kv pebble 2\n") }, pebblekv.ErrNewer, "format 2"},
		{"another driver", func(t *testing.T, dir string) { write(t, dir, "FORMAT", "sluice-kv other 1\n") }, pebblekv.ErrForeign, "sluice-kv other 1"},
		{"a damaged stamp", func(t *testing.T, dir string) { write(t, dir, "FORMAT", "sluice-kv pebble 1") }, pebblekv.ErrForeign, "FORMAT"},
		{"format zero", func(t *testing.T, dir string) { write(t, dir, "FORMAT", "sluice-kv pebble 0\n") }, pebblekv.ErrForeign, "FORMAT"},
		{"a stamp of noise", func(t *testing.T, dir string) { write(t, dir, "FORMAT", strings.Repeat("\x00", 1000)) }, pebblekv.ErrForeign, "FORMAT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.make(t, dir)
			before := tree(t, dir)
			_, err := pebblekv.Open(dir, pebblekv.Options{})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("Open = %v, want %v naming %s and %q", err, test.want, dir, test.says)
			}
			if after := tree(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the directory was changed: %v, before %v", after, before)
			}
		})
	}
}

func TestOpenOfAStoreWithoutItsEngine(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("sluice-kv pebble 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := pebblekv.Open(dir, pebblekv.Options{}); err == nil {
		t.Errorf("a store that lost its files opened as an empty one")
		_ = s.Close()
	}
}

func TestOpenFinishesAnInterruptedCreation(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"LOCK": "1\n", "FORMAT.new": "slui", "db/half": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := pebblekv.Open(dir, pebblekv.Options{})
	if !errors.Is(err, pebblekv.ErrInUse) || !strings.Contains(err.Error(), "this process") {
		t.Errorf("second Open = %v, want ErrInUse by this process", err)
	}
	if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("k"), nil)); err != nil {
		t.Errorf("the first store suffered: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestOpenWhereNothingCanBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"below a file": filepath.Join(file, "store"), "a file": file}
	if os.Getuid() != 0 { // root may write everywhere
		closed := t.TempDir()
		if err := os.Chmod(closed, 0o500); err != nil {
			t.Fatal(err)
		}
		dirs["read-only"], dirs["below read-only"] = closed, filepath.Join(closed, "store")
	}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			s, err := pebblekv.Open(dir, pebblekv.Options{})
			if err == nil {
				_ = s.Close()
				t.Fatal("Open succeeded")
			}
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("Open = %v, want an error that names %s", err, dir)
			}
		})
	}
}

func TestQuotaLeavesRoomForDeletes(t *testing.T) {
	dir := t.TempDir()
	s, err := pebblekv.Open(dir, pebblekv.Options{ReserveBytes: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Apply(t.Context(), 1, new(kv.Batch).Put([]byte("k"), nil)); !errors.Is(err, kv.ErrQuota) {
		t.Errorf("Apply on a full disk = %v, want ErrQuota", err)
	}
	if err := s.BulkPut(t.Context(), []kv.SlotPut{{Key: []byte("k")}}); !errors.Is(err, kv.ErrQuota) {
		t.Errorf("BulkPut on a full disk = %v, want ErrQuota", err)
	}
	if item, err := s.Get(t.Context(), 1, []byte("k"), kv.Linearizable); err != nil || item.Ver != 0 {
		t.Errorf("after ErrQuota: %+v, %v", item, err)
	}
}

func TestBackupWhileWorking(t *testing.T) {
	ctx, base := t.Context(), t.TempDir()
	s := open(t, filepath.Join(base, "store"))
	put := func(n int) {
		if _, err := s.Apply(ctx, kv.Slot(n%7), new(kv.Batch).Put(fmt.Appendf(nil, "%03d", n), bytes.Repeat([]byte{byte(n)}, 5000))); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 100 {
		put(n)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Apply(ctx, 100, new(kv.Batch).Put(fmt.Appendf(nil, "%d", n), nil)); err != nil {
				t.Errorf("Apply during a backup: %v", err)
				return
			}
		}
	}()
	backup := filepath.Join(base, "backups", "monday")
	err := s.Checkpoint(ctx, backup)
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(ctx, backup); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Checkpoint to one place = %v, want ErrExist", err)
	}
	put(100) // not in the backup

	restored := filepath.Join(base, "restored")
	if err := pebblekv.Restore(ctx, backup, restored, pebblekv.Options{}); err != nil {
		t.Fatal(err)
	}
	r := open(t, restored)
	for n := range 101 {
		item, err := r.Get(ctx, kv.Slot(n%7), fmt.Appendf(nil, "%03d", n), kv.Linearizable)
		if err != nil || (item.Ver != 0) != (n < 100) {
			t.Fatalf("restored item %d = version %d, %v", n, item.Ver, err)
		}
	}
	if m := r.Metrics(); m.DiskBytes == 0 {
		t.Errorf("Metrics = %+v, want a size on the disk", m)
	}

	if err := pebblekv.Restore(ctx, backup, restored, pebblekv.Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Restore over a store = %v, want ErrExist", err)
	}
	if err := pebblekv.Restore(ctx, filepath.Join(base, "store"), filepath.Join(base, "no"), pebblekv.Options{}); !errors.Is(err, pebblekv.ErrInUse) {
		t.Errorf("Restore of an open store = %v, want ErrInUse", err)
	}
	if err := pebblekv.Restore(ctx, base, filepath.Join(base, "no"), pebblekv.Options{}); !errors.Is(err, pebblekv.ErrForeign) {
		t.Errorf("Restore of something else = %v, want ErrForeign", err)
	}
	if err := pebblekv.Restore(ctx, filepath.Join(base, "nowhere"), filepath.Join(base, "no"), pebblekv.Options{}); !errors.Is(err, pebblekv.ErrForeign) {
		t.Errorf("Restore of nothing = %v, want ErrForeign", err)
	}
}

func TestRestoreOfADamagedBackup(t *testing.T) {
	ctx, base := t.Context(), t.TempDir()
	backup := filepath.Join(base, "backup")
	s := open(t, filepath.Join(base, "store"))
	if _, err := s.Apply(ctx, 1, new(kv.Batch).Put([]byte("k"), make([]byte, 1000))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // and open again: the value is in a table, not in the log
		t.Fatal(err)
	}
	s = open(t, filepath.Join(base, "store"))
	if err := s.Checkpoint(ctx, backup); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(backup, "db", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables in the backup: %v", err)
	}
	for _, name := range tables {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text[20] ^= 0xff // in the first block of data
		if err := errors.Join(os.Remove(name), os.WriteFile(name, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	dest := filepath.Join(base, "restored")
	if err := pebblekv.Restore(ctx, backup, dest, pebblekv.Options{}); err == nil {
		t.Error("Restore accepted a damaged backup")
	}
	for _, name := range []string{dest, dest + ".partial"} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a failed Restore left %s: %v", name, err)
		}
	}
}

func TestCheckpointOfAClosedStore(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(context.WithoutCancel(t.Context()), filepath.Join(t.TempDir(), "b")); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("Checkpoint = %v, want ErrClosed", err)
	}
	if m := s.Metrics(); m != (pebblekv.Metrics{}) {
		t.Errorf("Metrics = %+v, want none", m)
	}
}

func benchStore(b *testing.B) *pebblekv.Store {
	s, err := pebblekv.Open(b.TempDir(), pebblekv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func BenchmarkApply(b *testing.B) {
	value := make([]byte, 200)
	for _, c := range []int{1, 64, 512} {
		b.Run("c="+strconv.Itoa(c), func(b *testing.B) {
			s := benchStore(b)
			b.ReportAllocs()
			b.ResetTimer()
			parallel(b, c, func(n int64) error {
				key := fmt.Appendf(nil, "post/%020d", n)
				_, err := s.Apply(b.Context(), kv.SlotOf(key), new(kv.Batch).Put(key, value))
				return err
			})
		})
	}
	// All in one slot and each under a condition: what a hot counter gets.
	b.Run("c=64/one slot, conditional", func(b *testing.B) {
		s := benchStore(b)
		b.ResetTimer()
		parallel(b, 64, func(n int64) error {
			key := fmt.Appendf(nil, "post/%020d", n)
			_, err := s.Apply(b.Context(), 1, new(kv.Batch).IfAbsent(key).Put(key, value))
			return err
		})
	})
}

func BenchmarkBulkPut(b *testing.B) {
	for _, n := range []int{100, 1000} {
		for _, c := range []int{1, 16} {
			b.Run(fmt.Sprintf("puts=%d/c=%d", n, c), func(b *testing.B) {
				s := benchStore(b)
				value := make([]byte, 24)
				b.ReportAllocs()
				b.ResetTimer()
				parallel(b, c, func(op int64) error {
					puts := make([]kv.SlotPut, n)
					for i := range puts {
						key := fmt.Appendf(nil, "t/%012d/%012d", i, op)
						puts[i] = kv.SlotPut{Slot: kv.SlotOf(key[:14]), Key: key, Value: value}
					}
					return s.BulkPut(b.Context(), puts)
				})
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "keys/s")
			})
		}
	}
}

// fill stores keys with values of 200 bytes, a thousand in each slot.
func fill(b *testing.B, s *pebblekv.Store, keys int, key func(n int) []byte) {
	b.Helper()
	puts := make([]kv.SlotPut, 0, 1000)
	for n := range keys {
		puts = append(puts, kv.SlotPut{Slot: kv.Slot(n / 1000), Key: key(n), Value: make([]byte, 200)})
		if len(puts) == cap(puts) {
			if err := s.BulkPut(b.Context(), puts); err != nil {
				b.Fatal(err)
			}
			puts = puts[:0]
		}
	}
}

func BenchmarkScan(b *testing.B) {
	const keys = 100_000
	key := func(n int) []byte { return fmt.Appendf(nil, "post/%020d", n) }
	s := benchStore(b)
	fill(b, s, keys, key)
	for _, limit := range []int{1, 10, 50} {
		for _, c := range []int{1, 64} {
			b.Run(fmt.Sprintf("limit=%d/c=%d", limit, c), func(b *testing.B) {
				b.ReportAllocs()
				parallel(b, c, func(op int64) error {
					n := int(op*7919) % keys / 1000 * 1000
					items, _, err := s.Scan(b.Context(), kv.Slot(n/1000), kv.Range{From: key(n + 500), Limit: limit}, kv.Linearizable)
					if err == nil && len(items) != limit {
						err = fmt.Errorf("%d items", len(items))
					}
					return err
				})
			})
		}
	}
}
