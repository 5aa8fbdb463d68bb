// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/media/photo"
	"github.com/sluice-rpc/sluice/app/media/probe"
	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// StartUpload opens an upload; see the contract.
func (s *Service) StartUpload(ctx context.Context, req *momentsv1.StartUploadRequest) (*momentsv1.StartUploadResponse, error) {
	owner, err := problem.User("owner_id", req.GetOwnerId())
	if err != nil {
		return nil, err
	}
	if err := once.CheckKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	if err := checkStart(req); err != nil {
		return nil, err
	}
	slot := kv.SlotOf(owner[:])
	use := once.New(s.now(), owner[:], req.GetIdempotencyKey(),
		once.Sum("upload", req.GetKind().String(), strconv.FormatInt(req.GetSize(), 10), hex.EncodeToString(req.GetSha256())))
	rec, m, err := s.start(ctx, slot, owner, use, req)
	if err != nil {
		return nil, problem.Store("start an upload", err)
	}
	return &momentsv1.StartUploadResponse{UploadId: m.String(), PartSize: PartSize, ExpiresMs: rec.GetDeadlineMs()}, nil
}

func checkStart(req *momentsv1.StartUploadRequest) error {
	most, what := int64(0), ""
	switch req.GetKind() {
	case momentsv1.MediaKind_MEDIA_KIND_PHOTO:
		most, what = photo.MaxBytes, "photo"
	case momentsv1.MediaKind_MEDIA_KIND_VIDEO:
		most, what = probe.MaxBytes, "video"
	default:
		return problem.Invalid("kind", "is neither photo nor video")
	}
	if req.GetSize() < 1 || req.GetSize() > most {
		return problem.Invalid("size", "is %d bytes, want 1 to %d for a %s", req.GetSize(), most, what)
	}
	if len(req.GetSha256()) != sha256.Size {
		return problem.Invalid("sha256", "has %d bytes, want the %d of the SHA-256 of the whole", len(req.GetSha256()), sha256.Size)
	}
	return nil
}

func (s *Service) start(ctx context.Context, slot kv.Slot, owner id.User, use once.Use, req *momentsv1.StartUploadRequest) (*momentsv1.StoredMedia, id.Media, error) {
	for range maxTries {
		answer, found, err := use.Answer(ctx, s.store, slot)
		if err != nil {
			return nil, id.Media{}, err
		}
		if found {
			m := idAt(answer)
			r, err := s.get(ctx, m, kv.Linearizable)
			return r.StoredMedia, m, err // a record that has gone is empty: the upload has expired
		}
		guard, err := s.store.Get(ctx, slot, guardKey(owner), kv.Linearizable)
		if err != nil {
			return nil, id.Media{}, err
		}
		if err := s.checkWaiting(ctx, slot, owner, req.GetSize()); err != nil {
			return nil, id.Media{}, err
		}
		m, err := newID(s.ids, slot)
		if err != nil {
			return nil, id.Media{}, err
		}
		rec := &momentsv1.StoredMedia{
			MediaId: m[:], OwnerId: owner[:], Kind: req.GetKind(), State: momentsv1.StoredMedia_STATE_UPLOADING,
			Size: req.GetSize(), Sha256: req.GetSha256(), CreatedMs: s.now().UnixMilli(), DeadlineMs: s.in(keepUnused),
		}
		b := new(kv.Batch)
		b.IfVer(guardKey(owner), guard.Ver).Put(guardKey(owner), nil) // and so the key is new, too
		if err := put(b, row{id: m}, rec); err != nil {
			return nil, id.Media{}, err
		}
		use.Record(b, m[:])
		if _, err = s.store.Apply(ctx, slot, b); err == nil {
			return rec, m, nil
		}
		if !errors.Is(err, kv.ErrConflict) {
			return nil, id.Media{}, err
		}
	}
	return nil, id.Media{}, kv.ErrConflict
}

// checkWaiting holds one more upload against what its owner has not used yet.
func (s *Service) checkWaiting(ctx context.Context, slot kv.Slot, owner id.User, size int64) error {
	items, more, err := s.store.Scan(ctx, slot, kv.Prefix(key(tableWaiting, owner[:]), maxWaiting), kv.Linearizable)
	if err != nil {
		return err
	}
	for _, it := range items {
		if len(it.Value) == 8 {
			size += int64(binary.BigEndian.Uint64(it.Value))
		}
	}
	if more || len(items) >= maxWaiting || size > maxWaitingBytes {
		return problem.New(rpc.ResourceExhausted, "limit", "size",
			"you have uploaded %d photos and videos that are not posted: post them, or wait 24 hours; at most %d, of %d MB together, are kept", len(items), maxWaiting, maxWaitingBytes>>20)
	}
	return nil
}

// parts gives how many parts an upload has.
func parts(size int64) uint32 { return uint32((size + PartSize - 1) / PartSize) }

// partLen gives how long a part of an upload is.
func partLen(size int64, index uint32) int64 {
	return min(PartSize, size-int64(index)*PartSize)
}

func partBlob(m id.Media, index uint32) string { return fmt.Sprintf("parts/%v/%d", m, index) }

// PutPart stores a part; see the contract.
func (s *Service) PutPart(ctx context.Context, req *momentsv1.PutPartRequest) (*momentsv1.PutPartResponse, error) {
	r, err := s.own(ctx, req.GetOwnerId(), req.GetUploadId(), "upload")
	if err != nil {
		return nil, err
	}
	if r.GetState() != momentsv1.StoredMedia_STATE_UPLOADING {
		return &momentsv1.PutPartResponse{}, nil // a repetition that was late: it is complete
	}
	if req.GetIndex() >= parts(r.GetSize()) {
		return nil, problem.Invalid("index", "is %d, but the upload has parts 0 to %d", req.GetIndex(), parts(r.GetSize())-1)
	}
	if want := partLen(r.GetSize(), req.GetIndex()); int64(len(req.GetData())) != want {
		return nil, problem.Invalid("data", "has %d bytes, want %d", len(req.GetData()), want)
	}
	sum := sha256.Sum256(req.GetData())
	if !bytes.Equal(sum[:], req.GetSha256()) {
		return nil, problem.Invalid("sha256", "is not the SHA-256 of what has come: send the part again")
	}
	if err := s.putPart(ctx, r, req.GetIndex(), req.GetData(), sum[:]); err != nil {
		return nil, problem.Store("store a part", s.shown(ctx, err))
	}
	return &momentsv1.PutPartResponse{}, nil
}

func (s *Service) putPart(ctx context.Context, r row, index uint32, data, sum []byte) error {
	if err := s.blobs.put(ctx, partBlob(r.id, index), data); err != nil {
		return err
	}
	// The condition is on the upload alone: parts come side by side.
	b := new(kv.Batch).IfVer(mediaKey(r.id), r.ver).Put(partKey(r.id, index), sum)
	_, err := s.store.Apply(ctx, slotOf(r.id), b)
	if errors.Is(err, kv.ErrConflict) { // completed or given up meanwhile
		if err := s.blobs.remove(ctx, partBlob(r.id, index)); err != nil {
			s.log.WarnContext(ctx, "a late part stays for the audit", "upload", r.id, "error", err)
		}
		return problem.NotFound("upload")
	}
	return err
}

// GetUpload says what is missing; see the contract.
func (s *Service) GetUpload(ctx context.Context, req *momentsv1.GetUploadRequest) (*momentsv1.GetUploadResponse, error) {
	r, err := s.own(ctx, req.GetOwnerId(), req.GetUploadId(), "upload")
	if err != nil {
		return nil, err
	}
	res := &momentsv1.GetUploadResponse{PartSize: PartSize, ExpiresMs: r.GetDeadlineMs()}
	if r.GetState() != momentsv1.StoredMedia_STATE_UPLOADING {
		return res, nil
	}
	sums, err := s.sums(ctx, r)
	if err != nil {
		return nil, problem.Store("list parts", err)
	}
	for i, sum := range sums {
		if sum == nil {
			res.Missing = append(res.Missing, uint32(i))
		}
	}
	return res, nil
}

// sums gives the checksum of each part, nil for those that have not come.
func (s *Service) sums(ctx context.Context, r row) ([][]byte, error) {
	items, _, err := s.store.Scan(ctx, slotOf(r.id), kv.Prefix(key(tablePart, r.id[:]), 0), kv.Linearizable)
	if err != nil {
		return nil, err
	}
	sums := make([][]byte, parts(r.GetSize()))
	for _, it := range items {
		if i := binary.BigEndian.Uint32(it.Key[len(it.Key)-4:]); int(i) < len(sums) && len(it.Value) == sha256.Size {
			sums[i] = it.Value
		}
	}
	return sums, nil
}

// AbortUpload gives an upload up; see the contract.
func (s *Service) AbortUpload(ctx context.Context, req *momentsv1.AbortUploadRequest) (*momentsv1.AbortUploadResponse, error) {
	r, err := s.own(ctx, req.GetOwnerId(), req.GetUploadId(), "upload")
	if err != nil {
		return nil, err
	}
	if r.GetState() == momentsv1.StoredMedia_STATE_ATTACHED {
		return nil, problem.New(rpc.FailedPrecondition, "failed-precondition", "", "it is in use: delete the post that has it")
	}
	if err := s.release(ctx, r); err != nil {
		return nil, problem.Store("give an upload up", err)
	}
	return &momentsv1.AbortUploadResponse{}, nil
}

// release marks a medium as to be removed, and has it removed soon. Only what is as r
// says is marked.
func (s *Service) release(ctx context.Context, r row) error {
	next := proto.CloneOf(r.StoredMedia)
	next.State, next.DeadlineMs = momentsv1.StoredMedia_STATE_RELEASED, s.now().UnixMilli()
	b := new(kv.Batch)
	if err := put(b, r, next); err != nil {
		return err
	}
	if _, err := s.store.Apply(ctx, slotOf(r.id), b); err != nil {
		return err
	}
	s.kick()
	return nil
}

// kick has the collector look now.
func (s *Service) kick() {
	select {
	case s.released <- struct{}{}:
	default:
	}
}
