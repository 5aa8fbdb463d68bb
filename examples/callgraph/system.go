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
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	shopv1 "github.com/sluice-rpc/sluice/examples/callgraph/shop/v1"
	"github.com/sluice-rpc/sluice/framework"
	"github.com/sluice-rpc/sluice/framework/activation"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing/console"
)

// services are the processes, callees first.
var services = []string{"price", "price-small", "stock", "advice", "catalog", "shop"}

// system is what runs. This process is the entry, the crowd, and the console.
type system struct {
	processes    []*process // callers last
	targets      []console.Target
	web, console string // addresses
}

// run starts everything, calls ready, and waits for ctx to end. When it returns no
// process and no goroutine is left.
func run(ctx context.Context, consoleAddr string, rate float64, ready func(*system)) (err error) {
	s := &system{}
	defer func() { err = errors.Join(err, s.stop()) }()
	var addrs []string
	for _, name := range services {
		p, err := start(ctx, name, addrs)
		if err != nil {
			return err
		}
		s.processes = append(s.processes, p)
		s.targets = append(s.targets, console.Target{Name: name, Addr: p.admin})
		addrs = append(addrs, strings.TrimSuffix(name, "-small")+"="+p.addr)
	}
	conn, err := framework.Dial(framework.ClientConfig{Service: "shop", Addrs: []string{s.processes[len(s.processes)-1].addr}})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	var listeners [3]net.Listener
	for i, addr := range [...]string{"127.0.0.1:0", "127.0.0.1:0", consoleAddr} {
		if listeners[i], err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			return err
		}
		defer func() { _ = listeners[i].Close() }() // those that nobody came to serve
	}
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	entry := edge.New(edge.Config{Service: "web", Log: quiet})
	server, err := edge.NewServer(edge.ServerConfig{Log: quiet, LameDuck: time.Millisecond, Drain: time.Second}, routes(entry, shopv1.NewShopClient(conn)))
	if err != nil {
		return err
	}
	s.web, s.console = listeners[0].Addr().String(), listeners[2].Addr().String()
	s.targets = append(s.targets, console.Target{Name: "web", Addr: listeners[1].Addr().String()})
	shown, err := console.New(console.Config{Targets: console.Static(s.targets...), Every: 2 * time.Second, Log: quiet})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return entry.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx, listeners[0]) })
	g.Go(func() error { return entry.ServeAdmin(ctx, listeners[1], nil) })
	g.Go(func() error { return shown.Serve(ctx, listeners[2]) })
	g.Go(func() error { return crowd(ctx, "http://"+s.web, rate) })
	for _, p := range s.processes {
		g.Go(func() error { return p.watch(ctx) })
	}
	ready(s)
	return g.Wait()
}

// routes are the entries of the system.
func routes(entry *edge.Entry, client shopv1.ShopClient) http.Handler {
	mux := http.NewServeMux()
	route := func(name string, m *rpc.Method, ask func(context.Context, *shopv1.ItemRequest) (*shopv1.ItemResponse, error)) {
		mux.Handle(name, entry.Handle(name, m, func(w http.ResponseWriter, r *http.Request) error {
			item, err := strconv.ParseInt(r.URL.Query().Get("item"), 10, 64)
			if err != nil {
				return rpc.Errorf(rpc.InvalidArgument, "item: want a number, such as ?item=7")
			}
			res, err := ask(r.Context(), &shopv1.ItemRequest{Item: item})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(w, res.GetText())
			return err
		}))
	}
	route("GET /product", shopv1.ShopProductMethod, client.Product)
	route("GET /search", shopv1.ShopSearchMethod, client.Search)
	mux.Handle("/", entry.NotFound(mux))
	return mux
}

// maxRequests bounds the requests under way.
const maxRequests = 256

// crowd makes so many requests a second until ctx ends: two products to a search.
func crowd(ctx context.Context, web string, rate float64) error {
	transport := &http.Transport{MaxIdleConnsPerHost: maxRequests}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var g errgroup.Group
	g.SetLimit(maxRequests)
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-tick.C:
		}
		path := "/product"
		if n%3 == 0 {
			path = "/search"
		}
		g.TryGo(func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s%s?item=%d", web, path, n), http.NoBody)
			if err != nil {
				return err
			}
			res, err := client.Do(req)
			if err != nil {
				return nil //nolint:nilerr // a crowd does not complain
			}
			_, _ = io.Copy(io.Discard, res.Body)
			return res.Body.Close()
		})
	}
}

func (s *system) stop() error {
	var errs []error
	for i := len(s.processes) - 1; i >= 0; i-- { // callers first
		errs = append(errs, s.processes[i].stop())
	}
	return errors.Join(errs...)
}

// process is a service that runs.
type process struct {
	name        string
	addr, admin string
	input       io.Closer
	cmd         *exec.Cmd
	ended       chan struct{} // closed when it has ended
	err         error         // why; to be read after that
}

// start starts this program again as a service. It hands it sockets that are bound
// already: calls that come too early wait in them.
func start(ctx context.Context, name string, others []string) (*process, error) {
	calls, err := activation.Listen(ctx, socketCalls, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = calls.Close() }() // the child has its own
	admin, err := activation.Listen(ctx, socketAdmin, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = admin.Close() }()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, addr: calls.Addr(), admin: admin.Addr(), ended: make(chan struct{})}
	p.cmd = exec.Command(self) //nolint:noctx // it is asked to end through its input, so that it drains
	p.cmd.Env = append(os.Environ(), envService+"="+name, envOthers+"="+strings.Join(others, " "))
	if name == "advice" {
		p.cmd.Env = append(p.cmd.Env, "GOMAXPROCS=1")
	}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // out of reach of the terminal's Ctrl-C
	if err := activation.Pass(p.cmd, calls, admin); err != nil {
		return nil, err
	}
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // stop waits for it
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// watch tells of an end that nobody asked for.
func (p *process) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.ended:
		return fmt.Errorf("%s ended by itself", p.name)
	}
}

// stopTime is how long a service may take to end, then it is killed.
const stopTime = 5 * time.Second

// stop ends the process by ending its input, and waits for it.
func (p *process) stop() error {
	_ = p.input.Close() // it may have ended already
	limit := time.NewTimer(stopTime)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}
