// SPDX-License-Identifier: Apache-2.0

package inflight_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/inflight"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
)

type work struct {
	inflight.Call
	leave chan struct{}
}

//go:noinline
func (w *work) serve(t *inflight.Table, begun *sync.WaitGroup) {
	t.Add(&w.Call)
	begun.Done()
	waitsForLeave(w.leave)
	t.Remove(&w.Call)
}

//go:noinline
func waitsForLeave(leave chan struct{}) { <-leave }

func newWork(n int) *work {
	w := &work{leave: make(chan struct{})}
	w.Route, w.Began, w.Span = "GET /timeline", time.Unix(int64(n), 0), tracing.NewSpanID()
	return w
}

// TestTable: what is being worked on is listed, oldest first, and each is found with
// the stack of its goroutine.
func TestTable(t *testing.T) {
	var table inflight.Table
	var begun, done sync.WaitGroup
	all := make([]*work, 20)
	for i := range all {
		all[i] = newWork(len(all) - i)
		begun.Add(1)
		done.Go(func() { all[i].serve(&table, &begun) })
	}
	begun.Wait()
	list := table.List()
	if len(list) != len(all) || table.Unlisted() != 0 {
		t.Fatalf("%d listed and %d not, want %d", len(list), table.Unlisted(), len(all))
	}
	for i, c := range list {
		if w := all[len(all)-1-i]; c != &w.Call || table.Find(c.Span) != c {
			t.Fatalf("%d is not the request that began at second %d", i, i)
		}
		stack, err := inflight.Stack(c)
		if err != nil || strings.Count(string(stack), "\n\n") != 0 || !strings.Contains(string(stack), "waitsForLeave") {
			t.Fatalf("stack of request %d: %v\n%s", i, err, stack)
		}
	}
	for _, w := range all {
		close(w.leave)
	}
	done.Wait()
	if n := len(table.List()); n != 0 {
		t.Errorf("%d are left", n)
	}
	if _, err := inflight.Stack(&all[0].Call); !errors.Is(err, inflight.ErrEnded) {
		t.Errorf("the stack of a request that has ended: %v", err)
	}
}

// TestFull: what finds no room is counted, and nothing is lost when it ends.
func TestFull(t *testing.T) {
	var table inflight.Table
	calls := make([]inflight.Call, 6000)
	for i := range calls {
		table.Add(&calls[i]) // from one stack: it looks at few cells
	}
	listed := len(table.List())
	if listed == 0 || listed+table.Unlisted() != len(calls) {
		t.Fatalf("%d listed and %d not, want %d", listed, table.Unlisted(), len(calls))
	}
	for i := range calls {
		table.Remove(&calls[i])
	}
	if len(table.List()) != 0 || table.Unlisted() != 0 {
		t.Errorf("%d listed and %d not are left", len(table.List()), table.Unlisted())
	}
}

func TestNames(t *testing.T) {
	c := inflight.Call{Route: "GET /timeline"}
	if c.Name() != "GET /timeline" || c.Caller() != "" {
		t.Errorf("got %q called by %q", c.Name(), c.Caller())
	}
	c.Method = &rpc.Method{Service: "a.v1.B", Name: "C"}
	if c.Name() != "a.v1.B/C" {
		t.Errorf("got %q", c.Name())
	}
}

func BenchmarkTable(b *testing.B) {
	var table inflight.Table
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var c inflight.Call
		for pb.Next() {
			table.Add(&c)
			table.Remove(&c)
		}
	})
}
