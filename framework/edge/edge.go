// SPDX-License-Identifier: Apache-2.0

// Package edge is the HTTP entry of the system: it gives a request its class,
// deadline, entry name and trace, and turns errors into problem documents.
//
// A route names the RPC method it stands for; that method's contract is the
// route's class and its longest time. Nothing that comes from outside is believed
// but the ids of a W3C traceparent: priority and sampling are the entry's own, unless
// the caller is one that Config.Trusted knows. A [Transport] carries the trace on in
// requests that a handler makes itself.
//
// Requests pass the same admission as calls do, and share it with the servers of the
// process: when there is more to do than can be done, those that matter least are
// answered 503 with the problem "overload" at once, before their body is read.
package edge

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// defaultService is the name of an entry that has none.
const defaultService = "entry"

// DefaultMaxBody is the largest request body in bytes when Config says nothing.
const DefaultMaxBody = 64 << 10

// Config says what all routes of an entry have in common.
type Config struct {
	// Log receives panics and errors whose detail the client does not get. Nil
	// means slog.Default().
	Log *slog.Logger
	// MaxBody is the largest request body in bytes; zero means DefaultMaxBody.
	MaxBody int64
	// Explain may refine the problem document of an error, for example by the stable
	// type and the field that an application put into the error's details. Nil means
	// that the document follows from the error's code and reason.
	Explain func(error, *Problem)

	// Service is the name under which operators see the entry. Empty means "entry".
	Service string
	// AdmissionOff lets every request in, however much there is to do.
	AdmissionOff bool
	// User gives the id of the user that a request comes from, as far as is known for
	// sure and without a call, else "". An id that anybody could claim must not be
	// given: it decides who is served under overload. Nil means that nobody is known.
	// Requests of nobody get the level of their address, as it comes from the
	// connection: behind a proxy that is one level for all of them.
	User func(*http.Request) string
	// Trusted says of a request that it comes from one who may have it traced, by the
	// sampled flag of its traceparent. It is asked only for requests with that flag, and
	// must not block. Nil means that nobody is trusted: the entry alone decides.
	Trusted func(*http.Request) bool
	// AdminToken must come with what changes the process through ServeAdmin. Without one
	// such changes are taken from this machine alone.
	AdminToken config.Secret
	// Settings is the configuration of the program that the page /admin/config of
	// ServeAdmin shows, as config.Explain gives it.
	Settings []config.InEffect
	// Access gets a line for each request that has ended, at level Info: entry, status,
	// result, bytes, took_ms, trace and peer. It is called by the request's goroutine. Nil means
	// that none is written; counters, graph and traces do without.
	Access *slog.Logger
	// Key is the secret behind user levels; all entries of a system should share one.
	// The zero key means one that the entry makes for itself.
	Key qos.Key
}

// Entry makes the handlers of routes. It is safe for concurrent use.
type Entry struct {
	log       *slog.Logger
	maxBody   int64
	explain   func(error, *Problem)
	user      func(*http.Request) string
	trusted   func(*http.Request) bool
	key       qos.Key
	ownKey    bool
	service   *admit.Service // nil without admission
	token     config.Secret  // of the admin pages
	settings  []config.InEffect
	access    *slog.Logger  // nil for none
	lookEvery time.Duration // at the table of classes; 0 is config's default

	mu        sync.Mutex
	routes    []*route             // that stand for a method; guarded by mu
	classes   map[string]qos.Class // of the table; guarded by mu
	tableFile string               // guarded by mu
}

// New makes an entry. While it is used Run should run, else admission knows neither
// delay nor demand and lets nearly everything in.
func New(cfg Config) *Entry {
	e := &Entry{log: cfg.Log, maxBody: cfg.MaxBody, explain: cfg.Explain, user: cfg.User, trusted: cfg.Trusted, key: cfg.Key, token: cfg.AdminToken, settings: cfg.Settings, access: cfg.Access}
	if e.key == (qos.Key{}) {
		e.key, e.ownKey = newKey(), true
	}
	process.Serves(cmp.Or(cfg.Service, defaultService))
	if !cfg.AdmissionOff {
		e.service = admit.Process().NewService(cmp.Or(cfg.Service, defaultService))
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	if e.maxBody <= 0 {
		e.maxBody = DefaultMaxBody
	}
	if e.explain == nil {
		e.explain = func(error, *Problem) {}
	}
	return e
}

// HandlerFunc answers one request. An error it returns before it has written
// anything becomes a problem document; after that it is only logged.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Handle makes the handler of one route. The name is the entry's name as call
// graphs show it, for example "POST /posts". The method is the one that the route
// stands for: its class and time are the request's. It may be nil for a route that
// calls nothing, such as a page's asset; that is always let in.
func (e *Entry) Handle(name string, m *rpc.Method, next HandlerFunc) http.Handler {
	return e.HandleRoute(name, m, Rules{}, next)
}

// A Limit is for a route that a user may not use as often as he likes: an error refuses
// the request, and is the answer. User is what Config.User says of the request, empty if
// nobody is logged in. It is asked before admission, so that a request that it refuses
// costs next to nothing and takes nobody's place. It must not block, nor read the body,
// and be safe for concurrent use.
type Limit func(r *http.Request, user string) error

// Rules say what a route asks of a request before it is served. The zero Rules ask nothing.
type Rules struct {
	Limit Limit // nil for none
	// MaxBody is the largest body in bytes; zero means Config.MaxBody. Who lets much in
	// should read it at once: as long as it is not read, it is in no memory.
	MaxBody int64
	// Bulkhead is where the requests of the route wait for their turn; nil for none. Several
	// routes may share one. The wait counts into the request's time.
	Bulkhead *Bulkhead
}

// HandleRoute is Handle for a route with rules.
func (e *Entry) HandleRoute(name string, m *rpc.Method, rules Rules, next HandlerFunc) http.Handler {
	h := &handler{entry: e, route: e.newRoute(name, m), rules: rules, next: next}
	h.route.maxBody = cmp.Or(rules.MaxBody, e.maxBody)
	return h
}

// handler answers the requests of one route.
type handler struct {
	entry *Entry
	route *route
	rules Rules
	next  HandlerFunc
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := h.entry.begin(h.route, w, r)
	defer q.end(h.entry.access) //nolint:contextcheck // its context is that of r
	defer h.entry.recoverPanic(q, r)
	q.serve(h.entry, r, &h.rules, h.next) //nolint:contextcheck // q is a context, made of that of r
}

// serve works on a request. It stays on the stack, where it is looked for by the
// request's address.
//
//go:noinline
func (q *request) serve(e *Entry, r *http.Request, rules *Rules, next HandlerFunc) {
	if r.ContentLength > q.route.maxBody {
		// The body is not read, so this connection cannot carry another request.
		q.out.Header().Set("Connection", "close")
		e.fail(q, r, tooLarge(q.route.maxBody))
		return
	}
	q.user = e.rank(&q.call.Call, q.route, r)
	if rules.Limit != nil {
		if err := rules.Limit(r, q.user); err != nil {
			e.fail(q, r, err)
			return
		}
	}
	var ctx context.Context = q
	defer q.finish()
	process.InFlight().Add(&q.call)
	defer process.InFlight().Remove(&q.call)
	if rules.Bulkhead != nil {
		if err := rules.Bulkhead.enter(ctx); err != nil {
			e.fail(q, r, err)
			return
		}
		defer rules.Bulkhead.leave()
	}
	leave, err := e.enter(ctx, &q.call.Call, q.route)
	if err != nil {
		e.fail(q, r, err)
		return
	}
	defer leave()
	r = r.WithContext(ctx)
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(q.out.ResponseWriter, r.Body, q.route.maxBody)
	}
	if err := next(&q.out, r); err != nil {
		e.fail(q, r, err)
	}
}

// fail answers with the problem document of err, if nothing is written yet.
func (e *Entry) fail(q *request, r *http.Request, err error) {
	w := &q.out
	q.err = err
	p := ProblemOf(err)
	e.explain(err, p)
	p.TraceID = q.call.Trace.String()
	if p.Status >= http.StatusInternalServerError || w.wrote {
		level := slog.LevelError
		if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusGatewayTimeout || r.Context().Err() != nil {
			level = slog.LevelDebug // overload and lost patience are counted, not told one by one
		}
		if e.log.Enabled(r.Context(), level) { // what a refusal costs is taken from those who are served
			e.log.LogAttrs(r.Context(), level, "request failed",
				slog.String("entry", q.route.name), slog.String("trace", p.TraceID),
				slog.Int("status", p.Status), slog.Any("err", err))
		}
	}
	if !w.wrote {
		p.Write(w)
	}
}

func (e *Entry) recoverPanic(q *request, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares this very value, too
		panic(v)
	}
	e.log.LogAttrs(r.Context(), slog.LevelError, "handler panicked",
		slog.String("entry", q.route.name), slog.String("trace", q.call.Trace.String()),
		slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	q.err = &rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonPanic, Message: fmt.Sprintf("panic: %v", v)}
	if q.out.wrote {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	p := ProblemOf(&rpc.Error{Code: rpc.Internal, Reason: rpc.ReasonPanic})
	p.TraceID = q.call.Trace.String()
	p.Write(&q.out)
}

// answer remembers whether anything has been written, and how much.
type answer struct {
	http.ResponseWriter
	conn   *conn // nil if it cannot hold the answer back
	wrote  bool
	status int  // 0 until it is written, and for an implicit 200
	bytes  int  // of the body
	stream bool // its handler has sent a part of it at once
}

func (a *answer) WriteHeader(status int) {
	if status >= 200 && !a.wrote {
		a.wrote, a.status = true, status
		a.conn.hold()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.wrote {
		a.wrote = true
		a.conn.hold()
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += n
	return n, err
}

// FlushError sends what has been written so far.
func (a *answer) FlushError() error {
	a.stream = true
	if err := http.NewResponseController(a.ResponseWriter).Flush(); err != nil || a.conn == nil {
		return err
	}
	return a.conn.flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// NotFound makes the handler that answers what no other route of mux matches:
// 405 with Allow if another method would match, else 404. It belongs to the
// pattern "/".
func (e *Entry) NotFound(mux *http.ServeMux) http.Handler {
	return e.Handle("/", nil, func(w http.ResponseWriter, r *http.Request) error {
		var allow []string
		for _, method := range [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			if method == r.Method {
				continue
			}
			other := *r
			other.Method = method
			if _, pattern := mux.Handler(&other); pattern != "/" && pattern != "" {
				allow = append(allow, method)
			}
		}
		if len(allow) == 0 {
			return rpc.Errorf(rpc.NotFound, "there is no such address")
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return &StatusError{Status: http.StatusMethodNotAllowed, Type: "method-not-allowed", Detail: "this address does not take " + printable(r.Method)}
	})
}

// printable keeps what a client sent from making a message unreadable.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}
