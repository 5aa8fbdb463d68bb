// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// Deleting an account is one batch, which takes the account and its sessions away
// and leaves a mark, and a job that the mark keeps alive over restarts. The job does
// the same steps again and again until there is nothing left to do, so that it
// may be cut off anywhere:
//
//  1. own halves of friendships are taken back: from here on nobody sees anything
//     of the user's any more, since only friends do;
//  2. posts, then comments and likes on others' posts, are deleted at their owners, and
//     so are timeline, notices, profile pictures and uploads;
//  3. once nothing can be under way any more, all of it is done once more for what
//     came meanwhile, and then the rows of the user go, in the batch in which the mark
//     says that it is done.
//
// The name stays taken, and the mark stays, so that the audit can look for leftovers.

const (
	// leaveSettle is how long after the deletion something may still be on its way: a
	// gateway believes a session for a second, and no write takes longer than the rest.
	leaveSettle = 5 * time.Second
	// leavers is how many accounts are worked on at once. It is work for the night.
	leavers = 2
	// leaveCall bounds each call to an owner.
	leaveCall = 5 * time.Second
	// leavePage is how many posts are listed at once.
	leavePage = 100
)

// personal is the kinds of rows that go with a user, those about what others have
// said to him among them.
var personal = []byte{
	prefixSession, prefixEdge, prefixFriend, prefixInvite, prefixMirror, prefixBackfill,
	prefixChosen, prefixSettings, prefixSpread, prefixTag, prefixRelation,
}

// Forgetter is the part of the clients of other services by which they forget somebody.
type Forgetter interface {
	Forget(context.Context, *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error)
}

// A farewell is the row of a deleted account.
type farewell struct {
	at      time.Time // to the millisecond
	cleared bool      // nothing is left of it
}

func (f farewell) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(f.at.UnixMilli())), bits(f.cleared))
}

func decodeFarewell(b []byte) (farewell, error) {
	r := rowReader{b: b}
	f := farewell{at: time.UnixMilli(int64(r.uint64()))}
	if len(r.b) > 0 { // not in rows of earlier releases
		f.cleared = r.byte() != 0
	}
	return f, r.err("deleted account")
}

// DeleteAccount implements the contract.
func (s *Service) DeleteAccount(ctx context.Context, req *momentsv1.DeleteAccountRequest) (*momentsv1.DeleteAccountResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	for {
		err := s.leave(ctx, uid, req.GetPassword())
		if retry(ctx, err) {
			continue
		}
		if err != nil {
			return nil, problem.Store("delete account", err)
		}
		s.queueLeaver(uid)
		return &momentsv1.DeleteAccountResponse{}, nil
	}
}

func (s *Service) leave(ctx context.Context, uid id.User, password string) error {
	slot, mark := slotOfUser(uid), userKey(prefixLeaving, uid)
	left, err := s.store.Get(ctx, slot, mark, kv.Linearizable)
	if err != nil {
		return err
	}
	if left.Ver != 0 {
		return nil // by an earlier try whose outcome was lost
	}
	_, ver, err := s.prove(ctx, uid, password, "password")
	if err != nil {
		return err
	}
	b := new(kv.Batch)
	endAll(b, uid, id.Session{})
	key := userKey(prefixUser, uid)
	b.IfVer(key, ver).Delete(key)
	b.Put(mark, farewell{at: s.now()}.encode())
	return s.apply(ctx, slot, b)
}

// queueLeaver hands a deleted account to Run. The store holds it too, so when there
// is no room nothing is lost.
func (s *Service) queueLeaver(uid id.User) {
	select {
	case s.leaving <- uid:
	default:
		s.wake()
	}
}

// leavingLeft hands what waits in the store to the leavers, as fast as they go on.
func (s *Service) leavingLeft(ctx context.Context, _ kv.Slot, item kv.Item) error {
	if len(item.Key) != 17 {
		return errDamaged
	}
	left, err := decodeFarewell(item.Value)
	if err != nil || left.cleared || !s.canClear() {
		return err // without the other services here the row waits until there are
	}
	select {
	case s.leaving <- id.User(item.Key[1:]):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clearLeavers removes what deleted accounts have left, until ctx ends.
func (s *Service) clearLeavers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case uid := <-s.leaving:
			if err := s.clearLeaver(ctx, uid); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "what a deleted account left could not all be removed and is tried again", "user", uid, "err", err)
				s.wake()
			}
		}
	}
}

// canClear reports whether all services that a deleted account has left something at
// can be called.
func (s *Service) canClear() bool {
	return s.posts != nil && s.comments != nil && s.timeline != nil && s.notify != nil && s.media != nil
}

// clearLeaver removes all that a deleted account has left. Doing it twice changes
// nothing.
func (s *Service) clearLeaver(ctx context.Context, uid id.User) error {
	if !s.canClear() {
		return nil
	}
	mark := userKey(prefixLeaving, uid)
	item, err := s.store.Get(ctx, slotOfUser(uid), mark, kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return err
	}
	left, err := decodeFarewell(item.Value)
	if err != nil || left.cleared {
		return err
	}
	ctx = background(ctx, "leave")
	if err := s.removeAllOf(ctx, uid); err != nil {
		return err
	}
	if rest := leaveSettle - s.now().Sub(left.at); rest > 0 {
		if !wait(ctx, nil, rest) {
			return nil
		}
		if err := s.removeAllOf(ctx, uid); err != nil {
			return err
		}
	}
	left.cleared = true
	b := new(kv.Batch).IfVer(mark, item.Ver).Put(mark, left.encode())
	for _, kind := range personal {
		b.DeleteRange(userKey(kind, uid), kv.PrefixEnd(userKey(kind, uid)))
	}
	err = s.apply(ctx, slotOfUser(uid), b)
	if errors.Is(err, kv.ErrConflict) {
		return nil // another leaver has just done it
	}
	return err
}

// removeAllOf removes what is there of a user at others and at the other services.
func (s *Service) removeAllOf(ctx context.Context, uid id.User) error {
	if err := s.partFromAll(ctx, uid); err != nil {
		return fmt.Errorf("take back friendships: %w", err)
	}
	if err := s.removePosts(ctx, uid); err != nil {
		return fmt.Errorf("delete posts: %w", err)
	}
	if err := s.removeComments(ctx, uid); err != nil {
		return fmt.Errorf("delete comments and likes: %w", err)
	}
	return s.forgetAll(ctx, uid)
}

// forgetAll has the other services forget a user.
func (s *Service) forgetAll(ctx context.Context, uid id.User) error {
	for _, owner := range []struct {
		of string
		Forgetter
	}{{"timeline", s.timeline}, {"notices", s.notify}, {"pictures and uploads", s.media}} {
		if owner.Forgetter == nil {
			continue // there is no such service
		}
		err := bounded(ctx, func(ctx context.Context) error {
			_, err := owner.Forget(ctx, &momentsv1.ForgetRequest{UserId: uid.String()})
			return err
		})
		if err != nil {
			return fmt.Errorf("remove %s: %w", owner.of, err)
		}
	}
	return nil
}

// partFromAll takes back the user's halves and declines what others ask.
func (s *Service) partFromAll(ctx context.Context, uid id.User) error {
	r := kv.Prefix(userKey(prefixEdge, uid), 100)
	for {
		items, more, err := s.store.Scan(ctx, slotOfUser(uid), r, kv.Linearizable)
		if err != nil {
			return err
		}
		for _, item := range items {
			other, err := secondOf[id.User](item.Key)
			if err != nil {
				return err
			}
			// Blocking also declines what is on its way from the other side.
			if _, err := s.change(ctx, uid, other, once.Use{}, func(e edge) (edge, error) { return e.block(), nil }); err != nil {
				return err
			}
			if s.home(other) {
				err = s.tell(ctx, uid, other)
			}
			if err != nil {
				return err
			}
		}
		if !more || len(items) == 0 {
			return nil
		}
		r.From = kv.Next(items[len(items)-1].Key)
	}
}

func (s *Service) removePosts(ctx context.Context, uid id.User) error {
	author := uid.String()
	for before := ""; ; {
		var page *momentsv1.ListAlbumResponse
		err := bounded(ctx, func(ctx context.Context) (err error) {
			page, err = s.posts.ListAlbum(ctx, &momentsv1.ListAlbumRequest{AuthorId: author, BeforeId: before, Limit: leavePage})
			return err
		})
		if err != nil {
			return err
		}
		for _, post := range page.GetPostIds() {
			before = post
			err := bounded(ctx, func(ctx context.Context) error {
				_, err := s.posts.Delete(ctx, &momentsv1.DeletePostRequest{AuthorId: author, PostId: post})
				return err
			})
			if err != nil && rpc.CodeOf(err) != rpc.NotFound {
				return err
			}
		}
		if !page.GetMore() {
			return nil
		}
	}
}

func (s *Service) removeComments(ctx context.Context, uid id.User) error {
	for cursor := ""; ; {
		var page *momentsv1.DeleteAllOfResponse
		err := bounded(ctx, func(ctx context.Context) (err error) {
			page, err = s.comments.DeleteAllOf(ctx, &momentsv1.DeleteAllOfRequest{WriterId: uid.String(), Cursor: cursor})
			return err
		})
		if err != nil {
			return err
		}
		if cursor = page.GetNextCursor(); cursor == "" {
			return nil
		}
	}
}

// bounded makes one call of the job.
func bounded(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, leaveCall)
	defer cancel()
	return do(ctx)
}
