// SPDX-License-Identifier: Apache-2.0

package activation_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework/activation"
)

// childEnv makes the test binary a child: it prints the names of what it inherited
// and answers one connection on each with its name.
const childEnv = "ACTIVATION_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child() error {
	if os.Getenv(childEnv) == "self" { // as systemd does
		if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
			return err
		}
	}
	sockets, err := activation.Inherited()
	if err != nil {
		return err
	}
	if again, err := activation.Inherited(); len(again) > 0 || err != nil {
		return fmt.Errorf("inherited twice: %v, %w", again, err)
	}
	names := slices.Sorted(maps.Keys(sockets))
	fmt.Println(names)
	for _, name := range names {
		conn, err := sockets[name].Accept()
		if err != nil {
			return err
		}
		if _, err := conn.Write([]byte(name)); err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

func childCmd(t *testing.T, how string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+how, "LISTEN_PID=1", "LISTEN_FDS=7")
	cmd.Stderr = t.Output()
	return cmd
}

func listen(t *testing.T, name string) *activation.Socket {
	t.Helper()
	s, err := activation.Listen(t.Context(), name, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestChildrenTakeTurns connects before each child runs: a connection waits for the
// next one.
func TestChildrenTakeTurns(t *testing.T) {
	calls, admin := listen(t, "calls"), listen(t, "admin")
	for _, how := range []string{"no number", "self", "no number"} {
		t.Run(how, func(t *testing.T) {
			conns := map[string]net.Conn{}
			for name, s := range map[string]*activation.Socket{"calls": calls, "admin": admin} {
				conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				conns[name] = conn
			}
			cmd := childCmd(t, how)
			if err := activation.Pass(cmd, calls, admin); err != nil {
				t.Fatal(err)
			}
			if out, err := cmd.Output(); err != nil || string(out) != "[admin calls]\n" {
				t.Fatalf("the child says %q, %v", out, err)
			}
			for name, conn := range conns {
				if said, err := io.ReadAll(conn); err != nil || string(said) != name {
					t.Errorf("%s answers %q, %v", name, said, err)
				}
			}
		})
	}
	if err := calls.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", calls.Addr()); err == nil {
		_ = conn.Close()
		t.Error("a closed socket takes connections")
	}
	if err := activation.Pass(childCmd(t, ""), admin); err != nil {
		t.Error(err)
	}
}

func TestInherited(t *testing.T) {
	for _, c := range []struct {
		name            string
		pid, fds, names string
		sockets         []string
		want            string
	}{
		{"nothing", "", "", "", nil, "[]\n"},
		{"an empty list", "", "0", "", nil, "[]\n"},
		{"for another process", "1", "1", "a", []string{"a"}, "[]\n"},
		{"no number", "", "one", "a", nil, "LISTEN_FDS"},
		{"a negative number", "", "-1", "a", nil, "LISTEN_FDS"},
		{"fewer names", "", "2", "a", []string{"a", "b"}, "FileDescriptorName"},
		{"a name twice", "", "2", "a:a", []string{"a", "b"}, "name of its own"},
		{"no socket", "", "1", "a", nil, "no listening socket"},
		{"no such file", "", "1000", strings.Repeat(":", 999), nil, "no listening socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := childCmd(t, "given")
			for _, name := range c.sockets {
				s := listen(t, name)
				if err := activation.Pass(cmd, s); err != nil && len(cmd.ExtraFiles) == 0 {
					t.Fatal(err)
				}
			}
			cmd.Env = append(cmd.Env, "LISTEN_PID="+c.pid, "LISTEN_FDS="+c.fds, "LISTEN_FDNAMES="+c.names)
			if out, _ := cmd.Output(); !strings.Contains(string(out), c.want) {
				t.Errorf("the child says %q, want %q", out, c.want)
			}
		})
	}
}

func TestListenRefuses(t *testing.T) {
	for _, name := range []string{"", "a:b", "a\n", "é", strings.Repeat("a", 256)} {
		if _, err := activation.Listen(t.Context(), name, "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "colon") {
			t.Errorf("name %q: %v", name, err)
		}
	}
	taken := listen(t, "a")
	if _, err := activation.Listen(t.Context(), "b", taken.Addr()); err == nil {
		t.Error("a busy address was bound")
	}
	cmd := childCmd(t, "")
	if err := activation.Pass(cmd, taken); err != nil {
		t.Error(err)
	}
	if err := activation.Pass(cmd, taken); err == nil {
		t.Error("passed over other files")
	}
}
