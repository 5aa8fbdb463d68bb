// SPDX-License-Identifier: Apache-2.0

package photo

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"io"
)

// pngRows decodes a PNG row by row (PNG, third edition): image/png holds all of a picture,
// and the pixels of a PNG can be a thousand times the file. Interlaced ones, whose rows do
// not come in order, are left to image/png.
type pngRows struct {
	w           int
	depth       int
	color       byte
	packed      io.Reader
	row, last   []byte // without the byte that says the filter
	pixel       int    // bytes of one, at least 1
	palette     []byte // red, green and blue of each
	transparent []byte // tRNS
}

// The colour types.
const (
	pngGray      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGrayAlpha = 4
	pngRGBA      = 6
)

// samplesOf gives how many samples make a pixel, 0 for what there is not.
func samplesOf(color byte, depth int) int {
	switch whole := depth == 8 || depth == 16; {
	case color == pngGray && (whole || depth == 1 || depth == 2 || depth == 4):
		return 1
	case color == pngPalette && (depth == 8 || depth == 1 || depth == 2 || depth == 4):
		return 1
	case color == pngGrayAlpha && whole:
		return 2
	case color == pngRGB && whole:
		return 3
	case color == pngRGBA && whole:
		return 4
	}
	return 0
}

// openPNG begins to decode a PNG that inspectPNG has let pass.
func openPNG(b []byte) (*pngRows, error) {
	r := new(pngRows)
	data := &chunks{rest: b[8:]}
	for {
		kind, body, err := data.next()
		if err != nil {
			return nil, err
		}
		switch kind {
		case "IHDR":
			r.w, r.depth, r.color = int(binary.BigEndian.Uint32(body)), int(body[8]), body[9]
		case "PLTE":
			r.palette = body
		case "tRNS":
			r.transparent = body
		case "IDAT":
			bits := r.depth * samplesOf(r.color, r.depth)
			if bits == 0 || r.color == pngPalette && len(r.palette) < 3 {
				return nil, errDamaged
			}
			r.pixel = max(1, bits/8)
			n := (r.w*bits + 7) / 8
			r.row, r.last = make([]byte, n), make([]byte, n)
			data.body = body
			if r.packed, err = zlib.NewReader(data); err != nil {
				return nil, errDamaged
			}
			return r, nil
		}
	}
}

// chunks reads the data of the IDAT chunks, which follow each other, as one.
type chunks struct {
	rest []byte
	body []byte // of the one at hand
}

// next gives the next chunk.
func (c *chunks) next() (kind string, body []byte, err error) {
	if len(c.rest) < 12 {
		return "", nil, errDamaged
	}
	size := int64(binary.BigEndian.Uint32(c.rest))
	if size > int64(len(c.rest)-12) {
		return "", nil, errDamaged
	}
	end := 8 + int(size)
	if crc32.ChecksumIEEE(c.rest[4:end]) != binary.BigEndian.Uint32(c.rest[end:]) {
		return "", nil, errDamaged
	}
	kind, body = string(c.rest[4:8]), c.rest[8:end]
	c.rest = c.rest[end+4:]
	return kind, body, nil
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.body) == 0 {
		kind, body, err := c.next()
		if err != nil {
			return 0, err
		}
		if kind != "IDAT" {
			return 0, io.ErrUnexpectedEOF
		}
		c.body = body
	}
	n := copy(p, c.body)
	c.body = c.body[n:]
	return n, nil
}

// next decodes the next row into pix, on white.
func (r *pngRows) next(pix []byte) error {
	var filter [1]byte
	r.row, r.last = r.last, r.row
	if _, err := io.ReadFull(r.packed, filter[:]); err != nil {
		return errDamaged
	}
	if _, err := io.ReadFull(r.packed, r.row); err != nil {
		return errDamaged
	}
	if !unfilter(filter[0], r.row, r.last, r.pixel) {
		return errDamaged
	}
	return r.convert(pix)
}

// unfilter turns differences into values.
func unfilter(filter byte, row, above []byte, pixel int) bool {
	switch filter {
	case 0:
	case 1:
		for i := pixel; i < len(row); i++ {
			row[i] += row[i-pixel]
		}
	case 2:
		for i := range row {
			row[i] += above[i]
		}
	case 3:
		for i := range row {
			left := 0
			if i >= pixel {
				left = int(row[i-pixel])
			}
			row[i] += byte((left + int(above[i])) / 2)
		}
	case 4:
		for i := range row {
			var left, corner int
			if i >= pixel {
				left, corner = int(row[i-pixel]), int(above[i-pixel])
			}
			row[i] += byte(paeth(left, int(above[i]), corner))
		}
	default:
		return false
	}
	return true
}

// paeth gives the neighbour that is nearest to left + above - corner.
func paeth(left, above, corner int) int {
	p := left + above - corner
	a, b, c := abs(p-left), abs(p-above), abs(p-corner)
	switch {
	case a <= b && a <= c:
		return left
	case b <= c:
		return above
	}
	return corner
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

// convert makes red, green, blue and full opacity of a row. Of sixteen bits the upper
// eight are taken.
func (r *pngRows) convert(pix []byte) error {
	wide := r.depth / 8 // bytes of a sample; 0 if there are several in one
	for x := range r.w {
		out := pix[4*x : 4*x+4 : 4*x+4]
		var red, green, blue byte
		alpha := byte(0xff)
		switch r.color {
		case pngGray, pngPalette:
			value := r.sample(x)
			if r.color == pngPalette {
				at := 3 * value
				if at+3 > len(r.palette) {
					return errDamaged
				}
				red, green, blue = r.palette[at], r.palette[at+1], r.palette[at+2]
				if value < len(r.transparent) {
					alpha = r.transparent[value]
				}
				break
			}
			red = byte(value * 255 / (1<<r.depth - 1))
			green, blue = red, red
			if len(r.transparent) >= 2 && value == int(binary.BigEndian.Uint16(r.transparent)) {
				alpha = 0
			}
		case pngGrayAlpha:
			red = r.row[2*wide*x]
			green, blue, alpha = red, red, r.row[2*wide*x+wide]
		case pngRGB:
			in := r.row[3*wide*x : 3*wide*(x+1)]
			red, green, blue = in[0], in[wide], in[2*wide]
			if len(r.transparent) >= 6 && r.isKey(in, wide) {
				alpha = 0
			}
		case pngRGBA:
			in := r.row[4*wide*x:]
			red, green, blue, alpha = in[0], in[wide], in[2*wide], in[3*wide]
		}
		out[0], out[1], out[2], out[3] = onWhite(red, alpha), onWhite(green, alpha), onWhite(blue, alpha), 0xff
	}
	return nil
}

// sample gives a value of a picture with one for each pixel.
func (r *pngRows) sample(x int) int {
	if r.depth == 16 {
		return int(binary.BigEndian.Uint16(r.row[2*x:]))
	}
	bit := x * r.depth
	return int(r.row[bit/8]>>(8-r.depth-bit%8)) & (1<<r.depth - 1)
}

// isKey reports whether a pixel has the colour that means nothing is there.
func (r *pngRows) isKey(in []byte, wide int) bool {
	if wide == 2 {
		return bytes.Equal(in, r.transparent[:6])
	}
	return in[0] == r.transparent[1] && in[1] == r.transparent[3] && in[2] == r.transparent[5] &&
		r.transparent[0]|r.transparent[2]|r.transparent[4] == 0
}

func onWhite(c, alpha byte) byte {
	if alpha == 0xff {
		return c
	}
	return byte((int(c)*int(alpha) + 255*(255-int(alpha)) + 127) / 255)
}

// rows makes the PNG a source of rows.
func (r *pngRows) rows(h int) source {
	return source{w: r.w, h: h, fill: func(strip *image.RGBA, _, n int) error {
		for y := range n {
			if err := r.next(strip.Pix[y*strip.Stride:]); err != nil {
				return err
			}
		}
		return nil
	}}
}
