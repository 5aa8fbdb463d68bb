// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"fmt"
	"sync"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
)

// threads keeps the folded logs of the latest posts. A folded log is brought up to
// the head before each use, with what came since, so it is never older than the
// store. It may be used concurrently.
type threads struct {
	store kv.Store
	limit int

	mu   sync.Mutex
	kept map[id.Post]*thread // guarded by mu
	size int                 // guarded by mu; sizes of all kept, as last told
}

// thread is the folded log of one post.
type thread struct {
	mu   sync.Mutex
	ver  uint64      // guarded by mu; version of the head's row, 0 for an empty log
	head causal.Head // guarded by mu
	fold causal.Thread

	told int // guarded by threads.mu; the size that counts in threads.size
}

func newThreads(store kv.Store, limit int) *threads {
	return &threads{store: store, limit: limit, kept: make(map[id.Post]*thread)}
}

// snapshot is what a reader needs of a thread. It is immutable.
type snapshot struct {
	comments []causal.Comment
	likes    []causal.Approval
}

// read gives a post's thread as it is now.
func (ts *threads) read(ctx context.Context, p id.Post) (snapshot, error) {
	// Most posts have no log: one look, and nothing is kept.
	it, err := ts.store.Get(ctx, kv.SlotOf(p[:]), headKey(p), kv.Local)
	if err != nil || it.Ver == 0 {
		return snapshot{}, err
	}
	var snap snapshot
	err = ts.with(ctx, p, it, func(t *thread) error {
		snap = snapshot{comments: t.fold.Comments(), likes: t.fold.Likes()}
		return nil
	})
	return snap, err
}

// with lets do look at a thread that is no older than the head it is given, and not
// changed meanwhile. The head is read first, by whoever calls.
func (ts *threads) with(ctx context.Context, p id.Post, head kv.Item, do func(*thread) error) error {
	t := ts.get(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ver < head.Ver {
		if err := ts.catchUp(ctx, p, t, head); err != nil {
			return err
		}
	}
	err := do(t)
	ts.tell(p, t, t.fold.Size()+1)
	return err
}

// catchUp folds what a head has and the thread has not. The log is only added to, so
// each region's part is one stretch of it.
func (ts *threads) catchUp(ctx context.Context, p id.Post, t *thread, item kv.Item) error {
	head, err := causal.ParseHead(item.Value)
	if err != nil {
		return fmt.Errorf("comment: head of %v: %w", p, err)
	}
	slot := kv.SlotOf(p[:])
	for _, e := range head.Seen {
		have := t.head.Seen.Of(e.Region)
		for have < e.Seq {
			r := kv.Range{From: logKey(p, e.Region, have+1), To: kv.Next(logKey(p, e.Region, e.Seq))}
			items, _, err := ts.store.Scan(ctx, slot, r, kv.Local)
			if err != nil {
				return err
			}
			if len(items) == 0 {
				return fmt.Errorf("comment: the log of %v lacks %d of region %d, which its head has", p, have+1, e.Region)
			}
			for _, it := range items {
				rec, err := parseRecord(it.Value)
				if err != nil {
					return err
				}
				have++
				if rec.Seq != have {
					return fmt.Errorf("comment: the log of %v has %d of region %d where %d belongs", p, rec.Seq, e.Region, have)
				}
				t.fold.Fold(&rec)
				t.head = t.head.After(&rec)
			}
		}
	}
	t.head.Last = max(t.head.Last, head.Last)
	t.ver = item.Ver
	return nil
}

func (ts *threads) get(p id.Post) *thread {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.kept[p]
	if t == nil {
		t = new(thread)
		ts.kept[p] = t
	}
	return t
}

// tell accounts for a thread's size, and drops others when all are too large. Who
// still uses a dropped one has the only copy; the next reader folds anew.
func (ts *threads) tell(p id.Post, t *thread, size int) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.kept[p] != t {
		return
	}
	ts.size += size - t.told
	t.told = size
	for other, o := range ts.kept { // which the map names first, which is chance
		if ts.size <= ts.limit {
			break
		}
		if other != p {
			ts.size -= o.told
			delete(ts.kept, other)
		}
	}
}
