// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// screen is where a command and its services write, who do not wait for each other.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// tool runs the command line until ctx ends.
func tool(ctx context.Context, args ...string) (string, error) {
	var out screen
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

func TestSeedLoadAudit(t *testing.T) {
	for name, up := range map[string][]string{
		"one process":          {"up", "--limits", "off"},
		"processes and limits": {"up", "--split"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, data := start(t, up...)
			seedLoadAudit(t, data)
		})
	}
}

// seedLoadAudit wants each call made and answered, however late: two workers make
// calls wait for each other on a slow machine, and not for the server past a deadline.
func seedLoadAudit(t *testing.T, data string) {
	must := func(want string, args ...string) {
		t.Helper()
		out, err := tool(t.Context(), args...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("moments %s: %v, want %q in:\n%s", strings.Join(args, " "), err, want, out)
		}
	}
	edges := filepath.Join(t.TempDir(), "edges.txt")
	if err := os.WriteFile(edges, []byte("# five people\n0 1\n0 2\n1 2\n2 3\n3 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must("5 people, 10 directed friendships", "seed", "--data", data, "--graph", edges)
	must("going on with the same people", "seed", "--data", data, "--graph", edges)
	must("(5 of them by moments seed)\ndirected friendships 10\n", "audit", "--data", data)
	must("0 missing", "load", "--data", data, "-mode", "F", "-duration=300ms", "-rate", "50", "-workers", "2")
	must("errors 0", "load", "--data", data, "-mode=X", "--duration", "200ms", "--rate", "100", "--workers", "2")
	must("errors 0", "load", "--data", data, "--mode", "R", "-duration", "100ms", "-workers", "2")
	must("errors 0", "load", "--data", data, "-mode", "O", "-rate", "50", "-duration", "200ms", "-workers=2")
	must("clean", "audit", "--data", data)
	must("30 people", "seed", "--data", data, "--users", "30", "--bulk")
	must("0 missing", "load", "--data", data, "-mode", "F", "-duration=200ms", "-rate", "50", "-workers", "2")
	must("clean", "audit", "--data", data)
}

func TestToolsRefuseWhatCannotWork(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "none")
	bad := filepath.Join(t.TempDir(), "edges.txt")
	if err := os.WriteFile(bad, []byte("0 1\n1 one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seeded := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"seed nothing":         {[]string{"seed"}, "graph"},
		"seed both":            {[]string{"seed", "--graph", bad, "--users", "3"}, "none of the others can be"},
		"seed bad graph":       {[]string{"seed", "--data", seeded, "--graph", bad}, "edges.txt: line 2"},
		"seed no graph":        {[]string{"seed", "--data", seeded, "--graph", "/nonexistent"}, "no such file"},
		"seed one person":      {[]string{"seed", "--data", seeded, "--users", "1"}, "want 2 to"},
		"seed a crowd":         {[]string{"seed", "--data", seeded, "--users", "10001"}, "--bulk"},
		"seed with no workers": {[]string{"seed", "--data", seeded, "--users", "3", "--workers", "0"}, "--workers"},
		"seed nobody running":  {[]string{"seed", "--data", seeded, "--users", "3"}, "moments up"},
		"seed nobody answers":  {[]string{"seed", "--data", seeded, "--users", "3", "--addr", "http://127.0.0.1:1"}, "connection refused"},
		"load nobody seeded":   {[]string{"load", "--data", empty}, "moments seed"},
		"load flag":            {[]string{"load", "-mood", "X"}, "unknown"},
		"load argument":        {[]string{"load", "X"}, "unknown argument"},
		"audit nobody running": {[]string{"audit", "--data", empty}, "moments up"},
		"audit workers":        {[]string{"audit", "--workers", "-1"}, "--workers"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := tool(t.Context(), tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q\n%s", err, tc.want, out)
			}
		})
	}
	out, err := tool(t.Context(), "load", "-help")
	if err != nil || !strings.Contains(out, "--rate") {
		t.Errorf("load -help: %v\n%s", err, out)
	}
}
