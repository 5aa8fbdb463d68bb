// SPDX-License-Identifier: Apache-2.0

// Command jaeger checks the call graph and the traces against a real Jaeger.
//
//	go run ./examples/callgraph/jaeger -jaeger PATH/TO/all-in-one
//
// It runs a small system in which every request is traced, sends its spans over OTLP,
// finds them again by Jaeger's query API, and compares the dependencies that Jaeger
// makes of them with the call graph, edge by edge. The two have nothing in common but
// the calls: Jaeger goes by the parents of spans, the graph by counters.
//
// Jaeger knows dependencies of services only. So each method, and each entry, exports
// its spans as a service of its own: what Jaeger calls a service is a node of the graph.
//
// It prints a table and a line for each check, and exits 1 if one fails.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/otlp"
)

func main() {
	path := flag.String("jaeger", "", "Jaeger's all-in-one program, of version 1.76")
	requests := flag.Int("requests", 600, "how many requests the system gets, at most 40000")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := verify(ctx, *path, *requests, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "jaeger:", err)
		os.Exit(1)
	}
}

var errChecks = errors.New("not all checks passed")

// answerTime is how long Jaeger may take until it has it all.
const answerTime = 30 * time.Second

func verify(ctx context.Context, path string, requests int, out io.Writer) (err error) {
	if path == "" || requests < 1 || requests > 40_000 {
		return errors.New("want -jaeger PATH, and 1 to 40000 -requests; make verify-jaeger builds the program")
	}
	j, err := startJaeger(ctx, path)
	if err != nil {
		return err
	}
	defer j.stop()
	if err := framework.Tracer().SetRates(tracing.Rate{Ratio: 1}, nil); err != nil {
		return err
	}
	nodes := &nodes{ctx: ctx, endpoint: "http://" + j.otlp, exporters: map[string]*otlp.Exporter{}}
	framework.Tracer().SetExporter(nodes)
	s, err := startSystem(ctx)
	if err != nil {
		return err
	}
	ids := s.ask(ctx, requests)
	g, err := s.graph(ctx)
	for end := time.Now().Add(answerTime); err == nil && time.Now().Before(end); { // servers count after their callers
		atRest := true
		for _, e := range g.Edges {
			atRest = atRest && e.Check().Lost == 0
		}
		if atRest {
			break
		}
		g, err = s.graph(ctx)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	stats, err := nodes.shutdown(ctx)
	if err != nil {
		return err
	}

	type edge struct{ from, to string }
	ours, theirs := map[edge]uint64{}, map[edge]uint64{}
	var retries uint64
	for i := range g.Edges {
		e := &g.Edges[i]
		ours[edge{g.Nodes[e.From].Name, g.Nodes[e.To].Name}] = e.Server.Calls()
		retries += e.Client.AttemptCount() - e.Client.Calls()
	}
	var services []string
	for end := time.Now().Add(answerTime); ; {
		var deps []struct {
			Parent, Child string
			CallCount     uint64
		}
		if err := errors.Join(j.ask(ctx, "/api/services", &services),
			j.ask(ctx, fmt.Sprintf("/api/dependencies?endTs=%d&lookback=3600000", time.Now().UnixMilli()), &deps)); err != nil {
			return err
		}
		clear(theirs)
		for _, d := range deps {
			theirs[edge{d.Parent, d.Child}] = d.CallCount
		}
		if maps.Equal(ours, theirs) || time.Now().After(end) || !pause(ctx) {
			break
		}
	}
	all := maps.Clone(ours)
	maps.Copy(all, theirs)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "caller\tcallee\tgraph\tJaeger\t")
	for _, e := range slices.SortedFunc(maps.Keys(all), func(a, b edge) int { return slices.Compare([]string{a.from, a.to}, []string{b.from, b.to}) }) {
		mark := ""
		if ours[e] != theirs[e] {
			mark = "differs"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", e.from, e.to, ours[e], theirs[e], mark)
	}
	if err := w.Flush(); err != nil {
		return err
	}

	passed := true
	check := func(ok bool, format string, a ...any) {
		word := "PASS"
		if !ok {
			word, passed = "FAIL", false
		}
		_, _ = fmt.Fprintln(out, word, fmt.Sprintf(format, a...))
	}
	check(maps.Equal(ours, theirs) && len(ours) > 0, "%d edges of %d requests, Jaeger has %d: the same calls on each", len(ours), requests, len(theirs))
	check(retries > 0, "%d attempts were retries, and are calls of their own on both sides", retries)
	check(stats.Failed == 0 && stats.Dropped == 0 && stats.Exported > 0, "%d spans exported, %d failed, %d dropped", stats.Exported, stats.Failed, stats.Dropped)
	slices.Sort(services)
	check(slices.Equal(services, nodes.names()), "%d nodes of the graph are services of Jaeger", len(services))
	found, spans := j.find(ctx, ids)
	check(found == len(ids), "%d of %d traces are found by their id", found, len(ids))
	check(uint64(spans) == stats.Exported, "%d of %d spans are in them", spans, stats.Exported)
	for class, service := range map[string]string{"business_error": "shop.v1.Stock/Count", "timeout": "shop.v1.Advice/Suggest", "overloaded": "shop.v1.Price/Quote"} {
		n := j.search(ctx, service, class)
		check(n > 0, "%d traces are found by sluice.class=%s at %s (at most 20 are asked for)", n, class, service)
	}
	if !passed {
		return errChecks
	}
	return nil
}

func pause(ctx context.Context) bool {
	t := time.NewTimer(200 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// nodes exports the records of each node of the graph as those of a service.
type nodes struct {
	tracing.Exporter // none: no user code here has spans
	ctx              context.Context
	endpoint         string

	mu        sync.Mutex
	exporters map[string]*otlp.Exporter // guarded by mu
}

// Export implements tracing.Exporter.
func (n *nodes) Export(r *tracing.Record) bool {
	node := r.Method // who serves it
	if r.Kind == tracing.Client {
		if node = r.Caller; node == "" {
			node = r.Named
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.exporters[node]
	if e == nil {
		var err error
		e, err = otlp.New(n.ctx, otlp.Config{Service: node, Endpoint: n.endpoint, QueueSize: 1 << 16, Interval: 100 * time.Millisecond})
		if err != nil {
			slog.Error("no exporter", slog.Any("err", err))
			return false
		}
		n.exporters[node] = e
	}
	return e.Export(r)
}

// ContextValue implements tracing.Exporter.
func (*nodes) ContextValue(any, tracing.Identity, *tracing.Notes) any { return nil }

// SpanOf implements tracing.Exporter.
func (*nodes) SpanOf(context.Context) (tracing.Identity, bool) { return tracing.Identity{}, false }

func (n *nodes) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.exporters))
}

func (n *nodes) shutdown(ctx context.Context) (sum otlp.Stats, err error) {
	framework.Tracer().SetExporter(nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.exporters {
		err = errors.Join(err, e.Shutdown(ctx))
		s := e.Stats()
		sum.Exported += s.Exported
		sum.Failed += s.Failed
		sum.Dropped += s.Dropped
	}
	return sum, err
}

// jaeger is one that runs.
type jaeger struct {
	otlp, query string
	stop        func()
}

func startJaeger(ctx context.Context, path string) (*jaeger, error) {
	var addrs [7]string
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddr(ctx); err != nil {
			return nil, err
		}
	}
	j := &jaeger{otlp: addrs[0], query: addrs[1]}
	// By default it listens on all addresses.
	cmd := exec.CommandContext(ctx, path, "--memory.max-traces=50000", "--log-level=error", "--collector.otlp.enabled=true",
		"--collector.otlp.http.host-port="+addrs[0], "--query.http-server.host-port="+addrs[1], "--collector.otlp.grpc.host-port="+addrs[2],
		"--query.grpc-server.host-port="+addrs[3], "--admin.http.host-port="+addrs[4],
		"--collector.grpc-server.host-port="+addrs[5], "--collector.http-server.host-port="+addrs[6])
	cmd.Env = append(os.Environ(), "SPAN_STORAGE_TYPE=memory")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { // stop waits for it
		defer close(ended)
		_ = cmd.Wait()
	}()
	j.stop = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	for end := time.Now().Add(answerTime); ; {
		var services []string
		err := j.ask(ctx, "/api/services", &services)
		if err == nil {
			return j, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%s ended at once: run it by hand to see why", path)
		default:
		}
		if time.Now().After(end) || !pause(ctx) {
			j.stop()
			return nil, fmt.Errorf("%s does not answer: %w", path, err)
		}
	}
}

// ask decodes the data of an answer of the query API.
func (j *jaeger) ask(ctx context.Context, path string, data any) error {
	body, err := get(ctx, "http://"+j.query+path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return json.NewDecoder(body).Decode(&struct{ Data any }{data})
}

type trace struct{ Spans []struct{ SpanID string } }

// find asks for traces by id, and gives how many there are and their spans.
func (j *jaeger) find(ctx context.Context, ids []tracing.TraceID) (found, spans int) {
	for _, id := range ids {
		var traces []trace
		if err := j.ask(ctx, "/api/traces/"+id.String(), &traces); err == nil && len(traces) == 1 {
			found++
			spans += len(traces[0].Spans)
		}
	}
	return found, spans
}

// search asks for traces by service and class.
func (j *jaeger) search(ctx context.Context, service, class string) int {
	var traces []trace
	query := url.Values{"service": {service}, "limit": {"20"}, "tags": {fmt.Sprintf(`{"sluice.class":%q}`, class)}, "lookback": {"1h"}}
	if err := j.ask(ctx, "/api/traces?"+query.Encode(), &traces); err != nil {
		return 0
	}
	return len(traces)
}
