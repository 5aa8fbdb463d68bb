// SPDX-License-Identifier: Apache-2.0

// Command instance is what the drill restarts: calls over Sluice and requests over HTTP,
// each of five milliseconds, answered with the version and the number of the process.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/restart"
)

// version is set by the linker. Of the broken ones, "ends" does so at once, and "sick" is
// never ready.
var version = "?"

// work is how long a call or a request takes.
const work = 5 * time.Millisecond

// patience is how long a new program may take to become healthy.
const patience = 3 * time.Second

func main() {
	if version == "ends" {
		fmt.Fprintln(os.Stderr, "instance: this version ends at once")
		os.Exit(3)
	}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "instance: want an address for calls and one for requests")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "instance:", err)
		os.Exit(1)
	}
}

func run(calls, requests string) error {
	program := restart.Process()
	program.SetTimeout(patience)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, stop := program.Watch(context.Background(), log)
	defer stop()

	// Without admission: what else the machine does must not decide what is seen.
	srv := framework.NewServer(framework.ServerConfig{Service: "drill", Addr: calls, Admission: framework.Off},
		framework.WithoutSignals(), framework.WithLogger(log))
	testpb.RegisterEchoServer(srv, handler{})
	if err := srv.Listen(); err != nil {
		return err
	}
	web, err := edge.NewServer(edge.ServerConfig{Log: log}, http.HandlerFunc(answer))
	if err != nil {
		return err
	}
	ln, err := program.Listen("entry", requests)
	if err != nil {
		return err
	}
	fmt.Println(srv.Addr(), ln.Addr())
	var g errgroup.Group
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return web.Serve(ctx, ln) })
	if version != "sick" {
		program.Ready()
	}
	return g.Wait()
}

func name() string { return fmt.Sprintf("%s/%d", version, os.Getpid()) }

type handler struct{ testpb.UnimplementedEchoServer }

// Echo implements testpb.EchoServer.
func (handler) Echo(_ context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
	<-time.After(work)
	return &testpb.EchoResponse{Name: name(), Data: req.Data}, nil
}

func answer(w http.ResponseWriter, _ *http.Request) {
	<-time.After(work)
	_, _ = fmt.Fprint(w, name())
}
