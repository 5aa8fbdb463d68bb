// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	shopv1 "github.com/sluice-rpc/sluice/examples/callgraph/shop/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// system is the small system: two entries, five services over sockets, a fan-out, calls
// that fail, that are too late, and that are made again.
type system struct {
	stop   context.CancelFunc
	served sync.WaitGroup
	conns  []*framework.Conn
	admin  string // of any of its servers: all are in this process
	err    error  // of starting
	routes map[string]http.Handler
}

func startSystem(ctx context.Context) (*system, error) {
	s := &system{routes: map[string]http.Handler{}}
	ctx, s.stop = context.WithCancel(ctx)
	fast := s.serve(ctx, "price", 0, func(r rpc.Registrar) { shopv1.RegisterPriceServer(r, price{}) })
	small := s.serve(ctx, "price", 1, func(r rpc.Registrar) { shopv1.RegisterPriceServer(r, price{}) })
	stockAt := s.serve(ctx, "stock", 0, func(r rpc.Registrar) { shopv1.RegisterStockServer(r, &stock{}) })
	adviceAt := s.serve(ctx, "advice", 0, func(r rpc.Registrar) { shopv1.RegisterAdviceServer(r, &advice{}) })
	stockClient := shopv1.NewStockClient(s.dial("stock", stockAt))
	catalogAt := s.serve(ctx, "catalog", 0, func(r rpc.Registrar) { shopv1.RegisterCatalogServer(r, catalog{stock: stockClient}) })
	front := shop{
		catalog: shopv1.NewCatalogClient(s.dial("catalog", catalogAt)), price: shopv1.NewPriceClient(s.dial("price", fast, small)),
		stock: stockClient, advice: shopv1.NewAdviceClient(s.dial("advice", adviceAt)),
	}
	shopAt := s.serve(ctx, "shop", 0, func(r rpc.Registrar) { shopv1.RegisterShopServer(r, front) })
	client := shopv1.NewShopClient(s.dial("shop", shopAt))
	entry := edge.New(edge.Config{Service: "web", AdmissionOff: true, Log: slog.New(slog.DiscardHandler)})
	for name, ask := range map[string]ask{"GET /product": client.Product, "GET /search": client.Search} {
		s.routes[name] = entry.Handle(name, shopv1.ShopProductMethod, func(w http.ResponseWriter, r *http.Request) error {
			_, err := ask(r.Context(), &shopv1.ItemRequest{Item: 7})
			return err
		})
	}
	if s.err != nil {
		return nil, errors.Join(s.err, s.close())
	}
	return s, nil
}

type ask = func(context.Context, *shopv1.ItemRequest) (*shopv1.ItemResponse, error)

// serve starts a server and gives its address.
func (s *system) serve(ctx context.Context, name string, limit int, register func(rpc.Registrar)) string {
	srv := framework.NewServer(framework.ServerConfig{Service: name, Admin: "127.0.0.1:0", MaxInFlight: limit, Admission: framework.Off},
		framework.WithoutSignals(), framework.WithLogger(slog.New(slog.DiscardHandler)))
	register(srv)
	if err := srv.Listen(); err != nil {
		s.err = errors.Join(s.err, err)
		return ""
	}
	s.admin = srv.AdminAddr()
	s.served.Go(func() { _ = srv.Run(ctx) })
	return srv.Addr()
}

func (s *system) dial(name string, addrs ...string) *framework.Conn {
	conn, err := framework.Dial(framework.ClientConfig{Service: name, Addrs: addrs})
	if err != nil {
		s.err = errors.Join(s.err, err)
		return nil
	}
	s.conns = append(s.conns, conn)
	return conn
}

func (s *system) close() error {
	s.stop()
	s.served.Wait()
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ask sends n requests, some at once, each with a trace id of its own, and gives these.
func (s *system) ask(ctx context.Context, n int) []tracing.TraceID {
	ids := make([]tracing.TraceID, n)
	var next atomic.Int64
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				ids[i] = tracing.NewTraceID()
				name := [...]string{"GET /product", "GET /product", "GET /search"}[i%3]
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, name[len("GET "):], http.NoBody)
				r.Header.Set("Traceparent", tracing.Traceparent(ids[i], tracing.NewSpanID(), false))
				s.routes[name].ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
	g.Wait()
	return ids
}

// graph gives the call graph as the admin port tells it.
func (s *system) graph(ctx context.Context) (*callgraph.Graph, error) {
	body, err := get(ctx, "http://"+s.admin+"/admin/graph?format=json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	snap, err := callgraph.ReadSnapshot(body)
	if err != nil {
		return nil, err
	}
	return callgraph.Build(snap.Period, 0), nil
}

var browser = &http.Client{Timeout: 10 * time.Second}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", url, res.Status), res.Body.Close())
	}
	return res.Body, nil
}

// freeAddr gives an address that was free a moment ago.
func freeAddr(ctx context.Context) (string, error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return lis.Addr().String(), lis.Close()
}

type shop struct {
	shopv1.UnimplementedShopServer
	catalog shopv1.CatalogClient
	price   shopv1.PriceClient
	stock   shopv1.StockClient
	advice  shopv1.AdviceClient
}

// Product asks all the others at once.
func (s shop) Product(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	var g sync.WaitGroup
	for _, ask := range []ask{s.catalog.Describe, s.price.Quote, s.stock.Count, s.advice.Suggest} {
		g.Go(func() { _, _ = ask(ctx, req) })
	}
	g.Wait()
	return &shopv1.ItemResponse{}, nil
}

// Search passes on what fails.
func (s shop) Search(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	if _, err := s.catalog.Find(ctx, req); err != nil {
		return nil, err
	}
	return s.price.Quote(ctx, req)
}

type catalog struct {
	shopv1.UnimplementedCatalogServer
	stock shopv1.StockClient
}

func (c catalog) Describe(ctx context.Context, req *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	return c.stock.Count(ctx, req)
}

func (catalog) Find(context.Context, *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	return &shopv1.ItemResponse{}, nil
}

type price struct {
	shopv1.UnimplementedPriceServer
}

func (price) Quote(ctx context.Context, _ *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	return wait(ctx, 5*time.Millisecond)
}

type stock struct {
	shopv1.UnimplementedStockServer
	asked atomic.Int64
}

// Count fails each seventh time.
func (s *stock) Count(context.Context, *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	if s.asked.Add(1)%7 == 0 {
		return nil, rpc.Errorf(rpc.NotFound, "no such item")
	}
	return &shopv1.ItemResponse{}, nil
}

type advice struct {
	shopv1.UnimplementedAdviceServer
	asked atomic.Int64
}

// Suggest is too late each twentieth time.
func (a *advice) Suggest(ctx context.Context, _ *shopv1.ItemRequest) (*shopv1.ItemResponse, error) {
	if a.asked.Add(1)%20 == 0 {
		return wait(ctx, time.Minute)
	}
	return &shopv1.ItemResponse{}, nil
}

func wait(ctx context.Context, d time.Duration) (*shopv1.ItemResponse, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return &shopv1.ItemResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
