// SPDX-License-Identifier: Apache-2.0

// Package probetest makes small MP4 files for tests: right in all that package probe
// looks at, without anything to play.
package probetest

import (
	"bytes"
	"cmp"
	"encoding/binary"
)

// Pictures is what stands for the coded pictures of a Movie.
const Pictures = "these are the pictures"

// sensor stands for what a camera notes beside.
const sensor = "sensor data +31.2304+121.4737/"

// Movie says what a file is like. Its zero values are a video of 640 x 360 pixels and ten
// seconds.
type Movie struct {
	Width, Seconds int
	SampleSeconds  int    // what the samples add up to
	EditSeconds    int    // of an edit list; 0 for none
	Place          string // in the places where cameras write it, and in a track of its own
	Codec, Handler string
	Turned         bool
	LongHeads      bool // of what is to be taken out
	Fragments      bool
	NoData         bool
	Padding        int // more bytes of data
}

// Box makes a box of a kind.
func Box(kind string, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(append(b, kind...), body...)
}

func (m Movie) box(kind string, body []byte) []byte {
	if !m.LongHeads {
		return Box(kind, body)
	}
	b := append([]byte{0, 0, 0, 1}, kind...)
	b = binary.BigEndian.AppendUint64(b, uint64(16+len(body)))
	return append(b, body...)
}

func numbers(list ...uint32) []byte {
	var b []byte
	for _, n := range list {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

const scale = 1000 // units a second

// Bytes gives the file.
func (m Movie) Bytes() []byte {
	ftyp := Box("ftyp", []byte("isom\x00\x00\x02\x00mp41avc1"))
	data := Box("mdat", []byte(Pictures), []byte(sensor), make([]byte, m.Padding))
	if m.NoData {
		data = nil
	}
	at := uint32(len(ftyp) + 8)
	seconds := uint32(cmp.Or(m.Seconds, 10))
	moov := []([]byte){Box("mvhd", numbers(0, 0, 0, scale, seconds*scale), make([]byte, 80))}
	moov = append(moov, m.track(cmp.Or(m.Handler, "vide"), cmp.Or(m.Codec, "avc1"), at, uint32(len(Pictures)), seconds))
	if m.Place != "" {
		moov = append(moov, m.track("meta", "mett", at+uint32(len(Pictures)), uint32(len(sensor)), seconds))
		moov = append(moov, m.box("udta", Box("\xa9xyz", []byte(m.Place))))
	}
	if m.Fragments {
		moov = append(moov, Box("mvex"))
	}
	file := append(append(ftyp, data...), Box("moov", moov...)...)
	if m.Place != "" {
		file = append(file, m.box("uuid", []byte("0123456789abcdef"+m.Place))...)
	}
	return file
}

func (m Movie) track(handler, codec string, at, size, seconds uint32) []byte {
	width, height := uint32(cmp.Or(m.Width, 640)), uint32(360)
	matrix := numbers(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
	if m.Turned {
		matrix = numbers(0, 0x10000, 0, 0xffff0000, 0, 0, 0, 0, 0x40000000)
	}
	tkhd := Box("tkhd", numbers(3, 0, 0, 1, 0, seconds*scale, 0, 0, 0, 0), matrix, numbers(width<<16, height<<16))
	var edits []byte
	if m.EditSeconds > 0 {
		edits = Box("edts", Box("elst", numbers(0, 1, uint32(m.EditSeconds)*scale, 0, 0x10000)))
	}
	entry := append(make([]byte, 24), byte(width>>8), byte(width), byte(height>>8), byte(height))
	stbl := Box("stbl",
		Box("stsd", numbers(0, 1), Box(codec, entry)),
		Box("stts", numbers(0, 1, uint32(cmp.Or(m.SampleSeconds, int(seconds))), scale)),
		Box("stsz", numbers(0, 0, 1, size)),
		Box("stsc", numbers(0, 1, 1, 1, 1)),
		Box("stco", numbers(0, 1, at)),
	)
	var udta []byte
	if m.Place != "" {
		udta = m.box("meta", []byte(m.Place))
	}
	return Box("trak", tkhd, edits, udta, Box("mdia",
		Box("mdhd", numbers(0, 0, 0, scale, seconds*scale, 0)),
		Box("hdlr", numbers(0, 0), []byte(handler), numbers(0, 0, 0), []byte(m.Place), []byte{0}),
		Box("minf", stbl)))
}
