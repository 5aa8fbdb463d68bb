// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"time"
)

// healthView is the health of the server as the page shows it.
type healthView struct {
	State     phrase  `json:"state"` // serving, draining or not ready
	Alive     bool    `json:"alive"`
	Ready     bool    `json:"ready"`
	Why       string  `json:"why,omitzero"` // it is not ready
	Took      float64 `json:"check_seconds"`
	Admission phrase  `json:"admission"`
}

// healthy asks the server whether calls should be sent to it.
func (d *Dashboard) healthy(r *http.Request) (healthView, mark) {
	began := time.Now()
	err := d.State.why(r.Context())
	v := healthView{State: say("serving"), Alive: true, Ready: err == nil, Took: time.Since(began).Seconds(), Admission: d.looked(r.Context()).State}
	switch {
	case err == errDraining: //nolint:errorlint // it is given as it is
		v.State, v.Why = say("draining"), err.Error()
		return v, warn
	case err != nil:
		v.State, v.Why = say("not ready"), err.Error()
		return v, bad
	}
	return v, good
}

// health is the page of what orchestrators are told.
func (d *Dashboard) health(r *http.Request, q *query) (*page, error) {
	v, m := d.healthy(r)
	p := &page{Title: say("Health"), State: v.State, Mark: m, Data: v}
	if v.Why != "" {
		p.Says = say("%s", v.Why)
	}
	yes, ready := cell{Text: say("ok"), Href: "/livez", Mark: good}, cell{Text: say("ok"), Href: "/readyz", Mark: good}
	if !v.Ready {
		ready = cell{Text: v.Why, Href: "/readyz", Mark: m}
	}
	p.Parts = []part{{Facts: []fact{
		{say("alive (/livez)"), yes},
		{say("ready (/readyz)"), ready},
		{say("the check took"), took(seconds(v.Took))},
		{say("admission"), cell{Text: v.Admission, Href: q.link("/admin/qos")}},
	}}}
	return p, nil
}
