// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"

	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	maxUserPage     = 1000
	defaultUserPage = 500
)

// ListUsers implements the contract. It goes by slot and folded name, so an account
// whose name was never taken is not listed. A cursor is the slot and the name where
// the next page begins.
func (s *Service) ListUsers(ctx context.Context, req *momentsv1.ListUsersRequest) (*momentsv1.ListUsersResponse, error) {
	limit := int(req.GetLimit())
	switch {
	case limit == 0:
		limit = defaultUserPage
	case limit > maxUserPage:
		return nil, problem.Invalid("limit", "is %d, want 1 to %d, or 0 for %d", limit, maxUserPage, defaultUserPage)
	}
	at, err := parseUserCursor(req.GetCursor())
	if err != nil {
		return nil, err
	}
	items, next, err := kv.ScanSlots(ctx, s.store, at, kv.Prefix([]byte{prefixName}, limit), kv.Linearizable)
	if err != nil {
		return nil, problem.Store("list users", err)
	}
	res := &momentsv1.ListUsersResponse{}
	for _, item := range items {
		c, err := decodeClaim(item.Value)
		if err != nil {
			return nil, err
		}
		u, ver, err := s.user(ctx, c.user)
		if err != nil {
			return nil, problem.Store("list users", err)
		}
		switch {
		case ver != 0 && !req.GetDeleted():
			res.Profiles = append(res.Profiles, u.profile)
		case ver == 0 && req.GetDeleted():
			gone, err := s.cleared(ctx, c.user)
			if err != nil {
				return nil, problem.Store("list users", err)
			}
			if gone {
				res.Profiles = append(res.Profiles, &momentsv1.Profile{UserId: c.user.String()})
			}
		}
	}
	if next.Slot < kv.Slots {
		res.NextCursor = cursor.MakeLong(prefixName, id.User{}, next.Encode())
	}
	return res, nil
}

// cleared reports whether a user's account is deleted and all that it left is removed.
func (s *Service) cleared(ctx context.Context, u id.User) (bool, error) {
	item, err := s.store.Get(ctx, slotOfUser(u), userKey(prefixLeaving, u), kv.Linearizable)
	if err != nil || item.Ver == 0 {
		return false, err
	}
	left, err := decodeFarewell(item.Value)
	return left.cleared, err
}

func parseUserCursor(s string) (kv.Place, error) {
	if s == "" {
		return kv.Place{}, nil
	}
	b, err := cursor.ParseLong(prefixName, id.User{}, s)
	if err != nil {
		return kv.Place{}, problem.Invalid("cursor", "%v", err)
	}
	at, err := kv.ParsePlace(b)
	if err != nil {
		return kv.Place{}, problem.Invalid("cursor", "not from an earlier answer")
	}
	return at, nil
}
