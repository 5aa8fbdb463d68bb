// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// pin keeps the level of the process until the test ends.
func pin(t *testing.T, p qos.Priority) {
	t.Helper()
	admit.Process().Pin(p)
	t.Cleanup(admit.Process().Unpin)
}

// TestRefusedAndServedMixed has every second call refused, of small requests and of
// ones that lie in many pieces of the read buffer, and compares every answer.
func TestRefusedAndServedMixed(t *testing.T) {
	conn := gatekept(t, testpb.NewServer().Register)
	client := testpb.NewEchoClient(conn)
	pin(t, qos.PriorityOf(qos.Post, 64))
	for _, size := range []int{0, 1_000, 100_000, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			calls := min(1000, 64<<20/(size+1))
			var g sync.WaitGroup
			var served, refused atomic.Int64
			for i := range calls {
				g.Go(func() {
					req := &testpb.EchoRequest{Id: int64(i), Name: fmt.Sprint(i), Data: bytes.Repeat([]byte{byte(i)}, size)}
					class, ticket := qos.Post, uint16(0)
					switch i % 4 {
					case 1:
						class = qos.Extra
					case 3: // goes on with a task that leaves have worked for
						class, ticket = qos.Background, 1
					}
					ctx := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Class: class, UserLevel: 10, Ticket: ticket}})
					res, err := client.Echo(ctx, req)
					switch {
					case err == nil && i%4 != 1 && res.GetId() == int64(i) && res.GetName() == req.GetName() && bytes.Equal(res.GetData(), req.GetData()):
						served.Add(1)
					case rpc.ReasonOf(err) == rpc.ReasonOverload && rpc.CodeOf(err) == rpc.ResourceExhausted:
						refused.Add(1) // on a busy machine also some of the others
					default:
						t.Errorf("call %d: %d bytes back, %v", i, len(res.GetData()), err)
					}
				})
			}
			g.Wait()
			if served.Load()+refused.Load() != int64(calls) || refused.Load() < int64((calls+2)/4) || served.Load() == 0 {
				t.Errorf("%d served and %d refused of %d", served.Load(), refused.Load(), calls)
			}
		})
	}
}

// TestCallerHoldsBack sees that a caller that knows the level does not send what
// would be refused, and says later how much that was.
func TestCallerHoldsBack(t *testing.T) {
	srv := testpb.NewServer()
	conn := gatekept(t, srv.Register)
	client := testpb.NewEchoClient(conn)
	pin(t, qos.PriorityOf(qos.Post, 64))
	ask := func(class qos.Class) error {
		_, err := client.Echo(as(t.Context(), class, 0), &testpb.EchoRequest{})
		return err
	}
	if err := ask(qos.Critical); err != nil { // its answer tells the level
		t.Fatal(err)
	}
	before := admit.Process().State()
	for range 50 {
		if err := ask(qos.Extra); rpc.ReasonOf(err) != rpc.ReasonOverload {
			t.Fatal(err)
		}
	}
	if now := admit.Process().State(); now.Counts != before.Counts {
		t.Errorf("held-back calls have reached the server: %+v, before %+v", now.Counts, before.Counts)
	}
	if err := ask(qos.Critical); err != nil {
		t.Fatal(err)
	}
	if got := admit.Process().State().Suppressed - before.Suppressed; got != 50 {
		t.Errorf("%d calls reported as held back, want 50", got)
	}
}

// TestLevelIsForgotten: nobody would ever hear of a better level from a server that
// he does not call.
func TestLevelIsForgotten(t *testing.T) {
	conn := gatekept(t, testpb.NewServer().Register)
	client := testpb.NewEchoClient(conn)
	pin(t, 0)
	_, _ = client.Echo(as(t.Context(), qos.Critical, 0), &testpb.EchoRequest{})
	admit.Process().Unpin()
	until(t, "a call is sent again", func() bool {
		_, err := client.Echo(as(t.Context(), qos.Background, 127), &testpb.EchoRequest{})
		return err == nil
	})
}

// until waits for a fact.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !fact(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		pause := time.NewTimer(5 * time.Millisecond)
		<-pause.C
	}
}

// TestRefusedElsewhere makes a call again at another instance, once.
func TestRefusedElsewhere(t *testing.T) {
	full := framework.NewServer(framework.ServerConfig{Service: "full", MaxInFlight: 1}, framework.WithoutSignals())
	free := framework.NewServer(framework.ServerConfig{Service: "free", Admission: framework.Off}, framework.WithoutSignals())
	busy, idle := testpb.NewServer(), testpb.NewServer()
	busy.Register(full)
	idle.Register(free)
	run(t, full)
	run(t, free)
	conn, err := framework.Dial(framework.ClientConfig{Service: "full", Addrs: []string{full.Addr(), free.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	only, err := framework.Dial(framework.ClientConfig{Service: "full", Addrs: []string{full.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = only.Close() }()
	var g sync.WaitGroup
	g.Go(func() { _, _ = testpb.NewEchoClient(only).Act(t.Context(), &testpb.ActRequest{Act: "block"}) })
	until(t, "the blocking call is inside", func() bool { return busy.Acted.Load() == 1 })
	for range 8 { // each is likely to be tried at the full one first
		if _, err := testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := testpb.NewEchoClient(only).Echo(t.Context(), &testpb.EchoRequest{}); rpc.ReasonOf(err) != rpc.ReasonOverload {
		t.Errorf("the full server alone: %v", err)
	}
	close(busy.Release)
	g.Wait()
}

func run(t *testing.T, srv *framework.Server) {
	t.Helper()
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
}

// TestTicket: the second call of a task says that a first one has been done.
func TestTicket(t *testing.T) {
	seen := make(chan uint16, 3)
	conn := gatekept(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, tickets{seen: seen}) })
	client := testpb.NewEchoClient(conn)
	ctx := as(t.Context(), qos.Post, 1)
	for range 3 {
		if _, err := client.Echo(ctx, &testpb.EchoRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for want := range uint16(3) {
		if got := <-seen; got != want {
			t.Errorf("call %d has ticket %d", want, got)
		}
	}
}

type tickets struct {
	testpb.UnimplementedEchoServer
	seen chan<- uint16
}

func (s tickets) Echo(ctx context.Context, _ *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	s.seen <- rpc.CallFrom(ctx).Ticket
	return &testpb.EchoResponse{}, nil
}

// TestPriorityIsBelievedOnLoopbackOnly: on an address that others can reach a header
// says nothing of what matters.
func TestPriorityIsBelievedOnLoopbackOnly(t *testing.T) {
	srv := framework.NewServer(framework.ServerConfig{Service: "open", Addr: "0.0.0.0:0", Plaintext: framework.PlaintextAnywhere}, framework.WithoutSignals())
	testpb.NewServer().Register(srv)
	run(t, srv)
	_, port, err := net.SplitHostPort(srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := framework.Dial(framework.ClientConfig{Service: "open", Addrs: []string{"127.0.0.1:" + port}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Class: qos.Critical, UserLevel: 3, Ticket: 9}})
	res, err := testpb.NewEchoClient(conn).Act(ctx, &testpb.ActRequest{Act: "header"})
	if err != nil {
		t.Fatal(err)
	}
	if res.GetName() == qos.Critical.String() || res.GetId() != qos.UserLevels-1 {
		t.Errorf("a stranger's call counts as %s/%d", res.GetName(), res.GetId())
	}
}

// TestLocalCallsWaitOnce: a call within the process waits at the door if it is made
// from outside of any, and passes if its caller is inside.
func TestLocalCallsWaitOnce(t *testing.T) {
	srv := framework.NewServer(framework.ServerConfig{Service: "local"}, framework.WithoutSignals())
	testpb.NewServer().Register(srv)
	conn := framework.DialLocal(srv)
	defer func() { _ = conn.Close() }()
	client := testpb.NewEchoClient(conn)
	pin(t, 0)
	job := &rpc.Call{Header: rpc.Header{Class: qos.Background, UserLevel: 9}}
	if _, err := client.Echo(rpc.WithCall(t.Context(), job), &testpb.EchoRequest{}); rpc.ReasonOf(err) != rpc.ReasonOverload {
		t.Errorf("a job of the last class: %v", err)
	}
	job.Progress().Admit()
	if _, err := client.Echo(rpc.WithCall(t.Context(), job), &testpb.EchoRequest{}); err != nil {
		t.Errorf("the same from inside: %v", err)
	}
}

// TestPeerGoneWhileItsCallsWait: nobody wants the answers, no slot stays taken.
func TestPeerGoneWhileItsCallsWait(t *testing.T) {
	s := &spinner{work: 20 * time.Millisecond}
	conn := gatekept(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, s) })
	var g sync.WaitGroup
	for range 200 {
		g.Go(func() {
			_, _ = testpb.NewEchoClient(conn).Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 20_000)})
		})
	}
	until(t, "calls run", func() bool { return s.ran.Load() > 0 })
	_ = conn.Close()
	g.Wait()
	until(t, "nobody is inside and nobody waits", func() bool {
		st := admit.Process().State()
		return st.Running == 0 && st.Waiting == 0
	})
	if n := admit.Process().KeptBytes(); n != 0 {
		t.Errorf("%d bytes of requests are still kept", n)
	}
}
