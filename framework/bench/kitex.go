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
)

// kitexPeer is bare kitex: its own generator, its own messages, its mux
// transport and else its defaults, which set no deadline. With one, kitex runs
// every call in a second goroutine.
var kitexPeer = peer{
	name:  "kitex",
	about: "kitex v0.16.3, TTHeader mux, own generator, default options: no deadline",
	serve: kitexServe(nil),
	dial:  kitexDial(nil),
}

type kitexHandler struct{ s *service }

func (h *kitexHandler) Echo(_ context.Context, req *echo.EchoRequest) (*echo.EchoResponse, error) {
	h.s.echo()
	return &echo.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

func (h *kitexHandler) Hold(_ context.Context, req *echo.EchoRequest) (*echo.EchoResponse, error) {
	h.s.hold()
	return &echo.EchoResponse{Id: req.Id, Name: req.Name, Data: req.Data}, nil
}

// kitexServe serves with more options, which are made when it begins.
func kitexServe(more func() []kitexserver.Option) func(*service) (string, error) {
	return func(s *service) (string, error) {
		// kitex tells nobody which port it was given: give it a listener.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		opts := []kitexserver.Option{kitexserver.WithMuxTransport(), kitexserver.WithListener(ln)}
		if more != nil {
			opts = append(opts, more()...)
		}
		go serve(echoservice.NewServer(&kitexHandler{s}, opts...).Run)
		return ln.Addr().String(), nil
	}
}

type kitexClient struct{ c echoservice.Client }

func kitexDial(more func() []kitexclient.Option) func(addr string) (client, error) {
	return func(addr string) (client, error) {
		opts := []kitexclient.Option{kitexclient.WithHostPorts(addr), kitexclient.WithMuxConnection(connections)}
		if more != nil {
			opts = append(opts, more()...)
		}
		c, err := echoservice.NewClient("echo", opts...)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		return kitexClient{c}, nil
	}
}

func (c kitexClient) echo(data []byte) caller {
	req := &echo.EchoRequest{Name: echoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Echo(ctx, req)
		if err != nil {
			return err
		}
		return check(id, res.Id, len(data), len(res.Data))
	}
}

func (c kitexClient) hold(data []byte) caller {
	req := &echo.EchoRequest{Name: echoName, Data: data}
	return func(ctx context.Context, id int64) error {
		req.Id = id
		res, err := c.c.Hold(ctx, req)
		if err != nil {
			return err
		}
		return check(id, res.Id, len(data), len(res.Data))
	}
}
