// SPDX-License-Identifier: Apache-2.0

package ocean

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"path"
	"time"
)

//go:embed web
var web embed.FS

// policy allows the page its own files and this server, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const maxBody = 64 << 10

// contentTypes are not taken from the machine: they must be the same everywhere.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// Handler gives the page on /, its files, and what it and the command line ask for:
//
//	GET  /api/state               State
//	POST /api/lines/{a}/{b}       Change
//	POST /api/comments            {"region", "text", "reply_to"}
//	POST /api/posts               a new post
//	POST /api/regions/{name}      {"join": true}, or false to leave
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/state", func(w http.ResponseWriter, r *http.Request) { answer(w, s.State(r.Context())) })
	mux.HandleFunc("POST /api/lines/{a}/{b}", func(w http.ResponseWriter, r *http.Request) {
		var c Change
		if !read(w, r, &c) {
			return
		}
		err := s.Set(r.PathValue("a"), r.PathValue("b"), c)
		done(w, err)
	})
	mux.HandleFunc("POST /api/comments", func(w http.ResponseWriter, r *http.Request) {
		var c struct {
			Region  string `json:"region"`
			Text    string `json:"text"`
			ReplyTo string `json:"reply_to"`
		}
		if !read(w, r, &c) {
			return
		}
		err := s.Say(r.Context(), c.Region, c.Text, c.ReplyTo)
		s.forget()
		done(w, err)
	})
	mux.HandleFunc("POST /api/posts", func(w http.ResponseWriter, _ *http.Request) {
		s.scene.again()
		s.forget()
		done(w, nil)
	})
	mux.HandleFunc("POST /api/regions/{name}", func(w http.ResponseWriter, r *http.Request) {
		var c struct {
			Join bool `json:"join"`
		}
		if !read(w, r, &c) {
			return
		}
		if s.cfg.Change == nil {
			http.Error(w, "these regions stay", http.StatusNotFound)
			return
		}
		err := s.cfg.Change(r.Context(), r.PathValue("name"), c.Join)
		s.forget()
		done(w, err)
	})
	mux.HandleFunc("GET /{file...}", serveFile)
	// A page of another site may send a form or a simple request here: refused by its
	// origin. A name that leads to loopback is no address of ours: refused by the host.
	return local(http.NewCrossOriginProtection().Handler(mux))
}

// forget has the next State look anew.
func (s *Server) forget() {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.at = time.Time{}
}

func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this page is at an address of this machine only", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func serveFile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	b, err := fs.ReadFile(web, path.Join("web", name))
	kind := contentTypes[path.Ext(name)]
	if err != nil || kind == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b)
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, "send application/json", http.StatusUnsupportedMediaType)
		return false
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		http.Error(w, "it is not understood: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func done(w http.ResponseWriter, err error) {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	status := http.StatusBadRequest
	if said, ok := errors.AsType[*problem](err); ok {
		status = said.Status
	}
	if errors.Is(err, ErrNoLine) || errors.Is(err, ErrNobody) {
		status = http.StatusNotFound
	}
	if errors.Is(err, context.DeadlineExceeded) {
		status = http.StatusGatewayTimeout
	}
	http.Error(w, err.Error(), status)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the reader may have gone
}
