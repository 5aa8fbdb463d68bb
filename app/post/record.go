// SPDX-License-Identifier: Apache-2.0

package post

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/privacy"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// record is a post as reading needs it. What every look takes of it stands in one piece of
// memory, for of many posts each piece is a miss of the processor's cache. It is immutable.
// The zero record is of a post that is not there.
type record struct {
	// all is the head, the text, and the author's id as text and as it is. Looking whether
	// it is gone and at the author brings both ends near.
	all string
	// rest has what few posts have; nil for those that have none of it.
	rest *momentsv1.PostRecord
}

// The head of a record: whether it is deleted, its audience, its time.
const (
	headLen   = 1 + 4 + 8
	authorLen = len(id.User{})
)

// recordOf makes a record of what is stored, which has its ids.
func recordOf(r *momentsv1.PostRecord) (rec record) {
	author := id.User(r.GetAuthorId())
	all := make([]byte, headLen, headLen+len(r.GetText())+id.Len+authorLen)
	if r.GetDeleted() {
		all[0] = 1
	}
	binary.LittleEndian.PutUint32(all[1:], r.GetAudience())
	binary.LittleEndian.PutUint64(all[5:], uint64(r.GetTimeMs()))
	all = append(append(append(all, r.GetText()...), author.String()...), author[:]...)
	rec.all = string(all)
	if len(r.GetAllowIds()) > 0 || len(r.GetDenyIds()) > 0 || len(r.GetRemindIds()) > 0 ||
		len(r.GetMedia()) > 0 || r.GetLink() != nil || r.GetLocation() != "" {
		rec.rest = r
	}
	return rec
}

// cost is about what a record takes in memory that was stored in so many bytes.
func (r record) cost(stored int) int {
	if r.rest == nil {
		return 100 + len(r.all)
	}
	return 500 + 2*stored
}

// gone holds for what nobody sees any more: absent and deleted posts.
func (r record) gone() bool { return r.all == "" || r.all[0] != 0 }

func (r record) audience() momentsv1.Audience {
	return momentsv1.Audience(binary.LittleEndian.Uint32([]byte(r.all[1:5])))
}

func (r record) timeMS() int64 { return int64(binary.LittleEndian.Uint64([]byte(r.all[5:headLen]))) }

func (r record) author() id.User { return id.User([]byte(r.all[len(r.all)-authorLen:])) }

func (r record) authorText() string {
	end := len(r.all) - authorLen
	return r.all[end-id.Len : end]
}

func (r record) text() string { return r.all[headLen : len(r.all)-authorLen-id.Len] }

// aspects gives what a post says of who may see it.
func (r record) aspects(viewer id.User) privacy.Post {
	p := privacy.Post{Time: time.UnixMilli(r.timeMS())}
	switch r.audience() {
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
func (r record) show(p *momentsv1.Post, f privacy.Facts, v view) {
	p.AuthorId, p.TimeMs = r.authorText(), r.timeMS()
	if v.headsOnly {
		return
	}
	p.Text = r.text()
	if f.Self {
		p.Audience = r.audience()
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
