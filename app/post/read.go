// SPDX-License-Identifier: Apache-2.0

package post

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/relations"
	"github.com/sluice-rpc/sluice/app/versions"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// GetMany gives the posts that the viewer may see; see the contract.
func (s *Service) GetMany(ctx context.Context, req *momentsv1.GetPostsRequest) (*momentsv1.GetPostsResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetIds()); n > maxGet {
		return nil, problem.Invalid("ids", "has %d ids, at most %d", n, maxGet)
	}
	ids := make([]id.Post, len(req.GetIds()), len(req.GetIds())+int(min(req.GetOwn().GetLimit(), maxGet)))
	for i, v := range req.GetIds() {
		if ids[i], err = id.ParsePost(v); err != nil {
			return nil, problem.Invalid("ids", "%v", err)
		}
	}
	asked := len(ids)
	if req.GetOwn() != nil {
		if ids, err = s.addOwn(ctx, viewer, req.GetOwn(), ids); err != nil {
			return nil, err
		}
	}
	recs, err := s.bodies(ctx, ids)
	if err != nil {
		return nil, err
	}
	res := new(momentsv1.GetPostsResponse)
	v := view{viewer: viewer, headsOnly: req.GetHeadsOnly(), timeline: req.GetTimeline(), now: s.now()}
	facts, err := s.facts(ctx, v, ids, recs)
	if err != nil {
		return nil, err
	}
	res.RelationsVersion = facts.Version()
	if res.Posts, err = s.see(ctx, v, facts, ids[:asked], recs[:asked], req.GetIds()); err != nil {
		return nil, err
	}
	if req.GetMissing() {
		for i, rec := range recs[:asked] {
			if rec.all == "" {
				res.MissingIds = append(res.MissingIds, req.GetIds()[i])
			}
		}
	}
	if res.Own, err = s.see(ctx, v, facts, ids[asked:], recs[asked:], nil); err != nil {
		return nil, err
	}
	return res, nil
}

// addOwn adds the viewer's own posts of a window that are not among ids.
func (s *Service) addOwn(ctx context.Context, viewer id.User, w *momentsv1.OwnWindow, ids []id.Post) ([]id.Post, error) {
	if n := w.GetLimit(); n == 0 || n > maxGet {
		return nil, problem.Invalid("own.limit", "is %d, want 1 to %d", n, maxGet)
	}
	if w.GetAfterId() != "" && s.fanOut.settled(kv.SlotOf(viewer[:])) {
		return ids, nil // the reader's own index has them
	}
	r := kv.Prefix(albumPrefix(viewer), int(w.GetLimit()))
	if v := w.GetBeforeId(); v != "" {
		p, err := id.ParsePost(v)
		if err != nil {
			return nil, problem.Invalid("own.before_id", "%v", err)
		}
		r.From = kv.Next(albumKey(viewer, p))
	}
	if v := w.GetAfterId(); v != "" {
		p, err := id.ParsePost(v)
		if err != nil {
			return nil, problem.Invalid("own.after_id", "%v", err)
		}
		r.To = albumKey(viewer, p)
	}
	if bytes.Compare(r.From, r.To) >= 0 {
		return ids, nil
	}
	items, _, err := s.store.Scan(ctx, kv.SlotOf(viewer[:]), r, kv.Linearizable)
	if err != nil {
		return nil, problem.Store("scan own album", err)
	}
	asked := ids[:len(ids):len(ids)]
	for _, it := range items {
		if p := albumPost(it.Key); !slices.Contains(asked, p) {
			ids = append(ids, p)
		}
	}
	return ids, nil
}

// Album gives a page of an author's posts; see the contract.
func (s *Service) Album(ctx context.Context, req *momentsv1.AlbumRequest) (*momentsv1.AlbumResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	author, err := problem.User("author_id", req.GetAuthorId())
	if err != nil {
		return nil, err
	}
	limit, err := problem.PageLimit(req.GetLimit(), 20, maxAlbum)
	if err != nil {
		return nil, err
	}
	r := kv.Prefix(albumPrefix(author), limit+1)
	if err := between(&r, author, req.GetFromMs(), req.GetToMs()); err != nil {
		return nil, err
	}
	if req.GetCursor() != "" {
		at, err := cursor.Parse(albumCursors, author, req.GetCursor())
		if err != nil {
			return nil, problem.Invalid("cursor", "%v", err)
		}
		if from := kv.Next(albumKey(author, at)); bytes.Compare(from, r.From) > 0 {
			r.From = from
		}
	}
	v := view{viewer: viewer, headsOnly: req.GetHeadsOnly(), now: s.now()}
	res := new(momentsv1.AlbumResponse)
	facts, err := s.relations.Fresh(ctx, viewer, []id.User{author})
	if err != nil {
		return nil, err
	}
	f := facts.Of(author)
	if !privacy.SeesSome(f) {
		return res, nil // as if there were nothing
	}
	if err := s.reach(ctx, &r, author, f, v); err != nil {
		return nil, err
	}
	// One post more than the page says whether another page follows.
	for more := true; more && len(res.Posts) <= limit && bytes.Compare(r.From, r.To) < 0; {
		var items []kv.Item
		if items, more, err = s.store.Scan(ctx, kv.SlotOf(author[:]), r, kv.Linearizable); err != nil {
			return nil, problem.Store("scan album", err)
		}
		if len(items) == 0 {
			break
		}
		ids := make([]id.Post, len(items))
		for i, it := range items {
			ids[i] = albumPost(it.Key)
		}
		r.From = kv.Next(items[len(items)-1].Key)
		recs, err := s.bodies(ctx, ids)
		if err != nil {
			return nil, err
		}
		seen, err := s.see(ctx, v, facts, ids, recs, nil)
		if err != nil {
			return nil, err
		}
		res.Posts = append(res.Posts, seen...)
	}
	if len(res.Posts) > limit {
		res.Posts = res.Posts[:limit]
		last, err := id.ParsePost(res.Posts[limit-1].GetId())
		if err != nil {
			return nil, err
		}
		res.NextCursor = cursor.Make(albumCursors, author, last)
	}
	return res, nil
}

// reach narrows a range of album keys to what others than the author get at all: those
// within his window, and for strangers his newest public posts.
func (s *Service) reach(ctx context.Context, r *kv.Range, author id.User, f privacy.Facts, v view) error {
	if f.Self {
		return nil
	}
	oldest := id.Post{}
	if edge, ok := f.Window.Edge(v.now); ok && !edge.IsZero() {
		oldest = firstAt(edge.UnixMilli())
	}
	if !f.Friends {
		tenth, err := s.tenth(ctx, author)
		if err != nil {
			return err
		}
		if tenth.Compare(oldest) > 0 {
			oldest = tenth
		}
	}
	if to := kv.Next(albumKey(author, oldest)); bytes.Compare(to, r.To) < 0 {
		r.To = to
	}
	return nil
}

// tenthLimit is how many posts are looked through for an author's newest public ones:
// those of an author who shows them to strangers but posts for few.
const tenthLimit = kv.MaxScan

// tenth gives the oldest of an author's newest public posts that strangers may see.
func (s *Service) tenth(ctx context.Context, author id.User) (oldest id.Post, err error) {
	items, _, err := s.store.Scan(ctx, kv.SlotOf(author[:]), kv.Prefix(albumPrefix(author), tenthLimit), kv.Linearizable)
	if err != nil {
		return oldest, problem.Store("scan album", err)
	}
	oldest = id.Post(bytes.Repeat([]byte{0xff}, len(oldest))) // without any, none is as new
	found := 0
	for _, it := range items {
		if len(it.Value) > 0 {
			continue // not public
		}
		oldest = albumPost(it.Key)
		if found++; found == privacy.OpenPosts {
			break
		}
	}
	return oldest, nil
}

// albumCursors is the kind of the cursors of Album.
const albumCursors = 'a'

// between narrows a range of album keys to a stretch of time.
func between(r *kv.Range, author id.User, fromMS, toMS int64) error {
	const last = 1<<48 - 1 // ms: what an id can hold
	if fromMS < 0 || fromMS > last {
		return problem.Invalid("from_ms", "is %d, want 0 to %d", fromMS, int64(last))
	}
	if toMS < 0 || toMS > last || toMS > 0 && toMS < fromMS {
		return problem.Invalid("to_ms", "is %d, want 0, or from_ms to %d", toMS, int64(last))
	}
	if toMS > 0 { // posts before it: keys after its own first
		r.From = albumKey(author, firstAt(toMS))
	}
	if fromMS > 0 {
		r.To = kv.Next(albumKey(author, firstAt(fromMS)))
	}
	return nil
}

// firstAt gives the smallest id of a millisecond.
func firstAt(ms int64) (p id.Post) {
	for i := range 6 {
		p[i] = byte(ms >> (40 - 8*i))
	}
	return p
}

// ListAlbum gives an album as stored; see the contract.
func (s *Service) ListAlbum(ctx context.Context, req *momentsv1.ListAlbumRequest) (*momentsv1.ListAlbumResponse, error) {
	author, err := problem.User("author_id", req.GetAuthorId())
	if err != nil {
		return nil, err
	}
	limit, err := problem.PageLimit(req.GetLimit(), maxList, maxList)
	if err != nil {
		return nil, err
	}
	r := kv.Prefix(albumPrefix(author), limit)
	if v := req.GetBeforeId(); v != "" {
		p, err := id.ParsePost(v)
		if err != nil {
			return nil, problem.Invalid("before_id", "%v", err)
		}
		r.From = kv.Next(albumKey(author, p))
	}
	items, more, err := s.store.Scan(ctx, kv.SlotOf(author[:]), r, kv.Linearizable)
	if err != nil {
		return nil, problem.Store("scan album", err)
	}
	res := &momentsv1.ListAlbumResponse{PostIds: make([]string, len(items)), More: more}
	for i, it := range items {
		res.PostIds[i] = albumPost(it.Key).String()
	}
	return res, nil
}

// bodies reads records in the order of ids.
func (s *Service) bodies(ctx context.Context, ids []id.Post) ([]record, error) {
	recs := make([]record, len(ids))
	key := make([]byte, 17)
	var room [30]versions.Entry[record] // for most requests, and not on the heap
	kept := room[:min(len(ids), len(room))]
	if len(ids) > len(room) {
		kept = make([]versions.Entry[record], len(ids))
	}
	s.records.GetAll(ids, kept)
	for i, p := range ids {
		had := kept[i]
		slot := slotOf(p)
		stamp, stamped := s.stampOf(slot)
		if stamped && had.Ver != 0 && had.Stamp == stamp {
			recs[i] = had.Value
			continue
		}
		key[0] = tableBody
		copy(key[1:], p[:])
		it, err := s.store.Get(ctx, slot, key, kv.Local)
		if err == nil && it.Ver == 0 {
			// A member that lags may not have it yet; ids come from indexes and links, so
			// this is rare.
			it, err = s.store.Get(ctx, slot, key, kv.Linearizable)
		}
		if err != nil {
			return nil, problem.Store("read post", err)
		}
		if it.Ver == 0 {
			continue
		}
		if had.Ver != it.Ver {
			stored, err := parseBody(it)
			if err != nil {
				return nil, err
			}
			rec := recordOf(stored)
			had = versions.Entry[record]{Value: rec, Ver: it.Ver, Size: rec.cost(len(it.Value))}
		}
		recs[i], had.Stamp = had.Value, stamp
		if stamped {
			s.records.Put(p, had)
		}
	}
	return recs, nil
}

// view is how somebody looks at posts.
type view struct {
	viewer    id.User
	now       time.Time
	headsOnly bool
	timeline  bool
	index     bool // settings do not count: see MergeAlbumsRequest.for_index
}

// facts gives how the viewer stands to the authors of records. For a timeline they are
// kept by version; else they are asked for in one call, whoever the authors are, and
// for what never existed too, so that nobody can tell the two apart by what is done.
func (s *Service) facts(ctx context.Context, v view, ids []id.Post, recs []record) (relations.Set, error) {
	authors := make([]id.User, len(recs))
	for i, r := range recs {
		switch {
		case !r.gone():
			authors[i] = r.author()
		case !v.timeline:
			authors[i] = id.User(ids[i]) // nobody's id, and so a stranger's
		}
	}
	if v.timeline {
		return s.relations.Get(ctx, v.viewer, authors)
	}
	slices.SortFunc(authors, id.User.Compare)
	authors = slices.Compact(authors)
	if len(authors) == 0 {
		return relations.Set{}, nil
	}
	return s.relations.Fresh(ctx, v.viewer, authors)
}

// see gives those of the records that the viewer may see. Texts are their ids as text, if
// somebody has them already.
func (s *Service) see(
	ctx context.Context, v view, facts relations.Set, ids []id.Post, recs []record, texts []string,
) ([]*momentsv1.Post, error) {
	if len(recs) == 0 {
		return nil, nil
	}
	var tenths map[id.User]id.Post // of authors who are open to the viewer as a stranger
	posts := make([]*momentsv1.Post, 0, len(recs))
	room := make([]momentsv1.Post, len(recs)) // one allocation for all
	for i, r := range recs {
		if r.gone() {
			continue
		}
		author := r.author()
		f, p := facts.Of(author), r.aspects(v.viewer)
		if v.index {
			f = privacy.Facts{Self: f.Self, Friends: f.Friends}
		}
		if !v.timeline && !f.Friends && f.Open && p.Public && privacy.SeesSome(f) {
			tenth, known := tenths[author]
			if !known {
				var err error
				if tenth, err = s.tenth(ctx, author); err != nil {
					return nil, err
				}
				if tenths == nil {
					tenths = make(map[id.User]id.Post, 1)
				}
				tenths[author] = tenth
			}
			p.Newest = ids[i].Compare(tenth) >= 0
		}
		if !visible(f, p, v) {
			continue
		}
		post := &room[i]
		r.show(post, f, v)
		if texts != nil {
			post.Id = texts[i]
		} else {
			post.Id = ids[i].String()
		}
		posts = append(posts, post)
	}
	return posts, nil
}

// visible decides whether the viewer may see a post.
func visible(f privacy.Facts, p privacy.Post, v view) bool {
	if v.timeline {
		return privacy.SeesInTimeline(f, p, v.now)
	}
	return privacy.SeesPost(f, p, v.now)
}

// MergeAlbums gives the newest posts of several authors; see the contract.
func (s *Service) MergeAlbums(ctx context.Context, req *momentsv1.MergeAlbumsRequest) (*momentsv1.MergeAlbumsResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetAuthorIds()); n > maxMerge {
		return nil, problem.Invalid("author_ids", "has %d ids, at most %d", n, maxMerge)
	}
	if n := req.GetLimit(); n == 0 || n > maxGet {
		return nil, problem.Invalid("limit", "is %d, want 1 to %d", n, maxGet)
	}
	limit := int(req.GetLimit())
	var before id.Post
	if text := req.GetBeforeId(); text != "" {
		if before, err = id.ParsePost(text); err != nil {
			return nil, problem.Invalid("before_id", "%v", err)
		}
	}
	newest := newestPosts{limit: limit}
	for _, text := range req.GetAuthorIds() {
		author, err := problem.User("author_ids", text)
		if err != nil {
			return nil, err
		}
		r := kv.Prefix(albumPrefix(author), limit)
		if !before.IsZero() {
			r.From = kv.Next(albumKey(author, before))
		}
		if !newest.oldest.IsZero() { // only what is newer can still come in
			r.To = albumKey(author, newest.oldest)
		}
		if bytes.Compare(r.From, r.To) >= 0 {
			continue
		}
		items, _, err := s.store.Scan(ctx, kv.SlotOf(author[:]), r, kv.Linearizable)
		if err != nil {
			return nil, problem.Store("scan album", err)
		}
		for _, it := range items {
			newest.add(albumPost(it.Key))
		}
	}
	ids := newest.sorted()
	recs, err := s.bodies(ctx, ids)
	if err != nil {
		return nil, err
	}
	v := view{viewer: viewer, headsOnly: req.GetHeadsOnly(), timeline: true, index: req.GetForIndex(), now: s.now()}
	facts, err := s.facts(ctx, v, ids, recs)
	if err != nil {
		return nil, err
	}
	res := new(momentsv1.MergeAlbumsResponse)
	if res.Posts, err = s.see(ctx, v, facts, ids, recs, nil); err != nil {
		return nil, err
	}
	if len(ids) == limit {
		res.ReachedId = ids[len(ids)-1].String()
	}
	return res, nil
}

// newestPosts keeps the newest of many posts.
type newestPosts struct {
	limit  int
	ids    []id.Post // at most twice the limit
	oldest id.Post   // of those kept, once there were more than the limit
}

func (n *newestPosts) add(p id.Post) {
	if n.ids = append(n.ids, p); len(n.ids) >= 2*n.limit {
		n.oldest = n.sorted()[n.limit-1]
	}
}

// sorted gives the newest, newest first.
func (n *newestPosts) sorted() []id.Post {
	slices.SortFunc(n.ids, func(a, b id.Post) int { return b.Compare(a) })
	n.ids = n.ids[:min(len(n.ids), n.limit)]
	return n.ids
}
