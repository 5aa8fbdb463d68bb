// SPDX-License-Identifier: Apache-2.0

package photo

import (
	"context"
	"image"
	"image/draw"
)

// fit gives the size of a picture that keeps its shape within a square; a smaller one
// stays as it is.
func fit(w, h, side int) (int, int) {
	if longest := max(w, h); longest > side {
		w, h = max(1, (w*side+longest/2)/longest), max(1, (h*side+longest/2)/longest)
	}
	return w, h
}

// stripRows is how many rows are converted at a time.
const stripRows = 16

// source gives the rows of a picture, in order and some at a time.
type source struct {
	w, h int
	// fill puts n rows, from top on, into a strip, on white.
	fill func(strip *image.RGBA, top, n int) error
}

// rowsOf makes a decoded picture a source.
func rowsOf(img image.Image) source {
	b := img.Bounds()
	return source{w: b.Dx(), h: b.Dy(), fill: func(strip *image.RGBA, top, n int) error {
		at := image.Rect(0, 0, b.Dx(), n)
		draw.Draw(strip, at, image.White, image.Point{}, draw.Src)
		draw.Draw(strip, at, img, image.Pt(b.Min.X, b.Min.Y+top), draw.Over)
		return nil
	}}
}

// scale makes a smaller copy: each pixel is the mean of the area that it stands for. Only
// some rows are at hand at a time, because a second copy of a photo in full is what there
// is no memory for.
func scale(ctx context.Context, src source, side int) (*image.RGBA, error) {
	w, h := fit(src.w, src.h, side)
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	strip := image.NewRGBA(image.Rect(0, 0, src.w, min(stripRows, src.h)))
	down := areas{from: src.h, to: h}
	across := areas{from: src.w, to: w}.all()
	sum, row := make([]float32, 3*w), make([]float32, 3*w)
	y := 0 // of dst
	for top := 0; top < src.h; top += stripRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(stripRows, src.h-top)
		if err := src.fill(strip, top, n); err != nil {
			return nil, err
		}
		for sy := top; sy < top+n; sy++ {
			mean(row, strip.Pix[(sy-top)*strip.Stride:], across)
			for { // the row may end one area and begin the next
				part, ends := down.weight(sy, y)
				for i, v := range row {
					sum[i] += part * v
				}
				if !ends {
					break
				}
				put(dst.Pix[y*dst.Stride:], sum)
				clear(sum)
				if y++; y == h {
					return dst, nil
				}
			}
		}
	}
	return dst, nil
}

// areas divides a line of from pixels evenly into to areas, to <= from.
type areas struct{ from, to int }

// weight gives the part that pixel i of from has in area j, and whether j ends in it.
// In units of 1/(from*to) of the line: pixel i is [i*to, (i+1)*to), area j is
// [j*from, (j+1)*from).
func (a areas) weight(i, j int) (part float32, ends bool) {
	begin, end := max(i*a.to, j*a.from), min((i+1)*a.to, (j+1)*a.from)
	return float32(max(0, end-begin)) / float32(a.from), (j+1)*a.from <= (i+1)*a.to
}

// area is a run of pixels with their weights, which add up to 1.
type area struct {
	first int
	parts []float32
}

func (a areas) all() []area {
	list := make([]area, a.to)
	i := 0
	for j := range list {
		list[j].first = i
		for {
			part, ends := a.weight(i, j)
			if part > 0 {
				list[j].parts = append(list[j].parts, part)
			}
			if ends {
				if (j+1)*a.from == (i+1)*a.to {
					i++
				}
				break
			}
			i++
		}
	}
	return list
}

// mean makes the red, green and blue of a row's areas of a row of RGBA.
func mean(row []float32, pix []byte, across []area) {
	for x, a := range across {
		var red, green, blue float32
		p := pix[4*a.first : 4*(a.first+len(a.parts))]
		for i, part := range a.parts {
			red += part * float32(p[4*i])
			green += part * float32(p[4*i+1])
			blue += part * float32(p[4*i+2])
		}
		row[3*x], row[3*x+1], row[3*x+2] = red, green, blue
	}
}

func put(pix []byte, sum []float32) {
	for x := range len(sum) / 3 {
		pix[4*x] = byte(sum[3*x] + 0.5)
		pix[4*x+1] = byte(sum[3*x+1] + 0.5)
		pix[4*x+2] = byte(sum[3*x+2] + 0.5)
		pix[4*x+3] = 0xff
	}
}

// upright turns a picture as an orientation of Exif asks (tag 0x0112).
func upright(src *image.RGBA, orientation int) *image.RGBA {
	if orientation < 2 || orientation > 8 {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	if orientation >= 5 { // lying
		dst = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			var tx, ty int
			switch orientation {
			case 2:
				tx, ty = w-1-x, y
			case 3:
				tx, ty = w-1-x, h-1-y
			case 4:
				tx, ty = x, h-1-y
			case 5:
				tx, ty = y, x
			case 6:
				tx, ty = h-1-y, x
			case 7:
				tx, ty = h-1-y, w-1-x
			case 8:
				tx, ty = y, w-1-x
			}
			copy(dst.Pix[ty*dst.Stride+4*tx:][:4], src.Pix[y*src.Stride+4*x:][:4])
		}
	}
	return dst
}
