// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/kv/pebblekv"
	"github.com/sluice-rpc/sluice/app/outbox"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// The bench of the outbox asks what it costs to write for other regions, too: of a comment, through its service, beside one that
// nobody else is told of; and of the batches alone, of which the service's writing is but a part. Both sides take turns on one disk.
// And it asks how fast the log is read again when a region that was away is back.

const (
	outboxWriters = 32 // at a time; they share syncs, as the callers of a service do
	outboxTurn    = 300 * time.Millisecond
	outboxTurns   = 20 // of each side
	outboxName    = 40 // bytes of a record: the names of what has changed

	catchUpSlots   = 64
	catchUpRecords = 2048 // in each slot
	catchUpBody    = 1 << 10
	catchUpGroup   = 32 // records of a batch
	catchUpRounds  = 5
)

// outboxBench is a store with an outbox, and how far its writers are.
type outboxBench struct {
	store *pebblekv.Store
	box   *outbox.Box
	next  atomic.Uint64
	text  []byte // nothing that compresses well
}

func outboxCosts(ctx context.Context, out io.Writer, emit func(metric)) (err error) {
	_, dir, err := workspace(ctx, "", "bench-outbox-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := commentCosts(ctx, dir, emit); err != nil {
		return err
	}
	return batchCosts(ctx, filepath.Join(dir, "batches"), emit)
}

func batchCosts(ctx context.Context, dir string, emit func(metric)) (err error) {
	store, err := pebblekv.Open(dir, pebblekv.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	peer := idcqueue.Consumer(2)
	b := &outboxBench{store: store, text: make([]byte, 64<<10), box: outbox.New(outbox.Config{
		Store: store, Queue: framework.NewQueue("bench.Outbox/outbox", qos.Background), Peers: []string{peer}, Log: slog.New(slog.DiscardHandler),
	})}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range b.text {
		b.text[i] = byte(random.Uint32())
	}
	run, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	var ended error
	running.Go(func() { ended = b.box.Run(run) })
	defer func() {
		stop()
		running.Wait()
		err = errors.Join(err, ended)
	}()

	var ratios, without, with []float64
	for range outboxTurns {
		plain, err := b.writeFor(ctx, false)
		if err != nil {
			return err
		}
		sent, err := b.writeFor(ctx, true)
		if err != nil {
			return err
		}
		without, with, ratios = append(without, plain), append(with, sent), append(ratios, sent/plain)
	}
	emit(newMetric("regions.outbox.batch_without_us", "us", without, nil))
	emit(newMetric("regions.outbox.batch_us", "us", with, nil))
	emit(newMetric("regions.outbox.batch_ratio", "", ratios, nil))
	if err := b.fill(ctx); err != nil {
		return err
	}
	var speeds []float64
	for range catchUpRounds {
		speed, err := b.scan(ctx, b.box.Peer(peer))
		if err != nil {
			return err
		}
		speeds = append(speeds, speed)
	}
	emit(newMetric("regions.outbox.catchup_mb_s", "MB/s", speeds, atLeast(100)))
	return nil
}

// writeFor has all writers write comments for a turn, and gives the time of each in
// microseconds, as if they came one after the other.
func (b *outboxBench) writeFor(ctx context.Context, record bool) (float64, error) {
	var all errgroup.Group
	var writes atomic.Int64
	began := time.Now()
	for w := range outboxWriters {
		slot := kv.Slot(1024 + w)
		if record {
			slot += outboxWriters
		}
		all.Go(func() error {
			for time.Since(began) < outboxTurn {
				if err := b.write(ctx, slot, record); err != nil {
					return err
				}
				writes.Add(1)
			}
			return nil
		})
	}
	err := all.Wait()
	return float64(time.Since(began).Microseconds()) / float64(max(writes.Load(), 1)), err
}

// write stores what a comment does: its record of 230 bytes, the head of its post, and its
// idempotency key.
func (b *outboxBench) write(ctx context.Context, slot kv.Slot, record bool) error {
	n := b.next.Add(1)
	key := func(table byte) []byte { return binary.BigEndian.AppendUint64([]byte{table}, n) }
	batch := new(kv.Batch).Put(key('l'), b.some(230)).Put([]byte("h"), b.some(65)).Put(key('k'), b.some(40))
	if !record {
		_, err := b.store.Apply(ctx, slot, batch)
		return err
	}
	return b.put(ctx, slot, batch, 1, outboxName)
}

func (b *outboxBench) some(n int) []byte {
	at := rand.IntN(len(b.text) - n)
	return b.text[at : at+n]
}

// put adds records to a batch and applies it.
func (b *outboxBench) put(ctx context.Context, slot kv.Slot, batch *kv.Batch, records, size int) error {
	turn, err := b.box.Open(ctx, slot)
	if err != nil {
		return err
	}
	defer turn.Close()
	for range records {
		turn.PutPeers(batch, b.some(size), tracing.Origin{})
	}
	if err := turn.Seal(batch); err != nil {
		return err
	}
	ver, err := b.store.Apply(ctx, slot, batch)
	if err == nil {
		turn.Applied(ver)
	}
	return err
}

// fill leaves a log for a region that is away.
func (b *outboxBench) fill(ctx context.Context) error {
	var all errgroup.Group
	all.SetLimit(outboxWriters)
	for slot := range kv.Slot(catchUpSlots) {
		all.Go(func() error {
			for range catchUpRecords / catchUpGroup {
				if err := b.put(ctx, slot, new(kv.Batch), catchUpGroup, catchUpBody); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return all.Wait()
}

// scan reads the log as a sender does that catches up, one slot after the other, and gives
// its speed in MB of records a second.
func (b *outboxBench) scan(ctx context.Context, p *outbox.Peer) (float64, error) {
	size := 0
	began := time.Now()
	for slot := range kv.Slot(catchUpSlots) {
		var at outbox.Pos
		for {
			records, to, err := p.Read(ctx, slot, at, 1<<20, 64<<10)
			if err != nil {
				return 0, err
			}
			if len(records) == 0 {
				break
			}
			for _, r := range records {
				size += len(r.Body)
			}
			at = to
		}
	}
	if want := catchUpSlots * catchUpRecords * catchUpBody; size != want {
		return 0, fmt.Errorf("the log gave %d bytes, want %d", size, want)
	}
	return float64(size) / 1e6 / time.Since(began).Seconds(), nil
}
