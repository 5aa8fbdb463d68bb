// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"gocloud.dev/blob"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// maxFailures is after how many Collect is given up: what it needs is in trouble.
const maxFailures = 100

// collect looks at what is due, again and again, until ctx ends.
func (s *Service) collect(ctx context.Context) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		if err := s.Collect(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "some media that nobody uses stay for another look", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.released:
		}
	}
}

// Collect removes what has been released, uploads and media that were not used in 24
// hours, and media of posts and profiles that do not have them. Run calls it; tests may.
func (s *Service) Collect(ctx context.Context) error {
	var errs []error
	r := kv.Range{From: []byte{tableDue}, To: dueKey(s.now().UnixMilli()+1, id.Media{})}
	err := kv.Sweep(ctx, s.store, r, kv.Local, func(_ kv.Slot, it kv.Item) error {
		err := s.look(ctx, idAt(it.Key))
		if err == nil || ctx.Err() != nil || len(errs) == maxFailures {
			return err
		}
		errs = append(errs, err) // it stays due
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// look does what is due with a medium.
func (s *Service) look(ctx context.Context, m id.Media) error {
	r, err := s.get(ctx, m, kv.Linearizable)
	if err != nil || r.ver == 0 || r.GetDeadlineMs() == 0 || r.GetDeadlineMs() > s.now().UnixMilli() {
		return err
	}
	switch r.GetState() {
	case momentsv1.StoredMedia_STATE_RELEASED:
		return s.remove(ctx, r)
	case momentsv1.StoredMedia_STATE_ATTACHED:
		has, err := s.inUse(ctx, r)
		if err != nil {
			return fmt.Errorf("ask who has medium %v: %w", m, err)
		}
		if has {
			next := proto.CloneOf(r.StoredMedia)
			next.DeadlineMs = 0
			if len(r.GetPostId()) == 0 {
				next.DeadlineMs = s.in(keepUnused) // a profile changes without telling
			}
			return s.apply(ctx, r, next)
		}
	case momentsv1.StoredMedia_STATE_UPLOADING, momentsv1.StoredMedia_STATE_READY, momentsv1.StoredMedia_STATE_UNSPECIFIED:
	}
	// First it is marked, so that nobody attaches what is being removed.
	next := proto.CloneOf(r.StoredMedia)
	next.State = momentsv1.StoredMedia_STATE_RELEASED
	if err := s.apply(ctx, r, next); err != nil {
		return err
	}
	if r, err = s.get(ctx, m, kv.Linearizable); err != nil || r.GetState() != momentsv1.StoredMedia_STATE_RELEASED {
		return err
	}
	return s.remove(ctx, r)
}

// apply stores a change. If another was faster, what is due is looked at again later.
func (s *Service) apply(ctx context.Context, r row, next *momentsv1.StoredMedia) error {
	b := new(kv.Batch)
	if err := put(b, r, next); err != nil {
		return err
	}
	if next == nil {
		all := kv.Prefix(key(tablePart, r.id[:]), 0)
		b.DeleteRange(all.From, all.To)
	}
	if _, err := s.store.Apply(ctx, slotOf(r.id), b); err != nil && !errors.Is(err, kv.ErrConflict) {
		return err
	}
	return nil
}

// remove removes the objects of a medium and then its record.
func (s *Service) remove(ctx context.Context, r row) error {
	if err := s.removeForms(ctx, r.id, r.StoredMedia); err != nil {
		return err
	}
	if r.GetToken() == "" { // it was never completed
		for i := range parts(r.GetSize()) {
			if err := s.blobs.remove(ctx, partBlob(r.id, i)); err != nil {
				return err
			}
		}
	}
	return s.apply(ctx, r, nil)
}

// inUse asks whether that what a medium was attached to is there and has it. Its owner
// sees every post of his own.
func (s *Service) inUse(ctx context.Context, r row) (bool, error) {
	if len(r.GetPostId()) == 0 {
		res, err := s.profiles.GetProfile(ctx, &momentsv1.GetProfileRequest{UserId: r.owner.String()})
		if rpc.CodeOf(err) == rpc.NotFound {
			return false, nil
		}
		p := res.GetProfile()
		return p.GetAvatarMediaId() == r.id.String() || p.GetCoverMediaId() == r.id.String(), err
	}
	post := id.Post(r.GetPostId()).String()
	res, err := s.posts.GetMany(ctx, &momentsv1.GetPostsRequest{ViewerId: r.owner.String(), Ids: []string{post}, HeadsOnly: true})
	return len(res.GetPosts()) > 0, err
}

const (
	// youngBlob is how old an object must be to be called an orphan: a call that is
	// writing has no record yet.
	youngBlob = time.Hour
	// mendAfter is how old an orphan must be to be removed.
	mendAfter = 24 * time.Hour
	blobPage  = 500
	// recordPage is how many records are looked at in one call. Each names a few objects.
	recordPage = 200
)

// CheckBlobs compares objects with records; see the contract. A cursor is "b" and a page
// token of the bucket, and after that "m" and a place in the store.
func (s *Service) CheckBlobs(ctx context.Context, req *momentsv1.CheckBlobsRequest) (*momentsv1.CheckBlobsResponse, error) {
	switch cursor := req.GetCursor(); {
	case cursor == "":
		return s.checkObjects(ctx, blob.FirstPageToken, req.GetMend())
	case cursor[0] == 'b':
		token, err := base64.RawURLEncoding.DecodeString(cursor[1:])
		if err != nil {
			return nil, problem.Invalid("cursor", "is not one that was given")
		}
		return s.checkObjects(ctx, token, req.GetMend())
	case cursor[0] == 'm':
		b, err := base64.RawURLEncoding.DecodeString(cursor[1:])
		if err != nil {
			return nil, problem.Invalid("cursor", "is not one that was given")
		}
		at, err := kv.ParsePlace(b)
		if err != nil {
			return nil, problem.Invalid("cursor", "is not one that was given")
		}
		return s.checkRecords(ctx, at)
	}
	return nil, problem.Invalid("cursor", "is not one that was given")
}

func (s *Service) checkObjects(ctx context.Context, token []byte, mend bool) (*momentsv1.CheckBlobsResponse, error) {
	objects, next, err := s.blobs.bucket.ListPage(ctx, token, blobPage, nil)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, s.shown(ctx, blobError("list", err))
	}
	res := &momentsv1.CheckBlobsResponse{NextCursor: recordCursor(kv.Place{})}
	if len(next) > 0 {
		res.NextCursor = "b" + base64.RawURLEncoding.EncodeToString(next)
	}
	for _, o := range objects {
		res.LookedAt++
		age := s.now().Sub(o.ModTime)
		if age < youngBlob {
			continue
		}
		named, err := s.named(ctx, o.Key)
		if err != nil {
			return nil, err
		}
		if named {
			continue
		}
		res.Orphans = append(res.Orphans, o.Key)
		if mend && age >= mendAfter {
			if err := s.blobs.remove(ctx, o.Key); err != nil {
				return nil, s.shown(ctx, err)
			}
		}
	}
	return res, nil
}

// named reports whether a record names an object.
func (s *Service) named(ctx context.Context, key string) (bool, error) {
	path := strings.Split(key, "/")
	if len(path) < 3 {
		return false, nil
	}
	m, err := id.ParseMedia(path[1])
	if err != nil {
		return false, nil //nolint:nilerr // an object that is nobody's
	}
	r, err := s.get(ctx, m, kv.Linearizable)
	if err != nil || r.ver == 0 {
		return false, err
	}
	if path[0] == "parts" {
		return r.GetToken() == "", nil
	}
	return path[0] == "media" && r.GetToken() == path[2], nil
}

// checkRecords looks for the objects that some records name.
func (s *Service) checkRecords(ctx context.Context, at kv.Place) (*momentsv1.CheckBlobsResponse, error) {
	items, next, err := kv.ScanSlots(ctx, s.store, at, kv.Prefix([]byte{tableMedia}, recordPage), kv.Local)
	if err != nil {
		return nil, problem.Store("list media", err)
	}
	res := new(momentsv1.CheckBlobsResponse)
	for _, it := range items {
		if err := s.checkRecord(ctx, it.Item, res); err != nil {
			return nil, s.shown(ctx, err)
		}
	}
	if next.Slot < kv.Slots {
		res.NextCursor = recordCursor(next)
	}
	return res, nil
}

func recordCursor(at kv.Place) string { return "m" + base64.RawURLEncoding.EncodeToString(at.Encode()) }

func (s *Service) checkRecord(ctx context.Context, it kv.Item, res *momentsv1.CheckBlobsResponse) error {
	r, err := parseRow(idAt(it.Key), it)
	if err != nil || !r.usable() {
		return err
	}
	for _, f := range r.GetForms() {
		res.LookedAt++
		there, err := s.blobs.has(ctx, formBlob(r.id, r.StoredMedia, f.GetVariant()))
		if err != nil {
			return err
		}
		if there {
			continue
		}
		// It may have been removed since it was listed.
		if now, err := s.get(ctx, r.id, kv.Linearizable); err != nil || !now.usable() {
			return err
		}
		res.Missing = append(res.Missing, r.id.String())
		break
	}
	return nil
}
