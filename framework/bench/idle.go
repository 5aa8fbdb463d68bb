// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/sluice-rpc/sluice/framework/identity"

	"github.com/sluice-rpc/sluice/framework/bench/child"

	"github.com/sluice-rpc/sluice/framework/bench/wait"
)

// idlePart measures what a connection costs a server that nothing comes over: made, and
// under TLS shaken hands over, and then left alone.
func idlePart(ctx context.Context, cfg config, rep *report) error {
	if !cfg.wants("idle") {
		return nil
	}
	remove, err := makeCerts()
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	defer remove()
	rep.title("idle connections: growth of the server's resident memory for each, read after %v", cfg.settle)
	for _, c := range []struct {
		peer, metric string
		many         int
	}{{"sluice", "rpc.idle.plain.", idleConnections}, {"sluice-tls", "rpc.idle.tls.", idleConnections / 4}} {
		if err := idleOf(ctx, cfg, c.peer, c.metric, c.many, rep); err != nil {
			return fmt.Errorf("%s: %w", c.peer, err)
		}
	}
	return nil
}

// idleConnections stay below what a process may have of files, and a server of connections.
const idleConnections = 8000

func idleOf(ctx context.Context, cfg config, name, metric string, many int, rep *report) (err error) {
	server, err := start(ctx, cfg, "server", name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	before, err := server.do(ctx, child.OpSample, 0)
	if err != nil {
		return err
	}
	var shake *tls.Config
	if name == tlsPeer.Name {
		everybody, err := identity.NewSet([]string{identity.Everybody})
		if err != nil {
			return err
		}
		files := benchTLS()
		c, err := identity.Open(identity.Files{CA: files.CA, Cert: files.Cert, Key: files.Key}, "", nil, nil)
		if err != nil {
			return err
		}
		shake = c.Client(&everybody)
	}
	for range many {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", server.first.Addr)
		if err != nil {
			return err
		}
		defer nc.Close()
		if shake != nil {
			if err := tls.Client(nc, shake).HandshakeContext(ctx); err != nil {
				return err
			}
		}
	}
	if err := wait.For(ctx, cfg.settle); err != nil {
		return err
	}
	after, err := server.do(ctx, child.OpSample, 0)
	if err != nil {
		return err
	}
	per := func(from, to uint64) []float64 { return []float64{(float64(to) - float64(from)) / float64(many)} }
	rep.metric(metric+"server_bytes_per_connection", "bytes", per(uint64(before.RSS), uint64(after.RSS)), nil)
	rep.metric(metric+"server_heap_per_connection", "bytes", per(before.Heap, after.Heap), nil)
	rep.metric(metric+"server_stack_per_connection", "bytes", per(before.Stack, after.Stack), nil)
	return nil
}
