// SPDX-License-Identifier: Apache-2.0

package comment

import (
	"context"
	"sort"

	"github.com/sluice-rpc/sluice/app/comment/causal"
	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/relations"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Kinds of cursors. A cursor names the first operation of the page before; its list is
// the post's, so that the cursor of one post is none of another.
const (
	commentCursor = 'c'
	likeCursor    = 'l'
)

const (
	commentPage, maxCommentPage = 50, 200
	likePage, maxLikePage       = 200, 1000
	maxActs                     = 500
)

// page is one post's thread as a viewer may read it.
type page struct {
	snap   snapshot
	viewer id.User
	set    relations.Set
	before id.Comment // the page ends before it; zero for none
	past   *session
}

// open reads what the requests for pages have in common.
func (s *Service) open(ctx context.Context, viewerText, postText, at, token string, kind byte) (p page, post id.Post, err error) {
	if p.viewer, err = problem.User("viewer_id", viewerText); err != nil {
		return p, post, err
	}
	if post, err = id.ParsePost(postText); err != nil {
		return p, post, problem.Invalid("post_id", "%v", err)
	}
	if at != "" {
		place, err := cursor.Parse(kind, id.User(post), at)
		if err != nil {
			return p, post, problem.Invalid("cursor", "%v", err)
		}
		p.before = id.Comment(place)
	}
	if p.past, err = s.past(ctx, p.viewer, token); err != nil {
		return p, post, err
	}
	if _, err := s.author(ctx, p.viewer, post, p.past.of(post)); err != nil {
		return p, post, err
	}
	if p.snap, err = s.upTo(ctx, post, p.past.of(post)); err != nil {
		return p, post, err
	}
	p.past.note(post, p.snap.shown())
	p.set, err = s.friends.Of(ctx, p.viewer)
	return p, post, err
}

// ListPage gives a page of comments; see the contract.
func (s *Service) ListPage(ctx context.Context, req *momentsv1.ListPageRequest) (*momentsv1.ListPageResponse, error) {
	limit, err := problem.PageLimit(req.GetLimit(), commentPage, maxCommentPage)
	if err != nil {
		return nil, err
	}
	p, post, err := s.open(ctx, req.GetViewerId(), req.GetPostId(), req.GetCursor(), req.GetSession(), commentCursor)
	if err != nil {
		return nil, err
	}
	shown, live := causal.View(p.snap.comments, func(c *causal.Comment) bool { return sees(p.set, c) })
	res := &momentsv1.ListPageResponse{CommentCount: uint32(live), Session: s.sealer.seal(p.viewer, p.past)}
	if !p.before.IsZero() {
		shown = shown[:sort.Search(len(shown), func(i int) bool { return shown[i].ID.Compare(p.before) >= 0 })]
	}
	if len(shown) > limit {
		shown = shown[len(shown)-limit:]
		res.NextCursor = cursor.Make(commentCursor, id.User(post), id.Post(shown[0].ID))
	}
	res.Comments = messages([]sight{{post: req.GetPostId(), shown: shown}})[0].GetComments()
	return res, nil
}

// ListLikes gives a page of likes; see the contract.
func (s *Service) ListLikes(ctx context.Context, req *momentsv1.ListLikesRequest) (*momentsv1.ListLikesResponse, error) {
	limit, err := problem.PageLimit(req.GetLimit(), likePage, maxLikePage)
	if err != nil {
		return nil, err
	}
	p, post, err := s.open(ctx, req.GetViewerId(), req.GetPostId(), req.GetCursor(), req.GetSession(), likeCursor)
	if err != nil {
		return nil, err
	}
	var shown []causal.Approval
	for _, l := range p.snap.likes {
		if privacy.SeesComment(p.set.Of(l.User)) {
			shown = append(shown, l)
		}
	}
	res := &momentsv1.ListLikesResponse{LikeCount: uint32(len(shown)), Session: s.sealer.seal(p.viewer, p.past)}
	if !p.before.IsZero() {
		shown = shown[:sort.Search(len(shown), func(i int) bool { return shown[i].ID.Compare(p.before) >= 0 })]
	}
	if len(shown) > limit {
		shown = shown[len(shown)-limit:]
		res.NextCursor = cursor.Make(likeCursor, id.User(post), id.Post(shown[0].ID))
	}
	for i := range shown {
		res.LikeIds = append(res.LikeIds, shown[i].User.String())
	}
	return res, nil
}

// Show tells which acts a viewer sees; see the contract.
func (s *Service) Show(ctx context.Context, req *momentsv1.ShowRequest) (*momentsv1.ShowResponse, error) {
	viewer, err := problem.User("viewer_id", req.GetViewerId())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetActs()); n > maxActs {
		return nil, problem.Invalid("acts", "has %d acts, at most %d", n, maxActs)
	}
	res := &momentsv1.ShowResponse{Acts: make([]*momentsv1.ShownAct, len(req.GetActs()))}
	seen := make(map[string]*act)
	var texts []string
	for i, a := range req.GetActs() {
		res.Acts[i] = new(momentsv1.ShownAct)
		if seen[a.GetPostId()] == nil {
			seen[a.GetPostId()] = new(act)
			texts = append(texts, a.GetPostId())
		}
	}
	if len(texts) > maxGet {
		return nil, problem.Invalid("acts", "are of %d posts, at most %d", len(texts), maxGet)
	}
	if texts, err = s.visible(ctx, req.GetViewerId(), texts, nil); err != nil {
		return nil, err
	}
	for _, text := range texts {
		p, err := id.ParsePost(text)
		if err != nil {
			return nil, problem.Invalid("acts.post_id", "%v", err)
		}
		a := seen[text]
		if a.snap, err = s.threads.read(ctx, p); err != nil {
			return nil, problem.Store("read thread", err)
		}
	}
	set, err := s.friends.Of(ctx, viewer)
	if err != nil {
		return nil, err
	}
	for i, a := range req.GetActs() {
		if err := seen[a.GetPostId()].show(a, set, res.GetActs()[i]); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// act is what Show knows of a post; of one that the viewer does not see, nothing.
type act struct {
	snap  snapshot
	likes map[id.User]struct{} // of snap, once it is asked for
}

// show tells whether an act is to be seen.
func (a *act) show(of *momentsv1.Act, set relations.Set, to *momentsv1.ShownAct) error {
	if of.GetCommentId() != "" {
		c, err := id.ParseComment(of.GetCommentId())
		if err != nil {
			return problem.Invalid("acts.comment_id", "%v", err)
		}
		if found, ok := causal.Find(a.snap.comments, c); ok && !found.Deleted && sees(set, &found) {
			to.Shown, to.Text = true, found.Body
		}
		return nil
	}
	u, err := problem.User("acts.user_id", of.GetUserId())
	if err != nil {
		return err
	}
	if a.likes == nil {
		a.likes = make(map[id.User]struct{}, len(a.snap.likes))
		for i := range a.snap.likes {
			a.likes[a.snap.likes[i].User] = struct{}{}
		}
	}
	_, likes := a.likes[u]
	to.Shown = likes && privacy.SeesComment(set.Of(u))
	return nil
}
