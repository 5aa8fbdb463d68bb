// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	sluicev1 "github.com/sluice-rpc/sluice/framework/bench/idl/sluice/v1"

	"github.com/sluice-rpc/sluice/framework"
)

// sluicePeer is this framework through its facade, with everything it always has
// on: header, interceptors, deadlines at both ends.
var sluicePeer = peer{
	name:     "sluice",
	about:    "this tree, generated stubs over the facade; every call has a deadline",
	deadline: true,
	serve:    sluiceServe,
	dial:     sluiceDial,
	local:    sluiceLocal,
}

type sluiceHandler struct {
	sluicev1.UnimplementedEchoServiceServer
	s *service
}

func (h sluiceHandler) Echo(_ context.Context, req *sluicev1.EchoRequest) (*sluicev1.EchoResponse, error) {
	h.s.echo()
	return &sluicev1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h sluiceHandler) Hold(_ context.Context, req *sluicev1.EchoRequest) (*sluicev1.EchoResponse, error) {
	h.s.hold()
	return &sluicev1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func sluiceServe(s *service) (string, error) {
	srv := framework.NewServer(framework.ServerConfig{Service: "bench"})
	sluicev1.RegisterEchoServiceServer(srv, sluiceHandler{s: s})
	if err := srv.Listen(); err != nil {
		return "", err
	}
	go serve(func() error { return srv.Run(context.Background()) })
	return srv.Addr(), nil
}

type sluiceClient struct {
	c sluicev1.EchoServiceClient
}

func sluiceDial(addr string) (client, error) {
	conn, err := framework.Dial(framework.ClientConfig{Service: "bench", Addrs: []string{addr}, Connections: connections})
	if err != nil {
		return nil, err
	}
	return sluiceClient{sluicev1.NewEchoServiceClient(conn)}, nil
}

func sluiceLocal(s *service) (client, error) {
	srv := framework.NewServer(framework.ServerConfig{Service: "bench"}, framework.WithClonedLocalCalls())
	sluicev1.RegisterEchoServiceServer(srv, sluiceHandler{s: s})
	if err := srv.Check(); err != nil {
		return nil, err
	}
	return sluiceClient{sluicev1.NewEchoServiceClient(framework.DialLocal(srv))}, nil
}

func (c sluiceClient) echo(data []byte) caller {
	req := &sluicev1.EchoRequest{Name: echoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Echo(ctx, req)
		if err != nil {
			return err
		}
		return check(id, res.Id, len(data), len(res.Data))
	}
}

func (c sluiceClient) hold(data []byte) caller {
	req := &sluicev1.EchoRequest{Name: echoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Hold(ctx, req)
		if err != nil {
			return err
		}
		return check(id, res.Id, len(data), len(res.Data))
	}
}
