// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"encoding"

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
	if !req.GetPostsChecked() {
		if texts, err = s.visible(ctx, req.GetViewerId(), texts); err != nil {
			return nil, err
		}
	}
	snaps := make([]snapshot, 0, len(texts))
	posts := make([]string, 0, len(texts))
	var people []id.User
	for _, text := range texts {
		p, err := id.ParsePost(text)
		if err != nil {
			return nil, problem.Invalid("post_ids", "%v", err)
		}
		snap, err := s.threads.read(ctx, p)
		if err != nil {
			return nil, problem.Store("read thread", err)
		}
		if len(snap.comments)+len(snap.likes) == 0 {
			continue
		}
		snaps, posts = append(snaps, snap), append(posts, text)
		people = snap.people(people)
	}
	res := new(momentsv1.ListCommentsResponse)
	if len(snaps) == 0 {
		return res, nil
	}
	set, err := s.relations.Get(ctx, viewer, people)
	if err != nil {
		return nil, err
	}
	for i, snap := range snaps {
		if th := snap.show(viewer, set, posts[i], int(req.GetLimit())); th != nil {
			res.Threads = append(res.Threads, th)
		}
	}
	return res, nil
}

// visible gives those of the posts that the viewer may see.
func (s *Service) visible(ctx context.Context, viewer string, posts []string) ([]string, error) {
	res, err := s.post.GetMany(ctx, &momentsv1.GetPostsRequest{ViewerId: viewer, Ids: posts, HeadsOnly: true})
	if err != nil {
		return nil, err
	}
	seen := make([]string, len(res.GetPosts()))
	for i, p := range res.GetPosts() {
		seen[i] = p.GetId()
	}
	return seen, nil
}

// people adds all whose relation to the viewer decides what he sees.
func (snap snapshot) people(to []id.User) []id.User {
	for i := range snap.comments {
		c := &snap.comments[i]
		to = append(to, c.Writer)
		if !c.ReplyTo.IsZero() {
			to = append(to, c.ReplyTo)
		}
	}
	for i := range snap.likes {
		to = append(to, snap.likes[i].User)
	}
	return to
}

// show gives a thread as a viewer sees it, nil if he sees nothing. Limit is the most
// comments and the most likes to give, 0 for all; counts are of all that he sees.
func (snap snapshot) show(viewer id.User, set relations.Set, post string, limit int) *momentsv1.Thread {
	shown, live := causal.View(snap.comments, func(c *causal.Comment) bool { return sees(set, c) })
	th := &momentsv1.Thread{PostId: post, CommentCount: uint32(live)}
	if limit > 0 && len(shown) > limit {
		shown = shown[len(shown)-limit:]
	}
	likes := make([]id.User, 0, len(snap.likes))
	for i := range snap.likes {
		u := snap.likes[i].User
		if u == viewer {
			th.Liked = true
		} else if !privacy.SeesComment(set.Of(u)) {
			continue
		}
		likes = append(likes, u)
	}
	th.LikeCount = uint32(len(likes))
	if limit > 0 && len(likes) > limit {
		likes = likes[len(likes)-limit:]
	}
	if len(shown)+len(likes) == 0 {
		return nil
	}
	texts := idTexts(shown, likes)
	take := func(has bool) (text string) {
		if has {
			text, texts = texts[:id.Len], texts[id.Len:]
		}
		return text
	}
	if len(shown) > 0 {
		room := make([]momentsv1.Comment, len(shown)) // one allocation for all
		th.Comments = make([]*momentsv1.Comment, len(shown))
		for i := range shown {
			from, to := &shown[i], &room[i]
			to.Id, to.PostId, to.TimeMs, to.Deleted = take(true), post, from.ID.Time().UnixMilli(), from.Mark
			to.ParentId = take(from.ParentShown)
			if !from.Mark {
				to.WriterId, to.ReplyToId, to.Text = take(true), take(!from.ReplyTo.IsZero()), from.Body
			}
			th.Comments[i] = to
		}
	}
	if len(likes) > 0 {
		th.LikeIds = make([]string, len(likes))
		for i := range likes {
			th.LikeIds[i] = take(true)
		}
	}
	return th
}

// idTexts gives the texts of all ids that a thread shows, in the order in which show
// takes them, as one string: one allocation instead of a dozen.
func idTexts(shown []causal.Shown, likes []id.User) string {
	b := make([]byte, 0, id.Len*(4*len(shown)+len(likes)))
	add := func(has bool, e encoding.TextAppender) {
		if has {
			b, _ = e.AppendText(b) // never fails
		}
	}
	for i := range shown {
		c := &shown[i]
		add(true, &c.ID)
		add(c.ParentShown, &c.Parent)
		add(!c.Mark, &c.Writer)
		add(!c.Mark && !c.ReplyTo.IsZero(), &c.ReplyTo)
	}
	for i := range likes {
		add(true, &likes[i])
	}
	return string(b)
}
