// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/link"
	"github.com/sluice-rpc/sluice/app/media/photo"
	"github.com/sluice-rpc/sluice/app/media/probe"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// CompleteUpload makes a medium of an upload; see the contract.
func (s *Service) CompleteUpload(ctx context.Context, req *momentsv1.CompleteUploadRequest) (*momentsv1.CompleteUploadResponse, error) {
	r, err := s.own(ctx, req.GetOwnerId(), req.GetUploadId(), "upload")
	if err != nil {
		return nil, err
	}
	if r.GetState() == momentsv1.StoredMedia_STATE_UPLOADING {
		done, err := s.alone(ctx, r.id)
		if err != nil {
			return nil, err
		}
		defer done()
		// Another call may have completed it meanwhile.
		if r, err = s.own(ctx, req.GetOwnerId(), req.GetUploadId(), "upload"); err != nil {
			return nil, err
		}
		if r.GetState() == momentsv1.StoredMedia_STATE_UPLOADING {
			if r, err = s.complete(ctx, r); err != nil {
				return nil, problem.Store("complete an upload", s.shown(ctx, err))
			}
		}
	}
	return &momentsv1.CompleteUploadResponse{Media: r.media()}, nil
}

// alone waits until no other call of this process works on an upload. Calls of other
// processes do the work again, and all but one throw it away.
func (s *Service) alone(ctx context.Context, m id.Media) (done func(), err error) {
	for {
		s.mu.Lock()
		other, busy := s.completing[m]
		if !busy {
			mine := make(chan struct{})
			s.completing[m] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.completing, m)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// complete makes the medium. What is refused is released.
func (s *Service) complete(ctx context.Context, r row) (row, error) {
	if err := s.working.Acquire(ctx, 1); err != nil {
		return r, err
	}
	defer s.working.Release(1)
	up, err := s.open(ctx, r)
	if err != nil {
		return r, err
	}
	next := proto.CloneOf(r.StoredMedia)
	next.State, next.DeadlineMs = momentsv1.StoredMedia_STATE_READY, s.in(keepUnused)
	next.Token = strings.ToLower(rand.Text())
	if r.GetKind() == momentsv1.MediaKind_MEDIA_KIND_PHOTO {
		err = s.makePhoto(ctx, up, next)
	} else {
		err = s.makeVideo(ctx, up, next)
	}
	if err == nil {
		r, err = s.finish(ctx, r, next)
	}
	if err != nil {
		s.undo(ctx, r.id, next)
	}
	if why := refusal(err); why != "" {
		if err := s.release(ctx, r); err != nil {
			s.log.WarnContext(ctx, "a refused upload stays for a day", "upload", r.id, "error", err)
		}
		return r, problem.New(rpc.InvalidArgument, "media-refused", "", "%s", why)
	}
	return r, err
}

// refusal gives why a file is no medium, "" if that is not what an error says.
func refusal(err error) string {
	if e, ok := errors.AsType[*photo.RefusedError](err); ok {
		return e.Why
	}
	if e, ok := errors.AsType[*probe.RefusedError](err); ok {
		return e.Why
	}
	return ""
}

// upload reads the parts of an upload as one file.
type upload struct {
	ctx  context.Context // of the call; io.ReaderAt knows none
	s    *Service
	row  row
	sums [][]byte

	index uint32 // of the part at hand
	part  []byte // nil for none
}

// open gives the file of an upload that has all its parts.
func (s *Service) open(ctx context.Context, r row) (*upload, error) {
	sums, err := s.sums(ctx, r)
	if err != nil {
		return nil, err
	}
	missing := 0
	for _, sum := range sums {
		if sum == nil {
			missing++
		}
	}
	if missing > 0 {
		return nil, problem.New(rpc.FailedPrecondition, "failed-precondition", "", "%d of %d parts are missing: send them first", missing, len(sums))
	}
	return &upload{ctx: ctx, s: s, row: r, sums: sums}, nil
}

// load brings a part to hand. One that is not what was acknowledged, because a disk lost
// it, is missing from then on.
func (u *upload) load(index uint32) error {
	if u.part != nil && u.index == index {
		return nil
	}
	data, err := u.s.blobs.get(u.ctx, partBlob(u.row.id, index), 0, partLen(u.row.GetSize(), index))
	if err != nil && !errors.Is(err, errMissing) {
		return err
	}
	if sum := sha256.Sum256(data); err != nil || !bytes.Equal(sum[:], u.sums[index]) {
		b := new(kv.Batch).IfVer(mediaKey(u.row.id), u.row.ver).Delete(partKey(u.row.id, index))
		if _, err := u.s.store.Apply(u.ctx, slotOf(u.row.id), b); err != nil {
			return err
		}
		return problem.New(rpc.FailedPrecondition, "failed-precondition", "", "part %d was lost: send it again", index)
	}
	u.index, u.part = index, data
	return nil
}

// ReadAt implements io.ReaderAt over all parts. It is not safe for concurrent use.
func (u *upload) ReadAt(p []byte, at int64) (int, error) {
	n := 0
	for n < len(p) {
		from := at + int64(n)
		if from >= u.row.GetSize() {
			return n, io.EOF
		}
		if err := u.load(uint32(from / PartSize)); err != nil {
			return n, err
		}
		n += copy(p[n:], u.part[from%PartSize:])
	}
	return n, nil
}

// each gives the parts in order and ends with an error if the whole is not what was
// announced.
func (u *upload) each(f func(data []byte, at int64) error) error {
	whole := sha256.New()
	for i := range parts(u.row.GetSize()) {
		if err := u.load(i); err != nil {
			return err
		}
		whole.Write(u.part)
		if err := f(u.part, int64(i)*PartSize); err != nil {
			return err
		}
	}
	if !bytes.Equal(whole.Sum(nil), u.row.GetSha256()) {
		return problem.Invalid("sha256", "the whole is not what was announced: begin a new upload")
	}
	return nil
}

// formBlob names the object of a form.
func formBlob(m id.Media, rec *momentsv1.StoredMedia, v momentsv1.MediaVariant) string {
	return fmt.Sprintf("media/%v/%s/%s", m, rec.GetToken(), link.FormOf(v))
}

var photoForms = []struct {
	variant momentsv1.MediaVariant
	side    int
}{
	{momentsv1.MediaVariant_MEDIA_VARIANT_FULL, fullSide},
	{momentsv1.MediaVariant_MEDIA_VARIANT_FEED, feedSide},
	{momentsv1.MediaVariant_MEDIA_VARIANT_THUMBNAIL, thumbnailSide},
}

func (s *Service) makePhoto(ctx context.Context, up *upload, rec *momentsv1.StoredMedia) error {
	data := make([]byte, 0, rec.GetSize())
	err := up.each(func(part []byte, _ int64) error {
		data = append(data, part...)
		return nil
	})
	if err != nil {
		return err
	}
	up.part = nil
	sides := make([]int, len(photoForms))
	for i, f := range photoForms {
		sides[i] = f.side
	}
	made, err := s.photos.Make(ctx, data, sides...)
	if err != nil {
		return err
	}
	for i, f := range photoForms {
		key := formBlob(up.row.id, rec, f.variant)
		if err := s.blobs.put(ctx, key, made[i].Data); err != nil {
			return err
		}
		if err := s.blobs.sync(key); err != nil {
			return err
		}
		rec.Forms = append(rec.Forms, &momentsv1.MediaForm{
			Variant: f.variant, ContentType: "image/jpeg", Size: int64(len(made[i].Data)),
			Width: uint32(made[i].Width), Height: uint32(made[i].Height),
		})
	}
	return nil
}

func (s *Service) makeVideo(ctx context.Context, up *upload, rec *momentsv1.StoredMedia) error {
	v, err := probe.MP4(up, rec.GetSize())
	if err != nil {
		return err
	}
	const variant = momentsv1.MediaVariant_MEDIA_VARIANT_FULL
	key := formBlob(up.row.id, rec, variant)
	// The end of its context, before Close, is what makes a writer leave nothing.
	writing, stop := context.WithCancel(ctx)
	defer stop()
	w, err := s.blobs.create(writing, key)
	if err != nil {
		return err
	}
	err = up.each(func(part []byte, at int64) error {
		clean := bytes.Clone(part) // probe may ask for the part again
		probe.Apply(v.Patches, clean, at)
		if _, err := w.Write(clean); err != nil {
			return blobError("write", err)
		}
		return nil
	})
	if err != nil {
		stop()
		_ = w.Close() // says that it was stopped
		return err
	}
	if err := w.Close(); err != nil {
		return blobError("write", err)
	}
	if err := s.blobs.sync(key); err != nil {
		return err
	}
	rec.DurationMs = v.Duration.Milliseconds()
	rec.Forms = []*momentsv1.MediaForm{{
		Variant: variant, ContentType: "video/mp4", Size: rec.GetSize(), Width: uint32(v.Width), Height: uint32(v.Height),
	}}
	return nil
}

// finish stores that an upload has become a medium, and removes its parts.
func (s *Service) finish(ctx context.Context, r row, next *momentsv1.StoredMedia) (row, error) {
	b := new(kv.Batch)
	if err := put(b, r, next); err != nil {
		return r, err
	}
	all := kv.Prefix(key(tablePart, r.id[:]), 0)
	b.DeleteRange(all.From, all.To)
	ver, err := s.store.Apply(ctx, slotOf(r.id), b)
	if errors.Is(err, kv.ErrUnknown) {
		// Was it stored? If not, nobody knows the new objects, and they are removed.
		now, again := s.get(ctx, r.id, kv.Linearizable)
		if again != nil {
			return r, errors.Join(err, again)
		}
		if now.GetToken() == next.GetToken() {
			ver, err = now.ver, nil
		}
	}
	if err != nil {
		return r, err
	}
	s.removeParts(ctx, r)
	return row{id: r.id, owner: r.owner, ver: ver, StoredMedia: next}, nil
}

// removeParts removes the objects of parts. What is left of them is found by CheckBlobs.
func (s *Service) removeParts(ctx context.Context, r row) {
	for i := range parts(r.GetSize()) {
		if err := s.blobs.remove(ctx, partBlob(r.id, i)); err != nil {
			s.log.WarnContext(ctx, "parts of an upload stay for the audit", "upload", r.id, "error", err)
			return
		}
	}
}

// undoTime bounds the removal of what a failed call has made.
const undoTime = 10 * time.Second

// undo removes the objects of a medium that did not come to be. A commit whose outcome
// is not known may have named them: they stay, for CheckBlobs to find.
func (s *Service) undo(ctx context.Context, m id.Media, rec *momentsv1.StoredMedia) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if now, err := s.get(ctx, m, kv.Linearizable); err != nil || now.GetToken() == rec.GetToken() {
		return
	}
	if err := s.removeForms(ctx, m, rec); err != nil {
		s.log.WarnContext(ctx, "objects of a failed upload stay for the audit", "upload", m, "error", err)
	}
}

func (s *Service) removeForms(ctx context.Context, m id.Media, rec *momentsv1.StoredMedia) error {
	if rec.GetToken() == "" {
		return nil
	}
	for _, f := range photoForms { // of a video there is but the first
		if err := s.blobs.remove(ctx, formBlob(m, rec, f.variant)); err != nil {
			return err
		}
	}
	return nil
}
