// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

func TestBadServerConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  framework.ServerConfig
		says string
	}{
		"no name":            {framework.ServerConfig{}, "Service is empty"},
		"odd name":           {framework.ServerConfig{Service: "Not A Name"}, `Service "Not A Name"`},
		"no port":            {framework.ServerConfig{Service: "s", Addr: "localhost"}, `Addr "localhost" is not host:port`},
		"odd port":           {framework.ServerConfig{Service: "s", Addr: ":99999"}, "0 to 65535"},
		"tiny frames":        {framework.ServerConfig{Service: "s", MaxFrameBytes: 1}, "MaxFrameBytes is 1"},
		"hasty idle":         {framework.ServerConfig{Service: "s", IdleTimeout: time.Second}, "IdleTimeout is 1s: it must be 15s to"},
		"negative drain":     {framework.ServerConfig{Service: "s", DrainTimeout: -1}, "DrainTimeout"},
		"foreign address":    {framework.ServerConfig{Service: "s", Addr: "203.0.113.1:0"}, "not an address of this machine"},
		"unknown mode":       {framework.ServerConfig{Service: "s", Mode: "fibre"}, `Mode "fibre": it must be "coroutine", "thread" or "process"`},
		"threads of none":    {framework.ServerConfig{Service: "s", Threads: 8}, `Threads or ThreadQueue is given but Mode is "coroutine"`},
		"workers of none":    {framework.ServerConfig{Service: "s", Workers: 2}, `Workers is given but Mode is "coroutine"`},
		"threads of many":    {framework.ServerConfig{Service: "s", Mode: "process", Threads: 2}, `Threads or ThreadQueue is given but Mode is "process"`},
		"too many workers":   {framework.ServerConfig{Service: "s", Mode: "process", Workers: 257}, "Workers is 257"},
		"too many threads":   {framework.ServerConfig{Service: "s", Mode: "thread", Threads: 1 << 20}, "Threads is 1048576"},
		"too many mistakes":  {framework.ServerConfig{Addr: "x", MaxInFlight: -1}, "MaxInFlight"},
		"and the first also": {framework.ServerConfig{Addr: "x", MaxInFlight: -1}, "Service is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			err := framework.NewServer(c.cfg).Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v; want something about %q", err, c.says)
			}
		})
	}
}

func TestBadClientConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  framework.ClientConfig
		says string
	}{
		"no name":      {framework.ClientConfig{Addrs: []string{"x:1"}}, "Service is empty"},
		"no addresses": {framework.ClientConfig{Service: "s"}, "Addrs is empty"},
		"empty one":    {framework.ClientConfig{Service: "s", Addrs: []string{""}}, "Addrs[0] is empty"},
		"port zero":    {framework.ClientConfig{Service: "s", Addrs: []string{"h:0"}}, "port 0"},
		"too many":     {framework.ClientConfig{Service: "s", Addrs: []string{"h:1"}, Connections: 100}, "Connections is 100"},
		"negative":     {framework.ClientConfig{Service: "s", Addrs: []string{"h:1"}, Timeout: -1}, "Timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := framework.Dial(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v; want something about %q", err, c.says)
			}
		})
	}
}

func TestAddressWithoutHostIsLoopback(t *testing.T) {
	srv := framework.NewServer(framework.ServerConfig{Service: "s", Addr: ":0", Admin: ":0"})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{srv.Addr(), srv.AdminAddr()} {
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Errorf("listens on %s", addr)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestBusyPort(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	err = framework.NewServer(framework.ServerConfig{Service: "s", Addr: lis.Addr().String()}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), lis.Addr().String()) {
		t.Fatalf("got %v", err)
	}
}

// TestWithListeners serves on sockets that were bound before.
func TestWithListeners(t *testing.T) {
	var bound [2]net.Listener
	for i := range bound {
		var err error
		if bound[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	srv := framework.NewServer(framework.ServerConfig{Service: "s", Addr: "127.0.0.1:1"},
		framework.WithListeners(bound[0], bound[1]), framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.NewServer().Register(srv)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	conn, err := framework.Dial(framework.ClientConfig{Service: "s", Addrs: []string{bound[0].Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	res, err := http.Get("http://" + bound[1].Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, lis := range bound {
		if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s was not closed: %v", lis.Addr(), err)
		}
	}
	wrapped := struct{ net.Listener }{bound[0]}
	err = framework.NewServer(framework.ServerConfig{Service: "s"}, framework.WithListeners(wrapped, nil)).Listen()
	if err == nil || !strings.Contains(err.Error(), "*net.TCPListener") {
		t.Errorf("a listener without a file: %v", err)
	}
}

// TestRunThatCannotServe closes what it has bound.
func TestRunThatCannotServe(t *testing.T) {
	var bound [2]net.Listener
	for i := range bound {
		var err error
		if bound[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		defer bound[i].Close()
	}
	if err := bound[0].Close(); err != nil {
		t.Fatal(err)
	}
	srv := framework.NewServer(framework.ServerConfig{Service: "s"},
		framework.WithListeners(bound[0], bound[1]), framework.WithLogger(slog.New(slog.DiscardHandler)), framework.WithoutSignals())
	if err := srv.Run(t.Context()); !errors.Is(err, net.ErrClosed) || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("a listener that is closed: got %v", err)
	}
	if _, err := bound[1].Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener of the admin pages is open: %v", err)
	}
}

func TestRegistrationMistakes(t *testing.T) {
	twice := framework.NewServer(framework.ServerConfig{Service: "s"})
	testpb.NewServer().Register(twice)
	testpb.NewServer().Register(twice)
	if err := twice.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "registered twice") {
		t.Errorf("got %v", err)
	}
	short := framework.NewServer(framework.ServerConfig{Service: "s"})
	short.Register(testpb.EchoDesc, nil)
	if err := short.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "2 methods but 0 handlers") {
		t.Errorf("got %v", err)
	}
}

func TestHealthPages(t *testing.T) {
	srv := rpctest.Serve(t, testpb.NewServer().Register)
	for _, page := range []string{"/livez", "/readyz"} {
		res, err := http.Get("http://" + srv.AdminAddr() + page)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", page, res.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestSIGTERM sends the real signal while a call is being served: the call must be
// answered, Run must return nil, and nobody else may be let in.
func TestSIGTERM(t *testing.T) {
	ours := testpb.NewServer()
	srv := framework.NewServer(framework.ServerConfig{Service: "s"}, framework.WithLogger(slog.New(slog.DiscardHandler)))
	ours.Register(srv)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(context.Background()) }()
	conn, err := framework.Dial(framework.ClientConfig{Service: "s", Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := testpb.NewEchoClient(conn)
	answered := make(chan error, 1)
	go func() {
		_, err := client.Act(context.Background(), &testpb.ActRequest{Act: "block"})
		answered <- err
	}()
	for ours.Acted.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for { // from the moment it drains, new calls find no instance
		if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); rpc.CodeOf(err) == rpc.Unavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server went on serving")
		}
		time.Sleep(time.Millisecond)
	}
	close(ours.Release)
	if err := <-answered; err != nil {
		t.Errorf("the call accepted before SIGTERM failed: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestConfigFromFile holds the structs to what package config can fill and list.
func TestConfigFromFile(t *testing.T) {
	server, err := config.Describe(framework.ServerConfig{}, "SLUICE")
	if err != nil {
		t.Fatal(err)
	}
	client, err := config.Describe(framework.ClientConfig{}, "SLUICE")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(server, client...) {
		if s.Doc == "" {
			t.Errorf("setting %s has no text", s.Name)
		}
	}
	for _, all := range []reflect.Type{reflect.TypeFor[framework.ServerConfig](), reflect.TypeFor[framework.ClientConfig](), reflect.TypeFor[framework.TLS](), reflect.TypeFor[framework.Allow]()} {
		for i := range all.NumField() {
			if f := all.Field(i); f.Tag.Get("config") == "" {
				t.Errorf("%v.%s lacks its tag", all, f.Name)
			}
		}
	}
}
