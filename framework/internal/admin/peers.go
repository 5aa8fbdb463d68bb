// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/qos"
)

// peerView is a connection as the page shows it.
type peerView struct {
	Direction string     `json:"direction"` // in, or out
	Service   string     `json:"service"`   // that serves here, or that is called
	Peer      string     `json:"peer"`
	Local     string     `json:"local,omitzero"`
	Since     *time.Time `json:"since,omitzero"` // nil: there is no connection
	Calls     uint64     `json:"calls"`
	Received  uint64     `json:"received_bytes"`
	Sent      uint64     `json:"sent_bytes"`
	InFlight  int        `json:"in_flight"`
	Level     level      `json:"level"`            // told by the server to the client
	HTTP      bool       `json:"http,omitzero"`    // it carries requests of an entry
	Foreign   bool       `json:"foreign,omitzero"` // a client without our header
	Error     string     `json:"error,omitzero"`   // why there is no connection
	Out       peers.Out  `json:"out,omitzero"`     // why it gets no calls while there are others
}

// peerViews gives the connections of this process.
func (d *Dashboard) peerViews() []peerView {
	working := map[string]int{}
	for _, c := range d.InFlight.List() {
		working[c.Peer]++
	}
	views := []peerView{}
	for _, c := range d.Connections() {
		v := peerView{
			Direction: "out", Service: c.Service, Peer: c.Peer, Local: c.Local, Calls: c.Calls, Received: c.Received, Sent: c.Sent,
			InFlight: c.Waiting, Level: levelOf(c.Level), Foreign: c.Foreign, HTTP: c.HTTP, Out: c.Out,
		}
		if c.Accepted {
			v.Direction, v.InFlight = "in", working[c.Peer]
		}
		if !c.Since.IsZero() {
			since := c.Since.UTC()
			v.Since = &since
		}
		if c.Err != nil {
			v.Error = c.Err.Error()
		}
		views = append(views, v)
	}
	return views
}

// peers is the page of the connections over which calls come and go.
func (d *Dashboard) peers(r *http.Request, q *query) (*page, error) {
	var views []peerView
	if d.Workers != nil {
		for _, some := range gather[[]peerView](r.Context(), d.Workers, reportPeers) {
			views = append(views, some.what...)
		}
	} else {
		views = d.peerViews()
	}
	all := len(views)
	views = slices.DeleteFunc(views, func(v peerView) bool {
		return !q.finds(v.Service, v.Peer, v.Local, v.Direction, v.Error, string(v.Out))
	})
	here, g := paged(r, q, views)
	p := &page{Title: say("Connections"), Says: say("%s connections over which calls come and go.", grouped(uint64(all))), Pager: g, Data: listOf(g, here)}
	for _, side := range []struct {
		direction string
		title     phrase
		empty     phrase
	}{
		{"in", say("Accepted: calls and requests come in"), say("Nobody is connected.")},
		{"out", say("Made: calls go out"), say("This process calls no other.")},
	} {
		t := &table{Columns: []column{
			{say("service"), left},
			{say("peer"), left},
			{Name: say("age")},
			{Name: say("calls")},
			{Name: say("in flight")},
			{Name: say("received")},
			{Name: say("sent")},
			{say("level told"), left},
			{say("state"), prose},
		}, Empty: side.empty}
		for i := range here {
			if here[i].Direction == side.direction {
				t.Rows = append(t.Rows, here[i].row())
			}
		}
		p.Parts = append(p.Parts, part{Title: side.title, Table: t})
	}
	return p, nil
}

func (v *peerView) row() []cell {
	age, state := none, cell{Text: say("connected"), Mark: good}
	switch {
	case v.Since != nil:
		age = took(time.Since(*v.Since))
		switch v.Out {
		case peers.Draining:
			state = cell{Text: say("connected, and left out: it is draining"), Mark: warn}
		case peers.Silent:
			state = cell{Text: say("connected, and left out: it does not answer"), Mark: bad}
		case peers.Ejected:
			state = cell{Text: say("connected, and left out: its last calls have failed"), Mark: bad}
		}
	case v.Error != "":
		state = cell{Text: strings.TrimSpace(v.Error), Mark: bad}
	default:
		state = cell{Text: say("being made"), Mark: warn}
	}
	if v.Foreign {
		state = cell{Text: say("connected, to a client without our header"), Mark: soft}
	}
	if v.HTTP {
		return []cell{{Text: v.Service}, {Text: v.Peer, Code: true}, age, count(v.Calls), count(uint64(v.InFlight)), size(v.Received), size(v.Sent), none, {Text: "HTTP", Mark: good}}
	}
	told := cell{Text: v.Level.String()}
	if v.Level.Priority != qos.LastPriority {
		told.Mark = warn
	}
	return []cell{{Text: v.Service}, {Text: v.Peer, Code: true}, age, count(v.Calls), count(uint64(v.InFlight)), size(v.Received), size(v.Sent), told, state}
}
