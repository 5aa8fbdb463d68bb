// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"encoding/base64"
	"encoding/binary"

	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

const (
	maxUserPage     = 1000
	defaultUserPage = 500
	// slotsAtOnce bounds the reads of one call, which has a deadline, when users are
	// few: then most slots are empty.
	slotsAtOnce = 256
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
	slot, from, err := parseUserCursor(req.GetCursor())
	if err != nil {
		return nil, err
	}
	res := &momentsv1.ListUsersResponse{}
	for end := slot + slotsAtOnce; slot < kv.Slots; slot++ {
		if slot == end {
			res.NextCursor = userCursor(slot, []byte{prefixName})
			return res, nil
		}
		r := kv.Prefix([]byte{prefixName}, limit-len(res.GetProfiles()))
		if from != nil {
			r.From, from = from, nil
		}
		items, more, err := s.store.Scan(ctx, slot, r, kv.Linearizable)
		if err != nil {
			return nil, problem.Store("list users", err)
		}
		for _, item := range items {
			c, err := decodeClaim(item.Value)
			if err != nil {
				return nil, err
			}
			u, ver, err := s.user(ctx, c.user)
			if err != nil {
				return nil, problem.Store("list users", err)
			}
			if ver != 0 {
				res.Profiles = append(res.Profiles, u.profile)
			}
		}
		if more && len(items) > 0 {
			res.NextCursor = userCursor(slot, kv.Next(items[len(items)-1].Key))
			return res, nil
		}
		if len(res.GetProfiles()) == limit {
			end = slot + 1
		}
	}
	return res, nil
}

func userCursor(slot kv.Slot, from []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint16(nil, uint16(slot)), from...))
}

func parseUserCursor(s string) (kv.Slot, []byte, error) {
	if s == "" {
		return 0, nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 3 || len(b) > 2+kv.MaxKey || b[2] != prefixName || binary.BigEndian.Uint16(b) >= kv.Slots {
		return 0, nil, problem.Invalid("cursor", "not from an earlier answer")
	}
	return kv.Slot(binary.BigEndian.Uint16(b)), b[2:], nil
}
