// SPDX-License-Identifier: Apache-2.0

package idcqueue

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
)

// State is how one direction of a peer is.
type State string

// The states.
const (
	Offline    State = "offline"     // there is no session
	Joining    State = "joining"     // there is one, and both say hello
	Live       State = "live"        // what is written is sent at once
	CatchingUp State = "catching-up" // something older is on its way
	Snapshot   State = "snapshot"    // slots are sent as a whole
	Stopped    State = "stopped"     // somebody has to look: see Alarm
)

// Status is how a queue is.
type Status struct {
	Service     string       `json:"service"`
	Region      id.Region    `json:"region"`
	Incarnation string       `json:"incarnation"`
	Peers       []PeerStatus `json:"peers"` // by number
	// Strangers is how many sessions were refused because their region is no peer, or has
	// left.
	Strangers uint64 `json:"strangers"`
}

// Peer gives that of a region, nil if it is no peer.
func (s *Status) Peer(r id.Region) *PeerStatus {
	for i := range s.Peers {
		if s.Peers[i].Region == r {
			return &s.Peers[i]
		}
	}
	return nil
}

// PeerStatus is how the queue to and from one region is. Counts are since the start of
// the process.
type PeerStatus struct {
	Region  id.Region     `json:"region"`
	Send    SendStatus    `json:"send"`
	Receive ReceiveStatus `json:"receive"`
}

// SendStatus is how a peer gets the own log.
type SendStatus struct {
	State         State   `json:"state"`
	Alarm         string  `json:"alarm,omitempty"` // what somebody has to see to
	Depth         uint64  `json:"depth"`           // records that the peer has not
	DepthBytes    uint64  `json:"depth_bytes"`     // of the log, kept for it
	LagMS         int64   `json:"lag_ms"`          // age of the oldest of them
	Full          float64 `json:"full"`            // how near the peer is to being dropped; 1 is the limit
	NeedsSnapshot int     `json:"needs_snapshot"`  // slots that must be sent as a whole
	Drops         uint64  `json:"drops"`           // times that it was dropped
	Sent          uint64  `json:"sent"`            // records, repetitions included
	Acked         uint64  `json:"acked"`           // records
	Batches       uint64  `json:"batches"`
	Parts         uint64  `json:"parts"`      // of snapshots
	RawBytes      uint64  `json:"raw_bytes"`  // of data, before compression
	WireBytes     uint64  `json:"wire_bytes"` // of data, as given to the line
	Resumes       uint64  `json:"resumes"`    // times that the peer has asked for a place
	CreditStalls  uint64  `json:"credit_stalls"`
	// ClockAheadMS is how far the peer's clock is before the own one, the time on the line
	// included.
	ClockAheadMS int64 `json:"clock_ahead_ms"`
}

// ReceiveStatus is how the log of a peer is taken.
type ReceiveStatus struct {
	State        State  `json:"state"`
	Alarm        string `json:"alarm,omitempty"` // what somebody has to see to
	Incarnation  string `json:"incarnation,omitempty"`
	Applied      uint64 `json:"applied"` // records
	Parts        uint64 `json:"parts"`   // of snapshots
	RawBytes     uint64 `json:"raw_bytes"`
	Backlog      uint64 `json:"backlog"`       // bytes that have come and are not applied
	Duplicates   uint64 `json:"duplicates"`    // records that were there already, and dropped
	Gaps         uint64 `json:"gaps"`          // records that came too early, and were dropped
	Resumes      uint64 `json:"resumes"`       // times that a place was asked for
	Corrupt      uint64 `json:"corrupt"`       // sessions ended by what could not be read
	Quarantined  uint64 `json:"quarantined"`   // records refused
	InQuarantine int    `json:"in_quarantine"` // of them kept now
}

// skew is how far clocks may be apart before it is an alarm.
const skew = time.Minute

// Status tells how the queue is.
func (q *Queue) Status() Status {
	st := Status{Service: q.cfg.Service, Region: q.cfg.Region, Incarnation: q.own.String(), Strangers: q.strangers.Load()}
	now := q.cfg.Now()
	boxes := q.cfg.Outbox.Status().Peers
	peers := *q.peers.Load()
	for _, r := range slices.Sorted(maps.Keys(peers)) {
		p := peers[r]
		p.mu.Lock()
		one := PeerStatus{Region: r, Send: p.sending.status(now), Receive: p.taking.status(now)}
		p.mu.Unlock()
		for _, box := range boxes {
			if box.Name != Consumer(r) {
				continue
			}
			s := &one.Send
			s.Depth, s.DepthBytes, s.NeedsSnapshot, s.Full, s.Drops = box.Records, box.Bytes, box.Snapshots, box.Full, box.Drops
			if !box.Oldest.IsZero() {
				s.LagMS = max(now.Sub(box.Oldest).Milliseconds(), 0)
			}
			s.judge()
		}
		st.Peers = append(st.Peers, one)
	}
	return st
}

func (st *sendState) status(now time.Time) SendStatus {
	all := sum(st.total, st.session)
	s := SendStatus{
		State: st.state, Sent: all.Records, Acked: st.acked, Batches: all.Batches, Parts: all.Parts,
		RawBytes: all.RawBytes, WireBytes: st.wire, Resumes: all.Resumes, CreditStalls: all.Stalls,
		ClockAheadMS: st.ahead.Milliseconds(),
	}
	var alarms []string
	if st.stop != "" {
		alarms = append(alarms, st.stop)
	}
	if st.failing != "" && now.Sub(st.since) >= alarmAfter {
		alarms = append(alarms, "it cannot be read: "+st.failing)
	}
	if st.ahead.Abs() > skew {
		alarms = append(alarms, fmt.Sprintf("the peer's clock is %v ahead: set the clocks of both", st.ahead.Round(time.Second)))
	}
	if s.State == Live && st.wholes > 0 {
		s.State = Snapshot
	}
	s.Alarm = strings.Join(alarms, "; ")
	return s
}

// Lags from which on it is catching up, and an alarm.
const catchingUp, late = 2000, 60_000

// judge says what the figures mean.
func (s *SendStatus) judge() {
	if s.State == Live && s.LagMS > catchingUp {
		s.State = CatchingUp
	}
	add := func(alarm string) {
		if s.Alarm != "" {
			alarm = s.Alarm + "; " + alarm
		}
		s.Alarm = alarm
	}
	if s.Full >= 0.5 {
		add(fmt.Sprintf("the outbox is %.0f %% full for it: mend the line; at 100 %% it is dropped and gets a snapshot later", 100*s.Full))
	}
	if s.NeedsSnapshot > 0 && s.State == Offline {
		add(fmt.Sprintf("it needs a snapshot of %d slots, and gets it when it is back", s.NeedsSnapshot))
	}
	if s.LagMS > late {
		add(fmt.Sprintf("it is %v behind", (time.Duration(s.LagMS) * time.Millisecond).Round(time.Second)))
	}
}

func (st *receiveState) status(now time.Time) ReceiveStatus {
	m := st.m.Stats()
	s := ReceiveStatus{
		State: st.state, Applied: m.Records, Parts: m.Parts, RawBytes: m.RawBytes, Backlog: st.m.Backlog(),
		Duplicates: m.Duplicates, Gaps: m.Gaps, Resumes: m.Resumes, Corrupt: st.corrupt,
		Quarantined: st.quarantined, InQuarantine: st.held,
	}
	if !st.known.log.IsZero() {
		s.Incarnation = st.known.log.String()
	}
	var alarms []string
	if st.stop != "" {
		alarms = append(alarms, st.stop)
	}
	if st.failing != "" && now.Sub(st.since) >= alarmAfter {
		alarms = append(alarms, "it cannot be applied: "+st.failing)
	}
	if st.held > 0 {
		alarms = append(alarms, fmt.Sprintf("%d records are in quarantine: see why, then release or drop them", st.held))
	}
	s.Alarm = strings.Join(alarms, "; ")
	return s
}
