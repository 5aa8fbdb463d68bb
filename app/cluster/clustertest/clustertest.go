// SPDX-License-Identifier: Apache-2.0

// Package clustertest runs all of Moments inside one test.
package clustertest

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluice-rpc/sluice/app/cluster"
	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework"
)

// Start runs all of Moments in this process, on a directory of the test and until it
// ends, and gives the address of its page. Nobody is refused for overload, unless the test
// changes that: the processors belong to other tests, too.
func Start(t testing.TB, change ...func(*cluster.Config)) string {
	t.Helper()
	data, err := cluster.OpenData(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	top := topology.Default()
	top.Gateway.Listen, top.Gateway.Limits, top.Gateway.Admission = "127.0.0.1:0", false, framework.Off
	cfg := cluster.Config{
		Topology: top, Roles: topology.Roles(), Data: data, Log: slog.New(slog.DiscardHandler), CheapPasswords: true,
	}
	for _, c := range change {
		c(&cfg)
	}
	node, err := cluster.Start(t.Context(), cfg)
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
