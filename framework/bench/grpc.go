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
)

// grpcPeer is grpc-go with its defaults, over as many connections as the others.
var grpcPeer = peer{
	name:     "grpc",
	about:    "grpc-go v1.85.0, default options",
	deadline: true,
	serve:    grpcServe(nil),
	dial:     grpcDial(nil),
}

type grpcHandler struct {
	grpcv1.UnimplementedEchoServiceServer
	s *service
}

func (h grpcHandler) Echo(_ context.Context, req *grpcv1.EchoRequest) (*grpcv1.EchoResponse, error) {
	h.s.echo()
	return &grpcv1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h grpcHandler) Hold(_ context.Context, req *grpcv1.EchoRequest) (*grpcv1.EchoResponse, error) {
	h.s.hold()
	return &grpcv1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// grpcServe serves with more options, which are made when it begins.
func grpcServe(more func() []grpc.ServerOption) func(*service) (string, error) {
	return func(s *service) (string, error) {
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
		go serve(func() error { return srv.Serve(ln) })
		return ln.Addr().String(), nil
	}
}

// grpcClient spreads its calls over its connections in turn.
type grpcClient struct {
	next  *atomic.Uint32
	conns [connections]grpcv1.EchoServiceClient
}

func grpcDial(more func() []grpc.DialOption) func(addr string) (client, error) {
	return func(addr string) (client, error) {
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

func (c *grpcClient) pick() grpcv1.EchoServiceClient { return c.conns[c.next.Add(1)%connections] }

func (c *grpcClient) echo(data []byte) caller {
	req := &grpcv1.EchoRequest{Name: echoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.pick().Echo(ctx, req)
		if err != nil {
			return err
		}
		return check(id, res.Id, len(data), len(res.Data))
	}
}

func (c *grpcClient) hold(data []byte) caller {
	req := &grpcv1.EchoRequest{Name: echoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.pick().Hold(ctx, req)
		if err != nil {
			return err
		}
		return check(id, res.Id, len(data), len(res.Data))
	}
}
