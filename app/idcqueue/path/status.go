// SPDX-License-Identifier: Apache-2.0

package path

import (
	"maps"
	"time"

	"github.com/sluice-rpc/sluice/app/id"
)

// State is how the line to a peer is, seen from here.
type State string

// The states of a line.
const (
	Up      State = "up"      // we can send
	Suspect State = "suspect" // an echo is overdue
	Down    State = "down"    // no session: it is dialled again and again
)

// Status is how all lines of a service are.
type Status struct {
	Service string             `json:"service"`
	Addr    string             `json:"addr"`
	Until   time.Time          `json:"certificate_until"` // zero without peers
	Refused map[Refusal]uint64 `json:"refused"`
	Peers   []PeerStatus       `json:"peers"`
}

// PeerStatus is how the line to one peer is.
type PeerStatus struct {
	Region   id.Region `json:"region"`
	Name     string    `json:"name"`
	State    State     `json:"state"`
	Dialled  *Stats    `json:"dialled,omitempty"`  // of the session that we send on
	Accepted *Stats    `json:"accepted,omitempty"` // of the session that we receive on
	Dials    uint64    `json:"dials"`
	Sessions uint64    `json:"sessions"` // that have been, both ways
	Deaths   uint64    `json:"deaths"`   // those that ended in silence
	Last     string    `json:"last,omitempty"`
}

// Status measures all lines.
func (l *Line) Status() Status {
	l.mu.Lock()
	st := Status{Service: l.cfg.Service, Addr: l.Addr(), Refused: maps.Clone(l.refused)}
	l.mu.Unlock()
	if l.files != nil {
		st.Until = l.files.until()
	}
	for _, k := range l.links() {
		k.mu.Lock()
		p := PeerStatus{
			Region: k.peer.Region, Name: k.peer.Name, State: Down,
			Dials: k.dials, Sessions: k.sessions, Deaths: k.deaths, Last: k.last,
		}
		dialled, accepted := k.dialled, k.accepted
		k.mu.Unlock()
		if dialled != nil {
			stats := dialled.Stats()
			p.Dialled, p.State = &stats, Up
			if stats.Suspect {
				p.State = Suspect
			}
		}
		if accepted != nil {
			stats := accepted.Stats()
			p.Accepted = &stats
		}
		st.Peers = append(st.Peers, p)
	}
	return st
}
