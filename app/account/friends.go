// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"encoding/binary"

	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// step is one act of a user on his side of a friendship: from what is known to
// what shall be.
type step func(edge) (edge, error)

// RequestFriend implements the contract.
func (s *Service) RequestFriend(ctx context.Context, req *momentsv1.RequestFriendRequest) (*momentsv1.RequestFriendResponse, error) {
	state, err := s.act(ctx, "request", req, func(e edge) (edge, error) {
		if e.blocked {
			return e, problem.New(rpc.FailedPrecondition, "blocked", "other_id", "you block this person; unblock first")
		}
		return e.request(), nil
	})
	return &momentsv1.RequestFriendResponse{State: state}, err
}

// AcceptFriend implements the contract.
func (s *Service) AcceptFriend(ctx context.Context, req *momentsv1.AcceptFriendRequest) (*momentsv1.AcceptFriendResponse, error) {
	state, err := s.act(ctx, "accept", req, func(e edge) (edge, error) {
		switch {
		case e.friends():
			return e, nil
		case !e.invited():
			return e, problem.New(rpc.FailedPrecondition, "no-request", "other_id", "no request of this person is waiting")
		}
		return e.accept(), nil
	})
	return &momentsv1.AcceptFriendResponse{State: state}, err
}

// DeclineFriend implements the contract.
func (s *Service) DeclineFriend(ctx context.Context, req *momentsv1.DeclineFriendRequest) (*momentsv1.DeclineFriendResponse, error) {
	state, err := s.act(ctx, "decline", req, func(e edge) (edge, error) { return e.decline(), nil })
	return &momentsv1.DeclineFriendResponse{State: state}, err
}

// Unfriend implements the contract.
func (s *Service) Unfriend(ctx context.Context, req *momentsv1.UnfriendRequest) (*momentsv1.UnfriendResponse, error) {
	state, err := s.act(ctx, "unfriend", req, func(e edge) (edge, error) { return e.takeBack(), nil })
	return &momentsv1.UnfriendResponse{State: state}, err
}

// Block implements the contract.
func (s *Service) Block(ctx context.Context, req *momentsv1.BlockRequest) (*momentsv1.BlockResponse, error) {
	state, err := s.act(ctx, "block", req, func(e edge) (edge, error) { return e.block(), nil })
	return &momentsv1.BlockResponse{State: state}, err
}

// Unblock implements the contract.
func (s *Service) Unblock(ctx context.Context, req *momentsv1.UnblockRequest) (*momentsv1.UnblockResponse, error) {
	state, err := s.act(ctx, "unblock", req, func(e edge) (edge, error) { return e.unblock(), nil })
	return &momentsv1.UnblockResponse{State: state}, err
}

// friendRequest is what all requests about two people have.
type friendRequest interface {
	GetUserId() string
	GetOtherId() string
	GetIdempotencyKey() string
}

// act makes a step on the user's side and lets the other's side hear of it before
// it returns. What a crash leaves unheard is told by Run after the next start.
func (s *Service) act(ctx context.Context, name string, req friendRequest, do step) (momentsv1.FriendState, error) {
	none := momentsv1.FriendState_FRIEND_STATE_NONE
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return none, err
	}
	other, err := problem.User("other_id", req.GetOtherId())
	if err != nil {
		return none, err
	}
	if uid == other {
		return none, problem.Invalid("other_id", "this is the user himself")
	}
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return none, err
	}
	for _, u := range []id.User{uid, other} {
		if _, ver, err := s.user(ctx, u); err != nil || ver == 0 {
			if err == nil {
				err = problem.NotFound("user")
			}
			return none, problem.Store("change friendship", err)
		}
	}
	use := once.New(s.now(), uid[:], req.GetIdempotencyKey(), once.Sum(name, req.GetOtherId()))
	state, err := s.change(ctx, uid, other, use, do)
	if err != nil {
		return none, problem.Store("change friendship", err)
	}
	if !s.home(other) {
		return state, nil // his region hears of it by the line
	}
	if err := s.tell(ctx, uid, other); err != nil {
		s.wake()
		return none, problem.Store("change friendship", err)
	}
	return state, nil
}

// change makes a step on uid's side: edge, indexes, counters, the mark that the
// other's side must hear, what uid is to be told and the idempotency key, in one batch.
func (s *Service) change(ctx context.Context, uid, other id.User, use once.Use, do step) (momentsv1.FriendState, error) {
	for {
		state, err := s.changeOnce(ctx, uid, other, use, do)
		if retry(ctx, err) {
			continue
		}
		return state, err
	}
}

func (s *Service) changeOnce(ctx context.Context, uid, other id.User, use once.Use, do step) (momentsv1.FriendState, error) {
	none := momentsv1.FriendState_FRIEND_STATE_NONE
	slot := slotOfUser(uid)
	answer, found, err := use.Answer(ctx, s.store, slot)
	if err != nil {
		return none, err
	}
	if found && len(answer) == 1 {
		return momentsv1.FriendState(answer[0]), nil
	}
	edgeKey, tallyKey := pairKey(prefixEdge, uid, other), userKey(prefixRelation, uid)
	edgeItem, err := s.store.Get(ctx, slot, edgeKey, kv.Linearizable)
	if err != nil {
		return none, err
	}
	tallyItem, err := s.store.Get(ctx, slot, tallyKey, kv.Linearizable)
	if err != nil {
		return none, err
	}
	was, err := decodeEdge(edgeItem.Value)
	if err != nil {
		return none, err
	}
	count, err := decodeTally(tallyItem.Value)
	if err != nil {
		return none, err
	}
	now, err := do(was)
	if err != nil {
		return none, err
	}
	state := now.state()
	b := new(kv.Batch)
	use.IfNew(b)
	use.Record(b, []byte{byte(state)})
	if now == was {
		if b.Len() == 0 {
			return state, nil
		}
		_, err := s.store.Apply(ctx, slot, b.IfVer(edgeKey, edgeItem.Ver))
		return state, err
	}
	b.IfVer(edgeKey, edgeItem.Ver).Put(edgeKey, now.encode())
	b.IfVer(tallyKey, tallyItem.Ver)
	if now.alive() && !was.alive() {
		if count.alive >= s.maxFriends {
			return none, problem.New(rpc.FailedPrecondition, "limit", "other_id",
				"you have %d friends and waiting requests, which is the limit; remove some first", count.alive)
		}
		count.alive++
	}
	if was.alive() && !now.alive() {
		count.alive--
	}
	// With other regions a post says how far its author's own side was when he made it.
	if now.view() != was.view() || s.joined && now.word() != was.word() {
		count.version++
	}
	b.Put(tallyKey, count.encode())
	s.index(b, uid, other, was, now)
	var tell []news
	if kind, round := now.heardOf(was); kind != 0 {
		tell = append(tell, news{to: uid, by: other, kind: kind, round: round, ms: s.now().UnixMilli()})
	}
	return state, s.apply(ctx, slot, b, tell...)
}

// index adds to b what follows from an edge.
func (s *Service) index(b *kv.Batch, uid, other id.User, was, now edge) {
	if now.word() != was.word() && s.home(other) {
		b.Put(pairKey(prefixMirror, uid, other), now.word().encode())
	}
	friend, fill := pairKey(prefixFriend, uid, other), pairKey(prefixBackfill, uid, other)
	switch {
	case now.friends() && now.view() != was.view():
		b.Put(friend, now.view().encode())
	case was.friends() && !now.friends():
		b.Delete(friend)
	}
	switch {
	case now.friends() && !was.friends():
		b.Put(fill, nil)
	case was.friends() && !now.friends():
		b.Delete(fill)
	}
	if now.noteworthy() != was.noteworthy() {
		chosen := pairKey(prefixChosen, uid, other)
		if now.noteworthy() {
			b.Put(chosen, nil)
		} else {
			b.Delete(chosen)
		}
	}
	if now.invited() != was.invited() {
		invite := pairKey(prefixInvite, uid, other)
		if now.invited() {
			b.Put(invite, binary.BigEndian.AppendUint64(nil, uint64(s.now().UnixMilli())))
		} else {
			b.Delete(invite)
		}
	}
}

// tell brings what waits in uid's slot for other's side there. Hearing twice
// changes nothing, so a crash anywhere only makes it happen again.
func (s *Service) tell(ctx context.Context, uid, other id.User) error {
	key := pairKey(prefixMirror, uid, other)
	switch {
	case !s.home(other): // he has moved, and hears of it where he is by now
		_, err := s.store.Apply(ctx, slotOfUser(uid), new(kv.Batch).Delete(key))
		return err
	case s.homes.Of(other).Next != 0:
		return nil // once that is decided it is looked for what waits
	}
	for {
		item, err := s.store.Get(ctx, slotOfUser(uid), key, kv.Linearizable)
		if err != nil || item.Ver == 0 {
			return err
		}
		said, err := decodeWord(item.Value)
		if err != nil {
			return err
		}
		var declined, met bool
		state, err := s.change(ctx, other, uid, once.Use{}, func(e edge) (edge, error) {
			heard := e.hear(said)
			declined, met = heard.own != e.own, heard.friends() && !e.friends()
			return heard, nil
		})
		if err != nil {
			return err
		}
		if met && s.home(uid) {
			// Until now a change of the other's settings could not find this side.
			if err := s.touch(ctx, uid); err != nil {
				return err
			}
		}
		if state == momentsv1.FriendState_FRIEND_STATE_FRIENDS {
			// Only now both sides know, which a reader of either side's posts needs.
			s.queueBackfill(uid, other)
			s.queueBackfill(other, uid)
		}
		if declined && s.home(uid) { // being blocked makes the other's side answer at once
			if err := s.tell(ctx, other, uid); err != nil {
				return err
			}
		}
		_, err = s.store.Apply(ctx, slotOfUser(uid), new(kv.Batch).IfVer(key, item.Ver).Delete(key))
		if err == nil || !retry(ctx, err) {
			return err
		}
	}
}

const (
	maxFriendPage     = 500
	defaultInvitePage = 50
)

// ListFriends implements the contract.
func (s *Service) ListFriends(ctx context.Context, req *momentsv1.ListFriendsRequest) (*momentsv1.ListFriendsResponse, error) {
	count, items, next, err := s.page(ctx, prefixFriend, req.GetUserId(), req.GetCursor(), req.GetLimit(), maxFriendPage)
	if err != nil {
		return nil, problem.Store("list friends", err)
	}
	res := &momentsv1.ListFriendsResponse{UserIds: make([]string, len(items)), NextCursor: next, Version: count.version}
	for i, item := range items {
		other, err := secondOf[id.User](item.Key)
		if err != nil {
			return nil, err
		}
		res.UserIds[i] = other.String()
	}
	return res, nil
}

// ListFriendRequests implements the contract.
func (s *Service) ListFriendRequests(ctx context.Context, req *momentsv1.ListFriendRequestsRequest) (*momentsv1.ListFriendRequestsResponse, error) {
	_, items, next, err := s.page(ctx, prefixInvite, req.GetUserId(), req.GetCursor(), req.GetLimit(), defaultInvitePage)
	if err != nil {
		return nil, problem.Store("list friend requests", err)
	}
	res := &momentsv1.ListFriendRequestsResponse{NextCursor: next}
	for _, item := range items {
		other, err := secondOf[id.User](item.Key)
		if err != nil {
			return nil, err
		}
		r := rowReader{b: item.Value}
		received := int64(r.uint64())
		if err := r.err("waiting request"); err != nil {
			return nil, err
		}
		res.Requests = append(res.Requests, &momentsv1.FriendRequest{UserId: other.String(), ReceivedMs: received})
	}
	return res, nil
}

// page reads a page of one of a user's indexes. A cursor is the last id of the
// page before.
func (s *Service) page(ctx context.Context, prefix byte, user, after string, limit uint32, usual int) (tally, []kv.Item, string, error) {
	uid, err := problem.User("user_id", user)
	if err != nil {
		return tally{}, nil, "", err
	}
	r := kv.Prefix(userKey(prefix, uid), usual)
	if limit != 0 {
		if limit > maxFriendPage {
			return tally{}, nil, "", problem.Invalid("limit", "is %d, want 1 to %d, or 0 for %d", limit, maxFriendPage, usual)
		}
		r.Limit = int(limit)
	}
	if after != "" {
		last, err := cursor.Parse(prefix, uid, after)
		if err != nil {
			return tally{}, nil, "", problem.Invalid("cursor", "%v", err)
		}
		r.From = kv.Next(pairKey(prefix, uid, id.User(last)))
	}
	count, err := s.tally(ctx, uid)
	if err != nil {
		return tally{}, nil, "", err
	}
	items, more, err := s.store.Scan(ctx, slotOfUser(uid), r, kv.Linearizable)
	if err != nil || !more || len(items) == 0 {
		return count, items, "", err
	}
	last, err := secondOf[id.User](items[len(items)-1].Key)
	return count, items, cursor.Make(prefix, uid, id.Post(last)), err
}

func (s *Service) tally(ctx context.Context, u id.User) (tally, error) {
	item, err := s.store.Get(ctx, slotOfUser(u), userKey(prefixRelation, u), kv.Linearizable)
	if err != nil {
		return tally{}, err
	}
	return decodeTally(item.Value)
}
