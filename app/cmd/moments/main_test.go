// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
)

// mainEnv makes the test binary the moments command, also for the children that the
// command starts.
const mainEnv = "MOMENTS_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// moments runs the command to its end.
func moments(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

// launch starts the command as a process of its own and waits until it says that it
// is up. It gives what the command has said.
func launch(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	cmd.Stderr = t.Output()
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for a test that failed
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var said bytes.Buffer
	for buf := make([]byte, 4096); !strings.Contains(said.String(), "Stop with Ctrl-C."); {
		n, err := output.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("ended before it was up: %v: %s", err, said.String())
		}
	}
	return cmd, said.String()
}

// start launches a Moments of its own.
func start(t *testing.T, args ...string) (*exec.Cmd, *cluster.State, string) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	cmd, said := launch(t, append(args, "--addr", "127.0.0.1:0", "--data", data, "--password-cost", "min")...)
	state, err := cluster.ReadState(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{data, state.Gateways[0].URL, "demo login", "moments status"} {
		if !strings.Contains(said, want) {
			t.Errorf("up does not print %q: %s", want, said)
		}
	}
	checkConsole(t, said)
	return cmd, state, data
}

// checkConsole asks the console whose address up has printed.
func checkConsole(t *testing.T, said string) {
	t.Helper()
	_, after, ok := strings.Cut(said, "\n  console ")
	if !ok {
		t.Fatalf("no console: %s", said)
	}
	res, err := http.Get(strings.Fields(after)[0] + "/api/status")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"processes"`) {
		t.Errorf("the console: %v, %s: %s", err, res.Status, body)
	}
}

func stop(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("stopped by Ctrl-C: %v, want exit code 0", err)
	}
}

// until waits for something that will be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s after 20 s", what)
		}
	}
}

func TestUp(t *testing.T) {
	cmd, _, data := start(t, "up")
	if code, out, errs := moments(t, "status", "--data", data); code != 0 || strings.Count(out, " ok") != len(topology.Roles()) {
		t.Errorf("status: %d, %s%s, want %d roles that are ok", code, out, errs, len(topology.Roles()))
	}
	if code, _, errs := moments(t, "up", "--data", data, "--addr", "127.0.0.1:0"); code != 1 || !strings.Contains(errs, "in use") {
		t.Errorf("a second one on the directory: %d, %s", code, errs)
	}
	dest := filepath.Join(t.TempDir(), "backup")
	if code, _, errs := moments(t, "backup", "--data", data, dest); code != 0 {
		t.Errorf("backup: %d, %s", code, errs)
	}
	login, err := os.ReadFile(filepath.Join(data, demoFile))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(data, demoFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the demo's password: %v, %v, want mode 0600", info, err)
	}
	stop(t, cmd)
	if code, _, errs := moments(t, "status", "--data", data); code != 1 || !strings.Contains(errs, "no running Moments") {
		t.Errorf("status of what is stopped: %d, %s", code, errs)
	}
	again := filepath.Join(t.TempDir(), "again")
	if code, _, errs := moments(t, "restore", dest, "--data", again); code != 0 {
		t.Errorf("restore: %d, %s", code, errs)
	}
	if code, _, _ := moments(t, "restore", dest, "--data", data); code != 1 {
		t.Errorf("restore over data: %d, want 1", code)
	}
	if len(strings.TrimSpace(string(login))) < 20 {
		t.Errorf("the demo's password %q is short", login)
	}
}

func TestUpSplit(t *testing.T) {
	cmd, state, data := start(t, "up", "--split")
	if len(state.Gateways) != 2 || len(state.Services) != len(topology.Placed()) || !state.Split {
		t.Fatalf("state %+v, want 2 gateways and %d services", state, len(topology.Placed()))
	}
	for _, g := range state.Gateways { // each its own page
		res, err := http.Get("http://" + g.Admin + "/admin/qos")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(page), "service gateway: admission on") {
			t.Errorf("%v, %s: %s", err, res.Status, page)
		}
	}
	goldenItems(t, "gateway", state.Gateways[0].Admin)
	for role, at := range state.Services {
		goldenItems(t, string(role), at.Admin)
	}
	post := state.Services[topology.Post]
	if err := syscall.Kill(post.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "dead", func() bool { return ended(post.PID) })
	// Its sockets are still there, so who comes now is served late but not refused.
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + post.Admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("after a crash: %s", res.Status)
	}
	until(t, "in the state", func() bool {
		now, err := cluster.ReadState(data)
		return err == nil && now.Services[topology.Post].PID != post.PID
	})
	if code, out, errs := moments(t, "status", "--data", data); code != 0 {
		t.Errorf("status after a crash: %d, %s%s", code, out, errs)
	}
	stop(t, cmd)
	if conn, err := net.Dial("tcp", post.Addr); err == nil {
		_ = conn.Close()
		t.Error("after the end somebody still listens")
	}
}

// TestChildrenEndWithTheirParent: however the parent ends.
func TestChildrenEndWithTheirParent(t *testing.T) {
	cmd, state, _ := start(t, "up", "--split")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	pids := []int{state.Gateways[0].PID, state.Gateways[1].PID}
	for _, at := range state.Services {
		pids = append(pids, at.PID)
	}
	for _, pid := range pids {
		until(t, "ended", func() bool { return ended(pid) })
	}
}

// ended reports whether a process is gone, or has ended and only waits to be asked
// how, which nobody may do where process 1 does not.
func ended(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestRefusals(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newData := func() string { return filepath.Join(t.TempDir(), "data") }
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a busy port", []string{"up", "--addr", busy.Addr().String(), "--data", newData()}, 1, "address already in use"},
		{"a busy port, split", []string{"up", "--split", "--addr", busy.Addr().String(), "--data", newData()}, 1, "address already in use"},
		{"a busy port for the console", []string{"up", "--addr", "127.0.0.1:0", "--console", busy.Addr().String(), "--password-cost", "min", "--data", newData()}, 1, "address already in use"},
		{"a foreign directory", []string{"up", "--data", foreign}, 1, "not a data directory of Moments"},
		{"an unknown flag", []string{"up", "--bogus"}, 2, "--help"},
		{"too much", []string{"up", "now"}, 2, "--help"},
		{"limits of another kind", []string{"up", "--limits", "maybe"}, 2, "on or off"},
		{"a cost of another kind", []string{"up", "--password-cost", "low"}, 2, "default or min"},
		{"a certificate without its key", []string{"up", "--tls-cert", "x"}, 2, "tls-key"},
		{"no role", []string{"run"}, 2, "--help"},
		{"an unknown role", []string{"run", "poster"}, 2, "account, post"},
		{"a role that nobody told where the others are", []string{"run", "gateway"}, 1, "--set account.addrs"},
		{"a configuration that is not there", []string{"run", "gateway", "--config", "/does/not/exist.yaml"}, 1, "exist.yaml"},
		{"a backup of nothing", []string{"backup", "--data", t.TempDir(), newData()}, 1, "no running Moments"},
		{"a restore of nothing", []string{"restore", t.TempDir(), "--data", newData()}, 1, "no finished backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, errs := moments(t, c.args...)
			if code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, %q, want %d and %q", code, errs, c.code, c.want)
			}
		})
	}
}

func TestEveryCommandHasExamples(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example or no short text", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	root := newRootCmd()
	root.SetOut(io.Discard)
	visit(root)
}
