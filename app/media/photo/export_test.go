// SPDX-License-Identifier: Apache-2.0

package photo

import "image"

// Rows gives all rows of a PNG that is not interlaced.
func Rows(data []byte) (*image.RGBA, error) {
	h, err := Inspect(data)
	if err != nil {
		return nil, err
	}
	rows, err := openPNG(data)
	if err != nil {
		return nil, err
	}
	img := image.NewRGBA(image.Rect(0, 0, h.Width, h.Height))
	return img, rows.rows(h.Height).fill(img, 0, h.Height)
}
