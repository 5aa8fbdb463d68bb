// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// TestLateAnswerIsTheLast has a server ask its client to leave while a call is open, and
// answer that when its caller has given up: the client leaves then.
func TestLateAnswerIsTheLast(t *testing.T) {
	l, lis := newLink(t)
	connected, _ := l.state()
	s := accept(t, lis)
	s.answer(s.next()) // of the ping that it begins with
	<-connected
	conn := l.conn.Load()
	callCtx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		call := interceptor.ClientCall{Method: pingMethod, Request: &emptypb.Empty{}, Response: &emptypb.Empty{}, Deadline: time.Now().Add(time.Hour)}
		ended <- conn.call(callCtx, &call, admission.Report{})
	}()
	seq := s.next()
	s.write(appendReset(nil))
	<-conn.unusable
	giveUp()
	if err := <-ended; rpc.CodeOf(err) != rpc.Canceled {
		t.Fatalf("who gave up got %v", err)
	}
	s.answer(seq)
	if n, err := s.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stayed open: %d bytes, %v", n, err)
	}
}

// TestLostSoonIsNoFailure has every connection end as soon as it has been answered, as when
// workers of a prefork server are killed one after the other: who waits for a connection is
// never told that there is nobody, and gets the one that lasts.
func TestLostSoonIsNoFailure(t *testing.T) {
	l, lis := newLink(t)
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		for range 3 {
			s := accept(t, lis)
			s.answer(s.next())
			_ = s.Close()
		}
		s := accept(t, lis)
		s.answer(s.next())
		s.answer(s.next())
	})
	for {
		wait, err := l.state()
		if err != nil {
			t.Fatalf("whoever waits is told: %v", err)
		}
		<-wait
		conn := l.conn.Load()
		if conn == nil {
			continue
		}
		if _, err := conn.ping(t.Context(), 20*time.Second); err == nil {
			return
		}
		<-conn.unusable
	}
}

// newLink gives a link that runs until the test ends, and where it connects to.
func newLink(t *testing.T) (*link, net.Listener) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var cfg atomic.Pointer[ClientConfig]
	cfg.Store(&transport.ClientConfig{MaxFrameBytes: 1 << 20, ConnectTimeout: time.Minute, ReadTimeout: time.Minute, Items: &metrics.ClientTransport{}})
	l := &link{addr: lis.Addr().String(), cfg: &cfg, attempt: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	t.Cleanup(func() {
		stop()
		_ = lis.Close()
		running.Wait()
	})
	return l, lis
}

// served is the server's end of a connection, in the hands of a test.
type served struct {
	net.Conn
	t *testing.T
}

func accept(t *testing.T, lis net.Listener) served {
	nc, err := lis.Accept()
	if err != nil {
		t.Error(err)
		return served{&net.TCPConn{}, t}
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Error(err)
	}
	return served{nc, t}
}

// next gives the number of the call that comes next.
func (s served) next() int32 {
	head := make([]byte, 12)
	if _, err := io.ReadFull(s, head); err != nil {
		s.t.Error(err)
		return 0
	}
	if _, err := io.CopyN(io.Discard, s, int64(be.Uint32(head))-8); err != nil {
		s.t.Error(err)
	}
	return int32(be.Uint32(head[8:]))
}

func (s served) answer(seq int32) {
	s.write(appendErrorReply(nil, seq, nil, 0, 0, &rpc.Error{Code: rpc.Unimplemented}, false))
}

func (s served) write(b []byte) {
	if _, err := s.Write(b); err != nil {
		s.t.Error(err)
	}
}
