// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// homeCursors is the kind of the cursors of Home and Newer.
const homeCursors = 'h'

// Home gives a page of a timeline; see the contract.
func (s *Service) Home(ctx context.Context, req *momentsv1.HomeRequest) (*momentsv1.HomeResponse, error) {
	viewer, limit, at, err := parsePage(req.GetViewerId(), req.GetLimit(), req.GetCursor())
	if err != nil {
		return nil, err
	}
	// One item more than the page says whether another page follows.
	items, err := s.page(ctx, stretch{viewer: viewer, before: at}, limit+1)
	if err != nil {
		return nil, err
	}
	res := &momentsv1.HomeResponse{Items: items, NewestCursor: req.GetCursor()}
	if len(items) > limit {
		res.Items = items[:limit]
		if res.NextCursor, err = cursorAt(viewer, res.Items[limit-1]); err != nil {
			return nil, err
		}
	}
	if len(res.Items) > 0 {
		if res.NewestCursor, err = cursorAt(viewer, res.Items[0]); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// Newer gives what came after a place; see the contract.
func (s *Service) Newer(ctx context.Context, req *momentsv1.NewerRequest) (*momentsv1.NewerResponse, error) {
	viewer, limit, at, err := parsePage(req.GetViewerId(), req.GetLimit(), req.GetCursor())
	if err != nil {
		return nil, err
	}
	items, err := s.page(ctx, stretch{viewer: viewer, after: at}, limit+1)
	if err != nil {
		return nil, err
	}
	res := &momentsv1.NewerResponse{Items: items, NewestCursor: req.GetCursor()}
	if len(items) > limit {
		res.Items, res.More = items[:limit], true
		if res.NextCursor, err = cursorAt(viewer, res.Items[limit-1]); err != nil {
			return nil, err
		}
	}
	if len(res.Items) > 0 {
		if res.NewestCursor, err = cursorAt(viewer, res.Items[0]); err != nil {
			return nil, err
		}
	}
	return res, nil
}

func parsePage(viewerID string, asked uint32, text string) (viewer id.User, limit int, at id.Post, err error) {
	if viewer, err = problem.User("viewer_id", viewerID); err != nil {
		return viewer, 0, at, err
	}
	if limit, err = problem.PageLimit(asked, 20, maxPage); err != nil {
		return viewer, 0, at, err
	}
	if text != "" {
		if at, err = cursor.Parse(homeCursors, viewer, text); err != nil {
			return viewer, 0, at, problem.Invalid("cursor", "%v", err)
		}
	}
	return viewer, limit, at, nil
}

func cursorAt(viewer id.User, item *momentsv1.TimelineItem) (string, error) {
	p, err := id.ParsePost(item.GetPost().GetId())
	if err != nil {
		return "", err
	}
	return cursor.Make(homeCursors, viewer, p), nil
}

// stretch is a part of somebody's timeline: what is older than before and newer than
// after, where a zero id sets no bound.
type stretch struct {
	viewer        id.User
	before, after id.Post
}

func (t stretch) keys(limit int) kv.Range {
	r := kv.Prefix(indexPrefix(t.viewer), limit)
	if !t.before.IsZero() {
		r.From = kv.Next(indexKey(t.viewer, t.before))
	}
	if !t.after.IsZero() {
		r.To = indexKey(t.viewer, t.after)
	}
	return r
}

// page gives the newest want items of a stretch that the viewer may see; fewer only
// if there are no more.
//
// Down to where trimming has cut it, the index has every post; from there on albums are
// merged. A cut is looked for only where one can be: it has at least a cap of entries
// above it.
func (s *Service) page(ctx context.Context, t stretch, want int) ([]*momentsv1.TimelineItem, error) {
	items := make([]*momentsv1.TimelineItem, 0, want)
	var cut id.Post // the newest post that may be missing in the index; zero if none is
	known := false
	deepest := 0                            // entries read so far
	for n := want; ; n = min(2*n, maxGet) { // more each time: much may be hidden
		if deepest += n; !known && (!t.before.IsZero() || deepest > s.cap) {
			var err error
			if cut, err = s.cutOf(ctx, t.viewer); err != nil {
				return nil, err
			}
			known = true
		}
		part := t
		if cut.Compare(part.after) > 0 {
			part.after = cut
		}
		ids, more, err := s.scan(ctx, part, n)
		if err != nil {
			return nil, err
		}
		if !more && !known {
			if cut, err = s.cutOf(ctx, t.viewer); err != nil {
				return nil, err
			}
			known = true
			if cut.Compare(part.after) > 0 {
				part.after = cut
				ids = slices.DeleteFunc(ids, func(p id.Post) bool { return p.Compare(cut) <= 0 })
			}
		}
		if more {
			part.after = ids[len(ids)-1]
		}
		if more || cut.IsZero() || t.before.IsZero() || t.before.Compare(cut) > 0 {
			got, err := s.load(ctx, part, ids, n)
			if err != nil {
				return nil, err
			}
			items = append(items, got...)
		}
		if len(items) >= want {
			return items[:want], nil
		}
		if !more {
			if cut.Compare(t.after) > 0 {
				return s.mergePage(ctx, t, cut, items, want)
			}
			return items, nil
		}
		t.before = part.after
	}
}

// cutOf gives the newest post that trimming has removed from a reader's index.
func (s *Service) cutOf(ctx context.Context, reader id.User) (p id.Post, err error) {
	it, err := s.store.Get(ctx, kv.SlotOf(reader[:]), readerKey(tableTrimmed, reader), kv.Local)
	if err != nil {
		return p, problem.Store("read timeline's end", err)
	}
	if it.Ver != 0 && len(it.Value) == len(p) {
		p = id.Post(it.Value)
	}
	return p, nil
}

// mergePage fills a page with posts from the albums of the viewer and his friends that
// are not newer than the cut of his index.
func (s *Service) mergePage(ctx context.Context, t stretch, cut id.Post, items []*momentsv1.TimelineItem, want int) ([]*momentsv1.TimelineItem, error) {
	authors, err := s.circle(ctx, t.viewer)
	if err != nil {
		return nil, err
	}
	before := successor(cut)
	if !t.before.IsZero() && t.before.Compare(before) < 0 {
		before = t.before
	}
	viewer := t.viewer.String()
	for n := want; ; n = min(2*n, maxGet) {
		res, err := s.post.MergeAlbums(ctx, &momentsv1.MergeAlbumsRequest{
			ViewerId: viewer, AuthorIds: authors, BeforeId: before.String(), Limit: uint32(n),
		})
		if err != nil {
			return nil, err
		}
		got := res.GetPosts()
		if !t.after.IsZero() {
			after := t.after.String() // ids sort as texts too
			got = slices.DeleteFunc(got, func(p *momentsv1.Post) bool { return p.GetId() <= after })
		}
		if got = got[:min(len(got), want-len(items))]; len(got) > 0 {
			threads, err := s.threads(ctx, viewer, textsOf(got), 0)
			if err != nil {
				return nil, err
			}
			items = appendItems(items, got, threads)
		}
		if len(items) == want || res.GetReachedId() == "" {
			return items, nil
		}
		if before, err = id.ParsePost(res.GetReachedId()); err != nil {
			return nil, err
		}
		if before.Compare(t.after) <= 0 {
			return items, nil
		}
	}
}

// circle gives the ids, as texts, of all whose posts may be in a reader's timeline.
func (s *Service) circle(ctx context.Context, reader id.User) ([]string, error) {
	friends, _, err := s.friends.Of(ctx, reader)
	if err != nil {
		return nil, err
	}
	authors := make([]string, 0, 1+len(friends))
	authors = append(authors, reader.String())
	for _, f := range friends {
		authors = append(authors, f.user.String())
	}
	return authors, nil
}

// successor gives the id that directly follows p.
func successor(p id.Post) id.Post {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i]++; p[i] != 0 {
			break
		}
	}
	return p
}

// scan gives the newest n ids of a stretch of the index, and whether it has more.
func (s *Service) scan(ctx context.Context, t stretch, n int) ([]id.Post, bool, error) {
	r := t.keys(n)
	if bytes.Compare(r.From, r.To) >= 0 {
		return nil, false, nil
	}
	found, more, err := s.store.Scan(ctx, kv.SlotOf(t.viewer[:]), r, kv.Local)
	if err != nil {
		return nil, false, problem.Store("scan timeline", err)
	}
	if more && len(found) == 0 {
		return nil, false, errors.New("timeline: the store gives nothing but says there is more")
	}
	ids := make([]id.Post, len(found))
	for i, it := range found {
		ids[i] = indexPost(it.Key)
	}
	return ids, more, nil
}

// load gives what the viewer may see of a stretch, newest first: the posts with the
// given ids, which are those of the index, and own posts that fan-out has not brought
// there yet. It gives at least n items if there are as many.
func (s *Service) load(ctx context.Context, t stretch, ids []id.Post, n int) ([]*momentsv1.TimelineItem, error) {
	viewer := t.viewer.String()
	texts := id.Texts(ids)
	own := &momentsv1.OwnWindow{Limit: uint32(n)}
	if !t.before.IsZero() {
		own.BeforeId = t.before.String()
	}
	if !t.after.IsZero() {
		own.AfterId = t.after.String()
	}
	get := &momentsv1.GetPostsRequest{ViewerId: viewer, Ids: texts, Own: own, Timeline: true}
	if s.near {
		posts, err := s.post.GetMany(ctx, get)
		if err != nil {
			return nil, err
		}
		merged := merge(posts.GetPosts(), posts.GetOwn())
		threads, err := s.threads(ctx, viewer, textsOf(merged), posts.GetRelationsVersion())
		if err != nil {
			return nil, err
		}
		return appendItems(make([]*momentsv1.TimelineItem, 0, len(merged)), merged, threads), nil
	}
	// Of the two the first to fail does not end the other: both end with the call, and a
	// context of their own costs more than that.
	var g sync.WaitGroup
	var threads []*momentsv1.Thread
	var failed error
	g.Go(func() { threads, failed = s.threads(ctx, viewer, texts, 0) })
	posts, err := s.post.GetMany(ctx, get)
	if g.Wait(); err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	if len(posts.GetOwn()) > 0 { // seldom: fan-out is quick
		own, err := s.threads(ctx, viewer, textsOf(posts.GetOwn()), 0)
		if err != nil {
			return nil, err
		}
		threads = append(threads, own...)
		slices.SortFunc(threads, func(a, b *momentsv1.Thread) int { return strings.Compare(b.GetPostId(), a.GetPostId()) })
	}
	merged := merge(posts.GetPosts(), posts.GetOwn())
	return appendItems(make([]*momentsv1.TimelineItem, 0, len(merged)), merged, threads), nil
}

func textsOf(posts []*momentsv1.Post) []string {
	texts := make([]string, len(posts))
	for i, p := range posts {
		texts[i] = p.GetId()
	}
	return texts
}

// appendItems adds posts with what stands under them. Both lists are newest first; threads
// of other posts are left out.
func appendItems(items []*momentsv1.TimelineItem, posts []*momentsv1.Post, threads []*momentsv1.Thread) []*momentsv1.TimelineItem {
	room := make([]momentsv1.TimelineItem, len(posts)) // one allocation for all
	for i, p := range posts {
		for len(threads) > 0 && threads[0].GetPostId() > p.GetId() {
			threads = threads[1:]
		}
		if room[i].Post = p; len(threads) > 0 && threads[0].GetPostId() == p.GetId() {
			room[i].Thread = threads[0]
		}
		items = append(items, &room[i])
	}
	return items
}

// threads gives what the viewer sees under posts, in their order. Whether he may see the
// posts is checked before, or meanwhile by asking for them. The version is that of the
// viewer's relations if this call has found it, else 0.
func (s *Service) threads(ctx context.Context, viewer string, posts []string, version uint64) ([]*momentsv1.Thread, error) {
	if len(posts) == 0 {
		return nil, nil
	}
	res, err := s.comment.ListMany(ctx, &momentsv1.ListCommentsRequest{
		ViewerId: viewer, PostIds: posts, Limit: perThread, PostsChecked: true, RelationsVersion: version,
	})
	return res.GetThreads(), err
}

// merge joins two lists that are newest first. Ids sort by time as texts too.
func merge(a, b []*momentsv1.Post) []*momentsv1.Post {
	if len(b) == 0 {
		return a
	}
	out := make([]*momentsv1.Post, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].GetId() > b[0].GetId() {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Head gives the red dot; see the contract.
func (s *Service) Head(ctx context.Context, req *momentsv1.HeadRequest) (*momentsv1.HeadResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	seen, err := s.store.Get(ctx, kv.SlotOf(viewer[:]), readerKey(tableSeen, viewer), kv.Local)
	if err != nil {
		return nil, problem.Store("read the red dot", err)
	}
	t := stretch{viewer: viewer}
	if seen.Ver != 0 {
		copy(t.after[:], seen.Value)
	}
	for n := 4; ; n = min(4*n, maxGet) { // the newest is mostly there to be seen
		ids, more, err := s.scan(ctx, t, n)
		if err != nil {
			return nil, err
		}
		if len(ids) == 0 {
			return &momentsv1.HeadResponse{}, nil
		}
		get := &momentsv1.GetPostsRequest{ViewerId: req.GetViewerId(), HeadsOnly: true, Timeline: true}
		for _, p := range ids {
			get.Ids = append(get.Ids, p.String())
		}
		res, err := s.post.GetMany(ctx, get)
		if err != nil {
			return nil, err
		}
		for _, p := range res.GetPosts() {
			if p.GetAuthorId() != req.GetViewerId() {
				return &momentsv1.HeadResponse{Fresh: true, PostId: p.GetId(), AuthorId: p.GetAuthorId()}, nil
			}
		}
		if !more {
			return &momentsv1.HeadResponse{}, nil
		}
		t.before = ids[len(ids)-1]
	}
}

// MarkSeen clears the red dot; see the contract.
func (s *Service) MarkSeen(ctx context.Context, req *momentsv1.MarkSeenRequest) (*momentsv1.MarkSeenResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	at, err := cursor.Parse(homeCursors, viewer, req.GetCursor())
	if err != nil {
		return nil, problem.Invalid("cursor", "%v", err)
	}
	slot, key := kv.SlotOf(viewer[:]), readerKey(tableSeen, viewer)
	const tries = 10 // each lost to another device of the same person
	for range tries {
		var it kv.Item
		if it, err = s.store.Get(ctx, slot, key, kv.Linearizable); err != nil {
			break
		}
		if it.Ver != 0 && bytes.Compare(it.Value, at[:]) >= 0 {
			return &momentsv1.MarkSeenResponse{}, nil
		}
		if _, err = s.store.Apply(ctx, slot, new(kv.Batch).IfVer(key, it.Ver).Put(key, at[:])); err == nil {
			return &momentsv1.MarkSeenResponse{}, nil
		}
		if !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrUnknown) {
			break
		}
	}
	return nil, problem.Store("write the red dot", err)
}
