// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// paths are all pages, and what of them stands on its own.
var paths = []string{
	"/admin/", "/admin/methods", "/admin/qos", "/admin/graph", "/admin/peers", "/admin/requests", "/admin/rpcz", "/admin/items",
	"/admin/call", "/admin/config", "/admin/log", "/admin/pprof/", "/admin/build", "/admin/health",
}

// bench is a dashboard whose every name is hostile.
type bench struct {
	*admin.Dashboard
	h    http.Handler
	span tracing.SpanID // of a request in flight
	id   tracing.TraceID
	log  bytes.Buffer
}

func newBench(t testing.TB, token string) *bench {
	t.Helper()
	tracer, err := tracing.New(tracing.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{span: tracing.NewSpanID(), id: tracing.NewTraceID()}
	m := &rpc.Method{Service: hostile, Name: "Act", Class: qos.Post, Timeout: time.Second, MaxAttempts: 2, Idempotency: rpc.Idempotent}
	door := admit.New(2)
	s := door.NewService("post")
	s.Method(m.FullName(), m)
	t.Cleanup(s.Join())
	items := metrics.NewRegistry(metrics.Config{})
	items.Admission(door.State)
	served := items.ServerMethod(m)
	for _, result := range []metrics.ServerResult{metrics.ServerOK, metrics.ServerTimeout, metrics.ServerTimeout, metrics.ServerPanic} {
		served.Started()
		served.Ended(result, 10*time.Millisecond, 100, 200)
	}
	called := items.ClientMethod(hostile, m)
	called.Started()
	items.Route("GET", "/"+hostile).Started()
	graph := callgraph.NewRecorder(callgraph.Config{})
	graph.Entry(hostile).Record(callgraph.OK, time.Millisecond, 1, 1)
	graph.Edges(callgraph.Server, m.FullName()).Slot(tracing.EntryOf(hostile), graph.Method(hostile)).Record(callgraph.OK, time.Millisecond, 1, 1)
	tracer.Sampler(hostile)
	tracer.Method(tracing.Server, m.FullName()).Add(tracing.KeepError, tracing.Record{
		Trace: b.id, Span: b.span, Entry: tracing.EntryOf(hostile), Caller: hostile, Peer: hostile, Start: time.Now().UnixNano(), Duration: time.Millisecond,
		Class: "internal", Code: hostile, Reason: hostile, Message: hostile, Path: hostile, Status: 500, Notes: []tracing.Note{{Key: hostile, Value: hostile}},
	})
	var working inflight.Table
	call := &inflight.Call{Route: hostile, Began: time.Now(), Deadline: time.Now().Add(time.Minute)}
	call.Span, call.Trace, call.Entry, call.Peer = b.span, b.id, tracing.EntryOf(hostile), hostile
	working.Add(call)
	t.Cleanup(func() { working.Remove(call) })
	b.Dashboard = &admin.Dashboard{
		Service: "post", State: admin.NewState(nil), Door: door, Items: items, Graph: graph, Tracer: tracer, InFlight: &working, Token: func() string { return token },
		Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Connections: func() []peers.Connection {
			return []peers.Connection{
				{Accepted: true, Service: hostile, Peer: hostile, Since: time.Now(), Calls: 3, Received: 1 << 20, Level: qos.LastPriority},
				{Service: hostile, Peer: hostile, Level: qos.PriorityOf(qos.Post, 3), Err: errors.New(hostile)},
			}
		},
		Contracts: func() map[string]*rpc.Method { return map[string]*rpc.Method{m.FullName(): m} },
		Config: func() ([]admin.Setting, []admin.Reload) {
			return []admin.Setting{{Name: "greeting", Value: hostile, Source: hostile, Doc: hostile}}, []admin.Reload{{Refused: hostile}, {Changes: []string{hostile}}}
		},
	}
	b.Callable = func() []admin.Callable {
		one := admin.Callable{Method: m.FullName(), Class: hostile, TimeoutMS: 1000, Message: hostile, Fields: []admin.Field{{Name: hostile, Type: hostile}}}
		request, err := json.Marshal(map[string]string{hostile: hostile})
		if err != nil {
			t.Fatal(err)
		}
		one.Request = string(request)
		return []admin.Callable{one}
	}
	b.Call = func(context.Context, admin.Try) (admin.Tried, error) {
		return admin.Tried{Trace: hostile}, &rpc.Error{Code: rpc.NotFound, Message: hostile}
	}
	b.h = handlerOf(t, b.Dashboard)
	return b
}

func (b *bench) get(target string, change ...func(*http.Request)) (*http.Response, string) {
	return b.do("GET", target, "", change...)
}

func (b *bench) do(method, target, body string, change ...func(*http.Request)) (*http.Response, string) {
	r := httptest.NewRequest(method, "http://127.0.0.1:7001"+target, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4711"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestEveryPage(t *testing.T) {
	b := newBench(t, "s3cret")
	method, trace, span := url.QueryEscape(strings.ReplaceAll(hostile, "\x1b", "�")+"/Act"), b.id.String(), b.span.String()
	all := append([]string{
		"/admin/methods?method=" + method, "/admin/methods?q=" + method, "/admin/graph?entry=" + url.QueryEscape(hostile),
		"/admin/call?method=" + url.QueryEscape(hostile+"/Act"), "/admin/rpcz?trace=" + trace, "/admin/rpcz?kept=error&method=" + method, "/admin/items?q=rpc_server", "/admin/build?q=nothing-of-this-name",
	}, paths...)
	for _, path := range all {
		for name, c := range map[string]struct{ accept, language, media string }{
			"HTML":         {"text/html,application/xhtml+xml,*/*;q=0.8", "", "text/html; charset=utf-8"},
			"Chinese HTML": {"text/html", "zh-CN,zh;q=0.9,en;q=0.8", "text/html; charset=utf-8"},
			"text":         {"*/*", "zh-CN", "text/plain; charset=utf-8"},
			"JSON":         {"application/json", "zh-CN", "application/json"},
		} {
			t.Run(path+" "+name, func(t *testing.T) {
				res, body := b.get(path, header("Accept", c.accept), header("Accept-Language", c.language))
				h := res.Header
				media := c.media
				if name == "text" && strings.HasPrefix(path, "/admin/items") {
					media = "application/json" // the catalogue, as it has always been
				}
				if res.StatusCode != 200 || h.Get("Content-Type") != media || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
					t.Fatalf("%d %v\n%.500s", res.StatusCode, h, body)
				}
				if media == "text/html; charset=utf-8" { // what a form sends back is as it came
					body = regexp.MustCompile(` value="[^"]*"`).ReplaceAllString(body, "")
				}
				if strings.ContainsAny(body, "\x1b\x00") || strings.Contains(body, "s3cret") {
					t.Errorf("what a terminal would obey, or the token, is in the page: %q", around(body))
				}
				switch media {
				case "text/html; charset=utf-8":
					for _, evil := range []string{"<script", "style=", "onerror", "http:", "https:"} {
						if strings.Contains(body, evil) {
							t.Errorf("%q in the page", evil)
						}
					}
					if policy := h.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "'sha256-") {
						t.Errorf("policy %q", policy)
					}
					want := `<html lang="en">`
					if name == "Chinese HTML" {
						want = `<html lang="zh-CN">`
						if !strings.Contains(body, "概览") {
							t.Error("nothing of it is Chinese")
						}
					}
					if !strings.Contains(body, want) || !strings.Contains(body, `<meta name="viewport"`) {
						t.Errorf("no %s in the page", want)
					}
				case "application/json":
					if !json.Valid([]byte(body)) {
						t.Errorf("no JSON:\n%s", body)
					}
				default:
					if strings.Contains(body, "概览") || strings.Contains(body, "%!") {
						t.Errorf("text is for terminals, in English:\n%s", body)
					}
				}
				if strings.Contains(body, "%!") {
					t.Errorf("a phrase does not fit its values:\n%s", body)
				}
			})
		}
	}
	t.Run("a request's stack", func(t *testing.T) { // nobody works on this one
		if res, body := b.get("/admin/requests?span=" + span); res.StatusCode != 404 || !strings.Contains(body, "no goroutine") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
}

// TestTryForm sends the form of a method, whose every name is hostile.
func TestTryForm(t *testing.T) {
	b := newBench(t, "s3cret")
	at := "/admin/call?lang=zh&method=" + url.QueryEscape(hostile+"/Act")
	asForm := header("Content-Type", "application/x-www-form-urlencoded")
	good := url.Values{"request": {"{\r\n}"}, "timeout_ms": {"100"}, "class": {"browse"}, "reason": {"because"}, "token": {"s3cret"}}
	for name, c := range map[string]struct {
		field, value string
		status       int
		says         string
	}{
		"a call":               {"", "", 200, ">not_found</span>"},
		"a class that is none": {"class", "best", 400, "class: &#34;best&#34; is no class"},
		"a time that is none":  {"timeout_ms", "soon", 400, "want 1 to 10000"},
		"a time too long":      {"timeout_ms", "10001", 400, "want 1 to 10000"},
		"a time below zero":    {"timeout_ms", "-1", 400, "want 1 to 10000"},
		"no reason":            {"reason", " ", 400, "reason: say why"},
		"no token":             {"token", "", 401, "token"},
		"a request of 1 MB":    {"request", strings.Repeat("x", 1<<20), 401, "token"},
	} {
		t.Run(name, func(t *testing.T) {
			f := url.Values{}
			for k, v := range good {
				f[k] = v
			}
			if c.field != "" {
				f.Set(c.field, c.value)
			}
			res, body := b.do("POST", at, f.Encode(), asForm)
			if res.StatusCode != c.status || !strings.Contains(body, c.says) || strings.Contains(body, "s3cret") {
				t.Fatalf("%d, want %d and something about %q\n%s", res.StatusCode, c.status, c.says, body)
			}
			if c.status == 401 {
				return
			}
			body = regexp.MustCompile(` value="[^"]*"`).ReplaceAllString(body, "")
			for _, evil := range []string{"<script", "onerror", "http:", "\x1b", "%!"} {
				if strings.Contains(body, evil) {
					t.Errorf("%q in the page:\n%s", evil, body)
				}
			}
			if !strings.Contains(body, `<html lang="zh-CN">`) || !strings.Contains(body, ">\n{\n}</textarea>") || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("not the form as it was sent:\n%s", body)
			}
		})
	}
	if res, body := b.do("POST", "/admin/call?method=nobody", good.Encode(), asForm); res.StatusCode != 400 || !strings.Contains(body, "that can be tried") {
		t.Errorf("a method that is none: %d %s", res.StatusCode, body)
	}
	if res, body := b.do("POST", at, "{}", header("Content-Type", "application/json"), header("Authorization", "Bearer s3cret")); res.StatusCode != 400 || !strings.Contains(body, "reason") {
		t.Errorf("JSON without a reason: %d %s", res.StatusCode, body)
	}
}

// around gives what stands around the first character that should not be there.
func around(body string) string {
	i := max(0, strings.IndexAny(body, "\x1b\x00"))
	return body[max(0, i-100):min(len(body), i+100)]
}

func TestWhoMayLook(t *testing.T) {
	far := func(r *http.Request) { r.RemoteAddr, r.Host = "192.0.2.1:5", "post.example:7001" }
	both := func(one, other func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { one(r); other(r) }
	}
	cases := []struct {
		name, token string
		status      int
		says        string
		change      func(*http.Request)
	}{
		{"this machine", "", 200, "", func(*http.Request) {}},
		{"this machine, by name", "", 200, "", func(r *http.Request) { r.Host = "localhost:7001" }},
		{"this machine, IPv6", "", 200, "", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:9", "[::1]:7001" }},
		{"this machine, token", "s3cret", 200, "", func(*http.Request) {}},
		{"from afar", "", 403, "this machine alone", far},
		{"from afar, an address that is none", "", 403, "this machine alone", func(r *http.Request) { r.RemoteAddr = "@" }},
		{"a name made to mean this machine", "", 403, "evil.example", func(r *http.Request) { r.Host = "evil.example" }},
		{"from afar, no token", "s3cret", 401, "token", far},
		{"from afar, wrong token", "s3cret", 401, "token", both(far, header("Authorization", "Bearer s3cre"))},
		{"from afar, wrong password", "s3cret", 401, "token", both(far, func(r *http.Request) { r.SetBasicAuth("s3cret", "") })},
		{"from afar, token", "s3cret", 200, "", both(far, header("Authorization", "Bearer s3cret"))},
		{"from afar, token as a password", "s3cret", 200, "", both(far, func(r *http.Request) { r.SetBasicAuth("me", "s3cret") })},
		{"fetched by another site", "", 403, "cross-origin", header("Sec-Fetch-Site", "cross-site")},
		{"fetched by another port", "", 403, "cross-origin", header("Sec-Fetch-Site", "same-site")},
		{"a link on another site", "", 200, "", both(header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "navigate"))},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.token)
			for _, path := range append([]string{"/admin/pprof/goroutine", "/admin/graph?format=svg", "/admin/rpcz?format=json&since=0"}, paths...) {
				status := c.status
				if strings.HasSuffix(path, "goroutine") && c.name == "a link on another site" {
					status = 403 // not even so
				}
				res, body := b.get(path, c.change)
				if res.StatusCode != status || !strings.Contains(body, c.says) {
					t.Errorf("%s: %d, want %d\n%s", path, res.StatusCode, c.status, body)
				}
				if c.status == 401 && len(res.Header.Values("WWW-Authenticate")) != 2 {
					t.Errorf("%s: %v", path, res.Header)
				}
				if c.status != 200 && (len(body) > 300 || strings.Contains(body, "s3cret")) {
					t.Errorf("%s: too much is said: %s", path, body)
				}
			}
			for _, open := range []string{"/livez", "/readyz", "/metrics"} {
				if res, _ := b.get(open, c.change); res.StatusCode != 200 {
					t.Errorf("%s: %d", open, res.StatusCode)
				}
			}
		})
	}
}

// TestChangesOfOtherPages: what is sent to a page that a program has added needs the token
// as the framework's own pages do.
func TestChangesOfOtherPages(t *testing.T) {
	b := newBench(t, "s3cret")
	h, err := b.Handler(map[string]http.Handler{"/admin/mine": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	if err != nil {
		t.Fatal(err)
	}
	b.h = h
	far := func(r *http.Request) { r.RemoteAddr, r.Host = "192.0.2.1:5", "post.example:7001" }
	right := header("Authorization", "Bearer s3cret")
	for _, c := range []struct {
		method string
		change func(*http.Request)
		status int
	}{
		{"POST", far, 401},
		{"PUT", far, 401},
		{"POST", func(*http.Request) {}, 401},
		{"DELETE", func(*http.Request) {}, 401},
		{"POST", func(r *http.Request) { far(r); right(r) }, 200},
		{"GET", func(*http.Request) {}, 200},
	} {
		if res, body := b.do(c.method, "/admin/mine", "", c.change); res.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", c.method, res.StatusCode, c.status, body)
		}
	}
}

func TestBadQueries(t *testing.T) {
	b := newBench(t, "")
	for _, c := range []struct {
		path, says string
		status     int
	}{
		{"/admin/methods?page=0", "want 1 to", 400},
		{"/admin/methods?page=x", "want 1 to", 400},
		{"/admin/methods?page=9999999999999999999", "want 1 to", 400},
		{"/admin/methods?q=" + strings.Repeat("x", 201), "at most 200", 400},
		{"/admin/methods?q=%ff", "text to search for", 400},
		{"/admin/methods?a=" + strings.Repeat("x", 9<<10), "bytes long", 414},
		{"/admin/methods?%zz", "query", 400},
		{"/admin/methods?format=xml", "want html, text or json", 400},
		{"/admin/methods?lang=tlh", "want en or zh", 400},
		{"/admin/methods?method=nobody", "neither serves nor calls", 404},
		{"/admin/call?method=nobody", "no method \"nobody\" that can be tried", 404},
		{"/admin/requests?span=zz", "16 hex digits", 400},
		{"/admin/requests?span=00000000000000ab", "any more", 404},
		{"/admin/rpcz?kept=all", "want error, slow, sampled or below", 400},
		{"/admin/rpcz?format=json&since=-1", "no number", 400},
		{"/admin/rpcz?format=json&since=0&limit=9999", "want 1 to 4096", 400},
		{"/admin/pprof/nothing", "want allocs", 404},
		{"/admin/pprof/profile?seconds=61", "want 1 to 60", 400},
		{"/admin/pprof/trace?seconds=0", "want 1 to 10", 400},
		{"/admin/pprof/heap?debug=7", "want 0, 1 or 2", 400},
		{"/admin/nothing", "404", 404},
	} {
		if res, body := b.get(c.path); res.StatusCode != c.status || !strings.Contains(body, c.says) || len(body) > 400 {
			t.Errorf("%.60s: %d %.500s; want %d and something about %q", c.path, res.StatusCode, body, c.status, c.says)
		}
	}
	for _, path := range paths {
		for _, method := range []string{"PUT", "DELETE", "POST"} {
			if method == "POST" && (path == "/admin/qos" || path == "/admin/log" || path == "/admin/call") {
				continue
			}
			if res, body := b.do(method, path, ""); res.StatusCode != 405 || !strings.Contains(res.Header.Get("Allow"), "GET") {
				t.Errorf("%s %s: %d %s", method, path, res.StatusCode, body)
			}
		}
	}
}

// TestManyMethods has more methods than anybody wants on a page.
func TestManyMethods(t *testing.T) {
	b := newBench(t, "")
	const many = 2000
	b.Items = metrics.NewRegistry(metrics.Config{MaxMethods: many, MaxItems: 10_000_000, MaxSeries: 10_000_000})
	for i := range many {
		b.Items.ServerMethod(&rpc.Method{Service: "many.v1.Service", Name: fmt.Sprintf("Method%05d", i)})
	}
	b.h = handlerOf(t, b.Dashboard)
	for _, accept := range []string{"text/html", "*/*", "application/json"} {
		res, body := b.get("/admin/methods?q=many.v1&page=3", header("Accept", accept))
		if res.StatusCode != 200 || len(body) > 512<<10 || strings.Count(body, "Method00400") == 0 || strings.Contains(body, "Method00600") || strings.Contains(body, "Method00399") {
			t.Errorf("%s: %d, %d bytes", accept, res.StatusCode, len(body))
		}
	}
	_, body := b.get("/admin/methods?q=method01999&format=json")
	var found struct {
		Total, Pages int
		Items        []struct{ Method string }
	}
	if err := json.Unmarshal([]byte(body), &found); err != nil || found.Total != 1 || found.Pages != 1 || found.Items[0].Method != "many.v1.Service/Method01999" {
		t.Errorf("%v: %s", err, body)
	}
	if _, body := b.get("/admin/methods?q=many.v1&page=200", header("Accept", "text/html")); !strings.Contains(body, "1801 to 2000 of 2000, page 10 of 10") {
		t.Errorf("the last page is not that:\n%.2000s", body)
	}
}

func TestStreamOfKeptCalls(t *testing.T) {
	b := newBench(t, "")
	m := b.Tracer.Method(tracing.Client, "a.B/C")
	for range 5 {
		m.Add(tracing.KeepSlow, tracing.Record{Trace: b.id, Span: tracing.NewSpanID(), Class: "ok"})
	}
	var seen []uint64
	for since, more := uint64(0), true; more; {
		_, body := b.get(fmt.Sprintf("/admin/rpcz?format=json&since=%d&limit=4", since))
		var s struct {
			Process callgraph.Process
			Records []tracing.Record
			Next    uint64
			Lost    uint64
		}
		if err := json.Unmarshal([]byte(body), &s); err != nil || s.Lost != 0 {
			t.Fatalf("%v: %s", err, body)
		}
		for _, r := range s.Records {
			seen = append(seen, r.Seq)
		}
		more, since = len(s.Records) > 0, s.Next
	}
	if fmt.Sprint(seen) != "[1 2 3 4 5 6]" {
		t.Errorf("seen %v", seen)
	}
	_, body := b.get("/admin/rpcz?kept=slow")
	if n := strings.Count(body, "a.B/C"); n != 6 || strings.Contains(body, "500") { // five calls, and the method
		t.Errorf("%d times in\n%s", n, body)
	}
}

func TestLogLevel(t *testing.T) {
	const order = `{"level":"debug","reason":"a drill"}`
	asJSON := header("Content-Type", "application/json")
	reset := func(t *testing.T) {
		if err := loglevel.Process().Set(loglevel.Configured, "the test ends", "", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, token, body string
		status            int
		change            func(*http.Request)
	}{
		{"this machine", "", order, 200, func(*http.Request) {}},
		{"from afar", "", order, 403, func(r *http.Request) { r.RemoteAddr = "192.0.2.1:5" }},
		{"another site", "", order, 403, header("Origin", "http://evil.example")},
		{"a foreign page of this machine", "", order, 403, header("Sec-Fetch-Site", "same-site")},
		{"no token", "s3cret", order, 401, func(*http.Request) {}},
		{"wrong token", "s3cret", order, 401, header("Authorization", "Bearer s")},
		{"token", "s3cret", order, 200, header("Authorization", "Bearer s3cret")},
		{"token of afar", "s3cret", order, 200, func(r *http.Request) {
			r.RemoteAddr, r.Host = "192.0.2.1:5", "a.example"
			r.Header.Set("Authorization", "Bearer s3cret")
		}},
		{"no reason", "", `{"level":"debug"}`, 400, func(*http.Request) {}},
		{"no level", "", `{"reason":"r"}`, 400, func(*http.Request) {}},
		{"what is no level", "", `{"level":"loud","reason":"r"}`, 400, func(*http.Request) {}},
		{"more than is asked for", "", `{"level":"debug","reason":"r","for":1}`, 400, func(*http.Request) {}},
		{"text", "", order, 415, header("Content-Type", "text/plain")},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer reset(t)
			b := newBench(t, c.token)
			res, body := b.do("POST", "/admin/log", c.body, asJSON, c.change)
			level, set := loglevel.Process().Level()
			if res.StatusCode != c.status || set != (c.status == 200) || set && level != slog.LevelDebug {
				t.Errorf("%d %s, set: %t %v", res.StatusCode, body, set, level)
			}
			if written := strings.Contains(b.log.String(), "log level changed by an operator"); written != set {
				t.Errorf("written down: %t", written)
			}
			if strings.Contains(body+b.log.String(), "s3cret") {
				t.Error("the token is told")
			}
		})
	}
	t.Run("a form", func(t *testing.T) {
		defer reset(t)
		b := newBench(t, "s3cret")
		form := url.Values{"level": {"warn"}, "reason": {"too <much>"}, "token": {"s3cret"}}
		res, body := b.do("POST", "/admin/log?lang=zh", form.Encode(), header("Content-Type", "application/x-www-form-urlencoded"))
		if res.StatusCode != 303 || res.Header.Get("Location") != "/admin/log?lang=zh-CN" {
			t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
		}
		if _, page := b.get("/admin/log", header("Accept", "text/html")); !strings.Contains(page, "log from warn") || !strings.Contains(page, "too &lt;much&gt;") || !strings.Contains(page, "<option selected>warn</option>") {
			t.Error(page)
		}
	})
}

func TestProfiles(t *testing.T) {
	b := newBench(t, "")
	for _, name := range []string{"heap", "goroutine", "allocs", "profile?seconds=1", "trace?seconds=1"} {
		res, body := b.get("/admin/pprof/" + name)
		if res.StatusCode != 200 || len(body) < 100 || !strings.HasPrefix(res.Header.Get("Content-Disposition"), "attachment") {
			t.Errorf("%s: %d %v, %d bytes", name, res.StatusCode, res.Header, len(body))
		}
	}
	if res, body := b.get("/admin/pprof/goroutine?debug=2"); res.StatusCode != 200 || !strings.Contains(body, "TestProfiles") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if h := b.h; h != nil { // none of it is where every program may serve it by mistake
		w := httptest.NewRecorder()
		http.DefaultServeMux.ServeHTTP(w, httptest.NewRequest("GET", "/debug/pprof/", nil))
		if w.Code != 404 {
			t.Errorf("/debug/pprof/ is on http.DefaultServeMux: %d", w.Code)
		}
	}
}

func TestHealth(t *testing.T) {
	b := newBench(t, "")
	var wrong error
	b.State = admin.NewState(func(context.Context) error { return wrong })
	b.h = handlerOf(t, b.Dashboard)
	for _, c := range []struct {
		err      error
		drain    bool
		ready    int
		says     string
		overview string
	}{
		{nil, false, 200, "Health: serving", "Overview: serving"},
		{errors.New("the disk is full"), false, 503, "not ready: not ready: the disk is full", "not ready: not ready: the disk is full"},
		{nil, true, 503, "draining: draining", "draining: draining"},
	} {
		wrong = c.err
		if c.drain {
			b.State.Drain()
		}
		if res, body := b.get("/readyz"); res.StatusCode != c.ready {
			t.Errorf("/readyz: %d %s", res.StatusCode, body)
		}
		if _, body := b.get("/admin/health"); !strings.HasPrefix(body, c.says) {
			t.Errorf("want %q: %s", c.says, body)
		}
		if _, body := b.get("/admin/"); !strings.HasPrefix(body, c.overview) {
			t.Errorf("want %q: %s", c.overview, body)
		}
	}
}

// TestMethodsText is what one sees of methods in a terminal.
func TestMethodsText(t *testing.T) {
	items := metrics.NewRegistry(metrics.Config{})
	m := &rpc.Method{Service: "moments.v1.PostService", Name: "Publish", Class: qos.Post, Timeout: 800 * time.Millisecond, Idempotency: rpc.Idempotent, MaxAttempts: 2}
	served := items.ServerMethod(m)
	for i := range 1000 {
		served.Started()
		result := metrics.ServerOK
		if i%250 == 0 {
			result = metrics.ServerTimeout
		}
		served.Ended(result, 3*time.Millisecond, 100, 200)
	}
	served.Started()
	items.Route("POST", "/posts").Started()
	b := &bench{h: handlerOf(t, &admin.Dashboard{Items: items, Contracts: func() map[string]*rpc.Method { return map[string]*rpc.Method{m.FullName(): m} }})}
	_, got := b.get("/admin/methods?q=post")
	lines := strings.Split(got, "\n")
	for i, line := range lines { // what depends on the time that the test takes
		if strings.HasPrefix(line, "Rates and latencies") {
			lines[i] = "Rates and latencies are of the last 1.00 s; all else since the process started."
		}
		if fields := strings.Fields(line); strings.HasPrefix(line, "moments.v1") {
			fields[1] = "RATE"
			lines[i] = strings.Join(fields, " ")
		} else if strings.HasPrefix(line, "POST ") {
			fields[2] = "RATE"
			lines[i] = strings.Join(fields, " ")
		} else if strings.HasPrefix(line, "method ") {
			lines[i] = strings.Join(fields, " ")
		}
	}
	golden(t, "testdata/methods.txt", strings.Join(lines, "\n"))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v; got\n%s\nwant\n%s", file, err, got, want)
	}
}

// TestPlacesAreBounded asks for more pages at once than are written.
func TestPlacesAreBounded(t *testing.T) {
	b := newBench(t, "")
	hold, held := make(chan struct{}), make(chan struct{}, 100)
	h, err := b.Handler(map[string]http.Handler{"/admin/slow": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		held <- struct{}{}
		<-hold
		_, _ = io.WriteString(w, "done")
	})})
	if err != nil {
		t.Fatal(err)
	}
	b.h = h
	statuses := make(chan int, 8)
	for range 8 {
		go func() {
			res, _ := b.get("/admin/slow")
			statuses <- res.StatusCode
		}()
	}
	for range 8 {
		<-held
	}
	if res, _ := b.get("/admin/slow"); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("the ninth: %d %v", res.StatusCode, res.Header)
	}
	close(hold)
	for range 8 {
		if s := <-statuses; s != 200 {
			t.Errorf("one of the eight: %d", s)
		}
	}
}

func TestPatternsThatAreNone(t *testing.T) {
	for _, pattern := range []string{"GET", "/a/{", "GET /livez/{x...}/y"} {
		if _, err := newBench(t, "").Handler(map[string]http.Handler{pattern: http.NotFoundHandler()}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", pattern)) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// FuzzQuery asks for every page by any query: none panics, and none fails inside.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "q=a&page=2", "lang=zh&format=html", "method=x&trace=y&kept=slow", "span=00000000000000ab", "entry=x&format=svg", "format=json&since=1&limit=2"} {
		for page := range paths {
			f.Add(uint8(page), seed, "text/html", "zh;q=0.5,en;q=x")
		}
	}
	b := newBench(f, "")
	f.Fuzz(func(t *testing.T, page uint8, query, accept, language string) {
		path := paths[int(page)%len(paths)]
		r := httptest.NewRequest("GET", "http://127.0.0.1"+path, nil)
		r.URL.RawQuery, r.RemoteAddr = query, "127.0.0.1:1"
		r.Header.Set("Accept", accept)
		r.Header.Set("Accept-Language", language)
		w := httptest.NewRecorder()
		b.h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s?%s: %d %s", path, query, w.Code, w.Body)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && bytes.Contains(w.Body.Bytes(), []byte("<script")) {
			t.Errorf("%s?%s: a name is not escaped", path, query)
		}
	})
}

// FuzzChange sends anything as a change to the pages that take some: none panics, and none
// fails inside.
func FuzzChange(f *testing.F) {
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	for _, seed := range []struct{ media, body string }{
		{asJSON, `{"action":"pin","class":"browse","user":3,"reason":"r"}`},
		{asJSON, `{"level":"debug","reason":"r"}`},
		{asJSON, `{"method":"x","request":{"a":[1,{}]},"class":"post","timeout_ms":1e9,"reason":"r"}`},
		{asJSON, `{"request":null}{}`},
		{form, "action=exempt&service=post&method=x&reason=r"},
		{form, "method=x&request=%7B%7D&timeout_ms=-1&reason=r&token=s3cret"},
		{"multipart/form-data; boundary=x", "--x\r\n\r\n--x--"},
		{"text/plain", "x"},
	} {
		for page := range 3 {
			f.Add(uint8(page), seed.media, seed.body)
		}
	}
	b := newBench(f, "s3cret")
	f.Fuzz(func(t *testing.T, page uint8, media, body string) {
		path := []string{"/admin/qos", "/admin/log", "/admin/call"}[int(page)%3]
		r := httptest.NewRequest("POST", "http://127.0.0.1"+path, strings.NewReader(body))
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("Content-Type", media)
		r.Header.Set("Authorization", "Bearer s3cret")
		w := httptest.NewRecorder()
		b.h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		b.log.Reset()
	})
}
