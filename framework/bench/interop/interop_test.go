// SPDX-License-Identifier: Apache-2.0

// Package interop_test holds both ends of the wire against stock kitex. It stands in
// this module because kitex's client and server would double what the main one links.
package interop_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/serviceinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

// message lets kitex's own protobuf codec carry a message.
type message struct{ m proto.Message }

func (a *message) Marshal(out []byte) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(out, a.m)
}
func (a *message) Unmarshal(in []byte) error { return proto.Unmarshal(in, a.m) }

// stockService describes the Echo service to kitex as its generator would.
func stockService(name string, h func(context.Context, *testpb.EchoRequest) (*testpb.EchoResponse, error)) *serviceinfo.ServiceInfo {
	echo := serviceinfo.NewMethodInfo(
		func(ctx context.Context, _, arg, result any) error {
			res, err := h(ctx, arg.(*message).m.(*testpb.EchoRequest))
			if err != nil {
				return err
			}
			result.(*message).m = res
			return nil
		},
		func() any { return &message{new(testpb.EchoRequest)} },
		func() any { return &message{new(testpb.EchoResponse)} },
		false,
	)
	missing := serviceinfo.NewMethodInfo(func(context.Context, any, any, any) error { return nil },
		func() any { return &message{new(testpb.EchoRequest)} }, func() any { return &message{new(testpb.EchoResponse)} }, false)
	return &serviceinfo.ServiceInfo{
		ServiceName: name, HandlerType: (*any)(nil), PayloadCodec: serviceinfo.Protobuf, KiteXGenVersion: "v0.16.3",
		Methods: map[string]serviceinfo.MethodInfo{"Echo": echo, "Missing": missing},
		Extra:   map[string]any{"PackageName": "test"},
	}
}

func TestStockKitexClient(t *testing.T) {
	srv := rpctest.Serve(t, testpb.NewServer().Register)
	transports := map[string][]client.Option{
		"multiplexed": {client.WithMuxConnection(2)},
		"pooled":      nil,
	}
	for name, opts := range transports {
		t.Run(name, func(t *testing.T) {
			// A stock client knows the service by its short name.
			opts := append(opts, client.WithHostPorts(srv.Addr()), client.WithTransportProtocol(transport.TTHeaderFramed),
				client.WithMetaHandler(transmeta.ClientTTHeaderHandler), client.WithRPCTimeout(5*time.Second))
			cli, err := client.NewClient(stockService("Echo", nil), append(opts, client.WithDestService("echo"))...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				req := &testpb.EchoRequest{Id: int64(i), Name: "stock", Data: make([]byte, i*500)}
				res := new(testpb.EchoResponse)
				if err := cli.Call(t.Context(), "Echo", &message{req}, &message{res}); err != nil {
					t.Fatal(err)
				}
				if res.Id != int64(i) || res.Name != "stock" || len(res.Data) != i*500 {
					t.Fatalf("call %d: got %v", i, res.Id)
				}
			}
			err = cli.Call(t.Context(), "Missing", &message{new(testpb.EchoRequest)}, &message{new(testpb.EchoResponse)})
			var te *remote.TransError
			if !errors.As(err, &te) || te.TypeID() != remote.UnknownMethod {
				t.Fatalf("unknown method: got %v", err)
			}
		})
	}
}

func TestStockKitexServer(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ours := testpb.NewServer()
	srv := server.NewServer(server.WithListener(lis), server.WithMuxTransport(),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler), server.WithExitWaitTime(time.Second),
		server.WithExitSignal(func() <-chan error { return make(chan error) }))
	err = srv.RegisterService(stockService("Echo", func(ctx context.Context, req *testpb.EchoRequest) (*testpb.EchoResponse, error) {
		switch req.Name {
		case "fail":
			return nil, errors.New("stock handler failed")
		case "business":
			return nil, kerrors.NewBizStatusError(5, "no such thing")
		}
		return ours.Echo(ctx, req)
	}), new(any))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Run() }()
	t.Cleanup(func() {
		_ = srv.Stop()
		<-ended
	})

	conn, err := framework.Dial(framework.ClientConfig{Service: "echo", Addrs: []string{lis.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	cli := testpb.NewEchoClient(conn)
	for i := range 50 {
		res, err := cli.Echo(t.Context(), &testpb.EchoRequest{Id: int64(i), Name: "ours", Data: make([]byte, i*500)})
		if err != nil {
			t.Fatal(err)
		}
		if res.Id != int64(i) || len(res.Data) != i*500 {
			t.Fatalf("call %d: got %v", i, res.Id)
		}
	}
	if _, err := cli.Echo(t.Context(), &testpb.EchoRequest{Name: "fail"}); rpc.CodeOf(err) != rpc.Internal {
		t.Errorf("a failing stock handler: got %v", err)
	}
	if _, err := cli.Echo(t.Context(), &testpb.EchoRequest{Name: "business"}); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("a stock business error: got %v", err)
	}
	if _, err := cli.Act(t.Context(), &testpb.ActRequest{}); rpc.CodeOf(err) != rpc.Unimplemented {
		t.Errorf("an unknown method: got %v", err)
	}
}
