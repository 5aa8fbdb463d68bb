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
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	var cfg atomic.Pointer[ClientConfig]
	cfg.Store(&transport.ClientConfig{MaxFrameBytes: 1 << 20, ConnectTimeout: time.Minute, ReadTimeout: time.Minute, Items: &metrics.ClientTransport{}})
	l := &link{addr: lis.Addr().String(), cfg: &cfg, attempt: make(chan struct{})}
	attempt := l.attempt
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	defer running.Wait()
	defer stop()

	nc, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer := func(seq int32) []byte {
		return appendErrorReply(nil, seq, nil, 0, 0, &rpc.Error{Code: rpc.Unimplemented}, false)
	}
	next := func() int32 {
		head := make([]byte, 12)
		if _, err := io.ReadFull(nc, head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, nc, int64(be.Uint32(head))-8); err != nil {
			t.Fatal(err)
		}
		return int32(be.Uint32(head[8:]))
	}
	if _, err := nc.Write(answer(next())); err != nil { // of the ping that it begins with
		t.Fatal(err)
	}
	<-attempt
	conn := l.conn.Load()
	callCtx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		call := interceptor.ClientCall{Method: pingMethod, Request: &emptypb.Empty{}, Response: &emptypb.Empty{}, Deadline: time.Now().Add(time.Hour)}
		ended <- conn.call(callCtx, &call, admission.Report{})
	}()
	seq := next()
	if _, err := nc.Write(appendReset(nil)); err != nil {
		t.Fatal(err)
	}
	<-conn.unusable
	giveUp()
	if err := <-ended; rpc.CodeOf(err) != rpc.Canceled {
		t.Fatalf("who gave up got %v", err)
	}
	if _, err := nc.Write(answer(seq)); err != nil {
		t.Fatal(err)
	}
	if n, err := nc.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stayed open: %d bytes, %v", n, err)
	}
}
