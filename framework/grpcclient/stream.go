// SPDX-License-Identifier: Apache-2.0

package grpcclient

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// stream is one call with a stream, as its caller sees it.
type stream struct {
	client *client
	method *rpc.Method
	req    proto.Message
	items  *metrics.Stream

	cancel context.CancelFunc
	opened chan *rpc.Error // capacity 1: nil when grpc is there
	grpc   grpc.ClientStream

	received, sent atomic.Int64 // bytes

	once sync.Once
	over chan struct{} // closed by finish
	err  error         // how it ended, io.EOF if well; readable once over is closed
}

var _ rpc.ClientStream = (*stream)(nil)

type openingKey struct{}

// OpenStream implements transport.Streamer. The stream lasts no longer than ctx, the
// contract and the client allow. Its list of interceptors ends when the stream has.
func (c *client) OpenStream(ctx context.Context, m *rpc.Method, req proto.Message, items *metrics.Stream, list interceptor.Transport) (rpc.ClientStream, error) {
	s := &stream{client: c, method: m, req: req, items: items, opened: make(chan *rpc.Error, 1), over: make(chan struct{})}
	ctx, s.cancel = context.WithCancel(ctx)
	if !c.join() {
		s.cancel()
		return nil, &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true, Message: m.FullName() + ": " + balance.ErrClosed.Error()}
	}
	leave := context.AfterFunc(c.ctx, s.cancel) //nolint:contextcheck // that of the client ends the stream, too
	ctx = context.WithValue(ctx, openingKey{}, s)
	go func() { // Close of the client waits for it
		defer c.done.Done()
		defer leave()
		defer s.cancel()
		call := &interceptor.ClientCall{Method: m}
		if err := list(ctx, call); err != nil {
			e, ok := errors.AsType[*rpc.Error](err)
			if !ok {
				e = &rpc.Error{Code: rpc.CodeOf(err), Message: err.Error()}
			}
			select { // if it was refused before it was opened
			case s.opened <- e:
			default:
			}
		}
	}()
	if err := <-s.opened; err != nil {
		return nil, err
	}
	return s, nil
}

// Carry implements transport.Streamer: it opens a stream and stays until that has ended.
func (c *client) Carry(ctx context.Context, call *interceptor.ClientCall) error {
	s := ctx.Value(openingKey{}).(*stream)
	p, l, err := c.pick(ctx, call)
	if err != nil {
		return err
	}
	e := c.carry(ctx, call, s, l)
	l.end()
	if e == nil {
		call.Answered = true
		c.Returned(p, call, true, nil)
		call.Attempted(nil)
		return nil
	}
	// A stream that lasts as long as it may says nothing of its server.
	c.Returned(p, call, e.Reason != rpc.ReasonDeadline, e)
	call.Attempted(e)
	return e
}

func (c *client) carry(ctx context.Context, call *interceptor.ClientCall, s *stream, l *link) *rpc.Error {
	call.Level = lets
	out, cancel, a := begin(ctx, call)
	defer cancel()
	var err error
	desc := &grpc.StreamDesc{StreamName: s.method.Name, ClientStreams: s.method.ClientStreams, ServerStreams: s.method.ServerStreams}
	longest := c.cfg.Load().MaxFrameBytes
	s.grpc, err = l.grpc.NewStream(out, desc, path(s.method), grpc.MaxCallRecvMsgSize(longest), grpc.MaxCallSendMsgSize(longest))
	if err == nil && s.req != nil {
		err = s.ask()
	}
	if err != nil && !errors.Is(err, io.EOF) { // which Recv tells the cause of
		e, ok := errors.AsType[*rpc.Error](err)
		if !ok {
			e = c.ended(ctx, call, a, err)
		}
		return e
	}
	s.opened <- nil
	select {
	case <-s.over:
	case <-out.Done():
		s.finish(out.Err()) //nolint:contextcheck // what came is in the context of the stream alone
		<-s.over
	}
	call.RequestBytes, call.ResponseBytes = int(s.sent.Load()), int(s.received.Load())
	if a.answered.Load() {
		call.Level, call.Backlog = grpcwire.LevelOf(s.grpc.Trailer())
	}
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return c.endedStream(ctx, call, a, s.err)
}

// endedStream is ended for a stream that was open: it has run.
func (c *client) endedStream(ctx context.Context, call *interceptor.ClientCall, a *attempt, err error) *rpc.Error {
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		call.Answered = a.answered.Load()
		return e
	}
	return c.ended(ctx, call, a, err)
}

// ask sends the one request of a stream of answers.
func (s *stream) ask() error {
	if err := s.sendMsg(s.req); err != nil {
		return err
	}
	return s.grpc.CloseSend()
}

// finish notes how the stream has ended, once.
func (s *stream) finish(err error) {
	s.once.Do(func() {
		s.noteAnswer()
		s.err = err
		close(s.over)
	})
}

// noteAnswer keeps what came beside the messages, for WithAnswer.
func (s *stream) noteAnswer() {
	ctx := s.grpc.Context()
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	to := answerOf(ctx)
	if to == nil || a == nil || !a.answered.Load() {
		return
	}
	header, _ := s.grpc.Header() // has come: there is a trailer
	to.set(header, s.grpc.Trailer())
}

// SendMsg implements rpc.MessageStream. io.EOF says that the stream has ended; RecvMsg
// tells how.
func (s *stream) SendMsg(m proto.Message) error {
	if err := s.sendMsg(m); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		e, ok := errors.AsType[*rpc.Error](err)
		if !ok {
			e = grpcwire.Received(err)
		}
		return e
	}
	s.items.Sent()
	return nil
}

func (s *stream) sendMsg(m proto.Message) error {
	p, refused := s.client.encode(s.method, m)
	if refused != nil {
		return refused
	}
	size := int64(len(p))
	if err := s.grpc.SendMsg(&p); err != nil {
		return err
	}
	s.sent.Add(size)
	return nil
}

// RecvMsg implements rpc.MessageStream.
func (s *stream) RecvMsg(m proto.Message) error {
	var p grpcwire.Payload
	err := s.grpc.RecvMsg(&p)
	if err == nil {
		s.received.Add(int64(len(p)))
		s.items.Received()
		if refused := decode(s.method, p, m); refused != nil {
			s.finish(refused)
			s.cancel()
			return refused
		}
		if !s.method.ServerStreams { // the one answer is the end
			s.finish(io.EOF)
		}
		return nil
	}
	if errors.Is(err, io.EOF) {
		s.finish(io.EOF)
		return io.EOF
	}
	s.finish(err)
	return s.client.visible(s.grpc, err)
}

// visible gives the end of a stream as its caller sees it.
func (c *client) visible(g grpc.ClientStream, err error) *rpc.Error {
	a, _ := g.Context().Value(attemptKey{}).(*attempt)
	if a == nil {
		a = &attempt{}
	}
	return c.ended(g.Context(), &interceptor.ClientCall{}, a, err)
}

// CloseSend implements rpc.ClientStream.
func (s *stream) CloseSend() error {
	if err := s.grpc.CloseSend(); err != nil {
		return grpcwire.Received(err)
	}
	return nil
}

// Close implements rpc.ClientStream.
func (s *stream) Close() {
	s.finish(context.Canceled)
	s.cancel()
}
