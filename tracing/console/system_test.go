// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/console"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The event loops of netpoll and its pools live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
	)
}

// start is when the console of the tests begins.
var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// process stands for a process: the real recorder, items and tracer behind pages that
// look like those of the framework, with a clock of the test.
type process struct {
	t     *testing.T
	http  *httptest.Server
	items *metrics.Registry
	trace *tracing.Tracer

	mu    sync.Mutex // guards what follows
	graph *callgraph.Recorder
	now   time.Time
	marks []callgraph.NodeMark
	qos   string
	wrong http.HandlerFunc            // answers instead, if not nil
	page  map[string]http.HandlerFunc // of single pages
	lie   func(*callgraph.Snapshot)
}

func newProcess(t *testing.T, service string) *process {
	t.Helper()
	tracer, err := tracing.New(tracing.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, items: metrics.NewRegistry(metrics.Config{}), trace: tracer, now: start, qos: "open"}
	p.boot(service, start)
	p.http = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.http.Close)
	return p
}

// boot starts the process anew: its counters begin at zero.
func (p *process) boot(service string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.graph = callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Service: service, Instance: service + "-1", Epoch: uint64(at.UnixNano())}})
}

func (p *process) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *process) target(name string) console.Target {
	return console.Target{Name: name, Addr: strings.TrimPrefix(p.http.URL, "http://")}
}

func (p *process) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	wrong, graph, now, qos, lie := p.wrong, p.graph, p.now, p.qos, p.lie
	marks := append([]callgraph.NodeMark(nil), p.marks...)
	if own := p.page[r.URL.Path]; own != nil {
		wrong = own
	}
	p.mu.Unlock()
	if wrong != nil {
		wrong(w, r)
		return
	}
	switch r.URL.Path {
	case "/admin/graph":
		s := graph.Snapshot(now, marks...)
		if lie != nil {
			lie(s)
		}
		p.send(w, s)
	case "/admin/items":
		p.items.CatalogueHandler().ServeHTTP(w, r)
	case "/admin/rpcz":
		since, _ := strconv.ParseUint(r.URL.Query().Get("since"), 10, 64)
		records, next, lost := p.trace.Since(since, 1000)
		p.send(w, map[string]any{"records": records, "next": next, "lost": lost})
	case "/admin/qos":
		_, _ = io.WriteString(w, qosPage(qos))
	default:
		http.NotFound(w, r)
	}
}

// qosPage is the page of admission in one of its states.
func qosPage(state string) string {
	class := "everyone"
	if state != "open" {
		class = "browse"
	}
	return fmt.Sprintf(`{"state":%q,"says":"as the test has it","level":{"priority":0,"class":%q,"user":64},"limit":16,"running":2,"waiting":3,"delay_ms":1.5,`+
		`"classes":[{"class":"post","admitted":10,"refused":2,"late":1,"suppressed":4}],"services":[]}`, state, class)
}

func (p *process) send(w io.Writer, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil && !errors.Is(err, http.ErrAbortHandler) {
		p.t.Logf("send: %v", err)
	}
}

// serves counts calls of a method that the process has served.
func (p *process) serves(entry, caller, callee string, class callgraph.Class, n int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slot := p.graph.Edges(callgraph.Server, callee).Slot(tracing.EntryOf(entry), p.graph.Method(caller))
	for range n {
		slot.Record(class, took, 100, 200)
	}
}

// calls counts calls that the process has made.
func (p *process) calls(entry, caller, callee string, class callgraph.Class, n int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slot := p.graph.Edges(callgraph.Client, callee).Slot(tracing.EntryOf(entry), p.graph.Method(caller))
	for range n {
		slot.Attempt(class)
		slot.Record(class, took, 100, 200)
	}
}

// enters counts requests of an entry.
func (p *process) enters(entry string, class callgraph.Class, n int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slot := p.graph.Entry(entry)
	for range n {
		slot.Record(class, took, 50, 70)
	}
}

// system is a console and how to ask it.
type system struct {
	t       *testing.T
	console *console.Console
	handler http.Handler
	now     time.Time
	procs   []*process
}

func watch(t *testing.T, change func(*console.Config), targets ...console.Target) *system {
	t.Helper()
	cfg := console.Config{Targets: console.Static(targets...), PullTime: time.Minute, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	c, err := console.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &system{t: t, console: c, handler: c.Handler(), now: start}
}

// round lets ten seconds pass, for the processes, too, and pulls.
func (s *system) round() {
	s.now = s.now.Add(10 * time.Second)
	for _, p := range s.procs {
		p.set(func() { p.now = s.now })
	}
	s.console.Round(s.t.Context(), s.now)
}

func (s *system) ask(path string) (int, http.Header, string) {
	r := httptest.NewRequest("GET", "http://127.0.0.1:7900"+path, nil)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Code, w.Header(), w.Body.String()
}

// get asks and reads the answer, which must be one.
func (s *system) get(path string, into any) {
	s.t.Helper()
	code, _, body := s.ask(path)
	if code != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		s.t.Fatalf("%s: %v: %s", path, err, body)
	}
}

type entries struct {
	Period  struct{ From, To, Seconds float64 }
	Entries []struct {
		Name          string
		Named         bool
		Calls, Failed uint64
		Rate          float64
		P99           float64 `json:"p99_ms"`
		Results       map[string]uint64
		Mark          *struct {
			Severity int
			Text     string
		}
		Trend struct{ Rate []float64 }
	}
}

type status struct {
	Processes []struct {
		Name, State, Error, Note string
		SameAs                   string `json:"same_as"`
		Restarts, Lies           int
		QoS                      string
		SkewMS                   float64 `json:"skew_ms"`
		Items                    int
	}
	Rounds, Blocks int
	Trouble        string
	Memory         struct {
		Graphs int `json:"graphs_bytes"`
	}
}
