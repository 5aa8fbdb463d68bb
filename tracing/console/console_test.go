// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/console"
)

var update = flag.Bool("update", false, "write testdata anew")

const (
	publish = "moments.v1.PostService/Publish"
	friends = "moments.v1.AccountService/ListFriends"
)

// shop is a gateway that calls a post service, which calls an account service.
func shop(t *testing.T) (s *system, gateway, post, account *process) {
	t.Helper()
	gateway, post, account = newProcess(t, "gateway"), newProcess(t, "post"), newProcess(t, "account")
	s = watch(t, nil, gateway.target("gateway"), post.target("post"), account.target("account"))
	s.procs = []*process{gateway, post, account}
	return s, gateway, post, account
}

// traffic is what one round brings.
func traffic(gateway, post, account *process, n int) {
	gateway.enters("POST /posts", callgraph.OK, n, 9*time.Millisecond)
	gateway.calls("POST /posts", "", publish, callgraph.OK, n, 7*time.Millisecond)
	post.serves("POST /posts", "", publish, callgraph.OK, n, 6*time.Millisecond)
	post.calls("POST /posts", publish, friends, callgraph.OK, n-1, 2*time.Millisecond)
	post.calls("POST /posts", publish, friends, callgraph.Timeout, 1, 300*time.Millisecond)
	account.serves("POST /posts", publish, friends, callgraph.OK, n, time.Millisecond)
}

// TestGolden: the answers of the API for a small system, whole.
func TestGolden(t *testing.T) {
	s, gateway, post, account := shop(t)
	post.set(func() {
		post.qos = "overloaded"
		post.marks = []callgraph.NodeMark{{Node: "moments.v1.PostService", Mark: callgraph.Mark{Severity: 3, Text: "overloaded: browse/64 and better"}}}
	})
	counter := post.items.Counter(metrics.Desc{Name: "test.posts", Help: "Posts made.", Unit: "{post}"})
	gauge := post.items.Gauge(metrics.Desc{Name: "test.depth", Help: "How deep the queue is.", Unit: "{post}"})
	took := post.items.Histogram(metrics.Desc{Name: "test.took", Help: "Time to make a post.", Unit: metrics.Seconds}, []float64{.001, .01, .1})
	keepTrace(gateway, post)
	s.round()
	for i := range 4 {
		traffic(gateway, post, account, 10+i)
		counter.Add(uint64(10 + i))
		gauge.Set(float64(i))
		took.RecordTime(5 * time.Millisecond)
		s.round()
	}
	const q = "?last=1m"
	for name, path := range map[string]string{
		"entries":  "/api/entries" + q,
		"graph":    "/api/graph" + q + "&entry=POST+/posts",
		"compare":  "/api/graph?last=20s&base_ago=20s&entry=POST+/posts",
		"services": "/api/services" + q,
		"service":  "/api/service" + q + "&name=moments.v1.PostService",
		"traces":   "/api/traces",
		"trace":    "/api/trace?id=0102030405060708090a0b0c0d0e0f10",
		"items":    "/api/items?process=post&group=test",
		"series":   "/api/series?process=post&name=test_took_seconds" + "&last=1m",
		"qos":      "/api/qos" + q,
	} {
		t.Run(name, func(t *testing.T) {
			code, h, body := s.ask(path)
			if code != 200 || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v %s", code, h, body)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, []byte(body), "", "  "); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", pretty.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(want, got) {
		t.Errorf("%s: %v: not as written; look at the difference after: go test -run %s -update\n%s", file, err, t.Name(), got)
	}
}

// keepTrace leaves the records of one sampled request in two processes.
func keepTrace(gateway, post *process) { keepTraceFor(tracing.KeepSampled, gateway, post) }

func keepTraceFor(why tracing.Keep, gateway, post *process) {
	trace := tracing.TraceID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	span := func(n byte) tracing.SpanID { return tracing.SpanID{n} }
	begin := start.UnixNano()
	add := func(p *process, kind tracing.Kind, method string, r tracing.Record) {
		r.Trace, r.Entry = trace, tracing.EntryOf("POST /posts")
		r.Start += begin
		p.trace.Method(kind, method).Add(why, r)
	}
	ms := time.Millisecond
	add(gateway, tracing.Server, "POST /posts", tracing.Record{Span: span(1), Duration: 20 * ms, Class: "ok", Status: 201, Path: "/posts"})
	add(gateway, tracing.Client, publish, tracing.Record{Span: span(2), Parent: span(1), Start: int64(2 * ms), Duration: 16 * ms, Class: "ok", Attempt: 1})
	add(post, tracing.Server, publish, tracing.Record{Span: span(3), Parent: span(2), Start: int64(3 * ms), Duration: 14 * ms, Class: "ok", Notes: []tracing.Note{{Key: "post.id", Value: "<b>42</b>"}}})
	add(post, tracing.Client, friends, tracing.Record{Span: span(4), Parent: span(3), Start: int64(4 * ms), Duration: 9 * ms, Class: "timeout", Code: "deadline_exceeded", Message: "no answer in 9 ms"})
}

// TestExact: whatever is pulled when, sums are what was counted.
func TestExact(t *testing.T) {
	s, gateway, post, account := shop(t)
	s.round()
	total := 0
	for i := range 12 {
		traffic(gateway, post, account, 5+i)
		total += 5 + i
		s.round()
	}
	var e entries
	s.get("/api/entries?last=10m", &e)
	if len(e.Entries) != 1 || e.Entries[0].Name != "POST /posts" || e.Entries[0].Calls != uint64(total) || e.Period.Seconds != 130 {
		t.Errorf("%+v, want %d calls in 130 s", e, total)
	}
	var g struct {
		Graph struct {
			Nodes []struct {
				Name  string
				Stats struct{ Calls uint64 }
			}
			Edges []struct {
				Stats struct{ Calls, Failed, Attempts uint64 }
				Check struct {
					OK     bool
					Served uint64
				}
			}
		}
	}
	s.get("/api/graph?last=10m&entry=POST+/posts", &g)
	if len(g.Graph.Nodes) != 3 || len(g.Graph.Edges) != 2 {
		t.Fatalf("%+v", g)
	}
	for _, edge := range g.Graph.Edges {
		if edge.Stats.Calls != uint64(total) || edge.Stats.Attempts != uint64(total) || edge.Check.Served != uint64(total) || !edge.Check.OK {
			t.Errorf("%+v, want %d calls", edge, total)
		}
	}
}

// TestHostile: one process does its worst, and harms nobody else.
func TestHostile(t *testing.T) {
	huge := func(page string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != page {
				http.NotFound(w, r)
				return
			}
			_, _ = io.WriteString(w, `{"version":1,"families":[{"name":"`)
			chunk := bytes.Repeat([]byte("x"), 1<<20)
			for range 100 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}
	says := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	for _, c := range []struct {
		name  string
		wrong http.HandlerFunc
		lie   func(*callgraph.Snapshot)
		prep  func(*process)
		state string
		says  string
		lies  int
	}{
		{name: "100 MB of a graph", wrong: huge("/admin/graph"), state: "failing", says: "too long"},
		{name: "never answers", wrong: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, state: "failing", says: "deadline"},
		{name: "answers by drops", wrong: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		}, state: "failing", says: "deadline"},
		{name: "no JSON", wrong: says("<html>"), state: "failing", says: "/admin/graph"},
		{name: "no graph", wrong: says(`{"hello":1}`), state: "failing", says: "not a snapshot"},
		{name: "forbids it", wrong: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, state: "failing", says: "admin token"},
		{name: "another program", wrong: http.NotFound, state: "failing", says: "is this an admin port"},
		{name: "sends us elsewhere", wrong: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, state: "failing", says: "status 302"},
		{name: "panics", wrong: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, state: "failing"},
		{name: "too many rows", prep: func(p *process) {
			p.graph = callgraph.NewRecorder(callgraph.Config{MaxSlots: 20_000, MaxMethods: 20_000, Process: callgraph.Process{Service: "big", Epoch: uint64(start.UnixNano())}})
			for i := range 9_000 {
				p.graph.Edges(callgraph.Server, fmt.Sprintf("a.B/M%d", i)).Slot(1, callgraph.AtEntry).Record(callgraph.OK, 1, 1, 1)
			}
		}, state: "failing", says: "rows, at most"},
		{name: "counters go down", lie: func() func(*callgraph.Snapshot) {
			n := uint64(1000)
			return func(s *callgraph.Snapshot) {
				n -= 100
				s.Rows = append(s.Rows, callgraph.Row{Key: callgraph.Key{Side: callgraph.Server, Entry: 9, Callee: "evil.Service/Do"}, Stats: callgraph.Stats{Results: [16]uint64{n}}})
			}
		}(), state: "ok", says: "went down", lies: 3},
		{name: "absurd counts", lie: func() func(*callgraph.Snapshot) {
			n := uint64(0)
			return func(s *callgraph.Snapshot) {
				n += 1 << 60
				s.Rows = append(s.Rows, callgraph.Row{Key: callgraph.Key{Side: callgraph.Server, Entry: 9, Callee: "evil.Service/Do"}, Stats: callgraph.Stats{Results: [16]uint64{n}}})
			}
		}(), state: "ok", says: "left out", lies: 4},
		{name: "speaks of others", lie: func(s *callgraph.Snapshot) {
			s.Marks = append(s.Marks, callgraph.NodeMark{Node: "moments.v1.PostService", Mark: callgraph.Mark{Severity: 3, Text: "overloaded"}})
			s.Entries = append(s.Entries, callgraph.EntryName{ID: tracing.EntryOf("POST /posts"), Name: "GET /hijacked"})
		}, state: "ok"},
		{name: "hostile names", lie: func(s *callgraph.Snapshot) {
			name := `<script>alert("x")</script>` + "\x1b[31m\u202e" + strings.Repeat("y", 1000)
			s.Entries = append(s.Entries, callgraph.EntryName{ID: tracing.EntryOf(name), Name: name})
			s.Marks = append(s.Marks, callgraph.NodeMark{Node: name, Mark: callgraph.Mark{Severity: 200, Text: name}})
			s.Rows = append(s.Rows, callgraph.Row{Key: callgraph.Key{Side: callgraph.Server, Entry: tracing.EntryOf(name), Callee: name}, Stats: callgraph.Stats{Results: [16]uint64{1}}})
		}, state: "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			gateway, post, account, evil := newProcess(t, "gateway"), newProcess(t, "post"), newProcess(t, "account"), newProcess(t, "evil")
			s := watch(t, func(cfg *console.Config) {
				cfg.PullTime = time.Minute
				if c.says == "deadline" {
					cfg.PullTime = 400 * time.Millisecond
				}
			},
				evil.target("evil"), gateway.target("gateway"), post.target("post"), account.target("account"))
			s.procs = []*process{gateway, post, account, evil}
			evil.set(func() {
				evil.wrong, evil.lie = c.wrong, c.lie
				if c.prep != nil {
					c.prep(evil)
				}
			})
			s.round()
			for range 3 {
				traffic(gateway, post, account, 10)
				s.round()
			}
			var st status
			s.get("/api/status", &st)
			p := st.Processes[0]
			if p.State != c.state || !strings.Contains(p.Error+p.Note, c.says) || p.Lies != c.lies {
				t.Errorf("%+v, want %s, %q, %d lies", p, c.state, c.says, c.lies)
			}
			var e entries
			s.get("/api/entries?last=10m", &e)
			found := false
			for _, one := range e.Entries {
				if one.Name == "POST /posts" {
					found = true
					if one.Calls != 30 || one.Failed != 0 {
						t.Errorf("%+v, want 30 calls", one)
					}
				}
			}
			if !found {
				t.Errorf("no POST /posts in %+v", e)
			}
			for _, format := range []string{"svg", "dot", "mermaid", "text", "json"} {
				code, _, body := s.ask("/api/graph?last=10m&format=" + format)
				if code != 200 || strings.Contains(body, "\x1b") || strings.Contains(body, "\u202e") || format == "svg" && strings.Contains(body, "<script") {
					t.Errorf("%s: %d %s", format, code, body)
				}
				if strings.Contains(body, "overloaded: ") || strings.Contains(body, "hijacked") {
					t.Errorf("%s: a lie is shown: %s", format, body)
				}
			}
		})
	}
}

// TestHugeOtherPages: whatever page is without end, the graph still counts.
func TestHugeOtherPages(t *testing.T) {
	for _, page := range []string{"/admin/items", "/admin/rpcz", "/admin/qos"} {
		t.Run(page, func(t *testing.T) {
			p := newProcess(t, "post")
			s := watch(t, nil, p.target("post"))
			s.procs = []*process{p}
			p.set(func() {
				p.page = map[string]http.HandlerFunc{page: func(w http.ResponseWriter, _ *http.Request) {
					_, _ = io.WriteString(w, `{"families":[],"records":[],"says":"`)
					for chunk := bytes.Repeat([]byte("x"), 1<<20); ; {
						if _, err := w.Write(chunk); err != nil {
							return
						}
					}
				}}
			})
			for range 2 {
				p.serves("GET /x", "", publish, callgraph.OK, 5, time.Millisecond)
				s.round()
			}
			var st status
			s.get("/api/status", &st)
			if got := st.Processes[0]; got.State != "failing" || !strings.Contains(got.Error, page) || !strings.Contains(got.Error, "too long") {
				t.Errorf("%+v", got)
			}
			var e entries
			s.get("/api/entries?last=10m", &e)
			if len(e.Entries) != 1 || e.Entries[0].Calls != 10 {
				t.Errorf("%+v, want 10 calls", e)
			}
		})
	}
}

// TestRestart: a counter never goes down, and nothing is counted twice.
func TestRestart(t *testing.T) {
	p := newProcess(t, "post")
	s := watch(t, nil, p.target("post"))
	s.procs = []*process{p}
	s.round()
	p.serves("GET /x", "", publish, callgraph.OK, 7, time.Millisecond)
	s.round()
	p.boot("post", s.now.Add(2*time.Second))
	p.serves("GET /x", "", publish, callgraph.OK, 3, time.Millisecond)
	s.round()
	p.set(func() { p.wrong = http.NotFound }) // gone for a round
	s.round()
	p.set(func() { p.wrong = nil })
	p.serves("GET /x", "", publish, callgraph.OK, 4, time.Millisecond)
	s.round()
	var e entries
	s.get("/api/entries?last=10m", &e)
	if len(e.Entries) != 1 || e.Entries[0].Calls != 14 {
		t.Errorf("%+v, want 14 calls", e)
	}
	var st status
	s.get("/api/status", &st)
	if got := st.Processes[0]; got.Restarts != 1 || got.State != "ok" {
		t.Errorf("%+v", got)
	}
}

// TestVanish: what a process that is gone has counted stays, it is shown as failing, and
// others go on.
func TestVanish(t *testing.T) {
	gone, here := newProcess(t, "gone"), newProcess(t, "here")
	s := watch(t, nil, gone.target("gone"), here.target("here"))
	s.procs = []*process{gone, here}
	s.round()
	gone.serves("GET /x", "", publish, callgraph.OK, 5, time.Millisecond)
	here.serves("GET /x", "", publish, callgraph.OK, 1, time.Millisecond)
	s.round()
	gone.http.Close()
	here.serves("GET /x", "", publish, callgraph.OK, 2, time.Millisecond)
	s.round()
	var e entries
	s.get("/api/entries?last=10m", &e)
	if len(e.Entries) != 1 || e.Entries[0].Calls != 8 {
		t.Errorf("%+v, want 8 calls", e)
	}
	var st status
	s.get("/api/status", &st)
	if a, b := st.Processes[0], st.Processes[1]; a.State != "failing" || !strings.Contains(a.Error, "refused") || b.State != "ok" {
		t.Errorf("%+v", st.Processes)
	}
}

// TestFirstSight: what was counted long before belongs to no round.
func TestFirstSight(t *testing.T) {
	old, young := newProcess(t, "old"), newProcess(t, "young")
	old.boot("old", start.Add(-time.Hour))
	old.serves("GET /x", "", publish, callgraph.OK, 1000, time.Millisecond)
	young.boot("young", start.Add(4*time.Second))
	young.serves("GET /x", "", publish, callgraph.OK, 5, time.Millisecond)
	s := watch(t, nil, old.target("old"), young.target("young"))
	s.procs = []*process{old, young}
	s.round()
	old.serves("GET /x", "", publish, callgraph.OK, 2, time.Millisecond)
	s.round()
	var e entries
	s.get("/api/entries?last=10m", &e)
	if len(e.Entries) != 1 || e.Entries[0].Calls != 7 {
		t.Errorf("%+v, want 7 calls", e)
	}
}

// TestClocksApart: an hour of difference changes no count.
func TestClocksApart(t *testing.T) {
	p := newProcess(t, "post")
	s := watch(t, nil, p.target("post"))
	p.boot("post", start.Add(time.Hour+time.Second))
	for range 3 {
		p.serves("GET /x", "", publish, callgraph.OK, 5, time.Millisecond)
		s.now = s.now.Add(10 * time.Second)
		p.set(func() { p.now = s.now.Add(time.Hour) })
		s.console.Round(t.Context(), s.now)
	}
	var e entries
	s.get("/api/entries?last=10m", &e)
	var st status
	s.get("/api/status", &st)
	if len(e.Entries) != 1 || e.Entries[0].Calls != 15 || st.Processes[0].SkewMS < 3_599_000 {
		t.Errorf("%+v %+v", e, st)
	}
}

// TestTwoPorts: a process that is reached by two ports counts once.
func TestTwoPorts(t *testing.T) {
	p := newProcess(t, "post")
	second := httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(second.Close)
	s := watch(t, nil, p.target("one"), console.Target{Name: "two", Addr: strings.TrimPrefix(second.URL, "http://")})
	s.procs = []*process{p}
	s.round()
	for range 5 {
		p.serves("GET /x", "", publish, callgraph.OK, 5, time.Millisecond)
		s.round()
	}
	var e entries
	s.get("/api/entries?last=10m", &e)
	var st status
	s.get("/api/status", &st)
	same := 0
	for _, p := range st.Processes {
		if p.State == "same" {
			same++
		}
	}
	if len(e.Entries) != 1 || e.Entries[0].Calls != 25 || same != 1 {
		t.Errorf("%+v %+v", e, st.Processes)
	}
}

// TestTargetsChange: who comes is pulled, who goes is forgotten; a file that cannot be
// read changes nothing.
func TestTargetsChange(t *testing.T) {
	a, b := newProcess(t, "a"), newProcess(t, "b")
	file := filepath.Join(t.TempDir(), "targets")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# all of them\n\na=" + a.target("").Addr + "\n")
	s := watch(t, func(c *console.Config) { c.Targets = console.File(file) })
	names := func() string {
		s.round()
		var st status
		s.get("/api/status", &st)
		var out []string
		for _, p := range st.Processes {
			out = append(out, p.Name)
		}
		return strings.Join(out, " ") + " " + st.Trouble
	}
	if got := names(); got != "a " {
		t.Errorf("%q", got)
	}
	write("a=" + a.target("").Addr + "\nb=http://" + b.target("").Addr + "/\nb=" + b.target("").Addr)
	if got := names(); got != "a b " {
		t.Errorf("%q", got)
	}
	write("what is this")
	if got := names(); !strings.HasPrefix(got, "a b ") || !strings.Contains(got, "line 1") {
		t.Errorf("%q", got)
	}
	write("b=" + b.target("").Addr)
	if got := names(); got != "b " {
		t.Errorf("%q", got)
	}
}

// source tells of instances when the test says so.
type source struct {
	changes map[string]chan []discovery.Instance
}

func (s source) Watch(ctx context.Context, service string, changed func([]discovery.Instance)) error {
	changes := s.changes[service]
	if changes == nil {
		return errors.New("nobody knows it")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case all := <-changes:
			changed(all)
			select { // taken: the test may look
			case changes <- nil:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// TestDiscovery: processes come and go as a source tells; what it cannot tell is shown,
// and takes nobody else away.
func TestDiscovery(t *testing.T) {
	one, two := newProcess(t, "one"), newProcess(t, "two")
	src := source{changes: map[string]chan []discovery.Instance{"post": make(chan []discovery.Instance)}}
	tell := func(all ...discovery.Instance) {
		src.changes["post"] <- all
		<-src.changes["post"]
	}
	d, err := console.Discover(src, "post", "lost", "post")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { d.Run(ctx); return nil })
	first := discovery.Instance{Addr: "10.0.0.1:7000", Admin: one.target("").Addr}
	second := discovery.Instance{Addr: "10.0.0.2:7000", Admin: two.target("").Addr, Draining: true}
	tell(first)
	for err := error(nil); err == nil || !strings.Contains(err.Error(), "nobody knows it"); { // it waits for what nobody has told yet
		if _, err = d.Targets(t.Context()); t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	s := watch(t, func(c *console.Config) { c.Targets, c.Discovery = nil, d })
	names := func() string {
		s.round()
		var st status
		s.get("/api/status", &st)
		var out []string
		for _, p := range st.Processes {
			out = append(out, p.Name+" "+p.State)
		}
		if !strings.Contains(st.Trouble, "service lost: nobody knows it") {
			t.Errorf("the trouble is %q", st.Trouble)
		}
		return strings.Join(out, ", ")
	}
	for _, step := range []struct {
		name string
		tell []discovery.Instance
		want string
	}{
		{"the first", []discovery.Instance{first}, "post 10.0.0.1:7000 ok"},
		{"a second one comes", []discovery.Instance{first, second}, "post 10.0.0.1:7000 ok, post 10.0.0.2:7000 ok"},
		{"the first goes", []discovery.Instance{second}, "post 10.0.0.2:7000 ok"},
		{"one without an admin port", []discovery.Instance{second, {Addr: "10.0.0.3:7000"}}, "post 10.0.0.2:7000 ok"},
	} {
		tell(step.tell...)
		if got := names(); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	var st status
	if s.get("/api/status", &st); !strings.Contains(st.Trouble, "1 of 2 instances do not say") {
		t.Errorf("the trouble is %q", st.Trouble)
	}
}

func TestDiscoverRefuses(t *testing.T) {
	for name, services := range map[string][]string{"none": nil, "no name": {"post", ""}, "too many": {"x"}} {
		if name == "too many" {
			for i := range console.MaxTargets {
				services = append(services, fmt.Sprint(i))
			}
		}
		if _, err := console.Discover(discovery.Static{}, services...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRefusals(t *testing.T) {
	s, gateway, post, account := shop(t)
	s.round()
	traffic(gateway, post, account, 5)
	s.round()
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"/api/nothing", 404, "no part of the API"},
		{"/api/entries?last=soon", 400, "want a time such as 5m"},
		{"/api/entries?last=-5m", 400, "want a time"},
		{"/api/entries?last=48h", 400, "at most 24h"},
		{"/api/entries?from=9&to=5", 400, "want a time before"},
		{"/api/entries?from=x", 400, "want a number"},
		{"/api/graph?entry=GET+/nowhere", 400, "no process has told of it"},
		{"/api/graph?hops=-1", 400, "want a number from 0"},
		{"/api/graph?hops=1e9", 400, "want a number from 0"},
		{"/api/graph?min_share=NaN", 400, "want a number"},
		{"/api/graph?format=gif", 400, "want json, svg"},
		{"/api/graph?labels=maybe", 400, "want 1 or 0"},
		{"/api/graph?base_ago=never", 400, "base_ago"},
		{"/api/graph?last=1s&base_ago=1h&format=svg", 404, "nothing is kept"},
		{"/api/traces?edge=nonsense", 400, `want CALLER-\u003eCALLEE`},
		{"/api/traces?limit=0", 400, "want a number from 1"},
		{"/api/traces?min_ms=-1", 400, "want a number"},
		{"/api/traces?failed=perhaps", 400, "want 1 or 0"},
		{"/api/trace?id=xyz", 400, "32 hexadecimal digits"},
		{"/api/trace?id=ffffffffffffffffffffffffffffffff", 404, "not kept"},
		{"/api/service", 400, "say which"},
		{"/api/service?name=nobody.Service", 404, "nobody.Service"},
		{"/api/items?process=nobody", 404, "nobody"},
		{"/api/series?process=post&name=nothing", 404, "nothing"},
		{"/api/entries?x=" + strings.Repeat("y", 5000), 414, "longer than"},
		{"/api/entries?last=%zz", 400, "cannot be read"},
		{"/secret", 404, "no such page"},
	} {
		if code, h, body := s.ask(c.path); code != c.status || !strings.Contains(body, c.says) || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %s, want %d, %q", c.path, code, body, c.status, c.says)
		}
	}
	t.Run("only reads", func(t *testing.T) {
		r := httptest.NewRequest("POST", "http://127.0.0.1/api/entries", nil)
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", w.Code)
		}
	})
	t.Run("under a foreign name", func(t *testing.T) {
		for host, want := range map[string]int{
			"evil.example": 403, "evil.example:7900": 403, "localhost": 200, "localhost:7900": 200, "127.0.0.1:7900": 200, "[::1]:7900": 200, "10.1.2.3": 200,
		} {
			r := httptest.NewRequest("GET", "http://x/api/status", nil)
			r.Host = host
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s: %d, want %d: %s", host, w.Code, want, w.Body)
			}
		}
	})
}

func TestBeforeTheFirstRound(t *testing.T) {
	p := newProcess(t, "post")
	s := watch(t, nil, p.target("post"))
	for _, path := range []string{"/api/status", "/api/entries", "/api/graph", "/api/services", "/api/qos", "/api/traces"} {
		if code, _, body := s.ask(path); code != 200 || strings.Contains(body, "null,") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestFindTraces(t *testing.T) {
	s, gateway, post, account := shop(t)
	keepTrace(gateway, post)
	s.round()
	traffic(gateway, post, account, 20)
	s.round()
	for query, want := range map[string]int{
		"":                                  1,
		"entry=POST+/posts":                 1,
		"entry=GET+/timeline":               0,
		"service=moments.v1.PostService":    1,
		"service=moments.v1.CommentService": 0,
		"edge=->" + publish:                 1,
		"edge=POST+/posts->" + publish:      1,
		"edge=" + publish + "->" + publish:  0,
		"code=timeout":                      1,
		"code=DEADLINE_EXCEEDED":            1,
		"code=panic":                        0,
		"failed=1":                          1,
		"min_ms=19":                         1,
		"min_ms=21":                         0,
		"max_ms=19":                         0,
		"edge=->" + publish + "&max_ms=15":  1, // of the span, not of the whole
		"attr=post.id":                      1,
		"attr=post.id=42":                   1,
		"attr=post.id=43":                   0,
		"attr=status=201":                   1,
		"attr=process=gateway":              1,
		"text=no+answer":                    1,
		"text=0102030405060708":             1,
		"text=nothing+like+it":              0,
		"last=1m":                           1,
		"from=1":                            1,
		"from=1&to=2":                       0,
		"service=moments.v1.PostService&code=timeout": 0, // not of the same span
	} {
		var v struct{ All, Kept int }
		s.get("/api/traces?"+query, &v)
		if v.All != want || v.Kept != 1 {
			t.Errorf("%s: %+v, want %d", query, v, want)
		}
	}
}

// TestCriticalPathOfWhatIsKept: where nothing is sampled the critical path is that of
// requests which failed or were slow, and says so; of half a request it is nobody's.
func TestCriticalPathOfWhatIsKept(t *testing.T) {
	type graph struct {
		Graph struct {
			Traces  int
			Unfair  bool
			Summary string
			Edges   []struct{ Critical float64 }
		}
	}
	for _, c := range []struct {
		name   string
		keep   func(gateway, post *process)
		traces int
		unfair bool
	}{
		{"sampled", keepTrace, 1, false},
		{"slow", func(gateway, post *process) { keepTraceFor(tracing.KeepSlow, gateway, post) }, 1, true},
		{"without its beginning", func(_, post *process) { keepTraceFor(tracing.KeepSlow, newProcess(t, "gone"), post) }, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, gateway, post, account := shop(t)
			s.round()
			traffic(gateway, post, account, 20)
			c.keep(gateway, post)
			s.round()
			var g graph
			s.get("/api/graph?entry=POST+/posts", &g)
			if g.Graph.Traces != c.traces || g.Graph.Unfair != c.unfair || strings.Contains(g.Graph.Summary, "failed and slow") != c.unfair {
				t.Errorf("%+v, want %d traces, unfair %v", g.Graph, c.traces, c.unfair)
			}
			if on := g.Graph.Edges[0].Critical > 0; on != (c.traces > 0) {
				t.Errorf("%+v", g.Graph.Edges)
			}
		})
	}
}

func TestPage(t *testing.T) {
	s := watch(t, nil)
	for path, media := range map[string]string{"/": "text/html; charset=utf-8", "/app.js": "text/javascript; charset=utf-8", "/app.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml", "/licenses.txt": "text/plain; charset=utf-8"} {
		code, h, body := s.ask(path)
		policy := h.Get("Content-Security-Policy")
		if code != 200 || h.Get("Content-Type") != media || len(body) == 0 || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %d %v", path, code, h)
		}
		r := httptest.NewRequest("GET", "http://localhost"+path, nil)
		r.Header.Set("If-None-Match", h.Get("ETag"))
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s again: %d", path, w.Code)
		}
	}
	_, _, page := s.ask("/")
	for _, bad := range []string{"<style", "style=", "onclick", "http:", "https:", "<script>"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q in the page", bad)
		}
	}
}

// TestDistIsFresh: web/dist was built from the sources that are there. It needs no Node.
func TestDistIsFresh(t *testing.T) {
	sources, err := filepath.Glob("web/src/*")
	if err != nil || len(sources) < 10 {
		t.Fatal(err, sources)
	}
	sum := sha256.New()
	for _, name := range append(sources, "web/package-lock.json", "web/build.sh") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = sum.Write(b)
	}
	want, err := os.ReadFile("web/dist/sources.sha256")
	if err != nil || strings.TrimSpace(string(want)) != hex.EncodeToString(sum.Sum(nil)) {
		t.Errorf("web/dist was built from other sources: run web/build.sh (%v)", err)
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]console.Target{
		"127.0.0.1:7001":             {Addr: "127.0.0.1:7001"},
		" post = 127.0.0.1:7001 ":    {Name: "post", Addr: "127.0.0.1:7001"},
		"post=http://10.0.0.1:7001/": {Name: "post", Addr: "10.0.0.1:7001"},
		"https://post.example:7001":  {Addr: "https://post.example:7001"},
		"[::1]:7001":                 {Addr: "[::1]:7001"},
		":7001":                      {Addr: "127.0.0.1:7001"},
		"x=:7001":                    {Name: "x", Addr: "127.0.0.1:7001"},
	} {
		if got, err := console.ParseTarget(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "post", "post=", "127.0.0.1", "127.0.0.1:", "http://127.0.0.1:7001/admin", "http://a:b@127.0.0.1:1", "file:///etc/passwd", "a b:1", strings.Repeat("x", 300) + "=127.0.0.1:1"} {
		if got, err := console.ParseTarget(in); err == nil {
			t.Errorf("%q: %+v, want an error", in, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ok := console.Static()
	for says, cfg := range map[string]console.Config{
		"no targets": {}, "want 1s": {Targets: ok, Every: time.Millisecond}, "1 MiB": {Targets: ok, GraphBytes: 5}, "more than none": {Targets: ok, PullTime: -1},
	} {
		if _, err := console.New(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", cfg, err, says)
		}
	}
}

// TestGraphForTheTerminal: without a console that runs.
func TestGraphForTheTerminal(t *testing.T) {
	gateway, post, account := newProcess(t, "gateway"), newProcess(t, "post"), newProcess(t, "account")
	traffic(gateway, post, account, 10)
	cfg := console.Config{Targets: console.Static(gateway.target("gateway"), post.target("post"), account.target("account"), gateway.target("twice"))}
	for format, want := range map[string]string{"text": "moments.v1.AccountService/ListFriends", "dot": "digraph", "mermaid": "flowchart", "svg": "<svg", "json": `"nodes"`} {
		out, err := console.Graph(t.Context(), cfg, 0, console.GraphQuery{Entry: "POST /posts", Format: format})
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", format, err, out)
		}
		if format == "text" && !strings.Contains(string(out), "1 timeout") {
			t.Errorf("%s", out)
		}
	}
	if _, err := console.Graph(t.Context(), cfg, 0, console.GraphQuery{Entry: "GET /nothing", Format: "dot"}); err == nil || !strings.Contains(err.Error(), "POST /posts") {
		t.Errorf("%v, want those that there are", err)
	}
	if _, err := console.Graph(t.Context(), cfg, 0, console.GraphQuery{Format: "gif"}); err == nil {
		t.Error("a format that is none")
	}
	account.set(func() { account.wrong = http.NotFound })
	out, err := console.Graph(t.Context(), cfg, time.Millisecond, console.GraphQuery{Format: "text"})
	if err == nil || !strings.Contains(err.Error(), "account: ") || !strings.Contains(string(out), "0 nodes") {
		t.Errorf("%v %s", err, out)
	}
}

// TestFirstLook: what ran for long before the console has no rate yet, not one of zero.
func TestFirstLook(t *testing.T) {
	p := newProcess(t, "old")
	p.boot("old", start.Add(-time.Hour))
	p.serves("GET /x", "", publish, callgraph.OK, 1000, time.Millisecond)
	s := watch(t, nil, p.target("old"))
	s.procs = []*process{p}
	s.round()
	var e entries
	s.get("/api/entries?last=1m", &e)
	if e.Period.Seconds != 0 || len(e.Entries) != 0 {
		t.Errorf("%+v after the first look", e)
	}
	p.serves("GET /x", "", publish, callgraph.OK, 20, time.Millisecond)
	s.round()
	s.get("/api/entries?last=1m", &e)
	if len(e.Entries) != 1 || e.Entries[0].Rate != 2 || e.Period.Seconds != 10 {
		t.Errorf("%+v, want 2 calls a second", e)
	}
}
