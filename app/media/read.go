// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"errors"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/app/problem"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// GetMedia describes media; see the contract.
func (s *Service) GetMedia(ctx context.Context, req *momentsv1.GetMediaRequest) (*momentsv1.GetMediaResponse, error) {
	ids := req.GetMediaIds()
	if len(ids) > maxGet {
		return nil, problem.Invalid("media_ids", "are %d, want at most %d", len(ids), maxGet)
	}
	res := &momentsv1.GetMediaResponse{Media: make([]*momentsv1.Media, 0, len(ids))}
	for _, text := range ids {
		m, err := id.ParseMedia(text)
		if err != nil {
			continue
		}
		r, err := s.get(ctx, m, kv.Local)
		if err != nil {
			return nil, err
		}
		if r.usable() {
			res.Media = append(res.Media, r.media())
		}
	}
	return res, nil
}

// ReadRange reads bytes; see the contract.
func (s *Service) ReadRange(ctx context.Context, req *momentsv1.ReadRangeRequest) (*momentsv1.ReadRangeResponse, error) {
	m, err := id.ParseMedia(req.GetMediaId())
	if err != nil {
		return nil, problem.NotFound("medium")
	}
	if req.GetLength() < 1 || req.GetLength() > maxRange {
		return nil, problem.Invalid("length", "is %d, want 1 to %d", req.GetLength(), maxRange)
	}
	r, err := s.get(ctx, m, kv.Local)
	if err != nil {
		return nil, err
	}
	if !r.usable() {
		return nil, problem.NotFound("medium")
	}
	for _, f := range r.GetForms() {
		if f.GetVariant() != req.GetVariant() {
			continue
		}
		if req.GetOffset() < 0 || req.GetOffset() >= f.GetSize() {
			return nil, problem.Invalid("offset", "is %d, want 0 to %d", req.GetOffset(), f.GetSize()-1)
		}
		want := min(int64(req.GetLength()), f.GetSize()-req.GetOffset())
		data, err := s.blobs.get(ctx, formBlob(m, r.StoredMedia, f.GetVariant()), req.GetOffset(), want)
		if err == nil && int64(len(data)) < want {
			err = &bucketError{doing: "read", err: errors.New("it is shorter than its record says")}
		}
		if errors.Is(err, errMissing) {
			s.log.ErrorContext(ctx, "a stored object is missing", "media", m, "variant", f.GetVariant())
			return nil, problem.NotFound("medium")
		}
		if err != nil {
			return nil, s.shown(ctx, err)
		}
		return &momentsv1.ReadRangeResponse{Data: data, Size: f.GetSize(), ContentType: f.GetContentType()}, nil
	}
	return nil, problem.NotFound("medium")
}
