// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	hellov1 "github.com/sluice-rpc/sluice/examples/hello/hello/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing/console"
)

type greeter struct {
	hellov1.UnimplementedGreeterServer
}

func (greeter) Greet(_ context.Context, req *hellov1.GreetRequest) (*hellov1.GreetResponse, error) {
	if req.GetName() == "" {
		return nil, rpc.Errorf(rpc.InvalidArgument, "name is empty")
	}
	return &hellov1.GreetResponse{Greeting: "Hello, " + req.GetName()}, nil
}

// TestRealServers: an HTTP entry calls a server of the framework over a socket, a
// scripted client asks it, and the console shows those numbers.
func TestRealServers(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	srv := framework.NewServer(framework.ServerConfig{Service: "hello", Addr: "127.0.0.1:0", Admin: "127.0.0.1:0"},
		framework.WithLogger(quiet), framework.WithoutSignals())
	hellov1.RegisterGreeterServer(srv, greeter{})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	run(t, srv.Run)
	conn, err := framework.Dial(framework.ClientConfig{Service: "hello", Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := hellov1.NewGreeterClient(conn)

	entry := edge.New(edge.Config{Log: quiet, Service: "door"})
	name := fmt.Sprintf("GET /hello/%d", time.Now().UnixNano()) // what counts lives as long as the test's process
	door := entry.Handle(name, nil, func(w http.ResponseWriter, r *http.Request) error {
		res, err := client.Greet(r.Context(), &hellov1.GreetRequest{Name: r.URL.Query().Get("name")})
		if err != nil {
			return err
		}
		_, _ = w.Write([]byte(res.GetGreeting()))
		return nil
	})
	var lc net.ListenConfig
	adminLis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return entry.ServeAdmin(ctx, adminLis, nil) })

	s := watch(t, nil, console.Target{Name: "hello", Addr: srv.AdminAddr()}, console.Target{Name: "door", Addr: adminLis.Addr().String()})
	s.now = time.Now()
	s.console.Round(t.Context(), s.now)
	const fine, bad = 40, 7
	for i := range fine + bad {
		query := "?name=Mary"
		if i < bad {
			query = ""
		}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, httptest.NewRequest("GET", "/hello/x"+query, nil))
		if want := map[bool]int{true: 400, false: 200}[i < bad]; w.Code != want {
			t.Fatalf("%d %s, want %d", w.Code, w.Body, want)
		}
	}
	s.console.Round(t.Context(), s.now.Add(10*time.Second))

	var e entries
	s.get("/api/entries?last=20s", &e)
	calls := map[string]uint64{}
	for _, one := range e.Entries {
		calls[one.Name] = one.Calls
		if one.Name == name && one.Failed != bad {
			t.Errorf("%+v, want %d failed", one, bad)
		}
	}
	if calls[name] != fine+bad {
		t.Errorf("%v, want %d requests", calls, fine+bad)
	}
	var g struct {
		Graph struct {
			Edges []struct {
				Stats  struct{ Results map[string]uint64 }
				Server *struct{ Results map[string]uint64 }
				Check  struct{ OK bool }
			}
		}
	}
	s.get("/api/graph?last=20s&entry="+url.QueryEscape(name), &g)
	if len(g.Graph.Edges) != 1 || !g.Graph.Edges[0].Check.OK || g.Graph.Edges[0].Stats.Results["ok"] != fine || g.Graph.Edges[0].Stats.Results["business_error"] != bad || g.Graph.Edges[0].Server.Results["ok"] != fine {
		t.Errorf("%+v, want %d ok and %d business errors at both ends", g, fine, bad)
	}
	var st status
	s.get("/api/status", &st)
	if len(st.Processes) != 2 || st.Processes[0].State+st.Processes[1].State != "oksame" && st.Processes[0].State+st.Processes[1].State != "sameok" {
		t.Errorf("%+v: both ports lead to one process", st.Processes)
	}
	var q struct {
		Processes []struct{ Now struct{ State string } }
	}
	s.get("/api/qos?last=20s", &q)
	if len(q.Processes) != 1 || q.Processes[0].Now.State != "open" {
		t.Errorf("%+v", q)
	}
	var items struct{ All int }
	s.get("/api/items?process=hello", &items)
	if items.All < 150 {
		t.Errorf("%d items", items.All)
	}
	// Both ports lead to one process: whichever answered first has its items.
	if shown, metrics := st.Processes[0].Items+st.Processes[1].Items, scrape(t, srv.AdminAddr()); shown < 500 || shown > metrics {
		t.Errorf("the console shows %d items, and /metrics has %d series", shown, metrics)
	}
}

// scrape counts the series that a process shows to Prometheus.
func scrape(t *testing.T, addr string) (series int) {
	t.Helper()
	res, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "#") {
			series++
		}
	}
	return series
}

// run runs something until the test ends.
func run(t *testing.T, what func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- what(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("end: %v", err)
		}
	})
}
