// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/media/probe"
	"github.com/sluice-rpc/sluice/app/media/probe/probetest"
)

func open(data []byte) (probe.Video, error) {
	return probe.MP4(bytes.NewReader(data), int64(len(data)))
}

func TestMP4(t *testing.T) {
	for _, c := range []struct {
		name          string
		movie         probetest.Movie
		width, height int
		duration      time.Duration
	}{
		{"plain", probetest.Movie{}, 640, 360, 10 * time.Second},
		{"turned", probetest.Movie{Turned: true}, 360, 640, 10 * time.Second},
		{"a minute", probetest.Movie{Seconds: 60}, 640, 360, time.Minute},
		{"the samples last longer than the head says", probetest.Movie{Seconds: 5, SampleSeconds: 42}, 640, 360, 42 * time.Second},
		{"with a place", probetest.Movie{Place: "+31.2304+121.4737/"}, 640, 360, 10 * time.Second},
		{"long heads", probetest.Movie{LongHeads: true, Place: "+31.2304+121.4737/"}, 640, 360, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := open(c.movie.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if v.Width != c.width || v.Height != c.height || v.Duration != c.duration {
				t.Errorf("%d x %d, %v; want %d x %d, %v", v.Width, v.Height, v.Duration, c.width, c.height, c.duration)
			}
		})
	}
}

func TestPatchesLeavePictureAndSoundAlone(t *testing.T) {
	const secret = "+31.2304+121.4737/"
	for _, long := range []bool{false, true} {
		data := probetest.Movie{Place: secret, LongHeads: long}.Bytes()
		v, err := open(data)
		if err != nil {
			t.Fatal(err)
		}
		clean := bytes.Clone(data)
		for at := 0; at < len(clean); at += 37 { // in pieces, as they are copied
			probe.Apply(v.Patches, clean[at:min(at+37, len(clean))], int64(at))
		}
		if bytes.Contains(clean, []byte(secret)) || !bytes.Contains(data, []byte(secret)) {
			t.Error("the place is still there")
		}
		if bytes.Contains(clean, []byte("sensor data")) || !bytes.Contains(clean, []byte(probetest.Pictures)) {
			t.Error("the data are not what is left of them")
		}
		again, err := open(clean)
		if err != nil {
			t.Fatalf("what is left is no video: %v", err)
		}
		if again.Width != v.Width || again.Duration != v.Duration {
			t.Errorf("what is left is %+v, want %+v", again, v)
		}
	}
}

func TestRefused(t *testing.T) {
	plain := probetest.Movie{}.Bytes()
	for name, data := range map[string][]byte{
		"nothing":                  nil,
		"a page":                   []byte("<html><script>alert(1)</script></html>"),
		"a photo in the container": append(probetest.Box("ftyp", []byte("heic\x00\x00\x00\x00heicmif1")), plain[24:]...),
		"half":                     plain[:len(plain)/2],
		"no data":                  probetest.Movie{NoData: true}.Bytes(),
		"61 seconds":               probetest.Movie{Seconds: 61}.Bytes(),
		"61 seconds of samples":    probetest.Movie{Seconds: 10, SampleSeconds: 61}.Bytes(),
		"61 seconds by an edit":    probetest.Movie{EditSeconds: 61}.Bytes(),
		"in fragments":             probetest.Movie{Fragments: true}.Bytes(),
		"a fragment behind":        append(bytes.Clone(plain), probetest.Box("moof", nil)...),
		"a codec of its own":       probetest.Movie{Codec: "evil"}.Bytes(),
		"sound alone":              probetest.Movie{Handler: "soun"}.Bytes(),
		"60,000 pixels":            probetest.Movie{Width: 60_000}.Bytes(),
		"a box beyond the end":     append(bytes.Clone(plain), 0x7f, 0xff, 0xff, 0xff, 'f', 'r', 'e', 'e'),
		"a box of length 1":        append(bytes.Clone(plain), 0, 0, 0, 1, 'f', 'r', 'e', 'e', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"a box shorter than heads": append(bytes.Clone(plain), 0, 0, 0, 2, 'f', 'r', 'e', 'e'),
		"two movies":               append(bytes.Clone(plain), plain[24:]...),
		"very many boxes":          append(bytes.Clone(plain), bytes.Repeat(probetest.Box("free", nil), 30_000)...),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(data)
			if _, ok := errors.AsType[*probe.RefusedError](err); !ok {
				t.Fatalf("it gave %v, want a refusal", err)
			}
			if strings.Contains(err.Error(), "evil") {
				t.Errorf("the refusal shows what was sent: %v", err)
			}
		})
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestAReaderThatFailsIsNoRefusal(t *testing.T) {
	_, err := probe.MP4(failing{}, 1000)
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("it gave %v", err)
	}
}

func FuzzMP4(f *testing.F) {
	f.Add(probetest.Movie{}.Bytes())
	f.Add(probetest.Movie{Place: "here", Turned: true, EditSeconds: 3}.Bytes())
	f.Add(probetest.Movie{LongHeads: true, Place: "here"}.Bytes())
	f.Add(binary.BigEndian.AppendUint32(nil, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := open(data)
		if err != nil {
			if _, ok := errors.AsType[*probe.RefusedError](err); !ok {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		if v.Duration <= 0 || v.Duration > probe.MaxDuration+time.Second || v.Width < 1 || v.Height < 1 {
			t.Fatalf("%+v", v)
		}
		clean := bytes.Clone(data)
		probe.Apply(v.Patches, clean, 0)
		if len(clean) != len(data) {
			t.Fatal("the length has changed")
		}
		// A track that is taken out may lie about where its data are and so damage a
		// video; it must not make another of it.
		if again, err := open(clean); err == nil && again.Duration > v.Duration {
			t.Fatalf("what is left lasts %v instead of %v", again.Duration, v.Duration)
		}
	})
}
