// SPDX-License-Identifier: Apache-2.0

package photo

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
	"golang.org/x/sync/semaphore"
)

// DefaultMemory is what the decoders of a Maker may take together, in bytes. Most photos
// of phones take 20 to 75 MB.
const DefaultMemory = 256 << 20

// quality of the JPEGs that are made: above it files grow faster than eyes notice.
const quality = 82

// Picture is a JPEG that has been made.
type Picture struct {
	Data          []byte
	Width, Height int
}

// Maker makes pictures. It decodes only as many photos at once as its memory allows, so
// that it may be used concurrently without fear; those that wait hold their files alone.
type Maker struct {
	memory *semaphore.Weighted
	limit  int64
}

// NewMaker makes a Maker whose decoders take at most so many bytes together; 0 means
// DefaultMemory. A photo that takes more by itself is decoded alone.
func NewMaker(memory int64) *Maker {
	if memory <= 0 {
		memory = DefaultMemory
	}
	return &Maker{memory: semaphore.NewWeighted(memory), limit: memory}
}

// Make makes a picture for each side, upright and within a square of that many pixels,
// the largest side first. A RefusedError says that the photo is not taken; any other
// error is that of ctx.
func (m *Maker) Make(ctx context.Context, data []byte, sides ...int) ([]Picture, error) {
	h, err := Inspect(data)
	if err != nil {
		return nil, err
	}
	need := min(h.Memory, m.limit)
	if err := m.memory.Acquire(ctx, need); err != nil {
		return nil, fmt.Errorf("wait for memory to decode a photo: %w", err)
	}
	defer m.memory.Release(need)
	made := make([]Picture, 0, len(sides))
	var last *image.RGBA
	for i, side := range sides {
		if i == 0 {
			last, err = m.first(ctx, data, h, side)
		} else {
			last, err = scale(ctx, rowsOf(last), side)
		}
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		if err := jpeg.Encode(&out, last, &jpeg.Options{Quality: quality}); err != nil {
			return nil, fmt.Errorf("encode a photo: %w", err)
		}
		made = append(made, Picture{Data: out.Bytes(), Width: last.Bounds().Dx(), Height: last.Bounds().Dy()})
	}
	return made, nil
}

// first decodes the photo and makes the largest picture of it. The decoded photo is let
// go with its return.
func (m *Maker) first(ctx context.Context, data []byte, h Header, side int) (*image.RGBA, error) {
	src, err := decode(ctx, data, h)
	if err == nil && (src.w != h.Width || src.h != h.Height) {
		err = errDamaged
	}
	if err != nil {
		return nil, err
	}
	small, err := scale(ctx, src, side)
	if err != nil {
		return nil, err
	}
	return upright(small, h.Orientation), nil
}

// decode gives the rows of a photo.
func decode(ctx context.Context, data []byte, h Header) (source, error) {
	if h.Type == PNG && !h.interlaced {
		rows, err := openPNG(data)
		if err != nil {
			return source{}, err
		}
		return rows.rows(h.Height), nil
	}
	in := &reader{ctx: ctx, r: bytes.NewReader(data)}
	var img image.Image
	var err error
	switch h.Type {
	case JPEG:
		img, err = jpeg.Decode(in)
	case PNG:
		img, err = png.Decode(in)
	case WebP:
		img, err = webp.Decode(in)
	}
	if ctx.Err() != nil {
		return source{}, ctx.Err()
	}
	if err != nil {
		return source{}, refuse("the photo cannot be decoded: %v", err)
	}
	return rowsOf(img), nil
}

// reader ends a decoder that nobody waits for any more.
type reader struct {
	ctx context.Context // decoders know none
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
