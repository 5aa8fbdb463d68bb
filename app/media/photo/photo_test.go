// SPDX-License-Identifier: Apache-2.0

package photo_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/media/photo"
)

// quarters is a picture whose corners have colours of their own: red and green above,
// blue and white below.
func quarters(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := [2][2]color.RGBA{{{255, 0, 0, 255}, {0, 255, 0, 255}}, {{0, 0, 255, 255}, {255, 255, 255, 255}}}[y*2/h][x*2/w]
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func encodeJPEG(tb testing.TB, img image.Image) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 95}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func encodePNG(tb testing.TB, img image.Image) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// tiff is Exif data with an orientation and a place.
func tiff(orientation uint16) []byte {
	b := []byte("MM\x00*\x00\x00\x00\x08\x00\x02")
	b = append(b, 0x01, 0x12, 0, 3, 0, 0, 0, 1)
	b = binary.BigEndian.AppendUint16(b, orientation)
	b = append(b, 0, 0)
	b = append(b, 0x88, 0x25, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0) // GPS
	return append(b, "GPS-31.2304N-121.4737E"...)
}

// withExif puts Exif data and a comment behind the start of a JPEG.
func withExif(b []byte, orientation uint16) []byte {
	exif := append([]byte("Exif\x00\x00"), tiff(orientation)...)
	out := append([]byte{}, b[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(exif)+2))
	out = append(out, exif...)
	comment := "<script>alert(1)</script>"
	out = append(out, 0xff, 0xfe)
	out = binary.BigEndian.AppendUint16(out, uint16(len(comment)+2))
	return append(append(out, comment...), b[2:]...)
}

func chunk(kind string, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = append(append(b, kind...), body...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

func ihdr(w, h uint32, depth, colour byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, w)
	b = binary.BigEndian.AppendUint32(b, h)
	return chunk("IHDR", append(b, depth, colour, 0, 0, 0))
}

func pngOf(chunks ...[]byte) []byte {
	return append([]byte("\x89PNG\r\n\x1a\n"), bytes.Join(chunks, nil)...)
}

// webpOf wraps chunks, each of an even size.
func webpOf(chunks ...[]byte) []byte {
	body := append([]byte("WEBP"), bytes.Join(chunks, nil)...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

func riff(kind string, body []byte) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(body))), body...)
}

func canvas(w, h int, flags byte) []byte {
	return riff("VP8X", []byte{flags, 0, 0, 0, byte(w - 1), byte((w - 1) >> 8), byte((w - 1) >> 16), byte(h - 1), byte((h - 1) >> 8), byte((h - 1) >> 16)})
}

func read(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func zeros(tb testing.TB, n int) []byte { tb.Helper(); return pack(tb, make([]byte, n)) }

func TestMakeGivesEachSizeWithinItsSquare(t *testing.T) {
	transparent := image.NewNRGBA(image.Rect(0, 0, 40, 30))
	deep := image.NewRGBA64(image.Rect(0, 0, 50, 20))
	for _, c := range []struct {
		name string
		data []byte
		want [2][2]int
	}{
		{"jpeg", encodeJPEG(t, quarters(800, 400)), [2][2]int{{400, 200}, {100, 50}}},
		{"a lying strip", encodeJPEG(t, quarters(1000, 1)), [2][2]int{{400, 1}, {100, 1}}},
		{"a standing strip", encodePNG(t, quarters(3, 999)), [2][2]int{{1, 400}, {1, 100}}},
		{"smaller than asked stays", encodePNG(t, quarters(60, 90)), [2][2]int{{60, 90}, {60, 90}}},
		{"one pixel", encodePNG(t, quarters(1, 1)), [2][2]int{{1, 1}, {1, 1}}},
		{"transparent", encodePNG(t, transparent), [2][2]int{{40, 30}, {40, 30}}},
		{"sixteen bits", encodePNG(t, deep), [2][2]int{{50, 20}, {50, 20}}},
		{"lossy webp", read(t, "blue-purple-pink.lossy.webp"), [2][2]int{{150, 100}, {100, 67}}},
		{"lossless webp", read(t, "gopher-doc.1bpp.lossless.webp"), [2][2]int{{75, 100}, {75, 100}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := photo.NewMaker(0).Make(t.Context(), c.data, 400, 100)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range got {
				img, err := jpeg.Decode(bytes.NewReader(p.Data))
				if err != nil {
					t.Fatalf("picture %d is no JPEG: %v", i, err)
				}
				size := [2]int{img.Bounds().Dx(), img.Bounds().Dy()}
				if size != c.want[i] || size != [2]int{p.Width, p.Height} {
					t.Errorf("picture %d is %v and says %d x %d, want %v", i, size, p.Width, p.Height, c.want[i])
				}
			}
		})
	}
}

// near reports whether a pixel has about a colour.
func near(img image.Image, x, y int, want color.RGBA) bool {
	r, g, b, _ := img.At(x, y).RGBA()
	diff := func(a uint32, b uint8) bool { d := int(a>>8) - int(b); return d > -40 && d < 40 }
	return diff(r, want.R) && diff(g, want.G) && diff(b, want.B)
}

func TestMakeTurnsUpright(t *testing.T) {
	red, green, blue, white := color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255}, color.RGBA{255, 255, 255, 255}
	// The corners that a viewer must see, clockwise from the upper left.
	for orientation, want := range map[uint16][4]color.RGBA{
		0: {red, green, white, blue}, 1: {red, green, white, blue}, 9: {red, green, white, blue},
		2: {green, red, blue, white}, 3: {white, blue, red, green}, 4: {blue, white, green, red},
		5: {red, blue, white, green}, 6: {blue, red, green, white}, 7: {white, green, red, blue}, 8: {green, white, blue, red},
	} {
		got, err := photo.NewMaker(0).Make(t.Context(), withExif(encodeJPEG(t, quarters(64, 32)), orientation), 64)
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(got[0].Data))
		if err != nil {
			t.Fatal(err)
		}
		w, h := img.Bounds().Dx(), img.Bounds().Dy()
		if lying := orientation >= 5 && orientation <= 8; lying != (h > w) {
			t.Errorf("orientation %d: %d x %d", orientation, w, h)
		}
		for i, at := range [4][2]int{{4, 4}, {w - 5, 4}, {w - 5, h - 5}, {4, h - 5}} {
			if !near(img, at[0], at[1], want[i]) {
				t.Errorf("orientation %d: corner %d is %v, want about %v", orientation, i, img.At(at[0], at[1]), want[i])
			}
		}
	}
}

func TestMakeKeepsNothingButPixels(t *testing.T) {
	plain := encodePNG(t, quarters(20, 20))
	text := chunk("tEXt", []byte("Comment\x00<script>alert(1)</script>"))
	withText := append(append(append([]byte{}, plain[:33]...), append(chunk("eXIf", tiff(6)), text...)...), plain[33:]...)
	for name, data := range map[string][]byte{
		"jpeg":               withExif(encodeJPEG(t, quarters(20, 20)), 6),
		"png":                withText,
		"polyglot with HTML": append(encodeJPEG(t, quarters(20, 20)), "<html><script>alert(1)</script></html>"...),
		"polyglot with ZIP":  append(encodePNG(t, quarters(20, 20)), "PK\x03\x04 GPS alert"...),
	} {
		got, err := photo.NewMaker(0).Make(t.Context(), data, 20)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, secret := range []string{"GPS", "Exif", "alert", "script", "PK\x03\x04"} {
			if bytes.Contains(got[0].Data, []byte(secret)) {
				t.Errorf("%s: %q is still there", name, secret)
			}
		}
	}
}

func TestTransparentIsOnWhite(t *testing.T) {
	got, err := photo.NewMaker(0).Make(t.Context(), encodePNG(t, image.NewNRGBA(image.Rect(0, 0, 8, 8))), 8)
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(got[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	if !near(img, 4, 4, color.RGBA{255, 255, 255, 255}) {
		t.Errorf("it is %v", img.At(4, 4))
	}
}

// refused are files that must not cost memory.
func refused(tb testing.TB) map[string][]byte {
	whole := encodeJPEG(tb, quarters(64, 64))
	frame := bytes.Index(whole, []byte("\xff\xc0"))
	huge := append([]byte{}, whole...)
	binary.BigEndian.PutUint16(huge[frame+5:], 60_000)
	binary.BigEndian.PutUint16(huge[frame+7:], 60_000)
	large := append([]byte{}, whole...)
	binary.BigEndian.PutUint16(large[frame+5:], 7_000)
	binary.BigEndian.PutUint16(large[frame+7:], 7_000)
	progressive := append([]byte{}, large...)
	progressive[frame+1] = 0xc2
	scan := bytes.Index(whole, []byte("\xff\xda"))
	passes := append(append([]byte{}, whole[:scan]...), bytes.Repeat(whole[scan:len(whole)-2], 101)...)
	packed := zeros(tb, 1<<20)
	lossy := read(tb, "blue-purple-pink.lossy.webp")
	inner := append([]byte{}, lossy[12:]...)
	binary.LittleEndian.PutUint16(inner[8+6:], 16_383)
	binary.LittleEndian.PutUint16(inner[8+8:], 16_383)
	return map[string][]byte{
		"nothing":                             nil,
		"a GIF":                               []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"),
		"an SVG with a script":                []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`),
		"a page that begins like a JPEG":      []byte("\xff\xd8\xff<html><script>alert(1)</script></html>"),
		"half a JPEG":                         whole[:len(whole)/2],
		"a JPEG of 60,000 x 60,000":           huge,
		"a JPEG of 7,000 x 7,000 with none":   large,
		"a progressive one":                   progressive,
		"a JPEG of 101 passes":                passes,
		"a PNG of 60,000 x 60,000":            pngOf(ihdr(60_000, 60_000, 8, 2), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG of 4,294,967,295 x 1":          pngOf(ihdr(1<<32-1, 1, 8, 2), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG of 65,536 x 1":                 pngOf(ihdr(65_536, 1, 8, 2), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG of no pixels":                  pngOf(ihdr(0, 0, 8, 2), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG of 7,000 x 7,000 with few":     pngOf(ihdr(7_000, 7_000, 16, 6), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG with two headers":              pngOf(ihdr(1, 1, 8, 2), ihdr(7_000, 7_000, 8, 2), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG with a chunk beyond its end":   append(pngOf(ihdr(8, 8, 8, 2)), 0x7f, 0xff, 0xff, 0xff, 'I', 'D', 'A', 'T', 0, 0, 0, 0),
		"a WebP canvas of 16 million squared": webpOf(canvas(1<<24, 1<<24, 0), lossy[12:]),
		"a WebP larger than its canvas":       webpOf(canvas(150, 100, 0), inner),
		"a WebP whose picture is huge":        webpOf(inner),
		"a moving WebP":                       webpOf(canvas(150, 100, 2), lossy[12:]),
		"a WebP with alpha of another size":   webpOf(canvas(7_000, 7_000, 0x10), riff("ALPH", make([]byte, 64)), lossy[12:]),
		"an empty WebP":                       webpOf(),
		"a PNG of half bytes in colour":       pngOf(ihdr(8, 8, 4, 2), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG of no known kind":              pngOf(ihdr(8, 8, 8, 9), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG without its palette":           pngOf(ihdr(8, 8, 8, 3), chunk("IDAT", packed), chunk("IEND", nil)),
		"a PNG beyond its palette":            pngOf(ihdr(1, 1, 8, 3), chunk("PLTE", []byte{1, 2, 3}), chunk("IDAT", pack(tb, []byte{0, 1})), chunk("IEND", nil)),
		"a PNG of an unknown filter":          pngOf(ihdr(1, 1, 8, 0), chunk("IDAT", pack(tb, []byte{9, 1})), chunk("IEND", nil)),
		"a PNG with fewer rows":               pngOf(ihdr(1, 9, 8, 0), chunk("IDAT", pack(tb, []byte{0, 1})), chunk("IEND", nil)),
		"a PNG with a false checksum":         append(pngOf(ihdr(1, 1, 8, 0)), append(chunk("IDAT", pack(tb, []byte{0, 1}))[:12], make([]byte, 30)...)...),
		"too many bytes":                      append(whole, make([]byte, photo.MaxBytes)...),
	}
}

func TestRefused(t *testing.T) {
	for name, data := range refused(t) {
		t.Run(name, func(t *testing.T) {
			_, err := photo.NewMaker(0).Make(t.Context(), data, 100)
			if _, ok := errors.AsType[*photo.RefusedError](err); !ok {
				t.Fatalf("it gave %v, want a refusal", err)
			}
			if strings.Contains(err.Error(), "alert") {
				t.Errorf("the refusal shows what was sent: %v", err)
			}
		})
	}
}

// TestPNGsAreWhatOthersMakeOfThem compares the rows of all kinds of PNGs with what the
// standard library decodes.
func TestPNGsAreWhatOthersMakeOfThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := image.Rect(0, 0, rapid.IntRange(1, 40).Draw(t, "w"), rapid.IntRange(1, 40).Draw(t, "h"))
		var img image.Image
		noise := func(pix []byte) {
			copy(pix, rapid.SliceOfN(rapid.Byte(), len(pix), len(pix)).Draw(t, "pixels"))
		}
		switch rapid.IntRange(0, 7).Draw(t, "kind") {
		case 0:
			m := image.NewGray(r)
			noise(m.Pix)
			img = m
		case 1:
			m := image.NewGray16(r)
			noise(m.Pix)
			img = m
		case 2:
			m := image.NewNRGBA(r)
			noise(m.Pix)
			img = m
		case 3:
			m := image.NewNRGBA64(r)
			noise(m.Pix)
			img = m
		case 4:
			m := image.NewRGBA(r)
			noise(m.Pix)
			for i := 3; i < len(m.Pix); i += 4 {
				m.Pix[i] = 0xff
			}
			img = m
		default: // of one, two, four and eight bits
			n := rapid.SampledFrom([]int{2, 4, 16, 256}).Draw(t, "colours")
			var colours color.Palette
			for i := range n {
				colours = append(colours, color.NRGBA{byte(i), byte(i * 7), byte(255 - i), byte(255 - i%3*100)})
			}
			m := image.NewPaletted(r, colours)
			for i := range m.Pix {
				m.Pix[i] = byte((i * 31) % n)
			}
			img = m
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		got, err := photo.Rows(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		want := image.NewRGBA(r)
		draw.Draw(want, r, image.White, image.Point{}, draw.Src)
		draw.Draw(want, r, img, image.Point{}, draw.Over)
		for i := range want.Pix {
			if d := int(got.Pix[i]) - int(want.Pix[i]); d < -2 || d > 2 { // sixteen bits are cut to eight
				t.Fatalf("byte %d of %v is %d, want %d", i, r, got.Pix[i], want.Pix[i])
			}
		}
	})
}

func TestAnInterlacedPNG(t *testing.T) {
	// One pixel, which is all of the first pass.
	data := pngOf(chunk("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 1}), chunk("IDAT", pack(t, []byte{0, 200, 100, 50})), chunk("IEND", nil))
	got, err := photo.NewMaker(0).Make(t.Context(), data, 10)
	if err != nil || got[0].Width != 1 || got[0].Height != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func pack(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestMakeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := photo.NewMaker(0).Make(ctx, encodeJPEG(t, quarters(64, 64)), 64); !errors.Is(err, context.Canceled) {
		t.Errorf("it gave %v", err)
	}
}

func TestScalingKeepsEvenColours(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 60).Draw(t, "w"), rapid.IntRange(1, 60).Draw(t, "h")
		grey := uint8(rapid.IntRange(0, 255).Draw(t, "grey"))
		img := image.NewGray(image.Rect(0, 0, w, h))
		for i := range img.Pix {
			img.Pix[i] = grey
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		side := rapid.IntRange(1, 70).Draw(t, "side")
		got, err := photo.NewMaker(0).Make(context.Background(), b.Bytes(), side)
		if err != nil {
			t.Fatal(err)
		}
		small, err := jpeg.Decode(bytes.NewReader(got[0].Data))
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Width > side || got[0].Height > side {
			t.Fatalf("%d x %d is %d x %d within %d", w, h, got[0].Width, got[0].Height, side)
		}
		for y := range got[0].Height {
			for x := range got[0].Width {
				if v, _, _, _ := small.At(x, y).RGBA(); int(v>>8) < int(grey)-3 || int(v>>8) > int(grey)+3 {
					t.Fatalf("pixel %d,%d of grey %d is %d", x, y, grey, v>>8)
				}
			}
		}
	})
}

func FuzzInspect(f *testing.F) {
	for _, data := range refused(f) {
		if len(data) < 100_000 {
			f.Add(data)
		}
	}
	f.Add(withExif(encodeJPEG(f, quarters(16, 16)), 6))
	f.Add(encodePNG(f, quarters(16, 16)))
	f.Add(read(f, "gopher-doc.1bpp.lossless.webp"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := photo.Inspect(data)
		if err != nil {
			if _, ok := errors.AsType[*photo.RefusedError](err); !ok {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		if h.Width < 1 || h.Height < 1 || h.Width*h.Height > photo.MaxPixels || h.Orientation < 1 || h.Orientation > 8 || h.Memory < 1 {
			t.Fatalf("%+v", h)
		}
		if h.Width*h.Height <= 1<<20 { // what decodes is what its header said
			_, err := photo.NewMaker(0).Make(t.Context(), data, 32)
			if _, ok := errors.AsType[*photo.RefusedError](err); err != nil && !ok {
				t.Fatal(err)
			}
		}
	})
}
