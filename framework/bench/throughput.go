// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/child"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// loop is one closed loop of the throughput part.
type loop struct {
	part    string
	callers int
}

// concurrency lists the closed loops of the throughput part.
var concurrency = []loop{{"c1", 1}, {"c100", 100}, {"c1000", 1000}}

// usage is what one call costs one process.
type usage struct {
	micros float64 // CPU, user + system
	allocs float64
	bytes  float64 // allocated
}

// window is what one framework did in one measured window.
type window struct {
	calls          int64 // answered and checked, from the window's start to the stop
	refused        int64 // in that time, and made again
	perSecond      float64
	server, client usage
}

// refusedShare is that of the calls that were made.
func (w window) refusedShare() float64 {
	return float64(w.refused) / float64(max(w.calls+w.refused, 1))
}

// spent gives the cost of a call between two samples of a process.
func spent(from, to child.Sample) (usage, error) {
	calls := float64(to.Calls - from.Calls)
	if calls <= 0 {
		return usage{}, errors.New("no call was answered within the window: make it longer")
	}
	return usage{
		micros: float64(to.CPU-from.CPU) / calls / 1e3,
		allocs: float64(to.Mallocs-from.Mallocs) / calls,
		bytes:  float64(to.AllocBytes-from.AllocBytes) / calls,
	}, nil
}

// throughputPart runs every framework once a round at each concurrency.
func throughputPart(ctx context.Context, cfg config, rep *report) error {
	if !slices.ContainsFunc(concurrency, func(l loop) bool { return cfg.wants(l.part) }) {
		return nil
	}
	rep.title("echo of %d bytes, %d connections, closed loop, %d rounds; each cell: calls/s, server + client µs of CPU a call",
		child.EchoBytes, child.Connections, cfg.rounds)
	byPart := map[string]map[string][]window{} // part -> framework -> one window a round
	for round := range cfg.rounds {
		lines := map[string][]string{}
		for i := range cfg.peers {
			name := cfg.peers[(i+round)%len(cfg.peers)]
			if err := throughputOf(ctx, cfg, name, func(part string, w window) {
				rep.calls += w.calls
				if byPart[part] == nil {
					byPart[part] = map[string][]window{}
				}
				byPart[part][name] = append(byPart[part][name], w)
				lines[part] = append(lines[part],
					fmt.Sprintf("%s %6.0f %5.1f + %-5.1f", name, w.perSecond, w.server.micros, w.client.micros))
			}); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
		for _, c := range concurrency {
			if cfg.wants(c.part) {
				slices.Sort(lines[c.part])
				rep.line("%3d/%d %-5s  %s", round+1, cfg.rounds, c.part, strings.Join(lines[c.part], "   "))
			}
		}
	}
	for _, c := range concurrency {
		if cfg.wants(c.part) {
			rep.throughput(c.part, cfg.peers, byPart[c.part])
		}
	}
	return nil
}

// throughputOf measures one framework with processes of its own.
func throughputOf(ctx context.Context, cfg config, name string, got func(part string, w window)) (err error) {
	p, err := startPair(ctx, cfg, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	for _, c := range concurrency {
		if !cfg.wants(c.part) {
			continue
		}
		w, err := p.measure(ctx, cfg, c.callers)
		if err != nil {
			return fmt.Errorf("%s: %w", c.part, err)
		}
		got(c.part, w)
	}
	return nil
}

// measure puts load on the pair and samples both ends around a window.
func (p *pair) measure(ctx context.Context, cfg config, callers int) (window, error) {
	if _, err := p.client.do(ctx, child.OpLoad, callers); err != nil {
		return window{}, err
	}
	if err := wait.For(ctx, cfg.warmUp); err != nil {
		return window{}, err
	}
	server0, err := p.server.do(ctx, child.OpSample, 0)
	if err != nil {
		return window{}, err
	}
	client0, err := p.client.do(ctx, child.OpSample, 0)
	if err != nil {
		return window{}, err
	}
	if err := wait.For(ctx, cfg.window); err != nil {
		return window{}, err
	}
	server1, err := p.server.do(ctx, child.OpSample, 0)
	if err != nil {
		return window{}, err
	}
	client1, err := p.client.do(ctx, child.OpSample, 0)
	if err != nil {
		return window{}, err
	}
	end, err := p.client.do(ctx, child.OpStop, 0)
	if err != nil {
		return window{}, err
	}
	w := window{
		calls: end.Calls - client0.Calls, refused: end.Refused - client0.Refused,
		perSecond: float64(client1.Calls-client0.Calls) / (client1.At - client0.At).Seconds(),
	}
	if w.refused > 0 && !cfg.refusals {
		return window{}, fmt.Errorf("%d of %d calls were refused (resource_exhausted)", w.refused, w.calls+w.refused)
	}
	if w.server, err = spent(server0, server1); err != nil {
		return window{}, err
	}
	w.client, err = spent(client0, client1)
	return w, err
}

// localPart measures calls within one process, one caller. What counts is the time
// that passes, so it is taken in batches, of which the median is hardly disturbed by
// other work on the machine.
func localPart(ctx context.Context, cfg config, rep *report) (err error) {
	const batches = 300
	i := slices.IndexFunc(peers, func(p child.Peer) bool { return p.Local != nil && slices.Contains(cfg.peers, p.Name) })
	if !cfg.wants("local") || i < 0 {
		return nil
	}
	p, err := start(ctx, cfg, "local", peers[i].Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	from, err := p.do(ctx, child.OpTime, batches) // warms up
	if err != nil {
		return err
	}
	var nanos, allocs []float64
	for range cfg.rounds {
		to, err := p.do(ctx, child.OpTime, batches)
		if err != nil {
			return err
		}
		use, err := spent(from, to)
		if err != nil {
			return err
		}
		nanos, allocs = append(nanos, to.Batch), append(allocs, use.allocs)
		rep.calls += to.Calls - from.Calls
		from = to
	}
	rep.title("a call within the process, %d bytes, request and response cloned, one caller; a round is the median of %d batches of %d calls",
		child.EchoBytes, batches, child.BatchCalls)
	rep.metric("rpc.local.ns", "ns/call", nanos, figure.AtMost(3000))
	rep.metric("rpc.local.allocs", "allocs/call", allocs, nil)
	return nil
}
