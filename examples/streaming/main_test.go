// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"

	tickerv1 "github.com/sluice-rpc/sluice/examples/streaming/ticker/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/grpcserver"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// TestWatch stops the server after two ticks: the stream is told, and ends well.
func TestWatch(t *testing.T) {
	g := grpcserver.New(grpcserver.Config{})
	srv := framework.NewServer(framework.ServerConfig{Service: "ticker"}, framework.WithTransport(g), framework.WithoutSignals())
	tickerv1.RegisterTickerServer(srv, ticker{})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	var last *tickerv1.Tick
	err := watch(t.Context(), g.Addr(), 10, func(tick *tickerv1.Tick) {
		if last = tick; tick.Number == 2 {
			stop()
		}
	})
	if err != nil {
		t.Error(err)
	}
	if !last.GetLast() {
		t.Errorf("the last message is %v", last)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchRefuses(t *testing.T) {
	err := ticker{}.Watch(t.Context(), &tickerv1.WatchRequest{IntervalMs: 1}, nil)
	if rpc.CodeOf(err) != rpc.InvalidArgument {
		t.Errorf("got %v", err)
	}
}
