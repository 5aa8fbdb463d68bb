// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	sluicev1 "github.com/sluice-rpc/sluice/framework/bench/idl/sluice/v1"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// sluicePeer is this framework through its facade, with everything it always has
// on: header, interceptors, deadlines at both ends.
var sluicePeer = child.Peer{
	Name:     "sluice",
	About:    "this tree, generated stubs over the facade; every call has a deadline",
	Deadline: true,
	Serve:    sluiceServe,
	Middle:   sluiceMiddle,
	Dial:     sluiceDial,
	Local:    sluiceLocal,
}

type sluiceHandler struct {
	sluicev1.UnimplementedEchoServiceServer
	s    *child.Service
	next sluicev1.EchoServiceClient // where blocked calls are blocked; nil: here
}

func (h sluiceHandler) Echo(_ context.Context, req *sluicev1.EchoRequest) (*sluicev1.EchoResponse, error) {
	h.s.Echo()
	return &sluicev1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h sluiceHandler) Hold(ctx context.Context, req *sluicev1.EchoRequest) (*sluicev1.EchoResponse, error) {
	if h.next != nil {
		h.s.Pass()
		return h.next.Hold(ctx, req)
	}
	h.s.Hold()
	return &sluicev1.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// maxInFlight leaves room for a probe beside a million blocked calls. It is the only
// setting that is not the default.
const maxInFlight = 2_000_000

func sluiceServe(s *child.Service) (string, error) {
	return sluiceRun(sluiceHandler{s: s}, framework.TLS{})
}

func sluiceMiddle(s *child.Service, next string) (string, error) {
	conn, err := framework.Dial(framework.ClientConfig{Service: "bench", Addrs: []string{next}, Connections: child.Connections})
	if err != nil {
		return "", err
	}
	return sluiceRun(sluiceHandler{s: s, next: sluicev1.NewEchoServiceClient(conn)}, framework.TLS{})
}

func sluiceRun(h sluiceHandler, secured framework.TLS) (string, error) {
	srv := framework.NewServer(framework.ServerConfig{Service: "bench", MaxInFlight: maxInFlight, TLS: secured})
	sluicev1.RegisterEchoServiceServer(srv, h)
	if err := srv.Listen(); err != nil {
		return "", err
	}
	go child.Serve(func() error { return srv.Run(context.Background()) })
	return srv.Addr(), nil
}

type sluiceClient struct {
	c sluicev1.EchoServiceClient
}

func sluiceDial(addr string) (child.Client, error) { return dialSluice(addr, framework.TLS{}) }

func dialSluice(addr string, secured framework.TLS) (child.Client, error) {
	conn, err := framework.Dial(framework.ClientConfig{Service: "bench", Addrs: []string{addr}, Connections: child.Connections, TLS: secured})
	if err != nil {
		return nil, err
	}
	return sluiceClient{sluicev1.NewEchoServiceClient(conn)}, nil
}

func sluiceLocal(s *child.Service) (child.Client, error) {
	srv := framework.NewServer(framework.ServerConfig{Service: "bench"}, framework.WithClonedLocalCalls())
	sluicev1.RegisterEchoServiceServer(srv, sluiceHandler{s: s})
	if err := srv.Check(); err != nil {
		return nil, err
	}
	return sluiceClient{sluicev1.NewEchoServiceClient(framework.DialLocal(srv))}, nil
}

func (sluiceClient) ComeAgain(err error) (time.Duration, bool) {
	e, ok := errors.AsType[*rpc.Error](err)
	if !ok || e.Reason != rpc.ReasonOverload || !e.NotRun {
		return 0, false
	}
	return e.Retry, true
}

func (c sluiceClient) Echo(data []byte) child.Caller {
	req := &sluicev1.EchoRequest{Name: child.EchoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Echo(ctx, req)
		if err != nil {
			return err
		}
		return child.Check(id, res.Id, len(data), len(res.Data))
	}
}

func (c sluiceClient) Hold(data []byte) child.Caller {
	req := &sluicev1.EchoRequest{Name: child.EchoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Hold(ctx, req)
		if err != nil {
			return err
		}
		return child.Check(id, res.Id, len(data), len(res.Data))
	}
}
