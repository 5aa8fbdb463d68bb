// SPDX-License-Identifier: Apache-2.0

// Package interceptor holds what the framework does to every call, as one ordered
// list for each side. A transport brings calls and takes answers; it knows nothing
// of the list.
package interceptor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework/identity"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// A serverStep is one entry of the server's list. It may act when the call arrives, when
// its goroutine starts, around the handler, and when the call has ended.
type serverStep struct {
	name string
	// arrive runs on the connection's reading goroutine, before the call has a
	// goroutine of its own: it must not block.
	arrive func(*ServerCall, *admit.Batch) arrival
	// around wraps all that happens in the call's own goroutine. A step that only does
	// something before the handler should start instead: each frame counts that is on
	// the stack of a blocked call, which grows in powers of two.
	around func(next serverFunc) serverFunc
	// starts runs in the call's own goroutine, before the handler, and may refuse it.
	starts func(*ServerCall) *rpc.Error
	// ended runs when the call has been answered or refused, in the reverse order.
	ended func(*ServerCall, ending)
}

// An arrival is what one step says of a call that has come. The zero one lets it go
// on.
type arrival struct {
	refused *rpc.Error
	waits   bool // in the queue of the door, which will call Admit or Refuse
}

type serverFunc func(*ServerCall) (proto.Message, error)

// serverSteps is the server side of the framework: what happens to a call, in this
// order. A call that is let in by admit keeps its slot until its answer is written, see
// ServerCall.Leave.
func serverSteps(m *Method) []serverStep {
	steps := []serverStep{
		{name: "show", starts: show, ended: unshow},
		{name: "recover", around: recovered(m.log)},
		{name: "trace", arrive: identify, ended: keep},
		{name: "measure", arrive: begin, ended: count},
		{name: "deadline", arrive: expiredOnArrival, starts: expiredAtStart},
		{name: "authorize", arrive: authorized},
		{name: "admit", arrive: atTheDoor},
		{name: "decode", arrive: decodeSmall, starts: decodeRest},
	}
	if m.observer == nil {
		steps = slices.DeleteFunc(steps, func(s serverStep) bool { return s.name == "show" || s.name == "trace" || s.name == "measure" })
	}
	if m.rpc.Streams() {
		at := slices.IndexFunc(steps, func(s serverStep) bool { return s.name == "deadline" })
		steps = slices.Insert(steps, at, serverStep{name: "carry", arrive: onlyOpened})
	}
	return steps
}

// A Method is a method with the list applied to its handler.
type Method struct {
	rpc     *rpc.Method
	arrive  []func(*ServerCall, *admit.Batch) arrival
	run     serverFunc
	starts  []func(*ServerCall) *rpc.Error
	ended   []func(*ServerCall, ending)
	handler rpc.Handler
	log     *slog.Logger
	door    *admit.Door                  // nil without admission
	pass    *admit.Pass                  // its way to the door, or past it
	habit   *habit                       // what its calls call
	callers atomic.Pointer[identity.Set] // who may call it; nil: everybody

	draining <-chan struct{} // closed when its server begins to shut down

	observer *Observer // nil if nothing is recorded, then so is what follows
	records  *tracing.Method
	sampler  *tracing.Sampler // of calls that come from outside of the system
	items    *metrics.ServerMethod
	streams  *metrics.Stream // of a method with streams
	edges    *callgraph.Edges
}

// NewMethod applies the server's list, then the user's interceptors, to a handler.
// The door of the service lets its calls in; a nil service is no admission. They are
// recorded by the observer; a nil one records nothing.
func NewMethod(m *rpc.Method, h rpc.Handler, user []rpc.ServerInterceptor, log *slog.Logger, service *admit.Service, o *Observer) *Method {
	for i := len(user) - 1; i >= 0; i-- {
		h = user[i](m, h)
	}
	method := &Method{rpc: m, handler: h, log: log, habit: processGate.habitOf(kind{method: m})}
	if o != nil {
		name := m.FullName()
		method.observer = o
		o.contracts.Store(name, m)
		method.records, method.sampler = o.Tracer.Method(tracing.Server, name), o.Tracer.Sampler(name)
		method.items, method.edges = o.Items.ServerMethod(m), o.Graph.Edges(callgraph.Server, name)
		if m.Streams() {
			method.streams = o.Items.ServerStream(m)
		}
	}
	if service != nil {
		method.door, method.pass = service.Door(), service.Method(m.FullName(), m)
	}
	steps := serverSteps(method)
	run := callHandler
	for i := len(steps) - 1; i >= 0; i-- {
		if around := steps[i].around; around != nil {
			run = around(run)
		}
	}
	method.run = run
	for _, s := range steps {
		if s.arrive != nil {
			method.arrive = append(method.arrive, s.arrive)
		}
		if s.starts != nil {
			method.starts = append(method.starts, s.starts)
		}
		if s.ended != nil {
			method.ended = append([]func(*ServerCall, ending){s.ended}, method.ended...)
		}
	}
	return method
}

// Contract gives the method's contract.
func (m *Method) Contract() *rpc.Method { return m.rpc }

// An Origin is where calls come from and where their answers go: a connection.
type Origin interface {
	// Payload gives the raw request of the call that is arriving. Unless it is said to
	// be the call's own it is only borrowed until Arrive has returned. After an error
	// the call must not run.
	Payload() (p []byte, own bool, err error)
	// Serve runs a call that has waited, in a goroutine of its own.
	Serve(c *ServerCall)
	// Refuse answers a call that has waited. The answer stays in a buffer until Flush.
	Refuse(c *ServerCall, err *rpc.Error)
	admit.Flusher
}

// Incoming is one request that has just arrived.
type Incoming struct {
	Conn   context.Context // bounds the call's life and gives it no values
	Origin Origin
	Peer   string
	// Identity is what the peer has proved itself to be; empty without mutual TLS.
	Identity string
	Seq      int32  // of the frame on its connection
	Trusted  bool   // what the header says of the call's priority counts
	Header   []byte // nil if the caller sent none; borrowed
	Caller   []byte // full name of the calling method, empty at an entry; borrowed
	Size     int    // of the payload, in bytes
}

// NewCall makes the call of a request, in c if that is not nil: one that Arrive has
// refused, so that nobody has seen it.
func (m *Method) NewCall(in *Incoming, c *ServerCall, now time.Time) *ServerCall {
	if c == nil {
		c = new(ServerCall)
	} else {
		*c = ServerCall{}
	}
	c.method, c.size, c.origin, c.Seq = m, in.Size, in.Origin, in.Seq
	c.conn = in.Conn
	c.call.Method = m.rpc
	c.call.Peer, c.call.Identity = in.Peer, in.Identity
	h := &c.call.Header
	c.believed = h.Parse(in.Header) && in.Trusted
	if !c.believed {
		h.Flags, h.Class, h.UserLevel, h.Ticket = 0, m.rpc.Class, qos.UserLevels-1, 0
	}
	c.call.Began, c.call.Deadline = now, now.Add(effectiveBudget(h, m.rpc))
	if m.door != nil {
		c.arrived = m.door.At(now)
	}
	c.from = m.observer.callerOf(in)
	return c
}

// localPeer is the Peer of a call of a caller in the same process.
const localPeer = "local"

// NewLocalCall makes the call of a caller in the same process. Cancellation
// crosses from ctx, its values do not.
func (m *Method) NewLocalCall(ctx context.Context, h *rpc.Header, req proto.Message, now time.Time) *ServerCall {
	c := &ServerCall{method: m, request: req}
	c.conn = cancelOnly{ctx}
	c.call.Method = m.rpc
	c.call.Peer = localPeer
	c.call.Header = *h
	c.call.Progress().Admit() // its caller is inside, or has been let in for it
	c.believed = true
	c.call.Began, c.call.Deadline = now, now.Add(effectiveBudget(h, m.rpc))
	c.from = m.observer.caller(rpc.CallFrom(ctx)).number
	return c
}

// effectiveBudget is the smaller of what the caller has left and what the
// contract allows.
func effectiveBudget(h *rpc.Header, m *rpc.Method) time.Duration {
	budget := m.CallTimeout()
	if h.Budget > 0 && h.Budget < budget {
		budget = h.Budget
	}
	return budget
}

// A ServerCall is one call being served. It is also the handler's context.
type ServerCall struct {
	callContext
	Seq int32 // of the frame on its connection

	method  *Method
	origin  Origin        // nil for a call within the process
	size    int           // of the raw request, in bytes
	payload []byte        // kept until it can be decoded
	request proto.Message // nil until decoded
	guest   admission.Call
	arrived time.Duration // on the door's clock
	kept    atomic.Int32  // payload kept, and admitted: the second of the two serves

	from     callgraph.Method // the caller
	ran      bool             // the handler was called
	believed bool             // the header says what a call of this system said
	opened   bool             // its origin is an *opened
	parent   tracing.SpanID   // the caller's
	notes    tracing.Notes    // what the handler says of it
	hidden   error            // why it failed, if its caller may not know
}

// Arrive decides on the reading goroutine whether the call goes on: it may be refused,
// or wait, and then its origin hears of it later. If it does go on, or waits, it no
// longer needs the buffer that its payload came in. b collects whose answers stand in
// a buffer because of it.
func (c *ServerCall) Arrive(b *admit.Batch) (waits bool, refused *rpc.Error) {
	for _, f := range c.method.arrive {
		a := f(c, b)
		if a.refused != nil {
			c.End(a.refused, 0)
		}
		if a.refused != nil || a.waits {
			return a.waits, a.refused
		}
	}
	return false, nil
}

// Allow says who may call the method from now on; nil is everybody.
func (m *Method) Allow(callers *identity.Set) { m.callers.Store(callers) }

// Drains gives what is closed when the method's server begins to shut down, before any call.
func (m *Method) Drains(begins <-chan struct{}) { m.draining = begins }

// Restricted says whether only some may call the method.
func (m *Method) Restricted() bool { return m.callers.Load() != nil }

// authorized refuses who may not call the method. What comes from this process may.
func authorized(c *ServerCall, _ *admit.Batch) arrival {
	callers := c.method.callers.Load()
	if callers == nil || c.origin == nil || callers.Has(c.call.Identity) { // a peer's address may read as it likes
		return arrival{}
	}
	who := c.call.Identity
	if who == "" {
		who = "who has proved no identity"
	}
	return arrival{refused: &rpc.Error{
		Code: rpc.PermissionDenied, Reason: rpc.ReasonDenied, NotRun: true,
		Message: c.method.rpc.FullName() + ": the server's allow-list does not have " + who,
	}}
}

// atTheDoor asks the door of the process. A call that waits is its frame and no more.
func atTheDoor(c *ServerCall, b *admit.Batch) arrival {
	m := c.method
	if m.door == nil || c.origin == nil {
		return arrival{}
	}
	if !c.opened || !m.rpc.Streams() {
		c.call.Progress().Admit() // a stream gives its slot back: what it calls here asks for one
	}
	if m.pass.Open() {
		return arrival{}
	}
	h := &c.call.Header
	priority := qos.PriorityOf(h.Class, h.UserLevel)
	if h.Ticket == 0 && processGate.refuses(m.habit, 0, priority) {
		return arrival{refused: admit.Overloaded}
	}
	c.guest = admission.Call{
		Priority: priority, Ticket: qos.Ticket(h.Ticket),
		Method: m.pass.Number(), Deadline: m.door.At(c.call.Deadline), Frame: c,
	}
	switch v := m.door.Arrive(c.arrived, &c.guest, b); v {
	case admission.Run:
		return arrival{}
	case admission.Queue:
		if !m.door.Keep(c.size) && m.door.Withdraw(&c.guest) {
			m.door.Forget(c.size)
			return arrival{refused: admit.Overloaded}
		}
		if c.keepPayload() != nil && m.door.Withdraw(&c.guest) {
			m.door.Forget(c.size)
			return arrival{refused: errLost}
		}
		if c.kept.Add(1) == 2 {
			c.serveAtLast()
		}
		return arrival{waits: true}
	default:
		return arrival{refused: admit.ErrorOf(v)}
	}
}

func (c *ServerCall) keepPayload() error {
	if c.opened {
		return nil // it stays where it is until the call is let in
	}
	p, own, err := c.origin.Payload()
	if !own {
		p = append([]byte(nil), p...)
	}
	c.payload = p
	return err
}

// Admit implements admit.Guest. The door may be quicker than the reader, who still
// keeps the payload.
func (c *ServerCall) Admit() {
	c.method.door.Forget(c.size)
	if c.kept.Add(1) == 2 {
		c.serveAtLast()
	}
}

// serveAtLast serves a call that has waited. A small request is decoded here, as that of
// a call that did not wait is on the reading goroutine: decoding takes more stack than a
// blocked handler, and what a goroutine has once taken it keeps (3.8 KB instead of 2).
// One that cannot be decoded is refused where the call's own goroutine tries again.
func (c *ServerCall) serveAtLast() {
	if !c.opened && c.size <= smallPayload {
		_ = c.decode()
	}
	c.origin.Serve(c)
}

// Refuse implements admit.Guest.
func (c *ServerCall) Refuse(v admission.Verdict) admit.Flusher {
	c.method.door.Forget(c.size)
	err := admit.ErrorOf(v)
	c.End(err, 0)
	c.origin.Refuse(c, err)
	return c.origin
}

// Leave gives the call's slot back, after its answer has been written.
func (c *ServerCall) Leave() {
	if c.method.door != nil {
		c.method.door.Done(&c.guest)
	}
}

// Enter lets a caller of this process in that is not inside yet.
func (m *Method) Enter(ctx context.Context, deadline time.Time, h *rpc.Header) (leave func(), refused *rpc.Error) {
	if m.pass.Open() {
		return func() {}, nil
	}
	return m.door.Enter(ctx, deadline, qos.PriorityOf(h.Class, h.UserLevel), qos.Ticket(h.Ticket), m.pass.Number())
}

// Run serves the call and gives its response, or what the caller may see of the
// error. It is called once, in the call's own goroutine. It stays on the stack, where
// it is looked for by the call's address.
//
//go:noinline
func (c *ServerCall) Run() (proto.Message, *rpc.Error) {
	return c.outcome(c.method.run(c))
}

// outcome is kept out of line: its frame must not stay on the stack of a blocked call.
//
//go:noinline
func (c *ServerCall) outcome(res proto.Message, err error) (proto.Message, *rpc.Error) {
	c.finish()
	if err == nil {
		return res, nil
	}
	return nil, c.visible(err)
}

// Contract gives the contract of the called method.
func (c *ServerCall) Contract() *rpc.Method { return c.method.rpc }

// visible gives err as the caller may see it. A handler's own *rpc.Error goes out
// as it is; anything else becomes Internal, and its text goes to the log alone.
func (c *ServerCall) visible(err error) *rpc.Error {
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		if c.ran && e.NotRun { // that of a call that the handler made: this one has run
			passed := *e
			passed.NotRun = false
			e = &passed
		}
		if e.Code == 0 { // a handler's slip must not read as success
			e = &rpc.Error{Code: rpc.Unknown, Message: e.Message, Details: e.Details}
		}
		return e
	}
	switch code := rpc.CodeOf(err); code {
	case rpc.DeadlineExceeded:
		return &rpc.Error{Code: code, Reason: rpc.ReasonDeadline, Message: c.method.rpc.FullName() + ": the deadline passed while the call was served"}
	case rpc.Canceled:
		return &rpc.Error{Code: code, Reason: rpc.ReasonCanceled, Message: c.method.rpc.FullName() + ": the call was canceled while it was served"}
	}
	c.method.log.Error("handler returned an error that is no rpc.Error; the caller sees Internal",
		slog.String("method", c.method.rpc.FullName()), slog.Any("err", err), slog.String("trace", c.call.Trace.String()))
	c.hidden = err
	return &rpc.Error{Code: rpc.Internal, Message: "internal error"}
}

func callHandler(c *ServerCall) (proto.Message, error) {
	for _, f := range c.method.starts {
		if err := f(c); err != nil {
			return nil, err
		}
	}
	c.ran = true
	res, err := c.method.handler(c, c.request)
	if err == nil && !c.method.rpc.ServerStreams {
		err = c.checkResponse(res)
	}
	return res, err
}

//go:noinline
func (c *ServerCall) checkResponse(res proto.Message) error {
	if res == nil || !res.ProtoReflect().IsValid() {
		return fmt.Errorf("handler of %s returned neither a response nor an error", c.method.rpc.FullName())
	}
	return nil
}

// recovered turns a panic of anything after it into an Internal error that says
// nothing of the inside; the log says it all.
func recovered(log *slog.Logger) func(serverFunc) serverFunc {
	return func(next serverFunc) serverFunc {
		return func(c *ServerCall) (res proto.Message, err error) {
			defer func() {
				if r := recover(); r != nil {
					res, err = nil, c.panicked(log, r)
				}
			}()
			return next(c)
		}
	}
}

func (c *ServerCall) panicked(log *slog.Logger, with any) *rpc.Error {
	log.Error("handler panicked", slog.String("method", c.method.rpc.FullName()),
		slog.Any("panic", with), slog.String("stack", string(debug.Stack())))
	c.hidden = fmt.Errorf("panic: %v", with)
	return &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonPanic, Message: "internal error"}
}

// expired refuses a call whose time is up: nobody waits for its answer.
func expired(c *ServerCall, now time.Time) *rpc.Error {
	if now.Before(c.call.Deadline) {
		return nil
	}
	return &rpc.Error{
		Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: true,
		Message: c.method.rpc.FullName() + ": the deadline passed before the call was served",
	}
}

// expiredOnArrival takes the time from when the call began: that is now.
func expiredOnArrival(c *ServerCall, _ *admit.Batch) arrival {
	return arrival{refused: expired(c, c.call.Began)}
}

// expiredAtStart looks once more when the call's goroutine at last runs: on a busy
// machine that may be long after it was made.
func expiredAtStart(c *ServerCall) *rpc.Error { return expired(c, time.Now()) }

// smallPayload is the size in bytes up to which a request is decoded on the
// reading goroutine, straight from the read buffer. A larger one would hold up the
// connection's other calls: it is copied and decoded in its own goroutine.
const smallPayload = 8 << 10

var errLost = &rpc.Error{Code: rpc.Canceled, Reason: rpc.ReasonCanceled, NotRun: true, Message: "the connection was lost before the whole request came"}

func decodeSmall(c *ServerCall, _ *admit.Batch) arrival {
	if c.request != nil || c.opened {
		return arrival{} // a local call, or one that can wait for its request
	}
	if c.size > smallPayload {
		if c.keepPayload() == nil {
			return arrival{}
		}
		c.Leave()
		return arrival{refused: errLost}
	}
	c.payload, _, _ = c.origin.Payload() // a small one has come as a whole
	err := c.decode()
	if err != nil {
		c.Leave()
	}
	return arrival{refused: err}
}

func decodeRest(c *ServerCall) *rpc.Error {
	switch {
	case c.request != nil:
		return nil
	case c.opened:
		return c.receive()
	}
	return c.decode()
}

func (c *ServerCall) decode() *rpc.Error {
	req := c.method.rpc.NewRequest()
	if err := proto.Unmarshal(c.payload, req); err != nil {
		return &rpc.Error{
			Code: rpc.InvalidArgument, Reason: rpc.ReasonDecode, NotRun: true,
			Message: c.method.rpc.FullName() + ": the request is not a valid " + string(req.ProtoReflect().Descriptor().FullName()),
		}
	}
	c.request, c.payload = req, nil
	return nil
}
