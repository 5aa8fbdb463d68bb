// SPDX-License-Identifier: Apache-2.0

// Command client greets whom its arguments name, through the server at
// 127.0.0.1:7000.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	hellov1 "github.com/sluice-rpc/sluice/examples/hello/hello/v1"
	"github.com/sluice-rpc/sluice/framework"
)

func main() {
	if err := greet(context.Background(), strings.Join(os.Args[1:], " ")); err != nil {
		log.Fatal(err)
	}
}

func greet(ctx context.Context, name string) error {
	conn, err := framework.Dial(framework.ClientConfig{Service: "hello", Addrs: []string{"127.0.0.1:7000"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	res, err := hellov1.NewGreeterClient(conn).Greet(ctx, &hellov1.GreetRequest{Name: name})
	if err != nil {
		return err // for example "invalid_argument: name is empty: say whom to greet"
	}
	fmt.Println(res.GetGreeting())
	return nil
}
