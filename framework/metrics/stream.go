// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/sluice-rpc/sluice/framework/rpc"

// Stream counts the messages of the streams of one method, as they come and go: long
// before the calls end, which are counted as all others are. A nil Stream counts nothing.
type Stream struct {
	received, sent *Counter
}

const streamItems = 2

// ServerStream gives the items of a method with streams that this process serves.
func (r *Registry) ServerStream(m *rpc.Method) *Stream {
	d := Desc{"sluice.server.stream.messages", "Messages of streams, by their direction as the server sees it.", "{message}"}
	return methodSet(r, serverSide, streamItems, []Label{{"rpc.method", m.FullName()}, {"streams", "server"}}, newStream(d))
}

// ClientStream gives the items of a method with streams that this process calls.
func (r *Registry) ClientStream(callee string, m *rpc.Method) *Stream {
	d := Desc{"sluice.client.stream.messages", "Messages of streams, by their direction as the client sees it.", "{message}"}
	return methodSet(r, clientSide, streamItems, []Label{{"callee", callee}, {"rpc.method", m.FullName()}, {"streams", "client"}}, newStream(d))
}

func newStream(d Desc) func(*Registry, []Label) *Stream {
	return func(r *Registry, labels []Label) *Stream {
		labels = labels[:len(labels)-1] // which only told the set from that of the calls
		direction := func(name string) *Counter {
			return r.With(labels...).Counter(d, Label{"direction", name})
		}
		return &Stream{received: direction("received"), sent: direction("sent")}
	}
}

// Received counts a message that came.
func (s *Stream) Received() {
	if s != nil {
		s.received.Inc()
	}
}

// Sent counts a message that went.
func (s *Stream) Sent() {
	if s != nil {
		s.sent.Inc()
	}
}
