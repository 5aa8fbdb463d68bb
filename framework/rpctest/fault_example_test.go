// SPDX-License-Identifier: Apache-2.0

package rpctest_test

import (
	"context"
	"fmt"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

// A Fault stands between a generated client and any connection. In a test the connection
// is rpctest.Local's.
func ExampleFault() {
	srv := framework.NewServer(framework.ServerConfig{Service: "echo", Admission: framework.Off})
	testpb.RegisterEchoServer(srv, testpb.NewServer())
	conn := framework.DialLocal(srv)
	defer func() { _ = conn.Close() }()

	fault := rpctest.NewFault(conn, 1)
	client := testpb.NewEchoClient(fault)
	call := func() {
		res, err := client.Echo(context.Background(), &testpb.EchoRequest{Name: "Mary"})
		fmt.Println(res.GetName(), err)
	}
	echo := testpb.EchoEchoMethod.FullName()
	call()
	fault.Set(echo, rpctest.Rule{Share: 1, Err: rpc.Errorf(rpc.Unavailable, "gone")}) // has not run
	call()
	fault.Set(echo, rpctest.Rule{Share: 1, Lost: true}) // has run
	call()
	fault.Set(echo, rpctest.Rule{})
	call()
	// Output:
	// Mary <nil>
	//  unavailable: gone
	//  unavailable: injected loss of the answer
	// Mary <nil>
}
