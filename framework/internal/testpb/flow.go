// SPDX-License-Identifier: Apache-2.0

package testpb

import (
	"context"
	"errors"
	"io"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// FlowService is the Flow service of the framework's tests.
type FlowService struct {
	UnimplementedFlowServer
	// Told gets a value when a stream has heard that its server drains; nil for none.
	Told chan struct{}
}

// Register registers the server.
func (s *FlowService) Register(r rpc.Registrar) { RegisterFlowServer(r, s) }

// Count implements FlowServer. More than a thousand is an error after the first thousand.
func (s *FlowService) Count(_ context.Context, req *Drop, out rpc.ServerStreamingServer[Drop]) error {
	for n := range req.N {
		if n == 1000 {
			return rpc.WithDetails(rpc.Errorf(rpc.OutOfRange, "more than a thousand"), &Drop{N: n})
		}
		if err := out.Send(&Drop{N: n, Data: req.Data}); err != nil {
			return err
		}
	}
	return nil
}

// Sum implements FlowServer.
func (s *FlowService) Sum(_ context.Context, in rpc.ClientStreamingServer[Drop]) (*Drop, error) {
	sum := &Drop{}
	for {
		d, err := in.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return sum, nil
		case err != nil:
			return nil, err
		case d.N < 0:
			return nil, rpc.Errorf(rpc.InvalidArgument, "less than nothing")
		}
		sum.N += d.N
	}
}

// Back implements FlowServer.
func (s *FlowService) Back(_ context.Context, stream rpc.BidiStreamingServer[Drop, Drop]) error {
	for {
		d, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.N < 0 {
			panic("less than nothing")
		}
		if err := stream.Send(d); err != nil {
			return err
		}
	}
}

// Hang implements FlowServer. With a request of one it ends when it is told to.
func (s *FlowService) Hang(ctx context.Context, req *Drop, out rpc.ServerStreamingServer[Drop]) error {
	if err := out.Send(&Drop{}); err != nil {
		return err
	}
	told := rpc.Draining(ctx)
	if req.N == 0 {
		told = nil
	}
	select {
	case <-told:
		if s.Told != nil {
			s.Told <- struct{}{}
		}
		return out.Send(&Drop{N: 1})
	case <-ctx.Done():
		return ctx.Err()
	}
}
