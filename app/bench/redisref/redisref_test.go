// SPDX-License-Identifier: Apache-2.0

package redisref_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/bench/redisref"
	"github.com/sluice-rpc/sluice/app/load"
)

func start(t *testing.T) string {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server; on Debian: apt-get install redis-server")
	}
	server, err := redisref.Start(t.Context(), path, t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	front := redisref.NewFront(server.Addr)
	t.Cleanup(func() { _ = front.Close() })
	web := httptest.NewServer(front.Handler())
	t.Cleanup(web.Close)
	return web.URL
}

func TestEveryModeIsComplete(t *testing.T) {
	base := start(t)
	g, err := load.Generate(40, 1)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (load.Target, error) { return redisref.NewTarget(base) }
	if err := load.Populate(t.Context(), g, 8, dial, nil); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []load.Mode{load.FanOut, load.Reads, load.OpenLoop, load.Mixed} {
		t.Run(string(mode), func(t *testing.T) {
			c := load.Config{Mode: mode, Duration: 300 * time.Millisecond, Graph: g, Dial: dial}
			if mode == load.OpenLoop {
				c.Rate = 200
			}
			res, err := load.Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Void(); err != nil {
				t.Error(err)
			}
			if res.Calls() == 0 {
				t.Error("no calls")
			}
			if posts := mode == load.FanOut || mode == load.Mixed; posts != (res.Deliveries > 0) || posts != (res.Check.Expected > 0) {
				t.Errorf("deliveries %d, expected entries %d", res.Deliveries, res.Check.Expected)
			}
			if mode == load.Reads && res.PageItems < load.PageSize {
				t.Errorf("pages of %v posts", res.PageItems)
			}
		})
	}
}

func TestFrontRefusesMalformedInput(t *testing.T) {
	base := start(t)
	for name, tc := range map[string]struct{ method, path, body string }{
		"compose not json":   {http.MethodPost, "/compose", "{"},
		"compose oversized":  {http.MethodPost, "/compose", `{"text":"` + strings.Repeat("x", 70_000) + `"}`},
		"home without user":  {http.MethodGet, "/home?start=0&stop=9", ""},
		"home page too long": {http.MethodGet, "/home?user_id=1&start=0&stop=1000", ""},
		"home backwards":     {http.MethodGet, "/home?user_id=1&start=9&stop=0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, base+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
}

func TestStartWithoutRedis(t *testing.T) {
	if _, err := redisref.Start(t.Context(), "/nonexistent/redis-server", t.TempDir(), t.Output()); err == nil {
		t.Fatal("started")
	}
}
