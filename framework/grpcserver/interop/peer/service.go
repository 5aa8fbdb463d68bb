// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/grpcserver/interop/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// service does what the tests ask for.
type service struct {
	testpb.UnimplementedTestServiceServer
}

const (
	initialKey  = "x-grpc-test-echo-initial"
	trailingKey = "x-grpc-test-echo-trailing-bin"
)

// echoMetadata sends back what the test of metadata sends.
func echoMetadata(ctx context.Context) error {
	md := grpcserver.Metadata(ctx)
	if v := md[trailingKey]; len(v) > 0 {
		grpcserver.SetTrailer(ctx, map[string][]string{trailingKey: v})
	}
	if v := md[initialKey]; len(v) > 0 {
		return grpcserver.SetHeader(ctx, map[string][]string{initialKey: v})
	}
	return nil
}

func statusOf(s *testpb.EchoStatus) error {
	if s.GetCode() == 0 {
		return nil
	}
	return rpc.Errorf(rpc.Code(s.GetCode()), "%s", s.GetMessage())
}

func payload(size int32) (*testpb.Payload, error) {
	if size < 0 {
		return nil, rpc.Errorf(rpc.InvalidArgument, "a payload of %d bytes", size)
	}
	return &testpb.Payload{Body: make([]byte, size)}, nil
}

// EmptyCall implements testpb.TestServiceServer.
func (service) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// UnaryCall implements testpb.TestServiceServer.
func (service) UnaryCall(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := echoMetadata(ctx); err != nil {
		return nil, err
	}
	if err := statusOf(req.GetResponseStatus()); err != nil {
		return nil, err
	}
	p, err := payload(req.GetResponseSize())
	if err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{Payload: p}, nil
}

// StreamingOutputCall implements testpb.TestServiceServer.
func (service) StreamingOutputCall(ctx context.Context, req *testpb.StreamingOutputCallRequest, out rpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return answer(ctx, req, out)
}

// answer sends what one request of a stream asks for.
func answer(ctx context.Context, req *testpb.StreamingOutputCallRequest, out rpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	if err := statusOf(req.GetResponseStatus()); err != nil {
		return err
	}
	for _, want := range req.GetResponseParameters() {
		if us := want.GetIntervalUs(); us > 0 {
			wait := time.NewTimer(time.Duration(us) * time.Microsecond)
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
				return ctx.Err()
			}
		}
		p, err := payload(want.GetSize())
		if err != nil {
			return err
		}
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: p}); err != nil {
			return err
		}
	}
	return nil
}

// StreamingInputCall implements testpb.TestServiceServer.
func (service) StreamingInputCall(_ context.Context, in rpc.ClientStreamingServer[testpb.StreamingInputCallRequest]) (*testpb.StreamingInputCallResponse, error) {
	sum := 0
	for {
		req, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return &testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)}, nil
		}
		if err != nil {
			return nil, err
		}
		sum += len(req.GetPayload().GetBody())
	}
}

// FullDuplexCall implements testpb.TestServiceServer.
func (service) FullDuplexCall(ctx context.Context, stream rpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if err := echoMetadata(ctx); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(ctx, req, stream); err != nil {
			return err
		}
	}
}
