// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

func TestCommandLine(t *testing.T) {
	recorder := callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Service: "post", Epoch: 1}})
	recorder.Entry("POST /posts").Record(callgraph.OK, time.Millisecond, 1, 1)
	recorder.Edges(callgraph.Client, "a.B/C").Slot(recorder.NameEntry("POST /posts"), callgraph.AtEntry).Record(callgraph.OK, time.Millisecond, 1, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, _ := recorder.Snapshot(time.Now()).MarshalJSON()
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	instances := filepath.Join(t.TempDir(), "instances.yaml")
	list := "services:\n  - name: post\n    instances: [{addr: '127.0.0.1:7001', admin: '" + u.Host + "'}]\n"
	if err := os.WriteFile(instances, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"a table", []string{"graph", "--target", u.Host, "--token-file", token, "--entry", "POST /posts"}, 0, "POST /posts"},
		{"DOT", []string{"graph", "--target", u.Host, "--token-file", token, "--entry", "POST /posts", "--format", "dot"}, 0, "digraph"},
		{"Mermaid", []string{"graph", "--target", "x=" + u.Host, "--token-file", token, "--format", "mermaid"}, 0, "flowchart"},
		{"SVG", []string{"graph", "--target", u.Host, "--token-file", token, "--format", "svg"}, 0, "<svg"},
		{"JSON", []string{"graph", "--target", u.Host, "--token-file", token, "--format", "json"}, 0, `"nodes"`},
		{"a service that is found", []string{"graph", "--instances", instances, "--service", "post", "--token-file", token}, 0, "POST /posts"},
		{"services of nothing", []string{"graph", "--target", u.Host, "--service", "post"}, 2, "--instances"},
		{"no service", []string{"serve", "--instances", instances}, 2, "--service NAME"},
		{"another entry", []string{"graph", "--target", u.Host, "--token-file", token, "--entry", "GET /"}, 1, "POST /posts"},
		{"without the token", []string{"graph", "--target", u.Host}, 1, "admin token"},
		{"a format that is none", []string{"graph", "--target", u.Host, "--format", "gif"}, 1, "want text, dot"},
		{"no targets", []string{"serve"}, 2, "--target"},
		{"a target that is none", []string{"serve", "--target", "post"}, 2, "HOST:PORT"},
		{"no such file", []string{"graph", "--targets", "/nowhere/at/all"}, 1, "no such file"},
		{"an unknown flag", []string{"serve", "--bogus"}, 2, "--help"},
		{"too much", []string{"graph", "now"}, 2, "--help"},
		{"a short round", []string{"serve", "--target", u.Host, "--every", "1ms"}, 1, "want 1s"},
		{"an address that is none", []string{"serve", "--target", u.Host, "--addr", "nowhere"}, 1, "--addr"},
		{"help", []string{"--help"}, 0, "sluice-console serve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(c.args, &out, &errs); code != c.code || !strings.Contains(out.String()+errs.String(), c.says) {
				t.Errorf("%d, want %d and %q\n%s%s", code, c.code, c.says, out.String(), errs.String())
			}
		})
	}
}
