// SPDX-License-Identifier: Apache-2.0

package grpcserver_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
)

// TestReload changes what can be changed of a listener that serves, and asks for what
// cannot.
func TestReload(t *testing.T) {
	cfg := grpcserver.Config{MaxInFlight: 1}
	g := grpcserver.New(cfg)
	srv := framework.NewServer(framework.ServerConfig{Service: "echo", Admin: "127.0.0.1:0", DrainTimeout: 5 * time.Second},
		framework.WithTransport(g), framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	echo := testpb.NewServer()
	echo.Register(srv)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(g.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	var blocked sync.WaitGroup
	blocked.Go(func() {
		if _, err := act(t.Context(), conn, "block"); err != nil {
			t.Errorf("a call that was under way: %v", err)
		}
	})
	for limit := time.Now().Add(time.Minute); echo.Acted.Load() == 0 && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	if _, err := act(t.Context(), conn, "x"); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("beyond the limit: %v", err)
	}
	for name, change := range map[string]func(*grpcserver.Config){
		"max_streams":  func(c *grpcserver.Config) { c.MaxStreams, c.MaxInFlight = 7, 9 },
		"addr":         func(c *grpcserver.Config) { c.Addr = "127.0.0.1:1" },
		"idle_timeout": func(c *grpcserver.Config) { c.IdleTimeout = time.Minute },
		"MinPing":      func(c *grpcserver.Config) { c.MinPing = -1 },
	} {
		next := cfg
		change(&next)
		if _, err := g.Reload(next); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := act(t.Context(), conn, "x"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("what was refused as a whole was taken in part: %v", err)
	}
	cfg.MaxInFlight, cfg.MaxConnections = 2, 3
	if changes, err := g.Reload(cfg); err != nil || len(changes) != 2 {
		t.Errorf("got %v, %v", changes, err)
	}
	if changes, err := g.Reload(cfg); err != nil || len(changes) != 0 {
		t.Errorf("the same once more: %v, %v", changes, err)
	}
	if _, err := act(t.Context(), conn, "x"); err != nil {
		t.Errorf("within the new limit: %v", err)
	}
	close(echo.Release)
	blocked.Wait()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+srv.AdminAddr()+"/admin/config?q=gRPC", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"gRPC: max_in_flight", `gRPC: max_in_flight: "1" -> "2"`, "gRPC: max_streams: cannot change without a restart", "gRPC: keepalive"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("/admin/config says nothing of %s", want)
		}
	}
}
