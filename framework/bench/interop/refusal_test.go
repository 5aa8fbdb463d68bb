// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/transport"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
)

// TestStockKitexClientIsRefused: a refusal is made before anything of the call is
// decoded. A stock client must read it as an error of that call, and keep the
// connection; an exception without a method name, or one that kitex cannot encode,
// costs it all calls of the connection.
func TestStockKitexClientIsRefused(t *testing.T) {
	srv := framework.NewServer(framework.ServerConfig{Service: "echo"}, framework.WithoutSignals())
	testpb.NewServer().Register(srv)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	cli, err := client.NewClient(stockService("Echo", nil), client.WithDestService("echo"), client.WithMuxConnection(1),
		client.WithHostPorts(srv.Addr()), client.WithTransportProtocol(transport.TTHeaderFramed),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler), client.WithRPCTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	echo := func(size int) error {
		res := new(testpb.EchoResponse)
		return cli.Call(t.Context(), "Echo", &message{&testpb.EchoRequest{Data: make([]byte, size)}}, &message{res})
	}
	for _, size := range []int{0, 1_000, 1 << 20} {
		if err := echo(size); err != nil {
			t.Fatal(err)
		}
		admit.Process().Pin(0)
		for range 20 {
			var refused *remote.TransError
			if err := echo(size); !errors.As(err, &refused) {
				t.Fatalf("a refused call: %v", err)
			}
		}
		admit.Process().Unpin()
		if err := echo(size); err != nil {
			t.Fatalf("the call after it: %v", err)
		}
	}
}
