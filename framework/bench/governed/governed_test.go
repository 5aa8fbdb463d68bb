// SPDX-License-Identifier: Apache-2.0

//go:build governed

package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/bench/child"
)

// The servers of both frameworks live as long as their process: the tests' is left, not
// waited for.
func TestMain(m *testing.M) { os.Exit(m.Run()) }

// TestCalls makes calls through each framework as the bench does.
func TestCalls(t *testing.T) {
	for _, p := range peers {
		t.Run(p.Name, func(t *testing.T) {
			var s child.Service
			addr, err := p.Serve(&s)
			if err != nil {
				t.Fatal(err)
			}
			c, err := p.Dial(addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			call := c.Echo(make([]byte, child.EchoBytes))
			for id := range int64(10) {
				err := call(ctx, id)
				for err != nil && ctx.Err() == nil { // go-zero does not say when it listens
					err = call(ctx, id)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
