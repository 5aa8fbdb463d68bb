// SPDX-License-Identifier: Apache-2.0

// Command peer is our side of the interoperability tests. It is a process of its own: the
// contract of the tests has the names of grpc-go's, and one process has a name once.
//
//	peer serve       serves, prints the address, and ends with standard input
//	peer call ADDR   runs each case of a client and prints its name, or what went wrong
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/grpcserver/interop/testpb"
)

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	case len(os.Args) == 3 && os.Args[1] == "call":
		if !callAll(os.Args[2]) {
			os.Exit(1)
		}
	default:
		log.Fatal("usage: peer serve | peer call ADDR")
	}
}

func serve() {
	g := grpcserver.New(grpcserver.Config{})
	srv := framework.NewServer(framework.ServerConfig{Service: "interop"}, framework.WithTransport(g))
	testpb.RegisterTestServiceServer(srv, service{})
	if err := srv.Listen(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(g.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := srv.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
