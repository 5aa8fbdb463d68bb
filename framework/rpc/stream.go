// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// DefaultStreamTimeout is the longest a stream may last when its contract says nothing:
// who needs it for longer opens another.
const DefaultStreamTimeout = 3600 * DefaultTimeout

// A MessageStream carries the messages of one call of a method that streams. One
// goroutine may send while another receives.
type MessageStream interface {
	// SendMsg sends a message, and waits while the other side takes none. It does not
	// keep the message.
	SendMsg(m proto.Message) error
	// RecvMsg waits for the next message. It returns io.EOF when the other side has ended
	// well, else an *Error.
	RecvMsg(m proto.Message) error
}

// A ClientStream is the caller's end of a stream.
type ClientStream interface {
	MessageStream
	// CloseSend says that no more messages will be sent.
	CloseSend() error
	// Close ends the stream if it has not ended, which the server sees as Canceled. Who
	// does not receive until the end must call it; more often does no harm.
	Close()
}

// A Streamer opens streams: a connection that can carry them. See package
// framework/grpcclient.
type Streamer interface {
	// OpenStream begins a call of a method that streams. req is its request if the method
	// has just one, else nil.
	OpenStream(ctx context.Context, m *Method, req proto.Message) (ClientStream, error)
}

type streamKey struct{}

// StreamKey is the key under which the context of a handler holds the MessageStream of
// the call. Generated code uses it.
var StreamKey any = streamKey{}

// errNoStream says that a method that streams was called in a way that cannot carry it.
func errNoStream(m *Method) error {
	return &Error{
		Code: Unimplemented, Reason: ReasonUnknown, NotRun: true,
		Message: m.FullName() + " is a stream, which gRPC alone carries: call it over package grpcclient, or with any gRPC client, at the address where its server listens for gRPC (package grpcserver)",
	}
}

// Streams says whether calls of the method carry a stream of messages either way.
func (m *Method) Streams() bool { return m.ClientStreams || m.ServerStreams }

// NoStream gives the error of a transport that carries no streams if the method is one.
func (m *Method) NoStream() *Error {
	if !m.Streams() {
		return nil
	}
	e, _ := errors.AsType[*Error](errNoStream(m))
	return e
}

// A ServerStreamingServer takes the answers of a handler.
type ServerStreamingServer[Res any] interface {
	// Send sends a message, and waits while the caller takes none.
	Send(*Res) error
}

// A ClientStreamingServer gives a handler what its caller sends.
type ClientStreamingServer[Req any] interface {
	// Recv waits for the next message; io.EOF says that there are no more.
	Recv() (*Req, error)
}

// A BidiStreamingServer is both. One goroutine may send while another receives; none of
// them may go on after the handler has returned.
type BidiStreamingServer[Req, Res any] interface {
	ClientStreamingServer[Req]
	ServerStreamingServer[Res]
}

// A ServerStreamingClient gives the answers to one request.
type ServerStreamingClient[Res any] interface {
	// Recv waits for the next message. It returns io.EOF after the last one, else an
	// *Error.
	Recv() (*Res, error)
	// Close gives up what has not come yet. Who does not receive until the end must call
	// it; more often does no harm.
	Close()
}

// A ClientStreamingClient sends messages that get one answer.
type ClientStreamingClient[Req, Res any] interface {
	// Send sends a message, and waits while the server takes none. io.EOF says that the
	// server has answered already; CloseAndRecv tells what.
	Send(*Req) error
	// CloseAndRecv says that there are no more messages and waits for the answer.
	CloseAndRecv() (*Res, error)
	// Close gives up a stream that has no answer yet. It may always be called.
	Close()
}

// A BidiStreamingClient sends and receives, each on its own. One goroutine may send while
// another receives.
type BidiStreamingClient[Req, Res any] interface {
	ServerStreamingClient[Res]
	// Send is as that of a ClientStreamingClient; Recv tells what the server has said.
	Send(*Req) error
	// CloseSend says that no more messages will be sent.
	CloseSend() error
}

// StreamFrom gives the stream of the call that is being served, as a handler sees it.
// Generated code calls it. A side that does not stream is not used.
func StreamFrom[Req, Res any](ctx context.Context, m *Method) (BidiStreamingServer[Req, Res], error) {
	s, ok := ctx.Value(StreamKey).(MessageStream)
	if !ok {
		return nil, errNoStream(m)
	}
	return typedStream[Res, Req]{MessageStream: s}, nil
}

// OpenStream begins a call of a method that streams. Generated code calls it. req is the
// request if there is just one, else nil.
func OpenStream[Req, Res any](ctx context.Context, conn Invoker, m *Method, req proto.Message) (BidiStreamingClient[Req, Res], error) {
	s, ok := conn.(Streamer)
	if !ok {
		return nil, errNoStream(m)
	}
	stream, err := s.OpenStream(ctx, m, req)
	if err != nil {
		return nil, err
	}
	return clientStream[Req, Res]{typedStream[Req, Res]{stream}, stream}, nil
}

// OpenClientStream is OpenStream for a method that answers once.
func OpenClientStream[Req, Res any](ctx context.Context, conn Invoker, m *Method) (ClientStreamingClient[Req, Res], error) {
	s, err := OpenStream[Req, Res](ctx, conn, m, nil)
	if err != nil {
		return nil, err
	}
	return oneAnswer[Req, Res]{s}, nil
}

// typedStream sends messages of type Out and receives those of type In.
type typedStream[Out, In any] struct{ MessageStream }

func (s typedStream[Out, In]) Send(m *Out) error {
	msg, err := message(m)
	if err != nil {
		return err
	}
	return s.SendMsg(msg)
}

func (s typedStream[Out, In]) Recv() (*In, error) {
	m := new(In)
	msg, err := message(m)
	if err != nil {
		return nil, err
	}
	if err := s.RecvMsg(msg); err != nil {
		return nil, err
	}
	return m, nil
}

// message gives m as the message that it is unless somebody made a stream of other types
// by hand.
func message(m any) (proto.Message, error) {
	msg, ok := m.(proto.Message)
	if !ok || !msg.ProtoReflect().IsValid() {
		return nil, &Error{Code: Internal, Message: fmt.Sprintf("a stream carries messages, not %T of nothing", m)}
	}
	return msg, nil
}

type clientStream[Req, Res any] struct {
	typedStream[Req, Res]
	stream ClientStream
}

func (s clientStream[Req, Res]) CloseSend() error { return s.stream.CloseSend() }
func (s clientStream[Req, Res]) Close()           { s.stream.Close() }

type oneAnswer[Req, Res any] struct {
	BidiStreamingClient[Req, Res]
}

func (s oneAnswer[Req, Res]) CloseAndRecv() (*Res, error) {
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	res, err := s.Recv()
	if errors.Is(err, io.EOF) {
		return nil, &Error{Code: Internal, Message: "the server ended the call without an answer"}
	}
	if err != nil {
		return nil, err
	}
	s.Close()
	return res, nil
}

type drainKey struct{}

// DrainKey is the key under which the context of a handler holds what Draining gives.
var DrainKey any = drainKey{}

// Draining gives a channel that is closed when the server that serves ctx begins to shut
// down. A handler of a long call or stream ends soon after: when the time to drain is over
// it is cut. It is nil, and never ready, outside of what a server serves.
func Draining(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(DrainKey).(<-chan struct{})
	return c
}
