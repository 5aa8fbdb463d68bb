// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/figure"

	"github.com/sluice-rpc/sluice/framework/bench/child"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// heldPeers are the frameworks that the in-flight part compares.
var heldPeers = []string{"sluice", "kitex"}

// inflightPart measures the memory of blocked calls: made as quickly as the server takes
// them in, from one client process, all of them inside their handlers when memory is read.
func inflightPart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("inflight") {
		return nil
	}
	for _, calls := range cfg.calls {
		rep.title("%d blocked calls of %d bytes: growth of resident memory a call, read after %v", calls, child.HoldBytes, cfg.settle)
		for _, name := range heldPeers {
			if !slices.Contains(cfg.peers, name) || name != "sluice" && calls > cfg.peerCalls {
				continue
			}
			if err := holdOf(ctx, cfg, name, calls, false, rep); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if !slices.Contains(cfg.peers, "sluice") || calls > middleCalls {
			continue
		}
		if err := holdOf(ctx, cfg, "sluice", calls, true, rep); err != nil {
			return fmt.Errorf("sluice, a middle tier: %w", err)
		}
	}
	return nil
}

// middleCalls is how many calls are held through a middle tier, which takes as much memory
// as client and server together.
const middleCalls = 500_000

// chain is what the calls go through: the client first, the server that blocks them last.
type chain []*proc

func startChain(ctx context.Context, cfg config, name string, middle bool) (c chain, err error) {
	server, err := start(ctx, cfg, "server", name)
	if err != nil {
		return nil, err
	}
	c = chain{server}
	addr := server.first.Addr
	if middle {
		m, err := start(ctx, cfg, "middle", name, addr)
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		c, addr = append(chain{m}, c...), m.first.Addr
	}
	client, err := start(ctx, cfg, "client", name, addr)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return append(chain{client}, c...), nil
}

func (c chain) stop() (err error) {
	for _, p := range c {
		err = errors.Join(err, p.stop())
	}
	return err
}

func (c chain) samples(ctx context.Context) ([]child.Sample, error) {
	all := make([]child.Sample, len(c))
	for i, p := range c {
		var err error
		if all[i], err = p.do(ctx, child.OpSample, 0); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func holdOf(ctx context.Context, cfg config, name string, calls int, middle bool, rep *report) (err error) {
	c, err := startChain(ctx, cfg, name, middle)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	client, server := c[0], c[len(c)-1]
	if _, err := client.do(ctx, child.OpProbe, 0); err != nil { // connects
		return err
	}
	idle, err := c.samples(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := client.do(ctx, child.OpHold, calls); err != nil {
		return err
	}
	if err := c.allHeld(ctx, int64(calls)); err != nil {
		return err
	}
	launch := time.Since(begin)
	if err := wait.For(ctx, cfg.settle); err != nil {
		return err
	}
	held, err := c.samples(ctx)
	if err != nil {
		return err
	}
	probes := make([]float64, 0, cfg.probes)
	for range cfg.probes {
		s, err := client.do(ctx, child.OpProbe, 0)
		if err != nil {
			return fmt.Errorf("probe while %d calls are blocked: %w", calls, err)
		}
		probes = append(probes, s.Probe)
	}
	if _, err := server.do(ctx, child.OpRelease, 0); err != nil {
		return err
	}
	end, err := client.do(ctx, child.OpWait, 0)
	if err != nil {
		return err
	}
	rep.calls += end.Calls + end.Held
	rep.lost += end.Lost
	rep.inflight(calls, name, middle, idle, held)
	if name == "sluice" && !middle {
		rep.metric(inflightPrefix(calls)+"probe_ms", "ms", probes, figure.AtMost(50))
		rep.metric(inflightPrefix(calls)+"ok_share", "share", []float64{float64(end.Held) / float64(calls)}, figure.AtLeast(1))
	}
	rep.line("  %s: %d inside after %.1f s, %d answered after release, %d failed%s; %d were refused for a moment and made again; probes while all were blocked took at most %.1f ms",
		name, held[len(held)-1].Held, launch.Seconds(), end.Held, end.Lost, because(end), end.Refused, slices.Max(probes))
	return nil
}

func because(s child.Sample) string {
	if s.Lost == 0 {
		return ""
	}
	return " (the first: " + s.Error + ")"
}

// allHeld waits until every call is inside its handler, or has failed.
func (c chain) allHeld(ctx context.Context, want int64) error {
	const limit = 5 * time.Minute
	deadline := time.Now().Add(limit)
	for {
		all, err := c.samples(ctx)
		if err != nil {
			return err
		}
		held := all[len(all)-1].Held
		if held+all[0].Lost == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d calls reached their handler within %v", held, want, limit)
		}
		if err := wait.For(ctx, time.Second); err != nil {
			return err
		}
	}
}
