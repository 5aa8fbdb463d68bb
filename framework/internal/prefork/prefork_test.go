// SPDX-License-Identifier: Apache-2.0

package prefork_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/restart"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// envProgram makes the test binary a server of the mode process; its value says how it is
// broken, if it is.
const envProgram = "PREFORK_TEST_PROGRAM"

// How a program is broken.
const (
	well = "well"
	ends = "ends" // its workers end before they serve
	sick = "sick" // its workers are never ready
	twin = "twin" // it has two such servers
)

const workers = 2

func TestMain(m *testing.M) {
	how := os.Getenv(envProgram)
	if how == "" {
		os.Exit(m.Run())
	}
	if err := program(how); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func program(how string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	srv := framework.NewServer(framework.ServerConfig{Service: "many", Admin: ":0", Mode: framework.ModeProcess, Workers: workers},
		framework.WithLogger(log), framework.WithReadiness(func(context.Context) error {
			if how == sick {
				return errors.New("sick")
			}
			return nil
		}))
	if how == sick {
		restart.Process().SetTimeout(100 * time.Millisecond)
	}
	testpb.RegisterEchoServer(srv, handler{})
	if how == ends && os.Getenv("SLUICE_WORKER") != "" {
		return errors.New("broken")
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	fmt.Println(srv.Addr(), srv.AdminAddr())
	if how == twin {
		other := framework.NewServer(framework.ServerConfig{Service: "twin", Mode: framework.ModeProcess}, framework.WithLogger(log))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- srv.Run(ctx) }()
		go func() { ended <- other.Run(ctx) }()
		err := <-ended
		cancel()
		return errors.Join(err, <-ended)
	}
	return srv.Run(context.Background())
}

// waits are the calls of this process that have begun to wait.
var waits atomic.Int64

type handler struct{ testpb.UnimplementedEchoServer }

// Echo answers with the number of its process: at once, or, of a request to wait, when it
// is told to end.
func (handler) Echo(ctx context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	switch req.Name {
	case "wait":
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM)
		defer signal.Stop(told)
		waits.Add(1)
		select {
		case <-told:
		case <-ctx.Done():
		}
	case "crash":
		os.Exit(4)
	}
	return &testpb.EchoResponse{Id: int64(os.Getpid()), Name: strconv.FormatInt(waits.Load(), 10)}, nil
}

// running is a program that a test has started.
type running struct {
	cmd         *exec.Cmd
	addr, admin string
	said        string // path of its log
	calls       int    // that find has had answered
}

func start(t *testing.T, how string) *running {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err) // who is left alone would be nobody's child
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{said: filepath.Join(t.TempDir(), "log")}
	said, err := os.Create(r.said)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(exe)
	r.cmd.Env = append(os.Environ(), envProgram+"="+how)
	r.cmd.Stdout, r.cmd.Stderr = w, said
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // what is left of a failed test
		_ = out.Close()
		if t.Failed() {
			t.Logf("its log: %s", r.log(t))
		}
	})
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && how == well {
		t.Fatalf("it did not begin: %v", err)
	}
	_, _ = fmt.Sscan(first, &r.addr, &r.admin)
	return r
}

func (r *running) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(r.said)
	if err != nil {
		t.Error(err)
	}
	return string(bytes.TrimSpace(b))
}

// worker is one process that serves, and a connection to it.
type worker struct {
	pid    int
	client testpb.EchoClient
	conn   io.Closer
}

// find connects until it has found so many workers that are none of those to be left out.
func (r *running) find(t *testing.T, n int, but ...int) []worker {
	t.Helper()
	var all []worker
	seen := map[int]bool{}
	for _, pid := range but {
		seen[pid] = true
	}
	for len(all) < n {
		conn, err := framework.Dial(framework.ClientConfig{Service: "many", Addrs: []string{r.addr}, Connections: 1, Retries: framework.Off, ConnectTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		client := testpb.NewEchoClient(conn)
		res, err := client.Echo(t.Context(), &testpb.EchoRequest{})
		if err == nil {
			r.calls++
		}
		if err != nil || seen[int(res.Id)] {
			_ = conn.Close() // another one, or one that has just been killed
			continue
		}
		seen[int(res.Id)] = true
		all = append(all, worker{int(res.Id), client, conn})
	}
	t.Cleanup(func() {
		for _, w := range all {
			_ = w.conn.Close()
		}
	})
	return all
}

// wait makes a call in the background that blocks, and waits until it is being served.
func (w *worker) wait(t *testing.T) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := w.client.Echo(t.Context(), &testpb.EchoRequest{Name: "wait"})
		ended <- err
	}()
	for waits := ""; waits != "1"; {
		res, err := w.client.Echo(t.Context(), &testpb.EchoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		waits = res.Name
	}
	return ended
}

// get reads a page of the supervisor.
func (r *running) get(t *testing.T, path string) string {
	t.Helper()
	status, body := r.fetch(t, http.MethodGet, path, "")
	if status != http.StatusOK {
		t.Fatalf("%s: status %d: %s", path, status, body)
	}
	return body
}

func (r *running) fetch(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// served is how many calls the items of all workers say that were made.
func (r *running) served(t *testing.T) (n int) {
	t.Helper()
	const item = `sluice_server_calls_total{rpc_method="sluice.test.v1.Echo/Echo"} `
	_, after, ok := strings.Cut(r.get(t, "/metrics"), item)
	if _, err := fmt.Sscan(after, &n); !ok || err != nil {
		t.Fatalf("/metrics does not have %s: %v", item, err)
	}
	return n
}

// TestOneAddress looks at both workers through the supervisor's pages.
func TestOneAddress(t *testing.T) {
	r := start(t, well)
	all := r.find(t, workers)
	for _, w := range all {
		for range 5 {
			if _, err := w.client.Echo(t.Context(), &testpb.EchoRequest{}); err != nil {
				t.Fatal(err)
			}
			r.calls++
		}
	}
	for n := 0; n != r.calls; n = r.served(t) { // a call is counted after its answer
		if n > r.calls {
			t.Fatalf("%d calls counted, want %d", n, r.calls)
		}
	}
	var graph struct {
		Rows []struct {
			Callee  string
			Results struct{ OK int }
		}
	}
	if err := json.Unmarshal([]byte(r.get(t, "/admin/graph?format=json")), &graph); err != nil || len(graph.Rows) != 1 || graph.Rows[0].Results.OK != r.calls {
		t.Errorf("the graph has %+v, want one edge of %d calls; %v", graph.Rows, r.calls, err)
	}
	for _, page := range []string{"/", "methods", "qos", "graph", "peers", "requests", "rpcz", "items", "call", "config", "log", "pprof/", "build", "health"} {
		for _, of := range []string{"", "?worker=1", "?worker=2"} {
			r.get(t, strings.Replace("/admin/"+page+of, "//", "/", 1))
		}
	}
	r.get(t, "/readyz")
	r.get(t, "/admin/pprof/goroutine?debug=1")
	if status, body := r.fetch(t, http.MethodGet, "/admin/methods?worker=3", ""); status != http.StatusNotFound {
		t.Errorf("a worker that is none: status %d: %s", status, body)
	}
	if text := r.get(t, "/admin/peers?format=json"); strings.Count(text, `"direction": "in"`) < workers {
		t.Errorf("not all connections are there: %s", text)
	}

	for _, w := range all {
		w.wait(t)
	}
	var requests struct {
		Items []struct{ Method, Span string }
	}
	for len(requests.Items) != len(all) { // a call leaves the list after its answer
		text := r.get(t, "/admin/requests?format=json")
		if err := json.Unmarshal([]byte(text), &requests); err != nil || len(requests.Items) < len(all) {
			t.Fatalf("requests in flight: %v: %s", err, text)
		}
	}
	for _, c := range requests.Items {
		if text := r.get(t, "/admin/requests?format=json&span="+c.Span); !strings.Contains(text, "prefork_test.handler.Echo") {
			t.Errorf("the stack of %s: %s", c.Span, text)
		}
	}

	if status, body := r.fetch(t, http.MethodPost, "/admin/call", `{"method":"sluice.test.v1.Echo/Echo","request":{"id":1},"reason":"test"}`); status != http.StatusOK || !strings.Contains(body, `"response"`) {
		t.Errorf("a call that is tried: status %d: %s", status, body)
	}
	if status, body := r.fetch(t, http.MethodPost, "/admin/call", `{"method":"sluice.test.v1.Echo/Echo","request":{"name":"wait"},"timeout_ms":50,"reason":"test"}`); status != http.StatusOK || !strings.Contains(body, `"trace"`) {
		t.Errorf("what has come of a call that lasts until its deadline: status %d: %s", status, body)
	}
	if status, body := r.fetch(t, http.MethodPost, "/admin/qos", `{"action":"pin","class":"post","reason":"test"}`); status != http.StatusOK {
		t.Fatalf("pin: status %d: %s", status, body)
	}
	pinned := func(of string) bool { return strings.Contains(r.get(t, "/admin/qos?format=json"+of), `"pinned": true`) }
	if !pinned("") || !pinned("&worker=1") || !pinned("&worker=2") {
		t.Error("not all workers are pinned")
	}

	before := r.served(t)
	if err := syscall.Kill(all[0].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := r.find(t, 1, all[0].pid, all[1].pid)[0]
	for w := ""; !strings.Contains(w, fmt.Sprintf(`"pid": %d`, again.pid)); { // it has answered before it was shown
		w = r.get(t, "/admin/?format=json")
	}
	if !pinned("&worker=1") || !pinned("&worker=2") {
		t.Error("the new worker is not pinned")
	}
	if after := r.served(t); after < before {
		t.Errorf("%d calls counted before a worker was killed, %d after", before, after)
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the supervisor: %v", err)
	}
}

// TestCrash kills a worker, and lets another crash: what it was serving fails, what others
// serve does not, and it comes again.
func TestCrash(t *testing.T) {
	r := start(t, well)
	all := r.find(t, workers)
	lost, kept := all[0].wait(t), all[1].wait(t)
	if err := syscall.Kill(all[0].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; rpc.ReasonOf(err) != rpc.ReasonNetwork {
		t.Errorf("a call in the killed worker: %v, want the network's fault", err)
	}
	again := r.find(t, 1, all[0].pid, all[1].pid)[0]
	if _, err := again.client.Echo(t.Context(), &testpb.EchoRequest{Name: "crash"}); rpc.ReasonOf(err) != rpc.ReasonNetwork {
		t.Errorf("a call that crashes its worker: %v, want the network's fault", err)
	}
	r.find(t, 1, all[0].pid, all[1].pid, again.pid)
	select {
	case err := <-kept:
		t.Errorf("a call in the other worker has ended: %v", err)
	default:
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-kept; err != nil {
		t.Errorf("a call that was being served on SIGTERM: %v", err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the supervisor: %v", err)
	}
	for _, want := range []string{"signal: killed", "exit status 4"} {
		if !strings.Contains(r.log(t), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// TestOrphans kills the supervisor: its workers drain and end.
func TestOrphans(t *testing.T) {
	r := start(t, well)
	all := r.find(t, workers)
	kept := all[0].wait(t)
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	if err := <-kept; err != nil {
		t.Errorf("a call that was being served: %v", err)
	}
	for _, w := range all {
		if _, err := syscall.Wait4(w.pid, nil, 0, nil); err != nil {
			t.Errorf("worker %d: %v", w.pid, err)
		}
	}
}

// TestHotRestart replaces all processes.
func TestHotRestart(t *testing.T) {
	r := start(t, well)
	all := r.find(t, workers)
	kept := all[0].wait(t)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := <-kept; err != nil {
		t.Errorf("a call that was being served: %v", err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the old supervisor: %v", err)
	}
	_, after, ok := strings.Cut(r.log(t), "this one drains\" service=many pid=")
	number, _, _ := strings.Cut(after, " ")
	next, err := strconv.Atoi(number)
	if !ok || err != nil {
		t.Fatalf("no new supervisor in the log: %s", r.log(t))
	}
	r.find(t, workers, all[0].pid, all[1].pid)
	if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(next, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("the new supervisor: %v, status %d", err, status.ExitStatus())
	}
}

// TestBroken starts programs that do not work: they end, and say why.
func TestBroken(t *testing.T) {
	for how, want := range map[string]string{
		ends: "did not become healthy: exit status 3",
		sick: "did not become healthy: it was not healthy within 100ms",
		twin: "of this program has it already",
	} {
		t.Run(how, func(t *testing.T) {
			r := start(t, how)
			if err := r.cmd.Wait(); r.cmd.ProcessState.ExitCode() != 3 {
				t.Errorf("%v, want exit status 3", err)
			}
			if text := r.log(t); !strings.Contains(text, want) {
				t.Errorf("the log does not say %q: %s", want, text)
			}
		})
	}
}
