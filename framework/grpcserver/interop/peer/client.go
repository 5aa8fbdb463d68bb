// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/grpcserver/interop/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// cases are those of the tests' description that apply, as a client runs them.
var cases = []struct {
	name string
	run  func(ctx context.Context, c testpb.TestServiceClient, conn *framework.Conn) error
}{
	{"empty_unary", emptyUnary},
	{"large_unary", largeUnary},
	{"client_streaming", clientStreaming},
	{"server_streaming", serverStreaming},
	{"ping_pong", pingPong},
	{"empty_stream", emptyStream},
	{"timeout_on_sleeping_server", timeout},
	{"cancel_after_begin", cancelAfterBegin},
	{"cancel_after_first_response", cancelAfterFirst},
	{"status_code_and_message", statusAndMessage},
	{"special_status_message", specialStatus},
	{"unimplemented_method", unimplementedMethod},
	{"unimplemented_service", unimplementedService},
}

// callAll runs every case against the server at addr.
func callAll(addr string) (ok bool) {
	conn, err := framework.Dial(framework.ClientConfig{Service: "interop", Addrs: []string{addr}}, framework.WithClientTransport(grpcclient.New(grpcclient.Config{})))
	if err != nil {
		fmt.Println(err)
		return false
	}
	defer func() { _ = conn.Close() }()
	ok = true
	for _, c := range cases {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := c.run(ctx, testpb.NewTestServiceClient(conn), conn); err != nil {
			fmt.Println("FAIL", c.name, err)
			ok = false
		} else {
			fmt.Println("ok", c.name)
		}
		cancel()
	}
	return ok
}

// want says that an error is not of a code.
func want(code rpc.Code, err error) error {
	if got := rpc.CodeOf(err); got != code {
		return fmt.Errorf("got %w, want %v", errors.Join(err, errors.New("code "+got.String())), code)
	}
	return nil
}

func body(size int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, size)} }

func emptyUnary(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	_, err := c.EmptyCall(ctx, &testpb.Empty{})
	return err
}

func largeUnary(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	res, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: 314159, Payload: body(271828)})
	if err == nil && len(res.GetPayload().GetBody()) != 314159 {
		err = fmt.Errorf("%d bytes", len(res.GetPayload().GetBody()))
	}
	return err
}

var requestSizes = []int{27182, 8, 1828, 45904}

func clientStreaming(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	s, err := c.StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	for _, n := range requestSizes {
		if err := s.Send(&testpb.StreamingInputCallRequest{Payload: body(n)}); err != nil {
			return err
		}
	}
	res, err := s.CloseAndRecv()
	if err == nil && res.GetAggregatedPayloadSize() != 74922 {
		err = fmt.Errorf("sum %d", res.GetAggregatedPayloadSize())
	}
	return err
}

var responseSizes = []int32{31415, 9, 2653, 58979}

// expect receives one payload of a size.
func expect(s rpc.ServerStreamingClient[testpb.StreamingOutputCallResponse], size int32) error {
	res, err := s.Recv()
	if err == nil && len(res.GetPayload().GetBody()) != int(size) {
		err = fmt.Errorf("%d bytes, want %d", len(res.GetPayload().GetBody()), size)
	}
	return err
}

// expectEnd receives the end of a stream.
func expectEnd(s rpc.ServerStreamingClient[testpb.StreamingOutputCallResponse]) error {
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream does not end: %w", err)
	}
	return nil
}

func serverStreaming(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	req := &testpb.StreamingOutputCallRequest{}
	for _, n := range responseSizes {
		req.ResponseParameters = append(req.ResponseParameters, &testpb.ResponseParameters{Size: n})
	}
	s, err := c.StreamingOutputCall(ctx, req)
	if err != nil {
		return err
	}
	for _, n := range responseSizes {
		if err := expect(s, n); err != nil {
			return err
		}
	}
	return expectEnd(s)
}

func pingPong(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for i, n := range responseSizes {
		if err := s.Send(&testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: n}}, Payload: body(requestSizes[i]),
		}); err != nil {
			return err
		}
		if err := expect(s, n); err != nil {
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return expectEnd(s)
}

func emptyStream(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return expectEnd(s)
}

func timeout(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	s, err := c.FullDuplexCall(ctx)
	if err != nil { // it may not even begin
		return want(rpc.DeadlineExceeded, err)
	}
	defer s.Close()
	if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: body(27182)}); err != nil && !errors.Is(err, io.EOF) {
		return want(rpc.DeadlineExceeded, err)
	}
	_, err = s.Recv()
	return want(rpc.DeadlineExceeded, err)
}

func cancelAfterBegin(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	s, err := c.StreamingInputCall(ctx)
	cancel()
	if err != nil {
		return err
	}
	_, err = s.CloseAndRecv()
	return want(rpc.Canceled, err)
}

func cancelAfterFirst(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 31415}}, Payload: body(27182)}); err != nil {
		return err
	}
	if err := expect(s, 31415); err != nil {
		return err
	}
	cancel()
	_, err = s.Recv()
	return want(rpc.Canceled, err)
}

// says checks code and message of an error.
func says(err error, code rpc.Code, message string) error {
	if e, ok := errors.AsType[*rpc.Error](err); !ok || e.Code != code || e.Message != message {
		return fmt.Errorf("got %w, want %v: %q", err, code, message)
	}
	return nil
}

func statusAndMessage(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	status := &testpb.EchoStatus{Code: int32(rpc.Unknown), Message: "test status message"}
	_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: status})
	if err := says(err, rpc.Unknown, status.Message); err != nil {
		return err
	}
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: status}); err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	_, err = s.Recv()
	return says(err, rpc.Unknown, status.Message)
}

func specialStatus(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	const message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
	_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(rpc.Unknown), Message: message}})
	return says(err, rpc.Unknown, message)
}

func unimplementedMethod(ctx context.Context, c testpb.TestServiceClient, _ *framework.Conn) error {
	_, err := c.UnimplementedCall(ctx, &testpb.Empty{})
	return want(rpc.Unimplemented, err)
}

func unimplementedService(ctx context.Context, _ testpb.TestServiceClient, conn *framework.Conn) error {
	_, err := testpb.NewUnimplementedServiceClient(conn).UnimplementedCall(ctx, &testpb.Empty{})
	return want(rpc.Unimplemented, err)
}
