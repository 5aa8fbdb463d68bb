// SPDX-License-Identifier: Apache-2.0

// Package combine lets concurrent writers of one key share the cost of a write:
// whoever comes first does the work of all who wait by then.
//
// A hot key would otherwise have its writers race for one version, each conflict
// costing a read and another write (JuiceFS gave up after 50 of them, issue 2089).
package combine

import (
	"context"
	"errors"
	"sync"
)

// ErrFull means that too many callers wait for the key. The item was not worked on.
var ErrFull = errors.New("too many writers wait for one key; try again later")

// Work does the items of one turn. Results and failures of an item are left in the
// item. The context carries the values of the caller who leads the turn, but neither
// its deadline nor its cancellation, which are not those of the others.
type Work[K comparable, T any] func(ctx context.Context, key K, items []*T)

// Group runs a Work, one turn at a time for each key. Its methods may be called
// concurrently. It owns no goroutine: its callers lend theirs.
type Group[K comparable, T any] struct {
	work    Work[K, T]
	turn    int // most items of one turn
	waiting int // most callers waiting for one key

	mu   sync.Mutex
	keys map[K][]*waiter[T] // guarded by mu; who waits, for each key being worked on
}

type waiter[T any] struct {
	item *T
	wake chan bool // true: lead the next turn; false: the item is done
}

// New makes a Group whose turns have at most turn items and whose keys have at most
// waiting callers.
func New[K comparable, T any](turn, waiting int, work Work[K, T]) *Group[K, T] {
	return &Group[K, T]{work: work, turn: turn, waiting: waiting, keys: make(map[K][]*waiter[T])}
}

// Do returns when the item has been worked on. An error means that it was not and
// will not be: ErrFull, or that of a context that ended while the item waited. An
// item whose turn has begun is waited for whatever its context says, so that its
// outcome is known; Work bounds that time.
func (g *Group[K, T]) Do(ctx context.Context, key K, item *T) error {
	g.mu.Lock()
	queue, busy := g.keys[key]
	if !busy {
		g.keys[key] = nil
		g.mu.Unlock()
		g.lead(ctx, key, item)
		return nil
	}
	if len(queue) >= g.waiting {
		g.mu.Unlock()
		return ErrFull
	}
	w := &waiter[T]{item: item, wake: make(chan bool, 1)}
	g.keys[key] = append(queue, w)
	g.mu.Unlock()
	select {
	case leads := <-w.wake:
		if leads {
			g.lead(ctx, key, item)
		}
		return nil
	case <-ctx.Done():
	}
	if g.withdraw(key, w) {
		return ctx.Err()
	}
	if leads := <-w.wake; leads {
		g.lead(ctx, key, item)
	}
	return nil
}

// withdraw takes a waiter out of its queue, if it is still there.
func (g *Group[K, T]) withdraw(key K, w *waiter[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	queue := g.keys[key]
	for i := range queue {
		if queue[i] == w {
			g.keys[key] = append(queue[:i:i], queue[i+1:]...)
			return true
		}
	}
	return false
}

// lead works on item and on what waits, then hands the key on.
func (g *Group[K, T]) lead(ctx context.Context, key K, item *T) {
	g.mu.Lock()
	n := min(len(g.keys[key]), g.turn-1)
	followers := g.keys[key][:n:n]
	g.keys[key] = g.keys[key][n:]
	g.mu.Unlock()

	items := make([]*T, 0, 1+n)
	items = append(items, item)
	for _, w := range followers {
		items = append(items, w.item)
	}
	defer func() { // also when work panics: the key must not stay taken
		for _, w := range followers {
			w.wake <- false
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if queue := g.keys[key]; len(queue) > 0 {
			g.keys[key] = queue[1:]
			queue[0].wake <- true
			return
		}
		delete(g.keys, key)
	}()
	g.work(context.WithoutCancel(ctx), key, items)
}
