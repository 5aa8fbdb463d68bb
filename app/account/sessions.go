// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	// usedEvery is how exactly a session's last use is known: writing it down costs a
	// write, and people only want to know which phone lies in a drawer.
	usedEvery = time.Hour
	// useTime bounds one such write.
	useTime = time.Second
)

// use is a session that was used.
type use struct {
	user    id.User
	session id.Session
}

// noteUse has Run write down that a session was used. When there is no room it is
// left to the session's next use.
func (s *Service) noteUse(u id.User, sess id.Session) {
	select {
	case s.uses <- use{user: u, session: sess}:
	default:
	}
}

// writeUses writes down what noteUse was told, until ctx ends.
func (s *Service) writeUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-s.uses:
			if err := s.writeUse(ctx, u); err != nil && ctx.Err() == nil {
				s.log.DebugContext(ctx, "the last use of a session was not written down", "user", u.user, "err", err)
			}
		}
	}
}

func (s *Service) writeUse(ctx context.Context, u use) error {
	ctx, cancel := context.WithTimeout(ctx, useTime)
	defer cancel()
	key := pairKey(prefixSession, u.user, u.session)
	item, err := s.store.Get(ctx, slotOfUser(u.user), key, kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return err
	}
	row, err := decodeSession(item.Value)
	if err != nil || s.now().Sub(row.used) < usedEvery {
		return err // several gateways have told
	}
	row.used = s.now()
	// Only the row that was read: a session that has ended meanwhile stays ended.
	_, err = s.store.Apply(ctx, slotOfUser(u.user), new(kv.Batch).IfVer(key, item.Ver).Put(key, row.encode()))
	if errors.Is(err, kv.ErrConflict) {
		return nil
	}
	return err
}

// openSessions gives the sessions of a user in the order of their opening, expired
// ones included.
func (s *Service) openSessions(ctx context.Context, u id.User) ([]kv.Item, error) {
	items, _, err := s.store.Scan(ctx, slotOfUser(u), kv.Prefix(userKey(prefixSession, u), s.maxSessions+batchRoom), kv.Linearizable)
	return items, err
}

// ListSessions implements the contract.
func (s *Service) ListSessions(ctx context.Context, req *momentsv1.ListSessionsRequest) (*momentsv1.ListSessionsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	items, err := s.openSessions(ctx, uid)
	if err != nil {
		return nil, problem.Store("list sessions", err)
	}
	res := &momentsv1.ListSessionsResponse{}
	for _, item := range slices.Backward(items) {
		sess, err := secondOf[id.Session](item.Key)
		if err != nil {
			return nil, err
		}
		row, err := decodeSession(item.Value)
		if err != nil {
			return nil, err
		}
		if !s.now().Before(row.expires) {
			continue
		}
		created := sess.Time().UnixMilli()
		used := created
		if !row.used.IsZero() {
			used = max(created, row.used.Truncate(usedEvery).UnixMilli())
		}
		res.Sessions = append(res.Sessions, &momentsv1.Session{
			SessionId: sess.String(), Device: row.device, CreatedMs: created, LastUsedMs: used, ExpiresMs: row.expires.UnixMilli(),
		})
	}
	return res, nil
}

// EndSessions implements the contract.
func (s *Service) EndSessions(ctx context.Context, req *momentsv1.EndSessionsRequest) (*momentsv1.EndSessionsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	b := new(kv.Batch)
	if one := req.GetSessionId(); one != "" {
		sess, err := parseSession("session_id", one)
		if err != nil {
			return nil, err
		}
		b.Delete(pairKey(prefixSession, uid, sess))
	} else {
		var keep id.Session
		if req.GetKeepSessionId() != "" {
			if keep, err = parseSession("keep_session_id", req.GetKeepSessionId()); err != nil {
				return nil, err
			}
		}
		endAll(b, uid, keep)
	}
	if err := s.apply(ctx, slotOfUser(uid), b); err != nil {
		return nil, problem.Store("end sessions", err)
	}
	return &momentsv1.EndSessionsResponse{}, nil
}

// endAll adds to b that all sessions of a user end but one, or all if that is zero: by
// ranges, because one may be opened meanwhile.
func endAll(b *kv.Batch, u id.User, keep id.Session) {
	first := userKey(prefixSession, u)
	if keep.IsZero() {
		b.DeleteRange(first, kv.PrefixEnd(first))
		return
	}
	kept := pairKey(prefixSession, u, keep)
	b.DeleteRange(first, kept).DeleteRange(kv.Next(kept), kv.PrefixEnd(first))
}

// parseSession reads the id of a session from a field.
func parseSession(field, text string) (id.Session, error) {
	sess, err := id.ParseSession(text)
	if err != nil {
		return id.Session{}, problem.Invalid(field, "not the id of a session")
	}
	return sess, nil
}
