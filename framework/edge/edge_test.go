// SPDX-License-Identifier: Apache-2.0

package edge_test

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
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/tracing"
)

var publish = &rpc.Method{Service: "test.v1.Posts", Name: "Publish", Class: qos.Post, Timeout: 800 * time.Millisecond}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// do sends a request through a handler of one route and gives the answer.
func do(t *testing.T, h http.Handler, r *http.Request) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res := w.Result()
	if _, _, _, ok := tracing.ParseTraceparent(res.Header.Get("Traceparent")); !ok {
		t.Errorf("answer has no valid traceparent: %q", res.Header.Get("Traceparent"))
	}
	return res
}

func problem(t *testing.T, res *http.Response) edge.Problem {
	t.Helper()
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("content type = %q, want a problem document", ct)
	}
	var p edge.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Status != res.StatusCode {
		t.Errorf("status in document = %d, of answer = %d", p.Status, res.StatusCode)
	}
	return p
}

func TestHandleSetsCall(t *testing.T) {
	untraced(t)
	const outside = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	e := edge.New(edge.Config{Log: quiet()})
	var got *rpc.Call
	var left time.Duration
	h := e.Handle("POST /posts", publish, func(_ http.ResponseWriter, r *http.Request) error {
		got = rpc.CallFrom(r.Context())
		deadline, ok := r.Context().Deadline()
		if !ok {
			t.Error("no deadline")
		}
		left = time.Until(deadline)
		return nil
	})
	r := httptest.NewRequest("POST", "/posts", nil)
	r.Header.Set("Traceparent", outside)
	r.Header.Set("X-Priority", "1")
	res := do(t, h, r)

	if got.Class != qos.Post || got.Entry != tracing.EntryOf("POST /posts") || got.Method != nil {
		t.Errorf("call = %+v", got)
	}
	if got.Flags != 0 {
		t.Error("the sampling flag from outside was believed")
	}
	if got.Trace.String() != "4bf92f3577b34da6a3ce929d0e0e4736" || got.Span.String() == "00f067aa0ba902b7" {
		t.Errorf("trace = %v, span = %v: want the outside trace id and a span of our own", got.Trace, got.Span)
	}
	if left <= 0 || left > 800*time.Millisecond {
		t.Errorf("time left = %v, want at most the method's 800 ms", left)
	}
	if want := tracing.Traceparent(got.Trace, got.Span, got.Flags&rpc.FlagSampled != 0); res.Header.Get("Traceparent") != want {
		t.Errorf("traceparent = %q, want %q", res.Header.Get("Traceparent"), want)
	}
}

func TestHandleIgnoresBadTraceparent(t *testing.T) {
	h := edge.New(edge.Config{}).Handle("GET /x", nil, func(http.ResponseWriter, *http.Request) error { return nil })
	for _, v := range [][]string{nil, {""}, {"00-0-0-00"}, {"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}, {"a", "b"}} {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header["Traceparent"] = v
		do(t, h, r)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct {
		name       string
		err        error
		status     int
		kind       string
		detail     string
		retryMS    int64
		retryAfter string
	}{
		{"invalid", rpc.Errorf(rpc.InvalidArgument, "text is empty"), 400, "invalid", "text is empty", 0, ""},
		{"not found", rpc.Errorf(rpc.NotFound, "no such post"), 404, "not-found", "no such post", 0, ""},
		{"exists", rpc.Errorf(rpc.AlreadyExists, "name is taken"), 409, "already-exists", "name is taken", 0, ""},
		{"state", rpc.Errorf(rpc.FailedPrecondition, "no request"), 409, "failed-precondition", "no request", 0, ""},
		{"log in", rpc.Errorf(rpc.Unauthenticated, "no session"), 401, "unauthenticated", "no session", 0, ""},
		{"handler's own limit", rpc.Errorf(rpc.ResourceExhausted, "5,000 friends"), 429, "rate-limited", "5,000 friends", 1000, "1"},
		{
			"overload", &rpc.Error{Code: rpc.ResourceExhausted, Reason: rpc.ReasonOverload, Message: "level 12", Retry: 1200 * time.Millisecond},
			503, "overload", "", 1200, "2",
		},
		{"overload, nobody said when", &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonOverload}, 503, "overload", "", 1000, "1"},
		{"network", &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonNetwork, Message: "dial 10.0.0.1"}, 503, "unavailable", "", 1000, "1"},
		{"bad message inside", &rpc.Error{Code: rpc.InvalidArgument, Reason: rpc.ReasonDecode, Message: "x"}, 500, "internal", "", 0, ""},
		{"deadline", &rpc.Error{Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, Message: "hop"}, 504, "deadline", "", 0, ""},
		{"context deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), 504, "deadline", "", 0, ""},
		{"unknown error", errors.New("secret path /var/db"), 500, "internal", "", 0, ""},
		{"internal", rpc.Errorf(rpc.Internal, "secret"), 500, "internal", "", 0, ""},
		{"code of the future", rpc.Errorf(rpc.Code(77), "x"), 500, "internal", "", 0, ""},
		{"status", &edge.StatusError{Status: 415, Type: "unsupported-media-type", Detail: "send JSON"}, 415, "unsupported-media-type", "send JSON", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := edge.New(edge.Config{Log: quiet()}).Handle("GET /x", publish, func(http.ResponseWriter, *http.Request) error { return tt.err })
			res := do(t, h, httptest.NewRequest("GET", "/x", nil))
			p := problem(t, res)
			if p.Status != tt.status || p.Type != tt.kind || p.Detail != tt.detail || p.RetryAfterMS != tt.retryMS || p.TraceID == "" || p.Title == "" {
				t.Errorf("problem = %+v", p)
			}
			if got := res.Header.Get("Retry-After"); got != tt.retryAfter {
				t.Errorf("Retry-After = %q, want %q", got, tt.retryAfter)
			}
		})
	}
}

func TestExplainNamesTypeAndField(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet(), Explain: func(err error, p *edge.Problem) {
		p.Type, p.Field, p.Detail = "behind", "text", err.Error()
	}})
	h := e.Handle("GET /x", publish, func(http.ResponseWriter, *http.Request) error {
		return rpc.Errorf(rpc.Unavailable, "this region has not seen your last write yet")
	})
	p := problem(t, do(t, h, httptest.NewRequest("GET", "/x", nil)))
	if p.Type != "behind" || p.Field != "text" || p.Status != 503 || p.RetryAfterMS != 1000 || p.Detail == "" {
		t.Errorf("problem = %+v", p)
	}
}

func TestPanic(t *testing.T) {
	var log bytes.Buffer
	e := edge.New(edge.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	h := e.Handle("GET /x", publish, func(http.ResponseWriter, *http.Request) error { panic("secret") })
	p := problem(t, do(t, h, httptest.NewRequest("GET", "/x", nil)))
	if p.Status != 500 || p.Detail != "" {
		t.Errorf("problem = %+v", p)
	}
	if !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), p.TraceID) {
		t.Errorf("log does not tell the panic with its trace: %s", log.String())
	}
}

func TestPanicAfterWriteCutsConnection(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet()})
	srv := httptest.NewServer(e.Handle("GET /x", publish, func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, strings.Repeat("half", 4096))
		panic("late")
	}))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looked like a whole one")
	}
}

func TestErrorAfterWriteIsOnlyLogged(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet()})
	h := e.Handle("GET /x", publish, func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "{}")
		return errors.New("late")
	})
	res := do(t, h, httptest.NewRequest("GET", "/x", nil))
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(body) != "{}" {
		t.Errorf("answer = %d %q", res.StatusCode, body)
	}
}

func TestBodyLimit(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet(), MaxBody: 100})
	h := e.Handle("POST /x", publish, func(_ http.ResponseWriter, r *http.Request) error {
		var v struct{ Text string }
		return edge.DecodeBody(r, &v)
	})
	body := `{"text":"` + strings.Repeat("a", 200) + `"}`
	for _, length := range []int64{int64(len(body)), -1} { // said in advance, and chunked
		r := httptest.NewRequest("POST", "/x", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = length
		if p := problem(t, do(t, h, r)); p.Status != 413 || p.Type != "too-large" {
			t.Errorf("content length %d: problem = %+v", length, p)
		}
	}
}

func TestARouteMayTakeLongerBodies(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet(), MaxBody: 100})
	h := e.HandleRoute("PUT /x", publish, edge.Rules{MaxBody: 1000}, func(w http.ResponseWriter, r *http.Request) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(w, len(b))
		return err
	})
	for length, status := range map[int]int{1000: 200, 1001: 413} {
		res := do(t, h, httptest.NewRequest("PUT", "/x", strings.NewReader(strings.Repeat("a", length))))
		if res.StatusCode != status {
			t.Errorf("a body of %d bytes: %d, want %d", length, res.StatusCode, status)
		}
	}
}

func TestNotFound(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet()})
	mux := http.NewServeMux()
	ok := func(http.ResponseWriter, *http.Request) error { return nil }
	mux.Handle("GET /posts/{id}", e.Handle("GET /posts/{id}", publish, ok))
	mux.Handle("DELETE /posts/{id}", e.Handle("DELETE /posts/{id}", publish, ok))
	mux.Handle("/", e.NotFound(mux))

	if p := problem(t, do(t, mux, httptest.NewRequest("GET", "/nothing", nil))); p.Status != 404 {
		t.Errorf("problem = %+v", p)
	}
	res := do(t, mux, httptest.NewRequest("PUT", "/posts/1", nil))
	if p := problem(t, res); p.Status != 405 || res.Header.Get("Allow") != "GET, HEAD, DELETE" {
		t.Errorf("problem = %+v, Allow = %q", p, res.Header.Get("Allow"))
	}
}

// TestStreamsEnd: a stream lasts until its client goes, and that is no failure unless its
// handler says so; of an answer that is no stream it is one.
func TestStreamsEnd(t *testing.T) {
	access := &logged{}
	e := edge.New(edge.Config{Log: quiet(), Access: slog.New(slog.NewJSONHandler(access, nil))})
	for _, c := range []struct {
		name    string
		streams bool
		err     error
		want    string
	}{
		{"a stream", true, nil, "ok"},
		{"a stream that was not done", true, rpc.Errorf(rpc.Canceled, "there was more"), "canceled"},
		{"no stream", false, nil, "canceled"},
	} {
		entry := "GET /streams-end/" + strings.ReplaceAll(c.name, " ", "-")
		ctx, leave := context.WithCancel(t.Context())
		h := e.Handle(entry, nil, func(w http.ResponseWriter, r *http.Request) error {
			_, _ = io.WriteString(w, "something")
			if c.streams {
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
			}
			leave()
			<-r.Context().Done()
			return c.err
		})
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/streams-end", nil))
		if line := access.String(); !strings.Contains(line, `"entry":"`+entry+`","status":200,"result":"`+c.want+`"`) {
			t.Errorf("%s: want %s:\n%s", c.name, c.want, line)
		}
	}
}
