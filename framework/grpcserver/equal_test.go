// SPDX-License-Identifier: Apache-2.0

package grpcserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/identity/devca"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// pair is a server with both listeners.
type pair struct {
	*framework.Server
	grpc *grpcserver.Server
	echo *testpb.Server
	flow *testpb.FlowService
	who  atomic.Pointer[string] // identity of the last caller

	holds, release chan struct{} // a call of Echo "hold" tells the first, and waits for the second
}

// wire is one way to call a pair.
type wire struct {
	name     string
	protocol string // of TLS
	addr     func(*pair) string
	opts     []framework.ClientOption
}

var wires = []wire{
	{"own", identity.Protocol, func(p *pair) string { return p.Addr() }, nil},
	{"gRPC", "h2", func(p *pair) string { return p.grpc.Addr() }, []framework.ClientOption{framework.WithClientTransport(grpcclient.New(grpcclient.Config{}))}},
}

// overBoth runs a test over each wire, with a server of its own.
func overBoth(t *testing.T, cfg framework.ServerConfig, own grpcserver.Config, test func(*testing.T, wire, *pair)) {
	t.Helper()
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) { test(t, w, servePair(t, cfg, own)) })
	}
}

func servePair(t *testing.T, cfg framework.ServerConfig, own grpcserver.Config) *pair {
	t.Helper()
	cfg.Service = "pair"
	p := &pair{grpc: grpcserver.New(own), echo: testpb.NewServer(), flow: &testpb.FlowService{}, holds: make(chan struct{}), release: make(chan struct{})}
	p.Server = framework.NewServer(cfg, framework.WithTransport(p.grpc), framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)),
		framework.WithServerInterceptors(func(_ *rpc.Method, next rpc.Handler) rpc.Handler {
			return func(ctx context.Context, req proto.Message) (proto.Message, error) {
				p.who.Store(&rpc.CallFrom(ctx).Identity)
				if echo, ok := req.(*testpb.EchoRequest); ok && echo.GetName() == "hold" {
					close(p.holds)
					select {
					case <-p.release:
					case <-ctx.Done():
					}
				}
				return next(ctx, req)
			}
		}))
	p.echo.Register(p)
	p.flow.Register(p)
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	})
	return p
}

func (w wire) dial(t *testing.T, p *pair, cert framework.TLS) *framework.Conn {
	t.Helper()
	conn, err := framework.Dial(framework.ClientConfig{
		Service: "pair", Addrs: []string{w.addr(p)}, TLS: cert, ConnectTimeout: 10 * time.Second, Connections: 1,
	}, append([]framework.ClientOption{framework.WithClientLogger(slog.New(slog.DiscardHandler))}, w.opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// authority is a CA of the tests, and foreign another one.
var authority, foreign = sync.OnceValues(devca.New), sync.OnceValues(devca.New)

func issue(t *testing.T, ca func() (*devca.CA, error), id string, life time.Duration) framework.TLS {
	t.Helper()
	made, err := ca()
	if err != nil {
		t.Fatal(err)
	}
	f, err := made.Issue(t.TempDir(), "cert", id, time.Now().Add(-time.Hour), time.Now().Add(life))
	if err != nil {
		t.Fatal(err)
	}
	return framework.TLS{CA: f.CA, Cert: f.Cert, Key: f.Key}
}

func errorOf(t *testing.T, err error) *rpc.Error {
	t.Helper()
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		t.Fatalf("got %v, which is no *rpc.Error", err)
	}
	return e
}

// itemOf gives the sum of the items of this process that have a name and some labels.
func itemOf(name string, labels ...metrics.Label) (sum float64) {
	for _, f := range framework.Items().Snapshot().Families {
		for i := range f.Series {
			has := func(l metrics.Label) bool { return slices.Contains(f.Series[i].Labels, l) }
			if f.Name == name && !slices.ContainsFunc(labels, func(l metrics.Label) bool { return !has(l) }) {
				sum += f.Series[i].Value
			}
		}
	}
	return sum
}

// eventually waits for what another goroutine is about to note.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !fact(); {
		if time.Now().After(end) {
			t.Fatalf("it did not happen within 30 s: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

const (
	front = "spiffe://test/shop/front"
	back  = "spiffe://test/shop/back"
)

// TestEqualAllowList: who may call what is the same over both, and nothing is allowed
// that no rule names.
func TestEqualAllowList(t *testing.T) {
	cfg := framework.ServerConfig{
		TLS:   issue(t, authority, "spiffe://test/pair", time.Hour),
		Allow: []framework.Allow{{Methods: []string{"sluice.test.v1.Echo/Echo", "sluice.test.v1.Flow/Count"}, Callers: []string{front}}},
	}
	asFront, asBack := issue(t, authority, front, time.Hour), issue(t, authority, back, time.Hour)
	overBoth(t, cfg, grpcserver.Config{}, func(t *testing.T, w wire, p *pair) {
		first, second := testpb.NewEchoClient(w.dial(t, p, asFront)), testpb.NewEchoClient(w.dial(t, p, asBack))
		if _, err := first.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
			t.Fatalf("who is allowed: %v", err)
		}
		if who := p.who.Load(); *who != front {
			t.Errorf("the handler sees %q", *who)
		}
		denied := func(what string, err error) {
			t.Helper()
			if e := errorOf(t, err); e.Code != rpc.PermissionDenied || e.Reason != rpc.ReasonDenied || !e.NotRun {
				t.Errorf("%s: %#v", what, e)
			}
		}
		_, err := second.Echo(t.Context(), &testpb.EchoRequest{})
		denied("who is not", err)
		_, err = first.Act(t.Context(), &testpb.ActRequest{})
		denied("a method that no rule names", err)
		if n := p.echo.Acted.Load(); n != 0 {
			t.Errorf("it ran %d times", n)
		}
		changed := cfg
		changed.Service = "pair"
		changed.Allow = []framework.Allow{{Methods: []string{"*"}, Callers: []string{back}}}
		if _, err := p.Reload(changed); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Act(t.Context(), &testpb.ActRequest{}); err != nil {
			t.Errorf("after the rules have changed: %v", err)
		}
		_, err = first.Echo(t.Context(), &testpb.EchoRequest{})
		denied("after the rules have changed", err)
	})
}

// TestAllowListOfStreams: streams and reflection keep to it, too.
func TestAllowListOfStreams(t *testing.T) {
	p := servePair(t, framework.ServerConfig{
		TLS:   issue(t, authority, "spiffe://test/pair", time.Hour),
		Allow: []framework.Allow{{Methods: []string{"sluice.test.v1.Flow/Count"}, Callers: []string{front}}},
	}, grpcserver.Config{})
	client := testpb.NewFlowClient(wires[1].dial(t, p, issue(t, authority, front, time.Hour)))
	stream, err := client.Count(t.Context(), &testpb.Drop{N: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Errorf("who is allowed: %v", err)
	}
	stream.Close()
	refused, err := client.Hang(t.Context(), &testpb.Drop{})
	if err == nil {
		_, err = refused.Recv()
	}
	if e := errorOf(t, err); e.Code != rpc.PermissionDenied || e.Reason != rpc.ReasonDenied || !e.NotRun {
		t.Errorf("a stream that no rule names: %#v", e)
	}

	conn := foreignClient(t, p, issue(t, authority, front, time.Hour))
	contracts, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err == nil {
		_, err = contracts.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("reflection: %v", err)
	}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
}

// foreignClient is a client of grpc-go with a certificate.
func foreignClient(t *testing.T, p *pair, cert framework.TLS) *grpc.ClientConn {
	t.Helper()
	own, err := tls.LoadX509KeyPair(cert.Cert, cert.Key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(p.grpc.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestForeignTrustDomain: a listener that believes other authorities, too, takes nobody of
// another trust domain for one of the server's own, and nobody whom another authority
// calls so, or whom the server itself would not let connect.
func TestForeignTrustDomain(t *testing.T) {
	own := issue(t, authority, "spiffe://test/pair", time.Hour)
	cert, err := tls.LoadX509KeyPair(own.Cert, own.Key)
	if err != nil {
		t.Fatal(err)
	}
	believed := x509.NewCertPool()
	callers := map[string]struct {
		cert framework.TLS
		want codes.Code
	}{
		"own":             {issue(t, authority, front, time.Hour), codes.OK},
		"other domain":    {issue(t, foreign, "spiffe://other/shop/front", time.Hour), codes.PermissionDenied},
		"other authority": {issue(t, foreign, front, time.Hour), codes.PermissionDenied},
		"no peer":         {issue(t, authority, "spiffe://test/bank/front", time.Hour), codes.PermissionDenied},
	}
	for name, c := range callers {
		pem, err := os.ReadFile(c.cert.CA)
		if err != nil || !believed.AppendCertsFromPEM(pem) {
			t.Fatal(name, err)
		}
	}
	own.Peers = []string{"spiffe://test/shop/*"}
	p := servePair(t, framework.ServerConfig{TLS: own, Allow: []framework.Allow{{Methods: []string{"*"}, Callers: []string{"*/front"}}}},
		grpcserver.Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: believed, ClientAuth: tls.VerifyClientCertIfGiven}})
	for name, c := range callers {
		if _, err := act(t.Context(), foreignClient(t, p, c.cert), ""); status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEqualHandshakes: who cannot prove who he is does not get in, and is counted alike.
func TestEqualHandshakes(t *testing.T) {
	good := issue(t, authority, front, time.Hour)
	stranger := issue(t, foreign, front, time.Hour)
	stranger.CA = good.CA // he believes the server, which does not believe him
	expired := issue(t, authority, front, -time.Minute)
	other := issue(t, authority, "spiffe://test/bank/front", time.Hour)
	cfg := framework.ServerConfig{TLS: issue(t, authority, "spiffe://test/pair", time.Hour)}
	cfg.TLS.Peers = []string{"spiffe://test/shop/*"}
	overBoth(t, cfg, grpcserver.Config{}, func(t *testing.T, w wire, p *pair) {
		if _, err := testpb.NewEchoClient(w.dial(t, p, good)).Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			cert framework.TLS
			item string
		}{"authority": {stranger, "authority"}, "expired": {expired, "expired"}, "peers": {other, "identity"}} {
			t.Run(name, func(t *testing.T) {
				result := metrics.Label{Name: "result", Value: c.item}
				before := itemOf("sluice.listener.handshakes", result)
				pair, err := tls.LoadX509KeyPair(c.cert.Cert, c.cert.Key)
				if err != nil {
					t.Fatal(err)
				}
				if err := handshake(t, w.addr(p), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{w.protocol}, Certificates: []tls.Certificate{pair}}); err == nil {
					t.Error("it was let in")
				}
				eventually(t, "it is counted", func() bool { return itemOf("sluice.listener.handshakes", result) > before })
			})
		}
		for name, c := range map[string]*tls.Config{
			"no certificate": {InsecureSkipVerify: true, NextProtos: []string{w.protocol}},
			"other protocol": {InsecureSkipVerify: true, NextProtos: []string{"smtp"}},
			"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: []string{w.protocol}, MaxVersion: tls.VersionTLS12},
		} {
			if err := handshake(t, w.addr(p), c); err == nil {
				t.Errorf("%s: it was let in", name)
			}
		}
		if _, err := testpb.NewEchoClient(w.dial(t, p, framework.TLS{})).Echo(t.Context(), &testpb.EchoRequest{}); err == nil {
			t.Error("a call in the clear was answered")
		}
	})
}

// handshake gives what comes of one: in TLS 1.3 a refusal comes with the first read.
func handshake(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
	for err == nil {
		_, err = nc.Read(make([]byte, 1<<10)) // the server may speak first, if it lets us in
		if err == nil {
			return nil
		}
	}
	return err
}

// TestEqualCertificates: those that change are taken without a restart.
func TestEqualCertificates(t *testing.T) {
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, err := ca.Issue(dir, "pair", "spiffe://test/pair", time.Now().Add(-50*time.Minute), time.Now().Add(-10*time.Minute)) // expired
	if err != nil {
		t.Fatal(err)
	}
	good := issue(t, authority, front, time.Hour)
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			if _, err := ca.Issue(dir, "pair", "spiffe://test/pair", time.Now().Add(-50*time.Minute), time.Now().Add(-10*time.Minute)); err != nil {
				t.Fatal(err)
			}
			p := servePair(t, framework.ServerConfig{TLS: framework.TLS{CA: files.CA, Cert: files.Cert, Key: files.Key}}, grpcserver.Config{})
			client := testpb.NewEchoClient(w.dial(t, p, good))
			if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); rpc.ReasonOf(err) != rpc.ReasonNoInstance {
				t.Fatalf("with an expired certificate of the server: %v", err)
			}
			if _, err := ca.Issue(dir, "pair", "spiffe://test/pair", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); ; { // files are looked at once a second, links wait between attempts
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := client.Echo(ctx, &testpb.EchoRequest{})
				cancel()
				if err == nil {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("with a new certificate: %v", err)
				}
				<-time.After(10 * time.Millisecond)
			}
		})
	}
}

// TestEqualErrors: an error is the same whatever has carried it.
func TestEqualErrors(t *testing.T) {
	p := servePair(t, framework.ServerConfig{}, grpcserver.Config{})
	conns := []*framework.Conn{wires[0].dial(t, p, framework.TLS{}), wires[1].dial(t, p, framework.TLS{})}
	unknown := *testpb.EchoActMethod
	unknown.Name = "Nothing"
	invalid := *testpb.EchoEchoMethod
	for name, call := range map[string]func(context.Context, *framework.Conn) error{
		"handler's own": acts("error"), "exhausted": acts("exhausted"), "panic": acts("panic"), "no rpc.Error": acts("plain-error"), "nothing": acts("nothing"),
		"deadline": func(ctx context.Context, conn *framework.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			return acts("block")(ctx, conn)
		},
		"unknown method": func(ctx context.Context, conn *framework.Conn) error {
			_, err := conn.Invoke(ctx, &unknown, &testpb.ActRequest{})
			return err
		},
		"no valid request": func(ctx context.Context, conn *framework.Conn) error {
			_, err := conn.Invoke(ctx, &invalid, &testpb.Drop{Data: []byte("\xff")})
			return err
		},
		"too large to send": func(ctx context.Context, conn *framework.Conn) error {
			_, err := testpb.NewEchoClient(conn).Echo(ctx, &testpb.EchoRequest{Data: make([]byte, 17<<20)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			own, over := errorOf(t, call(t.Context(), conns[0])), errorOf(t, call(t.Context(), conns[1]))
			if name == "deadline" {
				own.NotRun = over.NotRun // on a busy machine one may not have gone out
			}
			same := own.Code == over.Code && own.Reason == over.Reason && own.NotRun == over.NotRun && own.Retry == over.Retry && len(own.Details) == len(over.Details)
			for i := range own.Details {
				same = same && proto.Equal(own.Details[i], over.Details[i])
			}
			if own.Reason == rpc.ReasonHandler {
				same = same && own.Message == over.Message
			}
			if !same {
				t.Errorf("over our own wire %#v, over gRPC %#v", own, over)
			}
		})
	}
}

// acts gives a call of Act.
func acts(what string) func(context.Context, *framework.Conn) error {
	return func(ctx context.Context, conn *framework.Conn) error {
		_, err := testpb.NewEchoClient(conn).Act(ctx, &testpb.ActRequest{Act: what})
		return err
	}
}

// TestEqualAdmission: what an overloaded process does not let in is refused alike, with
// how long to wait; what it lets in, goes on, and clients are told.
func TestEqualAdmission(t *testing.T) {
	overBoth(t, framework.ServerConfig{}, grpcserver.Config{}, func(t *testing.T, w wire, p *pair) {
		conn := w.dial(t, p, framework.TLS{})
		if err := acts("")(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		admit.Process().Pin(qos.PriorityOf(qos.Critical, 0))
		t.Cleanup(admit.Process().Unpin)
		before := p.echo.Acted.Load()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if e := errorOf(t, acts("")(ctx, conn)); e.Code != rpc.ResourceExhausted || e.Reason != rpc.ReasonOverload || !e.NotRun || e.Retry != admit.RetryAfter {
			t.Errorf("what is not let in: %#v", e)
		}
		if n := p.echo.Acted.Load(); n != before {
			t.Errorf("it has run")
		}
		if w.protocol != "h2" {
			return
		}
		var answer grpcclient.Answer
		_ = acts("")(grpcclient.WithAnswer(t.Context(), &answer), conn)
		if level := answer.Trailer()["sluice-level"]; len(level) != 1 {
			t.Errorf("the client is not told what is let in: %v", answer.Trailer())
		}
		stream, err := testpb.NewFlowClient(conn).Hang(t.Context(), &testpb.Drop{})
		if err == nil {
			_, err = stream.Recv()
		}
		if e := errorOf(t, err); e.Code != rpc.ResourceExhausted || e.Reason != rpc.ReasonOverload || !e.NotRun || e.Retry != admit.RetryAfter {
			t.Errorf("a stream at its opening: %#v", e)
		}
	})
}

// TestStreamOutlivesALevel: admission is asked at the opening, and not later.
func TestStreamOutlivesALevel(t *testing.T) {
	p := servePair(t, framework.ServerConfig{}, grpcserver.Config{})
	stream, err := testpb.NewFlowClient(wires[1].dial(t, p, framework.TLS{})).Back(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	echo := func(n int64) {
		t.Helper()
		if err := stream.Send(&testpb.Drop{N: n}); err != nil {
			t.Fatal(err)
		}
		if d, err := stream.Recv(); err != nil || d.N != n {
			t.Fatalf("%v, %v", d, err)
		}
	}
	echo(1)
	admit.Process().Pin(qos.PriorityOf(qos.Critical, 0))
	t.Cleanup(admit.Process().Unpin)
	echo(2)
}

// TestEqualCounts: items and call graph see the same calls.
func TestEqualCounts(t *testing.T) {
	method := metrics.Label{Name: "rpc.method", Value: testpb.EchoActMethod.FullName()}
	overBoth(t, framework.ServerConfig{}, grpcserver.Config{}, func(t *testing.T, w wire, p *pair) {
		conn := w.dial(t, p, framework.TLS{})
		entry := tracing.EntryOf(t.Name() + tracing.NewSpanID().String()) // counted nowhere else
		ctx := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Entry: entry, Trace: tracing.NewTraceID()}})
		served := entry
		if w.protocol == "h2" {
			served = tracing.EntryOf("gRPC " + testpb.EchoActMethod.FullName()) // it is an entry
		}
		calls := itemOf("sluice.server.calls", method)
		ran := counted(served, callgraph.Server)
		for _, what := range []string{"", "", "", "error", "error", "panic", "plain-error"} {
			_ = acts(what)(ctx, conn)
		}
		eventually(t, "7 calls are counted", func() bool { return itemOf("sluice.server.calls", method)-calls == 7 })
		want := [callgraph.NumClasses]uint64{callgraph.OK: 3, callgraph.BusinessError: 2, callgraph.Panic: 1, callgraph.Internal: 1}
		if got := counted(entry, callgraph.Client); got != want {
			t.Errorf("the caller's side of the graph has %v, want %v", got, want)
		}
		eventually(t, "the server's side of the graph has them", func() bool {
			got := counted(served, callgraph.Server)
			for c := range got {
				got[c] -= ran[c]
			}
			return got == want
		})
	})
}

// counted gives how the calls of Act have ended on one side of the edges of an entry.
func counted(entry tracing.Entry, side callgraph.Side) (calls [callgraph.NumClasses]uint64) {
	for _, e := range process.Graph().Snapshot(time.Now()).Rows {
		if e.Key.Entry == entry && e.Key.Callee == testpb.EchoActMethod.FullName() && e.Key.Side == side {
			for c := range calls {
				calls[c] += e.Results[c]
			}
		}
	}
	return calls
}

// TestEqualLimits: no peer gets more than its share.
func TestEqualLimits(t *testing.T) {
	t.Run("calls", func(t *testing.T) {
		overBoth(t, framework.ServerConfig{MaxInFlight: 1}, grpcserver.Config{MaxInFlight: 1}, func(t *testing.T, w wire, p *pair) {
			conn := w.dial(t, p, framework.TLS{})
			first := make(chan error, 1)
			go func() {
				_, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{Name: "hold"})
				first <- err
			}()
			select {
			case <-p.holds:
			case err := <-first:
				t.Fatalf("the first call: %v", err)
			}
			if e := errorOf(t, acts("")(t.Context(), conn)); e.Code != rpc.ResourceExhausted || e.Reason != rpc.ReasonOverload || !e.NotRun || e.Retry <= 0 {
				t.Errorf("one beyond: %#v", e)
			}
			close(p.release)
			if err := <-first; err != nil {
				t.Errorf("the first call: %v", err)
			}
		})
	})
	t.Run("connections", func(t *testing.T) {
		overBoth(t, framework.ServerConfig{MaxConnections: 1}, grpcserver.Config{MaxConnections: 1}, func(t *testing.T, w wire, p *pair) {
			if err := acts("")(t.Context(), w.dial(t, p, framework.TLS{})); err != nil { // over the one that may be
				t.Fatal(err)
			}
			refused := itemOf("sluice.listener.refused")
			nc, err := net.Dial("tcp", w.addr(p))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := io.Copy(io.Discard, nc); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("one beyond gets %d bytes, %v", n, err)
			}
			eventually(t, "it is counted", func() bool { return itemOf("sluice.listener.refused") > refused })
		})
	})
}

// lasting is a method whose calls last until their server begins to shut down.
var lasting = &rpc.Method{
	Service: "sluice.test.v1.Lasting", Name: "Wait", Class: qos.Browse, Timeout: time.Hour,
	NewRequest:  func() proto.Message { return new(testpb.Drop) },
	NewResponse: func() proto.Message { return new(testpb.Drop) },
}

// TestEqualDrain: a call that lasts is told when its server begins to shut down, however it
// came, and answered.
func TestEqualDrain(t *testing.T) {
	for _, way := range []string{"own", "gRPC", "local"} {
		t.Run(way, func(t *testing.T) {
			g := grpcserver.New(grpcserver.Config{})
			quiet := slog.New(slog.DiscardHandler)
			srv := framework.NewServer(framework.ServerConfig{Service: "lasting", DrainTimeout: time.Hour}, framework.WithTransport(g), framework.WithoutSignals(), framework.WithLogger(quiet))
			began := make(chan struct{})
			srv.Register(&rpc.Service{Name: lasting.Service, Methods: []*rpc.Method{lasting}}, []rpc.Handler{
				func(ctx context.Context, _ proto.Message) (proto.Message, error) {
					select {
					case <-rpc.Draining(ctx):
						return nil, rpc.Errorf(rpc.Aborted, "told before anything has ended")
					default:
						close(began)
					}
					select {
					case <-rpc.Draining(ctx):
						return &testpb.Drop{N: 1}, nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				},
			})
			if err := srv.Listen(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- srv.Run(ctx) }()

			var conn *framework.Conn
			if at := slices.IndexFunc(wires, func(w wire) bool { return w.name == way }); at >= 0 {
				conn = wires[at].dial(t, &pair{Server: srv, grpc: g}, framework.TLS{})
			} else {
				conn = framework.DialLocal(srv)
				t.Cleanup(func() { _ = conn.Close() })
			}
			answered := make(chan error, 1)
			go func() {
				res, err := conn.Invoke(context.Background(), lasting, &testpb.Drop{})
				if err == nil && res.(*testpb.Drop).GetN() != 1 {
					err = errors.New("another answer")
				}
				answered <- err
			}()
			select {
			case <-began:
			case err := <-answered:
				t.Fatal("answered before the end:", err)
			}
			cancel()
			if err := <-answered; err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error("Run:", err)
			}
		})
	}
}
