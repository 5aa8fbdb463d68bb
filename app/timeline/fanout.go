// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/relations"
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
			// One that is not steady will do once: who became a friend meanwhile is filled in
			// by Backfill.
			if readers, _, err = s.friends.Of(ctx, author); err != nil {
				return nil, err
			}
			last = author
		}
		if s.keeps(author) {
			if err := w.add(ctx, recipient{author, kv.SlotOf(author[:])}, p); err != nil {
				return nil, err
			}
		}
		for _, r := range readers {
			if !s.keeps(r.user) || !isFor(fp, r.user) {
				continue
			}
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

// keeps reports whether somebody's timeline is kept in this region: every region fans a
// post out to its own users.
func (s *Service) keeps(u id.User) bool { return s.home == 0 || s.homes.Of(u).Keeps(s.home) }

// isFor reports whether a friend of its author gets a post into his timeline. Fan-out
// goes by whom a post is for alone: settings can be taken back, so they are looked at
// when a timeline is read.
func isFor(fp *momentsv1.FanOutPost, u id.User) bool {
	switch fp.GetAudience() {
	case momentsv1.Audience_AUDIENCE_UNSPECIFIED, momentsv1.Audience_AUDIENCE_FRIENDS:
		return true
	case momentsv1.Audience_AUDIENCE_ALLOW:
		return named(fp.GetAllowIds(), u) && !named(fp.GetDenyIds(), u)
	case momentsv1.Audience_AUDIENCE_DENY:
		return !named(fp.GetDenyIds(), u)
	case momentsv1.Audience_AUDIENCE_ONLY_ME:
	}
	return false
}

// named reports whether a person is in a sorted list of persons of 16 bytes each.
func named(list []byte, u id.User) bool {
	n := len(list) / 16
	i := sort.Search(n, func(i int) bool { return bytes.Compare(list[16*i:16*i+16], u[:]) >= 0 })
	return i < n && bytes.Equal(list[16*i:16*i+16], u[:])
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
	w := newBulk(s)
	defer w.release()
	left := backfill
	for before, more := "", true; more && left > 0; more = before != "" {
		// What settings hide now is filled in too, as by fan-out: they can be taken back.
		res, err := s.post.MergeAlbums(ctx, &momentsv1.MergeAlbumsRequest{
			ViewerId: req.GetReaderId(), AuthorIds: []string{req.GetAuthorId()}, BeforeId: before, Limit: backfill, HeadsOnly: true, ForIndex: true,
		})
		if err != nil {
			return nil, err
		}
		for _, post := range res.GetPosts()[:min(left, len(res.GetPosts()))] {
			p, err := id.ParsePost(post.GetId())
			if err != nil {
				return nil, err
			}
			if err := w.add(ctx, recipient{reader, kv.SlotOf(reader[:])}, p); err != nil {
				return nil, err
			}
			left--
		}
		before = res.GetReachedId()
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
			res, err := s.account.Relations(ctx, &momentsv1.RelationsRequest{ViewerId: side[0], AuthorIds: side[1:]})
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
	keys  [bulkPuts * indexKeyLen]byte
	order []place
	puts  [bulkPuts]kv.SlotPut
	trim  []recipient
}

// place says where the key of an entry is, in the order of add.
type place struct {
	slot kv.Slot
	at   uint16
}

func (m *bulkRoom) key(at uint16) []byte {
	i := int(at) * indexKeyLen
	return m.keys[i : i+indexKeyLen : i+indexKeyLen]
}

var bulkRooms = sync.Pool{New: func() any { return &bulkRoom{order: make([]place, 0, bulkPuts)} }}

func newBulk(s *Service) *bulk { return &bulk{s: s, room: bulkRooms.Get().(*bulkRoom)} }

func (w *bulk) release() {
	w.room.order, w.room.trim = w.room.order[:0], w.room.trim[:0]
	bulkRooms.Put(w.room)
}

// add puts a post into a timeline, now or with the next flush.
func (w *bulk) add(ctx context.Context, r recipient, p id.Post) error {
	m := w.room
	if len(m.order) == bulkPuts {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	at := place{r.slot, uint16(len(m.order))}
	putIndexKey(m.key(at.at), r.user, p)
	m.order = append(m.order, at)
	// Trimming is by chance, so that nobody need count: a timeline is looked at about
	// twice for each cap of entries, and holds half a cap too much on average.
	if rand.IntN(max(w.s.cap/2, 1)) == 0 {
		m.trim = append(m.trim, r)
	}
	return nil
}

// flush writes what was gathered, in the order of the store: an embedded engine finds the
// place of a key at once if it follows the one before it, as that of another post for the
// same reader does.
func (w *bulk) flush(ctx context.Context) error {
	m := w.room
	if len(m.order) == 0 {
		return nil
	}
	slices.SortFunc(m.order, func(a, b place) int {
		if a.slot != b.slot {
			return int(a.slot) - int(b.slot)
		}
		return bytes.Compare(m.key(a.at), m.key(b.at))
	})
	puts := m.puts[:len(m.order)]
	for i, at := range m.order {
		puts[i] = kv.SlotPut{Slot: at.slot, Key: m.key(at.at)}
	}
	if err := w.s.store.BulkPut(ctx, puts); err != nil {
		return problem.Store("write timelines", err)
	}
	w.written += uint64(len(puts))
	m.order = m.order[:0]
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
			// A post can have come in below an earlier cut, with a new friend; then the cut
			// stays where it is.
			cut, err := s.cutOf(ctx, r.user)
			if err != nil {
				return err
			}
			if p := indexPost(first); p.Compare(cut) > 0 {
				cut = p
			}
			b.Put(readerKey(tableTrimmed, r.user), cut[:]) // even if it stays: who rebuilds must notice
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

// newFriends keeps the friends of authors as recipients.
func newFriends(account Account, limit int) *relations.Lists[[]recipient] {
	return relations.NewLists(account, limit, func(friends []id.User) []recipient {
		readers := make([]recipient, len(friends))
		for i, u := range friends {
			readers[i] = recipient{u, kv.SlotOf(u[:])}
		}
		return readers
	})
}
