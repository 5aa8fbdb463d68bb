// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/callgraph/draw"
)

// stopTime is for answers under way when the console ends.
const stopTime = 3 * time.Second

// Serve pulls, and serves the page on lis, until ctx ends. It closes lis.
func (c *Console) Serve(ctx context.Context, lis net.Listener) error {
	srv := &http.Server{
		Handler: c.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		WriteTimeout: time.Minute, MaxHeaderBytes: maxHeadBytes,
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error {
		if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("console: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			return srv.Close() // a browser holds on: it is told the hard way
		}
		return nil
	})
	return g.Wait()
}

// Close lets go of connections to processes. Run does it by itself.
func (c *Console) Close() { c.puller.close() }

// GraphQuery says which graph to print, and how.
type GraphQuery struct {
	Entry  string // its name; empty for all entries
	Format string // text, dot, mermaid, svg or json
	callgraph.Filter
}

// Graph pulls the processes and prints a call graph: of all that they have counted
// since they started or, if last is not zero, of what they count from now on for that
// long. Processes that cannot be pulled are missing in the graph and named in the
// error, which comes with what there is.
func Graph(ctx context.Context, cfg Config, last time.Duration, q GraphQuery) ([]byte, error) {
	if !slices.Contains([]string{"text", "dot", "mermaid", "svg", "json"}, q.Format) {
		return nil, fmt.Errorf("format %q is none: want text, dot, mermaid, svg or json", q.Format)
	}
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	defer c.puller.close()
	defer c.follow(ctx)()
	targets, trouble := c.cfg.Targets(ctx)
	if trouble != nil && len(targets) == 0 {
		return nil, trouble
	}
	if len(targets) > MaxTargets {
		return nil, fmt.Errorf("console: %d targets: at most %d", len(targets), MaxTargets)
	}
	before := map[string]*callgraph.Snapshot{}
	if last > 0 {
		before, _ = c.snapshots(ctx, targets) // who fails now is told of below
		t := time.NewTimer(last)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	after, failed := c.snapshots(ctx, targets)
	failed = errors.Join(trouble, failed)
	if len(after) == 0 {
		return nil, errors.Join(errors.New("no process could be asked"), failed)
	}
	g, err := c.joined(before, after, last, q)
	if err != nil {
		return nil, errors.Join(err, failed)
	}
	out, err := write(g, q.Format)
	return out, errors.Join(err, failed)
}

// joined gives the graph of the windows of all processes.
func (c *Console) joined(before, after map[string]*callgraph.Snapshot, last time.Duration, q GraphQuery) (*callgraph.Graph, error) {
	seen := map[callgraph.Process]bool{}
	var periods []callgraph.Period
	for addr, s := range after {
		if seen[s.Process] {
			continue // another port of the same process
		}
		seen[s.Process] = true
		window, how := callgraph.Window(before[addr], s)
		if how == callgraph.Regressed {
			continue
		}
		periods = append(periods, window)
		for _, e := range s.Entries {
			c.graphs.name(e)
		}
	}
	p := callgraph.Merge(periods...)
	if q.Entry == "" {
		return callgraph.Build(p, last).Filter(q.Filter), nil
	}
	e, err := c.graphs.entry(q.Entry)
	if err != nil {
		names := make([]string, 0, len(c.graphs.names))
		for _, name := range c.graphs.names {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("entry %q: no process has told of it; there are:\n  %s", q.Entry, strings.Join(names, "\n  "))
	}
	return callgraph.Build(p, last, e).Filter(q.Filter), nil
}

// snapshots pulls the graphs of targets, by address.
func (c *Console) snapshots(ctx context.Context, targets []Target) (map[string]*callgraph.Snapshot, error) {
	var mu sync.Mutex // guards what follows
	out := map[string]*callgraph.Snapshot{}
	var failed []error
	var g errgroup.Group
	g.SetLimit(pullsAtOnce)
	for _, t := range targets {
		g.Go(func() error {
			got := c.puller.pull(ctx, t, 0, func(*callgraph.Snapshot) bool { return false })
			mu.Lock()
			defer mu.Unlock()
			if got.snapshot != nil {
				out[t.Addr] = got.snapshot
			}
			if got.err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", t.name(), got.err))
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in failed
	return out, errors.Join(failed...)
}

func write(g *callgraph.Graph, format string) ([]byte, error) {
	switch format {
	case "dot":
		return draw.DOT(g), nil
	case "mermaid":
		return draw.Mermaid(g), nil
	case "svg":
		return draw.SVG(g, true)
	case "json":
		return draw.JSON(g, true)
	default:
		return draw.Text(g), nil
	}
}
