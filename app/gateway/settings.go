// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"strconv"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// settingsRoutes are the routes of settings, blocks and tags.
func (g *Gateway) settingsRoutes() []route {
	return []route{
		{"GET /me/settings", momentsv1.AccountServiceGetSettingsMethod, member, g.getSettings},
		{"PATCH /me/settings", momentsv1.AccountServiceUpdateSettingsMethod, writer, g.updateSettings},
		{"GET /friend-settings", momentsv1.AccountServiceListFriendSettingsMethod, member, g.listFriendSettings},
		{"GET /friends/{user}/settings", momentsv1.AccountServiceGetFriendSettingsMethod, member, g.getFriendSettings},
		{"PATCH /friends/{user}/settings", momentsv1.AccountServiceUpdateFriendSettingsMethod, writer, g.updateFriendSettings},
		{"DELETE /friend-requests/{user}", momentsv1.AccountServiceUnfriendMethod, writer, g.unfriend},
		{"PUT /blocks/{user}", momentsv1.AccountServiceBlockMethod, writer, g.block},
		{"DELETE /blocks/{user}", momentsv1.AccountServiceUnblockMethod, writer, g.unblock},

		{"GET /tags", momentsv1.AccountServiceListTagsMethod, member, g.listTags},
		{"POST /tags", momentsv1.AccountServiceCreateTagMethod, writer, g.createTag},
		{"GET /tags/{tag}", momentsv1.AccountServiceGetTagMethod, member, g.getTag},
		{"PATCH /tags/{tag}", momentsv1.AccountServiceUpdateTagMethod, writer, g.updateTag},
		{"DELETE /tags/{tag}", momentsv1.AccountServiceDeleteTagMethod, writer, g.deleteTag},

		{"PUT /posts/{post}/audience", momentsv1.PostServiceSetAudienceMethod, writer, g.setAudience},
	}
}

// windows are the API's words, and what they stand for.
var windows = map[momentsv1.AlbumWindow]string{
	momentsv1.AlbumWindow_ALBUM_WINDOW_ALL:        "all",
	momentsv1.AlbumWindow_ALBUM_WINDOW_THREE_DAYS: "3_days",
	momentsv1.AlbumWindow_ALBUM_WINDOW_MONTH:      "1_month",
	momentsv1.AlbumWindow_ALBUM_WINDOW_HALF_YEAR:  "6_months",
}

func (c *call) settings(s *momentsv1.Settings, err error) error {
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendString(append(b, `{"album_window":`...), windows[s.GetAlbumWindow()])
		b = strconv.AppendBool(append(b, `,"open_to_strangers":`...), s.GetOpenToStrangers())
		return append(b, '}')
	})
}

func (g *Gateway) getSettings(c *call) error {
	res, err := g.accounts.GetSettings(c.ctx(), &momentsv1.GetSettingsRequest{UserId: c.user})
	return c.settings(res.GetSettings(), err)
}

func (g *Gateway) updateSettings(c *call) error {
	var in struct {
		AlbumWindow     *string `json:"album_window"`
		OpenToStrangers *bool   `json:"open_to_strangers"`
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	req := &momentsv1.UpdateSettingsRequest{UserId: c.user, OpenToStrangers: in.OpenToStrangers, IdempotencyKey: key}
	if in.AlbumWindow != nil {
		for w, word := range windows {
			if word == *in.AlbumWindow {
				req.AlbumWindow = w.Enum()
			}
		}
		if req.AlbumWindow == nil {
			return invalid("album_window", "give all, 3_days, 1_month or 6_months")
		}
	}
	res, err := g.accounts.UpdateSettings(c.ctx(), req)
	return c.settings(res.GetSettings(), err)
}

// appendFriendSettings appends the members of an object that the caller closes.
func appendFriendSettings(b []byte, s *momentsv1.FriendSettings) []byte {
	b = strconv.AppendBool(append(b, `"chat_only":`...), s.GetChatOnly())
	b = strconv.AppendBool(append(b, `,"hide_mine":`...), s.GetHideMine())
	b = strconv.AppendBool(append(b, `,"hide_theirs":`...), s.GetHideTheirs())
	b = strconv.AppendBool(append(b, `,"blocked":`...), s.GetBlocked())
	return appendString(append(b, `,"state":`...), friendStates[s.GetState()])
}

func (c *call) friendSettings(s *momentsv1.FriendSettings, err error) error {
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		return append(appendFriendSettings(append(b, '{'), s), '}')
	})
}

func (g *Gateway) getFriendSettings(c *call) error {
	other, err := c.pathUser()
	if err != nil {
		return err
	}
	res, err := g.accounts.GetFriendSettings(c.ctx(), &momentsv1.GetFriendSettingsRequest{UserId: c.user, OtherId: other})
	return c.friendSettings(res.GetSettings(), err)
}

func (g *Gateway) updateFriendSettings(c *call) error {
	var in struct {
		ChatOnly   *bool `json:"chat_only"`
		HideMine   *bool `json:"hide_mine"`
		HideTheirs *bool `json:"hide_theirs"`
	}
	other, key, err := c.friendStep()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	res, err := g.accounts.UpdateFriendSettings(c.ctx(), &momentsv1.UpdateFriendSettingsRequest{
		UserId: c.user, OtherId: other, ChatOnly: in.ChatOnly, HideMine: in.HideMine, HideTheirs: in.HideTheirs, IdempotencyKey: key,
	})
	return c.friendSettings(res.GetSettings(), err)
}

func (g *Gateway) listFriendSettings(c *call) error {
	cursor, limit, err := c.page()
	if err != nil {
		return err
	}
	res, err := g.accounts.ListFriendSettings(c.ctx(), &momentsv1.ListFriendSettingsRequest{UserId: c.user, Cursor: cursor, Limit: limit})
	if err != nil {
		return err
	}
	profiles := map[string]*momentsv1.Profile{}
	if all := res.GetSettings(); len(all) > 0 {
		ids := make([]string, len(all))
		for i, s := range all {
			ids[i] = s.GetOtherId()
		}
		got, err := g.accounts.GetProfiles(c.ctx(), &momentsv1.GetProfilesRequest{UserIds: ids})
		if err != nil {
			return err
		}
		for _, p := range got.GetProfiles() {
			profiles[p.GetUserId()] = p
		}
	}
	// Nothing need be set about whose account has gone meanwhile.
	var there []*momentsv1.FriendSettings
	for _, s := range res.GetSettings() {
		if profiles[s.GetOtherId()] != nil {
			there = append(there, s)
		}
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, there, func(b []byte, s *momentsv1.FriendSettings) []byte {
			b = g.appendProfile(append(b, `{"user":`...), profiles[s.GetOtherId()])
			return append(appendFriendSettings(append(b, ','), s), '}')
		})
		return append(appendCursor(b, `,"next_cursor":`, res.GetNextCursor()), '}')
	})
}

func (g *Gateway) block(c *call) error {
	other, key, err := c.friendStep()
	if err != nil {
		return err
	}
	res, err := g.accounts.Block(c.ctx(), &momentsv1.BlockRequest{UserId: c.user, OtherId: other, IdempotencyKey: key})
	return c.friendState(res.GetState(), err)
}

func (g *Gateway) unblock(c *call) error {
	other, key, err := c.friendStep()
	if err != nil {
		return err
	}
	res, err := g.accounts.Unblock(c.ctx(), &momentsv1.UnblockRequest{UserId: c.user, OtherId: other, IdempotencyKey: key})
	return c.friendState(res.GetState(), err)
}

// appendTag appends a tag, without its people.
func appendTag(b []byte, t *momentsv1.Tag) []byte {
	b = appendString(append(b, `{"id":`...), t.GetTagId())
	b = appendString(append(b, `,"name":`...), t.GetName())
	b = strconv.AppendUint(append(b, `,"people":`...), uint64(t.GetPeople()), 10)
	return append(b, '}')
}

func (g *Gateway) listTags(c *call) error {
	res, err := g.accounts.ListTags(c.ctx(), &momentsv1.ListTagsRequest{UserId: c.user})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return append(appendItems(b, res.GetTags(), appendTag), '}') })
}

func (g *Gateway) createTag(c *call) error {
	var in struct {
		Name  string   `json:"name"`
		Users []string `json:"users"`
	}
	key, err := c.ownKey()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	res, err := g.accounts.CreateTag(c.ctx(), &momentsv1.CreateTagRequest{UserId: c.user, Name: in.Name, UserIds: in.Users, IdempotencyKey: key})
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/tags/"+res.GetTag().GetTagId())
	return c.reply(http.StatusCreated, func(b []byte) []byte { return appendTag(b, res.GetTag()) })
}

func (c *call) pathTag() (string, error) {
	s := c.r.PathValue("tag")
	if _, err := id.ParseTag(s); err != nil {
		return "", notFound("tag")
	}
	return s, nil
}

func (g *Gateway) getTag(c *call) error {
	tag, err := c.pathTag()
	if err != nil {
		return err
	}
	res, err := g.accounts.GetTag(c.ctx(), &momentsv1.GetTagRequest{UserId: c.user, TagId: tag})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendTag(b, res.GetTag())
		b = append(b[:len(b)-1], `,"user_ids":`...) // the object goes on
		return append(appendList(b, res.GetTag().GetUserIds(), appendString), '}')
	})
}

func (g *Gateway) updateTag(c *call) error {
	var in struct {
		Name   *string  `json:"name"`
		Add    []string `json:"add"`
		Remove []string `json:"remove"`
	}
	tag, err := c.pathTag()
	if err != nil {
		return err
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	res, err := g.accounts.UpdateTag(c.ctx(), &momentsv1.UpdateTagRequest{
		UserId: c.user, TagId: tag, Name: in.Name, AddIds: in.Add, RemoveIds: in.Remove, IdempotencyKey: key,
	})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return appendTag(b, res.GetTag()) })
}

func (g *Gateway) deleteTag(c *call) error {
	tag, err := c.pathTag()
	if err != nil {
		return err
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if _, err := g.accounts.DeleteTag(c.ctx(), &momentsv1.DeleteTagRequest{UserId: c.user, TagId: tag, IdempotencyKey: key}); err != nil {
		return err
	}
	return c.done()
}

func (g *Gateway) setAudience(c *call) error {
	var in struct {
		Audience string `json:"audience"`
	}
	post, key, err := c.likeStep()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	audience, err := audienceOf(in.Audience)
	if err != nil {
		return err
	}
	_, err = g.posts.SetAudience(c.ctx(), &momentsv1.SetAudienceRequest{AuthorId: c.user, PostId: post, Audience: audience, IdempotencyKey: key})
	if err != nil {
		return err
	}
	return c.done()
}

// audienceOf reads the API's word for whom a post is for.
func audienceOf(word string) (momentsv1.Audience, error) {
	for a, w := range audiences {
		if w == word {
			return a, nil
		}
	}
	return 0, invalid("audience", "give friends, only_me, allow or deny")
}
