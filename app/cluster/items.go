// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/app/comment"
	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/idcqueue"
	"github.com/sluice-rpc/sluice/app/idcqueue/path"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/metrics"
)

// The items of lines and queues between regions. Items of a process are there for good,
// and a process may run one region after another, as tests do: each series reads what
// joins its region, service and peer now. Counts stay where they were when that has ended.
var seams = struct {
	sync.Mutex
	prepared bool
	all      map[seamKey]*seam
	tallies  map[string]*tally // by region
}{all: map[seamKey]*seam{}, tallies: map[string]*tally{}}

// tally is how the comments of a region stand to what others make.
type tally struct {
	of *comment.Service // nil when it has ended
	at comment.Causality
}

// standings are the items of a tally.
var standings = []struct {
	counts bool
	name   string
	unit   metrics.Unit
	help   string
	value  func(*comment.Causality) float64
}{
	{false, "moments.causal.held", "{operation}", "Comments and likes of other regions that are here and wait for their causes.", func(c *comment.Causality) float64 { return float64(c.Held) }},
	{false, "moments.causal.late", "{post}", "Posts under which something is known to lack.", func(c *comment.Causality) float64 { return float64(c.Late) }},
	{true, "moments.causal.orphans", "{operation}", "Comments and likes shown although a cause was lost with its region.", func(c *comment.Causality) float64 { return float64(c.Orphans) }},
	{true, "moments.causal.forks", "{operation}", "Comments and likes that claim a place which another one has: a disk was set back and nobody has told.", func(c *comment.Causality) float64 { return float64(c.Forks) }},
}

// showTally has the items of a region read how its comments stand, until hideTally.
func showTally(region string, of *comment.Service) {
	items := framework.Items()
	seams.Lock()
	defer seams.Unlock()
	prepareSeamsLocked(items)
	t := seams.tallies[region]
	if t == nil {
		t = &tally{}
		seams.tallies[region] = t
		for _, f := range standings {
			register := items.GaugeFunc
			if f.counts {
				register = items.CounterFunc
			}
			register(metrics.Desc{Name: f.name, Unit: f.unit, Help: f.help}, func() float64 { return f.value(&t.at) }, metrics.Label{Name: "region", Value: region})
		}
	}
	t.of = of
}

// hideTally ends that, unless another one has come after it.
func hideTally(region string, of *comment.Service) {
	seams.Lock()
	defer seams.Unlock()
	if t := seams.tallies[region]; t != nil && t.of == of {
		t.of = nil
	}
}

// prepareSeamsLocked has what is shown looked at before it is.
func prepareSeamsLocked(items *metrics.Registry) {
	if !seams.prepared {
		seams.prepared = true
		items.BeforeRead(lookAtSeams)
	}
}

// seamKey is a service of a region and its peer in another one.
type seamKey struct {
	region string
	role   topology.Role
	peer   string
}

// seam is how a service is joined to a peer.
type seam struct {
	peer  id.Region
	line  *path.Line      // nil when it has ended
	queue *idcqueue.Queue // likewise

	// What is shown, as of the last look.
	at    path.PeerStatus
	moved idcqueue.PeerStatus
	until time.Time // the end of the own certificate
}

// figure is one item of a seam.
type figure struct {
	counts bool
	name   string
	unit   metrics.Unit
	help   string
	value  func(s *seam) float64
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func stats(s *seam) path.Stats {
	if s.at.Dialled != nil {
		return *s.at.Dialled
	}
	return path.Stats{}
}

var figures = []figure{
	{false, "moments.line.up", "{line}", "1 while the own log can be sent to the peer, 0 while there is no session or it is silent.", func(s *seam) float64 { return yes(s.at.State == path.Up) }},
	{false, "moments.line.round_trip", metrics.Seconds, "Smoothed time of a round trip on the session that the own log is sent on, as probes measure it.", func(s *seam) float64 { return stats(s).RTT.Seconds() }},
	{false, "moments.line.loss", metrics.Ratio, "Share of TCP's segments that were sent again.", func(s *seam) float64 { return stats(s).Loss }},
	{false, "moments.line.rate", metrics.Bytes, "Bytes a second that the kernel has found the line to deliver; 0 if it does not say.", func(s *seam) float64 { return float64(stats(s).Rate) }},
	{true, "moments.line.dials", "{dial}", "Attempts to connect to the peer.", func(s *seam) float64 { return float64(s.at.Dials) }},
	{true, "moments.line.sessions", "{session}", "Sessions with the peer, dialled by either side.", func(s *seam) float64 { return float64(s.at.Sessions) }},
	{true, "moments.line.deaths", "{session}", "Sessions that were given up because nothing was heard.", func(s *seam) float64 { return float64(s.at.Deaths) }},
	{false, "moments.line.certificate_left", metrics.Seconds, "Time until the own certificate ends.", func(s *seam) float64 {
		if s.until.IsZero() {
			return 0
		}
		return time.Until(s.until).Seconds()
	}},

	{false, "moments.queue.lag", metrics.Seconds, "Age of the oldest record that the peer has not acknowledged.", func(s *seam) float64 { return (time.Duration(s.moved.Send.LagMS) * time.Millisecond).Seconds() }},
	{false, "moments.queue.depth", "{record}", "Records that the peer has not acknowledged.", func(s *seam) float64 { return float64(s.moved.Send.Depth) }},
	{false, "moments.queue.kept", metrics.Bytes, "Bytes of the log that are kept for the peer.", func(s *seam) float64 { return float64(s.moved.Send.DepthBytes) }},
	{false, "moments.queue.full", metrics.Ratio, "How near the peer is to losing its place and needing a snapshot; 1 is the limit.", func(s *seam) float64 { return s.moved.Send.Full }},
	{false, "moments.queue.needs_snapshot", "{slot}", "Slots that the peer must get as a whole.", func(s *seam) float64 { return float64(s.moved.Send.NeedsSnapshot) }},
	{true, "moments.queue.drops", "{drop}", "Times that the peer has lost its place.", func(s *seam) float64 { return float64(s.moved.Send.Drops) }},
	{true, "moments.queue.sent", "{record}", "Records sent to the peer, repetitions included.", func(s *seam) float64 { return float64(s.moved.Send.Sent) }},
	{true, "moments.queue.acknowledged", "{record}", "Records that the peer has acknowledged.", func(s *seam) float64 { return float64(s.moved.Send.Acked) }},
	{true, "moments.queue.raw", metrics.Bytes, "Bytes of records sent to the peer, before compression.", func(s *seam) float64 { return float64(s.moved.Send.RawBytes) }},
	{true, "moments.queue.wire", metrics.Bytes, "Bytes of records sent to the peer, as they were given to the line.", func(s *seam) float64 { return float64(s.moved.Send.WireBytes) }},
	{true, "moments.queue.credit_stalls", "{stall}", "Times that sending waited for the peer to give credit.", func(s *seam) float64 { return float64(s.moved.Send.CreditStalls) }},
	{true, "moments.queue.applied", "{record}", "Records of the peer that were applied.", func(s *seam) float64 { return float64(s.moved.Receive.Applied) }},
	{false, "moments.queue.backlog", metrics.Bytes, "Bytes that have come from the peer and are not applied.", func(s *seam) float64 { return float64(s.moved.Receive.Backlog) }},
	{true, "moments.queue.duplicates", "{record}", "Records of the peer that were there already, and dropped.", func(s *seam) float64 { return float64(s.moved.Receive.Duplicates) }},
	{true, "moments.queue.gaps", "{record}", "Records of the peer that came before others of their slot, and were dropped to be asked for again.", func(s *seam) float64 { return float64(s.moved.Receive.Gaps) }},
	{true, "moments.queue.resumes", "{resume}", "Times that the peer was asked to go on from a place.", func(s *seam) float64 { return float64(s.moved.Receive.Resumes) }},
	{true, "moments.queue.quarantined", "{record}", "Records of the peer that were refused for good.", func(s *seam) float64 { return float64(s.moved.Receive.Quarantined) }},
	{false, "moments.queue.in_quarantine", "{record}", "Refused records of the peer that an operator has neither released nor dropped.", func(s *seam) float64 { return float64(s.moved.Receive.InQuarantine) }},
	{false, "moments.queue.alarm", "{alarm}", "1 while somebody has to see to the queue with this peer; GET /regions says what for.", func(s *seam) float64 { return yes(s.moved.Send.Alarm != "" || s.moved.Receive.Alarm != "") }},
}

// showSeams has the items of a service read its line and queue, until hideSeams.
func showSeams(region string, r topology.Role, peers []topology.Peer, line *path.Line, queue *idcqueue.Queue) {
	items := framework.Items()
	seams.Lock()
	defer seams.Unlock()
	prepareSeamsLocked(items)
	for _, p := range peers {
		key := seamKey{region: region, role: r, peer: p.Name}
		s := seams.all[key]
		if s == nil {
			s = &seam{}
			seams.all[key] = s
			labels := []metrics.Label{{Name: "region", Value: region}, {Name: "service", Value: string(r)}, {Name: "peer", Value: p.Name}}
			for _, f := range figures {
				register := items.GaugeFunc
				if f.counts {
					register = items.CounterFunc
				}
				register(metrics.Desc{Name: f.name, Unit: f.unit, Help: f.help}, func() float64 { return f.value(s) }, labels...)
			}
		}
		s.peer, s.line, s.queue = p.ID(), line, queue
	}
}

// hideSeams ends that for some peers.
func hideSeams(region string, r topology.Role, peers []topology.Peer, line *path.Line) {
	seams.Lock()
	defer seams.Unlock()
	for _, p := range peers {
		if s := seams.all[seamKey{region: region, role: r, peer: p.Name}]; s != nil && s.line == line { // nobody has come after it
			s.line, s.queue = nil, nil
		}
	}
}

// rest has what was shown last say that there is nothing any more. Counts stay.
func (s *seam) rest() {
	s.at = path.PeerStatus{Dials: s.at.Dials, Sessions: s.at.Sessions, Deaths: s.at.Deaths}
	send, receive := &s.moved.Send, &s.moved.Receive
	send.LagMS, send.Depth, send.DepthBytes, send.Full, send.NeedsSnapshot, send.Alarm = 0, 0, 0, 0, 0, ""
	receive.Backlog, receive.InQuarantine, receive.Alarm = 0, 0, ""
	s.until = time.Time{}
}

// lookAtSeams is run before the items are read, and never twice at a time.
func lookAtSeams() {
	seams.Lock()
	defer seams.Unlock()
	for _, t := range seams.tallies {
		if t.of != nil {
			t.at = t.of.Causality()
		} else {
			t.at.Held, t.at.Late = 0, 0
		}
	}
	lines, queues := map[*path.Line]path.Status{}, map[*idcqueue.Queue]idcqueue.Status{}
	for _, s := range seams.all {
		if s.line == nil {
			s.rest()
			continue
		}
		if _, ok := lines[s.line]; !ok {
			lines[s.line], queues[s.queue] = s.line.Status(), s.queue.Status()
		}
		s.until = lines[s.line].Until
		for _, p := range lines[s.line].Peers {
			if p.Region == s.peer {
				s.at = p
			}
		}
		for _, p := range queues[s.queue].Peers {
			if p.Region == s.peer {
				s.moved = p
			}
		}
	}
}
