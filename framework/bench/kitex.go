// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"

	kitexclient "github.com/cloudwego/kitex/client"
	kitexserver "github.com/cloudwego/kitex/server"

	"github.com/sluice-rpc/sluice/framework/bench/kitex_gen/echo"
	"github.com/sluice-rpc/sluice/framework/bench/kitex_gen/echo/echoservice"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// kitexPeer is bare kitex: its own generator, its own messages, its mux
// transport and else its defaults, which set no deadline. With one, kitex runs
// every call in a second goroutine.
var kitexPeer = child.Peer{
	Name:  "kitex",
	About: "kitex v0.16.3, TTHeader mux, own generator, default options: no deadline",
	Serve: kitexServe(nil),
	Dial:  kitexDial(nil),
}

type kitexHandler struct{ s *child.Service }

func (h *kitexHandler) Echo(_ context.Context, req *echo.EchoRequest) (*echo.EchoResponse, error) {
	h.s.Echo()
	return &echo.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h *kitexHandler) Hold(_ context.Context, req *echo.EchoRequest) (*echo.EchoResponse, error) {
	h.s.Hold()
	return &echo.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// kitexServe serves with more options, which are made when it begins.
func kitexServe(more func() []kitexserver.Option) func(*child.Service) (string, error) {
	return func(s *child.Service) (string, error) {
		// kitex tells nobody which port it was given: give it a listener.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		opts := []kitexserver.Option{kitexserver.WithMuxTransport(), kitexserver.WithListener(ln)}
		if more != nil {
			opts = append(opts, more()...)
		}
		go child.Serve(echoservice.NewServer(&kitexHandler{s}, opts...).Run)
		return ln.Addr().String(), nil
	}
}

type kitexClient struct {
	child.TakesAll
	c echoservice.Client
}

func kitexDial(more func() []kitexclient.Option) func(addr string) (child.Client, error) {
	return func(addr string) (child.Client, error) {
		opts := []kitexclient.Option{kitexclient.WithHostPorts(addr), kitexclient.WithMuxConnection(child.Connections)}
		if more != nil {
			opts = append(opts, more()...)
		}
		c, err := echoservice.NewClient("echo", opts...)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		return kitexClient{c: c}, nil
	}
}

func (c kitexClient) Echo(data []byte) child.Caller {
	req := &echo.EchoRequest{Name: child.EchoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Echo(ctx, req)
		if err != nil {
			return err
		}
		return child.Check(id, res.Id, len(data), len(res.Data))
	}
}

func (c kitexClient) Hold(data []byte) child.Caller {
	req := &echo.EchoRequest{Name: child.EchoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Hold(ctx, req)
		if err != nil {
			return err
		}
		return child.Check(id, res.Id, len(data), len(res.Data))
	}
}
