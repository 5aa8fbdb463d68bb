// SPDX-License-Identifier: Apache-2.0

package callgraph

// Class says how a call ended. The same classes serve both ends of a call.
type Class uint8

// The classes. A server uses those up to Network; a client all of them.
const (
	OK            Class = 0 // answered
	BusinessError Class = 1 // the method's own error
	Internal      Class = 2 // the framework failed
	BadRequest    Class = 3 // no such method, or a message that cannot be decoded
	Timeout       Class = 4 // the deadline passed while the call was under way
	Overloaded    Class = 5 // the server let the call not in
	Draining      Class = 6 // the server is shutting down and did not take the call
	Canceled      Class = 7 // the caller gave up
	Panic         Class = 8 // the handler panicked
	Network       Class = 9 // the connection failed while the call was under way

	// Of the following the server never hears.

	LocalRejected Class = 10 // refused by the caller, which knows the server's level
	CircuitOpen   Class = 11 // refused by the caller's circuit breaker
	NoInstance    Class = 12 // there was no instance to call
	ConnectError  Class = 13 // no connection could be made
	Unsent        Class = 14 // the deadline passed, or the caller gave up, before sending

	Other Class = 15 // a class that this version does not know
)

// NumClasses is the number of classes.
const NumClasses = 16

var classNames = [NumClasses]string{
	"ok", "business_error", "internal", "bad_request", "timeout", "overloaded", "draining",
	"canceled", "panic", "network", "local_rejected", "circuit_open", "no_instance",
	"connect_error", "unsent", "other",
}

// String gives the name of the class as snapshots and metrics show it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[Other]
}

func classOf(name string) Class {
	for i, n := range classNames {
		if n == name {
			return Class(i)
		}
	}
	return Other
}

// Delivery is what the caller of a call knows of its delivery.
type Delivery uint8

// What a caller may know.
const (
	Delivered    Delivery = 0 // the server answered, so it counted the call
	NotDelivered Delivery = 1 // the server never heard of the call
	Uncertain    Delivery = 2 // the caller stopped waiting: the server may have counted it or not
)

// Delivery gives what the end of an attempt says about its delivery.
func (c Class) Delivery() Delivery {
	switch c {
	case LocalRejected, CircuitOpen, NoInstance, ConnectError, Unsent:
		return NotDelivered
	case Timeout, Canceled, Network, Other:
		return Uncertain
	default:
		return Delivered
	}
}

// Side is the end of an edge that counts. The names are those of OpenTelemetry's
// span kinds.
type Side uint8

// The sides. Producer and consumer are the ends of a queue: their edges are links,
// along which nobody waits.
const (
	Client   Side = 0
	Server   Side = 1
	Producer Side = 2
	Consumer Side = 3
)

var sideNames = [...]string{"client", "server", "producer", "consumer"}

// String gives the name of the side.
func (s Side) String() string {
	if int(s) < len(sideNames) {
		return sideNames[s]
	}
	return "side_unknown"
}

// Link reports whether the side is that of a queue.
func (s Side) Link() bool { return s == Producer || s == Consumer }
