// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	hellov1 "github.com/sluice-rpc/sluice/examples/hello/hello/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Both sides in one process, over a socket of this machine.
func Example() {
	srv := framework.NewServer(framework.ServerConfig{Service: "hello"}) // a free port
	hellov1.RegisterGreeterServer(srv, greeter{})
	if err := srv.Listen(); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Run(ctx) }()

	conn, err := framework.Dial(framework.ClientConfig{Service: "hello", Addrs: []string{srv.Addr()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := hellov1.NewGreeterClient(conn)
	res, err := client.Greet(ctx, &hellov1.GreetRequest{Name: "Mary"})
	fmt.Println(res.GetGreeting(), err)
	_, err = client.Greet(ctx, &hellov1.GreetRequest{})
	fmt.Println(rpc.CodeOf(err) == rpc.InvalidArgument, err)

	fmt.Println(conn.Close())
	stop()
	fmt.Println(<-stopped)
	// Output:
	// Hello, Mary! <nil>
	// true invalid_argument: name is empty: say whom to greet
	// <nil>
	// <nil>
}
