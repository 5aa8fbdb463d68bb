// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
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
	ServerDenied                         // not run: the caller's identity may not call the method
	ServerResults
)

var serverResultNames = [ServerResults]string{
	"ok", "biz_error", "internal", "dependency", "timeout", "canceled", "panic", "overload", "draining", "bad_request", "denied",
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
	case rpc.ReasonDenied:
		if !ran {
			return ServerDenied
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
	calls
	wait    int // a word
	longest peak
}

// ServerMethod gives the items of a method that this process serves. Asked again for
// the same method, through a view of the same labels, it gives the same items.
func (r *Registry) ServerMethod(m *rpc.Method) *ServerMethod {
	return methodSet(r, serverSide, callItems+int(ServerResults)+2, []Label{{"rpc.method", m.FullName()}}, newServerMethod)
}

func newServerMethod(r *Registry, labels []Label) *ServerMethod {
	m := &ServerMethod{}
	m.init(int(ServerResults), 1)
	m.wait = m.more()
	s := &set{r: r, slots: m.slots, labels: labels}
	m.register(s, callDescs{
		started:  Desc{"sluice.server.calls", "Calls that have arrived.", "{call}"},
		result:   Desc{"sluice.server.results", "Calls that have ended, by how: overload, draining, bad_request and denied have not run; dependency is a failure passed on.", "{call}"},
		took:     Desc{"rpc.server.call.duration", "Time from arrival to answer. Refused calls (overload, draining, bad_request, denied) are apart, since they are quick.", Seconds},
		inFlight: Desc{"sluice.server.in_flight", "Calls that have arrived and are not answered, waiting ones included.", "{call}"},
		request:  Desc{"sluice.server.request", "Bytes of requests, as they were on the wire.", Bytes},
		response: Desc{"sluice.server.response", "Bytes of responses, as they were on the wire.", Bytes},
	}, func(i int) string { return ServerResult(i).String() })
	s.time(Desc{"sluice.server.queue_wait", "Time that calls have waited to be let in.", Seconds}, m.wait)
	s.peak(Desc{"sluice.server.queue_wait.longest", "Longest wait to be let in of the last minute.", Seconds}, &m.longest, 1/float64(time.Second))
	return m
}

// Started counts a call that has arrived. Ended must follow.
func (m *ServerMethod) Started() {
	if m != nil {
		m.started()
	}
}

// Waited counts what a call that was let in has waited for it.
func (m *ServerMethod) Waited(d time.Duration) {
	if m != nil && d > 0 {
		m.slots.row()[m.wait].Add(uint64(d))
		m.longest.note(uint64(d))
	}
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
	m.ended(int(result), result.refused(), took, request, response)
}
