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
	"regexp"
	"slices"
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

// pagePolicy allows the page its own files, the API and what its user has just chosen
// to upload (blob:), and nothing else: no inline script or style, no other site, no
// frame around it.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	// forever is for a file under an address that has the version of all files in it.
	forever = "public, max-age=31536000, immutable"
	// asked is for a file that the browser asks for each time whether it has changed, so
	// that the page and the API it talks to are always of one version.
	asked = "no-cache"
)

// addPage adds the routes of the page and of openapi.yaml. The files that the page
// needs are under /assets/VERSION/ as well, where they never change: the page itself is
// all that a browser that has been here before asks for.
func addPage(mux *http.ServeMux, e *edge.Entry) error {
	assets, version, err := readAssets()
	if err != nil {
		return err
	}
	add := func(pattern string, a *asset, keep string) {
		h := func(w http.ResponseWriter, r *http.Request) error { return a.serve(w, r, keep) }
		mux.Handle(pattern, e.Handle(pattern, nil, h))
	}
	for name, a := range assets {
		file, ofPage := strings.CutPrefix(name, "web/")
		switch {
		case file == "index.html":
			add("GET /{$}", a, asked)
		case ofPage:
			add("GET /assets/"+file, a, asked)
			add("GET /assets/"+version+"/"+file, a, forever)
		default:
			add("GET /"+name, a, asked)
		}
	}
	return nil
}

// readAssets reads all embedded files, by name, and their common version. The page
// itself is given the addresses of that version, and told at once of all modules that it
// begins with, so that none is found only by reading another.
func readAssets() (map[string]*asset, string, error) {
	texts := map[string][]byte{}
	all := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		texts[name] = b
		_, _ = fmt.Fprintf(all, "%s %d ", name, len(b)) // a hash takes everything
		_, _ = all.Write(b)
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("gateway: embedded files: %w", err)
	}
	version := hex.EncodeToString(all.Sum(nil)[:8])
	const index, here = "web/index.html", "<!--modules-->"
	var preloads []string
	for _, name := range modulesOf(texts, "web/app.js") {
		preloads = append(preloads, `<link rel="modulepreload" href="/assets/`+strings.TrimPrefix(name, "web/")+`">`)
	}
	page := strings.Replace(string(texts[index]), here, strings.Join(preloads, "\n"), 1)
	texts[index] = []byte(strings.ReplaceAll(page, `"/assets/`, `"/assets/`+version+"/"))

	assets := make(map[string]*asset, len(texts))
	for name, b := range texts {
		if assets[name], err = newAsset(name, b); err != nil {
			return nil, "", fmt.Errorf("gateway: embedded file %s: %w", name, err)
		}
	}
	return assets, version, nil
}

// imports finds the modules that a module cannot begin without; import() is another thing.
var imports = regexp.MustCompile(`(?m)^import .*from '\./([^']+)';$`)

// modulesOf gives a module and all that it needs to begin, those that come first first.
func modulesOf(texts map[string][]byte, first string) []string {
	all := []string{first}
	for i := 0; i < len(all); i++ {
		for _, m := range imports.FindAllSubmatch(texts[all[i]], -1) {
			if name := path.Join(path.Dir(all[i]), string(m[1])); !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

func newAsset(name string, b []byte) (*asset, error) {
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

// serve answers with the file, and how it may be kept.
func (a *asset) serve(w http.ResponseWriter, r *http.Request, keep string) error {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", keep)
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
