// SPDX-License-Identifier: Apache-2.0

//go:build governed

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/sluice-rpc/sluice/framework/bench/child"
	grpcv1 "github.com/sluice-rpc/sluice/framework/bench/idl/grpc/v1"
)

// patience is the timeout that both are given: no call comes so late, however busy the
// machine is.
const patience = 10 * time.Second

var peers = []child.Peer{goZeroPeer, kratosPeer}

func main() {
	if len(os.Args) > 1 && os.Args[1] == child.Arg {
		os.Exit(child.Main(os.Args[2:], peerNamed))
	}
	for _, p := range peers {
		fmt.Printf("  %-10s %s\n", p.Name, p.About)
	}
}

func peerNamed(name string) (child.Peer, error) {
	for _, p := range peers {
		if p.Name == name {
			return p, nil
		}
	}
	return child.Peer{}, errors.New("there is no such framework here")
}

// freePort is for servers that tell nobody which port they were given.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// handler is what is served.
type handler struct {
	grpcv1.UnimplementedEchoServiceServer
	s *child.Service
}

func (h handler) Echo(_ context.Context, req *grpcv1.EchoRequest) (*grpcv1.EchoResponse, error) {
	h.s.Echo()
	return &grpcv1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h handler) Hold(_ context.Context, req *grpcv1.EchoRequest) (*grpcv1.EchoResponse, error) {
	h.s.Hold()
	return &grpcv1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// clients spreads its calls over its connections in turn.
type clients struct {
	next  atomic.Uint32
	conns [child.Connections]grpcv1.EchoServiceClient
}

func dialAll(dial func() (*grpc.ClientConn, error)) (*clients, error) {
	c := &clients{}
	for i := range c.conns {
		conn, err := dial()
		if err != nil {
			return nil, err
		}
		conn.Connect()
		c.conns[i] = grpcv1.NewEchoServiceClient(conn)
	}
	return c, nil
}

func (c *clients) pick() grpcv1.EchoServiceClient { return c.conns[c.next.Add(1)%child.Connections] }

func (c *clients) Echo(data []byte) child.Caller {
	req := &grpcv1.EchoRequest{Name: child.EchoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.pick().Echo(ctx, req)
		if err != nil {
			return err
		}
		return child.Check(id, res.Id, len(data), len(res.Data))
	}
}

func (c *clients) Hold(data []byte) child.Caller {
	req := &grpcv1.EchoRequest{Name: child.EchoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.pick().Hold(ctx, req)
		if err != nil {
			return err
		}
		return child.Check(id, res.Id, len(data), len(res.Data))
	}
}

// discard is a receiver of spans that costs nothing.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }
