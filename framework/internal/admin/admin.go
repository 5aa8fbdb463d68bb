// SPDX-License-Identifier: Apache-2.0

// Package admin serves the pages on a server's own port by which operators and
// orchestrators look into it.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

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

// Pages gives the pages about the process that every admin port has.
func Pages(q *QoS, graph *callgraph.Recorder) map[string]http.Handler {
	return map[string]http.Handler{
		"/metrics":     q.Items.Handler(),
		"/admin/items": q.Items.CatalogueHandler(),
		"/admin/qos":   q.Handler(),
		"/admin/graph": (&Graph{Recorder: graph, Door: q.Door}).Handler(),
	}
}

const (
	checkTimeout  = time.Second
	headerTimeout = 5 * time.Second
)

// Serve serves the admin pages until ctx ends.
func Serve(ctx context.Context, lis net.Listener, state *State, extra map[string]http.Handler) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", state.ready)
	for pattern, h := range extra {
		mux.Handle(pattern, h)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), headerTimeout)
		defer cancel()
		stopped <- srv.Shutdown(end)
	})
	err := srv.Serve(lis)
	if stop() { // serving failed by itself
		return fmt.Errorf("admin: %w", err)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("admin: %w", err), <-stopped)
	}
	return <-stopped
}

func (s *State) ready(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		say(w, http.StatusServiceUnavailable, "draining")
		return
	}
	if s.check != nil {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		if err := s.check(ctx); err != nil {
			say(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
	}
	say(w, http.StatusOK, "ok")
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may be gone
}
