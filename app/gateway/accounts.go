// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (g *Gateway) register(c *call) error {
	var in struct {
		Name        string `json:"name"`
		Password    string `json:"password"`
		DisplayName string `json:"display_name"`
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	res, err := g.accounts.Register(c.ctx(), &momentsv1.RegisterRequest{
		Name: in.Name, Password: in.Password, DisplayName: in.DisplayName, IdempotencyKey: key,
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/users/"+res.GetProfile().GetUserId())
	return c.reply(http.StatusCreated, func(b []byte) []byte { return g.appendProfile(b, res.GetProfile()) })
}

func (g *Gateway) logIn(c *call) error {
	var in struct {
		Name     string `json:"name"`
		Password string `json:"password"`
		Device   string `json:"device"`
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	in.Device = cmp.Or(in.Device, deviceOf(c.r.UserAgent()))
	if done, err := g.logInAway(c, in.Name, in); done || err != nil {
		return err
	}
	res, err := g.accounts.LogIn(c.ctx(), &momentsv1.LogInRequest{
		Name: in.Name, Password: in.Password, Device: in.Device, Source: edge.Place(c.r),
	})
	if err != nil {
		return err
	}
	g.sessions.keep(res.GetToken(), session{user: res.GetProfile().GetUserId()}, g.sessions.now())
	return c.reply(http.StatusCreated, func(b []byte) []byte {
		b = appendString(append(b, `{"token":`...), res.GetToken())
		b = appendTime(append(b, `,"expires_at":`...), res.GetExpiresMs())
		b = g.appendProfile(append(b, `,"user":`...), res.GetProfile())
		return append(b, '}')
	})
}

// logOut is open: who comes with a session that has ended already is logged out.
func (g *Gateway) logOut(c *call) error {
	token, err := bearer(c.r)
	if err != nil {
		return err
	}
	if done, err := g.logOutAway(c, token); done || err != nil {
		return err
	}
	user := g.sessions.whose(c.r)
	_, err = g.accounts.LogOut(c.ctx(), &momentsv1.LogOutRequest{Token: token})
	g.sessions.forget(token)
	g.hub.doubt(user)
	if err != nil {
		return err
	}
	return c.done()
}

func (g *Gateway) me(c *call) error { return g.profile(c, c.user) }

func (g *Gateway) getUser(c *call) error {
	user, err := c.pathUser()
	if err != nil {
		return err
	}
	return g.profile(c, user)
}

func (g *Gateway) profile(c *call, user string) error {
	res, err := g.accounts.GetProfile(c.ctx(), &momentsv1.GetProfileRequest{UserId: user})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return g.appendProfile(b, res.GetProfile()) })
}

// findUsers answers ?name=, the user with that name or nobody, and ?ids=, the
// users a page needs the names of.
func (g *Gateway) findUsers(c *call) error {
	q, err := c.query()
	if err != nil {
		return err
	}
	var found []*momentsv1.Profile
	switch {
	case q.Has("name") == q.Has("ids"):
		return invalid("name", "give either name or ids")
	case q.Has("ids"):
		ids := strings.Split(q.Get("ids"), ",")
		if len(ids) > maxPage {
			return invalid("ids", "give at most 100 ids, separated by commas")
		}
		for _, s := range ids {
			if _, err := id.ParseUser(s); err != nil {
				return invalid("ids", "give at most 100 ids, separated by commas")
			}
		}
		res, err := g.accounts.GetProfiles(c.ctx(), &momentsv1.GetProfilesRequest{UserIds: ids})
		if err != nil {
			return err
		}
		found = res.GetProfiles()
	default:
		res, err := g.accounts.FindUser(c.ctx(), &momentsv1.FindUserRequest{Name: q.Get("name")})
		if err != nil && rpc.CodeOf(err) != rpc.NotFound {
			return err
		}
		if err == nil {
			found = []*momentsv1.Profile{res.GetProfile()}
		}
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return append(appendItems(b, found, g.appendProfile), '}') })
}

func (g *Gateway) listFriends(c *call) error {
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.accounts.ListFriends(c.ctx(), &momentsv1.ListFriendsRequest{UserId: c.user, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	var friends []*momentsv1.Profile
	if len(res.GetUserIds()) > 0 {
		profiles, err := g.accounts.GetProfiles(c.ctx(), &momentsv1.GetProfilesRequest{UserIds: res.GetUserIds()})
		if err != nil {
			return err
		}
		friends = profiles.GetProfiles()
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, friends, g.appendProfile)
		return append(appendCursor(b, `,"next_cursor":`, res.GetNextCursor()), '}')
	})
}

func (g *Gateway) listFriendRequests(c *call) error {
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.accounts.ListFriendRequests(c.ctx(), &momentsv1.ListFriendRequestsRequest{UserId: c.user, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	profiles := map[string]*momentsv1.Profile{}
	if reqs := res.GetRequests(); len(reqs) > 0 {
		ids := make([]string, len(reqs))
		for i, r := range reqs {
			ids[i] = r.GetUserId()
		}
		got, err := g.accounts.GetProfiles(c.ctx(), &momentsv1.GetProfilesRequest{UserIds: ids})
		if err != nil {
			return err
		}
		for _, p := range got.GetProfiles() {
			profiles[p.GetUserId()] = p
		}
	}
	// Whose account has gone meanwhile does not ask any more.
	var asking []*momentsv1.FriendRequest
	for _, r := range res.GetRequests() {
		if profiles[r.GetUserId()] != nil {
			asking = append(asking, r)
		}
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, asking, func(b []byte, r *momentsv1.FriendRequest) []byte {
			b = g.appendProfile(append(b, `{"user":`...), profiles[r.GetUserId()])
			return append(appendTime(append(b, `,"received_at":`...), r.GetReceivedMs()), '}')
		})
		return append(appendCursor(b, `,"next_cursor":`, res.GetNextCursor()), '}')
	})
}

func (g *Gateway) requestFriend(c *call) error {
	var in struct {
		User string `json:"user"`
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	if _, err := id.ParseUser(in.User); err != nil {
		return invalid("user", "give the id of a user")
	}
	res, err := g.accounts.RequestFriend(c.ctx(), &momentsv1.RequestFriendRequest{UserId: c.user, OtherId: in.User, IdempotencyKey: key})
	return c.friendState(res.GetState(), err)
}

// friendStep reads what the steps of a friendship have in common.
func (c *call) friendStep() (other, key string, err error) {
	if other, err = c.pathUser(); err != nil {
		return "", "", err
	}
	key, err = c.key()
	return other, key, err
}

func (g *Gateway) acceptFriend(c *call) error {
	other, key, err := c.friendStep()
	if err != nil {
		return err
	}
	res, err := g.accounts.AcceptFriend(c.ctx(), &momentsv1.AcceptFriendRequest{UserId: c.user, OtherId: other, IdempotencyKey: key})
	return c.friendState(res.GetState(), err)
}

func (g *Gateway) declineFriend(c *call) error {
	other, key, err := c.friendStep()
	if err != nil {
		return err
	}
	res, err := g.accounts.DeclineFriend(c.ctx(), &momentsv1.DeclineFriendRequest{UserId: c.user, OtherId: other, IdempotencyKey: key})
	return c.friendState(res.GetState(), err)
}

func (g *Gateway) unfriend(c *call) error {
	other, key, err := c.friendStep()
	if err != nil {
		return err
	}
	res, err := g.accounts.Unfriend(c.ctx(), &momentsv1.UnfriendRequest{UserId: c.user, OtherId: other, IdempotencyKey: key})
	return c.friendState(res.GetState(), err)
}

// friendStates are the API's words.
var friendStates = map[momentsv1.FriendState]string{
	momentsv1.FriendState_FRIEND_STATE_NONE:      "none",
	momentsv1.FriendState_FRIEND_STATE_FRIENDS:   "friends",
	momentsv1.FriendState_FRIEND_STATE_REQUESTED: "requested",
	momentsv1.FriendState_FRIEND_STATE_INVITED:   "invited",
}

// friendState answers with where the two people stand now.
func (c *call) friendState(state momentsv1.FriendState, err error) error {
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		return append(appendString(append(b, `{"state":`...), friendStates[state]), '}')
	})
}
