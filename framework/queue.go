// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"context"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A Queue is a way by which work leaves the request that caused it, to be done when
// nobody waits for it any more: an outbox, a topic. Both of its ends tell the Queue, and
// the call graph of an entry goes on through it, over a dashed edge; the traces of the
// two are linked. It moves no message itself. It is safe for concurrent use.
type Queue struct {
	name   string
	method *rpc.Method // as which it calls: its work is that of a method that nobody calls

	callers            map[uint32]callgraph.Method
	puts, takes        *callgraph.Edges
	putKept, takenKept *tracing.Method
}

// NewQueue makes a queue of the name "service/queue", whose work is of that class. The
// producers are the methods that put messages into it: a message says by number which of
// them it came from.
func NewQueue(name string, class qos.Class, producers ...*rpc.Method) *Queue {
	service, short, _ := strings.Cut(name, "/")
	graph, tracer := process.Graph(), process.Tracer()
	q := &Queue{
		name: name, method: &rpc.Method{Service: service, Name: short, Class: class},
		callers: map[uint32]callgraph.Method{0: callgraph.AtEntry},
		puts:    graph.Edges(callgraph.Producer, name), takes: graph.Edges(callgraph.Consumer, name),
		putKept: tracer.Method(tracing.Producer, name), takenKept: tracer.Method(tracing.Consumer, name),
	}
	for _, p := range producers {
		q.callers[callerID(p)] = graph.Method(p.FullName())
	}
	graph.NameEntry(name) // of messages of which nobody knows where they come from
	return q
}

func callerID(m *rpc.Method) uint32 {
	if m == nil {
		return 0
	}
	return uint32(tracing.EntryOf(m.FullName()))
}

// A Sending is a message on its way into a queue.
type Sending struct {
	// Origin belongs into the message.
	Origin tracing.Origin

	queue  *Queue
	began  time.Time
	parent tracing.SpanID
}

// Begin is asked before a message is put into the queue, with the context of the
// request that causes it.
func (q *Queue) Begin(ctx context.Context) Sending {
	s := Sending{queue: q, began: time.Now()}
	in := rpc.CallFrom(ctx)
	if in == nil {
		s.Origin.Entry = tracing.EntryOf(q.name)
		return s
	}
	id := tracing.Identity{Trace: in.Trace, Span: in.Span, Sampled: in.Flags&rpc.FlagSampled != 0}
	if id.Sampled {
		s.parent = process.Tracer().Parent(ctx, id).Span
		id.Span = tracing.NewSpanID()
	}
	s.Origin = tracing.Origin{Entry: in.Entry, Caller: callerID(in.Method), Identity: id}
	return s
}

// Done is told when the message is in the queue, or why it is not. A Sending that is
// given up before it was tried is not told anything.
func (s *Sending) Done(err error) {
	q := s.queue
	if q == nil || interceptor.ProcessObserver() == nil {
		return
	}
	took := time.Since(s.began)
	class := interceptor.ClassOf(err)
	q.puts.Slot(s.Origin.Entry, q.caller(s.Origin)).Record(class, took, 0, 0)
	id := s.Origin.Identity
	if id.Trace.IsZero() {
		return
	}
	if !id.Sampled {
		s.parent, id.Span = id.Span, tracing.NewSpanID() // a record of what failed needs one of its own
	}
	q.keep(q.putKept, class, err, tracing.Record{
		Trace: id.Trace, Span: id.Span, Parent: s.parent, Entry: s.Origin.Entry,
		Start: s.began.UnixNano(), Duration: took,
	}, tracing.Ended{Sampled: id.Sampled}, s.began)
}

// caller gives who put a message in; unknown is what has told another Queue.
func (q *Queue) caller(from tracing.Origin) callgraph.Method {
	if m, ok := q.callers[from.Caller]; ok {
		return m
	}
	return callgraph.UnknownCaller
}

// Take works on messages out of the queue, one or some together. The calls that work
// makes with its context are the queue's: they belong to the entry that the messages
// came in by, or to one of the queue's own name if these are several. They are traced,
// in a trace of their own that is linked to those of the messages, if one of these is.
// The error is that of work.
func (q *Queue) Take(ctx context.Context, from []tracing.Origin, work func(context.Context) error) error {
	call := &rpc.Call{Method: q.method, Peer: "local", Header: rpc.Header{
		Entry: q.entryOf(from), Class: q.method.Class, Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(),
	}}
	var links []tracing.Identity
	for _, o := range from {
		if o.Identity.Sampled {
			call.Flags = rpc.FlagSampled
			links = append(links, o.Identity)
		}
	}
	began := time.Now()
	err := work(rpc.WithCall(ctx, call))
	if interceptor.ProcessObserver() == nil {
		return err
	}
	took := time.Since(began)
	class := interceptor.ClassOf(err)
	for _, o := range from {
		q.takes.Slot(o.Entry, q.caller(o)).Record(class, took, 0, 0)
	}
	q.keep(q.takenKept, class, err, tracing.Record{
		Trace: call.Trace, Span: call.Span, Links: links, Entry: call.Entry,
		Start: began.UnixNano(), Duration: took,
	}, tracing.Ended{Sampled: call.Flags != 0, Below: call.Progress().Kept()}, began)
	return err
}

func (q *Queue) entryOf(from []tracing.Origin) tracing.Entry {
	if len(from) == 0 || from[0].Entry == 0 {
		return tracing.EntryOf(q.name)
	}
	for _, o := range from[1:] {
		if o.Entry != from[0].Entry {
			return tracing.EntryOf(q.name)
		}
	}
	return from[0].Entry
}

func (q *Queue) keep(m *tracing.Method, class callgraph.Class, err error, r tracing.Record, ended tracing.Ended, began time.Time) {
	ended.Class, ended.Took, ended.At, ended.Span = uint8(class), r.Duration, began.Add(r.Duration), r.Span
	k := m.Keep(&ended)
	if k == 0 {
		return
	}
	r.Class = class.String()
	interceptor.Describe(&r, err)
	m.Add(k, r)
}
