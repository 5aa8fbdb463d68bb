// SPDX-License-Identifier: Apache-2.0

// Package testpb is the Echo service of the framework's own tests and benchmarks.
package testpb

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Server is the Echo service of the framework's tests.
type Server struct {
	UnimplementedEchoServer
	// Acted counts the calls of Act that ran.
	Acted atomic.Int64
	// Release lets the calls of act "block" return.
	Release chan struct{}
}

// NewServer gives a server.
func NewServer() *Server { return &Server{Release: make(chan struct{})} }

// Register registers the server.
func (s *Server) Register(r rpc.Registrar) { RegisterEchoServer(r, s) }

// Echo implements EchoServer.
func (s *Server) Echo(_ context.Context, req *EchoRequest) (*EchoResponse, error) {
	return &EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// Act implements EchoServer.
func (s *Server) Act(ctx context.Context, req *ActRequest) (*EchoResponse, error) {
	s.Acted.Add(1)
	switch req.Act {
	case "block":
		select {
		case <-s.Release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "sleep":
		t := time.NewTimer(time.Duration(req.Ms) * time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "panic":
		panic("secret of the inside")
	case "error":
		return nil, rpc.WithDetails(rpc.Errorf(rpc.NotFound, "no such thing"), &ActRequest{Act: "detail", Ms: 7})
	case "plain-error":
		return nil, errors.New("secret of the inside")
	case "nothing":
		return nil, nil
	case "change":
		req.Act = "changed"
	case "exhausted":
		return nil, rpc.Errorf(rpc.ResourceExhausted, "the handler's own limit")
	case "header":
		call := rpc.CallFrom(ctx)
		return &EchoResponse{Id: int64(call.UserLevel), Name: call.Class.String(), Data: call.Trace[:]}, nil
	}
	return &EchoResponse{Name: req.Act}, nil
}
