// SPDX-License-Identifier: Apache-2.0

//go:build governed

package main

import (
	"strings"
	"time"

	"github.com/zeromicro/go-zero/core/conf"
	"github.com/zeromicro/go-zero/core/prometheus"
	"github.com/zeromicro/go-zero/core/service"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"

	"github.com/sluice-rpc/sluice/framework/bench/child"
	grpcv1 "github.com/sluice-rpc/sluice/framework/bench/idl/grpc/v1"
)

// goZeroPeer is go-zero with all of its middlewares, which are its defaults: trace,
// recover, stat, Prometheus, breaker, shedding, timeout; at the client trace, duration,
// Prometheus, breaker, timeout, and the choice of two by load.
var goZeroPeer = child.Peer{
	Name:     "go-zero",
	About:    "go-zero v1.10.3, zrpc with all of its middlewares; spans of one in a hundred; calls are not logged, the shedder looks on",
	Deadline: true,
	Serve:    goZeroServe,
	Dial:     goZeroDial,
}

// goZeroServer is the configuration as a team writes it. By default go-zero logs every
// call with its content, and refuses when the processor is used to 90 %: a bench of calls
// that are served wants neither.
const goZeroServer = `
Name: echo
Log: {Mode: console, Encoding: plain, Level: severe, Stat: false}
Telemetry: {Name: echo, Sampler: 0.01}
CpuThreshold: 999
Timeout: 10000
Middlewares:
  StatConf: {IgnoreContentMethods: [` + grpcv1.EchoService_Echo_FullMethodName + `]}
`

const goZeroSetUp = `
Name: echo-client
Log: {Mode: console, Encoding: plain, Level: severe, Stat: false}
Telemetry: {Name: echo-client, Sampler: 0.01}
`

func goZeroServe(s *child.Service) (string, error) {
	addr, err := freePort()
	if err != nil {
		return "", err
	}
	var c zrpc.RpcServerConf
	if err := conf.LoadFromYamlBytes([]byte(goZeroServer+"ListenOn: "+addr+"\n"), &c); err != nil {
		return "", err
	}
	srv, err := zrpc.NewServer(c, func(srv *grpc.Server) { grpcv1.RegisterEchoServiceServer(srv, handler{s: s}) })
	if err != nil {
		return "", err
	}
	prometheus.Enable() // its agent does so when it has an address to be scraped at
	go child.Serve(func() error { srv.Start(); return nil })
	return addr, nil
}

// goZeroClient tells what its breaker has refused, or the server's shedder.
type goZeroClient struct{ *clients }

func (goZeroClient) ComeAgain(err error) (time.Duration, bool) {
	return time.Millisecond, strings.Contains(err.Error(), "service overloaded") || strings.Contains(err.Error(), "circuit breaker is open")
}

func goZeroDial(addr string) (child.Client, error) {
	var set service.ServiceConf
	if err := conf.LoadFromYamlBytes([]byte(goZeroSetUp), &set); err != nil {
		return nil, err
	}
	if err := set.SetUp(); err != nil {
		return nil, err
	}
	prometheus.Enable()
	var c zrpc.RpcClientConf
	if err := conf.LoadFromYamlBytes([]byte("Endpoints: ["+addr+"]\nTimeout: 10000\n"), &c); err != nil {
		return nil, err
	}
	all, err := dialAll(func() (*grpc.ClientConn, error) {
		client, err := zrpc.NewClient(c)
		if err != nil {
			return nil, err
		}
		return client.Conn(), nil
	})
	return goZeroClient{all}, err
}
