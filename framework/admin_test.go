// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// TestAdminPagesOfAServer looks at what a real server shows while it works.
func TestAdminPagesOfAServer(t *testing.T) {
	srv := framework.NewServer(
		framework.ServerConfig{Service: "shown", Admin: "127.0.0.1:0", AdminToken: "s3cret"}, framework.WithoutSignals(),
		framework.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))),
		framework.WithSettings([]config.InEffect{{Setting: config.Setting{Name: "greeting", Doc: "what is said"}, Value: "hello", Where: "hello.yaml:3"}}))
	echo := testpb.NewServer()
	echo.Register(srv)
	run(t, srv)
	conn, err := framework.Dial(framework.ClientConfig{Service: "shown", Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := testpb.NewEchoClient(conn)
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Act(t.Context(), &testpb.ActRequest{Act: "error"}); rpc.CodeOf(err) != rpc.NotFound {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := client.Act(t.Context(), &testpb.ActRequest{Act: "block"})
		ended <- err
	}()
	browser := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) string {
		t.Helper()
		res, err := browser.Get("http://" + srv.AdminAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v, %s: %.500s", path, err, res.Status, body)
		}
		return string(body)
	}
	var working struct {
		Items []struct{ Method, Span, Entry string }
	}
	for stop := time.Now().Add(time.Minute); len(working.Items) == 0; {
		if err := json.Unmarshal([]byte(get("/admin/requests?q=echo/act&format=json")), &working); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(stop) {
			t.Fatal("the call that blocks is not shown")
		}
	}
	for _, page := range [][]string{
		{"/admin/", "Overview: serving", "shown", "where its goroutine stands"},
		{"/admin/methods?method=sluice.test.v1.Echo/Act", "Served here", "Called from here, of shown", "biz_error", "2.00 s"},
		{"/admin/peers", srv.Addr(), "connected", "shown"},
		{"/admin/requests?span=" + working.Items[0].Span, "testpb.(*Server).Act", "[select", "time left"},
		{"/admin/rpcz?kept=error&q=no+such+thing", "business_error", "not_found", "sluice.test.v1.Echo/Act"},
		{"/admin/graph?entry=sluice.test.v1.Echo/Act", "sluice.test.v1.Echo/Act"},
		{"/admin/config", "admin_token", "(hidden)", "hello.yaml:3", "drain_timeout"},
		{"/admin/build", "go1.", "processors"},
		{"/admin/log", "as configured", "info, warn, error"},
		{"/admin/health", "Health: serving"},
		{"/admin/pprof/goroutine?debug=1", "goroutine profile"},
		{"/admin/rpcz?format=json&since=0&limit=1", `"next": 1`},
		{"/admin/graph?format=json", `"version":1`},
		{"/admin/items", "sluice.server.calls"},
		{"/metrics", "sluice_server_calls_total"},
	} {
		path := page[0]
		body := get(path)
		for _, want := range page[1:] {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%.3000s", path, want, body)
			}
		}
		if strings.Contains(body, "s3cret") {
			t.Errorf("%s tells the token", path)
		}
	}
	close(echo.Release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestSettingsOfAProgram: a program that shows a file with its server's settings shows each
// of them once, as it is in effect, under the name and from the line of the file.
func TestSettingsOfAProgram(t *testing.T) {
	type program struct {
		Greeting string                 `config:"greeting" doc:"what is said"`
		Server   framework.ServerConfig `config:"server"`
		Other    framework.ServerConfig `config:"other"`
		GRPC     grpcserver.Config      `config:"grpc"`
	}
	file := filepath.Join(t.TempDir(), "shown.yaml")
	if err := os.WriteFile(file, []byte("greeting: hello\nserver:\n  service: shown\n  admin: 127.0.0.1:0\n  max_in_flight: 7\nother: {service: other}\ngrpc: {max_streams: 9}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, settings, err := config.Explain(program{}, config.Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	g := grpcserver.New(cfg.GRPC)
	srv := framework.NewServer(cfg.Server, framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)), framework.WithSettings(settings), framework.WithTransport(g))
	run(t, srv)
	next := cfg.Server
	next.MaxConnections = 8
	await(t, func() bool { // it runs
		_, err := srv.Reload(next)
		return err == nil
	})
	cfg.GRPC.MaxInFlight = 10
	if _, err := g.Reload(cfg.GRPC); err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Items []struct{ Name, Value, Source string }
	}
	page := get(t, "http://"+srv.AdminAddr()+"/admin/config?format=json")
	if err := json.Unmarshal([]byte(page), &shown); err != nil {
		t.Fatal(err)
	}
	got := map[string][2]string{}
	for _, s := range shown.Items {
		if _, twice := got[s.Name]; twice {
			t.Errorf("%s is shown twice", s.Name)
		}
		got[s.Name] = [2]string{s.Value, s.Source}
	}
	for name, want := range map[string][2]string{
		"greeting":               {"hello", file + ":1"},
		"server.max_in_flight":   {"7", file + ":5"},
		"server.max_connections": {"8", "reload"},
		"server.mode":            {"coroutine", "default"},
		"other.service":          {"other", file + ":6"},
		"other.mode":             {"", "default"},
		"grpc.addr":              {"127.0.0.1:0", "default"},
		"grpc.max_streams":       {"9", file + ":7"},
		"grpc.max_in_flight":     {"10", "reload"},
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	for _, name := range []string{"max_in_flight", "gRPC: max_in_flight"} {
		if _, is := got[name]; is {
			t.Errorf("%s is shown under two names", name)
		}
	}
}
