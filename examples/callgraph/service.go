// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	shopv1 "github.com/sluice-rpc/sluice/examples/callgraph/shop/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/activation"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// What a service is told by the process that starts it: its name, and where the others
// are, as "price=127.0.0.1:7000 price=127.0.0.1:7001".
const (
	envService = "SLUICE_CALLGRAPH_SERVICE"
	envOthers  = "SLUICE_CALLGRAPH_OTHERS"

	socketCalls = "calls"
	socketAdmin = "admin"
)

// serve runs one service until its input ends, which is when its parent does.
func serve(ctx context.Context, name string, input io.Reader) error {
	sockets, err := activation.Inherited()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with the process: a read cannot be interrupted
		defer stop()
		_, _ = io.Copy(io.Discard, input)
	}()
	cfg := framework.ServerConfig{Service: name, DrainTimeout: time.Second}
	if name == "price-small" {
		cfg.Service, cfg.MaxInFlight = "price", 1
	}
	srv := framework.NewServer(cfg, framework.WithoutSignals(), framework.WithListeners(sockets[socketCalls], sockets[socketAdmin]),
		framework.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	others := &others{addrs: strings.Fields(os.Getenv(envOthers))}
	defer others.close()
	switch name {
	case "shop":
		shopv1.RegisterShopServer(srv, shop{
			catalog: shopv1.NewCatalogClient(others.dial("catalog")), price: shopv1.NewPriceClient(others.dial("price")),
			stock: shopv1.NewStockClient(others.dial("stock")), advice: shopv1.NewAdviceClient(others.dial("advice")),
		})
	case "catalog":
		shopv1.RegisterCatalogServer(srv, catalog{stock: shopv1.NewStockClient(others.dial("stock"))})
	case "price", "price-small":
		shopv1.RegisterPriceServer(srv, price{})
	case "stock":
		shopv1.RegisterStockServer(srv, &stock{})
	case "advice":
		shopv1.RegisterAdviceServer(srv, advice{})
	default:
		return fmt.Errorf("%s=%q is no service of this program", envService, name)
	}
	if others.err != nil {
		return others.err
	}
	return srv.Run(ctx)
}

// others are the services that one calls.
type others struct {
	addrs []string // "service=host:port"
	conns []*framework.Conn
	err   error // the first
}

func (o *others) dial(service string) *framework.Conn {
	cfg := framework.ClientConfig{Service: service}
	for _, a := range o.addrs {
		if addr, ok := strings.CutPrefix(a, service+"="); ok {
			cfg.Addrs = append(cfg.Addrs, addr)
		}
	}
	conn, err := framework.Dial(cfg)
	switch {
	case err == nil:
		o.conns = append(o.conns, conn)
	case o.err == nil:
		o.err = err
	}
	return conn
}

func (o *others) close() {
	for _, c := range o.conns {
		_ = c.Close()
	}
}

type shop struct {
	shopv1.UnimplementedShopServer
	catalog shopv1.CatalogClient
	price   shopv1.PriceClient
	stock   shopv1.StockClient
	advice  shopv1.AdviceClient
}

// Product asks four services at once. A page without stock or advice is still a page.
func (s shop) Product(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	parts := []struct {
		ask    func(context.Context, *shopv1.ItemRequest) (*shopv1.ItemResponse, error)
		needed bool
		res    *shopv1.ItemResponse
		err    error
	}{{ask: s.catalog.Describe, needed: true}, {ask: s.price.Quote, needed: true}, {ask: s.stock.Count}, {ask: s.advice.Suggest}}
	var asked sync.WaitGroup
	for i := range parts {
		p := &parts[i]
		asked.Go(func() { p.res, p.err = p.ask(ctx, req) })
	}
	asked.Wait()
	var text []string
	for _, p := range parts {
		switch {
		case p.err == nil:
			text = append(text, p.res.GetText())
		case p.needed:
			return nil, p.err
		}
	}
	return &shopv1.ItemResponse{Text: strings.Join(text, "; ")}, nil
}

// Search asks one after the other.
func (s shop) Search(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	found, err := s.catalog.Find(ctx, req)
	if err != nil {
		return nil, err
	}
	costs, err := s.price.Quote(ctx, req)
	if err != nil {
		return nil, err
	}
	return &shopv1.ItemResponse{Text: found.GetText() + ", " + costs.GetText()}, nil
}

type catalog struct {
	shopv1.UnimplementedCatalogServer
	stock shopv1.StockClient
}

// Describe says whether there is any, if the stock knows.
func (c catalog) Describe(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	text := fmt.Sprintf("item %d", req.GetItem())
	if _, err := c.stock.Count(ctx, req); err == nil {
		text += ", to be had"
	}
	return &shopv1.ItemResponse{Text: text}, nil
}

// Find finds everything.
func (catalog) Find(_ context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	return &shopv1.ItemResponse{Text: fmt.Sprintf("item %d", req.GetItem())}, nil
}

type price struct {
	shopv1.UnimplementedPriceServer
}

// Quote takes its time. The small instance has room for one call: what it refuses is
// asked of the other one.
func (price) Quote(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	wait := time.NewTimer(8 * time.Millisecond)
	defer wait.Stop()
	select {
	case <-wait.C:
		return &shopv1.ItemResponse{Text: fmt.Sprintf("%d.99", req.GetItem()%100)}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type stock struct {
	shopv1.UnimplementedStockServer
	asked atomic.Int64
}

// Count fails each seventh time.
func (s *stock) Count(_ context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	if s.asked.Add(1)%7 == 0 {
		return nil, rpc.Errorf(rpc.Unavailable, "the shelf of item %d cannot be reached", req.GetItem())
	}
	return &shopv1.ItemResponse{Text: "5 left"}, nil
}

type advice struct {
	shopv1.UnimplementedAdviceServer
}

// Suggest keeps a core busy for some 30 ms; its process has one.
func (advice) Suggest(_ context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	digest := [sha256.Size]byte{byte(req.GetItem())}
	for range 300_000 {
		digest = sha256.Sum256(digest[:])
	}
	return &shopv1.ItemResponse{Text: fmt.Sprintf("try item %d", digest[0])}, nil
}
