// SPDX-License-Identifier: Apache-2.0

// Package clustertest runs all of Moments inside one test.
package clustertest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
)

// Start runs all of Moments in this process, on a directory of the test and until it
// ends, and gives the address of its page.
func Start(t testing.TB) string {
	t.Helper()
	data, err := cluster.OpenData(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	top := topology.Default()
	top.Gateway.Listen = "127.0.0.1:0"
	top.Gateway.Limits = false
	node, err := cluster.Start(t.Context(), cluster.Config{
		Topology: top, Roles: topology.Roles(), Data: data, Log: slog.New(slog.DiscardHandler), CheapPasswords: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	address := node.URL() // known until the node runs
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return address
}
