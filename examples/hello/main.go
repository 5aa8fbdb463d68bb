// SPDX-License-Identifier: Apache-2.0

// Command hello serves hello.v1.Greeter on 127.0.0.1:7000, with its admin pages on
// 127.0.0.1:7001. The command in client/ calls it.
package main

import (
	"context"
	"log"

	hellov1 "github.com/sluice-rpc/sluice/examples/hello/hello/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

type greeter struct {
	hellov1.UnimplementedGreeterServer
}

func (greeter) Greet(_ context.Context, req *hellov1.GreetRequest) (*hellov1.GreetResponse, error) {
	if req.GetName() == "" {
		return nil, rpc.Errorf(rpc.InvalidArgument, "name is empty: say whom to greet")
	}
	return &hellov1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

func main() {
	srv := framework.NewServer(framework.ServerConfig{Service: "hello", Addr: "127.0.0.1:7000", Admin: "127.0.0.1:7001"})
	hellov1.RegisterGreeterServer(srv, greeter{}) // embeds hellov1.UnimplementedGreeterServer, by value
	if err := srv.Run(context.Background()); err != nil {
		log.Fatal(err) // Run gives nil when its context ends and after SIGTERM, when it has drained
	}
}
