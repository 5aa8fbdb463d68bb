// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/callgraph/draw"
)

// graph is the page of what this process has seen of the call graph since it started.
func (d *Dashboard) graph(r *http.Request, q *query) (*page, error) {
	snap := d.snapshot(r.Context())
	entry := q.get("entry")
	g, err := ownView(snap, entry)
	if err != nil {
		return nil, err
	}
	p := &page{Title: say("Call graph"), Says: say("What this process has seen since it started. The console joins the graphs of all processes.")}
	entries := part{Title: say("Entries"), Table: entryTable(snap, q)}
	view := part{Title: say("All entries"), Note: say("%d nodes, %d edges", len(g.Nodes), len(g.Edges))}
	if entry != "" {
		view.Title = say("%s", entry)
		p.Back = q.link(r.URL.Path)
	}
	for _, format := range []string{"svg", "dot", "mermaid"} {
		view.Links = append(view.Links, link{Text: strings.ToUpper(format), Href: q.link(r.URL.Path, "entry", entry, "format", format)})
	}
	if len(g.Edges) == 0 {
		view.Links, view.Note = nil, say("No call has been counted yet.")
	} else {
		view.Picture = q.link(r.URL.Path, "entry", entry, "format", "svg")
		view.Table = edgeTable(g)
	}
	p.Parts = []part{entries, view}
	if entry != "" {
		p.Parts = []part{view}
	}
	return p, nil
}

// drawn writes the formats that are not those of a page. ?format=json without an entry is
// the Snapshot of the process, from which the console draws the graph of the whole
// system.
func (d *Dashboard) drawn(w http.ResponseWriter, r *http.Request, q *query) bool {
	write := map[string]func(*callgraph.Graph) ([]byte, error){
		"json":    func(g *callgraph.Graph) ([]byte, error) { return draw.JSON(g, true) },
		"svg":     func(g *callgraph.Graph) ([]byte, error) { return draw.SVG(g, true) },
		"dot":     func(g *callgraph.Graph) ([]byte, error) { return draw.DOT(g), nil },
		"mermaid": func(g *callgraph.Graph) ([]byte, error) { return draw.Mermaid(g), nil },
		"text":    func(g *callgraph.Graph) ([]byte, error) { return draw.Text(g), nil },
	}[q.Format]
	if q.Format == "html" {
		return false
	}
	body, err := []byte(nil), fail(http.StatusBadRequest, "format %q is none: want html, json, svg, dot, mermaid or text", cut(q.Format))
	snap, entry := d.snapshot(r.Context()), q.get("entry")
	switch {
	case q.Format == "json" && entry == "":
		body, err = snap.MarshalJSON()
	case write != nil:
		var g *callgraph.Graph
		if g, err = ownView(snap, entry); err == nil {
			body, err = write(g)
		}
	}
	if errors.Is(err, draw.ErrTooLarge) {
		err = &failure{http.StatusUnprocessableEntity, err}
	}
	if err != nil {
		sendError(w, r, q.Format, statusOf(err), err)
		return true
	}
	media := "text/plain; charset=utf-8"
	switch q.Format {
	case "json":
		media = "application/json"
	case "svg":
		media = "image/svg+xml"
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	}
	send(w, r, http.StatusOK, media, body)
	return true
}

// snapshot gives the call graph of the process, with what admission does.
func (d *Dashboard) snapshot(ctx context.Context) *callgraph.Snapshot {
	s := d.Graph.Snapshot(time.Now(), d.marks()...)
	s.Process = d.process()
	if d.Workers != nil {
		return d.Workers.graphWith(ctx, s)
	}
	return s
}

// process gives what tells this process from others.
func (d *Dashboard) process() callgraph.Process {
	if d.Process == nil {
		return d.Graph.Process()
	}
	return d.Process()
}

// entryTable lists the entries that this process has worked for.
func entryTable(snap *callgraph.Snapshot, q *query) *table {
	type worked struct {
		name          string
		requests      uint64
		served, calls uint64
	}
	all := map[tracing.Entry]*worked{}
	of := func(e tracing.Entry) *worked {
		if all[e] == nil {
			all[e] = &worked{name: e.String()}
		}
		return all[e]
	}
	for _, name := range snap.Entries {
		of(name.ID).name = name.Name
	}
	for i := range snap.Rows {
		row := &snap.Rows[i]
		switch w := of(row.Entry); {
		case row.Callee == "":
			w.requests += row.Calls()
		case row.Side == callgraph.Client || row.Side == callgraph.Producer:
			w.calls += row.Calls()
		default:
			w.served += row.Calls()
		}
	}
	t := &table{
		Columns: []column{{say("entry"), left}, {Name: say("requests")}, {Name: say("calls served")}, {Name: say("calls made")}},
		Empty:   say("No entry has been seen yet."),
	}
	for e, w := range all {
		if w.requests+w.served+w.calls == 0 {
			continue
		}
		name := cell{Text: w.name, Href: q.link("/admin/graph", "entry", w.name)}
		if e == 0 {
			name = cell{Text: say("(unknown)"), Mark: soft}
		}
		t.Rows = append(t.Rows, []cell{name, count(w.requests), count(w.served), count(w.calls)})
	}
	slices.SortFunc(t.Rows, func(a, b []cell) int { return strings.Compare(english.say(a[0].Text), english.say(b[0].Text)) })
	t.Rows = t.Rows[:min(len(t.Rows), maxRows)]
	return t
}

// edgeTable says what the picture shows.
func edgeTable(g *callgraph.Graph) *table {
	t := &table{Columns: []column{
		{say("caller"), left},
		{say("callee"), left},
		{Name: say("calls")},
		{Name: say("failed")},
		{Name: say("p50")},
		{Name: say("p99")},
		{Name: say("request bytes")},
		{Name: say("response bytes")},
	}}
	for i := range g.Edges[:min(len(g.Edges), maxRows)] {
		e := &g.Edges[i]
		s := e.Seen()
		t.Rows = append(t.Rows, []cell{
			{Text: g.Nodes[e.From].Name},
			{Text: g.Nodes[e.To].Name},
			count(s.Calls()), share(s.Failed(), s.Calls()),
			took(s.Latency.Quantile(.5)), took(s.Latency.Quantile(.99)), size(s.RequestBytes), size(s.ResponseBytes),
		})
	}
	return t
}

// maxRows is how many rows a table without pages has at most.
const maxRows = 1000

// ownView gives the graph of one entry as this process has seen it, or of all.
func ownView(snap *callgraph.Snapshot, entry string) (*callgraph.Graph, error) {
	if entry == "" {
		g := callgraph.Build(snap.Period, 0)
		g.Title = "All entries, as one process has seen them"
		return g, nil
	}
	wanted := tracing.EntryOf(entry)
	if !worksFor(snap, wanted) { // the name of an entry is known where the entry is; elsewhere it is a number
		id, err := strconv.ParseUint(entry, 16, 32)
		if wanted = tracing.Entry(id); err != nil || len(entry) != 8 || !worksFor(snap, wanted) {
			return nil, fail(http.StatusNotFound, "entry %q: this process has served or made no call of it", cut(entry))
		}
	}
	g := callgraph.Build(snap.Period, 0, wanted)
	g.Title = entry + ", as one process has seen it"
	return g, nil
}

func worksFor(snap *callgraph.Snapshot, e tracing.Entry) bool {
	for i := range snap.Rows {
		if snap.Rows[i].Entry == e {
			return true
		}
	}
	for _, name := range snap.Entries {
		if name.ID == e {
			return true
		}
	}
	return false
}

// marks says of the services of this process what admission does with their calls.
func (d *Dashboard) marks() []callgraph.NodeMark {
	if d.Door == nil {
		return nil
	}
	mark := callgraph.Mark{Text: "open"}
	state := d.Door.State()
	p, pinned := d.Door.Pinned()
	switch {
	case pinned:
		mark = callgraph.Mark{Severity: 2, Text: "pinned at " + p.String()}
	case state.Level != qos.LastPriority:
		mark = callgraph.Mark{Severity: 3, Text: "overloaded: " + state.Level.String() + " and better"}
	case state.Waiting > 0:
		mark = callgraph.Mark{Severity: 1, Text: "busy"}
	}
	var marks []callgraph.NodeMark
	for _, s := range d.Door.Services() {
		seen := map[string]bool{}
		for _, method := range s.Methods {
			service, _, ok := strings.Cut(method, "/")
			if !ok || strings.Contains(service, " ") { // an HTTP route, marked under its own name
				service = method
			}
			if !seen[service] {
				seen[service] = true
				marks = append(marks, callgraph.NodeMark{Node: service, Mark: mark})
			}
		}
	}
	return marks
}
