// SPDX-License-Identifier: Apache-2.0

// Package probe looks into an MP4 file (ISO/IEC 14496-12): how long and how large its
// video is, and which of its bytes are neither picture nor sound.
//
// It is small because it need not play: it walks boxes, believes no length that it has
// not checked, and takes the greatest of all the durations that the file names. What it
// does not know it takes out, and what could hide a longer video it refuses.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Limits of a video.
const (
	MaxBytes    = 200 << 20
	MaxDuration = 60 * time.Second
	// slack is what a camera that stops by itself after a minute may be late.
	slack   = 500 * time.Millisecond
	maxSide = 8192

	maxBoxes   = 20_000  // of a file; a usual one has some hundred
	maxTable   = 4 << 20 // bytes of one table, by far enough for a minute
	maxPatches = 100_000
	maxData    = 16 // boxes of data; a usual file has one
)

// RefusedError says, for the one who sent it, why a file is not taken as a video.
type RefusedError struct {
	Why string
}

// Error gives the reason.
func (e *RefusedError) Error() string { return e.Why }

func refuse(format string, args ...any) error {
	return &RefusedError{Why: fmt.Sprintf(format, args...)}
}

var errDamaged = refuse("the video is damaged or not whole")

// Video is what an MP4 file says of itself.
type Video struct {
	Width, Height int // as it is shown, turned as the file asks
	Duration      time.Duration
	// Patches blank everything that is neither picture nor sound: places, names of
	// devices, thumbnails, tracks of sensors. The file keeps its length, and all else its
	// place.
	Patches []Patch
}

// Patch is a stretch of the file to be overwritten.
type Patch struct {
	At, Len int64
	// Box says that the stretch is the head of a box, which becomes a free one; else it
	// becomes zeros.
	Box bool
}

// Sniff reports whether a file begins like an MP4 video. Photos in the same container
// (HEIC, AVIF) do not.
func Sniff(head []byte) bool {
	if len(head) < 16 || string(head[4:8]) != "ftyp" {
		return false
	}
	size := int(binary.BigEndian.Uint32(head))
	if size < 16 {
		return false
	}
	brands := head[8:min(size, len(head))]
	for i := 0; i+4 <= len(brands); i += 4 {
		if i == 4 { // the version of the first
			continue
		}
		switch string(brands[i : i+4]) {
		case "isom", "iso2", "iso3", "iso4", "iso5", "iso6", "iso7", "iso8", "iso9", "mp41", "mp42", "avc1", "M4V ", "MSNV", "3gp4", "3gp5", "3gp6":
			return true
		}
	}
	return false
}

// MP4 reads a file of size bytes. A RefusedError says that it is not taken as a video;
// any other error is r's.
func MP4(r io.ReaderAt, size int64) (Video, error) {
	if size > MaxBytes {
		return Video{}, refuse("the video has %d bytes, more than %d", size, MaxBytes)
	}
	head := make([]byte, min(size, 256))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Video{}, fmt.Errorf("read the head of a video: %w", err)
	}
	if !Sniff(head) {
		return Video{}, refuse("this is no MP4 video")
	}
	w := &walker{r: r}
	if err := w.top(size); err != nil {
		return Video{}, err
	}
	return w.video()
}

// box is a box of the file: its payload is [at, end).
type box struct {
	kind           string
	start, at, end int64
}

type walker struct {
	r       io.ReaderAt
	boxes   int
	movie   bool
	scale   uint32        // of the movie: units a second
	longest time.Duration // that anything names
	tracks  []*track
	data    []box // mdat
	patches []Patch
}

// track is what is known of a trak so far.
type track struct {
	whole         box
	handler       string
	scale         uint32
	width, height int
	shown         [2]int // of tkhd
	turned        bool
	codec         string
	tables        map[string][]byte // stsz, stsc, stco, co64
	edits         []byte
}

// each walks the boxes of [at, end).
func (w *walker) each(at, end int64, f func(box) error) error {
	for at < end {
		if w.boxes++; w.boxes > maxBoxes {
			return refuse("the video has more than %d parts", maxBoxes)
		}
		if end-at < 8 {
			return errDamaged
		}
		var head [16]byte
		n := min(16, end-at)
		if err := w.read(head[:n], at); err != nil {
			return err
		}
		b := box{kind: string(head[4:8]), start: at, at: at + 8}
		size := int64(binary.BigEndian.Uint32(head[:4]))
		switch size {
		case 0: // to the end
			size = end - at
		case 1:
			b.at += 8
			long := binary.BigEndian.Uint64(head[8:])
			if n < 16 || long > math.MaxInt64 {
				return errDamaged
			}
			size = int64(long)
		}
		if size < b.at-b.start || size > end-at {
			return errDamaged
		}
		b.end = at + size
		if err := f(b); err != nil {
			return err
		}
		at = b.end
	}
	return nil
}

func (w *walker) read(p []byte, at int64) error {
	if n, err := w.r.ReadAt(p, at); n < len(p) {
		if errors.Is(err, io.EOF) {
			return errDamaged
		}
		return fmt.Errorf("read a video: %w", err)
	}
	return nil
}

// payload gives all of a box that must be small.
func (w *walker) payload(b box) ([]byte, error) {
	if b.end-b.at > maxTable {
		return nil, refuse("a table of the video has %d bytes, more than %d", b.end-b.at, maxTable)
	}
	p := make([]byte, b.end-b.at)
	return p, w.read(p, b.at)
}

// blank takes a box out. A long head keeps its length.
func (w *walker) blank(b box) {
	w.patch(Patch{At: b.start, Len: 8, Box: true})
	w.patch(Patch{At: b.at, Len: b.end - b.at})
}

func (w *walker) patch(p Patch) { w.patches = append(w.patches, p) }

func (w *walker) top(size int64) error {
	return w.each(0, size, func(b box) error {
		switch b.kind {
		case "ftyp":
		case "mdat":
			if w.data = append(w.data, b); len(w.data) > maxData {
				return refuse("the video has its data in more than %d places", maxData)
			}
		case "moov":
			if w.movie {
				return errDamaged
			}
			w.movie = true
			return w.each(b.at, b.end, w.moov)
		case "moof", "styp", "sidx":
			return errFragments
		default:
			w.blank(b)
		}
		return nil
	})
}

// The length of a video in fragments stands in none of its heads.
var errFragments = refuse("the video is in fragments: save it as a plain MP4")

func (w *walker) moov(b box) error {
	switch b.kind {
	case "mvhd":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		scale, duration, err := times(p, 12)
		if err != nil {
			return err
		}
		w.scale = scale
		return w.lasts(duration, scale)
	case "mvex":
		return errFragments
	case "trak":
		t := &track{whole: b, tables: map[string][]byte{}}
		w.tracks = append(w.tracks, t)
		return w.each(b.at, b.end, func(b box) error { return w.trak(t, b) })
	}
	w.blank(b)
	return nil
}

// times reads time scale and duration of an mvhd or mdhd; at is where they stand in
// version 0, after two times of 4 bytes that have 8 in version 1.
func times(p []byte, at int) (scale uint32, duration uint64, err error) {
	if len(p) < at+8 || p[0] == 1 && len(p) < at+20 {
		return 0, 0, errDamaged
	}
	if p[0] == 1 {
		scale, duration = binary.BigEndian.Uint32(p[at+8:]), binary.BigEndian.Uint64(p[at+12:])
	} else {
		scale, duration = binary.BigEndian.Uint32(p[at:]), uint64(binary.BigEndian.Uint32(p[at+4:]))
		if duration == math.MaxUint32 {
			duration = 0 // not known
		}
	}
	if duration == math.MaxUint64 {
		duration = 0
	}
	if scale == 0 {
		return 0, 0, errDamaged
	}
	return scale, duration, nil
}

// lasts notes a duration, and refuses one that is too long.
func (w *walker) lasts(duration uint64, scale uint32) error {
	if scale == 0 {
		return errDamaged
	}
	if duration > uint64(scale)*uint64((MaxDuration+slack)/time.Millisecond)/1000 {
		return refuse("the video is longer than %v", MaxDuration)
	}
	w.longest = max(w.longest, time.Duration(duration*uint64(time.Second/time.Microsecond)/uint64(scale))*time.Microsecond)
	return nil
}

func (w *walker) trak(t *track, b box) error {
	switch b.kind {
	case "tkhd":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		// 3 or 5 times, then layer, group, volume, the matrix, width and height.
		if len(p) < 84 || p[0] == 1 && len(p) < 96 {
			return errDamaged
		}
		matrix := p[len(p)-44:]
		t.turned = binary.BigEndian.Uint32(matrix) == 0 && binary.BigEndian.Uint32(matrix[4:]) != 0
		t.shown = [2]int{int(binary.BigEndian.Uint16(p[len(p)-8:])), int(binary.BigEndian.Uint16(p[len(p)-4:]))}
		return nil
	case "edts":
		return w.each(b.at, b.end, func(b box) (err error) {
			if b.kind == "elst" {
				t.edits, err = w.payload(b)
			}
			return err
		})
	case "mdia":
		return w.each(b.at, b.end, func(b box) error { return w.mdia(t, b) })
	case "tref":
		return nil
	}
	w.blank(b)
	return nil
}

func (w *walker) mdia(t *track, b box) error {
	switch b.kind {
	case "mdhd":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		var duration uint64
		if t.scale, duration, err = times(p, 12); err != nil {
			return err
		}
		return w.lasts(duration, t.scale)
	case "hdlr":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		if len(p) < 24 {
			return errDamaged
		}
		t.handler = string(p[8:12])
		// The name of the handler, for people, is whatever somebody likes.
		w.patch(Patch{At: b.at + 24, Len: b.end - b.at - 24})
		return nil
	case "minf":
		return w.each(b.at, b.end, func(b box) error {
			switch b.kind {
			case "stbl":
				return w.each(b.at, b.end, func(b box) error { return w.stbl(t, b) })
			case "vmhd", "smhd", "dinf":
				return nil
			case "gmhd", "nmhd", "hmhd": // of tracks that are taken out
				return nil
			}
			w.blank(b)
			return nil
		})
	case "elng":
		return nil
	}
	w.blank(b)
	return nil
}

func (w *walker) stbl(t *track, b box) error {
	switch b.kind {
	case "stsd":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		if len(p) < 16 {
			return errDamaged
		}
		t.codec = string(p[12:16])
		if len(p) >= 44 {
			t.width, t.height = int(binary.BigEndian.Uint16(p[40:])), int(binary.BigEndian.Uint16(p[42:]))
		}
	case "stts":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		if t.scale == 0 { // mdhd comes before minf
			return errDamaged
		}
		var total uint64
		for e := range entries(p, 4, 8) {
			total += uint64(binary.BigEndian.Uint32(e)) * uint64(binary.BigEndian.Uint32(e[4:]))
			if err := w.lasts(total, t.scale); err != nil {
				return err
			}
		}
	case "stsz", "stsc", "stco", "co64":
		p, err := w.payload(b)
		if err != nil {
			return err
		}
		t.tables[b.kind] = p
	case "stz2", "ctts", "cslg", "stss", "stsh", "sdtp", "sgpd", "sbgp", "subs", "padb", "stdp":
	default:
		w.blank(b)
	}
	return nil
}

// entries gives the entries of a table that has their number at a place and they after.
func entries(p []byte, at, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		if len(p) < at+4 {
			return
		}
		n := binary.BigEndian.Uint32(p[at:])
		for p = p[at+4:]; n > 0 && len(p) >= size; n-- {
			if !yield(p[:size]) {
				return
			}
			p = p[size:]
		}
	}
}

// video puts together what the walk has found.
func (w *walker) video() (Video, error) {
	var v Video
	if !w.movie || len(w.data) == 0 {
		return v, errDamaged
	}
	for _, t := range w.tracks {
		switch t.handler {
		case "vide":
			if !slices.Contains([]string{"avc1", "avc3", "hvc1", "hev1", "vp08", "vp09", "av01", "mp4v"}, t.codec) {
				return v, refuse("the video is coded in a way that browsers do not play: save it as H.264")
			}
			if v.Width > 0 {
				return v, refuse("the file has more than one video")
			}
			v.Width, v.Height = t.width, t.height
			if t.shown[0] > 0 && t.shown[1] > 0 {
				v.Width, v.Height = t.shown[0], t.shown[1]
			}
			if t.turned {
				v.Width, v.Height = v.Height, v.Width
			}
			if min(v.Width, v.Height, t.width, t.height) < 1 || max(v.Width, v.Height, t.width, t.height) > maxSide {
				return v, refuse("the video has %d x %d pixels, want 1 to %d each", t.width, t.height, maxSide)
			}
		case "soun":
		default:
			if err := w.takeOut(t); err != nil {
				return v, err
			}
			continue
		}
		if err := w.checkEdits(t); err != nil {
			return v, err
		}
	}
	switch {
	case v.Width == 0:
		return v, refuse("the file has no video")
	case w.longest == 0:
		return v, refuse("the video has no length")
	case len(w.patches) > maxPatches:
		return v, refuse("the video has too many parts that are neither picture nor sound")
	}
	v.Duration = w.longest
	slices.SortFunc(w.patches, func(a, b Patch) int { return int(min(1, max(-1, a.At-b.At))) })
	v.Patches = w.patches
	return v, nil
}

// checkEdits adds up how long an edit list shows the track, pauses and repetitions
// included.
func (w *walker) checkEdits(t *track) error {
	if len(t.edits) == 0 {
		return nil
	}
	size := 12
	if t.edits[0] == 1 {
		size = 20
	}
	var total uint64
	for e := range entries(t.edits, 4, size) {
		one := uint64(binary.BigEndian.Uint32(e))
		if size == 20 {
			one = binary.BigEndian.Uint64(e)
		}
		if total += one; total < one {
			return errDamaged
		}
		if err := w.lasts(total, w.scale); err != nil {
			return err
		}
	}
	return nil
}

// takeOut blanks a track, and what it has in the data: a camera's log of places, for
// example.
func (w *walker) takeOut(t *track) error {
	w.blank(t.whole)
	sizes := t.tables["stsz"]
	if len(sizes) < 12 {
		return nil // it has nothing in the data
	}
	fixed, count := int64(binary.BigEndian.Uint32(sizes[4:])), int64(binary.BigEndian.Uint32(sizes[8:]))
	if fixed == 0 {
		count = min(count, int64(len(sizes)-12)/4)
	}
	var runs [][2]uint32 // first chunk from 1, samples of each chunk
	for e := range entries(t.tables["stsc"], 4, 12) {
		runs = append(runs, [2]uint32{binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:])})
	}
	var chunks []int64
	for e := range entries(t.tables["stco"], 4, 4) {
		chunks = append(chunks, int64(binary.BigEndian.Uint32(e)))
	}
	for e := range entries(t.tables["co64"], 4, 8) {
		chunks = append(chunks, int64(min(binary.BigEndian.Uint64(e), math.MaxInt64)))
	}
	var sample int64
	for i, at := range chunks {
		for len(runs) > 1 && uint32(i+1) >= runs[1][0] {
			runs = runs[1:]
		}
		if len(runs) == 0 {
			break
		}
		samples := min(int64(runs[0][1]), count-sample)
		length := samples * fixed
		if fixed == 0 {
			for s := sample; s < sample+samples; s++ {
				length += int64(binary.BigEndian.Uint32(sizes[12+4*s:]))
			}
		}
		sample += samples
		if err := w.blankData(at, length); err != nil {
			return err
		}
	}
	return nil
}

// blankData blanks a stretch as far as it lies in the data.
func (w *walker) blankData(at, length int64) error {
	if len(w.patches) > maxPatches {
		return refuse("the video has too many parts that are neither picture nor sound")
	}
	for _, b := range w.data {
		if from, to := max(at, b.at), min(at+min(length, math.MaxInt64-at), b.end); from < to {
			w.patch(Patch{At: from, Len: to - from})
		}
	}
	return nil
}

// Apply overwrites what the patches say in p, which are the bytes of the file from at
// on. The patches are in order of their places, as MP4 gives them.
func Apply(patches []Patch, p []byte, at int64) {
	end := at + int64(len(p))
	for _, patch := range patches {
		if patch.At >= end {
			return
		}
		for i := max(patch.At, at); i < min(patch.At+patch.Len, end); i++ {
			if within := i - patch.At; !patch.Box {
				p[i-at] = 0
			} else if within >= 4 {
				p[i-at] = "free"[within-4]
			}
		}
	}
}
