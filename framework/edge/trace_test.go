// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	"github.com/sluice-rpc/sluice/tracing"
)

// untraced traces nothing of its own accord until the test ends.
func untraced(t *testing.T) {
	t.Helper()
	rate := func(r tracing.Rate) {
		if err := framework.Tracer().SetRates(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	rate(tracing.Rate{Off: true})
	t.Cleanup(func() { rate(tracing.DefaultRate) })
}

func recordsOf(trace tracing.TraceID) []*tracing.Record {
	all, _, _ := framework.Tracer().Since(0, 1<<20)
	out := slices.DeleteFunc(all, func(r *tracing.Record) bool { return r.Trace != trace })
	slices.SortFunc(out, func(a, b *tracing.Record) int { return int(a.Start - b.Start) })
	return out
}

// TestTraceThroughTheEntry: a request that a trusted caller has traced is the root of
// what it calls, over RPC and over HTTP, and carries the caller's ids on.
func TestTraceThroughTheEntry(t *testing.T) {
	untraced(t)
	var heard http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard = r.Header
		w.WriteHeader(http.StatusNotFound)
	}))
	defer other.Close()
	echo := testpb.NewEchoClient(rpctest.Local(t, testpb.NewServer().Register))
	client := &http.Client{Transport: &edge.Transport{Service: "other"}}
	e := edge.New(edge.Config{Log: quiet(), AdmissionOff: true, Trusted: func(r *http.Request) bool { return r.Header.Get("Token") == "right" }})
	h := e.Handle("GET /traced/{id}", publish, func(w http.ResponseWriter, r *http.Request) error {
		if _, err := echo.Echo(r.Context(), &testpb.EchoRequest{}); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(r.Context(), "GET", other.URL+"/there?secret=1", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return res.Body.Close()
	})
	request := func(token string) tracing.TraceID {
		trace := tracing.NewTraceID()
		r := httptest.NewRequest("GET", "/traced/7?secret=1", nil)
		r.Header.Set("Traceparent", tracing.Traceparent(trace, tracing.SpanID{1}, true))
		r.Header.Set("Tracestate", "them=1")
		r.Header.Set("Token", token)
		do(t, h, r)
		return trace
	}

	wrong := request("wrong")
	for _, r := range recordsOf(wrong) {
		if strings.Contains(r.Kept, "sampled") {
			t.Errorf("a stranger's request is traced: %+v", r)
		}
	}
	trace := request("right")
	got := recordsOf(trace)
	if len(got) != 4 {
		t.Fatalf("%d records, want those of the entry, the call at both ends, and the request to the other service", len(got))
	}
	root, out := got[0], got[3]
	if root.Kind != tracing.Server || root.Parent != (tracing.SpanID{1}) || root.State != "them=1" || root.Method != "GET /traced/{id}" ||
		root.Path != "/traced/7" || root.Status != 202 || root.Class != "ok" || root.Scheme != "http" || root.Named != root.Method {
		t.Errorf("root: %+v", root)
	}
	if got[1].Parent != root.Span || got[2].Parent != got[1].Span || out.Parent != root.Span {
		t.Error("the calls do not stand below the request")
	}
	if out.Kind != tracing.Client || out.Method != "other/GET" || out.Path != "/there" || out.Status != 404 || out.Class != "business_error" || out.Entry != root.Entry {
		t.Errorf("request to the other service: %+v", out)
	}
	if want := tracing.Traceparent(trace, out.Span, true); heard.Get("Traceparent") != want || heard.Get("Tracestate") != "them=1" {
		t.Errorf("the other service heard %q, %q, want %q", heard.Get("Traceparent"), heard.Get("Tracestate"), want)
	}
}

// TestErrorsOfTheEntry: what the client is not told stands in the record, and a panic
// is kept like any other error.
func TestErrorsOfTheEntry(t *testing.T) {
	untraced(t)
	e := edge.New(edge.Config{Log: quiet(), AdmissionOff: true})
	for message, handler := range map[string]edge.HandlerFunc{
		"the inside":        func(http.ResponseWriter, *http.Request) error { return errors.New("the inside") },
		"panic: the inside": func(http.ResponseWriter, *http.Request) error { panic("the inside") },
	} {
		var call *rpc.Call
		h := e.Handle("GET /fails", publish, func(w http.ResponseWriter, r *http.Request) error {
			call = rpc.CallFrom(r.Context())
			return handler(w, r)
		})
		res := do(t, h, httptest.NewRequest("GET", "/fails", nil))
		got := recordsOf(call.Trace)
		if len(got) != 1 || got[0].Message != message || got[0].Status != 500 || got[0].Class != "internal" || !got[0].Parent.IsZero() {
			t.Errorf("%s: kept %d, the first %+v", message, len(got), got[0])
		}
		if p := problem(t, res); strings.Contains(p.Detail, "the inside") {
			t.Errorf("the client was told %q", p.Detail)
		}
	}
}

// TestNetworkErrors: a request that could not be sent is an error of the network.
func TestNetworkErrors(t *testing.T) {
	untraced(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	ctx := rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID()}})
	req, err := http.NewRequestWithContext(ctx, "BREW", gone.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&edge.Transport{}).RoundTrip(req)
	if err == nil {
		_ = res.Body.Close()
		t.Fatal("nobody listens")
	}
	got := recordsOf(rpc.CallFrom(ctx).Trace)
	if len(got) != 1 || got[0].Class != "network" || got[0].Method != "http/_OTHER" || got[0].Message == "" {
		t.Errorf("kept %+v", got)
	}
	if req.Header.Get("Traceparent") != "" {
		t.Error("the request that was given was changed")
	}
}

// TestRequestInFlight: a request is listed while its handler runs, with the stack.
func TestRequestInFlight(t *testing.T) {
	e := edge.New(edge.Config{Log: quiet(), AdmissionOff: true})
	inside, leave, done := make(chan *rpc.Call), make(chan struct{}), make(chan struct{})
	h := e.Handle("GET /slow", publish, func(_ http.ResponseWriter, r *http.Request) error {
		inside <- rpc.CallFrom(r.Context())
		<-leave
		return nil
	})
	go func() {
		defer close(done)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/slow", nil))
	}()
	c := process.InFlight().Find((<-inside).Span)
	if c == nil || c.Name() != "GET /slow" || c.Caller() != "" || c.Deadline.IsZero() {
		t.Fatalf("listed: %+v", c)
	}
	if stack, err := inflight.Stack(c); err != nil || !strings.Contains(string(stack), "TestRequestInFlight") {
		t.Errorf("stack: %v\n%s", err, stack)
	}
	close(leave)
	<-done
	if process.InFlight().Find(c.Span) != nil {
		t.Error("the request is still listed")
	}
}
