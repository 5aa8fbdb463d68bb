// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/sluice-rpc/sluice/framework/edge"
)

//go:embed web openapi.yaml
var files embed.FS

// asset is a file of the page as it is sent.
type asset struct {
	contentType string
	etag        string
	plain       []byte
	zipped      []byte // nil if it would not be smaller
}

// pagePolicy allows the page its own files and the API, and nothing else: no inline
// script or style, no other site, no frame around it.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// addPage adds the routes of the page and of openapi.yaml.
func addPage(mux *http.ServeMux, e *edge.Entry) error {
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		a, err := readAsset(name)
		if err != nil {
			return fmt.Errorf("gateway: embedded file %s: %w", name, err)
		}
		pattern := "GET /" + name
		switch {
		case name == "web/index.html":
			pattern = "GET /{$}"
		case strings.HasPrefix(name, "web/"):
			pattern = "GET /assets/" + strings.TrimPrefix(name, "web/")
		}
		mux.Handle(pattern, e.Handle(pattern, nil, a.serve))
		return nil
	})
}

func readAsset(name string) (*asset, error) {
	b, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	// Not from the machine's own table: it must be the same everywhere.
	contentType, ok := map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".svg": "image/svg+xml", ".yaml": "application/yaml; charset=utf-8", ".txt": "text/plain; charset=utf-8",
	}[path.Ext(name)]
	if !ok {
		return nil, fmt.Errorf("no content type is known for %q", path.Ext(name))
	}
	if _, _, err := mime.ParseMediaType(contentType); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	a := &asset{contentType: contentType, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, plain: b}
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if z.Len() < len(b) {
		a.zipped = z.Bytes()
	}
	return a, nil
}

// serve answers with the file. A browser asks each time whether it has changed, so
// that the page and the API it talks to are always of one version.
func (a *asset) serve(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h["X-Content-Type-Options"] = nosniff
	h.Set("Vary", "Accept-Encoding")
	body, etag := a.plain, a.etag
	if a.zipped != nil && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body, etag = a.zipped, a.etag[:len(a.etag)-1]+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", etag)
	if match := r.Header.Get("If-None-Match"); match != "" && strings.Contains(match, etag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}

// acceptsGzip reads Accept-Encoding as far as is needed: gzip named and not
// forbidden by q=0.
func acceptsGzip(v string) bool {
	for part := range strings.SplitSeq(v, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(name) == "gzip" {
			q = strings.ReplaceAll(q, " ", "")
			return q != "q=0" && !strings.HasPrefix(q, "q=0.0")
		}
	}
	return false
}
