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
	// Who is gone is listed by the mark that he left, where he was at home then: his name
	// is kept where he was at home first.
	table, list := byte(prefixName), s.listed
	if req.GetDeleted() {
		table, list = prefixLeaving, cleared
	}
	limit := int(req.GetLimit())
	switch {
	case limit == 0:
		limit = defaultUserPage
	case limit > maxUserPage:
		return nil, problem.Invalid("limit", "is %d, want 1 to %d, or 0 for %d", limit, maxUserPage, defaultUserPage)
	}
	at, err := parseUserCursor(table, req.GetCursor())
	if err != nil {
		return nil, err
	}
	items, next, err := kv.ScanSlots(ctx, s.store, at, kv.Prefix([]byte{table}, limit), kv.Linearizable)
	if err != nil {
		return nil, problem.Store("list users", err)
	}
	res := &momentsv1.ListUsersResponse{}
	for _, item := range items {
		p, err := list(ctx, item.Item)
		if err != nil {
			return nil, problem.Store("list users", err)
		}
		if p != nil {
			res.Profiles = append(res.Profiles, p)
		}
	}
	if next.Slot < kv.Slots {
		res.NextCursor = cursor.MakeLong(table, id.User{}, next.Encode())
	}
	return res, nil
}

// listed gives the profile of whose name it is, nil if he has no account any more.
func (s *Service) listed(ctx context.Context, name kv.Item) (*momentsv1.Profile, error) {
	c, err := decodeClaim(name.Value)
	if err != nil {
		return nil, err
	}
	u, ver, err := s.user(ctx, c.user)
	if err != nil || ver == 0 {
		return nil, err
	}
	return u.profile, nil
}

// cleared gives what is left of a profile whose account is deleted, nil as long as there is
// something else left.
func cleared(_ context.Context, mark kv.Item) (*momentsv1.Profile, error) {
	if len(mark.Key) != 17 {
		return nil, errDamaged
	}
	left, err := decodeFarewell(mark.Value)
	if err != nil || !left.cleared {
		return nil, err
	}
	return &momentsv1.Profile{UserId: id.User(mark.Key[1:]).String()}, nil
}

func parseUserCursor(table byte, s string) (kv.Place, error) {
	if s == "" {
		return kv.Place{}, nil
	}
	b, err := cursor.ParseLong(table, id.User{}, s)
	if err != nil {
		return kv.Place{}, problem.Invalid("cursor", "%v", err)
	}
	at, err := kv.ParsePlace(b)
	if err != nil {
		return kv.Place{}, problem.Invalid("cursor", "not from an earlier answer")
	}
	return at, nil
}
