// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// TestRefusedWhereItIsRead sends requests of all shapes over connections of an overloaded
// process. Whoever refuses them, they are answered alike and in order, and those that
// matter more are served.
func TestRefusedWhereItIsRead(t *testing.T) {
	access := &logged{}
	e := edge.New(edge.Config{Log: quiet(), Access: slog.New(slog.NewJSONHandler(access, nil))})
	run(t, e)
	post := &rpc.Method{Service: "test.v1.Post", Name: "Publish", Class: qos.Post, Timeout: time.Second}
	critical := &rpc.Method{Service: "test.v1.Account", Name: "LogIn", Class: qos.Critical, Timeout: time.Second}
	mux := http.NewServeMux()
	echo := func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(w, r.Body)
		return err
	}
	mux.Handle("/posts/{post}", e.Handle("/posts/{post}", post, echo))
	mux.Handle("/login", e.Handle("/login", critical, echo))
	full := 0
	mux.Handle("/limited", e.HandleRoute("/limited", post, edge.Rules{Limit: func(*http.Request, string) error {
		full++
		return &edge.StatusError{Status: http.StatusTooManyRequests, Type: "slow-down"}
	}}, echo))
	mux.Handle("/", e.NotFound(mux))
	dial := serveOn(t, mux)
	pin(t, qos.PriorityOf(qos.Critical, qos.UserLevels-1))

	const refused, served = 503, 200
	get := "GET /posts/1 HTTP/1.1\r\nHost: h\r\n\r\n"
	at := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n" }
	with := func(header, body string) string {
		return "POST /posts/1 HTTP/1.1\r\nHost: h\r\n" + header + "\r\n\r\n" + body
	}
	tests := []struct {
		name  string
		sends [][]string // pieces; the next are sent when those before are answered
		want  [][]int
	}{
		{"one", [][]string{{get}}, [][]int{{refused}}},
		{"one after the other", [][]string{{get}, {get}, {get}}, [][]int{{refused}, {refused}, {refused}}},
		{"two in one piece", [][]string{{get + get}, {get}}, [][]int{{refused, refused}, {refused}}},
		{"in two pieces", [][]string{{get[:20], get[20:]}, {get}}, [][]int{{refused}, {refused}}},
		{"byte by byte", [][]string{strings.Split(get, ""), {get}}, [][]int{{refused}, {refused}}},
		{"with a body", [][]string{{with("Content-Length: 4", "abcd")}, {get}}, [][]int{{refused}, {refused}}},
		{"the body later", [][]string{{with("Content-Length: 4", ""), "abcd"}, {get}}, [][]int{{refused}, {refused}}},
		{"a request in a body", [][]string{{"POST /login HTTP/1.1\r\nHost: h\r\nContent-Length: " + fmt.Sprint(len(get)) + "\r\n\r\n", get}, {get}}, [][]int{{served}, {refused}}},
		{"a request in a body that is refused", [][]string{{with("Content-Length: "+fmt.Sprint(len(get)), ""), get}, {get}}, [][]int{{refused}, {refused}}},
		{"chunks", [][]string{{with("Transfer-Encoding: chunked", "4\r\nabcd\r\n0\r\n\r\n")}, {get}}, [][]int{{refused}, {refused}}},
		{"two lengths", [][]string{{with("Content-Length: 4\r\nContent-Length: 39", "abcd")}}, [][]int{{400}}},
		{"no host", [][]string{{"GET /posts/1 HTTP/1.1\r\n\r\n"}}, [][]int{{400}}},
		{"no request", [][]string{{"NONSENSE\r\n\r\n"}}, [][]int{{400}}},
		{"unknown address", [][]string{{at("/nowhere")}, {get}}, [][]int{{404}, {refused}}},
		{"a better one", [][]string{{at("/login")}, {get}, {at("/login")}}, [][]int{{served}, {refused}, {served}}},
		{"own limit first", [][]string{{at("/limited")}}, [][]int{{429}}},
		{"last of its connection", [][]string{{with("Connection: close", "")}}, [][]int{{refused}}},
		{"an old client", [][]string{{"GET /posts/1 HTTP/1.0\r\n\r\n"}}, [][]int{{refused}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t)
			answers := bufio.NewReader(c)
			for i, pieces := range test.sends {
				for _, piece := range pieces {
					if _, err := io.WriteString(c, piece); err != nil {
						t.Fatal(err)
					}
				}
				for _, want := range test.want[i] {
					checkAnswer(t, answers, want)
				}
			}
		})
	}
	if full != 1 {
		t.Errorf("the limit was asked %d times for one request", full)
	}
}

// checkAnswer reads one answer. All refusals are told alike.
func checkAnswer(t *testing.T, answers *bufio.Reader, want int) {
	t.Helper()
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		t.Fatalf("%d %q %v, want %d", res.StatusCode, got, err, want)
	}
	if want != http.StatusServiceUnavailable {
		return
	}
	var p edge.Problem
	if err := json.Unmarshal(got, &p); err != nil || p.Type != "overload" || p.RetryAfterMS <= 0 || len(p.TraceID) != 32 {
		t.Errorf("%s %v", got, err)
	}
	h := res.Header
	if h.Get("Retry-After") != "1" || h.Get("Date") == "" || !strings.Contains(h.Get("Traceparent"), p.TraceID) || h.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%v", h)
	}
}

// TestRefusedAreCounted compares what is counted of requests that are refused where they
// are read with what is counted of those that net/http has made.
func TestRefusedAreCounted(t *testing.T) {
	access := &logged{}
	e := edge.New(edge.Config{Log: quiet(), Access: slog.New(slog.NewJSONHandler(access, nil))})
	run(t, e)
	name := fmt.Sprintf("GET /counted-%d", time.Now().UnixNano())
	path := strings.TrimPrefix(name, "GET ")
	mux := http.NewServeMux()
	mux.Handle(name, e.Handle(name, &rpc.Method{Service: "test.v1.Echo", Name: "Echo", Class: qos.Browse, Timeout: time.Second}, func(w http.ResponseWriter, _ *http.Request) error { return nil }))
	dial := serveOn(t, mux)
	pin(t, 0)
	c := dial(t)
	answers := bufio.NewReader(c)
	one := "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"
	early := "HTTP/1.1 503 Service Unavailable\r\nDate: " // net/http puts the date last
	for i, piece := range []string{one, one, one + one} {
		if _, err := io.WriteString(c, piece); err != nil {
			t.Fatal(err)
		}
		if begin, err := answers.Peek(len(early)); err != nil || (string(begin) == early) != (i < 2) {
			t.Fatalf("%q %v: want the first two to be refused where they are read", begin, err)
		}
		for range strings.Count(piece, "GET") {
			checkAnswer(t, answers, http.StatusServiceUnavailable)
		}
	}
	until(t, "four lines", func() bool { return strings.Count(access.String(), `"entry":"`+name) == 4 })
	if n := strings.Count(access.String(), `"result":"overload"`); n != 4 {
		t.Errorf("%d of 4 are told as overload", n)
	}
}

// serveOn serves h on a free port until the test ends.
func serveOn(t *testing.T, h http.Handler) (dial func(*testing.T) net.Conn) {
	t.Helper()
	s, err := edge.NewServer(edge.ServerConfig{Log: quiet()}, h)
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { run <- s.Serve(ctx, ln) }() // ended by cancel
	t.Cleanup(func() {
		cancel()
		if err := <-run; err != nil {
			t.Error(err)
		}
	})
	return func(t *testing.T) net.Conn {
		t.Helper()
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
}
