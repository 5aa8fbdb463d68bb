// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"strconv"

	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// timeline is the route that is read most: one RPC.
func (g *Gateway) timeline(c *call) error {
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.timelines.Home(c.ctx(), &momentsv1.HomeRequest{ViewerId: c.user, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetItems(), g.appendItem)
		b = appendCursor(b, `,"next_cursor":`, res.GetNextCursor())
		b = appendCursor(b, `,"newest_cursor":`, res.GetNewestCursor())
		return append(b, '}')
	})
}

func (g *Gateway) newer(c *call) error {
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.timelines.Newer(c.ctx(), &momentsv1.NewerRequest{ViewerId: c.user, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetItems(), g.appendItem)
		b = appendCursor(b, `,"newest_cursor":`, res.GetNewestCursor())
		if res.GetMore() {
			b = append(b, `,"more":true`...)
			b = appendCursor(b, `,"next_cursor":`, res.GetNextCursor())
		}
		return append(b, '}')
	})
}

// head is the red dot.
func (g *Gateway) head(c *call) error {
	res, err := g.timelines.Head(c.ctx(), &momentsv1.HeadRequest{ViewerId: c.user})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return appendHead(b, res) })
}

func appendHead(b []byte, h *momentsv1.HeadResponse) []byte {
	b = strconv.AppendBool(append(b, `{"fresh":`...), h.GetFresh())
	b = appendCursor(b, `,"post_id":`, h.GetPostId())
	b = appendCursor(b, `,"author_id":`, h.GetAuthorId())
	return append(b, '}')
}

func (g *Gateway) markSeen(c *call) error {
	var in struct {
		Cursor string `json:"cursor"`
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	if in.Cursor == "" || len(in.Cursor) > 512 || !visible(in.Cursor) {
		return invalid("cursor", "give the newest_cursor of an earlier answer, unchanged")
	}
	if _, err := g.timelines.MarkSeen(c.ctx(), &momentsv1.MarkSeenRequest{ViewerId: c.user, Cursor: in.Cursor}); err != nil {
		return err
	}
	return c.done()
}
