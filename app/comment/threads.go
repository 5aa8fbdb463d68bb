// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"fmt"
	"log/slog"
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
	stamp func(kv.Slot) (uint64, bool) // of store
	limit int
	own   id.Region // the number that comments are made under here
	due   due
	// stable gives what no region will reply to in ignorance; see causal.Registry.Stable.
	stable func(mine causal.Vector, said map[id.Region]causal.Vector) causal.Vector
	log    *slog.Logger

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
	// stamp is one of the post's slot: while it holds, ver is that of the row. Guarded by
	// mu.
	stamp uint64

	snapped uint64 // guarded by mu; operations that the latest known snapshot has

	// said is how far each other region was when it made its latest operation here.
	// Guarded by mu.
	said map[id.Region]causal.Vector
	// collected: deleted comments may have been forgotten. Guarded by mu.
	collected bool

	told int // guarded by threads.mu; the size that counts in threads.size
}

func newThreads(store kv.Store, own id.Region, limit int, log *slog.Logger) *threads {
	return &threads{store: store, stamp: kv.StampOf(store), own: own, limit: limit, log: log, kept: make(map[id.Post]*thread)}
}

// snapshot is what a reader needs of a thread. It is immutable.
type snapshot struct {
	comments []causal.Comment
	likes    []causal.Approval
	seen     causal.Vector // what the replica has
	ahead    causal.Vector // what the thread shows beyond it: see causal.Thread.Ahead
}

// empty holds for a thread in which nobody sees anything.
func (snap *snapshot) empty() bool { return len(snap.comments)+len(snap.likes) == 0 }

// shown is what a session has seen that is shown the thread.
func (snap *snapshot) shown() causal.Vector {
	if len(snap.ahead) == 0 {
		return snap.seen
	}
	return snap.seen.Join(snap.ahead)
}

// read gives a post's thread as it is now.
func (ts *threads) read(ctx context.Context, p id.Post) (snapshot, error) {
	var one [1]snapshot
	err := ts.readAll(ctx, []id.Post{p}, one[:])
	return one[0], err
}

// readAll fills in posts' threads as they are now.
func (ts *threads) readAll(ctx context.Context, posts []id.Post, snaps []snapshot) error {
	type look struct { // at a post of which nothing is known
		post    int
		stamp   uint64
		stamped bool
	}
	looks := make([]look, 0, 20)
	var places []kv.Place
	var keys []byte
	for i, p := range posts {
		slot := kv.SlotOf(p[:])
		stamp, stamped := ts.stamp(slot)
		known := false
		if stamped {
			snaps[i], known = ts.peek(p, stamp)
		}
		if !known {
			if places == nil {
				places, keys = make([]kv.Place, 0, len(posts)-i), make([]byte, 0, headKeyLen*(len(posts)-i))
			}
			looks = append(looks, look{i, stamp, stamped})
			keys = append(append(keys, tableHead), p[:]...)
			places = append(places, kv.Place{Slot: slot, Key: keys[len(keys)-headKeyLen:]})
		}
	}
	if len(places) == 0 {
		return nil
	}
	heads, err := kv.GetMany(ctx, ts.store, places, kv.Local)
	if err != nil {
		return err
	}
	for n, l := range looks {
		if heads[n].Ver == 0 {
			continue // most posts have no log, and nothing is kept of them
		}
		err := ts.with(ctx, posts[l.post], heads[n], func(t *thread) error {
			snaps[l.post] = t.now()
			if l.stamped {
				t.stamp = l.stamp
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// peek gives a thread that is kept if nothing has changed in the slot since stamp, at
// which it was as its head says.
func (ts *threads) peek(p id.Post, stamp uint64) (snapshot, bool) {
	ts.mu.Lock()
	t := ts.kept[p]
	ts.mu.Unlock()
	if t == nil {
		return snapshot{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ver == 0 || t.stamp != stamp {
		return snapshot{}, false
	}
	return t.now(), true
}

// now gives what readers need. The caller holds mu.
func (t *thread) now() snapshot {
	return snapshot{comments: t.fold.Comments(), likes: t.fold.Likes(), seen: t.head.Seen, ahead: t.fold.Ahead()}
}

// with lets do look at a thread that is no older than the head it is given, and not
// changed meanwhile. The head is read first, by whoever calls.
func (ts *threads) with(ctx context.Context, p id.Post, head kv.Item, do func(*thread) error) error {
	t := ts.get(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ver < head.Ver {
		err := ts.catchUp(ctx, p, t, head)
		ts.tell(p, t, t.fold.Size()+1)
		if err != nil {
			return err
		}
	}
	err := do(t)
	if n := ops(t.head); n-t.snapped > max(snapshotMin, t.snapped/2) {
		ts.due.add(p)
	}
	return err
}

// catchUp folds what a head has and the thread has not. The log is only added to, so
// each region's part is one stretch of it.
func (ts *threads) catchUp(ctx context.Context, p id.Post, t *thread, item kv.Item) error {
	head, err := causal.ParseHead(item.Value)
	if err != nil {
		return fmt.Errorf("comment: head of %v: %w", p, err)
	}
	if t.ver == 0 && ops(t.head) == 0 && ops(head) > snapshotMin {
		fold, at, err := ts.restore(ctx, p)
		if err != nil {
			return err
		}
		if fold != nil && head.Seen.Covers(at.Seen) {
			t.fold, t.head, t.snapped, t.collected = *fold, at, ops(at), true
		}
	}
	if err := ts.foldTo(ctx, p, t, head); err != nil {
		return err
	}
	if t.collected && t.fold.Torn() { // somebody answered what had been forgotten
		t.forget()
		if err := ts.foldTo(ctx, p, t, head); err != nil {
			return err
		}
	}
	t.head, t.ver = head, item.Ver
	return nil
}

// add folds an operation.
func (t *thread) add(r *causal.Record, own id.Region) (fork bool) {
	if n := r.ID.Region(); n != own {
		if t.said == nil {
			t.said = make(map[id.Region]causal.Vector)
		}
		t.said[n] = r.Deps.With(n, r.Seq)
	}
	return t.fold.Fold(r)
}

// forget makes a thread one of which nothing is folded.
func (t *thread) forget() {
	t.ver, t.head, t.fold, t.said, t.collected, t.snapped = 0, causal.Head{}, causal.Thread{}, nil, false, 0
}

// foldTo folds what is in the log up to a head.
func (ts *threads) foldTo(ctx context.Context, p id.Post, t *thread, head causal.Head) error {
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
				if t.add(&rec, ts.own) {
					ts.log.ErrorContext(ctx, "two operations have one id: a disk was set back; both are in the log", "post", p, "id", rec.ID)
				}
				t.head = t.head.After(&rec)
			}
		}
	}
	if t.head.Sum == head.Sum && head.Sum != (causal.Sum{}) || len(head.Seen) == 0 {
		return nil
	}
	// There are others that claim a place in the log.
	r := kv.Prefix(besidePrefix(p), kv.MaxScan)
	for more := true; more; {
		items, rest, err := ts.store.Scan(ctx, slot, r, kv.Local)
		if err != nil {
			return err
		}
		for _, it := range items {
			rec, err := parseRecord(it.Value)
			if err != nil {
				return err
			}
			t.fold.Fold(&rec)
			r.From = kv.Next(it.Key)
		}
		more = rest && len(items) > 0
	}
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
