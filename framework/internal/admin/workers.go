// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos/admission"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

const (
	// pullTimeout is how long a worker may take to answer: one that hangs shows what it
	// showed last.
	pullTimeout = time.Second
	// pullEvery is how often workers are asked when nobody looks: what one has counted
	// since is lost when it is killed.
	pullEvery = 2 * time.Second
	// pageTimeout is how long a worker may take to begin a page of its own, of which a
	// profile takes longest.
	pageTimeout = maxCPUSeconds*time.Second + 10*time.Second
	// maxPulled is how much a worker may answer, in bytes.
	maxPulled = 64 << 20
)

// Workers are the processes whose pages one Dashboard shows as one: what they count adds up,
// also of those that have ended. What changes one changes all. It is safe for concurrent
// use.
type Workers struct {
	log *slog.Logger

	mu     sync.Mutex
	all    map[int]*worker        // by number; guarded by mu
	items  *metrics.Snapshot      // of those that have ended; guarded by mu
	graph  callgraph.Period       // of those that have ended; guarded by mu
	kept   []*tracing.Record      // the latest maxRecords, oldest first; guarded by mu
	seq    uint64                 // of the latest record; guarded by mu
	orders map[string]workerOrder // in force, by what they are about; guarded by mu
	next   int                    // number of the next order; guarded by mu
}

// worker is one process as its supervisor sees it.
type worker struct {
	number, pid int
	since       time.Time
	client      *http.Client

	pulling sync.Mutex // of records, one at a time

	items *metrics.Snapshot   // as last seen; guarded by Workers.mu
	graph *callgraph.Snapshot // as last seen; guarded by Workers.mu
	seen  uint64              // records; guarded by pulling
}

// workerOrder is what an operator changes in all workers.
type workerOrder struct {
	Override *admit.Override
	Level    string // of the log
	Reason   string
	From     string

	number int // in their order
}

// workerTry is a call that a worker is to make.
type workerTry struct {
	Try    Try
	Within time.Duration
}

// NewWorkers gives Workers that are none yet.
func NewWorkers(log *slog.Logger) *Workers {
	return &Workers{log: log, all: map[int]*worker{}, orders: map[string]workerOrder{}}
}

// Join shows a worker with which there is a connection, until left.
func (w *Workers) Join(number, pid int, conn net.Conn) (left func()) {
	one := &worker{number: number, pid: pid, since: time.Now(), client: clientOver(conn)}
	ctx := context.Background()             //nolint:forbidigo // a worker has joined, whoever looks; each request is bounded
	_ = one.ask(ctx, reportReady, nil, nil) // the first request makes the connection, alone
	for done := 0; ; {                      // what is in force holds for who comes later
		w.mu.Lock()
		orders := slices.DeleteFunc(slices.Collect(maps.Values(w.orders)), func(o workerOrder) bool { return o.number <= done })
		if len(orders) == 0 {
			w.all[number] = one
			w.mu.Unlock()
			break
		}
		w.mu.Unlock()
		slices.SortFunc(orders, func(a, b workerOrder) int { return cmp.Compare(a.number, b.number) })
		for _, o := range orders {
			if err := one.order(ctx, o); err != nil {
				w.log.Error("a worker does not do what operators have asked for", slog.Int("worker", number), slog.Any("err", err))
			}
			done = o.number
		}
	}
	return func() {
		one.client.CloseIdleConnections()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, number)
		if one.items != nil {
			w.items = metrics.Merge(w.items, one.items.Counted())
		}
		if one.graph != nil {
			w.graph = callgraph.Merge(w.graph, callgraph.Period{Entries: one.graph.Entries, Rows: one.graph.Rows})
		}
	}
}

// clientOver speaks HTTP/2 over one connection, the only one there will be.
func clientOver(conn net.Conn) *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	once := make(chan net.Conn, 1)
	once <- conn
	return &http.Client{Transport: &http.Transport{
		Protocols: &p, MaxConnsPerHost: 1,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the worker has ended")
			}
		},
	}}
}

// Follow asks the workers now and then what they have counted, until ctx ends.
func (w *Workers) Follow(ctx context.Context) {
	t := time.NewTicker(pullEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.pullItems(ctx)
			w.pullGraph(ctx)
			w.pullRecords(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// list gives the workers by number.
func (w *Workers) list() []*worker {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Values(w.all), func(a, b *worker) int { return cmp.Compare(a.number, b.number) })
}

// each does something with all workers at once. One that fails is left out of what is
// shown.
func (w *Workers) each(do func(one *worker) error) error {
	all := w.list()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, one := range all {
		wg.Go(func() {
			if err := do(one); err != nil {
				errs[i] = fmt.Errorf("worker %d: %w", one.number, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ask has a worker answer one of its reports.
func (one *worker) ask(ctx context.Context, path string, order, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	return one.exchange(ctx, path, order, answer)
}

func (one *worker) exchange(ctx context.Context, path string, order, answer any) error {
	var body bytes.Buffer
	if order != nil {
		if err := gob.NewEncoder(&body).Encode(order); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://worker"+path, &body)
	if err != nil {
		return err
	}
	res, err := one.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	in := io.LimitReader(res.Body, maxPulled)
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(in, 1<<10))
		return errors.New(string(bytes.TrimSpace(text)))
	}
	if answer == nil {
		return nil
	}
	return gob.NewDecoder(in).Decode(answer)
}

func (w *Workers) pullItems(ctx context.Context) {
	_ = w.each(func(one *worker) error {
		var s metrics.Snapshot
		if err := one.ask(ctx, reportItems, nil, &s); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.all[one.number] == one && (one.items == nil || s.Time.After(one.items.Time)) {
			one.items = &s
		}
		return nil
	})
}

// itemsWith gives the items of all, and own ones of the supervisor. Counters never fall.
func (w *Workers) itemsWith(ctx context.Context, own *metrics.Snapshot) *metrics.Snapshot {
	w.pullItems(ctx)
	// The supervisor lets nobody in: its limits are not to be added.
	own.Families = slices.DeleteFunc(own.Families, func(f metrics.Family) bool { return f.Group() == "sluice.admission" })
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []*metrics.Snapshot{own, w.items}
	for _, one := range w.all {
		all = append(all, one.items)
	}
	return metrics.Merge(all...)
}

func (w *Workers) pullGraph(ctx context.Context) {
	_ = w.each(func(one *worker) error {
		var s callgraph.Snapshot
		if err := one.ask(ctx, reportGraph, nil, &s); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.all[one.number] == one && (one.graph == nil || !s.Time.Before(one.graph.Time)) {
			one.graph = &s
		}
		return nil
	})
}

// graphWith gives the call graph of all, and what the supervisor has seen itself.
func (w *Workers) graphWith(ctx context.Context, own *callgraph.Snapshot) *callgraph.Snapshot {
	w.pullGraph(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []callgraph.Period{{Entries: own.Entries, Rows: own.Rows}, w.graph}
	for _, one := range w.all {
		if one.graph != nil {
			all = append(all, one.graph.Period)
		}
	}
	return &callgraph.Snapshot{Process: own.Process, Time: own.Time, Period: callgraph.Merge(all...)}
}

func (w *Workers) pullRecords(ctx context.Context) {
	_ = w.each(func(one *worker) error {
		one.pulling.Lock()
		defer one.pulling.Unlock()
		var s recordStream
		if err := one.ask(ctx, reportRecords+"?since="+strconv.FormatUint(one.seen, 10), nil, &s); err != nil {
			return err
		}
		one.seen = s.Next
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, r := range s.Records {
			w.seq++
			r.Seq = w.seq
			w.kept = append(w.kept, r)
		}
		w.kept = slices.Clone(w.kept[max(0, len(w.kept)-maxRecords):])
		return nil
	})
}

// since gives the records of all workers as Tracer.Since does those of one process.
func (w *Workers) since(ctx context.Context, seq uint64, limit int) (records []*tracing.Record, next, lost uint64) {
	w.pullRecords(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if seq > w.seq {
		seq = 0
	}
	if oldest := w.seq - uint64(len(w.kept)); seq < oldest {
		seq, lost = oldest, oldest-seq
	}
	from := len(w.kept) - int(w.seq-seq)
	records = slices.Clone(w.kept[from:min(len(w.kept), from+limit)])
	return records, seq + uint64(len(records)), lost
}

// keeps gives what all workers keep of calls: sums, and the records of each method.
func (w *Workers) keeps(ctx context.Context) (s tracing.Stats, methods []tracing.MethodRecords) {
	for _, got := range gather[keeping](ctx, w, reportKept) {
		k := got.what
		s.Sampled += k.Stats.Sampled
		s.Forced += k.Stats.Forced
		s.Kept += k.Stats.Kept
		s.Limited += k.Stats.Limited
		s.Dropped += k.Stats.Dropped
		for _, m := range k.Methods {
			i := slices.IndexFunc(methods, func(o tracing.MethodRecords) bool { return o.Kind == m.Kind && o.Method == m.Method })
			if i < 0 {
				methods = append(methods, m)
				continue
			}
			o := &methods[i]
			o.Slow, o.Limited = max(o.Slow, m.Slow), o.Limited+m.Limited
			o.Errors, o.Slowest = append(o.Errors, m.Errors...), append(o.Slowest, m.Slowest...)
			slices.SortStableFunc(o.Errors, func(a, b *tracing.Record) int { return cmp.Compare(b.Start, a.Start) })
			slices.SortStableFunc(o.Slowest, func(a, b *tracing.Record) int { return cmp.Compare(b.Duration, a.Duration) })
		}
	}
	slices.SortFunc(methods, func(a, b tracing.MethodRecords) int {
		return cmp.Or(cmp.Compare(a.Method, b.Method), cmp.Compare(a.Kind, b.Kind))
	})
	return s, methods
}

// answered is what a worker has answered.
type answered[T any] struct {
	from *worker
	what T
}

// gather gives what the workers answer, by their numbers.
func gather[T any](ctx context.Context, w *Workers, path string) []answered[T] {
	var mu sync.Mutex
	var all []answered[T]
	_ = w.each(func(one *worker) error {
		var v T
		if err := one.ask(ctx, path, nil, &v); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, answered[T]{one, v})
		return nil
	})
	slices.SortFunc(all, func(a, b answered[T]) int { return cmp.Compare(a.from.number, b.from.number) })
	return all
}

// working gives the requests in flight of all workers.
func (w *Workers) working(ctx context.Context) (all working) {
	for _, got := range gather[working](ctx, w, reportRequests) {
		one := got.what
		all.Requests = append(all.Requests, one.Requests...)
		all.Unlisted += one.Unlisted
		all.Waiting += one.Waiting
		all.Oldest = max(all.Oldest, one.Oldest)
	}
	slices.SortStableFunc(all.Requests, func(a, b requestView) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

// admission gives the state of admission in all workers: what is counted adds up, of what
// they tell callers it is the worst.
func (w *Workers) admission(ctx context.Context) (sum admission.State) {
	for i, got := range gather[admission.State](ctx, w, reportQoS) {
		s := got.what
		if i == 0 {
			sum = s
			continue
		}
		sum.Running += s.Running
		sum.Asleep += s.Asleep
		sum.Limit += s.Limit
		sum.Window += s.Window
		sum.Waiting += s.Waiting
		sum.Level = min(sum.Level, s.Level)
		sum.Capacity += s.Capacity
		sum.Demand += s.Demand
		sum.Delay = max(sum.Delay, s.Delay)
		sum.Backlog = max(sum.Backlog, s.Backlog)
		sum.Withdrew += s.Withdrew
		sum.Suppressed += s.Suppressed
		for v := range s.Counts {
			for c := range s.Counts[v] {
				sum.Counts[v][c] += s.Counts[v][c]
			}
		}
	}
	return sum
}

// order has all workers, and those that come later, do what an operator asks for, which is
// known to be right.
func (w *Workers) order(ctx context.Context, o workerOrder) error {
	about := "log"
	if by := o.Override; by != nil {
		about = "pin"
		switch by.Action {
		case admit.Pin, admit.Unpin:
		case admit.Off, admit.On:
			about = "service " + by.Service
		case admit.Exempt, admit.EndExempt:
			about = "method " + by.Service + " " + by.Method
		}
	}
	w.mu.Lock()
	w.next++
	o.number = w.next
	w.orders[about] = o
	w.mu.Unlock()
	return w.each(func(one *worker) error { return one.order(ctx, o) })
}

func (one *worker) order(ctx context.Context, o workerOrder) error {
	return one.ask(context.WithoutCancel(ctx), reportOrder, o, nil) // once asked for it is to be done in all
}

// Call has a worker make a call, as Dashboard.Call.
func (w *Workers) Call(ctx context.Context, t Try) (Tried, error) {
	all := w.list()
	if len(all) == 0 {
		return Tried{}, errNoWorker
	}
	// The worker keeps to the deadline, and tells what has come of the call by then.
	within := longestTry
	if at, ok := ctx.Deadline(); ok {
		within = time.Until(at)
	}
	longer, cancel := context.WithTimeout(context.WithoutCancel(ctx), within+pullTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()
	var done called
	if err := all[0].exchange(longer, reportCall, workerTry{t, within}, &done); err != nil {
		return Tried{}, &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonNetwork, Message: fmt.Sprintf("worker %d: %v", all[0].number, err)} // it may have run
	}
	switch {
	case done.Failed:
		return done.Tried, &rpc.Error{Code: done.Code, Reason: done.Reason, Message: done.Message}
	case done.Refused != "":
		return Tried{}, errors.New(done.Refused)
	}
	return done.Tried, nil
}

var errNoWorker = fail(http.StatusServiceUnavailable, "no worker serves now: they are being started again, see the log")

// Ready says why no worker can serve, nil if one can.
func (w *Workers) Ready(ctx context.Context) error {
	all := w.list()
	if len(all) == 0 {
		return errNoWorker
	}
	err := w.each(func(one *worker) error { return one.ask(ctx, reportReady, nil, nil) })
	if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) == len(all) {
		return err
	}
	return nil
}

// stack has the worker show where a request stands that works on it. The last one, which
// does not, says so of those that have ended.
func (w *Workers) stack(rw http.ResponseWriter, r *http.Request, span string) {
	for _, got := range gather[working](r.Context(), w, reportRequests) {
		if slices.ContainsFunc(got.what.Requests, func(v requestView) bool { return v.Span.String() == span }) {
			got.from.page(rw, r)
			return
		}
	}
	w.page(rw, r)
}

// page has a worker show a page of its own: the one that the request names, or the first.
func (w *Workers) page(rw http.ResponseWriter, r *http.Request) {
	all := w.list()
	if text := r.URL.Query().Get(workerParam); text != "" {
		all = slices.DeleteFunc(all, func(one *worker) bool { return strconv.Itoa(one.number) != text })
		if len(all) == 0 {
			sendError(rw, r, formatOf(r, nil), http.StatusNotFound, fmt.Errorf("worker: %q is none that serves now", cut(text)))
			return
		}
	}
	if len(all) == 0 {
		sendError(rw, r, formatOf(r, nil), http.StatusServiceUnavailable, errNoWorker)
		return
	}
	all[0].page(rw, r)
}

// workerParam of a page's address asks for that of one worker.
const workerParam = "worker"

func (one *worker) page(rw http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	late := time.AfterFunc(pageTimeout, func() { cancel(errSilent) })
	defer late.Stop()
	proxy := httputil.ReverseProxy{
		Transport:      one.client.Transport,
		ModifyResponse: func(*http.Response) error { late.Stop(); return nil },
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "worker", Path: pagesBelow})
			p.Out.Host = p.In.Host // in addresses that pages show, and what an Origin is held to
		},
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) {
			sendError(rw, r, formatOf(r, nil), http.StatusBadGateway, fmt.Errorf("worker %d: %w", one.number, err))
		},
	}
	proxy.ServeHTTP(rw, r.WithContext(ctx))
}

var errSilent = errors.New("it does not answer")

// workerView is a worker as the overview shows it.
type workerView struct {
	Worker int       `json:"worker"`
	PID    int       `json:"pid"`
	Since  time.Time `json:"since"`
}

func (w *Workers) views() []workerView {
	all := []workerView{}
	for _, one := range w.list() {
		all = append(all, workerView{one.number, one.pid, one.since.UTC().Truncate(time.Second)})
	}
	return all
}

// part lists the workers, with their own pages.
func (w *Workers) part(q *query, all []workerView) part {
	t := &table{Columns: []column{{say("worker"), left}, {Name: say("process")}, {say("since"), left}}, Empty: say("No worker serves now.")}
	for _, v := range all {
		number := strconv.Itoa(v.Worker)
		t.Rows = append(t.Rows, []cell{
			{Text: number, Href: q.link("/admin/", workerParam, number)}, {Text: strconv.Itoa(v.PID)}, {Text: v.Since.Format(time.DateTime) + "Z"},
		})
	}
	return part{Title: say("Workers"), Note: say("The pages show them together; ?worker= on any of them shows one."), Table: t}
}
