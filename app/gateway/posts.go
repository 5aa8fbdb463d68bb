// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"time"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (g *Gateway) publish(c *call) error {
	var in struct {
		Text       string   `json:"text"`
		Audience   *string  `json:"audience"`
		AllowUsers []string `json:"allow_users"`
		AllowTags  []string `json:"allow_tags"`
		DenyUsers  []string `json:"deny_users"`
		DenyTags   []string `json:"deny_tags"`
		Media      []string `json:"media"`
		Link       *struct {
			URL   string `json:"url"`
			Title string `json:"title"`
			Media string `json:"media"`
		} `json:"link"`
		Location string   `json:"location"`
		Remind   []string `json:"remind"`
	}
	key, err := c.ownKey()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	req := &momentsv1.PublishRequest{
		AuthorId: c.user, IdempotencyKey: key, Text: in.Text, Audience: momentsv1.Audience_AUDIENCE_FRIENDS,
		AllowIds: in.AllowUsers, AllowTagIds: in.AllowTags, DenyIds: in.DenyUsers, DenyTagIds: in.DenyTags,
		MediaIds: in.Media, Location: in.Location, RemindIds: in.Remind,
	}
	if in.Audience != nil {
		if req.Audience, err = audienceOf(*in.Audience); err != nil {
			return err
		}
	}
	if in.Link != nil {
		req.Link = &momentsv1.LinkCard{Url: in.Link.URL, Title: in.Link.Title, MediaId: in.Link.Media}
	}
	res, err := g.posts.Publish(c.ctx(), req)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/posts/"+res.GetPost().GetId())
	return c.reply(http.StatusCreated, func(b []byte) []byte { return g.appendPost(b, res.GetPost(), nil) })
}

// postThread is how many comments and likes a post's own page shows; the lists of
// comments and likes have them all.
const postThread = 500

// getPost shows a post with the newest of its thread.
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
		if c.session() != "" { // it may have seen the post in a region that is ahead of this one
			_, err := g.comments.ListPage(c.ctx(), &momentsv1.ListPageRequest{ViewerId: c.user, PostId: post, Limit: 1, Session: c.session()})
			if err != nil && rpc.CodeOf(err) != rpc.NotFound {
				return err
			}
		}
		return notFound("post")
	}
	threads, err := g.threads(c, []string{post}, postThread)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return g.appendPost(b, found.GetPosts()[0], threads[post]) })
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
	from, to, err := c.month()
	if err != nil {
		return err
	}
	res, err := g.posts.Album(c.ctx(), &momentsv1.AlbumRequest{
		ViewerId: c.user, AuthorId: author, Cursor: cursor, Limit: limit, FromMs: from, ToMs: to,
	})
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
		b = appendItems(b, res.GetPosts(), func(b []byte, p *momentsv1.Post) []byte { return g.appendPost(b, p, threads[p.GetId()]) })
		return append(appendCursor(b, `,"next_cursor":`, res.GetNextCursor()), '}')
	})
}

// month reads the month, in UTC, that an album is asked for, as unix milliseconds from
// its first to the next one's; zeros for all.
func (c *call) month() (from, to int64, err error) {
	q, err := c.query()
	if err != nil || !q.Has("month") {
		return 0, 0, err
	}
	first, err := time.Parse("2006-01", q.Get("month"))
	if err != nil || first.Year() < 1970 {
		return 0, 0, invalid("month", "give a year and a month, such as 2026-11")
	}
	return max(first.UnixMilli(), 1), first.AddDate(0, 1, 0).UnixMilli(), nil
}

// albumThread is how many comments and likes a post of an album shows; the post's
// own page has more.
const albumThread = 50

func (g *Gateway) deletePost(c *call) error {
	post, err := c.pathPost()
	if err != nil {
		return err
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if _, err := g.posts.Delete(c.ctx(), &momentsv1.DeletePostRequest{AuthorId: c.user, PostId: post, IdempotencyKey: key}); err != nil {
		return err
	}
	return c.done()
}
