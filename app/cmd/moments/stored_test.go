// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"testing"

	"github.com/sluice-rpc/sluice/app/homes"
	"github.com/sluice-rpc/sluice/app/id"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// register is an account service that lists people and homes.
type register struct {
	momentsv1.AccountServiceClient
	people []id.User
	homes  []*momentsv1.UserHome
	gone   []id.User // who have no account any more
}

func (r *register) ListUsers(_ context.Context, req *momentsv1.ListUsersRequest) (*momentsv1.ListUsersResponse, error) {
	res := &momentsv1.ListUsersResponse{} // the first page is empty
	if req.GetCursor() == "" {
		res.NextCursor = "second"
		return res, nil
	}
	for _, u := range r.people {
		res.Profiles = append(res.Profiles, &momentsv1.Profile{UserId: u.String()})
	}
	return res, nil
}

func (r *register) ListHomes(context.Context, *momentsv1.ListHomesRequest) (*momentsv1.ListHomesResponse, error) {
	return &momentsv1.ListHomesResponse{Version: 1, Homes: r.homes}, nil
}

func (r *register) GetProfiles(_ context.Context, req *momentsv1.GetProfilesRequest) (*momentsv1.GetProfilesResponse, error) {
	res := new(momentsv1.GetProfilesResponse)
	for _, u := range req.GetUserIds() {
		if !slices.ContainsFunc(r.gone, func(g id.User) bool { return g.String() == u }) {
			res.Profiles = append(res.Profiles, &momentsv1.Profile{UserId: u})
		}
	}
	return res, nil
}

// TestPeopleAtHome: who has moved away is looked at in his new home, though his name stays,
// and who is on his way still in the old one.
func TestPeopleAtHome(t *testing.T) {
	user := func(region id.Region, n byte) (u id.User) {
		u[6], u[7], u[15] = byte(region>>8), byte(region), n
		return u
	}
	home := func(u id.User, epoch uint32, at, next id.Region) *momentsv1.UserHome {
		return &momentsv1.UserHome{UserId: u.String(), Epoch: epoch, Region: uint32(at), Next: uint32(next)}
	}
	stays, away, leaving, back := user(1, 1), user(1, 2), user(1, 3), user(1, 4)
	came, coming, gone, deleted, onward := user(2, 5), user(2, 6), user(2, 7), user(2, 8), user(2, 9)
	all := []*momentsv1.UserHome{
		home(away, 3, 2, 0), home(leaving, 1, 1, 2), home(back, 6, 1, 0),
		home(came, 3, 1, 0), home(coming, 1, 2, 1), home(gone, 6, 2, 0), home(deleted, 3, 1, 0), home(onward, 4, 1, 3),
	}
	for region, c := range map[id.Region]struct{ lists, want, keeps []id.User }{
		1: {[]id.User{stays, away, leaving, back}, []id.User{came, onward, stays, leaving, back}, []id.User{came, coming, onward, stays, leaving, back}},
		2: {[]id.User{came, coming, gone, onward}, []id.User{away, coming, gone}, []id.User{away, leaving, coming, gone}},
		3: {nil, nil, []id.User{onward}},
	} {
		accounts := &register{people: c.lists, homes: all, gone: []id.User{deleted}}
		s := &storedOverRPC{region: region, accounts: accounts}
		var got []string
		for person, err := range s.People(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, person)
		}
		if want := texts(c.want); !slices.Equal(got, want) {
			t.Errorf("region %d: %v, want %v", region, got, want)
		}
		r := newResidents(region, accounts)
		got = nil
		for cursor := ""; ; {
			users, next, err := r.page(t.Context(), cursor, func(h homes.Home) bool { return h.Keeps(region) })
			if err != nil {
				t.Fatal(err)
			}
			if got, cursor = append(got, users...), next; cursor == "" {
				break
			}
		}
		if want := texts(c.keeps); !slices.Equal(got, want) {
			t.Errorf("region %d has or is about to have %v, want %v", region, got, want)
		}
	}
}

func texts(users []id.User) (texts []string) {
	for _, u := range users {
		texts = append(texts, u.String())
	}
	return texts
}
