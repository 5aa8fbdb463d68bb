// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// An Opening is a call that has a goroutine of its own from the start, as those have that
// come over gRPC. Nothing but its head has been read.
type Opening struct {
	Conn context.Context // ends with the call
	Peer string
	// Identity is what the caller has proved itself to be; empty without mutual TLS.
	Identity string
	Header   rpc.Header // made by the entry, but for the trace; the class is the contract's
	Stream   Stream
}

// A Stream is what carries the messages of an opened call.
type Stream interface {
	rpc.MessageStream
	// Request reads the raw request of a method that has just one.
	Request() ([]byte, *rpc.Error)
}

// opened is the origin of such a call.
type opened struct {
	stream  Stream
	decided chan *rpc.Error // capacity 1: nil lets a call in that has waited
}

var _ Origin = (*opened)(nil)

// Open makes the call of an opening. Await, and if that lets it in Run, End and Leave
// follow.
func (m *Method) Open(o *Opening, now time.Time) *ServerCall {
	origin := &opened{stream: o.Stream, decided: make(chan *rpc.Error, 1)}
	c := &ServerCall{method: m, origin: origin, opened: true}
	c.conn = cancelOnly{o.Conn}
	c.call.Method, c.call.Peer, c.call.Identity, c.call.Header = m.rpc, o.Peer, o.Identity, o.Header
	h := &c.call.Header
	h.Flags, h.Class, h.Ticket = 0, m.rpc.Class, 0
	h.UserLevel = min(h.UserLevel, qos.UserLevels-1)
	c.call.Began, c.call.Deadline = now, now.Add(effectiveBudget(h, m.rpc))
	if m.door != nil {
		c.arrived = m.door.At(now)
	}
	c.from = callgraph.AtEntry
	return c
}

// Await lets the call in, after a wait if need be. An error has ended the call: neither
// Run nor End follows.
//
// A call with a stream is asked at its opening only. It holds no slot while it lasts,
// which would be far longer than it works.
func (c *ServerCall) Await() *rpc.Error {
	var b admit.Batch
	waits, refused := c.Arrive(&b)
	b.Flush()
	if waits {
		refused = c.decision()
	}
	if refused == nil && c.method.rpc.Streams() {
		c.Leave()
		c.guest.Frame = nil // nor does it have one to give back when it ends
	}
	return refused
}

// decision waits for what the door says, while the caller does.
func (c *ServerCall) decision() *rpc.Error {
	decided := c.origin.(*opened).decided
	select {
	case err := <-decided:
		return err
	case <-c.conn.Done():
	}
	if !c.method.door.Withdraw(&c.guest) {
		return <-decided
	}
	c.method.door.Forget(c.size)
	err := errGone
	if c.conn.Err() == context.DeadlineExceeded {
		err = admit.TooLate
	}
	c.End(err, 0)
	return err
}

var errGone = &rpc.Error{Code: rpc.Canceled, Reason: rpc.ReasonCanceled, NotRun: true, Message: "the caller has gone"}

// Payload implements Origin. It is not asked for: see receive.
func (o *opened) Payload() (p []byte, own bool, err error) { return nil, true, nil }

// Serve implements Origin.
func (o *opened) Serve(*ServerCall) { o.decided <- nil }

// Refuse implements Origin.
func (o *opened) Refuse(_ *ServerCall, err *rpc.Error) { o.decided <- err }

// Flush implements admit.Flusher.
func (o *opened) Flush() {}

// onlyOpened refuses a call of a method with streams that came over what carries none.
func onlyOpened(c *ServerCall, _ *admit.Batch) arrival {
	if c.opened {
		return arrival{}
	}
	return arrival{refused: c.method.rpc.NoStream()}
}

// receive reads the request of an opened call that has been let in.
func (c *ServerCall) receive() *rpc.Error {
	if c.method.rpc.ClientStreams {
		return nil
	}
	p, err := c.origin.(*opened).stream.Request()
	if err != nil {
		return err
	}
	c.size, c.payload = len(p), p
	return c.decode()
}

// Streamed notes a message of the call's stream that came, or went.
func (c *ServerCall) Streamed(sent bool) {
	if sent {
		c.method.streams.Sent()
	} else {
		c.method.streams.Received()
	}
}

// EndStream is End for a call with a stream, of so many bytes each way.
func (c *ServerCall) EndStream(err *rpc.Error, received, sent int) {
	if c.method.rpc.ClientStreams {
		c.size = received
	}
	c.End(err, sent)
}
