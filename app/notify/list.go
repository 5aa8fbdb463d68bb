// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"encoding/binary"

	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	noticeCursor  = 'n' // kind of cursor
	page, maxPage = 20, 100
	// chunk is how many notices are looked at at a time: what one Show may be asked.
	chunk = 200
)

// parsePlace reads the id of a notice: its sequence.
func parsePlace(field, text string) (uint64, error) {
	n, err := id.ParseNotice(text)
	if err != nil {
		return 0, problem.Invalid(field, "%v", err)
	}
	if binary.BigEndian.Uint64(n[:]) != 0 {
		return 0, problem.Invalid(field, "is not the id of a notice")
	}
	return binary.BigEndian.Uint64(n[8:]), nil
}

// ListNotices gives a page of notices; see the contract.
func (s *Service) ListNotices(ctx context.Context, req *momentsv1.ListNoticesRequest) (*momentsv1.ListNoticesResponse, error) {
	u, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	limit, err := problem.PageLimit(req.GetLimit(), page, maxPage)
	if err != nil {
		return nil, err
	}
	before := uint64(1<<64 - 1)
	if req.GetCursor() != "" {
		at, err := cursor.Parse(noticeCursor, u, req.GetCursor())
		if err != nil {
			return nil, problem.Invalid("cursor", "%v", err)
		}
		before = binary.BigEndian.Uint64(at[8:])
	}
	res := new(momentsv1.ListNoticesResponse)
	w := s.walk(u, before)
	for len(res.GetNotices()) <= limit { // one more tells whether there is a next page
		more, err := w.next(ctx)
		if err != nil {
			return nil, err
		}
		if more == nil {
			return res, nil
		}
		for _, n := range more {
			if len(res.GetNotices()) == limit {
				last, err := id.ParseNotice(res.GetNotices()[limit-1].GetNoticeId())
				if err != nil {
					return nil, err
				}
				res.NextCursor = cursor.Make(noticeCursor, u, id.Post(last))
				return res, nil
			}
			res.Notices = append(res.Notices, n)
		}
	}
	return res, nil
}

// CountUnread gives the number of unread notices; see the contract.
func (s *Service) CountUnread(ctx context.Context, req *momentsv1.CountUnreadRequest) (*momentsv1.CountUnreadResponse, error) {
	u, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	unread, newest, err := s.unread(ctx, u)
	if err != nil {
		return nil, err
	}
	return &momentsv1.CountUnreadResponse{Unread: unread, NewestNoticeId: newest}, nil
}

// unread counts what a reader would see and has not read. It is counted each time, so
// it is never off.
func (s *Service) unread(ctx context.Context, u id.User) (n uint32, newest string, err error) {
	w := s.walk(u, 1<<64-1)
	w.unread = true
	for {
		more, err := w.next(ctx)
		if err != nil || more == nil {
			return n, newest, err
		}
		if n == 0 && len(more) > 0 {
			newest = more[0].GetNoticeId()
		}
		n += uint32(len(more))
	}
}

// Watch gives the versions of readers' states; see the contract.
func (s *Service) Watch(ctx context.Context, req *momentsv1.WatchNoticesRequest) (*momentsv1.WatchNoticesResponse, error) {
	if n := len(req.GetUserIds()); n > maxWatch {
		return nil, problem.Invalid("user_ids", "has %d ids, at most %d", n, maxWatch)
	}
	res := &momentsv1.WatchNoticesResponse{Stamps: make([]uint64, len(req.GetUserIds()))}
	for i, v := range req.GetUserIds() {
		u, err := problem.User("user_ids", v)
		if err != nil {
			return nil, err
		}
		it, err := s.store.Get(ctx, kv.SlotOf(u[:]), stateKey(u), kv.Local)
		if err != nil {
			return nil, problem.Store("read the state of a reader", err)
		}
		res.Stamps[i] = it.Ver
	}
	return res, nil
}

// walk goes through a reader's notices from the newest to the oldest.
type walk struct {
	s      *Service
	u      id.User
	before uint64 // sequence of the last one seen
	floor  uint64 // up to which there are none any more
	unread bool   // only those

	state   state
	started bool
	ended   bool
}

func (s *Service) walk(u id.User, before uint64) *walk { return &walk{s: s, u: u, before: before} }

// next gives the next notices that the reader may see, maybe none, and nil after the
// last.
func (w *walk) next(ctx context.Context) ([]*momentsv1.Notice, error) {
	slot := kv.SlotOf(w.u[:])
	if !w.started {
		it, err := w.s.store.Get(ctx, slot, stateKey(w.u), kv.Local)
		if err == nil {
			w.state, err = parseState(it)
		}
		if err != nil {
			return nil, problem.Store("read the state of a reader", err)
		}
		w.started = true
		w.before = min(w.before, w.state.last+1)
		if w.state.last > w.s.keep {
			w.floor = w.state.last - w.s.keep
		}
		if w.unread {
			w.floor = max(w.floor, w.state.read)
		}
	}
	if w.ended || w.before <= w.floor+1 {
		return nil, nil
	}
	r := kv.Range{From: noticeKey(w.u, w.before-1), To: noticeKey(w.u, w.floor), Limit: chunk}
	items, more, err := w.s.store.Scan(ctx, slot, r, kv.Local)
	if err != nil {
		return nil, problem.Store("read notices", err)
	}
	w.ended = !more
	all := make([]notice, len(items))
	for i, it := range items {
		if all[i], err = parseNotice(it); err != nil {
			return nil, err
		}
		w.before = all[i].seq
	}
	return w.show(ctx, all)
}

// show gives those of some notices that the reader may see, as they are now.
func (w *walk) show(ctx context.Context, all []notice) ([]*momentsv1.Notice, error) {
	viewer := w.u.String()
	texts := make([]*momentsv1.ShownAct, len(all)) // nil for what is no act, or not seen
	ask := &momentsv1.ShowRequest{ViewerId: viewer}
	heads := &momentsv1.GetPostsRequest{ViewerId: viewer, HeadsOnly: true}
	bonds := &momentsv1.ShowFriendActsRequest{ViewerId: viewer}
	var acts, social []int
	for i := range all {
		n := &all[i]
		switch n.kind {
		case momentsv1.NoticeKind_NOTICE_KIND_LIKE:
			acts, ask.Acts = append(acts, i), append(ask.Acts, &momentsv1.Act{PostId: n.post.String(), UserId: n.actor.String()})
		case momentsv1.NoticeKind_NOTICE_KIND_COMMENT, momentsv1.NoticeKind_NOTICE_KIND_REPLY:
			acts, ask.Acts = append(acts, i), append(ask.Acts, &momentsv1.Act{PostId: n.post.String(), CommentId: n.comment.String()})
		case momentsv1.NoticeKind_NOTICE_KIND_REMIND:
			heads.Ids = append(heads.Ids, n.post.String())
		case momentsv1.NoticeKind_NOTICE_KIND_FRIEND_REQUEST, momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED:
			social = append(social, i)
			bonds.Acts = append(bonds.Acts, &momentsv1.FriendAct{
				ActorId: n.actor.String(), Round: n.round, Accepted: n.kind == momentsv1.NoticeKind_NOTICE_KIND_FRIEND_ACCEPTED,
			})
		case momentsv1.NoticeKind_NOTICE_KIND_UNSPECIFIED:
		}
	}
	if len(acts) > 0 {
		res, err := w.s.comment.Show(ctx, ask)
		if err != nil {
			return nil, err
		}
		for i, a := range res.GetActs() {
			if i < len(acts) {
				texts[acts[i]] = a
			}
		}
	}
	if len(social) > 0 {
		res, err := w.s.account.ShowFriendActs(ctx, bonds)
		if err != nil {
			return nil, err
		}
		for i, shown := range res.GetShown() {
			if i < len(social) {
				texts[social[i]] = &momentsv1.ShownAct{Shown: shown}
			}
		}
	}
	seen := make(map[string]bool)
	if len(heads.GetIds()) > 0 {
		res, err := w.s.post.GetMany(ctx, heads)
		if err != nil {
			return nil, err
		}
		for _, p := range res.GetPosts() {
			seen[p.GetId()] = true
		}
	}
	shown := make([]*momentsv1.Notice, 0, len(all))
	for i := range all {
		n := &all[i]
		reminder := n.kind == momentsv1.NoticeKind_NOTICE_KIND_REMIND && seen[n.post.String()]
		if !texts[i].GetShown() && !reminder {
			continue
		}
		m := &momentsv1.Notice{
			NoticeId: n.id().String(), Kind: n.kind, ActorId: n.actor.String(), HappenedMs: n.happened,
			Text: texts[i].GetText(), Read: n.seq <= w.state.read,
		}
		if !n.post.IsZero() {
			m.PostId = n.post.String()
		}
		if !n.comment.IsZero() {
			m.CommentId = n.comment.String()
		}
		shown = append(shown, m)
	}
	return shown, nil
}
