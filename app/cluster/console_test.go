// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/tracing/console"
)

// TestGraphOfMoments: people post and read, and the console's graph of both entries has
// exactly what they did, through outbox and fan-out, and what the gateway's log of
// requests says.
func TestGraphOfMoments(t *testing.T) {
	node := testConfig(openData(t, t.TempDir()), topology.Roles()...)
	node.Topology.Gateway.AccessLog = filepath.Join(t.TempDir(), "access.log")
	n, _ := runNode(t, node)
	call := func(method, path, token string, body any, into any) {
		t.Helper()
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, n.URL()+path, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		answer, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 300 {
			t.Fatalf("%s %s: %v, %s: %s", method, path, err, res.Status, answer)
		}
		if into != nil {
			if err := json.Unmarshal(answer, into); err != nil {
				t.Fatal(err)
			}
		}
	}
	var session struct{ Token string }
	call("POST", "/accounts", "", map[string]string{"name": "mary", "password": password}, nil)
	call("POST", "/sessions", "", map[string]string{"name": "mary", "password": password}, &session)

	cfg := console.Config{Targets: console.Static(console.Target{Name: "moments", Addr: n.GatewayAdmin()})}
	// edges gives the calls of each edge of an entry, as its caller and as its callee
	// have counted.
	edges := func(entry string) map[string][2]uint64 {
		t.Helper()
		out, err := console.Graph(t.Context(), cfg, 0, console.GraphQuery{Entry: entry, Format: "json"})
		if err != nil {
			t.Fatal(err)
		}
		var g struct {
			Nodes []struct {
				Name  string
				Stats struct{ Calls uint64 }
			}
			Edges []struct {
				From, To int
				Stats    struct{ Calls uint64 }
				Server   *struct{ Calls uint64 }
			}
		}
		if err := json.Unmarshal(out, &g); err != nil {
			t.Fatal(err)
		}
		calls := map[string][2]uint64{}
		for _, node := range g.Nodes {
			if node.Name == entry {
				calls[entry] = [2]uint64{node.Stats.Calls, node.Stats.Calls}
			}
		}
		for _, e := range g.Edges {
			both := [2]uint64{e.Stats.Calls, 0}
			if e.Server != nil {
				both[1] = e.Server.Calls
			}
			calls[g.Nodes[e.From].Name+" -> "+g.Nodes[e.To].Name] = both
		}
		return calls
	}
	// Other tests of this process have counted, too: what is new is ours.
	beforePosts, beforeReads := edges("POST /posts"), edges("GET /timeline")
	const posts, reads = 12, 9
	for i := range posts {
		call("POST", "/posts", session.Token, map[string]string{"text": fmt.Sprintf("post %d", i)}, nil)
	}
	for range reads {
		call("GET", "/timeline", session.Token, nil, nil)
	}
	const (
		some           = 0 // at least one, at both ends the same
		post, timeline = "moments.v1.PostService/", "moments.v1.TimelineService/"
	)
	for entry, c := range map[string]struct {
		before map[string][2]uint64
		want   map[string]uint64
	}{
		"POST /posts": {beforePosts, map[string]uint64{
			"POST /posts": posts, "POST /posts -> " + post + "Publish": posts,
			post + "Publish -> " + post + "outbox": posts, post + "outbox -> " + timeline + "FanOut": some, // who has no friends is looked at once
		}},
		"GET /timeline": {beforeReads, map[string]uint64{
			"GET /timeline": reads, "GET /timeline -> " + timeline + "Home": reads, timeline + "Home -> " + post + "GetMany": reads,
		}},
	} {
		var wrong string
		for deadline := time.Now().Add(20 * time.Second); ; { // fan-out comes a moment later
			wrong = ""
			now := edges(entry)
			for edge, want := range c.want {
				if want == some {
					want = max(now[edge][0]-c.before[edge][0], 1)
				}
				for side, got := range now[edge] {
					if got -= c.before[edge][side]; got != want {
						wrong += fmt.Sprintf("%s, side %d: %d calls, want %d\n", edge, side, got, want)
					}
				}
			}
			if wrong == "" || time.Now().After(deadline) {
				break
			}
			pause := time.NewTimer(50 * time.Millisecond)
			<-pause.C
		}
		if wrong != "" {
			t.Errorf("%s:\n%v", wrong, edges(entry))
		}
	}
	log, err := os.ReadFile(node.Topology.Gateway.AccessLog)
	if err != nil {
		t.Fatal(err)
	}
	logged := map[string]int{}
	for dec := json.NewDecoder(bytes.NewReader(log)); dec.More(); {
		var line struct{ Entry string }
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		logged[line.Entry]++
	}
	if logged["POST /posts"] != posts || logged["GET /timeline"] != reads {
		t.Errorf("the gateway's log has %v, want %d posts and %d reads", logged, posts, reads)
	}
}

// TestConsoleAddress: the usual one, a free one if that is taken, an error for one that
// was asked for.
func TestConsoleAddress(t *testing.T) {
	n, _ := runNode(t, testConfig(openData(t, t.TempDir()), topology.Roles()...))
	state := stateOf(n)
	state.Gateways[0].Admin = n.GatewayAdmin()
	quiet := slog.New(slog.DiscardHandler)
	if busy, err := net.Listen("tcp", cluster.DefaultConsole); err == nil {
		defer func() { _ = busy.Close() }()
	}
	c, err := cluster.OpenConsole(t.Context(), "", &state, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if c.URL() == "http://"+cluster.DefaultConsole {
		t.Errorf("%s is taken", c.URL())
	}
	if _, err := cluster.OpenConsole(t.Context(), c.URL()[len("http://"):], &state, quiet); err == nil {
		t.Error("an address that is taken was accepted")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
