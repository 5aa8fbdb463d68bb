// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/tracing/console"
)

func TestMain(m *testing.M) {
	if os.Getenv(envService) != "" {
		if err := command(nil, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		// netpoll's pollers and the pools below kitex live as long as the process.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).runWorker"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/gopkg/concurrency/gopool.(*Pool).ticker"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
	)
}

// TestCallgraph: the demo starts, each entry has the graph that the code says, and the
// retries, the failing and the overloaded leaf show.
func TestCallgraph(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, ended := make(chan *system, 1), make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", 60, func(s *system) { ready <- s }) }()
	var s *system
	select {
	case s = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	const product, search = "GET /product", "GET /search"
	want := map[string][]string{
		product: {
			product + " > Shop/Product", "Catalog/Describe > Stock/Count", "Shop/Product > Advice/Suggest",
			"Shop/Product > Catalog/Describe", "Shop/Product > Price/Quote", "Shop/Product > Stock/Count",
		},
		search: {search + " > Shop/Search", "Shop/Search > Catalog/Find", "Shop/Search > Price/Quote"},
	}
	deadline := time.Now().Add(time.Minute)
	for entry, edges := range want {
		slices.Sort(edges)
		for {
			got := edgesOf(t, s, entry)
			names := slices.Sorted(maps.Keys(got))
			quote := got["Shop/Product > Price/Quote"]
			eventful := got["Shop/Product > Stock/Count"].Failed > 0 && got["Shop/Product > Advice/Suggest"].Failed > 0 && quote.Attempts > quote.Calls
			if slices.Equal(names, edges) && (eventful || entry != product) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has the edges %+v, want %q, with failures of Stock and Advice and retries of Price", entry, got, edges)
			}
			pause := time.NewTimer(100 * time.Millisecond)
			<-pause.C
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

type seen struct{ Calls, Attempts, Failed uint64 }

// edgesOf gives what the console prints of the edges of an entry.
func edgesOf(t *testing.T, s *system, entry string) map[string]seen {
	t.Helper()
	out, err := console.Graph(t.Context(), console.Config{Targets: console.Static(s.targets...)}, 0, console.GraphQuery{Entry: entry, Format: "json"})
	if err != nil {
		t.Log(err) // not all is there yet
		return nil
	}
	var g struct {
		Nodes []struct{ Name string }
		Edges []struct {
			From, To int
			Stats    seen
		}
	}
	if err := json.Unmarshal(out, &g); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	edges := map[string]seen{}
	for _, e := range g.Edges {
		name := func(node int) string { return strings.TrimPrefix(g.Nodes[node].Name, "shop.v1.") }
		edges[name(e.From)+" > "+name(e.To)] = e.Stats
	}
	return edges
}
