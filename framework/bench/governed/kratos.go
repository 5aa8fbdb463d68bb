// SPDX-License-Identifier: Apache-2.0

//go:build governed

package main

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/go-kratos/aegis/ratelimit/bbr"
	"github.com/go-kratos/kratos/v2/errors"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/middleware"
	"github.com/go-kratos/kratos/v2/middleware/circuitbreaker"
	"github.com/go-kratos/kratos/v2/middleware/metadata"
	"github.com/go-kratos/kratos/v2/middleware/metrics"
	"github.com/go-kratos/kratos/v2/middleware/ratelimit"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	kratosgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/sluice-rpc/sluice/framework/bench/child"
	grpcv1 "github.com/sluice-rpc/sluice/framework/bench/idl/grpc/v1"
)

// kratosPeer is Kratos with the middlewares of its documentation.
var kratosPeer = child.Peer{
	Name:     "kratos",
	About:    "Kratos v2.8.3, recovery, tracing (one in a hundred), metrics, metadata, rate limit (BBR, which looks on), circuit breaker, timeouts",
	Deadline: true,
	Serve:    kratosServe,
	Dial:     kratosDial,
}

// kratosSetUp makes what its middlewares write to.
func kratosSetUp(requests, seconds string) (metrics.Option, metrics.Option, error) {
	log.SetLogger(log.NewStdLogger(io.Discard)) // it would write between the lines of the run
	otel.SetTracerProvider(sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(.01))), sdktrace.WithBatcher(discard{})))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()),
		sdkmetric.WithView(metrics.DefaultSecondsHistogramView(seconds))).Meter("echo")
	counter, err := metrics.DefaultRequestsCounter(meter, requests)
	if err != nil {
		return nil, nil, err
	}
	histogram, err := metrics.DefaultSecondsHistogram(meter, seconds)
	return metrics.WithRequests(counter), metrics.WithSeconds(histogram), err
}

func kratosServe(s *child.Service) (string, error) {
	requests, seconds, err := kratosSetUp(metrics.DefaultServerRequestsCounterName, metrics.DefaultServerSecondsHistogramName)
	if err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := kratosgrpc.NewServer(kratosgrpc.Listener(ln), kratosgrpc.Timeout(patience), kratosgrpc.Middleware(
		recovery.Recovery(),
		tracing.Server(),
		metrics.Server(requests, seconds),
		metadata.Server(),
		// By default it refuses when the processor is used to 80 %: a bench of calls that
		// are served does not want that.
		ratelimit.Server(ratelimit.WithLimiter(bbr.NewLimiter(bbr.WithCPUThreshold(100_000)))),
	))
	grpcv1.RegisterEchoServiceServer(srv, handler{s: s})
	go child.Serve(func() error { return srv.Start(context.Background()) })
	return ln.Addr().String(), nil
}

// kratosClient tells what its breaker has refused, or the server's limiter.
type kratosClient struct{ *clients }

func (kratosClient) ComeAgain(err error) (time.Duration, bool) {
	reason := errors.Reason(err)
	return time.Millisecond, reason == ratelimit.ErrLimitExceed.Reason || reason == circuitbreaker.ErrNotAllowed.Reason
}

func kratosDial(addr string) (child.Client, error) {
	requests, seconds, err := kratosSetUp(metrics.DefaultClientRequestsCounterName, metrics.DefaultClientSecondsHistogramName)
	if err != nil {
		return nil, err
	}
	chain := []middleware.Middleware{
		recovery.Recovery(),
		tracing.Client(),
		metrics.Client(requests, seconds),
		metadata.Client(),
		circuitbreaker.Client(),
	}
	all, err := dialAll(func() (*grpc.ClientConn, error) {
		return kratosgrpc.DialInsecure(context.Background(), kratosgrpc.WithEndpoint(addr), kratosgrpc.WithTimeout(patience), kratosgrpc.WithMiddleware(chain...))
	})
	return kratosClient{all}, err
}
