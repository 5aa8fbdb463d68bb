// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/framework/edge"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

func (g *Gateway) listSessions(c *call) error {
	res, err := g.accounts.ListSessions(c.ctx(), &momentsv1.ListSessionsRequest{UserId: c.user})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte {
		b = appendItems(b, res.GetSessions(), func(b []byte, s *momentsv1.Session) []byte {
			b = appendString(append(b, `{"id":`...), s.GetSessionId())
			b = appendString(append(b, `,"device":`...), s.GetDevice())
			b = appendTime(append(b, `,"created_at":`...), s.GetCreatedMs())
			b = appendTime(append(b, `,"last_used_at":`...), s.GetLastUsedMs())
			b = appendTime(append(b, `,"expires_at":`...), s.GetExpiresMs())
			if s.GetSessionId() == c.sess {
				return append(b, `,"current":true}`...)
			}
			return append(b, `,"current":false}`...)
		})
		return append(b, '}')
	})
}

// endSessions ends all sessions, or with ?keep=current all but this one.
func (g *Gateway) endSessions(c *call) error {
	q, err := c.query()
	if err != nil {
		return err
	}
	req := &momentsv1.EndSessionsRequest{UserId: c.user}
	switch q.Get("keep") {
	case "":
	case "current":
		req.KeepSessionId = c.sess
	default:
		return invalid("keep", "give current, or leave it out to end this session too")
	}
	return g.end(c, req)
}

func (g *Gateway) endSession(c *call) error {
	s := c.r.PathValue("session")
	if _, err := id.ParseSession(s); err != nil {
		return notFound("session")
	}
	return g.end(c, &momentsv1.EndSessionsRequest{UserId: c.user, SessionId: s})
}

func (g *Gateway) end(c *call, req *momentsv1.EndSessionsRequest) error {
	_, err := g.accounts.EndSessions(c.ctx(), req)
	g.doubt(c)
	if err != nil {
		return err
	}
	return c.done()
}

// doubt lets the request's own session be asked for again, since it may have ended, and so
// do the streams of the user. Other sessions of his that are known here act for a second
// at most.
func (g *Gateway) doubt(c *call) {
	if token, err := bearer(c.r); err == nil {
		g.sessions.forget(token)
	}
	g.hub.doubt(c.user)
}

func (g *Gateway) updateMe(c *call) error {
	var in struct {
		DisplayName *string `json:"display_name"`
		Avatar      *string `json:"avatar_media_id"`
		Cover       *string `json:"cover_media_id"`
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	if err := g.attachPicture(c, in.Avatar, momentsv1.ProfilePlace_PROFILE_PLACE_AVATAR, "avatar_media_id"); err != nil {
		return err
	}
	if err := g.attachPicture(c, in.Cover, momentsv1.ProfilePlace_PROFILE_PLACE_COVER, "cover_media_id"); err != nil {
		return err
	}
	res, err := g.accounts.UpdateProfile(c.ctx(), &momentsv1.UpdateProfileRequest{
		UserId: c.user, DisplayName: in.DisplayName, AvatarMediaId: in.Avatar, CoverMediaId: in.Cover, IdempotencyKey: key,
	})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(b []byte) []byte { return g.appendProfile(b, res.GetProfile()) })
}

func (g *Gateway) changePassword(c *call) error {
	var in struct {
		Old string `json:"old_password"`
		New string `json:"new_password"`
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	_, err = g.accounts.ChangePassword(c.ctx(), &momentsv1.ChangePasswordRequest{
		UserId: c.user, SessionId: c.sess, OldPassword: in.Old, NewPassword: in.New, IdempotencyKey: key,
	})
	g.hub.doubt(c.user) // this session goes on, the others have ended
	if err != nil {
		return err
	}
	return c.done()
}

func (g *Gateway) deleteMe(c *call) error {
	var in struct {
		Password string `json:"password"`
	}
	if err := edge.DecodeBody(c.r, &in); err != nil {
		return err
	}
	if _, err := g.accounts.DeleteAccount(c.ctx(), &momentsv1.DeleteAccountRequest{UserId: c.user, Password: in.Password}); err != nil {
		return err
	}
	g.doubt(c)
	return c.done()
}
