// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

// twin is an instance that says in its answers which one it is, behind a relay that can
// go wrong.
type twin struct {
	testpb.UnimplementedEchoServer
	name   string
	addr   string // of the relay
	calls  atomic.Int64
	ailing atomic.Value // of func(context.Context) error, what its calls do
	relay  *sickLine
}

func (s *twin) Echo(ctx context.Context, _ *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	s.calls.Add(1)
	if ail, _ := s.ailing.Load().(func(context.Context) error); ail != nil {
		if err := ail(ctx); err != nil {
			return nil, err
		}
	}
	return &testpb.EchoResponse{Name: s.name}, nil
}

func newTwin(t *testing.T, name string) *twin {
	t.Helper()
	s := &twin{name: name}
	srv := rpctest.Serve(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, s) })
	s.relay = newSickLine(t, srv.Addr())
	s.addr = s.relay.lis.Addr().String()
	return s
}

// sickLine passes bytes between a client and a server, or does worse.
type sickLine struct {
	lis  net.Listener
	to   string
	wg   sync.WaitGroup
	mu   sync.Mutex
	cond *sync.Cond
	mode lineMode // guarded by mu
	open []net.Conn
}

type lineMode int

const (
	passes lineMode = iota
	freezes
	resets
	garbles
	lineEnded
)

func newSickLine(t *testing.T, to string) *sickLine {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &sickLine{lis: lis, to: to}
	r.cond = sync.NewCond(&r.mu)
	r.wg.Go(func() {
		for {
			nc, err := lis.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(nc) })
		}
	})
	t.Cleanup(func() {
		_ = lis.Close()
		r.set(lineEnded)
		r.wg.Wait()
	})
	return r
}

// set changes what the relay does; connections that it would harm are harmed at once.
func (r *sickLine) set(m lineMode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mode = m
	r.cond.Broadcast()
	for _, nc := range r.open {
		switch m {
		case garbles:
			_, _ = nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n what is this, and who are you?"))
		case resets, lineEnded:
			_ = nc.(*net.TCPConn).SetLinger(0)
			_ = nc.Close()
		default:
		}
	}
	if m == resets || m == lineEnded {
		r.open = nil
	}
}

// now waits while the relay is frozen.
func (r *sickLine) now() lineMode {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.mode == freezes {
		r.cond.Wait()
	}
	return r.mode
}

func (r *sickLine) serve(from net.Conn) {
	defer func() { _ = from.Close() }()
	switch r.now() {
	case resets, lineEnded:
		_ = from.(*net.TCPConn).SetLinger(0)
		return
	case garbles:
		_, _ = from.Write([]byte("220 smtp.example.com ESMTP, and a good day to you\r\n"))
		_, _ = io.Copy(io.Discard, from)
		return
	default:
	}
	to, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	r.mu.Lock()
	if r.mode != lineEnded {
		r.open = append(r.open, from)
	} else {
		_ = from.Close()
	}
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.copy(to, from); _ = to.Close() })
	both.Go(func() { r.copy(from, to); _ = from.Close() })
	both.Wait()
}

func (r *sickLine) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if m := r.now(); err != nil || m == lineEnded {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func twins(t *testing.T, n int) (all []*twin, addrs []string) {
	t.Helper()
	for i := range n {
		s := newTwin(t, fmt.Sprint(i))
		all, addrs = append(all, s), append(addrs, s.addr)
	}
	return all, addrs
}

func echoOf(t *testing.T, cfg framework.ClientConfig, opts ...framework.ClientOption) testpb.EchoClient {
	t.Helper()
	cfg.Service = "rpctest"
	conn, err := framework.Dial(cfg, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewEchoClient(conn)
}

// callUntil calls again and again, each call with a second, until it is content.
func callUntil(t *testing.T, c testpb.EchoClient, what string, content func(who string, err error) bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		res, err := c.Echo(ctx, &testpb.EchoRequest{})
		cancel()
		if content(res.GetName(), err) {
			return
		}
	}
	t.Fatalf("it did not happen within 30 s: %s", what)
}

// seen is content when each of the names has answered.
func seen(names ...string) func(string, error) bool {
	left := map[string]bool{}
	for _, n := range names {
		left[n] = true
	}
	return func(who string, _ error) bool {
		delete(left, who)
		return len(left) == 0
	}
}

// inRow is content when so many calls in a row have been answered by one.
func inRow(n int, name string) func(string, error) bool {
	row := 0
	return func(who string, err error) bool {
		if row++; err != nil || who != name {
			row = 0
		}
		return row == n
	}
}

// TestSickInstance: one of three instances goes wrong, is left out, comes back, and gets
// calls again, without anybody's doing.
func TestSickInstance(t *testing.T) {
	for _, tc := range []struct {
		name string
		mode lineMode
	}{{"frozen", freezes}, {"resetting", resets}, {"speaking garbage", garbles}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			all, addrs := twins(t, 3)
			c := echoOf(t, framework.ClientConfig{Addrs: addrs, Connections: 2})
			callUntil(t, c, "all three serve", seen("0", "1", "2"))
			all[0].relay.set(tc.mode)
			well := 0
			callUntil(t, c, "300 calls in a row are answered by the others", func(who string, err error) bool {
				if well++; err != nil || who == "0" {
					well = 0
				}
				return well == 300
			})
			all[0].relay.set(passes)
			callUntil(t, c, "it serves again", seen("0"))
		})
	}
}

// TestSickFromTheStart: an instance that accepts connections and speaks garbage gets no
// call at all, even of those that may not be repeated.
func TestSickFromTheStart(t *testing.T) {
	all, addrs := twins(t, 2)
	all[0].relay.set(garbles)
	c := echoOf(t, framework.ClientConfig{Addrs: addrs})
	for range 100 {
		if res, err := c.Echo(t.Context(), &testpb.EchoRequest{}); err != nil || res.Name != "1" {
			t.Fatal(res, err)
		}
	}
}

// TestBreakerPerMethod: a method that panics at one instance is not called there, and
// other methods are.
func TestBreakerPerMethod(t *testing.T) {
	for _, tc := range []struct {
		name string
		off  []string
		open bool
	}{{name: "on", open: true}, {name: "off for the method", off: []string{"sluice.test.v1.Echo/Act"}}, {name: "off for all", off: []string{"*"}}} {
		t.Run(tc.name, func(t *testing.T) {
			srv := testpb.NewServer()
			addr := rpctest.Serve(t, srv.Register).Addr()
			c := echoOf(t, framework.ClientConfig{Addrs: []string{addr}, NoBreaker: tc.off})
			const calls = 20
			open := int64(0)
			for range calls {
				_, err := c.Act(t.Context(), &testpb.ActRequest{Act: "panic"})
				if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Reason != rpc.ReasonPanic && (e.Reason != rpc.ReasonBreaker || !e.NotRun) {
					t.Fatal(err)
				} else if e.Reason == rpc.ReasonBreaker {
					open++
				}
			}
			if ran := srv.Acted.Load(); open+ran != calls || ran < 5 || (open > 0) != tc.open {
				t.Errorf("of %d calls %d ran, and the breaker kept %d back", calls, ran, open)
			}
			if _, err := c.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
				t.Errorf("another method: %v", err)
			}
		})
	}
}

// TestHandlersOwnErrors trip nothing.
func TestHandlersOwnErrors(t *testing.T) {
	srv := testpb.NewServer()
	c := echoOf(t, framework.ClientConfig{Addrs: []string{rpctest.Serve(t, srv.Register).Addr()}})
	for range 50 {
		for _, act := range []string{"error", "plain-error", "exhausted"} {
			if _, err := c.Act(t.Context(), &testpb.ActRequest{Act: act}); rpc.ReasonOf(err) != rpc.ReasonHandler {
				t.Fatal(act, err)
			}
		}
	}
}

// source is a Source whose list the test changes.
type source chan []discovery.Instance

func (s source) Watch(ctx context.Context, _ string, changed func([]discovery.Instance)) error {
	for {
		select {
		case all := <-s:
			changed(all)
		case <-ctx.Done():
			return nil
		}
	}
}

func TestDiscovery(t *testing.T) {
	all, _ := twins(t, 3)
	one := func(i int) discovery.Instance { return discovery.Instance{Addr: all[i].addr} }
	s := make(source)
	c := echoOf(t, framework.ClientConfig{}, framework.WithDiscovery(s))
	waits := make(chan error, 1)
	go func() { // before anything is known
		_, err := c.Echo(t.Context(), &testpb.EchoRequest{})
		waits <- err
	}()
	s <- []discovery.Instance{one(0), one(1)}
	if err := <-waits; err != nil {
		t.Fatal(err)
	}
	callUntil(t, c, "both serve", seen("0", "1"))

	// What is under way goes on while its instance leaves the list.
	began, end := make(chan struct{}), make(chan struct{})
	all[0].ailing.Store(func(context.Context) error { close(began); <-end; return nil })
	held := make(chan error, 1)
	go func() {
		for {
			res, err := c.Echo(t.Context(), &testpb.EchoRequest{})
			if err != nil || res.Name == "0" {
				held <- err
				return
			}
		}
	}()
	<-began
	s <- []discovery.Instance{one(1), one(2)}
	s <- []discovery.Instance{{Addr: "nonsense"}} // refused: those of before go on
	callUntil(t, c, "the new one serves", seen("2"))
	for range 50 {
		if res, err := c.Echo(t.Context(), &testpb.EchoRequest{}); err != nil || res.Name == "0" {
			t.Fatal(res, err)
		}
	}
	close(end)
	if err := <-held; err != nil {
		t.Errorf("a call under way when its instance left: %v", err)
	}

	s <- []discovery.Instance{{Addr: all[1].addr, Draining: true}, one(2)}
	s <- []discovery.Instance{{Addr: all[1].addr, Draining: true}, one(2)} // the first has been taken over
	callUntil(t, c, "one that drains is not called", inRow(50, "2"))
	s <- nil
	s <- nil
	if _, err := c.Echo(t.Context(), &testpb.EchoRequest{}); rpc.ReasonOf(err) != rpc.ReasonNoInstance {
		t.Errorf("without any instance: %v", err)
	}
}

func TestCampus(t *testing.T) {
	all, _ := twins(t, 3)
	s := make(source)
	c := echoOf(t, framework.ClientConfig{Campus: "east"}, framework.WithDiscovery(s))
	s <- []discovery.Instance{{Addr: all[0].addr, Campus: "east"}, {Addr: all[1].addr, Campus: "west"}, {Addr: all[2].addr}}
	callUntil(t, c, "ours is found", seen("0"))
	callUntil(t, c, "ours serves alone", inRow(100, "0"))
	all[0].relay.set(resets)
	callUntil(t, c, "the others serve when ours cannot", seen("1", "2"))
	all[0].relay.set(passes)
	callUntil(t, c, "ours serves alone again", inRow(100, "0"))
}

func TestWeights(t *testing.T) {
	all, _ := twins(t, 2)
	s := make(source)
	c := echoOf(t, framework.ClientConfig{}, framework.WithDiscovery(s))
	s <- []discovery.Instance{{Addr: all[0].addr, Weight: 900}, {Addr: all[1].addr, Weight: 100}}
	callUntil(t, c, "both serve", seen("0", "1"))
	// With one call at a time none is in flight: the first that is drawn gets it. While the
	// machine keeps one from answering the other one gets all.
	got := int64(0)
	for deadline := time.Now().Add(20 * time.Second); got < 100 || got > 300; {
		if time.Now().After(deadline) {
			t.Fatalf("one of ten parts got %d of 2,000 calls", got)
		}
		before := all[1].calls.Load()
		for range 2000 {
			if _, err := c.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		got = all[1].calls.Load() - before
	}
}

func TestKeys(t *testing.T) {
	all, _ := twins(t, 4)
	s := make(source)
	key := func(_ *rpc.Method, req proto.Message) string { return req.(*testpb.EchoRequest).Name }
	c := echoOf(t, framework.ClientConfig{}, framework.WithDiscovery(s), framework.WithKey(key))
	list := func(some ...*twin) (l []discovery.Instance) {
		for _, one := range some {
			l = append(l, discovery.Instance{Addr: one.addr})
		}
		return l
	}
	who := func(key string) string {
		res, err := c.Echo(t.Context(), &testpb.EchoRequest{Name: key})
		if err != nil {
			t.Fatal(err)
		}
		return res.Name
	}
	s <- list(all...)
	callUntil(t, c, "all serve", seen("0", "1", "2", "3")) // without a key
	// An instance that the machine keeps from answering for a while lends its keys: their
	// homes are known when two looks agree.
	home := map[string]string{}
	for deadline := time.Now().Add(30 * time.Second); ; {
		per, agree := map[string]int{}, true
		for i := range 400 {
			k := fmt.Sprintf("user-%d", i)
			name := who(k)
			agree = agree && home[k] == name
			home[k] = name
			per[name]++
		}
		for _, s := range all {
			agree = agree && per[s.name] >= 50 && per[s.name] <= 150
		}
		if agree {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("400 keys have not settled: %v", per)
		}
	}
	stays := func(k, name string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); who(k) != name; {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not at %s", k, name)
			}
		}
	}
	s <- list(all[:3]...)
	s <- list(all[:3]...)
	for k, was := range home {
		if was != "3" {
			stays(k, was)
		} else if now := who(k); now == "3" {
			t.Errorf("%s is still at 3, which has left", k)
		}
	}
}

func TestFallback(t *testing.T) {
	srv := testpb.NewServer()
	addr := rpctest.Serve(t, srv.Register).Addr()
	fallback := framework.WithFallback(func(_ context.Context, _ *rpc.Method, _ proto.Message, err error) (proto.Message, error) {
		if rpc.ReasonOf(err) == rpc.ReasonDeadline {
			return &testpb.EchoResponse{Name: "of yesterday"}, nil
		}
		return nil, err
	})
	c := echoOf(t, framework.ClientConfig{Addrs: []string{addr}}, fallback)
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	if res, err := c.Act(ctx, &testpb.ActRequest{}); err != nil || res.Name != "of yesterday" {
		t.Error(res, err)
	}
	if _, err := c.Act(t.Context(), &testpb.ActRequest{Act: "error"}); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("what a handler says is replaced: %v", err)
	}
}

// TestHedge: calls to an instance that has become slow are answered by the other one.
func TestHedge(t *testing.T) {
	all, addrs := twins(t, 2)
	conn, err := framework.Dial(framework.ClientConfig{Service: "rpctest", Addrs: addrs, Hedge: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := *testpb.EchoEchoMethod
	m.MaxAttempts = 2
	call := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		res, err := conn.Invoke(ctx, &m, &testpb.EchoRequest{Data: make([]byte, 100)})
		if err != nil {
			return "", err
		}
		return res.(*testpb.EchoResponse).Name, nil
	}
	for range 200 {
		if _, err := call(); err != nil {
			t.Fatal(err)
		}
	}
	release := make(chan struct{})
	all[0].ailing.Store(func(context.Context) error { <-release; return nil })
	hung := all[0].calls.Load()
	for all[0].calls.Load() < hung+3 { // each of them would wait for a minute
		if who, err := call(); err != nil || who != "1" {
			t.Fatal(who, err)
		}
	}
	close(release)
}
