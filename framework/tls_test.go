// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/identity/devca"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// authority is a CA of the tests, made once: keys cost time.
var authority = sync.OnceValues(devca.New)

func newCA(t *testing.T) *devca.CA {
	t.Helper()
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue writes a certificate that is good from an hour ago for so long from now on.
func issue(t *testing.T, ca *devca.CA, dir, name, id string, life time.Duration) framework.TLS {
	t.Helper()
	if ca == nil {
		var err error
		if ca, err = authority(); err != nil {
			t.Fatal(err)
		}
	}
	f, err := ca.Issue(dir, name, id, time.Now().Add(-time.Hour), time.Now().Add(life))
	if err != nil {
		t.Fatal(err)
	}
	return framework.TLS{CA: f.CA, Cert: f.Cert, Key: f.Key}
}

// secureServer serves Echo under TLS until the test ends.
func secureServer(t *testing.T, cfg framework.ServerConfig, opts ...framework.ServerOption) (*framework.Server, *testpb.Server) {
	t.Helper()
	cfg.Service = "echo"
	if cfg.TLS.CA == "" {
		peers := cfg.TLS.Peers
		cfg.TLS = issue(t, nil, t.TempDir(), "echo", "spiffe://test/echo", time.Hour)
		cfg.TLS.Peers = peers
	}
	srv := framework.NewServer(cfg, append([]framework.ServerOption{framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	echo := testpb.NewServer()
	echo.Register(srv)
	run(t, srv)
	return srv, echo
}

func secureClient(t *testing.T, addr string, cert framework.TLS) testpb.EchoClient {
	t.Helper()
	conn, err := framework.Dial(framework.ClientConfig{Service: "echo", Addrs: []string{addr}, TLS: cert, ConnectTimeout: 10 * time.Second},
		framework.WithClientLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewEchoClient(conn)
}

// itemOf gives the value of an item of this process.
func itemOf(t *testing.T, name string, labels ...metrics.Label) float64 {
	t.Helper()
	series := framework.Items().Snapshot().Find(name, labels...)
	if series == nil {
		t.Fatalf("there is no item %s %v", name, labels)
	}
	return series.Value
}

func handshakesEnded(t *testing.T, how string) float64 {
	t.Helper()
	return itemOf(t, "sluice.listener.handshakes", metrics.Label{Name: "result", Value: how})
}

// TestMutualTLS makes calls of all sizes, some at once, under TLS.
func TestMutualTLS(t *testing.T) {
	var who atomic.Pointer[string]
	srv, _ := secureServer(t, framework.ServerConfig{}, framework.WithServerInterceptors(func(_ *rpc.Method, next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			who.Store(&rpc.CallFrom(ctx).Identity)
			return next(ctx, req)
		}
	}))
	client := secureClient(t, srv.Addr(), issue(t, nil, t.TempDir(), "front", "spiffe://test/shop/front", time.Hour))
	var callers sync.WaitGroup
	for i, size := range []int{0, 1, 100, 8 << 10, 16<<10 - 60, 16 << 10, 63 << 10, 70 << 10, 300 << 10, 3 << 20} {
		callers.Go(func() {
			data := make([]byte, size)
			for j := range data {
				data[j] = byte(i + j)
			}
			calls := 10
			if size > 100<<10 {
				calls = 2
			}
			for n := range calls {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				res, err := client.Echo(ctx, &testpb.EchoRequest{Id: int64(n), Data: data})
				cancel()
				if err != nil || res.Id != int64(n) || string(res.Data) != string(data) {
					t.Errorf("%d bytes: got %d bytes of call %d, %v", size, len(res.GetData()), res.GetId(), err)
					return
				}
			}
		})
	}
	callers.Wait()
	if id := who.Load(); id == nil || *id != "spiffe://test/shop/front" {
		t.Errorf("the handler was told the identity %v", id)
	}
}

// TestRefusedHandshakes connects with certificates that are of no use here.
func TestRefusedHandshakes(t *testing.T) {
	srv, echo := secureServer(t, framework.ServerConfig{TLS: framework.TLS{Peers: []string{"spiffe://test/shop/*"}}})
	good := issue(t, nil, t.TempDir(), "a", "spiffe://test/shop/a", time.Hour)
	client := secureClient(t, srv.Addr(), good)
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Fatal(err)
	}
	foreign := newCA(t)
	dir := t.TempDir()
	trusting := issue(t, foreign, dir, "foreign", "spiffe://test/shop/a", time.Hour)
	both := filepath.Join(dir, "both.crt") // it believes the server, which does not believe it
	for _, file := range []string{trusting.CA, good.CA} {
		pem, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(both, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.Write(pem)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	trusting.CA = both
	for name, c := range map[string]struct {
		cert framework.TLS
		says string // in the client's error, if it is the client that refuses
		item string
	}{
		"expired":            {issue(t, nil, t.TempDir(), "a", "spiffe://test/shop/a", -time.Minute), "", "expired"},
		"foreign authority":  {trusting, "", "authority"},
		"other trust domain": {issue(t, nil, t.TempDir(), "a", "spiffe://other/shop/a", time.Hour), "of another trust domain", ""},
		"not expected":       {issue(t, nil, t.TempDir(), "a", "spiffe://test/bank/a", time.Hour), "", "identity"},
	} {
		t.Run(name, func(t *testing.T) {
			before := 0.0
			if c.item != "" {
				before = handshakesEnded(t, c.item)
			}
			_, err := secureClient(t, srv.Addr(), c.cert).Echo(t.Context(), &testpb.EchoRequest{})
			if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Reason != rpc.ReasonNoInstance || !strings.Contains(e.Message, c.says) {
				t.Errorf("got %v; want something about %q", err, c.says)
			}
			if c.item != "" {
				until(t, "it is counted as "+c.item, func() bool { return handshakesEnded(t, c.item) > before })
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		nc, err := tls.Dial("tcp", srv.Addr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.Protocol}})
		if err == nil { // of TLS 1.3 the refusal comes with the first read
			_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
			_, err = nc.Read(make([]byte, 1))
			_ = nc.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in the clear", func(t *testing.T) {
		if _, err := secureClient(t, srv.Addr(), framework.TLS{}).Echo(t.Context(), &testpb.EchoRequest{}); rpc.ReasonOf(err) != rpc.ReasonNoInstance || !strings.Contains(err.Error(), "it wants TLS") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the server is another", func(t *testing.T) {
		cert := good
		cert.Peers = []string{"spiffe://test/bank"}
		_, err := secureClient(t, srv.Addr(), cert).Echo(t.Context(), &testpb.EchoRequest{})
		if err == nil || !strings.Contains(err.Error(), "spiffe://test/echo: its identity is not one that is expected here") {
			t.Errorf("got %v", err)
		}
	})
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Errorf("the good client, afterwards: %v", err)
	}
	if echo.Acted.Load() != 0 {
		t.Error("a refused client's call has run")
	}
}

// TestRotation puts new certificates of a new authority in place while calls go on. None
// may fail, and connections made afterwards are under the new ones.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	server := issue(t, nil, dir, "echo", "spiffe://test/echo", time.Hour)
	srv, _ := secureServer(t, framework.ServerConfig{TLS: server})
	client := secureClient(t, srv.Addr(), issue(t, nil, t.TempDir(), "a", "spiffe://test/a", time.Hour))
	stop := make(chan struct{})
	var calls atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := client.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 1000)}); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	await(t, func() bool { return calls.Load() > 100 || t.Failed() })
	next := newCA(t)
	issue(t, next, dir, "echo", "spiffe://test/echo", time.Hour) // over the old files
	newcomer := issue(t, next, t.TempDir(), "b", "spiffe://test/b", time.Hour)
	await(t, func() bool { // the files are looked at once a second
		_, err := secureClient(t, srv.Addr(), newcomer).Echo(t.Context(), &testpb.EchoRequest{})
		return err == nil
	})
	before := calls.Load()
	await(t, func() bool { return calls.Load() > before+100 || t.Failed() })
	if err := os.WriteFile(filepath.Join(dir, "echo.crt"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secureClient(t, srv.Addr(), newcomer).Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Errorf("a certificate that is none was put in place of the good one: %v", err)
	}
	close(stop)
	callers.Wait()
}

func await(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within a minute")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestServerThatShakesNoHands connects to who accepts, and says nothing or begins a record of
// TLS, for longer than a read may take.
func TestServerThatShakesNoHands(t *testing.T) {
	for name, greeting := range map[string][]byte{"silent": nil, "half a record": {0x16, 3, 3, 0, 100, 2}} {
		t.Run(name, func(t *testing.T) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = lis.Close() })
			go func() { // until lis is closed
				for {
					nc, err := lis.Accept()
					if err != nil {
						return
					}
					t.Cleanup(func() { _ = nc.Close() })
					_, _ = nc.Write(greeting)
				}
			}()
			conn, err := framework.Dial(framework.ClientConfig{
				Service: "echo", Addrs: []string{lis.Addr().String()}, ReadTimeout: 20 * time.Millisecond, ConnectTimeout: time.Minute,
				TLS: issue(t, nil, t.TempDir(), "a", "spiffe://test/a", time.Hour),
			}, framework.WithClientLogger(slog.New(slog.DiscardHandler)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			await(t, func() bool { // on a busy machine a call may end before
				_, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{})
				return err != nil && strings.Contains(err.Error(), "TLS handshake")
			})
		})
	}
}

// TestHalfHandshakes opens more connections than may be without a handshake: some say
// nothing, some half a greeting. The honest ones are served meanwhile, and all others are
// closed.
func TestHalfHandshakes(t *testing.T) {
	const many = 1100
	// The longest that a handshake may take: on a busy machine, too, all stand at once.
	srv, _ := secureServer(t, framework.ServerConfig{ReadTimeout: 5 * time.Second, MaxConnections: 2 * many})
	var silent []net.Conn
	defer func() {
		for _, nc := range silent {
			_ = nc.Close()
		}
	}()
	hello := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3}
	for i := range many {
		nc, err := net.Dial("tcp", srv.Addr())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, nc)
		if i%2 == 0 {
			if _, err := nc.Write(hello[:1+i%len(hello)]); err != nil && i < 1000 {
				t.Fatal(err)
			}
		}
	}
	client := secureClient(t, srv.Addr(), issue(t, nil, t.TempDir(), "a", "spiffe://test/a", time.Hour))
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Fatalf("an honest client, meanwhile: %v", err)
	}
	for _, nc := range silent {
		if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection without a handshake stayed open")
		}
	}
	if n := handshakesEnded(t, "crowded"); n == 0 {
		t.Error("none had to make room for another")
	}
	if n := handshakesEnded(t, "late"); n == 0 {
		t.Error("none was late")
	}
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Errorf("the honest client, afterwards: %v", err)
	}
}

// TestAllow calls methods that an identity may and may not call.
func TestAllow(t *testing.T) {
	srv, echo := secureServer(t, framework.ServerConfig{Allow: []framework.Allow{
		{Methods: []string{testpb.EchoEchoMethod.FullName()}, Callers: []string{"*"}},
		{Methods: []string{testpb.EchoDesc.Name + "/*"}, Callers: []string{"spiffe://test/admin/*"}},
	}})
	for _, c := range []struct {
		id        string
		echo, act bool
	}{{"spiffe://test/shop/a", true, false}, {"spiffe://test/admin/b", true, true}, {"spiffe://test/admin", true, false}, {"spiffe://test/administrator/x", true, false}} {
		client := secureClient(t, srv.Addr(), issue(t, nil, t.TempDir(), "x", c.id, time.Hour))
		if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); (err == nil) != c.echo {
			t.Errorf("%s calls Echo: %v", c.id, err)
		}
		before := echo.Acted.Load()
		_, err := client.Act(t.Context(), &testpb.ActRequest{Act: "x"})
		e, _ := errors.AsType[*rpc.Error](err)
		switch {
		case c.act && err != nil:
			t.Errorf("%s calls Act: %v", c.id, err)
		case !c.act && (e == nil || e.Code != rpc.PermissionDenied || e.Reason != rpc.ReasonDenied || !e.NotRun || !strings.Contains(e.Message, c.id) || echo.Acted.Load() != before):
			t.Errorf("%s calls Act: %v, which ran %d times", c.id, err, echo.Acted.Load()-before)
		}
	}
	if n := itemOf(t, "sluice.server.results", metrics.Label{Name: "rpc.method", Value: testpb.EchoActMethod.FullName()}, metrics.Label{Name: "result", Value: "denied"}); n < 3 {
		t.Errorf("%v denied calls are counted", n)
	}
	local := framework.DialLocal(srv)
	defer func() { _ = local.Close() }()
	if _, err := testpb.NewEchoClient(local).Act(t.Context(), &testpb.ActRequest{}); err != nil {
		t.Errorf("a call of the same process: %v", err)
	}
}

func TestBadTLSConfig(t *testing.T) {
	cert := issue(t, nil, t.TempDir(), "a", "spiffe://test/a", time.Hour)
	other := issue(t, newCA(t), t.TempDir(), "a", "spiffe://test/a", time.Hour)
	for name, c := range map[string]struct {
		cfg  framework.ServerConfig
		says string
	}{
		"plain to everybody":   {framework.ServerConfig{Addr: "0.0.0.0:0"}, "calls would come in the clear"},
		"odd word":             {framework.ServerConfig{Plaintext: "yes"}, `Plaintext "yes"`},
		"contradiction":        {framework.ServerConfig{Plaintext: "anywhere", TLS: cert}, "contradicts TLS"},
		"half of it":           {framework.ServerConfig{TLS: framework.TLS{Cert: cert.Cert}}, "TLS.CA is empty"},
		"no such file":         {framework.ServerConfig{TLS: framework.TLS{CA: "x", Cert: cert.Cert, Key: cert.Key}}, "no such file"},
		"other key":            {framework.ServerConfig{TLS: framework.TLS{CA: cert.CA, Cert: cert.Cert, Key: other.Key}}, "private key does not match"},
		"foreign authority":    {framework.ServerConfig{TLS: framework.TLS{CA: other.CA, Cert: cert.Cert, Key: cert.Key}}, "is not of an authority in"},
		"odd domain":           {framework.ServerConfig{TLS: framework.TLS{CA: cert.CA, Cert: cert.Cert, Key: cert.Key, TrustDomain: "Test"}}, "TLS.TrustDomain"},
		"other domain":         {framework.ServerConfig{TLS: framework.TLS{CA: cert.CA, Cert: cert.Cert, Key: cert.Key, TrustDomain: "other"}}, "not of trust domain other"},
		"odd peers":            {framework.ServerConfig{TLS: framework.TLS{CA: cert.CA, Cert: cert.Cert, Key: cert.Key, Peers: []string{"cart"}}}, `identity "cart"`},
		"peers without TLS":    {framework.ServerConfig{TLS: framework.TLS{Peers: []string{"*"}}}, "without TLS"},
		"rules without TLS":    {framework.ServerConfig{Allow: []framework.Allow{{Methods: []string{"*"}, Callers: []string{"*"}}}}, "Allow without TLS"},
		"a rule for nobody":    {framework.ServerConfig{TLS: cert, Allow: []framework.Allow{{Methods: []string{"*"}}}}, "Allow[0]: give Methods and Callers"},
		"a method's odd name":  {framework.ServerConfig{TLS: cert, Allow: []framework.Allow{{Methods: []string{"Echo"}, Callers: []string{"*"}}}}, `Allow[0].Methods[0] "Echo"`},
		"a method not of ours": {framework.ServerConfig{TLS: cert, Allow: []framework.Allow{{Methods: []string{"a.B/C"}, Callers: []string{"*"}}}}, "no method a.B/C"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Service = "s"
			srv := framework.NewServer(c.cfg)
			testpb.NewServer().Register(srv)
			if err := srv.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v; want something about %q", err, c.says)
			}
		})
	}
	t.Run("anywhere, if it is said", func(t *testing.T) {
		srv := framework.NewServer(framework.ServerConfig{Service: "s", Addr: "0.0.0.0:0", Plaintext: framework.PlaintextAnywhere})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := srv.Run(ctx); err != nil {
			t.Fatal(err)
		}
	})
}
