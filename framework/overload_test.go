// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// gatekept runs a server with admission and gives a connection to it.
func gatekept(t *testing.T, register func(rpc.Registrar)) *framework.Conn {
	t.Helper()
	srv := framework.NewServer(framework.ServerConfig{Service: "gatekept"}, framework.WithoutSignals(),
		framework.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))))
	register(srv)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	conn, err := framework.Dial(framework.ClientConfig{Service: "gatekept", Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// spinner answers after it has kept a core busy.
type spinner struct {
	testpb.UnimplementedEchoServer
	work time.Duration
	ran  atomic.Int64
}

func (s *spinner) Echo(_ context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	s.ran.Add(1)
	for end := time.Now().Add(s.work); time.Now().Before(end); {
	}
	return &testpb.EchoResponse{Id: req.GetId(), Name: req.GetName(), Data: req.GetData()}, nil
}

// as gives a context of a request of such a class and user.
func as(ctx context.Context, c qos.Class, user uint8) context.Context {
	return rpc.WithCall(ctx, &rpc.Call{Header: rpc.Header{Class: c, UserLevel: user}})
}

// TestOverloadServesTheBest offers much more than a machine can do, of which a part
// matters more: that part is served, the rest is told so, and nobody is left waiting.
func TestOverloadServesTheBest(t *testing.T) {
	s := &spinner{work: 5 * time.Millisecond}
	conn := gatekept(t, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, s) })
	client := testpb.NewEchoClient(conn)
	var served, refused, late [2]atomic.Int64
	var g sync.WaitGroup
	const callers, each = 480, 8 // far more than a queue of a quarter of a second holds
	for i := range callers {
		g.Go(func() {
			important := 0
			class := qos.Background
			if i%16 == 0 {
				important, class = 1, qos.Critical
			}
			for n := range each {
				ctx, cancel := context.WithTimeout(as(t.Context(), class, uint8(n)), 2*time.Second)
				want := fmt.Sprintf("%d/%d", i, n)
				res, err := client.Echo(ctx, &testpb.EchoRequest{Name: want, Data: make([]byte, 200)})
				cancel()
				switch {
				case err == nil && res.GetName() == want:
					served[important].Add(1)
				case rpc.ReasonOf(err) == rpc.ReasonOverload && rpc.CodeOf(err) == rpc.ResourceExhausted:
					refused[important].Add(1)
				case rpc.ReasonOf(err) == rpc.ReasonDeadline:
					late[important].Add(1)
				default:
					t.Errorf("got %v, %v", res, err)
				}
			}
		})
	}
	g.Wait()
	t.Logf("served %d of the rest and %d of the best; refused %d and %d; late %d and %d", served[0].Load(), served[1].Load(),
		refused[0].Load(), refused[1].Load(), late[0].Load(), late[1].Load())
	if refused[0].Load() == 0 {
		t.Error("nothing was refused under a multiple of what the machine can do")
	}
	if best, rest := float64(served[1].Load())/(callers*each/16), float64(served[0].Load())/(callers*each*15/16); best < 2*rest {
		t.Errorf("%.2f of the calls that matter were served, and %.2f of the rest", best, rest)
	}
	if ran := s.ran.Load(); ran != served[0].Load()+served[1].Load() && late[0].Load()+late[1].Load() == 0 {
		t.Errorf("%d calls ran, %d were answered", ran, served[0].Load()+served[1].Load())
	}
}

// TestSleepersOpenTheLimit lets thousands of calls block at once: they use no core.
func TestSleepersOpenTheLimit(t *testing.T) {
	const n = 2_000
	release := make(chan struct{})
	var inside atomic.Int64
	all := make(chan struct{})
	conn := gatekept(t, func(r rpc.Registrar) {
		testpb.RegisterEchoServer(r, blocker{wait: func() {
			if inside.Add(1) == n {
				close(all)
			}
			<-release
		}})
	})
	client := testpb.NewEchoClient(conn)
	var g sync.WaitGroup
	var failed, again atomic.Int64
	for range n {
		g.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := client.Echo(ctx, &testpb.EchoRequest{})
			for rpc.ReasonOf(err) == rpc.ReasonOverload { // what another test has left of the process's load
				again.Add(1)
				retry := time.NewTimer(100 * time.Millisecond)
				<-retry.C
				_, err = client.Echo(ctx, &testpb.EchoRequest{})
			}
			if err != nil {
				failed.Add(1)
				t.Log(err)
			}
		})
	}
	select {
	case <-all:
	case <-t.Context().Done():
		t.Errorf("%d of %d are inside", inside.Load(), n)
	}
	close(release)
	g.Wait()
	t.Logf("%d were refused at first", again.Load())
	if failed.Load() > 0 {
		t.Errorf("%d failed", failed.Load())
	}
}

type blocker struct {
	testpb.UnimplementedEchoServer
	wait func()
}

func (b blocker) Echo(context.Context, *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	b.wait()
	return &testpb.EchoResponse{}, nil
}
