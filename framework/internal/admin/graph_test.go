// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

const hostile = `POST /<script>alert("x")</script>` + "\x1b[31m"

func newGraph(t *testing.T) http.Handler {
	t.Helper()
	r := callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Service: "post", Instance: "one", Epoch: 7}})
	serve := r.Edges(callgraph.Server, "moments.v1.PostService/Publish")
	r.Entry(hostile).Record(callgraph.OK, time.Millisecond, 1, 1)
	serve.Slot(tracing.EntryOf("POST /posts"), callgraph.AtEntry).Record(callgraph.OK, time.Millisecond, 10, 20)
	serve.Slot(tracing.EntryOf(hostile), r.Method(hostile)).Record(callgraph.Timeout, time.Second, 10, 0)
	door := admit.New(2)
	s := door.NewService("post")
	s.Method("moments.v1.PostService/Publish", &rpc.Method{Service: "moments.v1.PostService", Name: "Publish"})
	t.Cleanup(s.Join())
	door.Pin(qos.PriorityOf(qos.Browse, 3))
	return handlerOf(t, &admin.Dashboard{Items: metrics.NewRegistry(metrics.Config{}), Graph: r, Door: door})
}

func TestGraph(t *testing.T) {
	h := newGraph(t)
	get := func(query, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://localhost/admin/graph?"+query, nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	t.Run("the snapshot", func(t *testing.T) {
		for _, w := range []*httptest.ResponseRecorder{get("format=json", "*/*"), get("", "application/json")} {
			s, err := callgraph.ReadSnapshot(w.Body)
			if err != nil || w.Header().Get("Content-Type") != "application/json" {
				t.Fatal(err, w.Header())
			}
			if s.Process.Service != "post" || len(s.Rows) != 3 || len(s.Marks) != 1 || s.Marks[0].Node != "moments.v1.PostService" || s.Marks[0].Mark.Text != "pinned at browse/3" {
				t.Errorf("%+v", s)
			}
		}
	})
	for _, c := range []struct {
		name, query, media, says string
		status                   int
	}{
		{"an entry by name", "format=text&entry=POST+/posts", "text/plain; charset=utf-8", "PostService/Publish", 200},
		{"an entry by number", "format=text&entry=" + tracing.EntryOf("POST /posts").String(), "text/plain; charset=utf-8", "PostService/Publish", 200},
		{"SVG", "format=svg&entry=POST+/posts", "image/svg+xml", "<svg ", 200},
		{"DOT", "format=dot&entry=POST+/posts", "text/plain; charset=utf-8", "digraph", 200},
		{"Mermaid", "format=mermaid&entry=POST+/posts", "text/plain; charset=utf-8", "flowchart", 200},
		{"JSON of an entry", "format=json&entry=POST+/posts", "application/json", `"nodes"`, 200},
		{"all entries", "format=svg", "image/svg+xml", "Publish", 200},
		{"a hostile entry", "format=svg&entry=" + url.QueryEscape(hostile), "image/svg+xml", "&lt;script&gt;", 200},
		{"a hostile entry as text", "format=text&entry=" + url.QueryEscape(hostile), "text/plain; charset=utf-8", "Publish", 200},
		{"an unknown entry", "format=svg&entry=GET+/nothing", "text/plain; charset=utf-8", `"GET /nothing"`, 404},
		{"a format that is none", "format=gif", "text/plain; charset=utf-8", "want html, json, svg", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(c.query, "*/*")
			body := w.Body.String()
			if w.Code != c.status || w.Header().Get("Content-Type") != c.media || !strings.Contains(body, c.says) || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%d %v\n%s", w.Code, w.Header(), body)
			}
			if c.media == "image/svg+xml" && strings.Contains(body, "<script") || strings.Contains(body, "\x1b") {
				t.Errorf("a name is not escaped:\n%s", body)
			}
		})
	}
	t.Run("compressed", func(t *testing.T) {
		plain := get("format=svg", "*/*").Body.String()
		for coding, zipped := range map[string]bool{"gzip": true, "br, GZIP;q=0.5": true, "gzip;q=0": false, "identity": false, "gzip;q=x": false} {
			r := httptest.NewRequest("GET", "http://localhost/admin/graph?format=svg", nil)
			r.RemoteAddr = "127.0.0.1:1"
			r.Header.Set("Accept-Encoding", coding)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := w.Header().Get("Content-Encoding") == "gzip"; got != zipped {
				t.Errorf("%s: compressed: %t", coding, got)
			}
			if !zipped {
				continue
			}
			z, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(z); err != nil || string(b) != plain {
				t.Errorf("%s: %v, another body", coding, err)
			}
		}
	})
}
