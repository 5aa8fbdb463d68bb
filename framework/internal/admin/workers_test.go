// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
)

// TestWorkerOrders: a page of a program that takes every path leads nobody to what a worker
// does for its supervisor without asking who it is.
func TestWorkerOrders(t *testing.T) {
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	above, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer above.Close()
	below, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	extra := map[string]http.Handler{"/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, "extra "+r.URL.Path)
	})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- newBench(t, "").Answer(ctx, below, extra) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	all := admin.NewWorkers(slog.New(slog.DiscardHandler))
	defer all.Join(1, 1, above)()
	b := newBench(t, "secret")
	b.Workers = all
	h, err := b.Handler(extra)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(""))
		r.Host = "worker"
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
	for _, path := range []string{"/worker/order", "/worker/ready", "/worker/call", "/worker/items", "/worker%2Fready", "/pages/worker/ready", "/x%2F..%2Fworker/ready"} {
		if got := ask(http.MethodPost, path); !strings.HasPrefix(got, "extra /") {
			t.Errorf("%s: %.100q, want the program's page", path, got)
		}
	}
	for _, path := range []string{"/admin/pprof/goroutine", "/own"} { // what looks at it is in the worker
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer secret")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s, of another site: status %d: %.100s", path, w.Code, w.Body)
		}
	}
	if got := ask(http.MethodGet, "/admin/?worker=1"); !strings.Contains(got, "admin token") {
		t.Errorf("a worker's page without the token: %.200s", got)
	}
}

// TestSlowWorker: a worker may take its time to be ready before its supervisor asks it for
// anything.
func TestSlowWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		above, below := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- newBench(t, "").Answer(ctx, below, nil) }()
		<-time.After(10 * time.Minute)
		all := admin.NewWorkers(slog.New(slog.DiscardHandler))
		left := all.Join(1, 1, above)
		if err := all.Ready(ctx); err != nil {
			t.Error(err)
		}
		left()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = above.Close()
	})
}

// TestSilentWorker: a page of a worker that has stopped ends.
func TestSilentWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		above, below := net.Pipe()
		all := admin.NewWorkers(slog.New(slog.DiscardHandler))
		left := all.Join(1, 1, above)
		b := newBench(t, "")
		b.Workers = all
		b.h = handlerOf(t, b.Dashboard)
		res, body := b.get("/admin/build?worker=1")
		if res.StatusCode != http.StatusBadGateway || !strings.Contains(body, "worker 1: it does not answer") {
			t.Errorf("status %d: %s", res.StatusCode, body)
		}
		left()
		_, _ = above.Close(), below.Close()
	})
}
