// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"fmt"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// noteworthy: the owner has chosen something about the other, or blocks him.
func (e edge) noteworthy() bool { return e.blocked || e.chosen != choices{} }

func (e edge) show(other string) *momentsv1.FriendSettings {
	return &momentsv1.FriendSettings{
		OtherId: other, ChatOnly: e.chosen.chatOnly, HideMine: e.chosen.hideMine, HideTheirs: e.chosen.hideTheirs,
		Blocked: e.blocked, State: e.state(),
	}
}

// given tells a field that is absent from one that has a value, for the sum of a
// request.
func given[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}

// edge gives what uid's side knows of another.
func (s *Service) edge(ctx context.Context, uid, other id.User) (edge, error) {
	item, err := s.store.Get(ctx, slotOfUser(uid), pairKey(prefixEdge, uid, other), kv.Linearizable)
	if err != nil {
		return edge{}, err
	}
	return decodeEdge(item.Value)
}

// GetFriendSettings implements the contract.
func (s *Service) GetFriendSettings(ctx context.Context, req *momentsv1.GetFriendSettingsRequest) (*momentsv1.GetFriendSettingsResponse, error) {
	uid, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	other, err := problem.User("other_id", req.GetOtherId())
	if err != nil {
		return nil, err
	}
	_, ver, err := s.user(ctx, other)
	if err == nil && ver == 0 {
		err = problem.NotFound("user")
	}
	if err != nil {
		return nil, problem.Store("read friend settings", err)
	}
	e, err := s.edge(ctx, uid, other)
	if err != nil {
		return nil, problem.Store("read friend settings", err)
	}
	return &momentsv1.GetFriendSettingsResponse{Settings: e.show(req.GetOtherId())}, nil
}

// UpdateFriendSettings implements the contract.
func (s *Service) UpdateFriendSettings(ctx context.Context, req *momentsv1.UpdateFriendSettingsRequest) (*momentsv1.UpdateFriendSettingsResponse, error) {
	name := "friend settings " + given(req.ChatOnly) + "," + given(req.HideMine) + "," + given(req.HideTheirs)
	_, err := s.act(ctx, name, req, func(e edge) (edge, error) {
		c := e.chosen
		for _, f := range []struct{ to, from *bool }{
			{&c.chatOnly, req.ChatOnly}, {&c.hideMine, req.HideMine}, {&c.hideTheirs, req.HideTheirs},
		} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		return e.choose(c), nil
	})
	if err != nil {
		return nil, err
	}
	got, err := s.GetFriendSettings(ctx, &momentsv1.GetFriendSettingsRequest{UserId: req.GetUserId(), OtherId: req.GetOtherId()})
	if err != nil {
		return nil, err
	}
	return &momentsv1.UpdateFriendSettingsResponse{Settings: got.GetSettings()}, nil
}

// ListFriendSettings implements the contract.
func (s *Service) ListFriendSettings(ctx context.Context, req *momentsv1.ListFriendSettingsRequest) (*momentsv1.ListFriendSettingsResponse, error) {
	_, items, next, err := s.page(ctx, prefixChosen, req.GetUserId(), req.GetCursor(), req.GetLimit(), defaultInvitePage)
	if err != nil {
		return nil, problem.Store("list friend settings", err)
	}
	res := &momentsv1.ListFriendSettingsResponse{NextCursor: next}
	for _, item := range items {
		uid, other, err := pairOf(item.Key)
		if err != nil {
			return nil, err
		}
		e, err := s.edge(ctx, uid, other)
		if err != nil {
			return nil, problem.Store("list friend settings", err)
		}
		if e.noteworthy() { // else it was taken back just now
			res.Settings = append(res.Settings, e.show(other.String()))
		}
	}
	return res, nil
}
