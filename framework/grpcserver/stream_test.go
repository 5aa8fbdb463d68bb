// SPDX-License-Identifier: Apache-2.0

package grpcserver_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

// endless is a method whose streams never end by themselves, under a contract that gives
// them a tenth of a second.
var endless = &rpc.Method{
	Service: "sluice.test.v1.Endless", Name: "Watch", Class: qos.Browse, Timeout: 100 * time.Millisecond,
	NewRequest:    func() proto.Message { return new(testpb.Drop) },
	NewResponse:   func() proto.Message { return new(testpb.Drop) },
	ServerStreams: true,
}

// TestStreamLimit: a stream that never ends does so when its contract says, whatever its
// caller asks for, and its handler with it.
func TestStreamLimit(t *testing.T) {
	g := grpcserver.New(grpcserver.Config{})
	ended := make(chan error, 1)
	srv := framework.NewServer(framework.ServerConfig{Service: "endless"}, framework.WithTransport(g), framework.WithoutSignals())
	srv.Register(&rpc.Service{Name: endless.Service, Methods: []*rpc.Method{endless}}, []rpc.Handler{
		func(ctx context.Context, _ proto.Message) (proto.Message, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
	})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	}()
	conn, err := grpc.NewClient(g.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/"+endless.FullName())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&testpb.Drop{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&testpb.Drop{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler's context goes on")
	}
}

// TestSlowReceiver: a handler sends no more than its caller takes, and hears when that one
// has gone.
func TestSlowReceiver(t *testing.T) {
	p := servePair(t, framework.ServerConfig{}, grpcserver.Config{})
	method := metrics.Label{Name: "rpc.method", Value: testpb.FlowCountMethod.FullName()}
	sent := func() float64 {
		return itemOf("sluice.server.stream.messages", method, metrics.Label{Name: "direction", Value: "sent"})
	}
	before := sent()
	client := testpb.NewFlowClient(wires[1].dial(t, p, framework.TLS{}))
	const all = 1000 // of 64 KiB each, far more than any window
	stream, err := client.Count(t.Context(), &testpb.Drop{N: all, Data: make([]byte, 64<<10)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	stream.Close()
	for err == nil { // what has come already may still be given
		_, err = stream.Recv()
	}
	if rpc.CodeOf(err) != rpc.Canceled {
		t.Errorf("after Close: %v", err)
	}
	ended := metrics.Label{Name: "result", Value: "canceled"}
	eventually(t, "the handler hears of it", func() bool { return itemOf("sluice.server.results", method, ended) > 0 })
	if n := sent() - before; n < 1 || n >= all {
		t.Errorf("the handler has sent %v messages of %d to who took one", n, all)
	}
}

// TestStreamCounts: messages are counted by their direction.
func TestStreamCounts(t *testing.T) {
	p := servePair(t, framework.ServerConfig{}, grpcserver.Config{})
	count := func(side, direction string) float64 {
		return itemOf("sluice."+side+".stream.messages", metrics.Label{Name: "rpc.method", Value: testpb.FlowBackMethod.FullName()}, metrics.Label{Name: "direction", Value: direction})
	}
	before := []float64{count("server", "received"), count("server", "sent")}
	stream, err := testpb.NewFlowClient(wires[1].dial(t, p, framework.TLS{})).Back(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(3) {
		if err := stream.Send(&testpb.Drop{N: n}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	stream.Close()
	after := []float64{count("server", "received"), count("server", "sent")}
	if after[0]-before[0] != 3 || after[1]-before[1] != 3 {
		t.Errorf("received and sent: %v, then %v", before, after)
	}
}

// TestReflectedCall does what grpcurl does: a call that is made of what the server tells
// of its contracts alone.
func TestReflectedCall(t *testing.T) {
	conn, _ := serve(t, grpcserver.Config{}, testpb.NewServer())
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	ask := func(req *reflectionpb.ServerReflectionRequest) {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range res.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(b, file); err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(set.File, func(f *descriptorpb.FileDescriptorProto) bool { return f.GetName() == file.GetName() }) {
				set.File = append(set.File, file)
			}
		}
	}
	ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "sluice.test.v1.Echo"}})
	for i := 0; i < len(set.File); i++ { // the list grows
		for _, name := range set.File[i].GetDependency() {
			ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: name}})
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	found, err := files.FindDescriptorByName("sluice.test.v1.Echo")
	if err != nil {
		t.Fatal(err)
	}
	method := found.(protoreflect.ServiceDescriptor).Methods().ByName("Echo")
	req, res := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(`{"id": "7", "name": "by reflection"}`), req); err != nil {
		t.Fatal(err)
	}
	if err := conn.Invoke(t.Context(), echoMethod, req, res); err != nil {
		t.Fatal(err)
	}
	if got := res.Get(method.Output().Fields().ByName("name")).String(); got != "by reflection" {
		t.Errorf("got %q", got)
	}
}

// TestConnectionAge: a connection that has served for long enough is left in good order,
// and no call is lost by it.
func TestConnectionAge(t *testing.T) {
	var lost atomic.Int64
	conn, _ := serve(t, grpcserver.Config{MaxAge: time.Second}, testpb.NewServer())
	accepted := itemOf("sluice.listener.accepted")
	for end := time.Now().Add(30 * time.Second); itemOf("sluice.listener.accepted") < accepted+2; {
		if _, err := act(t.Context(), conn, ""); err != nil {
			lost.Add(1)
		}
		if time.Now().After(end) {
			t.Fatal("no connection was made anew")
		}
	}
	if n := lost.Load(); n > 0 {
		t.Errorf("%d calls were lost", n)
	}
}
