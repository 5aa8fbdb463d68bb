// SPDX-License-Identifier: Apache-2.0

package post

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/privacy"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/app/text"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// newRecord checks a request and gives its record, still without ids and time, and
// without what other services have to say: persons of tags, and media.
func newRecord(author id.User, req *momentsv1.PublishRequest) (*momentsv1.PostRecord, error) {
	rec := &momentsv1.PostRecord{AuthorId: author[:], Audience: uint32(req.GetAudience())}
	var err error
	if rec.Text, err = text.Clean(req.GetText(), maxText); err != nil {
		return nil, problem.Invalid("text", "%v", err)
	}
	if text.Blank(rec.GetText()) && len(req.GetMediaIds()) == 0 && req.GetLink() == nil {
		return nil, problem.Invalid("text", "is blank: write something, or give media or a link")
	}
	if rec.Location, err = line("location", req.GetLocation(), maxLocation); err != nil {
		return nil, err
	}
	if rec.Link, err = newLink(req.GetLink()); err != nil {
		return nil, err
	}
	if err := newMedia(rec, req.GetMediaIds()); err != nil {
		return nil, err
	}
	if err := newAudience(rec, author, req); err != nil {
		return nil, err
	}
	if n := len(req.GetRemindIds()); n > maxRemind {
		return nil, problem.Invalid("remind_ids", "has %d ids, at most %d", n, maxRemind)
	}
	seen := map[id.User]bool{}
	for _, v := range req.GetRemindIds() {
		u, err := problem.User("remind_ids", v)
		switch {
		case err != nil:
			return nil, err
		case u == author:
			return nil, problem.Invalid("remind_ids", "names the author")
		case seen[u]:
			return nil, problem.Invalid("remind_ids", "names somebody twice")
		}
		seen[u] = true
		rec.RemindIds = append(rec.RemindIds, u[:]...)
	}
	return rec, nil
}

// line checks a text of one line.
func line(field, s string, most int) (string, error) {
	s, err := text.Clean(s, most)
	if err != nil {
		return "", problem.Invalid(field, "%v", err)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' }) {
		return "", problem.Invalid(field, "must be one line without control characters")
	}
	return s, nil
}

// newLink checks a link card. It is kept as given and never fetched.
func newLink(l *momentsv1.LinkCard) (*momentsv1.LinkRecord, error) {
	if l == nil {
		return nil, nil //nolint:nilnil // a post without a link has none
	}
	raw := l.GetUrl()
	if len(raw) > maxURL {
		return nil, problem.Invalid("link.url", "has %d bytes, at most %d", len(raw), maxURL)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return nil, problem.Invalid("link.url", "is no http or https URL with a host")
	}
	rec := &momentsv1.LinkRecord{Url: raw}
	if rec.Title, err = line("link.title", l.GetTitle(), maxTitle); err != nil {
		return nil, err
	}
	if l.GetMediaId() != "" {
		m, err := id.ParseMedia(l.GetMediaId())
		if err != nil {
			return nil, problem.Invalid("link.media_id", "%v", err)
		}
		rec.MediaId = m[:]
	}
	return rec, nil
}

func newMedia(rec *momentsv1.PostRecord, ids []string) error {
	if n := len(ids); n > maxMedia {
		return problem.Invalid("media_ids", "has %d ids, at most %d", n, maxMedia)
	}
	for i, v := range ids {
		m, err := id.ParseMedia(v)
		if err != nil {
			return problem.Invalid("media_ids", "%v", err)
		}
		if slices.Contains(ids[:i], v) || bytes.Equal(rec.GetLink().GetMediaId(), m[:]) {
			return problem.Invalid("media_ids", "names a medium twice")
		}
		rec.Media = append(rec.Media, &momentsv1.MediaRecord{MediaId: m[:]})
	}
	return nil
}

// newAudience checks whom a post is for.
func newAudience(rec *momentsv1.PostRecord, author id.User, req *momentsv1.PublishRequest) error {
	a := req.GetAudience()
	allow, deny := false, false
	switch a {
	case momentsv1.Audience_AUDIENCE_FRIENDS, momentsv1.Audience_AUDIENCE_ONLY_ME:
	case momentsv1.Audience_AUDIENCE_ALLOW:
		allow, deny = true, true
		if len(req.GetAllowIds())+len(req.GetAllowTagIds()) == 0 { // nobody is left but the author
			rec.Audience = uint32(momentsv1.Audience_AUDIENCE_ONLY_ME)
		}
	case momentsv1.Audience_AUDIENCE_DENY:
		deny = true
	default:
		return problem.Invalid("audience", "is %v, which is none", a)
	}
	for _, l := range []struct {
		field string
		ids   []string
		most  int
		may   bool
	}{
		{"allow_ids", req.GetAllowIds(), maxPersons, allow},
		{"allow_tag_ids", req.GetAllowTagIds(), maxTags, allow},
		{"deny_ids", req.GetDenyIds(), maxPersons, deny},
		{"deny_tag_ids", req.GetDenyTagIds(), maxTags, deny},
	} {
		// Refused rather than dropped: a post must not be wider or narrower than its author
		// asked for.
		if len(l.ids) > 0 && !l.may {
			return problem.Invalid(l.field, "does not go with %v", a)
		}
		if n := len(l.ids); n > l.most {
			return problem.Invalid(l.field, "has %d ids, at most %d", n, l.most)
		}
	}
	for field, tags := range map[string][]string{"allow_tag_ids": req.GetAllowTagIds(), "deny_tag_ids": req.GetDenyTagIds()} {
		for _, tag := range tags {
			if _, err := id.ParseTag(tag); err != nil {
				return noTag(field)
			}
		}
	}
	var err error
	if rec.AllowIds, err = persons("allow_ids", req.GetAllowIds(), nil); err != nil {
		return err
	}
	rec.DenyIds, err = persons("deny_ids", req.GetDenyIds(), nil)
	return err
}

// noTag answers for a tag that is not the author's, or none at all.
func noTag(field string) error {
	return problem.New(rpc.NotFound, "not-found", field, "there is no such tag of yours")
}

// maxGranted is how many persons a post may name: 112 KB of its body.
const maxGranted = 7000

// persons gives ids as a record keeps them: 16 bytes each, sorted, once each, together
// with those that are there already.
func persons(field string, texts []string, had []byte) ([]byte, error) {
	if len(texts) == 0 {
		return had, nil
	}
	list := make([]id.User, 0, len(texts)+len(had)/16)
	for u := range slices.Chunk(had, 16) {
		list = append(list, id.User(u))
	}
	for _, v := range texts {
		u, err := problem.User(field, v)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	slices.SortFunc(list, id.User.Compare)
	if list = slices.Compact(list); len(list) > maxGranted {
		return nil, problem.New(rpc.FailedPrecondition, "limit", field, "it would be %d persons, at most %d", len(list), maxGranted)
	}
	b := make([]byte, 0, 16*len(list))
	for _, u := range list {
		b = append(b, u[:]...)
	}
	return b, nil
}

// named reports whether a person is among those of a record.
func named(list []byte, u id.User) bool {
	n := len(list) / 16
	i := sort.Search(n, func(i int) bool { return bytes.Compare(list[16*i:16*i+16], u[:]) >= 0 })
	return i < n && bytes.Equal(list[16*i:16*i+16], u[:])
}

// sumOf tells two requests under one key apart: by what was asked for, for tags may
// have other people when the request is repeated.
func sumOf(rec *momentsv1.PostRecord, req *momentsv1.PublishRequest) [sha256.Size]byte {
	parts := []string{"post", strconv.FormatUint(uint64(req.GetAudience()), 10), rec.GetText()}
	add := func(name string, values ...string) {
		if len(values) > 0 {
			parts = append(append(parts, name, strconv.Itoa(len(values))), values...)
		}
	}
	add("allow", req.GetAllowIds()...)
	add("allow tags", req.GetAllowTagIds()...)
	add("deny", req.GetDenyIds()...)
	add("deny tags", req.GetDenyTagIds()...)
	add("media", req.GetMediaIds()...)
	add("remind", req.GetRemindIds()...)
	if l := req.GetLink(); l != nil {
		add("link", l.GetUrl(), l.GetTitle(), l.GetMediaId())
	}
	if v := req.GetLocation(); v != "" {
		add("location", v)
	}
	return once.Sum(parts...)
}

// needsOthers reports whether other services have a say in a post.
func needsOthers(req *momentsv1.PublishRequest) bool {
	return len(req.GetAllowTagIds())+len(req.GetDenyTagIds())+len(req.GetMediaIds())+len(req.GetRemindIds()) > 0 ||
		req.GetLink().GetMediaId() != ""
}

// askOthers completes an op with what other services have to say: who bears the tags,
// whether those who are to be reminded may see the post, and what the media are. A
// request that is repeated is not asked for again.
func (s *Service) askOthers(ctx context.Context, o *op, req *momentsv1.PublishRequest) error {
	slot := kv.SlotOf(o.author[:])
	_, found, err := o.use.Answer(ctx, s.store, slot)
	if found || err != nil {
		return problem.Store("look for an earlier answer", err)
	}
	for _, l := range []struct {
		field string
		tags  []string
		to    *[]byte
	}{
		{"allow_tag_ids", req.GetAllowTagIds(), &o.rec.AllowIds},
		{"deny_tag_ids", req.GetDenyTagIds(), &o.rec.DenyIds},
	} {
		if len(l.tags) == 0 {
			continue
		}
		res, err := s.account.ResolveTags(ctx, &momentsv1.ResolveTagsRequest{UserId: req.GetAuthorId(), TagIds: l.tags})
		if rpc.CodeOf(err) == rpc.NotFound {
			return noTag(l.field)
		}
		if err != nil {
			return err
		}
		if *l.to, err = persons(l.field, res.GetUserIds(), *l.to); err != nil {
			return err
		}
	}
	if err := s.checkReminded(ctx, o); err != nil {
		return err
	}
	return s.attach(ctx, slot, o, req)
}

// checkReminded refuses a post that somebody who is to be reminded could not see.
func (s *Service) checkReminded(ctx context.Context, o *op) error {
	post, now := recordOf(o.rec), s.now()
	g, gctx := errgroup.WithContext(ctx)
	for b := range slices.Chunk(o.rec.GetRemindIds(), 16) {
		g.Go(func() error {
			u := id.User(b)
			set, err := s.relations.Fresh(gctx, u, []id.User{o.author})
			if err != nil {
				return err
			}
			f := set.Of(o.author)
			if f.Friends && privacy.SeesPost(f, post.aspects(u), now) {
				return nil
			}
			return problem.Invalid("remind_ids", "%v would not see the post", u)
		})
	}
	return g.Wait()
}

// attach binds a post's media to it. The post has its id before, and a row that keeps
// it: a request that is cut off between the two services and then repeated is about
// the same post, and finds its media bound to it already.
func (s *Service) attach(ctx context.Context, slot kv.Slot, o *op, req *momentsv1.PublishRequest) error {
	media := slices.Clone(req.GetMediaIds())
	if preview := req.GetLink().GetMediaId(); preview != "" {
		media = append(media, preview)
	}
	if len(media) == 0 {
		return nil
	}
	if s.media == nil {
		return problem.New(rpc.FailedPrecondition, "no-media", "media_ids", "photos and videos are not switched on here: leave them out")
	}
	if err := s.intend(ctx, slot, o, req); err != nil {
		return err
	}
	res, err := s.media.Attach(ctx, &momentsv1.AttachRequest{OwnerId: req.GetAuthorId(), PostId: o.post.String(), MediaIds: media})
	if err != nil {
		return err
	}
	if len(res.GetMedia()) != len(media) {
		return rpc.Errorf(rpc.Internal, "media answered %d of %d", len(res.GetMedia()), len(media))
	}
	for i, m := range o.rec.GetMedia() {
		from := res.GetMedia()[i]
		m.DurationMs = uint32(from.GetDurationMs())
		for _, f := range from.GetForms() {
			if f.GetVariant() == momentsv1.MediaVariant_MEDIA_VARIANT_FULL {
				m.ContentType, m.Width, m.Height = f.GetContentType(), f.GetWidth(), f.GetHeight()
			}
		}
	}
	return nil
}

// intend gives an op the id that its post is going to have, the same one for each try
// under its key for the same request.
func (s *Service) intend(ctx context.Context, slot kv.Slot, o *op, req *momentsv1.PublishRequest) error {
	asked := sumOf(o.rec, req)
	sum := sha256.Sum256(append(asked[:], req.GetIdempotencyKey()...))
	row := append(append([]byte{tableIntent}, o.author[:]...), sum[:16]...)
	for {
		it, err := s.store.Get(ctx, slot, row, kv.Linearizable)
		if err != nil {
			return problem.Store("read intent", err)
		}
		if len(it.Value) == len(o.post) {
			o.intent, o.post = row, id.Post(it.Value)
			return nil
		}
		p, err := newID(s.ids, slot)
		if err != nil {
			return fmt.Errorf("post: %w", err)
		}
		_, err = s.store.Apply(ctx, slot, new(kv.Batch).IfVer(row, it.Ver).Put(row, p[:]))
		if err == nil || ctx.Err() == nil && (errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrUnknown)) {
			continue // now it is there, be it another's
		}
		return problem.Store("write intent", err)
	}
}
