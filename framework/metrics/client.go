// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

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
	ClientDenied                            // the server does not let this service call the method
	ClientResults
)

var clientResultNames = [ClientResults]string{
	"ok", "biz_error", "internal", "timeout", "canceled", "network",
	"peer_overload", "peer_draining", "local_rejected", "circuit_open", "no_instance", "denied",
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
	case rpc.ReasonDenied:
		return ClientDenied
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
	calls
	attempts, saved, wait int // words
	longest               peak
}

// ClientMethod gives the items of a method of a service that this process calls.
// Asked again for the same, through a view of the same labels, it gives the same
// items: all connections to a service share them.
func (r *Registry) ClientMethod(callee string, m *rpc.Method) *ClientMethod {
	return methodSet(r, clientSide, callItems+int(ClientResults)+int(Attempts)+3,
		[]Label{{"callee", callee}, {"rpc.method", m.FullName()}}, newClientMethod)
}

func newClientMethod(r *Registry, labels []Label) *ClientMethod {
	m := &ClientMethod{}
	m.init(int(ClientResults), int(Attempts)+2)
	m.attempts = m.more()
	m.saved = m.attempts + int(Attempts)
	m.wait = m.saved + 1
	s := &set{r: r, slots: m.slots, labels: labels}
	m.register(s, callDescs{
		started:  Desc{"sluice.client.calls", "Calls made, each counted once whatever its attempts.", "{call}"},
		result:   Desc{"sluice.client.results", "Calls that have ended, by how, all attempts together: peer_ is the server's doing; local_rejected and circuit_open were not sent.", "{call}"},
		took:     Desc{"rpc.client.call.duration", "Time from call to answer, all attempts together. Refused calls, here or by the server, are apart, since they are quick.", Seconds},
		inFlight: Desc{"sluice.client.in_flight", "Calls made and not answered yet.", "{call}"},
		request:  Desc{"sluice.client.request", "Bytes of requests, as they were on the wire.", Bytes},
		response: Desc{"sluice.client.response", "Bytes of responses, as they were on the wire.", Bytes},
	}, func(i int) string { return ClientResult(i).String() })
	for i := range Attempts {
		s.counter(Desc{"sluice.client.attempts", "Attempts sent, by what for: the first, a retry, or a hedge beside a slow one.", "{attempt}"},
			m.attempts+int(i), Label{"attempt", i.String()})
	}
	s.counter(Desc{"sluice.client.saved", "Calls that another attempt than the first has answered.", "{call}"}, m.saved)
	s.time(Desc{"sluice.client.connection_wait", "Time that attempts have waited for a connection.", Seconds}, m.wait)
	s.peak(Desc{"sluice.client.connection_wait.longest", "Longest wait for a connection of the last minute.", Seconds}, &m.longest, 1/float64(time.Second))
	return m
}

// Started counts a call that is being made. Ended must follow.
func (m *ClientMethod) Started() {
	if m != nil {
		m.started()
	}
}

// Attempted counts an attempt that goes out.
func (m *ClientMethod) Attempted(a Attempt) {
	if m != nil {
		m.slots.row()[m.attempts+int(min(a, HedgeAttempt))].Add(1)
	}
}

// Saved counts a call that was answered by another attempt than the first.
func (m *ClientMethod) Saved() {
	if m != nil {
		m.slots.row()[m.saved].Add(1)
	}
}

// Waited counts what an attempt has waited for a connection.
func (m *ClientMethod) Waited(d time.Duration) {
	if m != nil && d > 0 {
		m.slots.row()[m.wait].Add(uint64(d))
		m.longest.note(uint64(d))
	}
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
	m.ended(int(result), result.refused(), took, request, response)
}
