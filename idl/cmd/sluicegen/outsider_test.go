// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOutsider is another team: a module of its own with its own contract, which
// has the generator as a tool, and whose program knows the facade and its generated
// package only. It generates, builds, serves and calls over loopback, offline.
func TestOutsider(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":                   outsiderModule(t, root),
		"go.sum":                   string(must(os.ReadFile(filepath.Join(root, "go.sum")))),
		"api/greet/v1/greet.proto": outsiderContract,
		"main.go":                  outsiderProgram,
	} {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), content)
	}
	goTool := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		// No proxy: what the module cache of this repository's build has must do.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "GOTOOLCHAIN=local")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}

	goTool("tool", "sluicegen", "-I", "api", "api/greet/v1/greet.proto")
	goTool("vet", "./...")
	if out := goTool("tool", "sluicegen", "-I", "api", "--check", "api"); out != "" {
		t.Errorf("fresh code is called stale:\n%s", out)
	}

	imports := strings.Fields(goTool("list", "-f", `{{join .Imports "\n"}}`, "./..."))
	const facade = "github.com/sluice-rpc/sluice/framework"
	for _, pkg := range imports {
		if !allowedImport(pkg) && pkg != facade && pkg != "example.com/outsider/api/greet/v1" {
			t.Errorf("the outsider imports %s", pkg)
		}
	}
	if !slices.Contains(imports, facade) {
		t.Errorf("the outsider does not import the facade: %v", imports)
	}
	for _, pkg := range strings.Fields(goTool("list", "-deps", "./api/...")) {
		if strings.HasPrefix(pkg, "github.com/cloudwego/") {
			t.Errorf("the generated package depends on %s", pkg)
		}
	}

	if got, want := goTool("run", "."), "Hello, Mary!\ninvalid_argument: name is empty\nunimplemented: greet.v1.Greeter/Part is not implemented\n"; got != want {
		t.Errorf("the outsider's program printed %q, want %q", got, want)
	}
}

// outsiderModule gives a go.mod with the versions of this repository's, as go get
// would write it.
func outsiderModule(t *testing.T, root string) string {
	t.Helper()
	own, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	// What follows the module line: the Go version and the requirements.
	_, rest, ok := strings.Cut(string(own), "\n")
	if !ok || !strings.Contains(rest, "require (") {
		t.Fatalf("go.mod is not of the expected shape:\n%s", own)
	}
	return `module example.com/outsider

tool github.com/sluice-rpc/sluice/idl/cmd/sluicegen

require github.com/sluice-rpc/sluice v0.0.0

replace github.com/sluice-rpc/sluice => ` + root + "\n" + rest
}

const outsiderContract = `syntax = "proto3";

package greet.v1;

import "qos/v1/qos.proto";

option go_package = "example.com/outsider/api/greet/v1;greetv1";

// Greeter greets.
service Greeter {
  // Greet says hello.
  rpc Greet(GreetRequest) returns (GreetResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (qos.v1.method) = {business: BUSINESS_BROWSE timeout_ms: 10000 max_attempts: 2};
  }
  // Part says goodbye, some day.
  rpc Part(GreetRequest) returns (GreetResponse) {
    option (qos.v1.method) = {timeout_ms: 10000};
  }
}

message GreetRequest {
  string name = 1;
}

message GreetResponse {
  string greeting = 1;
}
`

const outsiderProgram = `package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	greetv1 "example.com/outsider/api/greet/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

type greeter struct{ greetv1.UnimplementedGreeterServer }

func (greeter) Greet(_ context.Context, req *greetv1.GreetRequest) (*greetv1.GreetResponse, error) {
	if req.GetName() == "" {
		return nil, rpc.Errorf(rpc.InvalidArgument, "name is empty")
	}
	return &greetv1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

func main() {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the test compares what is printed
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	srv := framework.NewServer(framework.ServerConfig{Service: "greet", Addr: "127.0.0.1:0"})
	greetv1.RegisterGreeterServer(srv, greeter{})
	if err := srv.Listen(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Run(ctx) }()

	conn, err := framework.Dial(framework.ClientConfig{Service: "greet", Addrs: []string{srv.Addr()}})
	if err != nil {
		return err
	}
	client := greetv1.NewGreeterClient(conn)
	res, err := client.Greet(ctx, &greetv1.GreetRequest{Name: "Mary"})
	if err != nil {
		return err
	}
	fmt.Println(res.GetGreeting())
	_, err = client.Greet(ctx, &greetv1.GreetRequest{})
	fmt.Println(err)
	_, err = client.Part(ctx, &greetv1.GreetRequest{})
	fmt.Println(err)
	if err := conn.Close(); err != nil {
		return err
	}
	stop()
	return <-stopped
}
`
