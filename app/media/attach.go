// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// holder is what media are attached to.
type holder struct {
	post  id.Post // zero for the profile
	place momentsv1.ProfilePlace
}

// has reports whether a record says that the holder has its medium.
func (h holder) has(rec *momentsv1.StoredMedia) bool {
	if rec.GetState() != momentsv1.StoredMedia_STATE_ATTACHED {
		return false
	}
	if h.post.IsZero() {
		return len(rec.GetPostId()) == 0 && rec.GetPlace() == h.place
	}
	return string(rec.GetPostId()) == string(h.post[:])
}

// Attach binds media to a post or to the profile; see the contract.
func (s *Service) Attach(ctx context.Context, req *momentsv1.AttachRequest) (*momentsv1.AttachResponse, error) {
	owner, err := problem.User("owner_id", req.GetOwnerId())
	if err != nil {
		return nil, err
	}
	var to holder
	switch {
	case req.GetPostId() != "":
		if to.post, err = id.ParsePost(req.GetPostId()); err != nil {
			return nil, problem.Invalid("post_id", "%v", err)
		}
	case req.GetPlace() == momentsv1.ProfilePlace_PROFILE_PLACE_AVATAR, req.GetPlace() == momentsv1.ProfilePlace_PROFILE_PLACE_COVER:
		to.place = req.GetPlace()
	default:
		return nil, problem.Invalid("post_id", "is empty, and so is place: say what the media are for")
	}
	if n := len(req.GetMediaIds()); n < 1 || n > maxPhotos {
		return nil, problem.Invalid("media_ids", "are %d, want 1 to %d", n, maxPhotos)
	}
	media := make([]id.Media, 0, maxPhotos)
	seen := map[id.Media]bool{}
	for _, text := range req.GetMediaIds() {
		m, err := id.ParseMedia(text)
		if err != nil || slotOf(m) != kv.SlotOf(owner[:]) {
			return nil, noMedia()
		}
		if seen[m] {
			return nil, problem.Invalid("media_ids", "has one twice")
		}
		seen[m] = true
		media = append(media, m)
	}
	for range maxTries {
		if res, err := s.attach(ctx, owner, to, media); !errors.Is(err, kv.ErrConflict) {
			return res, problem.Store("attach media", err)
		}
	}
	return nil, problem.Store("attach media", kv.ErrConflict)
}

// noMedia is one answer for all that cannot be attached: what is not there, not whole, used
// or somebody else's.
func noMedia() error {
	return problem.New(rpc.NotFound, "not-found", "media_ids", "no such photo or video")
}

func (s *Service) attach(ctx context.Context, owner id.User, to holder, media []id.Media) (*momentsv1.AttachResponse, error) {
	res := new(momentsv1.AttachResponse)
	b := new(kv.Batch)
	photos, videos := 0, 0
	for _, m := range media {
		r, err := s.get(ctx, m, kv.Linearizable)
		if err != nil {
			return nil, err
		}
		attached := to.has(r.StoredMedia)
		if r.ver == 0 || r.owner != owner || r.GetState() != momentsv1.StoredMedia_STATE_READY && !attached {
			return nil, noMedia()
		}
		if r.GetKind() == momentsv1.MediaKind_MEDIA_KIND_PHOTO {
			photos++
		} else {
			videos++
		}
		res.Media = append(res.Media, r.media())
		if attached {
			continue
		}
		next := proto.CloneOf(r.StoredMedia)
		next.State, next.DeadlineMs, next.Place = momentsv1.StoredMedia_STATE_ATTACHED, s.in(keepUnused), to.place
		if !to.post.IsZero() {
			next.PostId = to.post[:]
		}
		if err := put(b, r, next); err != nil {
			return nil, err
		}
	}
	switch {
	case to.post.IsZero() && (photos != 1 || videos > 0):
		return nil, problem.Invalid("media_ids", "must be one photo for the profile")
	case videos > 1:
		return nil, problem.Invalid("media_ids", "has %d videos; a post has one at most", videos)
	case videos > 0 && photos > 0:
		return nil, problem.Invalid("media_ids", "has photos and a video; a post has one or the other")
	}
	if b.Len() == 0 {
		return res, nil
	}
	_, err := s.store.Apply(ctx, slotOf(media[0]), b)
	return res, err
}

// Release lets the media of a post go; see the contract.
func (s *Service) Release(ctx context.Context, req *momentsv1.ReleaseRequest) (*momentsv1.ReleaseResponse, error) {
	owner, err := problem.User("owner_id", req.GetOwnerId())
	if err != nil {
		return nil, err
	}
	post, err := id.ParsePost(req.GetPostId())
	if err != nil {
		return nil, problem.Invalid("post_id", "%v", err)
	}
	slot := kv.SlotOf(owner[:])
	items, _, err := s.store.Scan(ctx, slot, kv.Prefix(key(tablePost, post[:]), 0), kv.Linearizable)
	if err != nil {
		return nil, problem.Store("release media", err)
	}
	for _, it := range items {
		r, err := s.get(ctx, idAt(it.Key), kv.Linearizable)
		if err != nil {
			return nil, err
		}
		if r.owner != owner || !(holder{post: post}).has(r.StoredMedia) {
			continue
		}
		if err := s.release(ctx, r); err != nil {
			return nil, problem.Store("release media", err)
		}
	}
	return &momentsv1.ReleaseResponse{}, nil
}

// Forget lets go what somebody's profile has, and what he has uploaded and not used; see
// the contract. There is little of it: a profile has two pictures, and what waits is
// bounded.
func (s *Service) Forget(ctx context.Context, req *momentsv1.ForgetRequest) (*momentsv1.ForgetResponse, error) {
	owner, err := problem.User("user_id", req.GetUserId())
	if err != nil {
		return nil, err
	}
	res := new(momentsv1.ForgetResponse)
	for _, table := range []byte{tableProfile, tableWaiting} {
		items, _, err := s.store.Scan(ctx, kv.SlotOf(owner[:]), kv.Prefix(key(table, owner[:]), 0), kv.Linearizable)
		if err != nil {
			return nil, problem.Store("forget media", err)
		}
		res.Found += uint32(len(items))
		if req.GetDryRun() {
			continue
		}
		for _, it := range items {
			r, err := s.get(ctx, idAt(it.Key), kv.Linearizable)
			if err != nil {
				return nil, err
			}
			if r.owner != owner {
				continue
			}
			if err := s.release(ctx, r); err != nil {
				return nil, problem.Store("forget media", err)
			}
		}
	}
	return res, nil
}
