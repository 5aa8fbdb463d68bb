// SPDX-License-Identifier: Apache-2.0

//go:build unix

package lockfile_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-rpc/sluice/app/lockfile"
)

// childEnv makes the test binary a process that takes the lock at this path and keeps
// it until its standard input ends.
const childEnv = "LOCKFILE_TEST_PATH"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		l, err := lockfile.Take(path)
		fmt.Println("took:", err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		runtime.KeepAlive(l)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startHolder starts a process that holds the lock.
func startHolder(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		_ = cmd.Wait()
	})
	const want = "took: <nil>\n"
	said := make([]byte, len(want))
	if _, err := io.ReadFull(output, said); err != nil || string(said) != want {
		t.Fatalf("the holder says %q, %v", said, err)
	}
	return cmd
}

func wantHeld(t *testing.T, path string, pid int) {
	t.Helper()
	_, err := lockfile.Take(path)
	if held, ok := errors.AsType[*lockfile.HeldError](err); !ok || held.PID != pid {
		t.Errorf("%v, want held by %d", err, pid)
	}
}

func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	for range 2 {
		l, err := lockfile.Take(path)
		if err != nil {
			t.Fatal(err)
		}
		wantHeld(t, path, os.Getpid())
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
	if _, err := lockfile.Take(filepath.Join(t.TempDir(), "none", "LOCK")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the directory: %v", err)
	}
}

// TestKilledHolder takes the lock at once after kill -9, before anybody has waited
// for the process to end.
func TestKilledHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	for range 5 {
		cmd := startHolder(t, path)
		wantHeld(t, path, cmd.Process.Pid)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		l, err := lockfile.Take(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
}

// TestLockOutlivesItsHolder is a kernel that takes its time: the file names a process
// that is gone, and is locked.
func TestLockOutlivesItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	gone := exec.Command(os.Args[0], "-test.run=^$")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	content := []byte(strconv.Itoa(gone.Process.Pid) + "\n")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	hold := func() *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		return f
	}
	slow := hold()
	wantHeld(t, path, gone.Process.Pid) // patience ends
	time.AfterFunc(50*time.Millisecond, func() { _ = slow.Close() })
	l, err := lockfile.Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	// Of a holder that does not tell nothing is known: it may live.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	silent := hold()
	defer func() { _ = silent.Close() }()
	wantHeld(t, path, 0)
}
