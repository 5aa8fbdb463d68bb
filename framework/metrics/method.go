// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// ServerResult is how a call ended for the server that got it.
type ServerResult uint8

// The results of a server.
const (
	ServerOK         ServerResult = iota // the handler answered
	ServerBizError                       // the handler said no, for a reason of the caller's or of the business
	ServerInternal                       // the handler failed, or what it gave could not be sent
	ServerDependency                     // the handler passed on that a service it needs failed
	ServerTimeout                        // the deadline passed, waiting or running
	ServerCanceled                       // the caller gave up
	ServerPanic                          // the handler panicked
	ServerOverload                       // not let in: the server is overloaded
	ServerDraining                       // not let in: the server is shutting down
	ServerBadRequest                     // not run: the request could not be decoded
	ServerResults
)

var serverResultNames = [ServerResults]string{
	"ok", "biz_error", "internal", "dependency", "timeout", "canceled", "panic", "overload", "draining", "bad_request",
}

// String gives the result as items show it.
func (r ServerResult) String() string {
	if r < ServerResults {
		return serverResultNames[r]
	}
	return fmt.Sprintf("result_%d", uint8(r))
}

// refused says that the handler has not run and nobody waited for it to.
func (r ServerResult) refused() bool { return r >= ServerOverload }

// ServerResultOf tells how a call ended. ran says that the handler was called: a
// handler may hand on the error of a call it made, reason included, and an overload
// there is none here. The code decides in one case only, where there is no reason to
// go by: of a handler's own errors, Internal, Unknown and DataLoss are the server's
// fault and the others are answers.
func ServerResultOf(err *rpc.Error, ran bool) ServerResult {
	if err == nil {
		return ServerOK
	}
	switch err.Reason {
	case rpc.ReasonDeadline:
		return ServerTimeout
	case rpc.ReasonCanceled:
		return ServerCanceled
	case rpc.ReasonPanic:
		return ServerPanic
	case rpc.ReasonHandler:
		if ownFault(err.Code) {
			return ServerInternal
		}
		return ServerBizError
	case rpc.ReasonDecode:
		if ran {
			return ServerInternal
		}
		return ServerBadRequest
	case rpc.ReasonOverload:
		if !ran {
			return ServerOverload
		}
	case rpc.ReasonShuttingDown:
		if !ran {
			return ServerDraining
		}
	default: // of a callee's, or of a later version
	}
	return ServerDependency
}

// ownFault says that a handler's error is no answer.
func ownFault(c rpc.Code) bool { return c == rpc.Internal || c == rpc.Unknown || c == rpc.DataLoss }

// ServerMethod holds the items of one method at its server. It is safe for
// concurrent use; a nil ServerMethod records nothing.
type ServerMethod struct {
	slots                           *slots
	index                           *index
	requestMax, responseMax, waited peak
}

// The words of a server method.
const (
	serverStarted  = 0
	serverResult   = 1
	serverRequest  = serverResult + int(ServerResults)
	serverResponse = serverRequest + 1
	serverWait     = serverResponse + 1
	serverServed   = serverWait + 1 // a histogram; that of the refused follows
)

// ServerMethod gives the items of a method that this process serves. Asked again for
// the same method, through a view of the same labels, it gives the same items.
func (r *Registry) ServerMethod(m *rpc.Method) *ServerMethod {
	return methodSet(r, serverSide, serverItems, []Label{{"rpc.method", m.FullName()}}, newServerMethod)
}

// Started counts a call that has arrived. Ended must follow.
func (m *ServerMethod) Started() {
	if m != nil {
		m.slots.row()[serverStarted].Add(1)
	}
}

// Waited counts what a call that was let in has waited for it.
func (m *ServerMethod) Waited(d time.Duration) {
	if m == nil || d <= 0 {
		return
	}
	m.slots.row()[serverWait].Add(uint64(d))
	m.waited.note(uint64(d))
}

// Ended counts the end of a call: how it ended, the time since it arrived, and the
// bytes of its messages as they were on the wire; a local call has none.
func (m *ServerMethod) Ended(result ServerResult, took time.Duration, request, response int) {
	if m == nil {
		return
	}
	if result >= ServerResults {
		result = ServerInternal
	}
	row := m.slots.row()
	row[serverResult+int(result)].Add(1)
	at := serverServed
	if result.refused() {
		at += m.index.words()
	}
	m.index.record(row[at:], int64(took))
	count(row, serverRequest, request, &m.requestMax)
	count(row, serverResponse, response, &m.responseMax)
}

// count adds the bytes of a message.
func count(row []atomic.Uint64, word, bytes int, top *peak) {
	if bytes > 0 {
		row[word].Add(uint64(bytes))
		top.note(uint64(bytes))
	}
}

var callIndex = newIndex(callSeconds, Seconds)

// serverItems and clientItems are how many items a method has.
var (
	serverItems = 8 + int(ServerResults) + 2*itemsOf(KindHistogram, len(callSeconds))
	clientItems = 9 + int(ClientResults) + int(Attempts) + 2*itemsOf(KindHistogram, len(callSeconds))
)

func newServerMethod(r *Registry, labels []Label) *ServerMethod {
	m := &ServerMethod{index: callIndex}
	m.slots = newSlots(serverServed + 2*m.index.words())
	s := set{r: r, slots: m.slots, labels: labels}
	s.counter(Desc{"sluice.server.calls", "Calls that have arrived.", "{call}"}, serverStarted)
	for i := range ServerResults {
		s.counter(Desc{"sluice.server.results", "Calls that have ended, by how: overload, draining and bad_request have not run; dependency is a failure passed on.", "{call}"},
			serverResult+int(i), Label{"result", i.String()})
	}
	served := Desc{"rpc.server.call.duration", "Time from arrival to answer. Refused calls (overload, draining, bad_request) are apart, since they are quick.", Seconds}
	s.histogram(served, m.index, serverServed, Label{"outcome", "served"})
	s.histogram(served, m.index, serverServed+m.index.words(), Label{"outcome", "refused"})
	s.difference(Desc{"sluice.server.in_flight", "Calls that have arrived and are not answered, waiting ones included.", "{call}"},
		serverStarted, serverResult, int(ServerResults))
	s.counter(Desc{"sluice.server.request", "Bytes of requests, as they were on the wire.", Bytes}, serverRequest)
	s.counter(Desc{"sluice.server.response", "Bytes of responses, as they were on the wire.", Bytes}, serverResponse)
	s.peak(Desc{"sluice.server.request.largest", "Largest request of the last minute.", Bytes}, &m.requestMax, 1)
	s.peak(Desc{"sluice.server.response.largest", "Largest response of the last minute.", Bytes}, &m.responseMax, 1)
	s.time(Desc{"sluice.server.queue_wait", "Time that calls have waited to be let in.", Seconds}, serverWait)
	s.peak(Desc{"sluice.server.queue_wait.longest", "Longest wait to be let in of the last minute.", Seconds}, &m.waited, 1/float64(time.Second))
	return m
}

// ClientResult is how a call ended for who made it, all attempts together.
type ClientResult uint8

// The results of a client.
const (
	ClientOK            ClientResult = iota // answered
	ClientBizError                          // the method's own no
	ClientInternal                          // the server failed, or a message could not be encoded or decoded
	ClientTimeout                           // the time ran out
	ClientCanceled                          // our own caller gave up
	ClientNetwork                           // the connection failed
	ClientPeerOverload                      // the server did not let it in
	ClientPeerDraining                      // the server was shutting down
	ClientLocalRejected                     // held back here: the server's level would refuse it
	ClientCircuitOpen                       // held back here: the circuit breaker is open
	ClientNoInstance                        // there was no instance to call
	ClientResults
)

var clientResultNames = [ClientResults]string{
	"ok", "biz_error", "internal", "timeout", "canceled", "network",
	"peer_overload", "peer_draining", "local_rejected", "circuit_open", "no_instance",
}

// String gives the result as items show it.
func (r ClientResult) String() string {
	if r < ClientResults {
		return clientResultNames[r]
	}
	return fmt.Sprintf("result_%d", uint8(r))
}

func (r ClientResult) refused() bool { return r >= ClientPeerOverload }

// ClientResultOf tells how a call ended. sent says that at least one attempt went
// out: an overload is otherwise our own decision.
func ClientResultOf(err *rpc.Error, sent bool) ClientResult {
	if err == nil {
		return ClientOK
	}
	switch err.Reason {
	case rpc.ReasonOverload:
		if sent {
			return ClientPeerOverload
		}
		return ClientLocalRejected
	case rpc.ReasonDeadline:
		return ClientTimeout
	case rpc.ReasonNoInstance:
		return ClientNoInstance
	case rpc.ReasonBreaker:
		return ClientCircuitOpen
	case rpc.ReasonNetwork:
		return ClientNetwork
	case rpc.ReasonCanceled:
		return ClientCanceled
	case rpc.ReasonShuttingDown:
		return ClientPeerDraining
	case rpc.ReasonHandler:
		if ownFault(err.Code) {
			return ClientInternal
		}
		return ClientBizError
	default: // panic, decode, unknown method, or of a later version
		return ClientInternal
	}
}

// Attempt is what an attempt of a call is for.
type Attempt uint8

// The attempts.
const (
	FirstAttempt Attempt = iota // the first of its call
	RetryAttempt                // after one that failed
	HedgeAttempt                // beside one that is slow
	Attempts
)

var attemptNames = [Attempts]string{"first", "retry", "hedge"}

// String gives the attempt as items show it.
func (a Attempt) String() string {
	if a < Attempts {
		return attemptNames[a]
	}
	return fmt.Sprintf("attempt_%d", uint8(a))
}

// ClientMethod holds the items of one method at a client. It is safe for concurrent
// use; a nil ClientMethod records nothing.
type ClientMethod struct {
	slots                           *slots
	index                           *index
	requestMax, responseMax, waited peak
}

// The words of a client method.
const (
	clientStarted  = 0
	clientResult   = 1
	clientAttempt  = clientResult + int(ClientResults)
	clientSaved    = clientAttempt + int(Attempts)
	clientRequest  = clientSaved + 1
	clientResponse = clientRequest + 1
	clientWait     = clientResponse + 1
	clientServed   = clientWait + 1 // a histogram; that of the refused follows
)

// ClientMethod gives the items of a method of a service that this process calls.
// Asked again for the same, through a view of the same labels, it gives the same
// items: all connections to a service share them.
func (r *Registry) ClientMethod(callee string, m *rpc.Method) *ClientMethod {
	return methodSet(r, clientSide, clientItems, []Label{{"callee", callee}, {"rpc.method", m.FullName()}}, newClientMethod)
}

// Started counts a call that is being made. Ended must follow.
func (m *ClientMethod) Started() {
	if m != nil {
		m.slots.row()[clientStarted].Add(1)
	}
}

// Attempted counts an attempt that goes out.
func (m *ClientMethod) Attempted(a Attempt) {
	if m != nil {
		m.slots.row()[clientAttempt+int(min(a, HedgeAttempt))].Add(1)
	}
}

// Saved counts a call that was answered by another attempt than the first.
func (m *ClientMethod) Saved() {
	if m != nil {
		m.slots.row()[clientSaved].Add(1)
	}
}

// Waited counts what an attempt has waited for a connection.
func (m *ClientMethod) Waited(d time.Duration) {
	if m == nil || d <= 0 {
		return
	}
	m.slots.row()[clientWait].Add(uint64(d))
	m.waited.note(uint64(d))
}

// Ended counts the end of a call: how it ended, the time since it was made, and the
// bytes of its messages on the wire; a local call has none.
func (m *ClientMethod) Ended(result ClientResult, took time.Duration, request, response int) {
	if m == nil {
		return
	}
	if result >= ClientResults {
		result = ClientInternal
	}
	row := m.slots.row()
	row[clientResult+int(result)].Add(1)
	at := clientServed
	if result.refused() {
		at += m.index.words()
	}
	m.index.record(row[at:], int64(took))
	count(row, clientRequest, request, &m.requestMax)
	count(row, clientResponse, response, &m.responseMax)
}

func newClientMethod(r *Registry, labels []Label) *ClientMethod {
	m := &ClientMethod{index: callIndex}
	m.slots = newSlots(clientServed + 2*m.index.words())
	s := set{r: r, slots: m.slots, labels: labels}
	s.counter(Desc{"sluice.client.calls", "Calls made, each counted once whatever its attempts.", "{call}"}, clientStarted)
	for i := range ClientResults {
		s.counter(Desc{"sluice.client.results", "Calls that have ended, by how, all attempts together: peer_ is the server's doing; local_rejected and circuit_open were not sent.", "{call}"},
			clientResult+int(i), Label{"result", i.String()})
	}
	took := Desc{"rpc.client.call.duration", "Time from call to answer, all attempts together. Refused calls, here or by the server, are apart, since they are quick.", Seconds}
	s.histogram(took, m.index, clientServed, Label{"outcome", "served"})
	s.histogram(took, m.index, clientServed+m.index.words(), Label{"outcome", "refused"})
	s.difference(Desc{"sluice.client.in_flight", "Calls made and not answered yet.", "{call}"}, clientStarted, clientResult, int(ClientResults))
	for i := range Attempts {
		s.counter(Desc{"sluice.client.attempts", "Attempts sent, by what for: the first, a retry, or a hedge beside a slow one.", "{attempt}"},
			clientAttempt+int(i), Label{"attempt", i.String()})
	}
	s.counter(Desc{"sluice.client.saved", "Calls that another attempt than the first has answered.", "{call}"}, clientSaved)
	s.counter(Desc{"sluice.client.request", "Bytes of requests, as they were on the wire.", Bytes}, clientRequest)
	s.counter(Desc{"sluice.client.response", "Bytes of responses, as they were on the wire.", Bytes}, clientResponse)
	s.peak(Desc{"sluice.client.request.largest", "Largest request of the last minute.", Bytes}, &m.requestMax, 1)
	s.peak(Desc{"sluice.client.response.largest", "Largest response of the last minute.", Bytes}, &m.responseMax, 1)
	s.time(Desc{"sluice.client.connection_wait", "Time that attempts have waited for a connection.", Seconds}, clientWait)
	s.peak(Desc{"sluice.client.connection_wait.longest", "Longest wait for a connection of the last minute.", Seconds}, &m.waited, 1/float64(time.Second))
	return m
}

// The sides that methodSet counts apart.
const (
	serverSide = iota
	clientSide
	routeSide
)

// methodSet gives the items of a method, or, when there are too many, those that the
// rest share.
func methodSet[T any](r *Registry, side, size int, labels []Label, build func(*Registry, []Label) *T) *T {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	key := fmt.Sprintf("%d %q %q", side, r.labels, labels)
	if r.sets[key] == nil {
		// Room is kept for the items that are shared.
		if r.methods[side] < r.limits.MaxMethods && r.Items()+2*size <= r.limits.MaxItems {
			r.methods[side]++
		} else {
			r.folded.Inc()
			labels = append([]Label(nil), labels...)
			for i := range labels {
				labels[i].Value = otherValue
			}
			key = fmt.Sprintf("%d %q %q", side, r.labels, labels)
		}
	}
	return shared(r, key, func() *T { return build(r, labels) })
}

// shared gives what was built first for a key. It is called with setMu held.
func shared[T any](r *Registry, key string, build func() *T) *T {
	if old, ok := r.sets[key].(*T); ok {
		return old
	}
	item := build()
	r.sets[key] = item
	return item
}

// set registers items that are counted in one block of slots.
type set struct {
	r      *Registry
	slots  *slots
	labels []Label
}

func (s *set) add(k Kind, d Desc, bounds []float64, more []Label, item *series) {
	s.r.register(k, d, bounds, append(append([]Label(nil), s.labels...), more...), item, true)
}

func (s *set) counter(d Desc, word int, more ...Label) {
	s.add(KindCounter, d, nil, more, &series{value: func() float64 { return float64(s.slots.sum(word)) }})
}

func (s *set) time(d Desc, word int) {
	s.add(KindCounter, d, nil, nil, &series{value: func() float64 { return time.Duration(s.slots.sum(word)).Seconds() }})
}

func (s *set) histogram(d Desc, x *index, at int, more ...Label) {
	s.add(KindHistogram, d, x.bounds, more, &series{hist: func(counts []uint64) float64 { return x.read(s.slots, at, counts) }})
}

// difference shows how much a word is ahead of n others. The others are read first,
// so that a call that ends meanwhile cannot make it negative.
func (s *set) difference(d Desc, word, others, n int) {
	s.add(KindGauge, d, nil, nil, &series{value: func() float64 {
		ended := uint64(0)
		for i := range n {
			ended += s.slots.sum(others + i)
		}
		return float64(int64(s.slots.sum(word) - ended))
	}})
}

func (s *set) peak(d Desc, p *peak, scale float64) {
	s.add(KindGauge, d, nil, nil, &series{value: func() float64 { return float64(p.read(time.Now())) * scale }})
}
