// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"strings"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/relations"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// ListMany gives what a viewer sees under posts; see the contract.
func (s *Service) ListMany(ctx context.Context, req *momentsv1.ListCommentsRequest) (*momentsv1.ListCommentsResponse, error) {
	viewer, err := id.ParseUser(req.GetViewerId())
	if err != nil {
		return nil, problem.Invalid("viewer_id", "%v", err)
	}
	texts := req.GetPostIds()
	if n := len(texts); n > maxGet {
		return nil, problem.Invalid("post_ids", "has %d ids, at most %d", n, maxGet)
	}
	past, err := s.past(ctx, viewer, req.GetSession())
	if err != nil {
		return nil, err
	}
	if !req.GetPostsChecked() {
		if texts, err = s.visible(ctx, req.GetViewerId(), texts, past); err != nil {
			return nil, err
		}
	}
	posts := make([]id.Post, len(texts))
	for i, text := range texts {
		if posts[i], err = id.ParsePost(text); err != nil {
			return nil, problem.Invalid("post_ids", "%v", err)
		}
	}
	var room [20]snapshot // for most requests, and not on the heap
	snaps := room[:min(len(posts), len(room))]
	if len(posts) > len(room) {
		snaps = make([]snapshot, len(posts))
	}
	if err := s.threads.readAll(ctx, posts, snaps); err != nil {
		return nil, problem.Store("read threads", err)
	}
	some := false
	for i, p := range posts {
		if snaps[i], err = s.reached(ctx, p, snaps[i], past.of(p)); err != nil {
			return nil, err
		}
		some = some || !snaps[i].empty()
	}
	if len(posts) == 1 { // a page of one post is to be carried on; of many, the latest are known anyway
		past.note(posts[0], snaps[0].shown())
	}
	res := new(momentsv1.ListCommentsResponse)
	if req.GetSession() != "" {
		res.Session = s.sealer.seal(viewer, past)
	}
	if !some {
		return res, nil
	}
	set, err := s.friends.At(ctx, viewer, req.GetRelationsVersion())
	if err != nil {
		return nil, err
	}
	sights := make([]sight, 0, len(snaps))
	for i, snap := range snaps {
		if snap.empty() {
			continue
		}
		if v := snap.sight(viewer, set, texts[i], int(req.GetLimit())); len(v.shown)+len(v.likers) > 0 {
			sights = append(sights, v)
		}
	}
	res.Threads = messages(sights)
	return res, nil
}

// past opens a reader's session.
func (s *Service) past(ctx context.Context, viewer id.User, token string) (*session, error) {
	t, err := s.sealer.open(ctx, viewer, token)
	if err != nil {
		return nil, err
	}
	return t, s.reach(ctx, t)
}

// upTo gives a post's thread as it is now, with all that a session has seen of it.
func (s *Service) upTo(ctx context.Context, p id.Post, seen causal.Vector) (snapshot, error) {
	snap, err := s.threads.read(ctx, p)
	if err != nil {
		return snapshot{}, problem.Store("read thread", err)
	}
	return s.reached(ctx, p, snap, seen)
}

// reached gives a thread that has been read, or waits until it has all that a session has seen
// of it.
func (s *Service) reached(ctx context.Context, p id.Post, snap snapshot, seen causal.Vector) (snapshot, error) {
	if !snap.seen.Covers(seen) && !snap.seen.Covers(s.members.needed(seen)) {
		return s.awaitPost(ctx, p, seen)
	}
	return snap, nil
}

// visible gives those of the posts that the viewer may see. If one has not come here yet
// that his session, which may be nil, has seen elsewhere, this region is behind.
func (s *Service) visible(ctx context.Context, viewer string, posts []string, past *session) ([]string, error) {
	moved := past != nil && len(past.posts) > 0 && past.from != s.region
	res, err := s.post.GetMany(ctx, &momentsv1.GetPostsRequest{ViewerId: viewer, Ids: posts, HeadsOnly: true, Missing: moved})
	if err != nil {
		return nil, err
	}
	for _, v := range res.GetMissingIds() {
		if p, err := id.ParsePost(v); err == nil && len(past.of(p)) > 0 {
			return nil, errBehind
		}
	}
	seen := make([]string, len(res.GetPosts()))
	for i, p := range res.GetPosts() {
		seen[i] = p.GetId()
	}
	return seen, nil
}

// sight is a thread as a viewer sees it.
type sight struct {
	post        string
	shown       []causal.Shown
	live, likes int       // how many comments and likes there are for him
	likers      []id.User // the latest
	liked       bool      // by himself
}

// sight gives a thread as a viewer sees it. Limit is the most comments and the most
// likes to give, 0 for all; counts are of all that he sees.
func (snap snapshot) sight(viewer id.User, set relations.Set, post string, limit int) sight {
	v := sight{post: post}
	v.shown, v.live = causal.View(snap.comments, func(c *causal.Comment) bool { return sees(set, c) })
	if limit > 0 && len(v.shown) > limit {
		v.shown = v.shown[len(v.shown)-limit:]
	}
	v.likers = make([]id.User, 0, len(snap.likes))
	for i := range snap.likes {
		u := snap.likes[i].User
		if u == viewer {
			v.liked = true
		} else if !privacy.SeesComment(set.Of(u)) {
			continue
		}
		v.likers = append(v.likers, u)
	}
	v.likes = len(v.likers)
	if limit > 0 && v.likes > limit {
		v.likers = v.likers[v.likes-limit:]
	}
	return v
}

// messages makes the messages of threads, each kind of them in one piece of memory: a
// page has a hundred.
func messages(all []sight) []*momentsv1.Thread {
	shown, likes := 0, 0
	for i := range all {
		shown += len(all[i].shown)
		likes += len(all[i].likers)
	}
	texts := textsOf(all, id.Len*(2*shown+likes)) // replies have more
	threads, room := make([]*momentsv1.Thread, len(all)), make([]momentsv1.Thread, len(all))
	comments, commentRoom := make([]*momentsv1.Comment, shown), make([]momentsv1.Comment, shown)
	likeIDs := make([]string, likes)
	for i := range all {
		v, th := &all[i], &room[i]
		th.PostId, th.CommentCount, th.LikeCount, th.Liked = v.post, uint32(v.live), uint32(v.likes), v.liked
		for j := range v.shown {
			comments[j] = &commentRoom[j]
			texts.comment(comments[j], v.post, &v.shown[j])
		}
		for j := range v.likers {
			likeIDs[j] = texts.take(true)
		}
		th.Comments, comments, commentRoom = cut(comments, len(v.shown)), comments[len(v.shown):], commentRoom[len(v.shown):]
		th.LikeIds, likeIDs = cut(likeIDs, len(v.likers)), likeIDs[len(v.likers):]
		threads[i] = th
	}
	return threads
}

// cut gives the first n of a list, nil for none. What is appended to them goes elsewhere.
func cut[T any](list []T, n int) []T {
	if n == 0 {
		return nil
	}
	return list[:n:n]
}

// idText holds the texts of ids, as far as they have not been taken.
type idText string

func (t *idText) take(has bool) (text string) {
	if has {
		text, *t = string((*t)[:id.Len]), (*t)[id.Len:]
	}
	return text
}

// comment makes the message of a comment.
func (t *idText) comment(to *momentsv1.Comment, post string, from *causal.Shown) {
	to.Id, to.PostId, to.TimeMs, to.Deleted = t.take(true), post, from.ID.Time().UnixMilli(), from.Mark
	to.ParentId, to.ParentLost = t.take(from.ParentShown), from.ParentLost
	if !from.Mark {
		to.WriterId, to.ReplyToId, to.Text = t.take(true), t.take(!from.ReplyTo.IsZero()), from.Body
	}
}

// textsOf gives the texts of all ids that threads show, in the order in which messages
// takes them, as one string of about that size.
func textsOf(all []sight, size int) idText {
	var b strings.Builder
	b.Grow(size)
	for i := range all {
		for j := range all[i].shown {
			c := &all[i].shown[j]
			addText(&b, c.ID)
			if c.ParentShown {
				addText(&b, c.Parent)
			}
			if c.Mark {
				continue
			}
			addText(&b, c.Writer)
			if !c.ReplyTo.IsZero() {
				addText(&b, c.ReplyTo)
			}
		}
		for _, u := range all[i].likers {
			addText(&b, u)
		}
	}
	return idText(b.String())
}

func addText[K id.Kind](b *strings.Builder, v id.ID[K]) {
	var room [id.Len]byte
	text, _ := v.AppendText(room[:0]) // never fails
	_, _ = b.Write(text)              // nor does this
}
