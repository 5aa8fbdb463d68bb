// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/callgraph/draw"
)

// Graph is the page of what this process has seen of the call graph since it started.
type Graph struct {
	Recorder *callgraph.Recorder
	Door     *admit.Door // nil: admission is off by configuration
}

// Handler gives the page. ?format=json is the Snapshot of the process, from which the
// console draws the graph of the whole system; with ?entry=NAME, and in the formats
// svg, dot, mermaid and text, it is the process's own view, of that entry alone.
func (g *Graph) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", g.show)
	return mux
}

func (g *Graph) show(w http.ResponseWriter, r *http.Request) {
	snap := g.Recorder.Snapshot(time.Now(), g.marks()...)
	format, entry := formatOf(r), r.URL.Query().Get("entry")
	if format == "json" && entry == "" {
		body, err := snap.MarshalJSON()
		if err != nil {
			http.Error(w, "the graph cannot be written: "+err.Error(), http.StatusInternalServerError)
			return
		}
		send(w, r, http.StatusOK, "application/json", body)
		return
	}
	graph, err := ownView(snap, entry)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	var body []byte
	media := "text/plain; charset=utf-8"
	switch format {
	case "json":
		media = "application/json"
		body, err = draw.JSON(graph, true)
	case "svg":
		media = "image/svg+xml"
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
		body, err = draw.SVG(graph, true)
	case "dot":
		body = draw.DOT(graph)
	case "mermaid":
		body = draw.Mermaid(graph)
	case "text", "html":
		body = draw.Text(graph)
	default:
		http.Error(w, fmt.Sprintf("format %q is none: want json, svg, dot, mermaid or text", format), http.StatusBadRequest)
		return
	}
	switch {
	case errors.Is(err, draw.ErrTooLarge):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case err != nil:
		http.Error(w, "the graph cannot be written: "+err.Error(), http.StatusInternalServerError)
	default:
		send(w, r, http.StatusOK, media, body)
	}
}

// ownView gives the graph of one entry as this process has seen it, or of all.
func ownView(snap *callgraph.Snapshot, entry string) (*callgraph.Graph, error) {
	if entry == "" {
		g := callgraph.Build(snap.Period, 0)
		g.Title = "All entries, as one process has seen them"
		return g, nil
	}
	wanted := tracing.EntryOf(entry)
	if !counted(snap, wanted) { // the name of an entry is known where the entry is; elsewhere it is a number
		id, err := strconv.ParseUint(entry, 16, 32)
		if wanted = tracing.Entry(id); err != nil || len(entry) != 8 || !counted(snap, wanted) {
			return nil, fmt.Errorf("entry %q: this process has served or made no call of it", entry)
		}
	}
	g := callgraph.Build(snap.Period, 0, wanted)
	g.Title = entry + ", as one process has seen it"
	return g, nil
}

func counted(snap *callgraph.Snapshot, e tracing.Entry) bool {
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
func (g *Graph) marks() []callgraph.NodeMark {
	if g.Door == nil {
		return nil
	}
	mark := callgraph.Mark{Text: "open"}
	state := g.Door.State()
	p, pinned := g.Door.Pinned()
	switch {
	case pinned:
		mark = callgraph.Mark{Severity: 2, Text: "pinned at " + p.String()}
	case state.Level != qos.LastPriority:
		mark = callgraph.Mark{Severity: 3, Text: "overloaded: " + state.Level.String() + " and better"}
	case state.Waiting > 0:
		mark = callgraph.Mark{Severity: 1, Text: "busy"}
	}
	var marks []callgraph.NodeMark
	for _, s := range g.Door.Services() {
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
