// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (g *Gateway) publish(c *call) error {
	var in struct {
		Text string `json:"text"`
	}
	key, err := c.ownKey()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	res, err := g.posts.Publish(c.ctx(), &momentsv1.PublishRequest{
		AuthorId: c.user, IdempotencyKey: key, Text: in.Text, Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/posts/"+res.GetPost().GetId())
	return c.reply(http.StatusCreated, func(b []byte) []byte { return appendPost(b, res.GetPost(), nil) })
}

// getPost shows a post with all of its thread.
func (g *Gateway) getPost(c *call) error {
	post, err := c.pathPost()
	if err != nil {
		return err
	}
	found, err := g.posts.GetMany(c.ctx(), &momentsv1.GetPostsRequest{ViewerId: c.user, Ids: []string{post}})
	if err != nil {
		return err
	}
	if len(found.GetPosts()) == 0 {
		return notFound("post")
	}
	threads, err := g.threads(c, []string{post}, 0)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return appendPost(b, found.GetPosts()[0], threads[post]) })
}

func (g *Gateway) album(c *call) error {
	author, err := c.pathUser()
	if err != nil {
		return err
	}
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.posts.Album(c.ctx(), &momentsv1.AlbumRequest{ViewerId: c.user, AuthorId: author, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	ids := make([]string, len(res.GetPosts()))
	for i, p := range res.GetPosts() {
		ids[i] = p.GetId()
	}
	threads, err := g.threads(c, ids, albumThread)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetPosts(), func(b []byte, p *momentsv1.Post) []byte { return appendPost(b, p, threads[p.GetId()]) })
		return append(appendCursor(b, `,"next_cursor":`, res.GetNextCursor()), '}')
	})
}

// albumThread is how many comments and likes a post of an album shows; the post's
// own page has them all.
const albumThread = 50

// threads gives what the viewer sees under posts that he may see.
func (g *Gateway) threads(c *call, posts []string, limit uint32) (map[string]*momentsv1.Thread, error) {
	if len(posts) == 0 {
		return nil, nil //nolint:nilnil // a nil map holds no threads
	}
	res, err := g.comments.ListMany(c.ctx(), &momentsv1.ListCommentsRequest{ViewerId: c.user, PostIds: posts, Limit: limit})
	if err != nil {
		return nil, err
	}
	threads := make(map[string]*momentsv1.Thread, len(posts))
	for _, t := range res.GetThreads() {
		threads[t.GetPostId()] = t
	}
	return threads, nil
}

func (g *Gateway) deletePost(c *call) error {
	post, err := c.pathPost()
	if err != nil {
		return err
	}
	if _, err := g.posts.Delete(c.ctx(), &momentsv1.DeletePostRequest{AuthorId: c.user, PostId: post}); err != nil {
		return err
	}
	return c.done()
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
		WriterId: c.user, IdempotencyKey: key, PostId: post, ParentId: in.ReplyTo, Text: in.Text,
	})
	if err != nil {
		return err
	}
	return c.reply(http.StatusCreated, func(b []byte) []byte { return appendComment(b, res.GetComment()) })
}

func (g *Gateway) deleteComment(c *call) error {
	post, err := c.pathPost()
	if err != nil {
		return err
	}
	comment, err := c.pathComment()
	if err != nil {
		return err
	}
	if _, err := g.comments.Delete(c.ctx(), &momentsv1.DeleteCommentRequest{UserId: c.user, PostId: post, CommentId: comment}); err != nil {
		return err
	}
	return c.done()
}

func (g *Gateway) like(c *call) error {
	post, key, err := c.likeStep()
	if err != nil {
		return err
	}
	if _, err := g.comments.Like(c.ctx(), &momentsv1.LikeRequest{UserId: c.user, PostId: post, IdempotencyKey: key}); err != nil {
		return err
	}
	return c.done()
}

func (g *Gateway) unlike(c *call) error {
	post, key, err := c.likeStep()
	if err != nil {
		return err
	}
	if _, err := g.comments.Unlike(c.ctx(), &momentsv1.UnlikeRequest{UserId: c.user, PostId: post, IdempotencyKey: key}); err != nil {
		return err
	}
	return c.done()
}

func (c *call) likeStep() (post, key string, err error) {
	if post, err = c.pathPost(); err != nil {
		return "", "", err
	}
	key, err = c.key()
	return post, key, err
}
