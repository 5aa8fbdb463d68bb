// SPDX-License-Identifier: Apache-2.0

// Package admin serves the pages on a server's own port by which operators and
// orchestrators look into its process: what it serves, whom it talks to, what it is
// doing now, what went wrong, and how it is built and configured.
//
// All pages are of one kind: a page is built as a value, and written as HTML for
// browsers, as text for terminals or as JSON for programs, all of the same. There is no
// script in them. They show themselves to this machine, and from elsewhere to whoever
// brings the token.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// State is what the health pages tell.
type State struct {
	draining atomic.Bool
	check    func(context.Context) error
}

// NewState gives the state of a server that serves. check may be nil.
func NewState(check func(context.Context) error) *State { return &State{check: check} }

// Drain makes /readyz say that no more calls should be sent here.
func (s *State) Drain() { s.draining.Store(true) }

// A Dashboard is all the pages of one admin port. They show the whole process, whatever else
// runs in it. Its fields are set before it is used.
type Dashboard struct {
	Service string // whose port it is
	Process func() callgraph.Process
	State   *State // nil: it has none
	// Config gives the configuration in effect, and how it has changed since the start; nil:
	// it is not known.
	Config func() ([]Setting, []Reload)
	Door   *admit.Door // nil: admission is off by configuration

	Items       *metrics.Registry
	Graph       *callgraph.Recorder
	Tracer      *tracing.Tracer
	InFlight    *inflight.Table
	Connections func() []peers.Connection
	Contracts   func() map[string]*rpc.Method // of methods served and called, by full name
	// Callable lists the methods that Call can call, with requests and responses in JSON. An
	// error that is no *rpc.Error means that no call was made. Nil: there are none.
	Callable func() []Callable
	Call     func(context.Context, Try) (Tried, error)
	// Token, if there is one, must come with every change, wherever it comes from, and
	// with every look from elsewhere. Without one, or without the function, both are for
	// this machine alone.
	Token func() string
	Log   *slog.Logger
	// Workers, if there are any, do the work, and this process only watches over them: the
	// pages show what they do.
	Workers *Workers

	rates rates
}

// ForProcess gives a Dashboard that shows this process.
func ForProcess() *Dashboard {
	return &Dashboard{
		Process: process.Identity, Items: process.Items(), Graph: process.Graph(), Tracer: process.Tracer(), InFlight: process.InFlight(),
		Connections: peers.List, Contracts: interceptor.ProcessObserver().Contracts,
	}
}

// A Reload is another configuration that a server was given while it ran.
type Reload struct {
	Time    time.Time `json:"time"`
	Changes []string  `json:"changes,omitempty"`
	Refused string    `json:"refused,omitempty"` // why nothing of it counts
}

// A Setting is one value of the configuration in effect.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"` // secrets are masked
	Source string `json:"source"`
	Unit   string `json:"unit,omitzero"`
	Doc    string `json:"doc"`
}

// SettingOf gives a setting of a program as pages show it.
func SettingOf(s config.InEffect) Setting {
	return Setting{Name: s.Name, Value: s.Value, Source: s.Where, Unit: s.Unit, Doc: s.Doc}
}

// A sheet is what a page is made by when somebody asks for it.
type sheet struct {
	path         string
	title, about phrase
	show         func(*http.Request, *query) (*page, error)
	raw          func(http.ResponseWriter, *http.Request, *query) bool // writes formats of its own
	change       func(http.ResponseWriter, *http.Request)
}

// sheets gives all pages, in the order in which they are shown.
func (d *Dashboard) sheets() []sheet {
	return []sheet{
		{path: "/admin/", title: say("Overview"), about: say("what this process is, and how it does"), show: d.index},
		{path: "/admin/methods", title: say("Methods"), about: say("what is served and called: rates, failures, latencies, contracts"), show: d.methods},
		{path: "/admin/qos", title: say("QoS"), about: say("whom an overloaded process lets in, and what operators do about it"), show: d.qos, change: d.override},
		{path: "/admin/graph", title: say("Call graph"), about: say("who calls whom for which entry, as this process sees it"), show: d.graph, raw: d.drawn},
		{path: "/admin/peers", title: say("Connections"), about: say("who is connected, for how long, and what went over it"), show: d.peers},
		{path: "/admin/requests", title: say("Requests"), about: say("what is being worked on now, and where its goroutine stands"), show: d.requests},
		{path: "/admin/rpcz", title: say("Kept calls"), about: say("errors, slow calls and traced ones, newest first"), show: d.rpcz},
		{path: "/admin/items", title: say("Items"), about: say("everything that is measured, with its value"), show: d.items, raw: d.catalogued},
		{path: "/admin/call", title: say("Try a call"), about: say("call a method of this server, JSON in and JSON out"), show: d.calls, change: d.call},
		{path: "/admin/config", title: say("Configuration"), about: say("what this server works with, and where that comes from"), show: d.config},
		{path: "/admin/log", title: say("Log level"), about: say("see and set what is logged"), show: d.log, change: d.setLog},
		{path: "/admin/pprof/", title: say("Profiles"), about: say("processor time, memory, goroutines, locks"), show: d.profiles},
		{path: "/admin/build", title: say("Build"), about: say("what the program is made of, and the processors that it uses"), show: d.build},
		{path: "/admin/health", title: say("Health"), about: say("what orchestrators are told"), show: d.health},
	}
}

// Handler gives all pages, with what extra adds, or puts in their place, under patterns
// of http.ServeMux. An error names a pattern that is none.
func (d *Dashboard) Handler(extra map[string]http.Handler) (http.Handler, error) {
	pages := map[string]http.Handler{
		"GET /livez":          http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { sayHealth(w, http.StatusOK, "ok") }),
		"GET /readyz":         http.HandlerFunc(d.State.ready),
		"/metrics":            metrics.Handler(d.read),
		"/admin/pprof/{name}": d.guard(d.ofWorker(http.HandlerFunc(d.profile))),
		"GET /favicon.ico":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), // browsers ask
		"GET /{$}":            http.RedirectHandler("/admin/", http.StatusSeeOther),
	}
	for _, s := range d.sheets() {
		pattern := s.path
		if strings.HasSuffix(pattern, "/") {
			pattern += "{$}"
		}
		pages[pattern] = d.guard(d.handler(s))
	}
	for pattern, h := range extra {
		h = d.ofWorker(h)
		if _, path, ok := strings.Cut(pattern, "/"); ok && strings.HasPrefix(path, "admin/") {
			h = d.guard(d.changes(h))
		}
		pages[pattern] = h
	}
	mux := http.NewServeMux()
	for pattern, h := range pages {
		if err := register(mux, pattern, h); err != nil {
			return nil, err
		}
	}
	return measured(d.Items, mux), nil
}

func register(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("admin: page %q: %v", pattern, r)
		}
	}()
	mux.Handle(pattern, h)
	return nil
}

// ofWorker leaves a page to a worker, if there are any.
func (d *Dashboard) ofWorker(h http.Handler) http.Handler {
	if d.Workers == nil {
		return h
	}
	return http.HandlerFunc(d.Workers.page)
}

// read gives all items.
func (d *Dashboard) read(ctx context.Context) *metrics.Snapshot {
	if d.Workers == nil {
		return d.Items.Snapshot()
	}
	return d.Workers.itemsWith(ctx, d.Items.Snapshot())
}

func (d *Dashboard) handler(s sheet) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			q, err := parseQuery(r)
			if err != nil {
				sendError(w, r, formatOf(r, nil), statusOf(err), err)
				return
			}
			if d.Workers != nil && (q.given.Has(workerParam) || s.path == "/admin/pprof/") {
				d.Workers.page(w, r)
				return
			}
			if d.Workers != nil && s.path == "/admin/requests" && q.given.Has("span") {
				d.Workers.stack(w, r, q.get("span"))
				return
			}
			if s.raw != nil && s.raw(w, r, q) {
				return
			}
			p, err := s.show(r, q)
			if err != nil {
				sendError(w, r, q.Format, statusOf(err), err)
				return
			}
			d.write(w, r, q, p)
		case r.Method == http.MethodPost && s.change != nil:
			s.change(w, r)
		default:
			allow := "GET, HEAD"
			if s.change != nil {
				allow += ", POST"
			}
			w.Header().Set("Allow", allow)
			sendError(w, r, "text", http.StatusMethodNotAllowed, fmt.Errorf("%s takes %s", s.path, allow))
		}
	})
}

const (
	checkTimeout  = time.Second
	headerTimeout = 5 * time.Second
)

// Serve serves the pages until ctx ends.
func (d *Dashboard) Serve(ctx context.Context, lis net.Listener, extra map[string]http.Handler) error {
	h, err := d.Handler(extra)
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	// Requests end with ctx: a profile that is being taken holds no stop up.
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: 2 * headerTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), headerTimeout)
		defer cancel()
		stopped <- srv.Shutdown(end)
	})
	err = srv.Serve(lis)
	if stop() { // serving failed by itself
		return fmt.Errorf("admin: %w", err)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("admin: %w", err), <-stopped)
	}
	return <-stopped
}

// why gives what is wrong with the server, nil if it can serve.
func (s *State) why(ctx context.Context) error {
	if s == nil {
		return nil
	}
	if s.draining.Load() {
		return errDraining
	}
	if s.check == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := s.check(ctx); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	return nil
}

var errDraining = errors.New("draining")

func (s *State) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.why(r.Context()); err != nil {
		sayHealth(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	sayHealth(w, http.StatusOK, "ok")
}

func sayHealth(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may be gone
}
