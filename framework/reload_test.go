// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// TestReload changes limits and rules of a server that runs.
func TestReload(t *testing.T) {
	cert := issue(t, nil, t.TempDir(), "echo", "spiffe://test/echo", time.Hour)
	cfg := framework.ServerConfig{TLS: cert, Admin: "127.0.0.1:0", AdminToken: "sesame"}
	srv, _ := secureServer(t, cfg)
	client := secureClient(t, srv.Addr(), issue(t, nil, t.TempDir(), "a", "spiffe://test/a", time.Hour))
	call := func() error {
		_, err := client.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 10_000)})
		return err
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	cfg.Service = "echo"
	other := cfg
	for name, c := range map[string]struct {
		change func(*framework.ServerConfig)
		says   string
	}{
		"another service":      {func(c *framework.ServerConfig) { c.Service = "other" }, "service: cannot change without a restart"},
		"another address":      {func(c *framework.ServerConfig) { c.Addr, c.MaxInFlight = "127.0.0.1:1", 7 }, "addr: cannot change without a restart"},
		"no token any more":    {func(c *framework.ServerConfig) { c.AdminToken = "" }, "admin_token, to none: cannot change"},
		"no TLS any more":      {func(c *framework.ServerConfig) { c.TLS = framework.TLS{} }, "tls, on or off: cannot change"},
		"a limit that is none": {func(c *framework.ServerConfig) { c.MaxFrameBytes = 1 }, "MaxFrameBytes is 1"},
		"a method of nobody":   {func(c *framework.ServerConfig) { c.Allow = []framework.Allow{{[]string{"a.B/C"}, []string{"*"}}} }, "no method a.B/C"},
		"a file that is none":  {func(c *framework.ServerConfig) { c.TLS.Cert = "nowhere" }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			next := cfg
			c.change(&next)
			if _, err := srv.Reload(next); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want something about %q", err, c.says)
			}
			if err := call(); err != nil {
				t.Errorf("a call afterwards: %v", err)
			}
		})
	}
	other.Allow = []framework.Allow{{Methods: []string{"*"}, Callers: []string{"spiffe://test/b"}}}
	if changes, err := srv.Reload(other); err != nil || len(changes) != 1 || changes[0].Name != "allow" {
		t.Fatalf("got %v, %v", changes, err)
	}
	if err := call(); rpc.ReasonOf(err) != rpc.ReasonDenied {
		t.Errorf("a caller that is not allowed any more: %v", err)
	}
	other.Allow, other.MaxFrameBytes = nil, 8<<10
	if _, err := srv.Reload(other); err != nil {
		t.Fatal(err)
	}
	if err := call(); err == nil {
		t.Error("a frame beyond the new limit was taken")
	}
	if changes, err := srv.Reload(other); err != nil || changes != nil {
		t.Errorf("the same once more: %v, %v", changes, err)
	}
	page := get(t, "http://"+srv.AdminAddr()+"/admin/config")
	for _, want := range []string{`max_frame_bytes: "16777216" -> "8192"`, "allow: ", "cannot change without a restart", "8192"} {
		if !strings.Contains(page, want) {
			t.Errorf("/admin/config does not say %q:\n%s", want, page)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return string(b)
}

// lines are those of a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// TestWatch follows a file: good and bad ones in turn.
func TestWatch(t *testing.T) {
	type program struct {
		Server framework.ServerConfig `config:"server"`
	}
	file := filepath.Join(t.TempDir(), "hello.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("server:\n  service: hello\n  admin: 127.0.0.1:0\n  max_in_flight: 5\n")
	src := config.Source{File: file}
	cfg, err := config.Load(program{}, src)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	srv := framework.NewServer(cfg.Server, framework.WithoutSignals(), framework.WithListeners(lis, nil), framework.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- srv.Run(ctx) }()
	says := func(want string) {
		t.Helper()
		await(t, func() bool { return strings.Contains(get(t, "http://"+srv.AdminAddr()+"/admin/config"), want) })
	}
	go func() {
		ended <- framework.Watch(ctx, srv, program{}, src, func(p program) framework.ServerConfig { return p.Server })
	}()
	await(t, func() bool { return srv.AdminAddr() != "" })
	write("server:\n  service: hello\n  admin: 127.0.0.1:0\n  max_in_flight: 6\n")
	says(`max_in_flight: "5" -> "6"`)
	write("server:\n  service: hello\n  max_inflight: 7\n")
	says("hello.yaml:3: server.max_inflight: no such setting")
	write("server:\n  service: hello\n  admin: 127.0.0.1:0\n  read_timeout: 7\n")
	says("is no duration")
	write("server:\n  service: hello\n  admin: 127.0.0.1:0\n  max_in_flight: 8\n")
	says(`max_in_flight: "6" -> "8"`)
	const same = "configuration read again"
	if log.has(same) {
		t.Error("what has changed something is told as if it had not")
	}
	write("server:\n  service: hello\n  admin: 127.0.0.1:0\n  max_in_flight: 8 # as before\n")
	await(t, func() bool { return log.has(same) })
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
