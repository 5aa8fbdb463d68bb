// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

var browse = &rpc.Method{Service: "test.v1.Posts", Name: "Get", Class: qos.Browse, Timeout: 200 * time.Millisecond}

// pin lets nobody worse than p into this process until the test has ended.
func pin(t *testing.T, p qos.Priority) {
	t.Helper()
	admit.Process().Pin(p)
	t.Cleanup(admit.Process().Unpin)
}

// run runs an entry until the test has ended.
func run(t *testing.T, e *edge.Entry) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// until waits for something that happens in the background.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !happened(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s has not come in 20 s", what)
		}
	}
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestOverloadIsAnsweredAtOnce(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet()})
	run(t, e)
	ran := 0
	count := func(http.ResponseWriter, *http.Request) error { ran++; return nil }
	post, read := e.Handle("POST /posts", publish, count), e.Handle("GET /posts", browse, count)
	page := e.Handle("GET /page", nil, count)
	pin(t, qos.PriorityOf(qos.Browse, qos.UserLevels-1))

	r := httptest.NewRequest("POST", "/posts", unread{t})
	r.ContentLength = 10
	res := do(t, post, r)
	p := problem(t, res)
	if p.Status != 503 || p.Type != "overload" || p.RetryAfterMS != 1000 || res.Header.Get("Retry-After") != "1" || p.TraceID == "" || ran != 0 {
		t.Errorf("problem = %+v, Retry-After = %q, ran %d times", p, res.Header.Get("Retry-After"), ran)
	}
	if strings.Contains(p.Detail, "level") {
		t.Errorf("the client was told of the inside: %q", p.Detail)
	}
	if res := do(t, read, httptest.NewRequest("GET", "/posts", nil)); res.StatusCode != 200 || ran != 1 {
		t.Errorf("who reads got %d", res.StatusCode)
	}
	if res := do(t, page, httptest.NewRequest("GET", "/page", nil)); res.StatusCode != 200 || ran != 2 {
		t.Errorf("a route that calls nothing got %d", res.StatusCode)
	}
	off := edge.New(edge.Config{Log: quiet(), AdmissionOff: true})
	if res := do(t, off.Handle("POST /posts", publish, count), httptest.NewRequest("POST", "/posts", nil)); res.StatusCode != 200 || ran != 3 {
		t.Errorf("without admission a post got %d", res.StatusCode)
	}
}

// TestSlotIsGivenBack has the handler inside while it runs, whichever way it ends.
func TestSlotIsGivenBack(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet()})
	door := admit.Process()
	for name, end := range map[string]func() error{
		"answer": func() error { return nil },
		"error":  func() error { return rpc.Errorf(rpc.NotFound, "none") },
		"panic":  func() error { panic("oops") },
	} {
		t.Run(name, func(t *testing.T) {
			h := e.Handle("GET /x", browse, func(_ http.ResponseWriter, r *http.Request) error {
				if n := door.State().Running; n != 1 {
					t.Errorf("%d are inside, want this one", n)
				}
				if !rpc.CallFrom(r.Context()).Progress().Admitted() {
					t.Error("calls within the process would queue again")
				}
				return end()
			})
			do(t, h, httptest.NewRequest("GET", "/x", nil))
			if n := door.State().Running; n != 0 {
				t.Errorf("%d are inside after it", n)
			}
		})
	}
}

// TestNothingFromOutsideRanks sends all that might raise a request's priority.
func TestNothingFromOutsideRanks(t *testing.T) {
	key := qos.Key{1}
	e := edge.New(edge.Config{Log: quiet(), Key: key, User: func(r *http.Request) string { return r.Header.Get("Test-User") }})
	var got *rpc.Call
	var user string
	h := e.Handle("GET /x", browse, func(_ http.ResponseWriter, r *http.Request) error {
		got, user = rpc.CallFrom(r.Context()), edge.User(r.Context())
		return nil
	})
	ask := func(change func(*http.Request)) *rpc.Call {
		r := httptest.NewRequest("GET", "/x?class=critical&priority=0", nil)
		r.RemoteAddr = "192.0.2.7:1234"
		change(r)
		do(t, h, r)
		return got
	}
	plain := ask(func(*http.Request) {})
	if want := key.UserLevel("at 192.0.2.7", time.Now()); plain.UserLevel != want || user != "" {
		t.Errorf("nobody's level is %d, want %d, that of the address", plain.UserLevel, want)
	}
	forged := ask(func(r *http.Request) {
		for _, name := range []string{
			"Priority", "X-Priority", "X-Qos-Class", "X-Sluice-Class", "Sluice", "Sluice-Level", "X-Ticket", "Tracestate",
			"X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-User", "X-User-Id", "Grpc-Timeout", "Rpc-Transit-Sluice", "X-Level",
		} {
			r.Header.Set(name, "1")
		}
		var best rpc.Header
		best.Class, best.Ticket = qos.Critical, 9
		var raw [rpc.HeaderLen]byte
		best.Put(raw[:])
		r.Header.Set("Sluice-Bin", string(raw[:]))
		r.RemoteAddr = "192.0.2.7:9"
	})
	if forged.Class != qos.Browse || forged.UserLevel != plain.UserLevel || forged.Ticket != 0 || forged.Budget != 200*time.Millisecond {
		t.Errorf("believed what came from outside: %+v", forged.Header)
	}
	mary := ask(func(r *http.Request) { r.Header.Set("Test-User", "mary") })
	if want := key.UserLevel("mary", time.Now()); mary.UserLevel != want || user != "mary" {
		t.Errorf("mary's level is %d, want %d", mary.UserLevel, want)
	}
	house := key.UserLevel("at 2001:db8::/64", time.Now())
	for _, from := range []string{"[2001:db8::1]:1", "[2001:db8::ffff:0:1]:1", "[2001:db8::1%eth0]:1"} {
		if c := ask(func(r *http.Request) { r.RemoteAddr = from }); c.UserLevel != house {
			t.Errorf("%s has level %d, want %d as its house", from, c.UserLevel, house)
		}
	}
	if c := ask(func(r *http.Request) { r.RemoteAddr = "@" }); c.UserLevel != qos.UserLevels-1 {
		t.Errorf("an address that is none has level %d, want the last", c.UserLevel)
	}
}

// TestOwnLimitComesFirst: who is over a limit of his own does not come to the door.
func TestOwnLimitComesFirst(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet(), User: func(r *http.Request) string { return r.Header.Get("Test-User") }})
	h := e.HandleRoute("GET /limited", browse, edge.Rules{Limit: func(_ *http.Request, user string) error {
		if user == "flood" {
			return &rpc.Error{Code: rpc.ResourceExhausted, Message: "slower, please", Retry: 2500 * time.Millisecond}
		}
		return nil
	}}, func(http.ResponseWriter, *http.Request) error { return nil })
	ask := func(user string) *http.Response {
		r := httptest.NewRequest("GET", "/limited", nil)
		r.Header.Set("Test-User", user)
		return do(t, h, r)
	}
	before := admit.Process().State().Counts
	for range 1000 {
		res := ask("flood")
		if p := problem(t, res); p.Status != 429 || p.RetryAfterMS != 2500 || res.Header.Get("Retry-After") != "3" {
			t.Fatalf("problem = %+v", p)
		}
	}
	if now := admit.Process().State().Counts; now != before {
		t.Error("the flood came to the door")
	}
	if res := ask("li"); res.StatusCode != 200 {
		t.Errorf("somebody else got %d", res.StatusCode)
	}
}

// logged is a log that may be read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) has(text string) bool { return strings.Contains(l.String(), text) }

func TestClassTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "qos.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	var log logged
	e := edge.New(edge.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	e.LookEvery(time.Millisecond)
	var got qos.Class
	h := e.Handle("GET /x", browse, func(_ http.ResponseWriter, r *http.Request) error {
		got = rpc.CallFrom(r.Context()).Class
		return nil
	})
	class := func() qos.Class {
		do(t, h, httptest.NewRequest("GET", "/x", nil))
		return got
	}

	if err := e.ReadClasses(file); err == nil || !strings.Contains(err.Error(), "qos.yaml") {
		t.Errorf("a table that is not there: %v", err)
	}
	write("classes:\n  GET /x: best\n")
	if err := e.ReadClasses(file); err == nil || !strings.Contains(err.Error(), `qos.yaml:2: classes.GET /x: "best" is no class: want critical,`) {
		t.Errorf("a class that is none: %v", err)
	}
	if c := class(); c != qos.Browse {
		t.Errorf("class %v without a table, want the contract's", c)
	}
	write("classes:\n  GET /x: extra\n")
	if err := e.ReadClasses(file); err != nil || class() != qos.Extra {
		t.Errorf("class %v, error %v", class(), err)
	}
	run(t, e)
	write("classes:\n  GET /x: critical\n  GET /nowhere: post\n  POST /gone: post\n")
	until(t, "the new class", func() bool { return class() == qos.Critical })
	until(t, "the report", func() bool { return log.has(`unknown="[GET /nowhere POST /gone]"`) })
	for _, bad := range []string{"classes:\n  GET /x: 7\n", "classes: [GET /x]\n", "other: 1\n", "classes:\n  GET /x: post\n  GET /x: post\n"} {
		log.mu.Lock()
		log.buf.Reset()
		log.mu.Unlock()
		write(bad)
		until(t, "the refusal", func() bool { return log.has("refused") && log.has("qos.yaml:") })
		if c := class(); c != qos.Critical {
			t.Errorf("class %v after a bad table, want the last good one's", c)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	until(t, "the refusal of a lost file", func() bool { return log.has("no such file") })
	if c := class(); c != qos.Critical {
		t.Errorf("class %v after the loss of the table", c)
	}
	write("# nothing is said\n")
	until(t, "the contract's class", func() bool { return class() == qos.Browse })

	late := e.Handle("GET /late", publish, func(_ http.ResponseWriter, r *http.Request) error {
		got = rpc.CallFrom(r.Context()).Class
		return nil
	})
	do(t, late, httptest.NewRequest("GET", "/late", nil))
	if got != qos.Post {
		t.Errorf("class %v", got)
	}
}

// TestOperatorsMayOverride does to an entry what the admin page does.
func TestOperatorsMayOverride(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet(), Service: "front"})
	ok := func(http.ResponseWriter, *http.Request) error { return nil }
	read, write := e.Handle("GET /x", browse, ok), e.Handle("POST /x", publish, ok)
	run(t, e)
	door := admit.Process()
	until(t, "the entry", func() bool { return len(door.Services()) == 1 })
	do2 := func(o admit.Override) {
		t.Helper()
		o.Service, o.Reason = "front", "a test"
		if err := door.Override(o, "test", quiet()); err != nil {
			t.Fatal(err)
		}
	}
	status := func(h http.Handler) int { return do(t, h, httptest.NewRequest("GET", "/x", nil)).StatusCode }
	want := func(r, w int) {
		t.Helper()
		if gotR, gotW := status(read), status(write); gotR != r || gotW != w {
			t.Errorf("reads get %d, writes %d; want %d and %d", gotR, gotW, r, w)
		}
	}
	t.Cleanup(door.Unpin)
	do2(admit.Override{Action: admit.Pin, Level: qos.PriorityOf(qos.Critical, 127)})
	want(503, 503)
	do2(admit.Override{Action: admit.Exempt, Method: "POST /x"})
	want(503, 200)
	do2(admit.Override{Action: admit.EndExempt, Method: "POST /x"})
	want(503, 503)
	do2(admit.Override{Action: admit.Off})
	want(200, 200)
	do2(admit.Override{Action: admit.On})
	want(503, 503)
	do2(admit.Override{Action: admit.Unpin})
	want(200, 200)
}

// TestSaturation offers over HTTP a multiple of what the machine can do: what matters is
// served, the rest is told so with both times to wait, and nobody gets anything else.
func TestSaturation(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet()})
	run(t, e)
	mux := http.NewServeMux()
	spin := func(http.ResponseWriter, *http.Request) error {
		for end := time.Now().Add(5 * time.Millisecond); time.Now().Before(end); {
		}
		return nil
	}
	first := &rpc.Method{Service: "test.v1.Posts", Name: "First", Class: qos.Critical, Timeout: 2 * time.Second}
	last := &rpc.Method{Service: "test.v1.Posts", Name: "Last", Class: qos.Background, Timeout: 2 * time.Second}
	mux.Handle("GET /first", e.Handle("GET /first", first, spin))
	mux.Handle("GET /last", e.Handle("GET /last", last, spin))
	addr, _ := start(t, edge.ServerConfig{}, mux)
	// Each client waits for its answer before it asks again. So what is refused is refused for
	// waiting too long, and there must be enough of them: 640 ms of work for each core.
	clients := 128 * runtime.NumCPU()
	tr := &http.Transport{MaxIdleConnsPerHost: clients}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr}
	var served, refused [2]atomic.Int64
	var g sync.WaitGroup
	for i := range clients {
		g.Go(func() {
			path, important := "/last", 0
			if i%16 == 0 {
				path, important = "/first", 1
			}
			for range 10 {
				res, err := c.Get("http://" + addr + path)
				if err != nil {
					t.Error(err)
					return
				}
				var p edge.Problem
				switch res.StatusCode {
				case 200:
					served[important].Add(1)
				case 503:
					refused[important].Add(1)
					if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Type != "overload" || p.RetryAfterMS < 1 || res.Header.Get("Retry-After") != "1" {
						t.Errorf("%v: %+v, Retry-After %q", err, p, res.Header.Get("Retry-After"))
					}
				default:
					t.Errorf("%s: %s", path, res.Status)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	g.Wait()
	t.Logf("served %d of the last and %d of the first class, refused %d and %d",
		served[0].Load(), served[1].Load(), refused[0].Load(), refused[1].Load())
	if refused[0].Load() == 0 {
		t.Error("nothing was refused under a multiple of what the machine can do")
	}
	share := func(i int) float64 {
		return float64(served[i].Load()) / float64(served[i].Load()+refused[i].Load())
	}
	if share(1) < 2*share(0) {
		t.Errorf("%.2f of the requests that matter were served, and %.2f of the others", share(1), share(0))
	}
}

func TestPlace(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7:1234":            "192.0.2.7",
		"[::ffff:192.0.2.7]:1234":   "192.0.2.7",
		"[2001:db8:1:2:3::7]:1":     "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":         "fe80::/64",
		"not an address":            "",
		"":                          "",
		"name.example:80":           "",
		"[2001:db8:1:2:ffff::1]:99": "2001:db8:1:2::/64",
	} {
		if got := edge.Place(&http.Request{RemoteAddr: address}); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}
