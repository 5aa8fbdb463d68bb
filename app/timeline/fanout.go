// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// bulkPuts is how many entries share a write. It holds the friends of the most
// popular author with his own entry, and 8 such writes at a time are 3 MB.
const bulkPuts = 5001

// FanOut puts posts into timelines; see the contract.
func (s *Service) FanOut(ctx context.Context, req *momentsv1.FanOutRequest) (*momentsv1.FanOutResponse, error) {
	if n := len(req.GetPosts()); n > maxFanOut {
		return nil, problem.Invalid("posts", "has %d posts, at most %d", n, maxFanOut)
	}
	w := newBulk(s)
	defer w.release()
	var last id.User // whose friends readers are: posts of one author mostly come together
	var readers []recipient
	for _, fp := range req.GetPosts() {
		p, err := id.ParsePost(fp.GetPostId())
		if err != nil {
			return nil, problem.Invalid("posts.post_id", "%v", err)
		}
		author, err := problem.User("posts.author_id", fp.GetAuthorId())
		if err != nil {
			return nil, err
		}
		// The list is read after all posts of the request were made, so that nobody who
		// was a friend by then is missing.
		if author != last {
			if readers, err = s.friends.of(ctx, author); err != nil {
				return nil, err
			}
			last = author
		}
		if err := w.add(ctx, recipient{author, kv.SlotOf(author[:])}, p); err != nil {
			return nil, err
		}
		for _, r := range readers {
			if err := w.add(ctx, r, p); err != nil {
				return nil, err
			}
		}
	}
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	return &momentsv1.FanOutResponse{Deliveries: w.written}, nil
}

// Backfill puts an author's newest posts into one timeline; see the contract.
func (s *Service) Backfill(ctx context.Context, req *momentsv1.BackfillRequest) (*momentsv1.BackfillResponse, error) {
	reader, err := problem.User("reader_id", req.GetReaderId())
	if err != nil {
		return nil, err
	}
	if _, err := problem.User("author_id", req.GetAuthorId()); err != nil {
		return nil, err
	}
	if err := s.awaitBothSides(ctx, req.GetReaderId(), req.GetAuthorId()); err != nil {
		return nil, err
	}
	album, err := s.post.Album(ctx, &momentsv1.AlbumRequest{
		ViewerId: req.GetReaderId(), AuthorId: req.GetAuthorId(), Limit: backfill, HeadsOnly: true,
	})
	if err != nil {
		return nil, err
	}
	w := newBulk(s)
	defer w.release()
	for _, post := range album.GetPosts() {
		p, err := id.ParsePost(post.GetId())
		if err != nil {
			return nil, err
		}
		if err := w.add(ctx, recipient{reader, kv.SlotOf(reader[:])}, p); err != nil {
			return nil, err
		}
	}
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	return &momentsv1.BackfillResponse{Deliveries: w.written}, nil
}

// awaitBothSides returns when the author's side of a friendship is on, if the
// reader's is. The two are written one after the other. A post made in between would
// miss the reader, in fan-out because he is not on the author's list yet, and in the
// album if that had been read before.
func (s *Service) awaitBothSides(ctx context.Context, reader, author string) error {
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		var on [2]bool
		for i, side := range [2][2]string{{reader, author}, {author, reader}} {
			res, err := s.friends.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: side[0], AuthorIds: side[1:]})
			if err != nil {
				return err
			}
			on[i] = len(res.GetRelations()) == 1 && res.GetRelations()[0].GetFriends()
		}
		if !on[0] || on[1] {
			return nil // if they are no friends any more, the album is empty
		}
		if pause > time.Second {
			return rpc.Errorf(rpc.Unavailable, "the author's side of the friendship is not known yet; try again")
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// bulk gathers index entries and writes them in large groups.
type bulk struct {
	s       *Service
	room    *bulkRoom
	written uint64
}

// bulkRoom is the memory of a bulk, used again by the next: it is as large as all
// that fan-out otherwise allocates.
type bulkRoom struct {
	puts []kv.SlotPut
	keys [bulkPuts * indexKeyLen]byte
	trim []recipient
}

var bulkRooms = sync.Pool{New: func() any { return &bulkRoom{puts: make([]kv.SlotPut, 0, bulkPuts)} }}

func newBulk(s *Service) *bulk { return &bulk{s: s, room: bulkRooms.Get().(*bulkRoom)} }

func (w *bulk) release() {
	w.room.puts, w.room.trim = w.room.puts[:0], w.room.trim[:0]
	bulkRooms.Put(w.room)
}

// add puts a post into a timeline, now or with the next flush.
func (w *bulk) add(ctx context.Context, r recipient, p id.Post) error {
	m := w.room
	if len(m.puts) == bulkPuts {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	at := len(m.puts) * indexKeyLen
	key := m.keys[at : at+indexKeyLen : at+indexKeyLen]
	putIndexKey(key, r.user, p)
	m.puts = append(m.puts, kv.SlotPut{Slot: r.slot, Key: key})
	// Trimming is by chance, so that nobody need count: a timeline is looked at about
	// twice for each cap of entries, and holds half a cap too much on average.
	if rand.IntN(max(w.s.cap/2, 1)) == 0 {
		m.trim = append(m.trim, r)
	}
	return nil
}

// flush writes what was gathered.
func (w *bulk) flush(ctx context.Context) error {
	m := w.room
	if len(m.puts) == 0 {
		return nil
	}
	if err := w.s.store.BulkPut(ctx, m.puts); err != nil {
		return problem.Store("write timelines", err)
	}
	w.written += uint64(len(m.puts))
	m.puts = m.puts[:0]
	for _, r := range m.trim {
		if err := w.s.trim(ctx, r); err != nil {
			return err
		}
	}
	m.trim = m.trim[:0]
	return nil
}

// trim removes what is beyond the cap of a timeline, and notes that it did.
func (s *Service) trim(ctx context.Context, r recipient) error {
	rng := kv.Prefix(indexPrefix(r.user), 0)
	for left := s.cap; ; {
		rng.Limit = min(left+1, kv.MaxScan)
		items, more, err := s.store.Scan(ctx, r.slot, rng, kv.Local)
		if err != nil {
			return problem.Store("scan timeline to trim it", err)
		}
		if len(items) > left {
			first := items[left].Key
			b := new(kv.Batch).DeleteRange(first, rng.To)
			p := indexPost(first)
			b.Put(readerKey(tableTrimmed, r.user), p[:])
			if _, err := s.store.Apply(ctx, r.slot, b); err != nil {
				return problem.Store("trim timeline", err)
			}
			return nil
		}
		if !more {
			return nil
		}
		left -= len(items)
		rng.From = kv.Next(items[len(items)-1].Key)
	}
}

// recipient is a reader with the slot of his timeline.
type recipient struct {
	user id.User
	slot kv.Slot
}

// friends keeps friend lists by version. It may be used concurrently.
type friends struct {
	account Account
	limit   int

	mu    sync.Mutex
	lists map[id.User]friendList // guarded by mu
	kept  int                    // guarded by mu; total over lists
}

// friendList is never changed.
type friendList struct {
	version uint64
	readers []recipient
}

func newFriends(account Account, limit int) *friends {
	return &friends{account: account, limit: limit, lists: make(map[id.User]friendList)}
}

// of gives an author's friends as they are now or later. The slice is shared.
func (f *friends) of(ctx context.Context, author id.User) ([]recipient, error) {
	f.mu.Lock()
	had := f.lists[author]
	f.mu.Unlock()
	text := author.String()
	if had.version != 0 {
		res, err := f.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: text, KnownVersion: had.version})
		if err != nil && rpc.CodeOf(err) != rpc.NotFound {
			return nil, err
		}
		if res.GetUnchanged() {
			return had.readers, nil
		}
	}
	list, steady, err := f.read(ctx, text)
	if err != nil {
		if rpc.CodeOf(err) == rpc.NotFound {
			return nil, nil // the account is gone: nobody is left to tell
		}
		return nil, err
	}
	if steady {
		f.keep(author, list)
	}
	return list.readers, nil
}

// read pages through a friend list. Steady says that it did not change meanwhile;
// a list that did holds everyone who was a friend all the time, which is enough to
// use it once, as who became one is filled in by Backfill.
func (f *friends) read(ctx context.Context, author string) (list friendList, steady bool, err error) {
	req := &momentsv1.ListFriendsRequest{UserId: author, Limit: 500}
	steady = true
	for {
		res, err := f.account.ListFriends(ctx, req)
		if err != nil {
			return list, false, err
		}
		if req.GetCursor() == "" {
			list.version = res.GetVersion()
			list.readers = make([]recipient, 0, len(res.GetUserIds()))
		}
		steady = steady && res.GetVersion() == list.version
		for _, v := range res.GetUserIds() {
			u, err := id.ParseUser(v)
			if err != nil {
				return list, false, err
			}
			list.readers = append(list.readers, recipient{u, kv.SlotOf(u[:])})
		}
		switch next := res.GetNextCursor(); next {
		case "":
			// In the order of the store: an embedded engine finds the place of a key faster
			// from that of the key before it.
			slices.SortFunc(list.readers, func(a, b recipient) int {
				return cmp.Or(cmp.Compare(a.slot, b.slot), a.user.Compare(b.user))
			})
			return list, steady, nil
		case req.GetCursor():
			return list, false, errors.New("timeline: account lists friends in a circle")
		default:
			req = &momentsv1.ListFriendsRequest{UserId: author, Limit: 500, Cursor: next}
		}
	}
}

func (f *friends) keep(author id.User, list friendList) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, had := f.lists[author]
	if had && old.version > list.version {
		return
	}
	// A list costs its friends and about as much as one more for itself.
	f.kept += len(list.readers) - len(old.readers)
	if !had {
		f.kept++
	}
	f.lists[author] = list
	for other, l := range f.lists { // whom the map names first, which is chance
		if f.kept <= f.limit {
			break
		}
		if other != author {
			f.kept -= len(l.readers) + 1
			delete(f.lists, other)
		}
	}
}
