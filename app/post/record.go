// SPDX-License-Identifier: Apache-2.0

package post

import (
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/privacy"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// record is a post as reading needs it. What every look takes of it stands in one piece of
// memory: of many posts, each piece is a miss of the processor's cache. It is immutable.
type record struct {
	author   id.User
	timeMS   int64
	audience momentsv1.Audience
	deleted  bool
	// text and authorText, the author's id as text, are one piece.
	text, authorText string
	// rest has what few posts have; nil for those that have none of it.
	rest *momentsv1.PostRecord
}

// recordOf makes a record of what is stored, which has its ids.
func recordOf(r *momentsv1.PostRecord) *record {
	author := id.User(r.GetAuthorId())
	both := r.GetText() + author.String()
	at := len(r.GetText())
	rec := &record{
		author: author, timeMS: r.GetTimeMs(), audience: momentsv1.Audience(r.GetAudience()), deleted: r.GetDeleted(),
		text: both[:at], authorText: both[at:],
	}
	if len(r.GetAllowIds()) > 0 || len(r.GetDenyIds()) > 0 || len(r.GetRemindIds()) > 0 ||
		len(r.GetMedia()) > 0 || r.GetLink() != nil || r.GetLocation() != "" {
		rec.rest = r
	}
	return rec
}

// cost is about what a record takes in memory that was stored in so many bytes.
func (r *record) cost(stored int) int {
	if r.rest == nil {
		return 200 + stored
	}
	return 500 + 3*stored
}

// gone holds for what nobody sees any more: absent and deleted posts.
func (r *record) gone() bool { return r == nil || r.deleted }

// aspects gives what a post says of who may see it.
func (r *record) aspects(viewer id.User) privacy.Post {
	p := privacy.Post{Time: time.UnixMilli(r.timeMS)}
	switch r.audience {
	case momentsv1.Audience_AUDIENCE_FRIENDS:
		p.Public, p.Granted = true, true
	case momentsv1.Audience_AUDIENCE_ALLOW:
		p.Granted = named(r.rest.GetAllowIds(), viewer) && !named(r.rest.GetDenyIds(), viewer)
	case momentsv1.Audience_AUDIENCE_DENY:
		p.Granted = !named(r.rest.GetDenyIds(), viewer)
	case momentsv1.Audience_AUDIENCE_ONLY_ME, momentsv1.Audience_AUDIENCE_UNSPECIFIED:
	}
	return p // an audience this version does not know is nobody's but the author's
}

// show makes p the post as the viewer sees it, but for its id.
func (r *record) show(p *momentsv1.Post, f privacy.Facts, v view) {
	p.AuthorId, p.TimeMs = r.authorText, r.timeMS
	if v.headsOnly {
		return
	}
	p.Text = r.text
	if f.Self {
		p.Audience = r.audience
	}
	if r.rest == nil {
		return
	}
	p.Location = r.rest.GetLocation()
	for _, m := range r.rest.GetMedia() {
		p.Media = append(p.Media, &momentsv1.Attachment{
			MediaId: id.Media(m.GetMediaId()).String(), ContentType: m.GetContentType(),
			Width: m.GetWidth(), Height: m.GetHeight(), DurationMs: m.GetDurationMs(),
		})
	}
	if l := r.rest.GetLink(); l != nil {
		p.Link = &momentsv1.LinkCard{Url: l.GetUrl(), Title: l.GetTitle()}
		if len(l.GetMediaId()) == 16 {
			p.Link.MediaId = id.Media(l.GetMediaId()).String()
		}
	}
	for b := range slices.Chunk(r.rest.GetRemindIds(), 16) {
		if u := id.User(b); f.Self || u == v.viewer {
			p.RemindIds = append(p.RemindIds, u.String())
		}
	}
}
