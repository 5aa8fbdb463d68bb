// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// ofGRPC says whether a method belongs to a service that grpc-go brings with it.
func ofGRPC(method string) bool { return strings.HasPrefix(method, "/grpc.") }

// call is one call as grpc-go carries it. It is the stream that handlers see.
type call struct {
	stream grpc.ServerStream
	method *method
	served *interceptor.ServerCall
	limit  int // of a message, in bytes

	received, sent atomic.Int64 // bytes
}

var _ interceptor.Stream = (*call)(nil)

// handle serves one call in the goroutine that grpc-go has made for it.
func (s *Server) handle(m *method, stream grpc.ServerStream) error {
	ctx := stream.Context()
	now := time.Now()
	c := &call{stream: stream, method: m, limit: s.cfg.MaxMessageBytes}
	o := interceptor.Opening{Conn: ctx, Stream: c, Header: m.head}
	s.describe(ctx, &o, now)
	served := m.Open(&o, now)
	c.served = served

	defer s.release()
	defer s.tell(stream)
	if s.inFlight.Add(1) > s.maxInFlight.Load() {
		s.items.Faults[metrics.FrameOverLimit].Inc()
		served.TurnAway(admit.Overloaded)
		return grpcwire.StatusOf(admit.Overloaded).Err()
	}
	if err := served.Await(); err != nil {
		return grpcwire.StatusOf(err).Err()
	}
	defer served.Leave()
	res, err := served.Run()
	if err == nil && !m.rpc.ServerStreams {
		err = c.answer(res)
	}
	if err != nil && s.isDraining() && err.Reason == rpc.ReasonCanceled && m.rpc.Streams() {
		err = errCut
	}
	served.EndStream(err, int(c.received.Load()), int(c.sent.Load()))
	if err != nil {
		return grpcwire.StatusOf(err).Err()
	}
	return nil
}

// tell gives the caller, with the end of its call, what the server lets in.
func (s *Server) tell(stream grpc.ServerStream) {
	if md := grpcwire.AppendLevel(nil, s.host.Level(), s.host.Backlog()); md != nil {
		stream.SetTrailer(md)
	}
}

// errCut is how a stream ends that was still open when the time to drain was over. Its
// caller seldom hears of it, since the connection is closed.
var errCut = &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonCanceled, Message: "the server shuts down and the stream had not ended: open it again"}

// describe fills in what the entry says of a call, and what it takes from the caller.
func (s *Server) describe(ctx context.Context, o *interceptor.Opening, now time.Time) {
	who := ""
	if p, ok := peer.FromContext(ctx); ok {
		o.Peer = p.Addr.String()
		o.Identity = s.identityOf(p.AuthInfo)
		who = "at " + place(o.Peer)
	}
	if o.Identity != "" {
		who = o.Identity
	}
	o.Header.UserLevel = s.key.UserLevel(who, now)
	if deadline, ok := ctx.Deadline(); ok {
		o.Header.Budget = max(1, deadline.Sub(now))
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		grpcwire.Parent(&o.Header, md)
	}
}

// place gives where a call comes from: an IPv4 address, or the /64 of an IPv6 address, of
// which one household or server has all 2^64.
func place(addr string) string {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	a := at.Addr().Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	network, _ := a.Prefix(64)
	return network.String()
}

// Request implements interceptor.Stream.
func (c *call) Request() ([]byte, *rpc.Error) {
	var p grpcwire.Payload
	if err := c.stream.RecvMsg(&p); err != nil {
		e := grpcwire.Received(err)
		e.NotRun = true
		return nil, e
	}
	c.received.Add(int64(len(p)))
	return p, nil
}

// answer sends the one response of a call.
func (c *call) answer(res proto.Message) *rpc.Error {
	err := c.send(res)
	if err != nil && err.Reason == rpc.ReasonCanceled {
		return nil // the caller has gone; that is nobody's error any more
	}
	return err
}

// send encodes a message and gives it to grpc-go.
func (c *call) send(m proto.Message) *rpc.Error {
	name := c.method.rpc.FullName()
	size := proto.Size(m)
	if size > c.limit {
		return &rpc.Error{Code: rpc.ResourceExhausted, Reason: rpc.ReasonDecode, Message: name + ": the response is larger than MaxMessageBytes; ask for less, or page"}
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(make([]byte, 0, size), m)
	if err != nil {
		return &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonDecode, Message: name + ": the response could not be encoded"}
	}
	p := grpcwire.Payload(b)
	if err := c.stream.SendMsg(&p); err != nil {
		return grpcwire.Received(err)
	}
	c.sent.Add(int64(size))
	return nil
}

// SendMsg implements rpc.MessageStream.
func (c *call) SendMsg(m proto.Message) error {
	if err := c.send(m); err != nil {
		return err
	}
	c.served.Streamed(true)
	return nil
}

// RecvMsg implements rpc.MessageStream.
func (c *call) RecvMsg(m proto.Message) error {
	var p grpcwire.Payload
	if err := c.stream.RecvMsg(&p); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return grpcwire.Received(err)
	}
	c.received.Add(int64(len(p)))
	c.served.Streamed(false)
	if err := proto.Unmarshal(p, m); err != nil {
		return &rpc.Error{
			Code: rpc.InvalidArgument, Reason: rpc.ReasonDecode,
			Message: c.method.rpc.FullName() + ": a message is not a valid " + string(m.ProtoReflect().Descriptor().FullName()),
		}
	}
	return nil
}
