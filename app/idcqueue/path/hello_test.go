// SPDX-License-Identifier: Apache-2.0

package path

import (
	"bytes"
	"net"
	"testing"
)

func FuzzHello(f *testing.F) {
	f.Add(hello{stream: controlStream, region: 7, name: "sh", service: "comment"}.append(nil))
	f.Add([]byte("idcq"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := readHello(r)
		if err != nil {
			return
		}
		if got := h.append(nil); !bytes.Equal(got, b[:len(b)-r.Len()]) {
			t.Errorf("read %+v of %x, which is written %x", h, b, got)
		}
	})
}

// FuzzFrame: whatever comes, a frame is within its bounds or an error.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 1, 'h', 'i'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &wire{conn: readOnly{Reader: bytes.NewReader(b)}}
		for taken := 0; ; {
			kind, content, err := w.read(100)
			if err != nil {
				return
			}
			if len(content) > 100 || kind != b[taken+4] || !bytes.Equal(content, b[taken+frameHeader:][:len(content)]) {
				t.Fatalf("kind %d, %x at %d of %x", kind, content, taken, b)
			}
			taken += frameHeader + len(content)
		}
	})
}

// readOnly is a connection that something comes from.
type readOnly struct {
	net.Conn
	*bytes.Reader
}

func (r readOnly) Read(b []byte) (int, error) { return r.Reader.Read(b) }
