// SPDX-License-Identifier: Apache-2.0

// Command streaming serves ticker.v1.Ticker for gRPC on 127.0.0.1:7002 and watches itself,
// until it is stopped with Ctrl-C: then the stream is told, and says so before it ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	tickerv1 "github.com/sluice-rpc/sluice/examples/streaming/ticker/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

type ticker struct {
	tickerv1.UnimplementedTickerServer
}

// Watch implements tickerv1.TickerServer.
func (ticker) Watch(ctx context.Context, req *tickerv1.WatchRequest, out rpc.ServerStreamingServer[tickerv1.Tick]) error {
	if ms := req.GetIntervalMs(); ms < 10 || ms > 60_000 {
		return rpc.Errorf(rpc.InvalidArgument, "interval_ms is %d: give 10 to 60000", ms)
	}
	tick := time.NewTicker(time.Duration(req.GetIntervalMs()) * time.Millisecond)
	defer tick.Stop()
	for n := int64(1); ; n++ {
		select {
		case <-tick.C:
			if err := out.Send(&tickerv1.Tick{Number: n}); err != nil {
				return err // the caller has gone
			}
		case <-rpc.Draining(ctx):
			return out.Send(&tickerv1.Tick{Number: n, Last: true})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func main() {
	g := grpcserver.New(grpcserver.Config{Addr: "127.0.0.1:7002"})
	srv := framework.NewServer(framework.ServerConfig{Service: "ticker"}, framework.WithTransport(g))
	tickerv1.RegisterTickerServer(srv, ticker{})
	if err := srv.Listen(); err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- watch(context.Background(), g.Addr(), 500, func(t *tickerv1.Tick) { fmt.Println(t) }) }()
	if err := srv.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	if err := <-done; err != nil {
		log.Fatal(err)
	}
}

// watch gives see all ticks of a server, until it ends.
func watch(ctx context.Context, addr string, intervalMS int64, see func(*tickerv1.Tick)) error {
	conn, err := framework.Dial(framework.ClientConfig{Service: "ticker", Addrs: []string{addr}}, framework.WithClientTransport(grpcclient.New(grpcclient.Config{})))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := tickerv1.NewTickerClient(conn).Watch(ctx, &tickerv1.WatchRequest{IntervalMs: intervalMS})
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		t, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		see(t)
	}
}
