// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

// TestClientReload changes what a connection is configured with, one thing after the other.
func TestClientReload(t *testing.T) {
	all, addrs := twins(t, 2)
	cfg := framework.ClientConfig{Service: "rpctest", Addrs: addrs[:1]}
	conn, err := framework.Dial(cfg, framework.WithClientLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	method := *testpb.EchoEchoMethod
	method.MaxAttempts, method.Timeout = 3, time.Minute
	call := func() (string, error) {
		res, err := conn.Invoke(t.Context(), &method, &testpb.EchoRequest{Data: make([]byte, 2000)})
		if err != nil {
			return "", err
		}
		return res.(*testpb.EchoResponse).Name, nil
	}
	reload := func(c framework.ClientConfig, changes ...string) {
		t.Helper()
		got, err := conn.Reload(c)
		var names []string
		for _, change := range got {
			names = append(names, change.Name)
		}
		if err != nil || strings.Join(names, " ") != strings.Join(changes, " ") {
			t.Fatalf("%v changed, and %v; want %v", names, err, changes)
		}
		cfg = c
	}
	if who, err := call(); who != "0" || err != nil {
		t.Fatal(who, err)
	}
	for name, c := range map[string]struct {
		change func(*framework.ClientConfig)
		says   string
	}{
		"another service":          {func(c *framework.ClientConfig) { c.Service = "other" }, "service: cannot change without a restart"},
		"more connections":         {func(c *framework.ClientConfig) { c.Connections, c.Timeout = 9, 1 }, "connections: cannot change without a restart"},
		"plaintext":                {func(c *framework.ClientConfig) { c.Plaintext = "anywhere" }, "plaintext: cannot change without a restart"},
		"TLS":                      {func(c *framework.ClientConfig) { c.TLS = framework.TLS{CA: "a", Cert: "b", Key: "c"} }, "tls, on or off: cannot change"},
		"what contradicts itself":  {func(c *framework.ClientConfig) { c.Retries, c.Hedge = "off", []string{"*"} }, "client rpctest: framework.ClientConfig: Hedge is given but Retries is off"},
		"a time that is none":      {func(c *framework.ClientConfig) { c.Timeout = -1 }, "Timeout is -1ns"},
		"no address any more":      {func(c *framework.ClientConfig) { c.Addrs = nil }, "Addrs is empty"},
		"a breaker of no method":   {func(c *framework.ClientConfig) { c.NoBreaker = []string{"Echo"} }, "NoBreaker[0]"},
		"retries neither nor":      {func(c *framework.ClientConfig) { c.Retries = "maybe" }, `Retries "maybe"`},
		"a frame of next to nil":   {func(c *framework.ClientConfig) { c.MaxFrameBytes = 3 }, "MaxFrameBytes is 3"},
		"an address without port ": {func(c *framework.ClientConfig) { c.Addrs = []string{"here"} }, "is not host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := cfg
			c.change(&bad)
			if _, err := conn.Reload(bad); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want something about %q", err, c.says)
			}
			if who, err := call(); who != "0" || err != nil {
				t.Errorf("a call afterwards: %q, %v", who, err)
			}
		})
	}
	reload(cfg)
	next := cfg

	next.Timeout = 1
	reload(next, "timeout")
	if _, err := call(); rpc.CodeOf(err) != rpc.DeadlineExceeded {
		t.Errorf("a call that may take a nanosecond: %v", err)
	}
	next.Timeout = 0
	reload(next, "timeout")

	next.MaxFrameBytes = 2 << 10
	reload(next, "max_frame_bytes")
	if _, err := call(); rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("a frame beyond the new limit: %v", err)
	}
	next.MaxFrameBytes = 0
	reload(next, "max_frame_bytes")

	next.Addrs = addrs[1:]
	reload(next, "addrs")
	for range 20 {
		if who, err := call(); who != "1" || err != nil {
			t.Fatal(who, err)
		}
	}
	next.Addrs = addrs
	reload(next, "addrs")

	// Calls at one of the two lose their connection: they fail, or are made again.
	all[0].ailing.Store(func(ctx context.Context) error {
		all[0].relay.set(resets)
		<-ctx.Done()
		return nil
	})
	next.Retries = framework.Off
	reload(next, "retries")
	for {
		if _, err := call(); rpc.ReasonOf(err) == rpc.ReasonNetwork {
			break
		}
	}
	all[0].relay.set(passes)
	next.Retries = framework.On
	reload(next, "retries")
	for before := all[0].calls.Load(); all[0].calls.Load() == before; {
		if who, err := call(); who != "1" || err != nil {
			t.Fatalf("a call that may be made again: %q, %v", who, err)
		}
	}

	// A breaker that is open, of a method that has none any more.
	srv := testpb.NewServer()
	next.Addrs = []string{rpctest.Serve(t, srv.Register).Addr()}
	reload(next, "addrs")
	act := func() rpc.Reason {
		_, err := testpb.NewEchoClient(conn).Act(t.Context(), &testpb.ActRequest{Act: "panic"})
		return rpc.ReasonOf(err)
	}
	for act() != rpc.ReasonBreaker {
		continue
	}
	next.NoBreaker = []string{testpb.EchoActMethod.FullName()}
	reload(next, "no_breaker")
	for range 10 {
		if why := act(); why != rpc.ReasonPanic {
			t.Fatalf("a method without a breaker: %v", why)
		}
	}

	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	next.Timeout = time.Second
	if _, err := conn.Reload(next); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("a connection that is closed: %v", err)
	}
	local := framework.DialLocal(rpctest.Serve(t, srv.Register))
	defer local.Close()
	if _, err := local.Reload(next); err == nil || !strings.Contains(err.Error(), "within the process") {
		t.Errorf("a connection within the process: %v", err)
	}
}

// TestClientReloadUnderCalls changes all there is, time and again, while calls are made:
// none fails.
func TestClientReloadUnderCalls(t *testing.T) {
	cert := issue(t, nil, t.TempDir(), "echo", "spiffe://test/echo", time.Hour)
	srv, _ := secureServer(t, framework.ServerConfig{TLS: cert})
	cfg := framework.ClientConfig{
		Service: "echo", Addrs: []string{srv.Addr()}, TLS: issue(t, nil, t.TempDir(), "a", "spiffe://test/a", time.Hour),
	}
	conn, err := framework.Dial(cfg, framework.WithClientLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := testpb.NewEchoClient(conn)
	stop := make(chan struct{})
	var calls atomic.Int64
	var callers sync.WaitGroup
	for range 2 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				_, err := client.Echo(ctx, &testpb.EchoRequest{})
				cancel()
				if err != nil && rpc.ReasonOf(err) != rpc.ReasonDeadline { // that a busy machine is late is nobody's fault
					t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	other := cfg
	other.Timeout, other.ConnectTimeout, other.ReadTimeout, other.MaxFrameBytes, other.Campus = time.Minute, 2*time.Second, time.Minute, 1<<20, "north"
	other.NoBreaker, other.Hedge = []string{"*"}, []string{"*"}
	other.TLS = issue(t, nil, t.TempDir(), "b", "spiffe://test/b", time.Hour)
	for i := range 20 {
		for _, next := range []framework.ClientConfig{other, cfg} {
			if _, err := conn.Reload(next); err != nil {
				t.Fatal(err)
			}
		}
		await(t, func() bool { return calls.Load() > int64(10*i) || t.Failed() })
	}
	close(stop)
	callers.Wait()
}

// TestWatchClients follows a file of a server and a client: what is wrong in the one
// changes nothing of the other either.
func TestWatchClients(t *testing.T) {
	type program struct {
		Server framework.ServerConfig `config:"server"`
		Cart   framework.ClientConfig `config:"cart"`
	}
	file := filepath.Join(t.TempDir(), "shop.yaml")
	write := func(inFlight, cart string) {
		t.Helper()
		text := "server:\n  service: shop\n  admin: 127.0.0.1:0\n  max_in_flight: " + inFlight + "\ncart:\n  service: cart\n  addrs: [\"127.0.0.1:1\"]\n" + cart
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("5", "")
	src := config.Source{File: file}
	cfg, err := config.Load(program{}, src)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	srv := framework.NewServer(cfg.Server, framework.WithoutSignals(), framework.WithListeners(lis, nil), framework.WithLogger(quiet))
	conn, err := framework.Dial(cfg.Cart, framework.WithClientLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cart := framework.ClientOf[program]{Conn: conn, Pick: func(p program) framework.ClientConfig { return p.Cart }}
	pick := func(p program) framework.ServerConfig { return p.Server }
	for name, err := range map[string]error{
		"is there twice": framework.Watch(t.Context(), srv, program{}, src, pick, cart, cart),
		"of Dial":        framework.Watch(t.Context(), srv, program{}, src, pick, framework.ClientOf[program]{Pick: cart.Pick}),
		"pick is nil":    framework.Watch(t.Context(), srv, program{}, src, nil, cart),
		"nothing":        framework.Watch(t.Context(), nil, program{}, src, pick),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v; want something about %q", err, name)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- srv.Run(ctx) }()
	go func() { ended <- framework.Watch(ctx, srv, program{}, src, pick, cart) }()
	await(t, func() bool { return srv.AdminAddr() != "" })
	says := func(want string) {
		t.Helper()
		await(t, func() bool {
			return strings.Contains(get(t, "http://"+srv.AdminAddr()+"/admin/config?format=text"), want)
		})
	}
	says("client cart: retries")
	write("5", "  retries: off\n")
	says(`client cart: retries: "on" -> "off"`)
	write("6", "  retries: off\n  hedge: [\"*\"]\n")
	says("client cart: framework.ClientConfig: Hedge is given but Retries is off")
	write("7", "  timeout: 3\n")
	says("is no duration")
	write("8", "  retries: off\n  timeout: 3s\n")
	says(`max_in_flight: "5" -> "8"`)
	says(`client cart: timeout: "0s" -> "3s"`)
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
