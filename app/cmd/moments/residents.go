// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// residents finds out who is at home in a region. The region in somebody's id keeps his
// name, so it lists him, also when he has moved to another one, which has his timeline.
type residents struct {
	region   id.Region
	accounts momentsv1.AccountServiceClient
	moved    *homes.Table
}

func newResidents(region id.Region, accounts momentsv1.AccountServiceClient) residents {
	return residents{region: region, accounts: accounts, moved: homes.NewTable(accounts)}
}

// has reports whether somebody's timeline is in the region: who is on his way has it still where he comes from.
func (r residents) has(h homes.Home) bool { return h.Region == r.region }

// page gives a page of those whose homes are wanted, and where the next one begins: empty at the end. Who came
// from other regions, or comes, is on the first one.
func (r residents) page(ctx context.Context, cursor string, wanted func(homes.Home) bool) (users []string, next string, err error) {
	if err := r.moved.Refresh(ctx); err != nil { // for each: they may be minutes apart
		return nil, "", err
	}
	if cursor == "" {
		if users, err = r.came(ctx, wanted); err != nil {
			return nil, "", err
		}
	}
	res, err := r.accounts.ListUsers(ctx, &momentsv1.ListUsersRequest{Cursor: cursor})
	if err != nil {
		return nil, "", err
	}
	for _, p := range res.GetProfiles() {
		u, err := id.ParseUser(p.GetUserId())
		if err != nil {
			return nil, "", err
		}
		if wanted(r.moved.Of(u)) {
			users = append(users, p.GetUserId())
		}
	}
	return users, res.GetNextCursor(), nil
}

// came gives those whose names other regions keep, in the order of their ids.
func (r residents) came(ctx context.Context, wanted func(homes.Home) bool) (users []string, err error) {
	const most = 500 // of AccountService.GetProfiles
	var all []string
	for _, u := range slices.SortedFunc(maps.Keys(r.moved.All()), func(a, b id.User) int { return bytes.Compare(a[:], b[:]) }) {
		if u.Region() != r.region && wanted(r.moved.Of(u)) {
			all = append(all, u.String())
		}
	}
	for part := range slices.Chunk(all, most) { // who has deleted his account since is left out
		res, err := r.accounts.GetProfiles(ctx, &momentsv1.GetProfilesRequest{UserIds: part})
		if err != nil {
			return nil, err
		}
		for _, p := range res.GetProfiles() {
			users = append(users, p.GetUserId())
		}
	}
	return users, nil
}
