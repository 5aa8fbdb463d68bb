// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
)

// startSystem runs all of Moments in this process, on a directory of the test, and
// gives the way to its gateway.
func startSystem(t *testing.T) http.Handler {
	t.Helper()
	data, err := cluster.OpenData(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	top := topology.Default()
	top.Gateway.Listen = "127.0.0.1:0"
	top.Gateway.Limits = false
	node, err := cluster.Start(t.Context(), cluster.Config{
		Topology: top, Roles: topology.Roles(), Data: data, Log: slog.New(slog.DiscardHandler), CheapPasswords: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(node.URL())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
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
