// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	grpcv1 "github.com/sluice-rpc/sluice/framework/bench/idl/grpc/v1"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// grpcPeer is grpc-go with its defaults, over as many connections as the others.
var grpcPeer = child.Peer{
	Name:     "grpc",
	About:    "grpc-go v1.85.0, default options",
	Deadline: true,
	Serve:    grpcServe(nil, nil),
	Dial:     grpcDial(nil),
}

type grpcHandler struct {
	grpcv1.UnimplementedEchoServiceServer
	s *child.Service
}

func (h grpcHandler) Echo(_ context.Context, req *grpcv1.EchoRequest) (*grpcv1.EchoResponse, error) {
	h.s.Echo()
	return &grpcv1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h grpcHandler) Hold(_ context.Context, req *grpcv1.EchoRequest) (*grpcv1.EchoResponse, error) {
	h.s.Hold()
	return &grpcv1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// grpcServe serves with more options and services, which are made when it begins.
func grpcServe(more func() []grpc.ServerOption, register func(*grpc.Server)) func(*child.Service) (string, error) {
	return func(s *child.Service) (string, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		var opts []grpc.ServerOption
		if more != nil {
			opts = more()
		}
		srv := grpc.NewServer(opts...)
		grpcv1.RegisterEchoServiceServer(srv, grpcHandler{s: s})
		if register != nil {
			register(srv)
		}
		go child.Serve(func() error { return srv.Serve(ln) })
		return ln.Addr().String(), nil
	}
}

// grpcClient spreads its calls over its connections in turn.
type grpcClient struct {
	child.TakesAll
	next  *atomic.Uint32
	conns [child.Connections]grpcv1.EchoServiceClient
}

func grpcDial(more func() []grpc.DialOption) func(addr string) (child.Client, error) {
	return func(addr string) (child.Client, error) {
		opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
		if more != nil {
			opts = append(opts, more()...)
		}
		c := grpcClient{next: new(atomic.Uint32)}
		for i := range c.conns {
			conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
			if err != nil {
				return nil, fmt.Errorf("dial %s: %w", addr, err)
			}
			conn.Connect()
			c.conns[i] = grpcv1.NewEchoServiceClient(conn)
		}
		return &c, nil
	}
}

func (c *grpcClient) pick() grpcv1.EchoServiceClient { return c.conns[c.next.Add(1)%child.Connections] }

func (c *grpcClient) Echo(data []byte) child.Caller {
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

func (c *grpcClient) Hold(data []byte) child.Caller {
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
