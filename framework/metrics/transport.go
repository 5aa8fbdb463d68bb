// SPDX-License-Identifier: Apache-2.0

package metrics

import "fmt"

// CloseCause is why a connection ended.
type CloseCause uint8

// The causes.
const (
	ClosedByPeer    CloseCause = iota // the other side closed it
	ClosedByUs                        // drained, or closed by its owner
	ClosedOnError                     // reading or writing failed
	ClosedSlow                        // the other side was too slow to send or to take its bytes
	ClosedMalformed                   // what came was no frame
	ClosedIdle                        // nothing had come over it for the idle timeout
	CloseCauses
)

var closeCauseNames = [CloseCauses]string{"peer", "us", "error", "slow", "malformed", "idle"}

// String gives the cause as items show it.
func (c CloseCause) String() string { return closeCauseNames[min(c, CloseCauses-1)] }

// FrameFault is why a frame did not become a call.
type FrameFault uint8

// The faults.
const (
	FrameMalformed     FrameFault = iota // its header cannot be read
	FrameTooLarge                        // longer than the server takes
	FrameUnknownMethod                   // names a method that is not served here
	FrameOverLimit                       // too many calls are being served (MaxInFlight)
	FrameFaults
)

var frameFaultNames = [FrameFaults]string{"malformed", "too_large", "unknown_method", "over_limit"}

// String gives the fault as items show it.
func (f FrameFault) String() string { return frameFaultNames[min(f, FrameFaults-1)] }

// Handshake is how the TLS handshake of an accepted connection ended.
type Handshake uint8

// The ends of handshakes.
const (
	HandshakeOK            Handshake = iota // both sides have proved who they are
	HandshakeNotTLS                         // plain text or garbage came
	HandshakeNoCertificate                  // the client has shown none
	HandshakeAuthority                      // its certificate is of a foreign authority, or not right
	HandshakeExpired                        // its certificate is not valid now
	HandshakeIdentity                       // it is of another trust domain, or not expected
	HandshakeLate                           // it was not over in time
	HandshakeCrowded                        // it gave its place to a newer one: too many have not ended
	HandshakeHungUp                         // the client went away
	HandshakeOther                          // any other fault of TLS, for example an old version
	HandshakeEnds
)

var handshakeNames = [HandshakeEnds]string{
	"ok", "not_tls", "no_certificate", "authority", "expired", "identity", "late", "crowded", "hung_up", "other",
}

// String gives the end of a handshake as items show it.
func (h Handshake) String() string { return handshakeNames[min(h, HandshakeEnds-1)] }

// Traffic is what connections of both sides have.
type Traffic struct {
	Closed   [CloseCauses]*Counter
	Received *Counter // bytes, headers included
	Sent     *Counter // bytes, headers included
	Frames   *Counter // frames sent
	Flushes  *Counter // system calls that sent them
}

// ServerTransport holds the items of a server's connections. The zero value records
// nothing.
type ServerTransport struct {
	Traffic
	Accepted   *Counter                // connections
	Refused    *Counter                // connections beyond the limit
	Handshakes [HandshakeEnds]*Counter // of connections under TLS
	Faults     [FrameFaults]*Counter   // frames that are no calls
	Foreign    *Counter                // calls without our header
}

// ServerTransport registers the items of a server's connections.
func (r *Registry) ServerTransport() *ServerTransport {
	t := &ServerTransport{Traffic: r.traffic("sluice.listener.")}
	t.Accepted = r.Counter(Desc{"sluice.listener.accepted", "Connections accepted.", "{connection}"})
	t.Refused = r.Counter(Desc{"sluice.listener.refused", "Connections closed at once, because too many are open (MaxConnections).", "{connection}"})
	r.GaugeFunc(Desc{"sluice.listener.open", "Connections open now.", "{connection}"}, t.open(t.Accepted))
	for h := range HandshakeEnds {
		t.Handshakes[h] = r.Counter(Desc{"sluice.listener.handshakes", "TLS handshakes of connections, by how they ended.", "{handshake}"}, Label{"result", h.String()})
	}
	for f := range FrameFaults {
		t.Faults[f] = r.Counter(Desc{"sluice.listener.faults", "Frames that did not become calls, by what was wrong with them.", "{frame}"}, Label{"fault", f.String()})
	}
	t.Foreign = r.Counter(Desc{"sluice.listener.foreign", "Calls without our header: from stock kitex clients, or past the framework.", "{call}"})
	return t
}

// ClientTransport holds the items of the connections to one service. The zero value
// records nothing.
type ClientTransport struct {
	Traffic
	Connected     *Counter   // connections made
	ConnectFailed *Counter   // attempts to connect that failed
	ConnectTime   *Histogram // of those that did not
	LateReplies   *Counter   // answers for which nobody waited any more
}

// connectSeconds reach from a neighbour to the default limit of an attempt.
var connectSeconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}

// ClientTransport gives the items of the connections to a service, the same ones
// each time it is asked through a view of the same labels.
func (r *Registry) ClientTransport(callee string) *ClientTransport {
	r.setMu.Lock()
	defer r.setMu.Unlock()
	return shared(r, fmt.Sprintf("connections %q %q", r.labels, callee), func() *ClientTransport {
		r := r.With(Label{"callee", callee})
		t := &ClientTransport{Traffic: r.traffic("sluice.link.")}
		t.Connected = r.Counter(Desc{"sluice.link.connected", "Connections made.", "{connection}"})
		t.ConnectFailed = r.Counter(Desc{"sluice.link.connect_failed", "Attempts to connect that failed.", "{attempt}"})
		t.ConnectTime = r.Histogram(Desc{"sluice.link.connect_time", "Time it took to make a connection.", Seconds}, connectSeconds)
		r.GaugeFunc(Desc{"sluice.link.open", "Connections open now.", "{connection}"}, t.open(t.Connected))
		t.LateReplies = r.Counter(Desc{"sluice.link.late_replies", "Answers for which nobody waited any more: work that was served in vain.", "{reply}"})
		return t
	})
}

func (r *Registry) traffic(prefix string) (t Traffic) {
	for c := range CloseCauses {
		t.Closed[c] = r.Counter(Desc{prefix + "closed", "Connections that ended, by why: peer, us and idle are as it should be.", "{connection}"}, Label{"cause", c.String()})
	}
	t.Received = r.Counter(Desc{prefix + "received", "Bytes received on connections, headers included.", Bytes})
	t.Sent = r.Counter(Desc{prefix + "sent", "Bytes sent on connections, headers included.", Bytes})
	t.Frames = r.Counter(Desc{prefix + "frames", "Frames sent.", "{frame}"})
	t.Flushes = r.Counter(Desc{prefix + "flushes", "System calls that sent frames: fewer than frames while writes are combined.", "{write}"})
	return t
}

// open is how many connections of those begun have not ended.
func (t *Traffic) open(begun *Counter) func() float64 {
	return func() float64 {
		ended := uint64(0)
		for _, c := range t.Closed {
			ended += c.Value()
		}
		return float64(int64(begun.Value() - ended))
	}
}
