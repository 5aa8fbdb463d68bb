// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// TestTruth: what a scripted client does to real servers stands, to the call, in the
// items of both sides, in the call graphs of both sides, and in a Prometheus that reads
// them. When a server is killed and started again no counter goes down.
//
// The servers are processes of their own, so that nothing else counts in them.
func TestTruth(t *testing.T) {
	const (
		fine, no, failed, panicked, late = 40, 11, 3, 2, 5 // calls of the free server, by their end
		rejected                         = 7               // by the full one, which works on another call
		retried                          = 4               // calls that the full one refused and the free one served
		unsent, nowhere                  = 6, 3            // too late to be sent; no server there
	)
	name := fmt.Sprintf("truth-%d", time.Now().UnixNano()) // this process counts for other tests, too
	free, full := startTruth(t, "free", name, 0, ""), startTruth(t, "full", name, 1, "")
	caller := callerOf(t)
	w := &witnesses{t: t, processes: []*truthProcess{free, full, caller}}
	w.prometheus = startPrometheus(t, w.processes)
	w.pull()

	s := &script{t: t, service: name, entries: [2]string{"GET /" + name, "PUT /" + name}}
	toFree, toFull := s.dial(free.addr), s.dial(full.addr)
	s.act(toFree, fine, "", rpc.ReasonHandler, 0)
	s.act(toFree, no, "error", rpc.ReasonHandler, rpc.NotFound)
	s.act(toFree, failed, "plain-error", rpc.ReasonHandler, rpc.Internal)
	s.act(toFree, panicked, "panic", rpc.ReasonPanic, rpc.Internal)
	s.short(toFree, late, 500*time.Millisecond)
	w.pull()

	s.hold(toFull, full)
	s.act(toFull, rejected, "", rpc.ReasonOverload, rpc.ResourceExhausted)
	toBoth, spread := s.dial(full.addr, free.addr), 0
	for full.results(callgraph.Overloaded) < rejected+retried {
		if spread++; spread > 100 {
			t.Fatalf("%d calls of two servers, and hardly any was refused by the full one", spread)
		}
		s.act(toBoth, 1, "", rpc.ReasonHandler, 0)
	}
	s.short(toFree, unsent, -time.Second)
	s.act(s.dial(closedAddr(t)), nowhere, "", rpc.ReasonNoInstance, rpc.Unavailable)

	served := fine + spread + no + failed + panicked + late
	sent := served + rejected
	first := []fact{
		{"free", "sluice_server_calls_total", "", served},
		{"free", "sluice_server_results_total", `result="ok"`, fine + spread},
		{"free", "sluice_server_results_total", `result="biz_error"`, no},
		{"free", "sluice_server_results_total", `result="internal"`, failed},
		{"free", "sluice_server_results_total", `result="panic"`, panicked},
		{"free", "sluice_server_results_total", `result="timeout"`, late},
		{"free", "sluice_server_results_total", "", served},
		{"free", "rpc_server_call_duration_seconds_count", `outcome="served"`, served},
		{"free", "rpc_server_call_duration_seconds_bucket", `outcome="served",le="+Inf"`, served},
		{"free", "rpc_server_call_duration_seconds_count", `outcome="refused"`, 0},
		{"free", "sluice_server_in_flight", "", 0},

		{"full", "sluice_server_calls_total", "", rejected + retried},
		{"full", "sluice_server_results_total", `result="overload"`, rejected + retried},
		{"full", "sluice_server_results_total", "", rejected + retried},
		{"full", "rpc_server_call_duration_seconds_count", `outcome="refused"`, rejected + retried},
		{"full", "rpc_server_call_duration_seconds_count", `outcome="served"`, 0},
		{"full", "sluice_server_in_flight", "", 0},
	}
	called := []fact{
		{"caller", "sluice_client_calls_total", "", sent + unsent + nowhere},
		{"caller", "sluice_client_results_total", `result="ok"`, fine + spread},
		{"caller", "sluice_client_results_total", `result="biz_error"`, no},
		{"caller", "sluice_client_results_total", `result="internal"`, failed + panicked},
		{"caller", "sluice_client_results_total", `result="timeout"`, late + unsent},
		{"caller", "sluice_client_results_total", `result="peer_overload"`, rejected},
		{"caller", "sluice_client_results_total", `result="no_instance"`, nowhere},
		{"caller", "sluice_client_results_total", "", sent + unsent + nowhere},
		{"caller", "sluice_client_attempts_total", `attempt="first"`, sent},
		{"caller", "sluice_client_attempts_total", `attempt="retry"`, retried},
		{"caller", "sluice_client_saved_total", "", retried},
		{"caller", "sluice_client_in_flight", "", 0},
	}
	for i := range called {
		called[i].labels = strings.TrimPrefix(called[i].labels+`,callee="`+name+`"`, ",")
	}
	w.agree(slices.Concat(first, called))

	calls := counts{
		callgraph.OK: uint64(fine + spread), callgraph.BusinessError: no, callgraph.Internal: failed, callgraph.Panic: panicked,
		callgraph.Timeout: late, callgraph.Overloaded: rejected,
		callgraph.Unsent: unsent, callgraph.NoInstance: nowhere,
	}
	attempts, atServers := calls, calls
	attempts[callgraph.Overloaded] += retried
	atServers[callgraph.Overloaded] += retried
	atServers[callgraph.Unsent], atServers[callgraph.NoInstance] = 0, 0
	w.graph(s.entries[:], calls, attempts, atServers)

	// The free server dies without a word, and another one takes its place.
	free.kill()
	again := startTruth(t, "free", name, 0, free.addr+" "+free.admin)
	w.processes[0] = again
	toAgain := s.dial(again.addr)
	const more, moreNo = 8, 2
	s.act(toAgain, more, "", rpc.ReasonHandler, 0)
	w.pull()
	s.act(toAgain, moreNo, "error", rpc.ReasonHandler, rpc.NotFound)
	w.agree([]fact{
		{"free", "sluice_server_calls_total", "", more + moreNo},
		{"free", "sluice_server_results_total", `result="ok"`, more},
		{"free", "sluice_server_results_total", `result="biz_error"`, moreNo},
		{"free", "rpc_server_call_duration_seconds_count", `outcome="served"`, more + moreNo},
		{"caller", "sluice_client_calls_total", `callee="` + name + `"`, sent + unsent + nowhere + more + moreNo},
	})
	for _, c := range []*counts{&calls, &attempts, &atServers} {
		c[callgraph.OK] += more
		c[callgraph.BusinessError] += moreNo
	}
	w.graph(s.entries[:], calls, attempts, atServers)
	if w.restarts != 1 {
		t.Errorf("%d restarts were seen, want 1", w.restarts)
	}
	if w.prometheus != nil { // it still knows what the first one had counted
		for _, f := range first {
			if f.at == "free" && f.want > 0 {
				if got := w.prometheus.sum("max_over_time(" + f.selector() + "[10m])"); got != float64(f.want) {
					t.Errorf("before the restart: Prometheus has %v of %s, want %d", got, f.selector(), f.want)
				}
			}
		}
	}
}

var actMethod = testpb.EchoActMethod.FullName()

type counts = [callgraph.NumClasses]uint64

// script is a client that keeps to what it is told.
type script struct {
	t       *testing.T
	service string
	entries [2]string
	calls   int
}

func (s *script) dial(addrs ...string) testpb.EchoClient {
	s.t.Helper()
	conn, err := framework.Dial(framework.ClientConfig{Service: s.service, Addrs: addrs})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewEchoClient(conn)
}

// context gives that of a request: every other one comes in by the other entry.
func (s *script) context() context.Context {
	s.calls++
	return rpc.WithCall(s.t.Context(), &rpc.Call{Header: rpc.Header{Entry: tracing.EntryOf(s.entries[s.calls%2]), Trace: tracing.NewTraceID()}})
}

// act makes n calls that end in the same way.
func (s *script) act(client testpb.EchoClient, n int, act string, reason rpc.Reason, code rpc.Code) {
	s.t.Helper()
	for range n {
		_, err := client.Act(s.context(), &testpb.ActRequest{Act: act})
		if code == 0 && err != nil || code != 0 && (rpc.CodeOf(err) != code || rpc.ReasonOf(err) != reason) {
			s.t.Fatalf("%q: %v (%v), want %v of %v", act, err, rpc.ReasonOf(err), code, reason)
		}
	}
}

// short makes n calls at once that do not end in their time.
func (s *script) short(client testpb.EchoClient, n int, budget time.Duration) {
	s.t.Helper()
	var g sync.WaitGroup
	for range n {
		ctx, cancel := context.WithDeadline(s.context(), time.Now().Add(budget))
		g.Go(func() {
			defer cancel()
			if _, err := client.Act(ctx, &testpb.ActRequest{Act: "block"}); rpc.ReasonOf(err) != rpc.ReasonDeadline {
				s.t.Errorf("a call of %v: %v", budget, err)
			}
		})
	}
	g.Wait()
}

// hold keeps a server busy with a call of another method until the test ends.
func (s *script) hold(client testpb.EchoClient, server *truthProcess) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var held sync.WaitGroup
	held.Go(func() { _, _ = client.Echo(ctx, &testpb.EchoRequest{}) })
	s.t.Cleanup(func() {
		cancel()
		held.Wait()
	})
	until(s.t, "the server is busy", func() bool {
		return strings.Contains(server.page("/metrics"), fmt.Sprintf("sluice_server_in_flight{rpc_method=%q} 1\n", testpb.EchoEchoMethod.FullName()))
	})
}

// fact is the sum of some series of Act in one process.
type fact struct {
	at, name, labels string
	want             int
}

func (f fact) selector() string {
	return fmt.Sprintf(`%s{job=%q,rpc_method=%q,%s}`, f.name, f.at, actMethod, f.labels)
}

// sumOf adds up the series of an exposition that a fact is about.
func sumOf(text string, f fact) (sum float64) {
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		name, labels, _ := strings.Cut(series, "{")
		has := func(label string) bool { return slices.Contains(strings.Split(labels, ","), label) }
		if name != f.name || !has(fmt.Sprintf("rpc_method=%q", actMethod)) {
			continue
		}
		if f.labels == "" || !slices.ContainsFunc(strings.Split(f.labels, ","), func(l string) bool { return !has(l) }) {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return -1
			}
			sum += v
		}
	}
	return sum
}

// witnesses look at the processes from outside.
type witnesses struct {
	t          *testing.T
	processes  []*truthProcess
	prometheus *prometheus // nil without one
	last       map[string]*callgraph.Snapshot
	merged     callgraph.Period // of all processes that there ever were
	restarts   int
}

// agree waits until every witness has seen the facts: what a server counts last it may
// count after its caller.
func (w *witnesses) agree(facts []fact) {
	w.t.Helper()
	for _, witness := range []struct {
		name string
		sum  func(fact) float64
	}{
		{"/metrics", func(f fact) float64 { return sumOf(w.process(f.at).page("/metrics"), f) }},
		{"Prometheus", func(f fact) float64 { return w.prometheus.sum(f.selector()) }},
	} {
		if witness.name == "Prometheus" && w.prometheus == nil {
			continue
		}
		for _, f := range facts {
			var got float64
			for end := time.Now().Add(20 * time.Second); ; {
				if got = witness.sum(f); got == float64(f.want) || time.Now().After(end) {
					break
				}
				pause(w.t, 20*time.Millisecond)
			}
			if got != float64(f.want) {
				w.t.Errorf("%s has %v of %s, want %d", witness.name, got, f.selector(), f.want)
			}
		}
		if w.t.Failed() {
			w.t.FailNow() // the others would wait in vain
		}
	}
	for _, p := range w.processes {
		lint(w.t, p)
	}
}

func (w *witnesses) process(name string) *truthProcess {
	return w.processes[slices.IndexFunc(w.processes, func(p *truthProcess) bool { return p.name == name })]
}

// pull adds to the merged view what the processes have counted since the last pull, and
// sees that no counter of it goes down.
func (w *witnesses) pull() {
	w.t.Helper()
	if w.last == nil {
		w.last = map[string]*callgraph.Snapshot{}
	}
	before := w.merged
	for _, p := range w.processes {
		snap := p.snapshot()
		window, c := callgraph.Window(w.last[p.name], snap)
		switch c {
		case callgraph.Restarted:
			w.restarts++
		case callgraph.Regressed:
			w.t.Errorf("counters of %s went down", p.name)
		case callgraph.Continuous:
		}
		w.last[p.name] = snap
		w.merged = callgraph.Merge(w.merged, window)
	}
	for _, old := range before.Rows {
		i := slices.IndexFunc(w.merged.Rows, func(r callgraph.Row) bool { return r.Key == old.Key })
		if i < 0 {
			w.t.Errorf("%v is gone from the merged view", old.Key)
			continue
		}
		now := w.merged.Rows[i]
		down := now.Nanos < old.Nanos || now.RequestBytes < old.RequestBytes || now.ResponseBytes < old.ResponseBytes
		for c := range old.Results {
			down = down || now.Results[c] < old.Results[c] || now.Attempts[c] < old.Attempts[c]
		}
		for b := range callgraph.NumBuckets {
			down = down || now.Latency.At(b) < old.Latency.At(b)
		}
		if down {
			w.t.Errorf("%v went down in the merged view, from %+v to %+v", old.Key, old.Stats, now.Stats)
		}
	}
}

// graph compares the merged view of some entries with what was done, and each server's
// edges with its items.
func (w *witnesses) graph(entries []string, calls, attempts, served counts) {
	w.t.Helper()
	w.pull()
	var client, server callgraph.Stats
	for _, entry := range entries {
		var ends [2]callgraph.Stats // of this entry's edge
		for _, r := range w.merged.Rows {
			if r.Entry == tracing.EntryOf(entry) && r.Callee == actMethod && r.Caller == callgraph.AtEntryName {
				ends[r.Side] = r.Stats
			}
		}
		c := callgraph.CheckEdge(ends[callgraph.Client], ends[callgraph.Server])
		if !c.OK() || c.Lost != 0 || c.Attempts == 0 {
			w.t.Errorf("%s: attempts are not served + not delivered: %+v", entry, c)
		}
		g := callgraph.Build(w.merged, 0, tracing.EntryOf(entry))
		if len(g.Edges) != 1 || g.Edges[0].Client.Calls() != ends[callgraph.Client].Calls() || g.Edges[0].Check() != c {
			w.t.Errorf("the graph of %s is %+v", entry, g.Edges)
		}
		client, server = client.Plus(ends[callgraph.Client]), server.Plus(ends[callgraph.Server])
	}
	if client.Results != calls || client.Attempts != attempts {
		w.t.Errorf("the caller's graph has %v calls and %v attempts, want %v and %v", client.Results, client.Attempts, calls, attempts)
	}
	if server.Results != served {
		w.t.Errorf("the servers' graphs have %v calls, want %v", server.Results, served)
	}
	for _, p := range w.processes {
		if p.name == "caller" {
			continue
		}
		sum, items := uint64(0), sumOf(p.page("/metrics"), fact{name: "sluice_server_calls_total"})
		for _, r := range w.last[p.name].Rows {
			if r.Side == callgraph.Server && r.Callee == actMethod {
				sum += r.Calls()
			}
		}
		if float64(sum) != items || sum == 0 {
			w.t.Errorf("%s: the edges have %d calls in all, the method %v", p.name, sum, items)
		}
	}
}

// truthProcess is a process as its admin port shows it.
type truthProcess struct {
	t                 *testing.T
	name, addr, admin string
	kill              func()
}

var noKeepAlive = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

func getBody(ctx context.Context, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := noKeepAlive.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", target, res.Status, body)
	}
	return body, err
}

func (p *truthProcess) page(path string) string {
	p.t.Helper()
	body, err := getBody(p.t.Context(), "http://"+p.admin+path)
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return string(body)
}

func (p *truthProcess) snapshot() *callgraph.Snapshot {
	p.t.Helper()
	snap, err := callgraph.ReadSnapshot(strings.NewReader(p.page("/admin/graph?format=json")))
	if err != nil {
		p.t.Fatal(err)
	}
	return snap
}

// results gives the calls of Act that the process has served and that ended so.
func (p *truthProcess) results(c callgraph.Class) (n uint64) {
	p.t.Helper()
	for _, r := range p.snapshot().Rows {
		if r.Side == callgraph.Server && r.Callee == actMethod {
			n += r.Results[c]
		}
	}
	return n
}

const envTruth = "SLUICE_TEST_TRUTH"

// startTruth starts the test's binary again as a server that works on at most so many
// calls at once, none for many; at the addresses of another one that is gone, if they
// are given.
func startTruth(t *testing.T, name, service string, limit int, at string) *truthProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", envTruth, service, limit, at))
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &truthProcess{t: t, name: name}
	p.kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = in.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, e := fmt.Sscan(line, &p.addr, &p.admin); e != nil {
		t.Fatalf("the server said %q: %v", line, errors.Join(err, e))
	}
	return p
}

// serveTruth is the main function of such a server.
func serveTruth(spec string, in io.Reader, out io.Writer) error {
	var service string
	var limit int
	addr, admin := "127.0.0.1:0", "127.0.0.1:0"
	if n, err := fmt.Sscan(spec, &service, &limit, &addr, &admin); n < 2 {
		return err
	}
	srv := framework.NewServer(framework.ServerConfig{Service: service, Addr: addr, Admin: admin, MaxInFlight: limit, Admission: framework.Off},
		framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.RegisterEchoServer(srv, blocking{testpb.NewServer()})
	if err := srv.Listen(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, srv.Addr(), srv.AdminAddr()); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in) // ends with the test
		stop()
	}()
	return srv.Run(ctx)
}

// blocking is a server whose Echo has no end.
type blocking struct{ *testpb.Server }

func (blocking) Echo(ctx context.Context, _ *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// callerOf shows this process, which makes the calls.
func callerOf(t *testing.T) *truthProcess {
	t.Helper()
	srv := framework.NewServer(framework.ServerConfig{Service: "caller", Admin: "127.0.0.1:0"}, framework.WithoutSignals(),
		framework.WithLogger(slog.New(slog.DiscardHandler)))
	testpb.NewServer().Register(srv)
	run(t, srv)
	return &truthProcess{t: t, name: "caller", admin: srv.AdminAddr()}
}

// closedAddr gives an address where nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	return lis.Addr().String()
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// debian gives the path of a program of Debian's package prometheus, installed or as
// .ci/deps unpacks it; empty if it is missing.
func debian(program string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	path, err := filepath.Abs(filepath.Join("..", "build", "debian", "usr", "bin", program))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// lint has promtool read what a process exposes.
func lint(t *testing.T, p *truthProcess) {
	t.Helper()
	path := debian("promtool")
	if path == "" {
		return // startPrometheus has said so
	}
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(p.page("/metrics"))
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics of %s: %v\n%s", p.name, err, out)
	}
}

// prometheus is a real one that scrapes every second.
type prometheus struct {
	t    *testing.T
	addr string
}

// startPrometheus gives nil, and says why, if there is none.
func startPrometheus(t *testing.T, processes []*truthProcess) *prometheus {
	t.Helper()
	path := debian("prometheus")
	if path == "" {
		t.Log("no Prometheus looks at the numbers, nor promtool at the text; to have both: apt-get install -y --no-install-recommends prometheus, or run .ci/deps")
		return nil
	}
	dir := t.TempDir()
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n")
	for _, p := range processes {
		fmt.Fprintf(&config, "- {job_name: %s, static_configs: [{targets: [%q]}]}\n", p.name, p.admin)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, read := make(chan string, 1), make(chan struct{})
	go func() { // says where it listens, and must be read on
		defer close(read)
		defer close(found)
		lines := bufio.NewScanner(log)
		for said := false; lines.Scan(); {
			if m := listening.FindSubmatch(lines.Bytes()); m != nil && !said {
				said = true
				found <- string(m[1])
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	addr := <-found
	if addr == "" {
		t.Fatal("Prometheus ended before it listened")
	}
	return &prometheus{t: t, addr: addr}
}

var listening = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// sum gives the sum of what an expression selects, -1 if that is nothing.
func (p *prometheus) sum(expr string) float64 {
	p.t.Helper()
	body, err := getBody(p.t.Context(), "http://"+p.addr+"/api/v1/query?query="+url.QueryEscape("sum("+expr+")"))
	if err != nil {
		return -1 // not ready yet
	}
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any // time and text
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Result) != 1 {
		return -1
	}
	v, err := strconv.ParseFloat(fmt.Sprint(answer.Data.Result[0].Value[1]), 64)
	if err != nil {
		return -1
	}
	return v
}
