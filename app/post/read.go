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
	if res.Posts, err = s.see(ctx, v, recs[:asked], req.GetIds()); err != nil {
		return nil, err
	}
	if res.Own, err = s.see(ctx, v, recs[asked:], nil); err != nil {
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
		seen, err := s.see(ctx, v, recs, nil)
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

// bodies reads records in the order of ids; nil stands for what is not there.
func (s *Service) bodies(ctx context.Context, ids []id.Post) ([]*momentsv1.PostRecord, error) {
	recs := make([]*momentsv1.PostRecord, len(ids))
	key := make([]byte, 17)
	for i, p := range ids {
		key[0] = tableBody
		copy(key[1:], p[:])
		it, err := s.store.Get(ctx, slotOf(p), key, kv.Local)
		if err == nil && it.Ver == 0 {
			// A member that lags may not have it yet; ids come from indexes and links, so
			// this is rare.
			it, err = s.store.Get(ctx, slotOf(p), key, kv.Linearizable)
		}
		if err != nil {
			return nil, problem.Store("read post", err)
		}
		if it.Ver == 0 {
			continue
		}
		if recs[i], err = parseBody(it); err != nil {
			return nil, err
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
}

// see gives those of the records that the viewer may see. Texts are their ids as text,
// if somebody has them already.
func (s *Service) see(ctx context.Context, v view, recs []*momentsv1.PostRecord, texts []string) ([]*momentsv1.Post, error) {
	if len(recs) == 0 {
		return nil, nil
	}
	authors := make([]id.User, len(recs))
	for i, r := range recs {
		if !gone(r) {
			authors[i] = id.User(r.GetAuthorId())
		}
	}
	facts, err := s.relations.Get(ctx, v.viewer, authors)
	if err != nil {
		return nil, err
	}
	posts := make([]*momentsv1.Post, 0, len(recs))
	for i, r := range recs {
		if gone(r) {
			continue
		}
		if f := facts.Of(authors[i]); visible(r, f, v) {
			p := show(r, f, v)
			if texts != nil {
				p.Id = texts[i]
			} else {
				p.Id = id.Post(r.GetPostId()).String()
			}
			posts = append(posts, p)
		}
	}
	return posts, nil
}

// gone holds for what nobody sees any more: absent and deleted posts.
func gone(r *momentsv1.PostRecord) bool { return r == nil || r.GetDeleted() }

// visible decides whether the viewer may see a post.
func visible(r *momentsv1.PostRecord, f privacy.Facts, v view) bool {
	if v.timeline && !privacy.SeesInTimeline(f) || !privacy.SeesPost(f) {
		return false
	}
	// An audience this version does not know is nobody's but the author's.
	return f.Self || momentsv1.Audience(r.GetAudience()) == momentsv1.Audience_AUDIENCE_FRIENDS
}

// show gives a post as the viewer sees it, but for its id.
func show(r *momentsv1.PostRecord, f privacy.Facts, v view) *momentsv1.Post {
	p := &momentsv1.Post{
		AuthorId: id.User(r.GetAuthorId()).String(),
		TimeMs:   r.GetTimeMs(),
	}
	if v.headsOnly {
		return p
	}
	p.Text = r.GetText()
	if f.Self {
		p.Audience = momentsv1.Audience(r.GetAudience())
	}
	return p
}
