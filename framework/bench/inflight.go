// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// heldPeers are the frameworks that the in-flight part compares.
var heldPeers = []string{"sluice", "kitex"}

// inflightPart measures the memory of blocked calls: all made at once from one
// client process, all of them inside their handlers when memory is read.
func inflightPart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("inflight") {
		return nil
	}
	rep.title("%d blocked calls of %d bytes: growth of resident memory a call, read after %v", cfg.calls, holdBytes, cfg.settle)
	for _, name := range heldPeers {
		if !slices.Contains(cfg.peers, name) {
			continue
		}
		if err := holdOf(ctx, cfg, name, rep); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func holdOf(ctx context.Context, cfg config, name string, rep *report) (err error) {
	p, err := startPair(ctx, cfg, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := p.client.do(ctx, opProbe, 0); err != nil { // connects
		return err
	}
	idleServer, err := p.server.do(ctx, opSample, 0)
	if err != nil {
		return err
	}
	idleClient, err := p.client.do(ctx, opSample, 0)
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := p.client.do(ctx, opHold, cfg.calls); err != nil {
		return err
	}
	if err := p.allHeld(ctx, int64(cfg.calls)); err != nil {
		return err
	}
	launch := time.Since(begin)
	if err := sleep(ctx, cfg.settle); err != nil {
		return err
	}
	server, err := p.server.do(ctx, opSample, 0)
	if err != nil {
		return err
	}
	client, err := p.client.do(ctx, opSample, 0)
	if err != nil {
		return err
	}
	begin = time.Now()
	if _, err := p.client.do(ctx, opProbe, 0); err != nil {
		return fmt.Errorf("probe while %d calls are blocked: %w", cfg.calls, err)
	}
	probe := time.Since(begin)
	if _, err := p.server.do(ctx, opRelease, 0); err != nil {
		return err
	}
	end, err := p.client.do(ctx, opWait, 0)
	if err != nil {
		return err
	}
	if end.Held != int64(cfg.calls) {
		return fmt.Errorf("%d of %d blocked calls were answered", end.Held, cfg.calls)
	}
	rep.calls += end.Calls + end.Held
	rep.inflight(cfg.calls, name, idleServer, server, idleClient, client)
	rep.line("  %s: all %d inside after %.1f s, a probe call answered in %.1f ms, all answered after release, 0 failures",
		name, cfg.calls, launch.Seconds(), float64(probe)/1e6)
	return nil
}

// allHeld waits until every call is inside its handler.
func (p *pair) allHeld(ctx context.Context, want int64) error {
	const limit = 3 * time.Minute
	deadline := time.Now().Add(limit)
	for {
		s, err := p.server.do(ctx, opSample, 0)
		if err != nil {
			return err
		}
		if s.Held == want {
			return nil
		}
		if _, err := p.client.do(ctx, opSample, 0); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d calls reached their handler within %v", s.Held, want, limit)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
