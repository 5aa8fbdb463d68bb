// SPDX-License-Identifier: Apache-2.0

package combine_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sluice-rpc/sluice/app/combine"
)

type add struct{ n, sum int }

// TestSums adds concurrently to unguarded counters: turns of one key must exclude
// each other, and every item must be worked on once.
func TestSums(t *testing.T) {
	sums := [3]int{}
	g := combine.New(8, 1000, func(_ context.Context, key int, items []*add) {
		if len(items) > 8 {
			t.Errorf("turn of %d items, want at most 8", len(items))
		}
		for _, it := range items {
			sums[key] += it.n
			it.sum = sums[key]
		}
	})
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			it := &add{n: 1}
			if err := g.Do(t.Context(), i%3, it); err != nil || it.sum == 0 {
				t.Errorf("Do: %v, sum %d", err, it.sum)
			}
		})
	}
	wg.Wait()
	if sums != [3]int{100, 100, 100} {
		t.Errorf("sums %v, want 100 each", sums)
	}
}

func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var turns, done atomic.Int32
		g := combine.New(10, 2, func(context.Context, string, []*add) { turns.Add(1); <-gate })
		var wg sync.WaitGroup
		start := func(ctx context.Context, want error) {
			wg.Go(func() {
				if err := g.Do(ctx, "k", &add{}); !errors.Is(err, want) {
					t.Errorf("Do: %v, want %v", err, want)
				}
				done.Add(1)
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		start(t.Context(), nil)             // leads
		start(ctx, context.Canceled)        // waits, then withdraws
		start(t.Context(), nil)             // waits
		start(t.Context(), combine.ErrFull) // finds no room
		cancel()                            // gives its place back
		synctest.Wait()
		start(t.Context(), nil)
		close(gate)
		wg.Wait()
		if turns.Load() != 2 {
			t.Errorf("%d turns, want 2: the leader's, and one of the two who waited", turns.Load())
		}
	})
}

func TestPanicHandsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		first := true
		g := combine.New(1, 10, func(context.Context, string, []*add) {
			if first {
				first = false
				<-gate
				panic("planted")
			}
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the leader's panic was swallowed")
				}
			}()
			_ = g.Do(t.Context(), "k", &add{})
		})
		synctest.Wait()
		wg.Go(func() {
			if err := g.Do(t.Context(), "k", &add{}); err != nil {
				t.Errorf("after a panic: %v", err)
			}
		})
		synctest.Wait()
		close(gate)
		wg.Wait()
	})
}
