// SPDX-License-Identifier: Apache-2.0

package pebblekv_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/kvtest"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
)

// The sizes of row caches under test: one that has room for a few small rows in each
// of its parts, and one from which nothing is ever evicted.
var rowCaches = map[string]int64{"tiny row cache": 200 << 10, "large row cache": 64 << 20}

// cached gives both caches; that of scans has its part for each slot, of a few ranges
// of few rows in the tiny one.
func cached(size int64) pebblekv.Options {
	return pebblekv.Options{RowCacheBytes: size, ScanCacheBytes: 20 * size}
}

// A cachedReopener is in memory: the same contract without a cache is held against a disk.
type cachedReopener struct {
	*pebblekv.Store
	dir  string
	disk *pebblekv.Memory
	size int64
}

func (r cachedReopener) Reopen(t testing.TB) kvtest.Reopener {
	r.Store = openWith(t, r.dir, cached(r.size).On(r.disk))
	return r
}

func TestContractWithRowCache(t *testing.T) {
	for name, size := range rowCaches {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kvtest.Run(t, func(t testing.TB) kv.Store {
				return cachedReopener{dir: filepath.Join(t.TempDir(), "store"), disk: pebblekv.NewMemory(), size: size}.Reopen(t)
			})
		})
	}
}

// TestReadersNeverGoBack has writers change a few rows in all ways there are, while
// each reader, by Get and Scan in turns, must see the versions of a row only grow.
// Every write of the whole slot counts a generation up in the row "generation", so
// that absences have an order too: the rows are there in even rounds only.
func TestReadersNeverGoBack(t *testing.T) {
	for name, size := range rowCaches {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openWith(t, t.TempDir(), cached(size).On(pebblekv.NewMemory()))
			const slots = 2
			key := func(i int) []byte { return []byte{'k', byte('0' + i)} }
			const keys = 4
			done := make(chan struct{})
			var writers, readers sync.WaitGroup
			for slot := range kv.Slot(slots) {
				writers.Go(func() { // turns all keys of a slot on and off
					for round := 2; round < 400; round++ { // 0 is a witness who saw nothing yet
						b := new(kv.Batch)
						switch {
						case round%2 == 0:
							for i := range keys {
								b.Put(key(i), strconv.AppendInt(nil, int64(round), 10))
							}
						case round%4 == 1:
							b.DeleteRange([]byte("k"), []byte("l"))
						default:
							for i := range keys {
								b.Delete(key(i))
							}
						}
						b.Put([]byte("generation"), strconv.AppendInt(nil, int64(round), 10))
						if _, err := s.Apply(t.Context(), slot, b); err != nil {
							t.Errorf("Apply: %v", err)
							return
						}
					}
				})
			}
			writers.Go(func() { // a row that only BulkPut writes, with its own count as value
				for n := range 800 {
					puts := make([]kv.SlotPut, slots)
					for slot := range puts {
						puts[slot] = kv.SlotPut{Slot: kv.Slot(slot), Key: []byte("bulk"), Value: strconv.AppendInt(nil, int64(n), 10)}
					}
					if err := s.BulkPut(t.Context(), puts); err != nil {
						t.Errorf("BulkPut: %v", err)
						return
					}
				}
			})
			for r := range 4 {
				readers.Go(func() {
					rng := rand.New(rand.NewPCG(1, uint64(r)))
					w := [slots]witness{}
					for {
						select {
						case <-done:
							return
						default:
						}
						slot := rng.IntN(slots)
						if err := w[slot].look(t, s, kv.Slot(slot), key(rng.IntN(keys)), kv.ReadMode(rng.IntN(2))); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			writers.Wait()
			// On a busy machine the writers may be done before anybody has read twice.
			m := s.Metrics()
			for end := time.Now().Add(10 * time.Second); (m.RowHits == 0 || m.ScanHits == 0) && !t.Failed() && time.Now().Before(end); m = s.Metrics() {
				runtime.Gosched()
			}
			close(done)
			readers.Wait()
			if m.RowHits == 0 || m.ScanHits == 0 {
				t.Errorf("a cache was not used: %+v", m)
			}
		})
	}
}

// witness is what one reader saw of one slot.
type witness struct {
	round int // the latest round of the slot's writer that showed
	bulk  int
}

func (w *witness) look(t *testing.T, s *pebblekv.Store, slot kv.Slot, key []byte, mode kv.ReadMode) error {
	// A scan shows the state of one round; what Get says next must not be older.
	items, _, err := s.Scan(t.Context(), slot, kv.Range{Limit: []int{0, 8}[rand.IntN(2)]}, mode)
	if err != nil {
		return err
	}
	for _, it := range items {
		if err := w.saw("Scan", it); err != nil {
			return err
		}
	}
	for _, k := range [][]byte{[]byte("bulk"), []byte("generation"), key} {
		before := w.round
		it, err := s.Get(t.Context(), slot, k, mode)
		if err != nil {
			return err
		}
		if it.Ver != 0 {
			if err := w.saw("Get", it); err != nil {
				return err
			}
			continue
		}
		if k[0] == 'k' && before != 0 && before%2 == 0 {
			// The row was there in that round: somebody deleted it since.
			gen, err := s.Get(t.Context(), slot, []byte("generation"), mode)
			if err != nil {
				return err
			}
			if atoi(gen) <= before {
				return fmt.Errorf("slot %d: %s is absent after round %d and generation %d", slot, k, before, atoi(gen))
			}
		}
	}
	return nil
}

func (w *witness) saw(by string, it kv.Item) error {
	latest := &w.round
	if string(it.Key) == "bulk" {
		latest = &w.bulk
	}
	n := atoi(it)
	if n < *latest {
		return fmt.Errorf("%s went back: %s is of round %d after round %d showed", by, it.Key, n, *latest)
	}
	*latest = n
	return nil
}

func atoi(it kv.Item) int {
	n, _ := strconv.Atoi(string(it.Value))
	return n
}

// TestRowCacheLaw runs random calls against a map: with and without the cache the
// answers are the same.
func TestRowCacheLaw(t *testing.T) {
	t.Parallel()
	s := openWith(t, t.TempDir(), cached(200<<10).On(pebblekv.NewMemory()))
	slots := kv.Slot(0) // each run has slots of its own
	rapid.Check(t, func(rt *rapid.T) {
		slot := slots
		slots += 2
		if slots >= kv.Slots {
			slots = 0
			for i := range kv.Slot(kv.Slots) {
				if _, err := s.Apply(t.Context(), i, new(kv.Batch).DeleteRange(nil, nil)); err != nil {
					rt.Fatal(err)
				}
			}
		}
		type place struct {
			slot kv.Slot
			key  string
		}
		want := map[place]string{}
		draw := func() place {
			return place{slot + kv.Slot(rapid.IntRange(0, 1).Draw(rt, "slot")), rapid.StringMatching(`[abc]{1,2}`).Draw(rt, "key")}
		}
		apply := func(slot kv.Slot, b *kv.Batch) {
			if _, err := s.Apply(t.Context(), slot, b); err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				p, v := draw(), rapid.StringN(0, 9, 9).Draw(rt, "value")
				apply(p.slot, new(kv.Batch).Put([]byte(p.key), []byte(v)))
				want[p] = "=" + v
			},
			"delete": func(*rapid.T) {
				p := draw()
				apply(p.slot, new(kv.Batch).Delete([]byte(p.key)))
				delete(want, p)
			},
			"delete range": func(*rapid.T) {
				from, to := draw(), draw()
				if from.key > to.key {
					from.key, to.key = to.key, from.key
				}
				apply(from.slot, new(kv.Batch).DeleteRange([]byte(from.key), []byte(to.key)))
				for p := range want {
					if p.slot == from.slot && from.key <= p.key && p.key < to.key {
						delete(want, p)
					}
				}
			},
			"bulk": func(rt *rapid.T) {
				p, q := draw(), draw()
				if err := s.BulkPut(t.Context(), []kv.SlotPut{{Slot: p.slot, Key: []byte(p.key), Value: []byte("p")}, {Slot: q.slot, Key: []byte(q.key), Value: []byte("q")}}); err != nil {
					rt.Fatal(err)
				}
				want[p], want[q] = "=p", "=q"
				if p == q {
					want[p] = "=q"
				}
			},
			"scan": func(rt *rapid.T) {
				from, to, limit := draw(), draw(), rapid.IntRange(1, 5).Draw(rt, "limit")
				if from.key > to.key {
					from.key, to.key = to.key, from.key
				}
				var keys []string
				for p := range want {
					if p.slot == from.slot && from.key <= p.key && p.key < to.key {
						keys = append(keys, p.key)
					}
				}
				slices.Sort(keys)
				for range 2 { // the second is mostly a hit
					items, more, err := s.Scan(t.Context(), from.slot, kv.Range{From: []byte(from.key), To: []byte(to.key), Limit: limit}, kv.Linearizable)
					if err != nil {
						rt.Fatal(err)
					}
					if len(items) != min(limit, len(keys)) || more != (len(keys) > limit) {
						rt.Fatalf("scan of [%s, %s) up to %d gives %d, more %t; there are %q", from.key, to.key, limit, len(items), more, keys)
					}
					for i, it := range items {
						if string(it.Key) != keys[i] || "="+string(it.Value) != want[place{from.slot, keys[i]}] {
							rt.Fatalf("item %d = %q %q, want %s %s", i, it.Key, it.Value, keys[i], want[place{from.slot, keys[i]}])
						}
					}
				}
			},
			"put if absent": func(rt *rapid.T) {
				p := draw()
				_, err := s.Apply(t.Context(), p.slot, new(kv.Batch).IfAbsent([]byte(p.key)).Put([]byte(p.key), []byte("new")))
				if errors.Is(err, kv.ErrConflict) != (want[p] != "") || err != nil && !errors.Is(err, kv.ErrConflict) {
					rt.Fatalf("IfAbsent of %v = %v, the row is %q", p, err, want[p])
				}
				if err == nil {
					want[p] = "=new"
				}
			},
			"get many": func(rt *rapid.T) {
				var places []kv.Place
				var asked []place
				for range rapid.IntRange(0, 40).Draw(rt, "places") {
					p := draw()
					asked, places = append(asked, p), append(places, kv.Place{Slot: p.slot, Key: []byte(p.key)})
				}
				items, err := kv.GetMany(t.Context(), s, places, kv.Local)
				if err != nil || len(items) != len(places) {
					rt.Fatalf("%d items of %d, %v", len(items), len(places), err)
				}
				for i, p := range asked {
					got := ""
					if items[i].Ver != 0 {
						got = "=" + string(items[i].Value)
					}
					if got != want[p] {
						rt.Fatalf("of many, %v is %q; want %q", p, got, want[p])
					}
				}
			},
			"": func(rt *rapid.T) {
				p := draw()
				for range 2 { // the second is a hit
					it, err := s.Get(t.Context(), p.slot, []byte(p.key), kv.Linearizable)
					got, key := "", ""
					if it.Ver != 0 {
						got, key = "="+string(it.Value), p.key
					}
					if err != nil || got != want[p] || string(it.Key) != key {
						rt.Fatalf("Get %v = %+v, %v; want %q", p, it, err, want[p])
					}
				}
			},
		})
	})
}

// TestRowCacheIsBounded fills a cache with more than it holds, with large rows, then
// small, then absent ones, and looks at what the process has.
func TestRowCacheIsBounded(t *testing.T) {
	const limit = 2 << 20
	s := openWith(t, t.TempDir(), pebblekv.Options{RowCacheBytes: limit})
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	puts := make([]kv.SlotPut, 0, 100)
	for n := range 800 {
		puts = append(puts, kv.SlotPut{Slot: kv.Slot(n), Key: []byte("large"), Value: make([]byte, 5_000)}, kv.SlotPut{Slot: kv.Slot(n), Key: []byte("small"), Value: make([]byte, 100)})
		if len(puts) == cap(puts) {
			if err := s.BulkPut(t.Context(), puts); err != nil {
				t.Fatal(err)
			}
			puts = puts[:0]
		}
	}
	base := heap() - s.Metrics().RowBytes
	read := func(slot int, key string) {
		if _, err := s.Get(t.Context(), kv.Slot(slot), []byte(key), kv.Local); err != nil {
			t.Fatal(err)
		}
	}
	for _, phase := range []struct {
		name string
		rows int
		get  func(n int)
	}{
		{"large", 800, func(n int) { read(n, "large") }},
		{"small", 30_000, func(n int) { read(n%kv.Slots, "small"+strconv.Itoa(n/kv.Slots)) }},
		{"large again", 800, func(n int) { read(n, "large") }},
	} {
		for n := range phase.rows {
			phase.get(n)
		}
		m, grown := s.Metrics(), heap()-base
		t.Logf("%s: %d bytes by the cache's count, %d by the heap's, limit %d", phase.name, m.RowBytes, grown, limit)
		if m.RowBytes > limit || m.RowBytes < limit/2 {
			t.Errorf("%s: the cache has %d bytes, want about %d and not more", phase.name, m.RowBytes, limit)
		}
		if grown > limit+limit/4 { // the engine has some memory of its own
			t.Errorf("%s: the heap has grown by %d bytes for a cache of %d", phase.name, grown, limit)
		}
	}
}

// TestRowCacheKeepsWhatIsUsed: rows that are read again and again survive a stream of
// rows that are read once.
func TestRowCacheKeepsWhatIsUsed(t *testing.T) {
	s := openWith(t, t.TempDir(), pebblekv.Options{RowCacheBytes: 1 << 20}.On(pebblekv.NewMemory()))
	hot := func() {
		for n := range 100 {
			if _, err := s.Get(t.Context(), 1, []byte("hot"+strconv.Itoa(n)), kv.Local); err != nil {
				t.Fatal(err)
			}
		}
	}
	hot()
	for n := range 30_000 {
		if _, err := s.Get(t.Context(), 2, []byte("once"+strconv.Itoa(n)), kv.Local); err != nil {
			t.Fatal(err)
		}
		if n%100 == 0 {
			hot()
		}
	}
	before := s.Metrics().RowHits
	hot()
	if hits := s.Metrics().RowHits - before; hits < 95 {
		t.Errorf("%d of 100 rows in use were kept, want nearly all", hits)
	}
}

// BenchmarkGet reads rows under keys as those of a post. "cold hit" goes through more rows
// than the processor keeps.
func BenchmarkGet(b *testing.B) {
	const keys = 400_000
	key := func(k []byte, table byte, n int) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(append(k, table), uint64(n)*0x9e3779b97f4a7c15), uint64(n))
	}
	run := func(name string, s *pebblekv.Store, table byte, keys int) {
		var k []byte
		get := func(n int) {
			k = key(k[:0], table, n)
			if _, err := s.Get(b.Context(), kv.Slot(n/1000), k, kv.Linearizable); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(name, func(b *testing.B) {
			for n := range keys {
				get(n)
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n = (n + 7919) % keys {
				get(n)
			}
		})
	}
	for _, rows := range []struct {
		name string
		size int64
		keys int // that are read
	}{{"off", 0, 1000}, {"miss", 1 << 20, keys}, {"hit", 64 << 20, 1000}, {"cold hit", 256 << 20, keys}} {
		s := openWith(b, b.TempDir(), pebblekv.Options{RowCacheBytes: rows.size})
		fill(b, s, keys, func(n int) []byte { return key(nil, 'p', n) })
		run("rows="+rows.name+"/there", s, 'p', rows.keys)
		run("rows="+rows.name+"/absent", s, 'h', rows.keys)
	}
}

// TestScanCacheIsBounded scans more than the cache holds, while more is written to what
// it holds, and looks at what it says it has.
func TestScanCacheIsBounded(t *testing.T) {
	const limit = 16 << 20 // 4 KiB a slot
	s := openWith(t, t.TempDir(), pebblekv.Options{ScanCacheBytes: limit}.On(pebblekv.NewMemory()))
	const slots, readers = 40, 20
	for round := range 12 {
		var puts []kv.SlotPut
		for slot := range kv.Slot(slots) {
			for r := range readers {
				for n := range 10 {
					puts = append(puts, kv.SlotPut{Slot: slot, Key: fmt.Appendf(nil, "%02d %02d %02d", r, 99-round, n), Value: make([]byte, 40)})
				}
			}
		}
		if err := s.BulkPut(t.Context(), puts); err != nil {
			t.Fatal(err)
		}
		for slot := range kv.Slot(slots) {
			for r := range readers {
				items, more, err := s.Scan(t.Context(), slot, kv.Prefix(fmt.Appendf(nil, "%02d ", r), 11), kv.Local)
				if err != nil || len(items) != min(11, 10*(round+1)) || more != (round > 0) {
					t.Fatalf("round %d: %d items, more %t, %v", round, len(items), more, err)
				}
				if want := fmt.Sprintf("%02d %02d 00", r, 99-round); string(items[0].Key) != want {
					t.Fatalf("round %d: first is %q, want %q", round, items[0].Key, want)
				}
			}
		}
		if m := s.Metrics(); m.ScanBytes > slots*limit/kv.Slots || m.ScanBytes < slots*limit/kv.Slots/4 {
			t.Fatalf("round %d: the cache has %d bytes in %d slots, want up to %d", round, m.ScanBytes, slots, slots*limit/kv.Slots)
		}
	}
}

// TestScanWithinWhatIsKept: parts of a kept range are answered from it, as the engine
// would, and only if it says enough.
func TestScanWithinWhatIsKept(t *testing.T) {
	key := func(n int) []byte { return fmt.Appendf(nil, "a%02d", n) }
	whole := kv.Prefix([]byte("a"), 0)
	for _, c := range []struct {
		name     string
		from, to []byte
		limit    int
		change   func(*kv.Batch)
		want     int // rows
		more     bool
		hit      bool
	}{
		{name: "the same", from: whole.From, to: whole.To, limit: 4, want: 4, more: true, hit: true},
		{name: "fewer", from: whole.From, to: whole.To, limit: 3, want: 3, more: true, hit: true},
		{name: "more than is kept", from: whole.From, to: whole.To, limit: 5, want: 5, more: true},
		{name: "up to a kept one", from: whole.From, to: key(2), limit: 4, want: 2, hit: true},
		{name: "between kept ones", from: key(1), to: key(3), limit: 4, want: 2, hit: true},
		{name: "the first between kept ones", from: key(1), to: key(3), limit: 1, want: 1, more: true, hit: true},
		{name: "from a kept one on", from: key(2), to: whole.To, limit: 2, want: 2, more: true, hit: true},
		{name: "up to the last kept one", from: whole.From, to: key(3), limit: 3, want: 3, hit: true},
		{name: "to behind what is kept", from: whole.From, to: key(4), limit: 4, want: 4},
		{name: "behind what is kept", from: key(7), to: key(9), limit: 2, want: 2},
		{name: "past its end", from: key(2), to: []byte("c"), limit: 2, want: 2, more: true},
		{
			name: "the rest deleted", from: whole.From, to: whole.To, limit: 4, want: 4,
			change: func(b *kv.Batch) {
				for n := 4; n < 10; n++ {
					b.Delete(key(n))
				}
			},
		},
		{name: "a new first", from: whole.From, to: whole.To, limit: 5, want: 5, more: true, hit: true, change: func(b *kv.Batch) { b.Put([]byte("a"), nil) }},
		{name: "a new last", from: whole.From, to: whole.To, limit: 4, want: 4, more: true, hit: true, change: func(b *kv.Batch) { b.Put([]byte("az"), nil) }},
		{name: "one gone", from: whole.From, to: whole.To, limit: 3, want: 3, more: true, hit: true, change: func(b *kv.Batch) { b.Delete(key(1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := openWith(t, t.TempDir(), pebblekv.Options{ScanCacheBytes: 64 << 20}.On(pebblekv.NewMemory()))
			b := new(kv.Batch)
			for n := range 10 {
				b.Put(key(n), []byte("v"))
			}
			b.Put([]byte("b"), nil)
			apply(t, s, b)
			if _, _, err := s.Scan(t.Context(), 1, kv.Range{From: whole.From, To: whole.To, Limit: 4}, kv.Local); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				b := new(kv.Batch)
				c.change(b)
				apply(t, s, b)
			}
			items, more, err := s.Scan(t.Context(), 1, kv.Range{From: c.from, To: c.to, Limit: c.limit}, kv.Local)
			if err != nil || len(items) != c.want || more != c.more {
				t.Errorf("%d rows, more %t, %v; want %d, %t", len(items), more, err, c.want, c.more)
			}
			if hit := s.Metrics().ScanHits > 0; hit != c.hit {
				t.Errorf("answered from memory: %t, want %t", hit, c.hit)
			}
		})
	}
}

func apply(t *testing.T, s *pebblekv.Store, b *kv.Batch) {
	t.Helper()
	if _, err := s.Apply(t.Context(), 1, b); err != nil {
		t.Fatal(err)
	}
}

// TestSharedCache: a cache serves its stores until the last of them is closed.
func TestSharedCache(t *testing.T) {
	cache := pebblekv.NewCache(1 << 20)
	var stores []*pebblekv.Store
	for range 2 {
		s, err := pebblekv.Open(t.TempDir(), pebblekv.Options{Cache: cache}.On(pebblekv.NewMemory()))
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	cache.Release()
	for i, s := range stores {
		apply(t, s, new(kv.Batch).Put([]byte("k"), []byte{byte(i)}))
	}
	for i, s := range stores {
		it, err := s.Get(t.Context(), 1, []byte("k"), kv.Linearizable)
		if err != nil || len(it.Value) != 1 || it.Value[0] != byte(i) {
			t.Errorf("store %d gave %v, %v", i, it.Value, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
