// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
)

// pagesBelow is where a worker has its pages for its supervisor. No path that others ask the
// supervisor for leads to what is beside them: reports, and orders that nobody checks again.
const pagesBelow = "/pages"

// What a worker reports to its supervisor, beside the pages.
const (
	reportItems    = "/worker/items"    // *metrics.Snapshot
	reportGraph    = "/worker/graph"    // *callgraph.Snapshot
	reportRecords  = "/worker/records"  // ?since=: recordStream
	reportKept     = "/worker/kept"     // keeping
	reportRequests = "/worker/requests" // working
	reportPeers    = "/worker/peers"    // []peerView
	reportQoS      = "/worker/qos"      // admission.State
	reportReady    = "/worker/ready"    // nothing, or why it is not
	reportOrder    = "/worker/order"    // does a workerOrder
	reportCall     = "/worker/call"     // makes a workerTry: called
)

// keeping is what a worker keeps of its calls.
type keeping struct {
	Stats   tracing.Stats
	Methods []tracing.MethodRecords
}

// working are the requests in flight.
type working struct {
	Requests []requestView
	Unlisted int
	Waiting  int           // at the door
	Oldest   time.Duration // of these
}

// called is what came of a call that an operator tries.
type called struct {
	Tried
	Failed  bool // as the next three say
	Code    rpc.Code
	Reason  rpc.Reason
	Message string
	Refused string // why no call was made
}

// fromSupervisor is in the context of requests that the supervisor has let in.
type fromSupervisor struct{}

// Answer shows a worker to its supervisor, over their connection, until ctx ends.
func (d *Dashboard) Answer(ctx context.Context, conn net.Conn, extra map[string]http.Handler) error {
	pages, err := d.Handler(extra)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	mux := http.NewServeMux()
	mux.Handle(pagesBelow+"/", http.StripPrefix(pagesBelow, pages))
	for path, report := range d.reports() {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			answer, err := report(r)
			if err == nil && answer != nil {
				err = gob.NewEncoder(w).Encode(answer)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
	}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	// The supervisor is all that is there, and says nothing until this process is ready, which
	// may take as long as it likes: no timeout.
	srv := &http.Server{ //nolint:gosec // as above
		Handler: mux, Protocols: &p,
		BaseContext: func(net.Listener) context.Context { return context.WithValue(ctx, fromSupervisor{}, true) },
	}
	lis := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	lis.conn <- conn
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: answer the supervisor: %w", err)
	}
	return nil
}

// reports gives what a worker reports, by path.
func (d *Dashboard) reports() map[string]func(*http.Request) (any, error) {
	return map[string]func(*http.Request) (any, error){
		reportItems: func(*http.Request) (any, error) { return d.Items.Snapshot(), nil },
		reportGraph: func(r *http.Request) (any, error) { return d.snapshot(r.Context()), nil },
		reportRecords: func(r *http.Request) (any, error) {
			since, err := strconv.ParseUint(r.FormValue("since"), 10, 64)
			if err != nil {
				return nil, err
			}
			var s recordStream
			s.Records, s.Next, s.Lost = d.Tracer.Since(since, maxRecords)
			return s, nil
		},
		reportKept:     func(*http.Request) (any, error) { return keeping{d.Tracer.Stats(), d.Tracer.Methods()}, nil },
		reportRequests: func(*http.Request) (any, error) { return d.working(), nil },
		reportPeers:    func(*http.Request) (any, error) { return d.peerViews(), nil },
		reportReady:    func(r *http.Request) (any, error) { return nil, d.State.why(r.Context()) },
		reportQoS: func(*http.Request) (any, error) {
			if d.Door == nil {
				return nil, errors.New("there is no admission")
			}
			return d.Door.State(), nil
		},
		reportOrder: func(r *http.Request) (any, error) {
			var o workerOrder
			if err := gob.NewDecoder(r.Body).Decode(&o); err != nil {
				return nil, err
			}
			switch {
			case o.Override == nil:
				return nil, loglevel.Process().Set(o.Level, o.Reason, o.From, d.Log)
			case d.Door == nil:
				return nil, errors.New("there is no admission")
			}
			return nil, d.Door.Override(*o.Override, o.From, d.Log)
		},
		reportCall: func(r *http.Request) (any, error) {
			var t workerTry
			if err := gob.NewDecoder(r.Body).Decode(&t); err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(r.Context(), t.Within)
			defer cancel()
			var done called
			var err error
			if done.Tried, err = d.Call(ctx, t.Try); err != nil {
				if e := callError(err); e != nil {
					done.Failed, done.Code, done.Reason, done.Message = true, e.Code, e.Reason, e.Message
				} else {
					done.Refused = err.Error()
				}
			}
			return done, nil
		},
	}
}

// oneConn is a listener to which one comes.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "supervisor", Net: "unix"} }
