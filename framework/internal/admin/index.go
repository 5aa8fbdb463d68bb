// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"os"
	"runtime"
	"time"
)

// started is when this process has come up, as near as this package knows.
var started = time.Now()

// indexView is the overview as JSON shows it.
type indexView struct {
	Service    string       `json:"service"`
	PID        int          `json:"pid"`
	Host       string       `json:"host"`
	Started    time.Time    `json:"started"`
	Uptime     float64      `json:"uptime_seconds"`
	State      phrase       `json:"state"` // serving, draining or not ready
	Says       string       `json:"says,omitzero"`
	Admission  phrase       `json:"admission"`
	Go         string       `json:"go"`
	Processors int          `json:"gomaxprocs"`
	Goroutines int          `json:"goroutines"`
	Items      int          `json:"items"`
	Workers    []workerView `json:"workers,omitempty"` // that this process watches over
	Pages      []indexPage  `json:"pages"`
}

type indexPage struct {
	Path  string `json:"path"`
	Title phrase `json:"title"`
	About phrase `json:"about"`
}

// index is the page of the process: what it is, how it does, and where to look further.
func (d *Dashboard) index(r *http.Request, q *query) (*page, error) {
	up := time.Since(started)
	host, _ := os.Hostname() // an empty one is shown as such
	admission := d.looked(r.Context())
	v := indexView{
		Service: d.Service, PID: os.Getpid(), Host: host, Started: started.UTC().Truncate(time.Second), Uptime: up.Seconds(),
		Admission: admission.State, Go: runtime.Version(), Processors: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine(), Items: d.read(r.Context()).Items(),
	}
	p := &page{Title: say("Overview")}
	health, m := d.healthy(r)
	v.State, v.Says, p.State, p.Mark = health.State, health.Why, health.State, m
	if v.Says != "" {
		p.Says = say("%s", v.Says)
	}
	qos := cell{Text: say("%v: %v", admission.State, admission.Says), Href: q.link("/admin/qos")}
	facts := part{Facts: []fact{
		{say("service"), cell{Text: d.Service}},
		{say("process"), cell{Text: say("%d on %s", v.PID, v.Host)}},
		{say("since"), cell{Text: say("%s, for %s", v.Started.Format(time.DateTime)+"Z", spell(up))}},
		{say("admission"), qos},
		{say("built with"), cell{Text: v.Go}},
		{say("processors"), cell{Text: grouped(uint64(v.Processors))}},
		{say("goroutines"), cell{Text: grouped(uint64(v.Goroutines))}},
		{say("items measured"), cell{Text: grouped(uint64(v.Items)), Href: q.link("/admin/items")}},
	}}
	pages := part{Title: say("Pages"), Table: &table{Columns: []column{{say("page"), left}, {say("address"), left}, {say("what it shows"), prose}}}}
	for _, s := range d.sheets() {
		v.Pages = append(v.Pages, indexPage{s.path, s.title, s.about})
		if s.path != r.URL.Path {
			pages.Table.Rows = append(pages.Table.Rows, []cell{{Text: s.title, Href: q.link(s.path)}, {Text: s.path, Code: true}, {Text: s.about}})
		}
	}
	for _, s := range []indexPage{
		{"/metrics", say("Metrics"), say("all items, as Prometheus reads them")},
		{"/livez", say("Alive"), say("ok as long as the process answers")},
		{"/readyz", say("Ready"), say("ok as long as calls should be sent here")},
	} {
		v.Pages = append(v.Pages, s)
		pages.Table.Rows = append(pages.Table.Rows, []cell{{Text: s.Title, Href: s.Path}, {Text: s.Path, Code: true}, {Text: s.About}})
	}
	p.Parts = []part{facts, pages}
	if d.Workers != nil {
		v.Workers = d.Workers.views()
		p.Parts = []part{facts, d.Workers.part(q, v.Workers), pages}
	}
	p.Data = v
	return p, nil
}

// processLine says at the foot of each page what process it is of.
func (d *Dashboard) processLine() phrase {
	return say("process %d, up %s", os.Getpid(), spell(time.Since(started)))
}
