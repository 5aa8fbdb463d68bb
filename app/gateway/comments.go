// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"strconv"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (g *Gateway) commentRoutes() []route {
	return []route{
		{"GET /posts/{post}/comments", momentsv1.CommentServiceListPageMethod, member, g.listComments},
		{"POST /posts/{post}/comments", momentsv1.CommentServiceAddMethod, writer, g.addComment},
		{"DELETE /posts/{post}/comments/{comment}", momentsv1.CommentServiceDeleteMethod, writer, g.deleteComment},
		{"GET /posts/{post}/likes", momentsv1.CommentServiceListLikesMethod, member, g.listLikes},
		{"PUT /posts/{post}/like", momentsv1.CommentServiceLikeMethod, writer, g.like},
		{"DELETE /posts/{post}/like", momentsv1.CommentServiceUnlikeMethod, writer, g.unlike},
	}
}

// session gives the request's session token, which passSession has looked at.
func (c *call) session() string { return c.w.Header().Get(sessionHeader) }

// setSession puts the token of a service's answer into this one.
func (c *call) setSession(token string) {
	if token != "" {
		c.w.Header()[sessionHeader] = []string{token}
	}
}

// threads gives what the viewer sees under posts that he may see.
func (g *Gateway) threads(c *call, posts []string, limit uint32) (map[string]*momentsv1.Thread, error) {
	if len(posts) == 0 {
		return nil, nil //nolint:nilnil // a nil map holds no threads
	}
	res, err := g.comments.ListMany(c.ctx(), &momentsv1.ListCommentsRequest{
		ViewerId: c.user, PostIds: posts, Limit: limit, Session: c.session(),
	})
	if err != nil {
		return nil, err
	}
	c.setSession(res.GetSession())
	threads := make(map[string]*momentsv1.Thread, len(posts))
	for _, t := range res.GetThreads() {
		threads[t.GetPostId()] = t
	}
	return threads, nil
}

// listComments gives a post's comments from the newest page to the oldest.
func (g *Gateway) listComments(c *call) error {
	post, cursor, limit, err := c.pageOfPost()
	if err != nil {
		return err
	}
	res, err := g.comments.ListPage(c.ctx(), &momentsv1.ListPageRequest{
		ViewerId: c.user, PostId: post, Cursor: cursor, Limit: limit, Session: c.session(),
	})
	if err != nil {
		return err
	}
	c.setSession(res.GetSession())
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetComments(), appendComment)
		return appendPageEnd(append(b, `,"comment_count":`...), res.GetCommentCount(), res.GetNextCursor())
	})
}

// listLikes gives who likes a post from the newest page to the oldest.
func (g *Gateway) listLikes(c *call) error {
	post, cursor, limit, err := c.pageOfPost()
	if err != nil {
		return err
	}
	res, err := g.comments.ListLikes(c.ctx(), &momentsv1.ListLikesRequest{
		ViewerId: c.user, PostId: post, Cursor: cursor, Limit: limit, Session: c.session(),
	})
	if err != nil {
		return err
	}
	c.setSession(res.GetSession())
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetLikeIds(), appendString)
		return appendPageEnd(append(b, `,"like_count":`...), res.GetLikeCount(), res.GetNextCursor())
	})
}

// pageOfPost reads which page of what belongs to which post is asked for.
func (c *call) pageOfPost() (post, cursor string, limit uint32, err error) {
	if post, err = c.pathPost(); err != nil {
		return "", "", 0, err
	}
	cursor, limit, err = c.page()
	return post, cursor, limit, err
}

// appendPageEnd ends a page of something that is counted.
func appendPageEnd(b []byte, count uint32, next string) []byte {
	b = strconv.AppendUint(b, uint64(count), 10)
	return append(appendCursor(b, `,"next_cursor":`, next), '}')
}

func (g *Gateway) addComment(c *call) error {
	var in struct {
		Text    string `json:"text"`
		ReplyTo string `json:"reply_to"`
	}
	post, err := c.pathPost()
	if err != nil {
		return err
	}
	key, err := c.ownKey()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	if in.ReplyTo != "" {
		if _, err := id.ParseComment(in.ReplyTo); err != nil {
			return invalid("reply_to", "give the id of a comment of this post")
		}
	}
	res, err := g.comments.Add(c.ctx(), &momentsv1.AddCommentRequest{
		WriterId: c.user, IdempotencyKey: key, PostId: post, ParentId: in.ReplyTo, Text: in.Text, Session: c.session(),
	})
	if err != nil {
		return err
	}
	c.setSession(res.GetSession())
	return c.reply(http.StatusCreated, func(b []byte) []byte { return appendComment(b, res.GetComment()) })
}

func (g *Gateway) deleteComment(c *call) error {
	post, key, err := c.likeStep()
	if err != nil {
		return err
	}
	comment, err := c.pathComment()
	if err != nil {
		return err
	}
	res, err := g.comments.Delete(c.ctx(), &momentsv1.DeleteCommentRequest{
		UserId: c.user, PostId: post, CommentId: comment, IdempotencyKey: key, Session: c.session(),
	})
	if err != nil {
		return err
	}
	c.setSession(res.GetSession())
	return c.done()
}

func (g *Gateway) like(c *call) error {
	post, key, err := c.likeStep()
	if err != nil {
		return err
	}
	res, err := g.comments.Like(c.ctx(), &momentsv1.LikeRequest{UserId: c.user, PostId: post, IdempotencyKey: key, Session: c.session()})
	if err != nil {
		return err
	}
	c.setSession(res.GetSession())
	return c.done()
}

func (g *Gateway) unlike(c *call) error {
	post, key, err := c.likeStep()
	if err != nil {
		return err
	}
	res, err := g.comments.Unlike(c.ctx(), &momentsv1.UnlikeRequest{UserId: c.user, PostId: post, IdempotencyKey: key, Session: c.session()})
	if err != nil {
		return err
	}
	c.setSession(res.GetSession())
	return c.done()
}

// likeStep reads what a step on a post needs that has no body.
func (c *call) likeStep() (post, key string, err error) {
	if post, err = c.pathPost(); err != nil {
		return "", "", err
	}
	key, err = c.key()
	return post, key, err
}
