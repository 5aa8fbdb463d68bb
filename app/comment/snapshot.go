// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
)

// A snapshot of a long log saves who reads a post that is not in memory from folding
// all of it. It is written aside, part by part, and counts once its pointer does.
//
// What is deleted must be nowhere: the batch of a delete removes the snapshot and
// writes the pointer, and every batch of a snapshot in the making has the pointer's
// version as its condition.
const (
	// snapshotMin is how many operations a log has at least to be worth a snapshot:
	// folding that many takes about a millisecond.
	snapshotMin = 500
	// snapshotPart is the size of a part in bytes; a batch takes some of them.
	snapshotPart, partsOfBatch = 64 << 10, 6
	// snapshotEvery is how often snapshots are made: a post that is busy, or of which
	// comments are deleted one by one, has one in that time.
	snapshotEvery = 5 * time.Second
	// maxDue bounds the posts that wait for a snapshot; others wait until they are written
	// again, or read after they have gone from memory.
	maxDue = 1000
)

// pointer says where a snapshot is. Form: version 1, parts, then the head that it
// stands for. An empty one is of none.
type pointer struct {
	parts int
	head  causal.Head
}

func (p pointer) encode() []byte {
	return append(binary.BigEndian.AppendUint32([]byte{1}, uint32(p.parts)), p.head.Encode()...)
}

func parsePointer(b []byte) (p pointer, err error) {
	if len(b) == 0 {
		return p, nil
	}
	if len(b) < 5 || b[0] != 1 {
		return p, fmt.Errorf("comment: pointer to a snapshot %x is not of version 1", b)
	}
	p.parts = int(binary.BigEndian.Uint32(b[1:]))
	p.head, err = causal.ParseHead(b[5:])
	return p, err
}

// ops gives the number of operations that a head has seen, which also numbers the
// snapshots of a post.
func ops(h causal.Head) (n uint64) {
	for _, e := range h.Seen {
		n += e.Seq
	}
	return n
}

func partsKey(p id.Post) []byte { return append([]byte{tableParts}, p[:]...) }

func partKey(p id.Post, number uint64, part int) []byte {
	k := binary.BigEndian.AppendUint64(partsKey(p), number)
	return binary.BigEndian.AppendUint32(k, uint32(part))
}

func pointerKey(p id.Post) []byte { return append([]byte{tablePointer}, p[:]...) }

// restore gives the thread's latest snapshot, nil if there is none.
func (ts *threads) restore(ctx context.Context, p id.Post) (*causal.Thread, causal.Head, error) {
	slot := kv.SlotOf(p[:])
	it, err := ts.store.Get(ctx, slot, pointerKey(p), kv.Local)
	if err != nil {
		return nil, causal.Head{}, err
	}
	ptr, err := parsePointer(it.Value)
	if err != nil || ptr.parts == 0 {
		return nil, causal.Head{}, err
	}
	number := ops(ptr.head)
	parts := make([][]byte, 0, ptr.parts)
	r := kv.Range{From: partKey(p, number, 0), To: partKey(p, number, ptr.parts)}
	for more := true; more; {
		var items []kv.Item
		if items, more, err = ts.store.Scan(ctx, slot, r, kv.Local); err != nil {
			return nil, causal.Head{}, err
		}
		for _, it := range items {
			if !bytes.Equal(it.Key, partKey(p, number, len(parts))) {
				return nil, causal.Head{}, nil // replaced while it was read
			}
			parts = append(parts, it.Value)
			r.From = kv.Next(it.Key)
		}
	}
	if len(parts) != ptr.parts {
		return nil, causal.Head{}, nil // likewise
	}
	t, err := causal.Restore(parts)
	return t, ptr.head, err
}

// due holds the posts that want a snapshot.
type due struct {
	mu    sync.Mutex
	posts map[id.Post]struct{} // guarded by mu
}

func (d *due) add(p id.Post) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.posts) < maxDue {
		if d.posts == nil {
			d.posts = make(map[id.Post]struct{})
		}
		d.posts[p] = struct{}{}
	}
}

func (d *due) take() map[id.Post]struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.posts
	d.posts = nil
	return all
}

// keepSnapshots writes the snapshots that are due until ctx ends.
func (ts *threads) keepSnapshots(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(snapshotEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for p := range ts.due.take() {
			if err := ts.snapshot(ctx, p); err != nil && ctx.Err() == nil && !errors.Is(err, kv.ErrConflict) {
				log.WarnContext(ctx, "a post has no snapshot yet; reading it costs more", "post", p, "error", err)
			}
		}
	}
}

// snapshot writes a post's thread as it is now. A delete meanwhile makes it fail with
// kv.ErrConflict, and then there is none.
func (ts *threads) snapshot(ctx context.Context, p id.Post) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	slot, ptrKey := kv.SlotOf(p[:]), pointerKey(p)
	// In this order: what is deleted after the pointer was read is a conflict below.
	ptr, err := ts.store.Get(ctx, slot, ptrKey, kv.Linearizable)
	if err != nil {
		return err
	}
	head, err := ts.store.Get(ctx, slot, headKey(p), kv.Linearizable)
	if err != nil || head.Ver == 0 {
		return err
	}
	var parts [][]byte
	var at causal.Head
	err = ts.with(ctx, p, head, func(t *thread) error {
		if t.fold.Collect(ts.stable(t.head.Seen, t.said)) > 0 {
			t.collected = true
		}
		parts, at = t.fold.Snapshot(snapshotPart), t.head
		return nil
	})
	if err != nil {
		return err
	}
	number := ops(at)
	if have, err := parsePointer(ptr.Value); err != nil || have.parts > 0 && ops(have.head) >= number {
		return err
	}
	for i := 0; i < len(parts); i += partsOfBatch {
		b := new(kv.Batch).IfVer(ptrKey, ptr.Ver)
		for j, part := range parts[i:min(i+partsOfBatch, len(parts))] {
			b.Put(partKey(p, number, i+j), part)
		}
		if _, err := ts.store.Apply(ctx, slot, b); err != nil {
			return err
		}
	}
	b := new(kv.Batch).IfVer(ptrKey, ptr.Ver).Put(ptrKey, pointer{parts: len(parts), head: at}.encode())
	b.DeleteRange(partsKey(p), partKey(p, number, 0)) // the one before, and what failed
	if _, err := ts.store.Apply(ctx, slot, b); err != nil {
		return err
	}
	return ts.with(ctx, p, head, func(t *thread) error {
		t.snapped = max(t.snapped, number)
		return nil
	})
}

// dropSnapshot adds to a batch that deletes a comment what its text also stands in.
func dropSnapshot(b *kv.Batch, p id.Post) {
	prefix := partsKey(p)
	b.Put(pointerKey(p), nil).DeleteRange(prefix, kv.PrefixEnd(prefix))
}
