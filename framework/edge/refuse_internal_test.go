// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
)

// FuzzTurn holds what is taken for one whole request against net/http: if it reads a
// request there, it uses up all bytes, and a connection on which that cannot be said is
// given up for good.
func FuzzTurn(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n Content-Length: 4\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nX: y\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\nHost: h\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		c := turn{next: true}
		whole := c.begins(p)
		if whole == c.lost {
			t.Fatalf("whole %v, lost %v", whole, c.lost)
		}
		if !whole {
			return
		}
		in := bytes.NewReader(p)
		read := bufio.NewReader(in)
		r, err := http.ReadRequest(read)
		if err != nil {
			return // net/http answers, and closes the connection
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatalf("the body of %q: %v", p, err)
		}
		if rest, _ := io.ReadAll(read); len(rest) > 0 || r.ContentLength < 0 {
			t.Fatalf("of %q net/http leaves %q", p, rest)
		}
	})
}
