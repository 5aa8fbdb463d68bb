// SPDX-License-Identifier: Apache-2.0

package restart_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/framework/restart"
)

// envBroken makes the test binary a program to be restarted: it names a file that, if it
// is there, breaks a new program.
const envBroken = "RESTART_TEST_BROKEN"

func TestMain(m *testing.M) {
	if broken := os.Getenv(envBroken); broken != "" {
		if err := program(broken); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// program tells everybody who connects the number of its process.
func program(broken string) error {
	p := restart.Process()
	ctx, stop := p.Watch(context.Background(), slog.Default())
	defer stop()
	lis, err := p.Listen("numbers", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := os.Stat(broken); err == nil && p.IsSuccessor() {
		return fmt.Errorf("broken as %s says", broken)
	}
	fmt.Println(lis.Addr())
	p.Ready()
	defer context.AfterFunc(ctx, func() { _ = lis.Close() })()
	for {
		conn, err := lis.Accept()
		if err != nil {
			return nil // closed
		}
		_, _ = fmt.Fprint(conn, os.Getpid())
		_ = conn.Close()
	}
}

// TestReplace replaces a program, and then tries one that is broken.
func TestReplace(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err) // the new program would be nobody's child
	}
	broken := filepath.Join(t.TempDir(), "broken")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	said, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), envBroken+"="+broken)
	cmd.Stdout, cmd.Stderr = w, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	t.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	})
	_ = w.Close()
	var addr string
	if _, err := fmt.Fscan(out, &addr); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr); got != pid {
		t.Fatalf("process %d answers, want %d", got, pid)
	}

	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	old := pid
	for pid == old { // each is answered by one or the other
		pid = ask(t, addr)
	}
	if _, err := syscall.Wait4(old, nil, 0, nil); err != nil {
		t.Fatalf("the old program: %v", err)
	}

	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for !bytes.Contains(contents(t, said.Name()), []byte("not restarted")) {
		if got := ask(t, addr); got != pid {
			t.Fatalf("process %d answers, want still %d", got, pid)
		}
	}
	if text := string(contents(t, said.Name())); !strings.Contains(text, "broken as") || !strings.Contains(text, "exit status 1") {
		t.Errorf("it is not said why: %s", text)
	}
	if got := ask(t, addr); got != pid {
		t.Errorf("process %d answers, want still %d", got, pid)
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask connects and reads who has answered.
func ask(t *testing.T, addr string) int {
	t.Helper()
	d := net.Dialer{Timeout: 30 * time.Second}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatalf("answered %q: %v", b, err)
	}
	return pid
}
