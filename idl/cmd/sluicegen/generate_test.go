// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework/rpc"
	qosv1 "github.com/sluice-rpc/sluice/idl/qos/v1"
	"github.com/sluice-rpc/sluice/qos"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sluicegen runs the command in process.
func sluicegen(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"sluicegen"}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// TestGolden compares what the contracts in testdata/golden give with the Go files
// beside them. Run it with -update after a change to the generator and read the diff.
func TestGolden(t *testing.T) {
	args := []string{"-I", "testdata/golden", "--check", "testdata/golden"}
	if *update {
		args = slices.Delete(args, 2, 3)
	}
	if code, stdout, stderr := sluicegen(args...); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	if _, err := os.Stat("testdata/golden/shop/v1/item.rpc.go"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a contract without a service has a .rpc.go: %v", err)
	}
}

// TestGoldenCompiles checks that what is generated is Go, formatted, and knows
// nothing of the transport.
func TestGoldenCompiles(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "vet", "./testdata/golden/...").CombinedOutput()
	if err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
	files, err := filepath.Glob("testdata/golden/*/*/*.rpc.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	if out, err = exec.CommandContext(t.Context(), "gofmt", append([]string{"-l"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("gofmt: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "go", "list", "-f", `{{join .Imports "\n"}}`, "./testdata/golden/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		if !allowedImport(pkg) {
			t.Errorf("generated code imports %s", pkg)
		}
	}
}

// allowedImport says whether generated code may import a package.
func allowedImport(pkg string) bool {
	const module = "github.com/sluice-rpc/sluice"
	switch {
	case strings.HasPrefix(pkg, "google.golang.org/protobuf/"), strings.HasPrefix(pkg, module+"/idl/cmd/sluicegen/testdata/"):
		return true
	case pkg == module+"/framework/rpc", pkg == module+"/qos", pkg == module+"/idl/qos/v1":
		return true
	}
	return !strings.Contains(pkg, ".") // the standard library
}

// TestFiles follows the files of one contract through a life of changes.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "go.mod", "module example.com/t\n")
	const messages = "syntax = \"proto3\";\npackage a.v1;\noption go_package = \"example.com/t/api/a/v1;av1\";\nmessage M {}\n"
	write(t, "api/a/v1/a.proto", messages+"service S { rpc Do(M) returns (M); }\n")
	write(t, "api/a/v1/.hidden/b.proto", "not a contract")
	write(t, "api/testdata/c.proto", "not a contract")
	write(t, "api/nested/go.mod", "module example.com/nested\n")
	write(t, "api/nested/d.proto", "not a contract")

	expect := func(wantCode int, wantOut string, args ...string) {
		t.Helper()
		code, stdout, stderr := sluicegen(args...)
		if code != wantCode || stdout != wantOut {
			t.Fatalf("sluicegen %v: exit %d, want %d; printed %q, want %q; errors:\n%s", args, code, wantCode, stdout, wantOut, stderr)
		}
	}
	both := filepath.FromSlash("api/a/v1/a.pb.go") + "\n" + filepath.FromSlash("api/a/v1/a.rpc.go") + "\n"
	expect(1, both, "-I", "api", "--check", "api")
	expect(0, "", "-I", "api", "api")
	expect(0, "", "-I", "api", "--check", "api")
	before := stat(t, "api/a/v1/a.pb.go")
	expect(0, "", "-I", "api", "api/a/v1/a.proto", "api") // named twice is not wrong
	if after := stat(t, "api/a/v1/a.pb.go"); after.ModTime() != before.ModTime() || !os.SameFile(after, before) {
		t.Error("a fresh file was written again")
	}
	if mode := before.Mode().Perm(); mode != 0o644 {
		t.Errorf("generated file has mode %o", mode)
	}

	write(t, "api/a/v1/a.proto", messages) // the service is gone, so its code must go
	expect(1, both, "-I", "api", "--check", "api")
	expect(0, "", "-I", "api", "api")
	if got, want := goFiles(t, "."), []string{filepath.FromSlash("api/a/v1/a.pb.go")}; !slices.Equal(got, want) {
		t.Errorf("Go files are %v, want %v", got, want)
	}

	write(t, "api/a/v1/a.rpc.go", "package av1 // by hand\n") // nobody's business: there is no service
	expect(0, "", "-I", "api", "api")
	if got, _ := os.ReadFile("api/a/v1/a.rpc.go"); string(got) != "package av1 // by hand\n" {
		t.Errorf("a file written by hand was changed to %q", got)
	}

	write(t, "api/a/v1/a.proto", strings.Replace(messages, "example.com/t/api", "example.com/t/gen", 1))
	expect(0, "", "-I", "api", "--out", "gen", "api")
	if _, err := os.Stat("gen/a/v1/a.pb.go"); err != nil {
		t.Error(err)
	}
}

// TestApplyLeavesNothing has the second of two files fail: the first must not
// change and no temporary file may stay.
func TestApplyLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	first, blocker := filepath.Join(dir, "first.go"), filepath.Join(dir, "file")
	write(t, first, "old")
	write(t, blocker, "a file where a directory is wanted")
	p := &plan{write: []output{{first, []byte("new")}, {filepath.Join(blocker, "second.go"), []byte("new")}}}
	if err := p.apply(); err == nil {
		t.Fatal("apply gave no error")
	}
	if got, _ := os.ReadFile(first); string(got) != "old" {
		t.Errorf("first file is %q", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}

// TestNames checks that the options' values and names are those of qos and rpc.
func TestNames(t *testing.T) {
	if len(classNames) != len(qosv1.Business_name) {
		t.Errorf("%d classes have a Go name, the contract has %d", len(classNames), len(qosv1.Business_name))
	}
	for b, name := range classNames {
		if got := qos.Class(b).String(); !strings.EqualFold(got, name) {
			t.Errorf("%v is qos.%s in generated code but %q in package qos", b, name, got)
		}
	}
	for level, name := range idempotencyNames {
		want := map[string]rpc.Idempotency{"NoSideEffects": rpc.NoSideEffects, "Idempotent": rpc.Idempotent}[name]
		if want == 0 || rpc.Idempotency(level) != want {
			t.Errorf("%v is rpc.%s in generated code, which is %d", level, name, want)
		}
	}
	if n := qosv1.E_Service.TypeDescriptor().Number(); n != qosOption {
		t.Errorf("the service option has number %d, want %d", n, qosOption)
	}
	if n := qosv1.E_Method.TypeDescriptor().Number(); n != qosOption {
		t.Errorf("the method option has number %d, want %d", n, qosOption)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func stat(t *testing.T, name string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// goFiles lists the files below dir that are neither contracts nor go.mod.
func goFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(file) != ".proto" && entry.Name() != "go.mod" {
			found = append(found, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
