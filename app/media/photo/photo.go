// SPDX-License-Identifier: Apache-2.0

// Package photo makes what may be shown of a photo that somebody has sent: pictures of
// the asked sizes, encoded anew, upright, and without anything that is no picture.
//
// Nothing of a photo is believed but its bytes. What it is, how large it is and what
// decoding it would cost are read from its header first, and a photo that is too much
// is refused before a pixel is decoded.
package photo

import (
	"bytes"
	"fmt"
)

// Limits of a photo.
const (
	MaxBytes  = 20 << 20
	MaxPixels = 50_000_000
	// maxSide is the longest side that JPEG can express; WebP and PNG allow more.
	maxSide = 65_535
	// maxScans bounds the passes over a progressive JPEG. Cameras and encoders make about
	// ten; a file of many empty passes costs its size in minutes (libjpeg-turbo's fuzzers
	// stop at 500 for the same reason).
	maxScans = 100
)

// RefusedError says, for the one who sent it, why a file is not taken as a photo.
type RefusedError struct {
	Why string
}

// Error gives the reason.
func (e *RefusedError) Error() string { return e.Why }

func refuse(format string, args ...any) error {
	return &RefusedError{Why: fmt.Sprintf(format, args...)}
}

// Type is what the bytes of a photo are.
type Type string

// The types that are taken.
const (
	JPEG Type = "image/jpeg"
	PNG  Type = "image/png"
	WebP Type = "image/webp"
)

// Sniff says what a file is by its first bytes, and "" of what is taken as no photo.
func Sniff(head []byte) Type {
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xd8\xff")):
		return JPEG
	case bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")):
		return PNG
	case len(head) >= 12 && bytes.Equal(head[:4], []byte("RIFF")) && bytes.Equal(head[8:12], []byte("WEBP")):
		return WebP
	}
	return ""
}

// Header is what a photo says of itself, as far as it matters here.
type Header struct {
	Type          Type
	Width, Height int // as stored, before Orientation
	// Orientation is how the stored pixels are to be turned, 1 to 8 as in Exif; 1 is upright.
	Orientation int
	// Memory is about what decoding takes, in bytes.
	Memory int64

	interlaced bool // of a PNG
}

// Inspect reads the header of a whole photo, and refuses with a RefusedError what is
// none, what is beyond the limits, and what cannot be whole.
func Inspect(data []byte) (Header, error) {
	if len(data) > MaxBytes {
		return Header{}, refuse("the photo has %d bytes, more than %d", len(data), MaxBytes)
	}
	var h Header
	var err error
	switch Sniff(data) {
	case JPEG:
		h, err = inspectJPEG(data)
	case PNG:
		h, err = inspectPNG(data)
	case WebP:
		h, err = inspectWebP(data)
	default:
		return Header{}, refuse("this is no JPEG, PNG or WebP photo")
	}
	if err != nil {
		return Header{}, err
	}
	if h.Orientation < 1 || h.Orientation > 8 {
		h.Orientation = 1
	}
	return h, nil
}

// checkSize refuses a picture that is too large or has no pixel.
func checkSize(w, h int) error {
	if w < 1 || h < 1 {
		return refuse("the photo has no pixels: it says %d x %d", w, h)
	}
	if w > maxSide || h > maxSide || int64(w)*int64(h) > MaxPixels {
		return refuse("the photo has %d x %d pixels, more than %d million", w, h, MaxPixels/1_000_000)
	}
	return nil
}
