// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
)

// smallBody is the length in bytes up to which compressing is not worth it.
const smallBody = 1 << 10

// send writes an answer, compressed if it is long and the client takes that.
func send(w http.ResponseWriter, r *http.Request, status int, media string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept, Accept-Encoding")
	if len(body) <= smallBody || !acceptsGzip(r) {
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(body) // the client may be gone
		}
		return
	}
	h.Set("Content-Encoding", "gzip")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // a level that is one
	_, _ = z.Write(body)
	_ = z.Close()
}

func acceptsGzip(r *http.Request) bool {
	for _, list := range r.Header.Values("Accept-Encoding") {
		for one := range strings.SplitSeq(list, ",") {
			coding, params, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				q, isQ := strings.CutPrefix(strings.TrimSpace(params), "q=")
				weight, err := strconv.ParseFloat(q, 64)
				return !isQ || err == nil && weight > 0
			}
		}
	}
	return false
}
