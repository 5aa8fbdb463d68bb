// SPDX-License-Identifier: Apache-2.0

package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// The page is built from web/src by web/build.sh and kept here, so that neither
// building nor running the console needs Node.
//
//go:embed web/dist
var dist embed.FS

// pagePolicy allows the page its own files and the API: no inline script or style, no
// other site, no frame around it.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

func addPage(mux *http.ServeMux) {
	files, _ := fs.Sub(dist, "web/dist") // a name that is one
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "" {
			name = "index.html"
		}
		body, err := fs.ReadFile(files, name)
		media := mediaTypes[path.Ext(name)]
		if err != nil || media == "" {
			http.Error(w, "there is no such page; the console is at /", http.StatusNotFound)
			return
		}
		sum := sha256.Sum256(body)
		etag := `"` + hex.EncodeToString(sum[:12]) + `"`
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("ETag", etag)
		h.Set("Cache-Control", "no-cache") // asked each time, so page and API are of one version
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		send(w, r, http.StatusOK, media, body)
	})
}
