// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/bench/figure"
	"github.com/sluice-rpc/sluice/framework/bench/wait"
	"github.com/sluice-rpc/sluice/framework/grpcclient"
	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// How much of each there is.
const (
	callers  = 16
	pause    = 10 * time.Millisecond // of a caller after each call
	burst    = 3 * maxInFlight       // calls at once, each second
	killEach = 10 * time.Second      // of the second server
)

// load is what comes over the servers, and what has become of it.
type load struct {
	ok, refused, late, left, dialed, streams, kills atomic.Int64
	failed                                          atomic.Int64 // otherwise: of the server that is killed, for the most part
	momentsRuns, momentsFailed                      atomic.Int64 // of moments load
}

// note counts a call by what has become of it.
func (l *load) note(err error) {
	switch e, _ := errors.AsType[*rpc.Error](err); {
	case err == nil:
		l.ok.Add(1)
	case e != nil && e.Reason == rpc.ReasonOverload:
		l.refused.Add(1)
	case rpc.CodeOf(err) == rpc.DeadlineExceeded:
		l.late.Add(1)
	case rpc.CodeOf(err) == rpc.Canceled:
		l.left.Add(1)
	default:
		l.failed.Add(1)
	}
}

func (l *load) report() []figure.Metric {
	one := func(name string, n *atomic.Int64) figure.Metric {
		fmt.Printf("%-50s %12d\n", "soak."+name, n.Load())
		return figure.Of("soak."+name, "times", []float64{float64(n.Load())})
	}
	return []figure.Metric{
		one("answered", &l.ok), one("refused", &l.refused), one("late", &l.late), one("left", &l.left),
		one("connections", &l.dialed), one("streams", &l.streams), one("kills", &l.kills), one("failed", &l.failed),
		one("moments_runs", &l.momentsRuns), one("moments_runs_failed", &l.momentsFailed),
	}
}

// start lets everything run in g until ctx ends.
func (l *load) start(ctx context.Context, g *errgroup.Group, at addresses) error {
	second, err := startServer(ctx, addresses{})
	if err != nil {
		return err
	}
	both, err := framework.Dial(framework.ClientConfig{Service: "soak", Addrs: []string{at.Calls, second.at.Calls}})
	if err != nil {
		second.kill()
		return err
	}
	streams, err := framework.Dial(framework.ClientConfig{Service: "soak", Addrs: []string{at.Streams}},
		framework.WithClientTransport(grpcclient.New(grpcclient.Config{})))
	if err != nil {
		second.kill()
		return errors.Join(err, both.Close())
	}
	var users sync.WaitGroup
	again := func(pause time.Duration, do func(context.Context) error) {
		users.Add(1)
		g.Go(func() error {
			defer users.Done()
			for wait.For(ctx, pause) == nil {
				if err := do(ctx); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	client := testpb.NewEchoClient(both)
	for range callers {
		again(pause, func(ctx context.Context) error {
			_, err := client.Echo(ctx, &testpb.EchoRequest{Data: make([]byte, 500)})
			l.note(err)
			return nil
		})
	}
	again(time.Second, func(ctx context.Context) error {
		var all sync.WaitGroup
		for range burst {
			all.Go(func() {
				_, err := client.Act(ctx, &testpb.ActRequest{Act: "sleep", Ms: 50})
				l.note(err)
			})
		}
		all.Wait()
		return nil
	})
	again(50*time.Millisecond, func(ctx context.Context) error { // too late, every other time because the caller leaves
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if l.late.Load()%2 == 0 {
			time.AfterFunc(5*time.Millisecond, cancel)
		}
		_, err := client.Act(ctx, &testpb.ActRequest{Act: "sleep", Ms: 500})
		l.note(err)
		return nil
	})
	again(200*time.Millisecond, func(ctx context.Context) error { return l.connect(ctx, at.Calls) })
	for range 4 {
		again(50*time.Millisecond, func(ctx context.Context) error { l.stream(ctx, testpb.NewFlowClient(streams)); return nil })
	}
	again(killEach, func(ctx context.Context) error {
		second.kill()
		l.kills.Add(1)
		next, err := startServer(ctx, second.at)
		if err != nil {
			return err
		}
		second = next
		return nil
	})
	g.Go(func() error {
		users.Wait()
		second.kill()
		return errors.Join(both.Close(), streams.Close())
	})
	return nil
}

// connect makes a connection for one call.
func (l *load) connect(ctx context.Context, addr string) error {
	conn, err := framework.Dial(framework.ClientConfig{Service: "soak", Addrs: []string{addr}, Connections: 1})
	if err != nil {
		return err
	}
	l.dialed.Add(1)
	_, err = testpb.NewEchoClient(conn).Echo(ctx, &testpb.EchoRequest{})
	l.note(err)
	return conn.Close()
}

// stream opens one stream of each kind, and leaves one that does not end.
func (l *load) stream(ctx context.Context, client testpb.FlowClient) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l.note(func() error {
		in, err := client.Count(ctx, &testpb.Drop{N: 20, Data: make([]byte, 100)})
		if err != nil {
			return err
		}
		return drain(in.Recv)
	}())
	l.note(func() error {
		both, err := client.Back(ctx)
		if err != nil {
			return err
		}
		for n := range int64(5) {
			if err := both.Send(&testpb.Drop{N: n}); err != nil {
				return err
			}
		}
		if err := both.CloseSend(); err != nil {
			return err
		}
		return drain(both.Recv)
	}())
	if in, err := client.Hang(ctx, &testpb.Drop{}); err == nil {
		_, err = in.Recv()
		l.note(err)
	}
	l.streams.Add(3)
}

// drain reads a stream to its end.
func drain(recv func() (*testpb.Drop, error)) error {
	for {
		if _, err := recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
