// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
)

// at is the gateway at an address as a handler.
func at(t *testing.T, address string) http.Handler {
	t.Helper()
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	line := &http.Transport{}
	t.Cleanup(line.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: line,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(base)
			r.Out.URL.RawQuery = r.In.URL.RawQuery // a proxy would repair it
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
}

// BenchmarkTimelineOfServices reads a first page of ten posts, each with five
// comments and five likes, over one connection: the time of one read by a client
// that does nothing else, services included.
func BenchmarkTimelineOfServices(b *testing.B) {
	address := clustertest.Start(b)
	ask := func(method, path, token string, body, into any) {
		b.Helper()
		in, err := json.Marshal(body)
		if err != nil {
			b.Fatal(err)
		}
		r, err := http.NewRequestWithContext(b.Context(), method, address+path, bytes.NewReader(in))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 300 {
			b.Fatalf("%s %s = %d %v: %s", method, path, res.StatusCode, err, text)
		}
		_ = res.Body.Close()
		if into != nil {
			if err := json.Unmarshal(text, into); err != nil {
				b.Fatal(err)
			}
		}
	}
	var people [6]struct {
		Token string
		User  user
	}
	for i := range people {
		account := map[string]string{"name": fmt.Sprintf("user%d", i), "password": "correct horse"}
		ask("POST", "/accounts", "", account, nil)
		ask("POST", "/sessions", "", account, &people[i])
		if i > 0 {
			ask("POST", "/friend-requests", people[i].Token, map[string]string{"user": people[0].User.ID}, nil)
			ask("POST", "/friend-requests/"+people[i].User.ID+"/accept", people[0].Token, nil, nil)
		}
	}
	for i := range 10 {
		var p post
		ask("POST", "/posts", people[0].Token, map[string]string{"text": strings.Repeat("lorem ips ", 25) + strconv.Itoa(i)}, &p)
		for _, friend := range people[1:] {
			ask("POST", "/posts/"+p.ID+"/comments", friend.Token, map[string]string{"text": "a comment of forty characters or some more"}, nil)
			ask("PUT", "/posts/"+p.ID+"/like", friend.Token, nil, nil)
		}
	}
	for b.Loop() {
		ask("GET", "/timeline?limit=10", people[0].Token, nil, nil)
	}
	b.StopTimer()
	http.DefaultClient.CloseIdleConnections()
}
