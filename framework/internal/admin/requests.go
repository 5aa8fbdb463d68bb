// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

// requestView is a request in flight as the page shows it.
type requestView struct {
	Method   string         `json:"method"` // or the route, at an entry
	Age      float64        `json:"age_seconds"`
	Left     *float64       `json:"left_seconds,omitzero"` // until its deadline; below zero it is late; nil for none
	Priority level          `json:"priority"`
	Entry    string         `json:"entry"`
	Caller   string         `json:"caller,omitzero"`
	Peer     string         `json:"peer,omitzero"`
	Trace    string         `json:"trace"`
	Span     tracing.SpanID `json:"span"` // by which its stack is asked for
}

func (d *Dashboard) requestView(c *inflight.Call, now time.Time) requestView {
	v := requestView{
		Method: c.Name(), Age: max(0, now.Sub(c.Began).Seconds()), Priority: levelOf(qos.PriorityOf(c.Class, c.UserLevel)),
		Caller: c.Caller(), Peer: c.Peer, Trace: c.Trace.String(), Span: c.Span,
	}
	if c.Entry != 0 {
		v.Entry = d.Tracer.EntryName(c.Entry)
	}
	if !c.Deadline.IsZero() {
		left := c.Deadline.Sub(now).Seconds()
		v.Left = &left
	}
	return v
}

// requests is the page of what this process is working on; with ?span= it shows where
// the goroutine of one request stands.
func (d *Dashboard) requests(r *http.Request, q *query) (*page, error) {
	if q.given.Has("span") {
		return d.stack(r, q)
	}
	all := d.workingOn(r.Context())
	listed, more, waiting, oldest := all.Requests, all.Unlisted, all.Waiting, all.Oldest
	views := []requestView{}
	for i := range listed {
		if v := &listed[i]; q.finds(v.Method, v.Entry, v.Caller, v.Peer, v.Trace) {
			views = append(views, *v)
		}
	}
	here, g := paged(r, q, views)
	p := &page{
		Title: say("Requests in flight"), Pager: g,
		Says: say("%d requests are being worked on, the oldest first.", len(listed)+more),
	}
	p.Data = struct {
		Unlisted int     `json:"unlisted"`
		Waiting  int     `json:"waiting"` // at the door
		Oldest   float64 `json:"oldest_waits_seconds"`
		list[requestView]
	}{more, waiting, oldest.Seconds(), listOf(g, here)}
	t := &table{
		Columns: []column{
			{say("method"), left},
			{Name: say("age")},
			{Name: say("time left")},
			{say("priority"), left},
			{say("entry"), left},
			{say("caller"), left},
			{say("from"), left},
			{say("trace"), left},
			{say("goroutine"), left},
		},
		Empty: say("Nothing is being worked on."),
	}
	for i := range here {
		t.Rows = append(t.Rows, here[i].row(q))
	}
	list := part{Table: t}
	if more > 0 {
		list.Note = say("%d of them found no room in the list.", more)
	}
	p.Parts = []part{list}
	if waiting > 0 {
		note := say("%d wait to be let in, the oldest for %s. A call that waits has no goroutine and is not in the list; requests at an entry are.", waiting, spell(oldest))
		p.Parts = []part{{Title: say("At the door"), Note: note, Links: []link{{Text: say("QoS"), Href: q.link("/admin/qos")}}}, list}
	}
	return p, nil
}

// workingOn gives the requests of this process, or of its workers.
func (d *Dashboard) workingOn(ctx context.Context) working {
	if d.Workers != nil {
		return d.Workers.working(ctx)
	}
	return d.working()
}

// working gives the requests of this process.
func (d *Dashboard) working() (w working) {
	now := time.Now()
	for _, c := range d.InFlight.List() {
		w.Requests = append(w.Requests, d.requestView(c, now))
	}
	w.Unlisted = d.InFlight.Unlisted()
	w.Waiting, w.Oldest = d.waiting()
	return w
}

// waiting is how many wait at the door, and how long the oldest of them has.
func (d *Dashboard) waiting() (n int, oldest time.Duration) {
	if d.Door == nil {
		return 0, 0
	}
	return d.Door.Waiting()
}

func (v *requestView) left() cell {
	switch {
	case v.Left == nil:
		return none
	case *v.Left < 0:
		return cell{Text: say("late by %s", spell(seconds(-*v.Left))), Mark: bad}
	}
	return cell{Text: spell(seconds(*v.Left))}
}

func (v *requestView) row(q *query) []cell {
	entry := none
	if v.Entry != "" {
		entry = cell{Text: v.Entry, Href: q.link("/admin/graph", "entry", v.Entry)}
	}
	return []cell{
		{Text: v.Method, Href: q.link("/admin/methods", "method", v.Method)},
		took(seconds(v.Age)), v.left(),
		{Text: v.Priority.String()},
		entry,
		{Text: v.Caller},
		{Text: v.Peer, Code: true},
		{Text: v.Trace[:8], Code: true},
		{Text: say("stack"), Href: q.link("/admin/requests", "span", v.Span.String())},
	}
}

// stack is the page of one request, with where its goroutine stands.
func (d *Dashboard) stack(r *http.Request, q *query) (*page, error) {
	var span tracing.SpanID
	if err := span.UnmarshalText([]byte(q.get("span"))); err != nil || span.IsZero() {
		return nil, fail(http.StatusBadRequest, "span: %q is none: want 16 hex digits, as the list of requests has them", cut(q.get("span")))
	}
	c := d.InFlight.Find(span)
	if c == nil {
		return nil, fail(http.StatusNotFound, "span %s: no such request is being worked on (any more)", span)
	}
	v := d.requestView(c, time.Now())
	dump, err := inflight.Stack(c)
	switch {
	case errors.Is(err, inflight.ErrTooMany):
		return nil, &failure{http.StatusServiceUnavailable, err}
	case errors.Is(err, inflight.ErrEnded):
		return nil, &failure{http.StatusNotFound, err}
	case err != nil:
		return nil, err
	}
	row := v.row(q)
	p := &page{Title: say("%s: where it stands", v.Method), Back: q.link(r.URL.Path), Data: struct {
		requestView
		Stack string `json:"stack"`
	}{v, string(dump)}}
	p.Parts = []part{
		{Facts: []fact{
			{say("age"), row[1]},
			{say("time left"), row[2]},
			{say("priority"), row[3]},
			{say("entry"), row[4]},
			{say("caller"), row[5]},
			{say("from"), row[6]},
			{say("trace"), cell{Text: v.Trace, Code: true, Href: q.link("/admin/rpcz", "trace", v.Trace)}},
		}},
		{Title: say("Goroutine"), Note: say("As it stood when the page was made."), Pre: string(dump)},
	}
	return p, nil
}
