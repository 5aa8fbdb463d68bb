// SPDX-License-Identifier: Apache-2.0

package main

import (
	kitexclient "github.com/cloudwego/kitex/client"
	kitexserver "github.com/cloudwego/kitex/server"
	kitexotel "github.com/kitex-contrib/obs-opentelemetry/tracing"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// The peers with OpenTelemetry as their projects document it: traces and metrics, every
// call sampled, which is the SDK's default, batches to a receiver that costs nothing.
var (
	kitexOTelPeer = variant(child.Peer{
		Serve: kitexServe(func() []kitexserver.Option {
			return []kitexserver.Option{kitexserver.WithSuite(kitexotel.NewServerSuite())}
		}),
		Dial: kitexDial(func() []kitexclient.Option {
			return []kitexclient.Option{kitexclient.WithSuite(kitexotel.NewClientSuite())}
		}),
	}, "kitex-otel", "kitex with kitex-contrib/obs-opentelemetry v0.3.0 as documented: spans of all calls, and metrics", startOTel)

	grpcOTelPeer = variant(child.Peer{
		Deadline: true,
		Serve: grpcServe(func() []grpc.ServerOption {
			return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler())}
		}, nil),
		Dial: grpcDial(func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler())}
		}),
	}, "grpc-otel", "grpc-go with otelgrpc v0.72.0 as documented: spans of all calls, and metrics", startOTel)
)

func startOTel() error {
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithBatcher(discard{})))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return nil
}
