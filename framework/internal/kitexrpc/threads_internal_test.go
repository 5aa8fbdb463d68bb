// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
)

// answers is a connection that counts how often what was refused on it is sent.
type answers struct{ flushed int }

func (a *answers) Flush() { a.flushed++ }

// TestOverflowIsDeep lets a call in for each that is refused, as the door does, with
// 100,000 before it: none is refused inside of another.
func TestOverflowIsDeep(t *testing.T) {
	const calls = 100_000
	var o overflow
	var sent answers
	inside, refused := 0, 0
	o.refuse = func(w waiting) admit.Flusher {
		inside++
		if inside > 1 {
			t.Fatal("a call was refused inside of another's refusal")
		}
		if refused++; refused < calls {
			o.add(w)
		}
		inside--
		return &sent
	}
	o.add(waiting{})
	if refused != calls {
		t.Errorf("%d of %d were refused", refused, calls)
	}
	if least := calls / flushEvery; sent.flushed < least || sent.flushed > least+1 {
		t.Errorf("answers were sent %d times, want each %d", sent.flushed, flushEvery)
	}
	if o.busy || o.left != nil {
		t.Errorf("busy %t with %d calls when all is done", o.busy, len(o.left))
	}
}

// TestOverflowOfMany has many goroutines refuse at once: each call is refused once.
func TestOverflowOfMany(t *testing.T) {
	const workers, each = 8, 1000
	var o overflow
	var mu sync.Mutex
	seen := map[time.Time]int{}
	o.refuse = func(w waiting) admit.Flusher {
		mu.Lock()
		defer mu.Unlock()
		seen[w.since]++
		return nil
	}
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			for j := range each {
				o.add(waiting{since: time.Unix(int64(i), int64(j))})
			}
		})
	}
	all.Wait() // who adds last has refused what is left
	if len(seen) != workers*each {
		t.Errorf("%d different calls were refused, want %d", len(seen), workers*each)
	}
	for _, n := range seen {
		if n != 1 {
			t.Errorf("a call was refused %d times", n)
		}
	}
}
