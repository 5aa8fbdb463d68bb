// SPDX-License-Identifier: Apache-2.0

package photo

import (
	"bytes"
	"encoding/binary"
)

var errDamaged = refuse("the photo is damaged or not whole")

// inspectJPEG walks the segments (ITU T.81, annex B): the frame says the size, APP1 the
// orientation, and each SOS is one more pass over all pixels.
func inspectJPEG(b []byte) (Header, error) {
	h := Header{Type: JPEG}
	var frame, scans int
	var blocks int64
	for i := 2; i+4 <= len(b); {
		if b[i] != 0xff {
			return h, errDamaged
		}
		marker := b[i+1]
		switch {
		case marker == 0xff: // fill
			i++
			continue
		case marker == 0xd9: // end
			i = len(b)
			continue
		case marker == 0x01, marker >= 0xd0 && marker <= 0xd8: // alone, without a length
			i += 2
			continue
		}
		size := int(binary.BigEndian.Uint16(b[i+2:]))
		if size < 2 || i+2+size > len(b) {
			return h, errDamaged
		}
		body := b[i+4 : i+2+size]
		i += 2 + size
		switch {
		case marker == 0xe1 && bytes.HasPrefix(body, []byte("Exif\x00\x00")):
			h.Orientation = orientation(body[6:])
		case marker == 0xda:
			if scans++; scans > maxScans {
				return h, refuse("the photo has more than %d passes", maxScans)
			}
			i = endOfScan(b, i)
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc:
			if frame++; frame > 1 {
				return h, errDamaged
			}
			var err error
			if blocks, err = readFrame(&h, marker, body); err != nil {
				return h, err
			}
		}
	}
	// The least that a block can take is one bit: what has fewer is not whole, and is
	// not worth the memory of its frame.
	if frame == 0 || scans == 0 || int64(len(b))*8 < blocks {
		return h, errDamaged
	}
	return h, nil
}

// readFrame reads a start of frame and says how many blocks of 8 x 8 samples it has.
func readFrame(h *Header, marker byte, body []byte) (blocks int64, err error) {
	if len(body) < 6 || len(body) < 6+3*int(body[5]) {
		return 0, errDamaged
	}
	if marker > 0xc2 {
		return 0, refuse("this kind of JPEG is not taken: save it as a usual one")
	}
	h.Height, h.Width = int(binary.BigEndian.Uint16(body[1:])), int(binary.BigEndian.Uint16(body[3:]))
	if err := checkSize(h.Width, h.Height); err != nil {
		return 0, err
	}
	planes := int(body[5])
	var each, most int64 // samples of the planes for each most of pixels
	maxH, maxV := int64(0), int64(0)
	for p := range planes {
		f := body[6+3*p+1]
		across, down := int64(f>>4), int64(f&15)
		maxH, maxV = max(maxH, across), max(maxV, down)
		each += across * down
	}
	if most = maxH * maxV; most == 0 {
		return 0, errDamaged
	}
	pixels := int64(h.Width) * int64(h.Height)
	samples := pixels * each / most
	h.Memory = samples
	if marker == 0xc2 {
		h.Memory += 4 * samples // all coefficients are kept until the last pass
	}
	if planes == 4 {
		h.Memory += 4 * pixels // converted once more
	}
	return samples / 64, nil
}

// endOfScan gives where the coded pixels that begin at i end: at the next marker that is
// neither a stuffed byte nor a restart.
func endOfScan(b []byte, i int) int {
	for {
		next := bytes.IndexByte(b[min(i, len(b)):], 0xff)
		if next < 0 || i+next+1 >= len(b) {
			return len(b)
		}
		i += next
		if m := b[i+1]; m == 0 || m >= 0xd0 && m <= 0xd7 {
			i += 2
			continue
		}
		return i
	}
}

// inspectPNG walks the chunks (PNG, third edition).
func inspectPNG(b []byte) (Header, error) {
	h := Header{Type: PNG}
	var raw, packed int64
	for i := 8; i+12 <= len(b); {
		size := int64(binary.BigEndian.Uint32(b[i:]))
		if size > int64(len(b)-i-12) {
			return h, errDamaged
		}
		kind, body := string(b[i+4:i+8]), b[i+8:i+8+int(size)]
		i += 12 + int(size)
		if (h.Width == 0) != (kind == "IHDR") {
			return h, errDamaged // first, and once
		}
		switch kind {
		case "IHDR":
			if len(body) != 13 {
				return h, errDamaged
			}
			w, ht := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
			if err := checkSize(int(min(w, 1<<31-1)), int(min(ht, 1<<31-1))); err != nil {
				return h, err
			}
			h.Width, h.Height = int(w), int(ht)
			h.interlaced = body[12] != 0
			raw, h.Memory = sizesOfPNG(h.Width, h.Height, body)
		case "IDAT":
			packed += size
		case "eXIf":
			h.Orientation = orientation(body)
		case "IEND":
			i = len(b)
		}
	}
	// Deflate makes at most 1,032 bytes of one (RFC 1951: 258 bytes for 2 bits).
	if h.Width == 0 || packed*1032 < raw {
		return h, errDamaged
	}
	return h, nil
}

// sizesOfPNG gives how many bytes the pixels have before they are packed, and what it
// takes to decode them: row by row, or all if they are interlaced.
func sizesOfPNG(w, h int, ihdr []byte) (raw, memory int64) {
	depth, interlaced := int64(ihdr[8]), ihdr[12] != 0
	raw = int64(h) * ((int64(w)*depth*int64(samplesOf(ihdr[9], int(depth))) + 7) / 8)
	if !interlaced {
		return raw, stripRows*4*int64(w) + 1<<20
	}
	each := int64(4)
	if depth == 16 {
		each = 8
	}
	memory = int64(w) * int64(h) * each
	return raw, memory + memory/2 // its largest pass
}

// inspectWebP walks the chunks (RFC 9649). The canvas of VP8X and the picture inside are
// sizes of their own: both must keep to the limits, and they must agree.
func inspectWebP(b []byte) (Header, error) {
	h := Header{Type: WebP}
	var canvasW, canvasH int
	for i := 12; i+8 <= len(b); {
		size := int64(binary.LittleEndian.Uint32(b[i+4:]))
		if size > int64(len(b)-i-8) {
			return h, errDamaged
		}
		kind, body := string(b[i:i+4]), b[i+8:i+8+int(size)]
		i += 8 + int(size+size&1)
		var w, ht int
		switch kind {
		case "VP8X":
			if len(body) < 10 || canvasW != 0 {
				return h, errDamaged
			}
			if body[0]&2 != 0 {
				return h, refuse("moving pictures are not taken as photos")
			}
			w = 1 + int(body[4]) + int(body[5])<<8 + int(body[6])<<16
			ht = 1 + int(body[7]) + int(body[8])<<8 + int(body[9])<<16
			canvasW, canvasH = w, ht
		case "VP8 ":
			if len(body) < 10 || h.Width != 0 {
				return h, errDamaged
			}
			w = int(binary.LittleEndian.Uint16(body[6:]) & 0x3fff)
			ht = int(binary.LittleEndian.Uint16(body[8:]) & 0x3fff)
			h.Width, h.Height, h.Memory = w, ht, int64(w)*int64(ht)*2
		case "VP8L":
			if len(body) < 5 || h.Width != 0 {
				return h, errDamaged
			}
			bits := binary.LittleEndian.Uint32(body[1:])
			w, ht = 1+int(bits&0x3fff), 1+int(bits>>14&0x3fff)
			h.Width, h.Height, h.Memory = w, ht, int64(w)*int64(ht)*5
		case "ALPH":
			h.Memory += int64(canvasW) * int64(canvasH) * 5
			continue
		case "EXIF":
			h.Orientation = orientation(bytes.TrimPrefix(body, []byte("Exif\x00\x00")))
			continue
		default:
			continue
		}
		if err := checkSize(w, ht); err != nil {
			return h, err
		}
	}
	if h.Width == 0 || canvasW != 0 && (canvasW != h.Width || canvasH != h.Height) {
		return h, errDamaged
	}
	return h, nil
}

// orientation finds the orientation in Exif data (TIFF 6.0 with tag 0x0112); 0 if there
// is none.
func orientation(b []byte) int {
	if len(b) < 8 {
		return 0
	}
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 0
	}
	const entry = 12
	fields := b[at+2:]
	for n := int(order.Uint16(b[at:])); n > 0 && len(fields) >= entry; n-- {
		const short = 3
		if order.Uint16(fields) == 0x0112 && order.Uint16(fields[2:]) == short && order.Uint32(fields[4:]) == 1 {
			return int(order.Uint16(fields[8:]))
		}
		fields = fields[entry:]
	}
	return 0
}
