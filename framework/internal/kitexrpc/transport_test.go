// SPDX-License-Identifier: Apache-2.0

package kitexrpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// netpoll's pollers and the pooled workers of netpoll and kitex live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
	)
}

// start runs a server with its own limits until the test ends.
func start(t *testing.T, cfg framework.ServerConfig, register func(rpc.Registrar)) (addr string, stop func() error) {
	t.Helper()
	cfg.Service = "test"
	srv := framework.NewServer(cfg, framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	register(srv)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return srv.Addr(), stop
}

func dial(t *testing.T, addrs ...string) *framework.Conn {
	t.Helper()
	conn, err := framework.Dial(framework.ClientConfig{Service: "test", Addrs: addrs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestMalformedPeers sends what no client of ours would: the server must close that
// connection, and serve the others on.
func TestMalformedPeers(t *testing.T) {
	addr, _ := start(t, framework.ServerConfig{ReadTimeout: 50 * time.Millisecond, MaxFrameBytes: 64 << 10}, testpb.NewServer().Register)
	client := testpb.NewEchoClient(dial(t, addr))

	huge := make([]byte, 14)
	binary.BigEndian.PutUint32(huge, 0xFFFFFFF0)
	binary.BigEndian.PutUint16(huge[4:], 0x1000)
	over := make([]byte, 14)
	binary.BigEndian.PutUint32(over, 65<<10)
	binary.BigEndian.PutUint16(over[4:], 0x1000)
	half := make([]byte, 14)
	binary.BigEndian.PutUint32(half, 1000)
	binary.BigEndian.PutUint16(half[4:], 0x1000)
	badHeader := make([]byte, 40)
	binary.BigEndian.PutUint32(badHeader, 36)
	binary.BigEndian.PutUint16(badHeader[4:], 0x1000)
	badHeader[11], badHeader[13] = 1, 2 // sequence 1, two words of header
	badHeader[16] = 0x77                // a block nobody knows

	for name, bytes := range map[string][]byte{
		"http":                     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"4 GB frame":               huge,
		"frame over the limit":     over,
		"frame that never ends":    half,
		"one byte":                 {0},
		"header with junk":         badHeader,
		"zeroes":                   make([]byte, 100),
		"tls client hello, begins": {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			if _, err := nc.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if err := nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, nc); err != nil && isTimeout(err) {
				t.Fatalf("the connection stayed open, %d bytes came: %v", n, err)
			}
			if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
				t.Fatalf("another client's call failed: %v", err)
			}
		})
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func TestTooLarge(t *testing.T) {
	addr, _ := start(t, framework.ServerConfig{MaxFrameBytes: 64 << 10}, testpb.NewServer().Register)
	client := testpb.NewEchoClient(dial(t, addr))
	_, err := client.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 17<<20)})
	if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Code != rpc.ResourceExhausted || !e.NotRun {
		t.Fatalf("a request over the client's limit: got %v", err)
	}
}

func TestTooManyConnections(t *testing.T) {
	addr, _ := start(t, framework.ServerConfig{MaxConnections: 4}, testpb.NewServer().Register)
	client := testpb.NewEchoClient(dial(t, addr))
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { // the client's four connections are all there
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		if err := nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err = nc.Read(make([]byte, 1))
		return err != nil && !isTimeout(err)
	})
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Fatal(err)
	}
}

func waitUntil(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 20 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTooManyInFlight(t *testing.T) {
	srv := testpb.NewServer()
	addr, _ := start(t, framework.ServerConfig{MaxInFlight: 2}, srv.Register)
	client := testpb.NewEchoClient(dial(t, addr))
	var blocked sync.WaitGroup
	for range 2 {
		blocked.Go(func() {
			if _, err := client.Act(t.Context(), &testpb.ActRequest{Act: "block"}); err != nil {
				t.Errorf("a call within the limit failed: %v", err)
			}
		})
	}
	waitUntil(t, func() bool { return srv.Acted.Load() == 2 })
	_, err := client.Echo(t.Context(), &testpb.EchoRequest{})
	if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Code != rpc.ResourceExhausted || e.Reason != rpc.ReasonOverload || !e.NotRun {
		t.Fatalf("got %v", err)
	}
	close(srv.Release)
	blocked.Wait()
}

// TestSilentPeer calls a server that reads nothing: callers must get their
// deadline, not each other's bytes to wait for.
func TestSilentPeer(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			nc, err := lis.Accept()
			if err != nil {
				return
			}
			accepted = append(accepted, nc)
		}
	}()
	t.Cleanup(func() {
		_ = lis.Close()
		<-ended
		for _, nc := range accepted {
			_ = nc.Close()
		}
	})
	client := testpb.NewEchoClient(dial(t, lis.Addr().String()))
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := client.Echo(ctx, &testpb.EchoRequest{Data: make([]byte, 1<<20)})
			if rpc.CodeOf(err) != rpc.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
		})
	}
	callers.Wait()
}

// TestPeerThatDoesNotRead asks for answers and never reads them: the server must
// close that connection and keep nothing.
func TestPeerThatDoesNotRead(t *testing.T) {
	srv := testpb.NewServer()
	addr, stop := start(t, framework.ServerConfig{}, srv.Register)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// A relay that passes the client's bytes on and swallows no answer.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var relays sync.WaitGroup
		defer relays.Wait()
		for {
			from, err := lis.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				_ = from.Close()
				continue
			}
			relays.Go(func() {
				_, _ = io.Copy(to, from)
				_ = to.Close()
				_ = from.Close()
			})
		}
	}()
	conn := dial(t, lis.Addr().String())
	client := testpb.NewEchoClient(conn)
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := client.Echo(ctx, &testpb.EchoRequest{Data: make([]byte, 1<<20)}); err == nil {
				t.Error("an answer came through a relay that passes none")
			}
		})
	}
	callers.Wait()
	_ = conn.Close()
	_ = lis.Close()
	<-ended
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestHalfAnAnswer cuts an answer off in the middle and keeps the connection: the client
// must give it up, and call over another.
func TestHalfAnAnswer(t *testing.T) {
	addr, _ := start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const half = 40 << 10 // of one connection's answers pass so many bytes
	var given sync.WaitGroup
	ended := make(chan struct{})
	givenUp := make(chan struct{}, 64)
	go func() {
		defer close(ended)
		defer given.Wait()
		for {
			from, err := lis.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", addr)
			if err != nil {
				_ = from.Close()
				continue
			}
			given.Go(func() {
				_, _ = io.CopyN(from, to, half) // then nothing more comes
			})
			given.Go(func() {
				_, _ = io.Copy(to, from) // until the client gives up
				_ = to.Close()
				_ = from.Close()
				givenUp <- struct{}{}
			})
		}
	}()
	conn, err := framework.Dial(framework.ClientConfig{
		Service: "half", Addrs: []string{lis.Addr().String()}, Connections: 1, ReadTimeout: 50 * time.Millisecond, ConnectTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	client := testpb.NewEchoClient(conn)
	_, err = client.Echo(t.Context(), &testpb.EchoRequest{Data: make([]byte, 2*half)})
	if rpc.ReasonOf(err) != rpc.ReasonNetwork && rpc.ReasonOf(err) != rpc.ReasonDeadline {
		t.Errorf("half an answer came: got %v", err)
	}
	<-givenUp
	waitUntil(t, func() bool {
		slow := framework.Items().Snapshot().Find("sluice.link.closed", metrics.Label{Name: "callee", Value: "half"}, metrics.Label{Name: "cause", Value: "slow"})
		return slow != nil && slow.Value > 0
	})
	waitUntil(t, func() bool {
		_, err := client.Echo(t.Context(), &testpb.EchoRequest{})
		return err == nil
	})
	_ = conn.Close()
	_ = lis.Close()
	<-ended
}

func TestNobodyThere(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	_ = lis.Close()
	_, err = testpb.NewEchoClient(dial(t, addr)).Echo(t.Context(), &testpb.EchoRequest{})
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok || e.Code != rpc.Unavailable || e.Reason != rpc.ReasonNoInstance || !e.NotRun {
		t.Fatalf("got %v", err)
	}
}

func TestReconnects(t *testing.T) {
	addr, stop := start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	client := testpb.NewEchoClient(dial(t, addr))
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Echo(t.Context(), &testpb.EchoRequest{}); rpc.CodeOf(err) != rpc.Unavailable {
		t.Fatalf("without a server: got %v", err)
	}
	start(t, framework.ServerConfig{Addr: addr}, testpb.NewServer().Register)
	waitUntil(t, func() bool {
		_, err := client.Echo(t.Context(), &testpb.EchoRequest{})
		return err == nil
	})
}

// TestDrain stops one of two instances again and again under load: no call may
// fail, whatever the moment.
func TestDrain(t *testing.T) {
	steady, _ := start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	moving, stop := start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	client := testpb.NewEchoClient(dial(t, steady, moving))
	var calls atomic.Int64
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := client.Act(t.Context(), &testpb.ActRequest{Act: "sleep", Ms: 1}); err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for range 5 {
		before := calls.Load()
		waitUntil(t, func() bool { return t.Failed() || calls.Load() > before+200 })
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		_, stop = start(t, framework.ServerConfig{Addr: moving}, testpb.NewServer().Register)
	}
	close(done)
	callers.Wait()
}

// TestHalfARequestNeverRuns cuts a large call off in the middle: it is decided about
// before all of it has come, and what has come must not be taken for the whole.
func TestHalfARequestNeverRuns(t *testing.T) {
	ran := make(chan int, 1)
	addr, stop := start(t, framework.ServerConfig{ReadTimeout: time.Minute}, func(r rpc.Registrar) {
		testpb.RegisterEchoServer(r, lengths{ran: ran})
	})
	frame := wireCall(1 << 20)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(frame[:len(frame)/2]); err != nil {
		t.Fatal(err)
	}
	if err := nc.Close(); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil { // waits for all that has been let in
		t.Error(err)
	}
	select {
	case n := <-ran:
		t.Errorf("the handler ran on %d bytes", n)
	default:
	}
}

type lengths struct {
	testpb.UnimplementedEchoServer
	ran chan<- int
}

func (l lengths) Echo(_ context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	l.ran <- len(req.GetData())
	return &testpb.EchoResponse{}, nil
}

// wireCall gives a call of Echo with n bytes of data as a stranger would write it.
func wireCall(n int) []byte {
	method, service := "Echo", testpb.EchoDesc.Name
	message := protowire.AppendTag(nil, 3, protowire.BytesType)
	message = protowire.AppendBytes(message, make([]byte, n))
	be := binary.BigEndian
	info := []byte{0, 0, 0x01, 0, 1, 0, 3, 'i', 's', 'n'}
	info = append(be.AppendUint16(info, uint16(len(service))), service...)
	for len(info)%4 != 0 {
		info = append(info, 0)
	}
	payload := be.AppendUint32(nil, 0x9001<<16|1)
	payload = append(be.AppendUint32(payload, uint32(len(method))), method...)
	payload = append(be.AppendUint32(payload, 7), message...)
	b := be.AppendUint32(nil, uint32(10+len(info)+4+len(payload)))
	b = be.AppendUint16(be.AppendUint16(b, 0x1000), 1)
	b = be.AppendUint16(be.AppendUint32(b, 7), uint16(len(info)/4))
	b = append(b, info...)
	return append(be.AppendUint32(b, uint32(len(payload))), payload...)
}

// TestRefusedFrameThatNeverEnds begins a large frame that nobody wants, and sends no more
// of it, or a byte now and then.
func TestRefusedFrameThatNeverEnds(t *testing.T) {
	addr, _ := start(t, framework.ServerConfig{ReadTimeout: 50 * time.Millisecond}, testpb.NewServer().Register)
	frame := bytes.ReplaceAll(wireCall(1<<20), []byte("Echo"), []byte("Nope"))
	for _, dribbles := range []bool{false, true} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		if _, err := nc.Write(frame[:32<<10]); err != nil {
			t.Fatal(err)
		}
		rest := frame[32<<10:]
		waitUntil(t, func() bool {
			if dribbles {
				_, _ = nc.Write(rest[:1])
				rest = rest[1:]
			}
			_ = nc.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := io.Copy(io.Discard, nc)
			return err == nil || !isTimeout(err)
		})
	}
	// One that comes whole is skipped, and what follows it on the connection is answered.
	addr, _ = start(t, framework.ServerConfig{}, testpb.NewServer().Register)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	for range 3 {
		if _, err := nc.Write(frame); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(nc, head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint32(head))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWholeRequestRuns sees that wireCall is a call, or the test above proves nothing.
func TestWholeRequestRuns(t *testing.T) {
	ran := make(chan int, 1)
	addr, _ := start(t, framework.ServerConfig{}, func(r rpc.Registrar) { testpb.RegisterEchoServer(r, lengths{ran: ran}) })
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if _, err := nc.Write(wireCall(1 << 20)); err != nil {
		t.Fatal(err)
	}
	if n := <-ran; n != 1<<20 {
		t.Errorf("%d bytes have come", n)
	}
}
