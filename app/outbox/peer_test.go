// SPDX-License-Identifier: Apache-2.0

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/memkv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/tracing"
)

// running starts a box and gives what ends it.
func running(t *testing.T, cfg outbox.Config) (b *outbox.Box, end func()) {
	t.Helper()
	cfg.Queue = queue
	cfg.Log = slog.New(slog.DiscardHandler)
	b = outbox.New(cfg)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, name := range cfg.Peers {
		<-b.Peer(name).Found()
	}
	return b, func() { stop(); wg.Wait() }
}

// write makes a batch with one record for everybody, the peers or the own region.
func write(t *testing.T, store kv.Store, b *outbox.Box, slot kv.Slot, whom, body string) {
	t.Helper()
	turn, err := b.Open(t.Context(), slot)
	if err != nil {
		t.Fatal(err)
	}
	defer turn.Close()
	batch := new(kv.Batch)
	switch whom {
	case "all":
		turn.Put(batch, []byte(body), tracing.Origin{})
	case "peers":
		turn.PutPeers(batch, []byte(body), tracing.Origin{})
	case "local":
		turn.PutLocal(batch, []byte(body), tracing.Origin{})
	}
	if err := turn.Seal(batch); err != nil {
		t.Fatal(err)
	}
	ver, err := store.Apply(t.Context(), slot, batch)
	if err != nil {
		t.Fatal(err)
	}
	turn.Applied(ver)
}

func rows(t *testing.T, store kv.Store, slot kv.Slot) int {
	t.Helper()
	items, _, err := store.Scan(t.Context(), slot, kv.Prefix([]byte{outbox.TableRecord}, 0), kv.Local)
	if err != nil {
		t.Fatal(err)
	}
	return len(items)
}

// readAll reads what a peer has not, from where it is.
func readAll(t *testing.T, p *outbox.Peer, slot kv.Slot, from outbox.Pos) (bodies []string, to outbox.Pos) {
	t.Helper()
	for {
		recs, next, err := p.Read(t.Context(), slot, from, 7, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return bodies, next
		}
		for i, r := range recs {
			if r.Number != from.Number+uint64(i)+1 || r.At.IsZero() {
				t.Fatalf("number %d at %v after %d", r.Number, r.At, from.Number)
			}
			bodies = append(bodies, string(r.Body))
		}
		from = next
	}
}

// TestPeers: a new peer needs a snapshot; each consumer gets what is for it, numbered
// without a gap; the log is kept for the slowest and no longer; restarts keep all that.
func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var mu sync.Mutex
		var told []string
		cfg := outbox.Config{
			Store: store, Consumer: "test", Peers: []string{"idc/2", "idc/3"},
			Deliver: func(_ context.Context, records []outbox.Record) error {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range records {
					told = append(told, string(r.Body))
				}
				return nil
			},
		}
		const slot kv.Slot = 9
		b, end := running(t, cfg)
		near, far := b.Peer("idc/2"), b.Peer("idc/3")
		if b.Peer("idc/4") != nil {
			t.Error("a peer that nobody named")
		}
		write(t, store, b, slot, "all", "before")
		for _, p := range []*outbox.Peer{near, far} {
			if _, _, known := p.Slot(slot); known {
				t.Error("a new peer needs no snapshot")
			}
			if _, err := p.Find(t.Context(), slot, 0); !errors.Is(err, outbox.ErrGone) {
				t.Errorf("Find: %v, want ErrGone", err)
			}
			if at := p.Hold(slot); at.Number != 1 {
				t.Errorf("held at %+v", at)
			} else {
				p.Ack(slot, at, time.Time{})
			}
		}
		var want []string
		for i := range 200 {
			body := fmt.Sprint(i)
			write(t, store, b, slot, []string{"all", "local", "peers", "local"}[i%4], body)
			if i%2 == 0 {
				want = append(want, body)
			}
		}
		_, from, _ := near.Slot(slot)
		got, to := readAll(t, near, slot, from)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the peer reads %v, want %v", got, want)
		}
		if st := b.Status().Peers; st[0].Records != 100 || st[0].Bytes == 0 || st[0].Oldest.IsZero() || st[0].Snapshots != kv.Slots-1 {
			t.Errorf("%+v", st[0])
		}
		near.Ack(slot, to, time.Time{})
		time.Sleep(time.Minute)
		mu.Lock()
		if len(told) != 151 {
			t.Errorf("%d told in the own region, want 151", len(told))
		}
		mu.Unlock()
		if n := rows(t, store, slot); n < 199 {
			t.Errorf("%d records are kept for the slower peer, want 200", n)
		}
		if st := b.Status(); st.Peers[0].Records != 0 || !st.Peers[0].Oldest.IsZero() || st.Peers[1].Records != 100 || st.Pending != 0 {
			t.Errorf("%+v", st)
		}

		end()
		b, end = running(t, cfg) // and again
		near, far = b.Peer("idc/2"), b.Peer("idc/3")
		if _, at, known := near.Slot(slot); !known || at != to {
			t.Errorf("the peer is at %+v (%v) after a restart, want %+v", at, known, to)
		}
		half, err := far.Find(t.Context(), slot, 51)
		if err != nil {
			t.Fatal(err)
		}
		got, to = readAll(t, far, slot, half)
		if fmt.Sprint(got) != fmt.Sprint(want[50:]) {
			t.Errorf("the other peer reads %v, want %v", got, want[50:])
		}
		if st := b.Status().Peers[1]; st.Records != 100 || st.Oldest.IsZero() {
			t.Errorf("after a restart %+v", st)
		}
		far.Ack(slot, to, time.Time{})
		time.Sleep(time.Minute)
		if n := rows(t, store, slot); n >= 64 {
			t.Errorf("%d records are kept for nobody", n)
		}
		if _, err := near.Find(t.Context(), slot, 30); !errors.Is(err, outbox.ErrGone) {
			t.Errorf("find what is removed: %v, want ErrGone", err)
		}
		for range 300 { // of which peers never hear: it is not kept for them
			write(t, store, b, slot, "local", "x")
		}
		time.Sleep(time.Minute)
		if n := rows(t, store, slot); n >= 64 {
			t.Errorf("%d records of the own region are kept for peers", n)
		}
		// A peer is read for from where it was, though what followed there is removed.
		write(t, store, b, slot, "peers", "after them")
		for _, p := range []*outbox.Peer{near, far} {
			if got, _ := readAll(t, p, slot, to); fmt.Sprint(got) != "[after them]" {
				t.Errorf("after many records of the own region a peer reads %v", got)
			}
		}
		end()
	})
}

// TestDropped: a peer that stays away is dropped and needs a snapshot; while it is sent
// one, what comes is kept for it; the others and the own region go on.
func TestDropped(t *testing.T) {
	tests := map[string]struct {
		retain outbox.Retention
		after  time.Duration
	}{
		"records": {retain: outbox.Retention{Records: 150}},
		"bytes":   {retain: outbox.Retention{Bytes: 8000}},
		"age":     {retain: outbox.Retention{Age: time.Minute}, after: time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				const slot kv.Slot = 9
				b, end := running(t, outbox.Config{Store: store, Peers: []string{"idc/2", "idc/3"}, Retain: test.retain})
				defer end()
				gone, there := b.Peer("idc/2"), b.Peer("idc/3")
				gone.Ack(slot, gone.Hold(slot), time.Time{})
				there.Ack(slot, there.Hold(slot), time.Time{})
				for range 200 {
					write(t, store, b, slot, "all", "b")
				}
				_, at, _ := there.Slot(slot)
				_, to := readAll(t, there, slot, at)
				there.Ack(slot, to, time.Time{})
				time.Sleep(test.after + time.Second)
				if _, _, known := gone.Slot(slot); known {
					t.Fatal("it is not dropped")
				}
				if _, _, known := there.Slot(slot); !known {
					t.Error("the other one is dropped, too")
				}
				if st := b.Status().Peers; st[0].Drops != 1 || st[1].Drops != 0 {
					t.Errorf("%+v", st)
				}
				if n := rows(t, store, slot); n >= 64 {
					t.Errorf("%d records are kept for one that is dropped", n)
				}
				hold := gone.Hold(slot)
				for range 100 {
					write(t, store, b, slot, "all", "b")
				}
				_, to = readAll(t, there, slot, to)
				there.Ack(slot, to, time.Time{})
				time.Sleep(time.Second)
				if bodies, to := readAll(t, gone, slot, hold); len(bodies) != 100 {
					t.Errorf("%d records beyond the snapshot, want 100", len(bodies))
				} else {
					gone.Ack(slot, hold, time.Time{})
					gone.Ack(slot, to, time.Time{})
				}
				if st := b.Status().Peers[0]; st.Records != 0 || st.Snapshots != kv.Slots-1 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// TestNoConsumer: where nobody listens, nothing is stored.
func TestNoConsumer(t *testing.T) {
	store := memkv.New()
	b := outbox.New(outbox.Config{Store: store, Queue: queue})
	write(t, store, b, 5, "all", "x")
	if n := rows(t, store, 5); n != 0 {
		t.Errorf("%d records", n)
	}
}

// TestTooLarge: a record that is too large fails its batch before it is applied, and the
// slot goes on.
func TestTooLarge(t *testing.T) {
	store := memkv.New()
	b := outbox.New(outbox.Config{Store: store, Queue: queue, Peers: []string{"idc/2"}})
	turn, err := b.Open(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	batch := new(kv.Batch)
	turn.Put(batch, make([]byte, outbox.MaxBody+1), tracing.Origin{})
	if err := turn.Seal(batch); !errors.Is(err, kv.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
	turn.Close()
	write(t, store, b, 5, "all", strings.Repeat("x", outbox.MaxBody))
	if n := rows(t, store, 5); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

// TestCursorsAreKept is a law: whatever is written, read, acknowledged, dropped and
// crashed, a peer that needs no snapshot can read all that it has not.
func TestCursorsAreKept(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			store := memkv.New()
			cfg := outbox.Config{
				Store: store, Consumer: "test", Peers: []string{"idc/2"}, Retain: outbox.Retention{Records: 400},
				Deliver: func(context.Context, []outbox.Record) error { return nil },
			}
			const slot kv.Slot = 1
			var all []string // for the peer, from the first
			has := uint64(0) // what the peer has
			var at outbox.Pos
			under := false // it is read for from at on, without looking for the place
			b, end := running(t, cfg)
			for range rapid.IntRange(1, 12).Draw(r, "steps") {
				p := b.Peer("idc/2")
				switch rapid.SampledFrom([]string{"write", "write", "read", "crash", "wait"}).Draw(r, "step") {
				case "write":
					whose := rapid.SampledFrom([][]string{{"all"}, {"local"}, {"all", "local"}}).Draw(r, "whose")
					for range rapid.IntRange(1, 150).Draw(r, "records") {
						whom := rapid.SampledFrom(whose).Draw(r, "whom")
						body := fmt.Sprint(len(all))
						write(t, store, b, slot, whom, body)
						if whom == "all" {
							all = append(all, body)
						}
					}
				case "read":
					var err error
					if !under {
						at, err = p.Find(t.Context(), slot, has)
					}
					limit := rapid.IntRange(1, 100).Draw(r, "limit")
					var recs []outbox.Record
					var next outbox.Pos
					if err == nil {
						recs, next, err = p.Read(t.Context(), slot, at, limit, 1<<20)
					}
					if _, _, known := p.Slot(slot); !known && errors.Is(err, outbox.ErrGone) {
						at = p.Hold(slot) // and a snapshot
						has = at.Number
						p.Ack(slot, at, time.Time{})
						recs, next, err = p.Read(t.Context(), slot, at, limit, 1<<20)
					}
					if err != nil {
						t.Fatal(err)
					}
					for i, rec := range recs {
						if string(rec.Body) != all[int(has)+i] {
							t.Fatalf("%s, want %s", rec.Body, all[int(has)+i])
						}
					}
					has += uint64(len(recs))
					if at, under = next, true; len(recs) > 0 {
						at = recs[len(recs)-1].After
					}
					if next.Number != has || at.Number != has {
						t.Fatalf("%v and %v after %d records", at, next, has)
					}
					if rapid.Bool().Draw(r, "heard") {
						p.Ack(slot, next, time.Time{})
					}
				case "crash":
					under = false
					end()
					store.Crash()
					var err error
					if store, err = store.Reopen(); err != nil {
						t.Fatal(err)
					}
					cfg.Store = store
					b, end = running(t, cfg)
				case "wait":
					time.Sleep(time.Second)
				}
			}
			end()
		})
	})
}

// TestJoinsAndLeaves: a peer that joins while records are put needs a snapshot, and gets all
// that is put after that began; nothing is kept for one that has left, and it needs a
// snapshot if it comes back, also after a start without it.
func TestJoinsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		cfg := outbox.Config{Store: store, Peers: []string{}}
		const slot, quiet kv.Slot = 9, 10
		b, end := running(t, cfg)
		if _, err := outbox.New(outbox.Config{Store: store}).Join("idc/2"); err == nil {
			t.Error("a box of its region alone takes a peer")
		}
		turn, err := b.Open(t.Context(), slot) // under way while the peer joins
		if err != nil {
			t.Fatal(err)
		}
		batch := new(kv.Batch)
		turn.Put(batch, []byte("first"), tracing.Origin{})
		p, err := b.Join("idc/2")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Join("idc/2"); err == nil {
			t.Error("a peer joins twice")
		}
		at := p.Hold(slot)
		if err := turn.Seal(batch); err != nil {
			t.Fatal(err)
		}
		ver, err := store.Apply(t.Context(), slot, batch)
		if err != nil {
			t.Fatal(err)
		}
		turn.Applied(ver)
		turn.Close()
		for i := range 100 {
			write(t, store, b, slot, "all", fmt.Sprint(i))
			write(t, store, b, quiet, "all", fmt.Sprint(i))
		}
		if got, to := readAll(t, p, slot, at); len(got) != 101 || got[0] != "first" {
			t.Errorf("it has missed some: %d records from %q on", len(got), got)
		} else {
			p.Ack(slot, to, time.Time{})
		}
		p.Ack(quiet, p.Hold(quiet), time.Time{})
		far, err := b.Join("idc/3")
		if err != nil {
			t.Fatal(err)
		}
		far.Hold(quiet)
		far.Hold(slot)
		for range 100 {
			write(t, store, b, quiet, "all", "more")
		}
		time.Sleep(time.Second)
		if n := rows(t, store, quiet); n < 100 {
			t.Errorf("%d records are kept for two peers, want 100", n)
		}
		b.Leave("idc/2")
		b.Leave("idc/3")
		b.Leave("idc/4") // never was
		time.Sleep(time.Second)
		if n := rows(t, store, quiet); n >= 64 {
			t.Errorf("%d records are kept for peers that have left", n)
		}
		if b.Peer("idc/2") != nil || len(b.Status().Peers) != 0 {
			t.Errorf("after all have left: %+v", b.Status())
		}
		end()

		cfg.Peers = nil // and the region is alone for a while
		_, end = running(t, cfg)
		time.Sleep(time.Second)
		end()
		cfg.Peers = []string{"idc/2"}
		b, end = running(t, cfg)
		defer end()
		if _, _, known := b.Peer("idc/2").Slot(slot); known {
			t.Error("who comes back after a time without it needs no snapshot")
		}
	})
}
