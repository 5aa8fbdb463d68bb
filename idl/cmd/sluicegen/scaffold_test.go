// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// TestNew writes a module against this checkout, and builds and tests it, offline. Its
// own tests serve, call, start and stop.
func TestNew(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "it")
	var out bytes.Buffer
	if code := run([]string{"sluicegen", "new", "--dir", dir, "--replace", root, "example.com/team/shop-cart"}, nil, &out, &out); code != 0 {
		t.Fatalf("exit code %d: %s", code, &out)
	}
	// What go mod tidy would write, which asks a proxy: the versions of this repository.
	mod := must(os.ReadFile(filepath.Join(dir, "go.mod")))
	own := must(os.ReadFile(filepath.Join(root, "go.mod")))
	_, requirements, ok := strings.Cut(string(own), "require (")
	if !ok {
		t.Fatal("go.mod of this repository is not of the expected shape")
	}
	write(t, filepath.Join(dir, "go.mod"), string(mod)+"\nrequire ("+requirements)
	write(t, filepath.Join(dir, "go.sum"), string(must(os.ReadFile(filepath.Join(root, "go.sum")))))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-timeout=60s", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "GOTOOLCHAIN=local")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test: %v\n%s", err, out)
	}
	if code := run([]string{"sluicegen", "new", "--dir", dir, "--replace", root, "example.com/x"}, nil, &out, &out); code != 1 || !strings.Contains(out.String(), "is not empty") {
		t.Errorf("into a directory with something in it: exit code %d: %s", code, &out)
	}
}

// TestFetchable: a new module names a version only where Go finds it.
func TestFetchable(t *testing.T) {
	for name, c := range map[string]struct {
		from debug.Module
		want bool
	}{
		"a release":           {debug.Module{Version: "v0.3.0"}, true},
		"a commit":            {debug.Module{Version: "v0.3.1-0.20261123133550-6e44e56ae372"}, true},
		"a checkout":          {debug.Module{Version: "(devel)"}, false},
		"a changed checkout":  {debug.Module{Version: "v0.3.0+dirty"}, false},
		"replaced in go.mod":  {debug.Module{Version: "v0.0.0", Replace: &debug.Module{Path: "../sluice", Version: "(devel)"}}, false},
		"without build stamp": {debug.Module{}, false},
	} {
		if got := fetchable(&c.from); got != c.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestNewMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"nothing":       {nil, "give the module"},
		"too much":      {[]string{"a.b/c", "D", "e"}, "give the module"},
		"no path":       {[]string{"greet"}, `module "greet"`},
		"odd name":      {[]string{"a.b/My_Cart"}, "its last part names the service"},
		"odd service":   {[]string{"a.b/cart", "cart"}, `service "cart"`},
		"odd flag":      {[]string{"--into", "x", "a.b/cart"}, "new --help"},
		"of no release": {[]string{"a.b/cart"}, "--replace PATH"},
		"odd framework": {[]string{"--replace", "nowhere", "a.b/cart"}, "no checkout of the framework"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var stderr bytes.Buffer
			if code := run(append([]string{"sluicegen", "new"}, c.args...), nil, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("exit code %d: %s; want something about %q", code, &stderr, c.says)
			}
			if left, _ := os.ReadDir("."); len(left) > 0 {
				t.Errorf("it has written %v", left)
			}
		})
	}
}
