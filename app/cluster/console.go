// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"

	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/tracing/console"
)

// DefaultConsole is where the console is if nobody says, unless something else is.
const DefaultConsole = "127.0.0.1:7900"

// Console shows the call graphs, traces and items of what runs here. It is for this
// machine alone unless its address says otherwise: it has no log-in.
type Console struct {
	console *console.Console
	lis     net.Listener
}

// OpenConsole binds the console of what a state tells of. Nothing is served before
// Run. An empty address is DefaultConsole, or any free port if that is taken.
func OpenConsole(ctx context.Context, addr string, s *State, log *slog.Logger) (*Console, error) {
	return openConsole(ctx, addr, console.Static(s.targets()...), log)
}

// OpenWorldConsole binds the console of all processes of all regions of a World, which are
// found anew before each look.
func OpenWorldConsole(ctx context.Context, addr string, w *World, log *slog.Logger) (*Console, error) {
	return openConsole(ctx, addr, func(context.Context) ([]console.Target, error) {
		var all []console.Target
		for _, r := range w.all() {
			s, err := r.state()
			if err != nil {
				continue // it is starting
			}
			for _, t := range s.targets() {
				t.Name = strings.ToUpper(r.Name) + " " + t.Name
				all = append(all, t)
			}
		}
		return all, nil
	}, log)
}

func openConsole(ctx context.Context, addr string, targets console.Targets, log *slog.Logger) (*Console, error) {
	c, err := console.New(console.Config{Targets: targets, Log: log})
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	asked := addr
	if asked == "" {
		asked = DefaultConsole
	}
	lis, err := lc.Listen(ctx, "tcp", loopback(asked))
	if addr == "" && errors.Is(err, syscall.EADDRINUSE) {
		lis, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the console: %w", err)
	}
	return &Console{console: c, lis: lis}, nil
}

// URL is where the page of the console is.
func (c *Console) URL() string { return "http://" + c.lis.Addr().String() }

// Run pulls and serves until ctx ends.
func (c *Console) Run(ctx context.Context) error { return c.console.Serve(ctx, c.lis) }

// Close lets go of a console that is not run.
func (c *Console) Close() error { return c.lis.Close() }

// targets gives the admin ports of all processes.
func (s *State) targets() []console.Target {
	if len(s.Gateways) == 0 { // it has told the others all, and goes: nobody looks at it
		return nil
	}
	if !s.Split { // all ports lead to the one process
		return []console.Target{{Name: "moments", Addr: s.Gateways[0].Admin}}
	}
	var out []console.Target
	for _, r := range topology.Placed() {
		out = append(out, console.Target{Name: string(r), Addr: s.Services[r].Admin})
	}
	for i, g := range s.Gateways {
		out = append(out, console.Target{Name: fmt.Sprintf("gateway %d", i+1), Addr: g.Admin})
	}
	return out
}
