// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"strconv"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (g *Gateway) noticeRoutes() []route {
	return []route{
		{"GET /notices", momentsv1.NotifyServiceListNoticesMethod, member, g.listNotices},
		{"GET /notices/unread", momentsv1.NotifyServiceCountUnreadMethod, member, g.countUnread},
		{"PUT /notices/read", momentsv1.NotifyServiceMarkReadMethod, member, g.markRead},
		{"GET /events", nil, member, g.events}, // it lasts: it has no deadline and is no call in the queue
	}
}

// noticeKinds are the API's words.
var noticeKinds = map[momentsv1.NoticeKind]string{
	momentsv1.NoticeKind_NOTICE_KIND_LIKE:            "like",
	momentsv1.NoticeKind_NOTICE_KIND_COMMENT:         "comment",
	momentsv1.NoticeKind_NOTICE_KIND_REPLY:           "reply",
	momentsv1.NoticeKind_NOTICE_KIND_REMIND:          "remind",
	momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST:  "friend_request",
	momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED: "friend_accepted",
}

func appendNotice(b []byte, n *momentsv1.Notice) []byte {
	b = appendString(append(b, `{"id":`...), n.GetNoticeId())
	b = appendString(append(b, `,"kind":`...), noticeKinds[n.GetKind()])
	b = appendString(append(b, `,"actor_id":`...), n.GetActorId())
	b = appendCursor(b, `,"post_id":`, n.GetPostId())
	b = appendCursor(b, `,"comment_id":`, n.GetCommentId())
	b = appendCursor(b, `,"text":`, n.GetText())
	b = appendTime(append(b, `,"created_at":`...), n.GetHappenedMs())
	b = strconv.AppendBool(append(b, `,"read":`...), n.GetRead())
	return append(b, '}')
}

func (g *Gateway) listNotices(c *call) error {
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.notices.ListNotices(c.ctx(), &momentsv1.ListNoticesRequest{UserId: c.user, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetNotices(), appendNotice)
		return append(appendCursor(b, `,"next_cursor":`, res.GetNextCursor()), '}')
	})
}

func appendUnread(b []byte, n uint32) []byte {
	return append(strconv.AppendUint(append(b, `{"unread":`...), uint64(n), 10), '}')
}

func (g *Gateway) countUnread(c *call) error {
	res, err := g.notices.CountUnread(c.ctx(), &momentsv1.CountUnreadRequest{UserId: c.user})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return appendUnread(b, res.GetUnread()) })
}

func (g *Gateway) markRead(c *call) error {
	var in struct {
		UpTo string `json:"up_to"`
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	if _, err := id.ParseNotice(in.UpTo); err != nil {
		return invalid("up_to", "give the id of a notice")
	}
	res, err := g.notices.MarkRead(c.ctx(), &momentsv1.MarkReadRequest{UserId: c.user, UpToNoticeId: in.UpTo})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return appendUnread(b, res.GetUnread()) })
}
