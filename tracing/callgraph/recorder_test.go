// SPDX-License-Identifier: Apache-2.0

package callgraph_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

func TestConcurrentRecordsAreExact(t *testing.T) {
	const workers, each = 8, 20_000
	rec := callgraph.NewRecorder(callgraph.Config{Stripes: 4})
	server := rec.Edges(callgraph.Server, "post.v1.Post/Publish")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				caller := rec.Method(fmt.Sprintf("gw.v1.Gateway/Post%d", i%16))
				slot := server.Slot(tracing.Entry(1+(i+w)%8), caller)
				slot.Record(callgraph.Class(i%3), time.Duration(i)*time.Microsecond, 10, 20)
				slot.Attempt(callgraph.OK)
			}
		})
	}
	wg.Wait()

	total := server.Total()
	if got, want := total.Calls(), uint64(workers*each); got != want {
		t.Errorf("calls = %d, want %d", got, want)
	}
	if got, want := total.Latency.Count(), uint64(workers*each); got != want {
		t.Errorf("histogram counts %d, want %d", got, want)
	}
	if got, want := total.AttemptCount(), uint64(workers*each); got != want {
		t.Errorf("attempts = %d, want %d", got, want)
	}
	if got, want := total.Nanos, uint64(workers)*each*(each-1)/2*1000; got != want {
		t.Errorf("sum of latencies = %d, want %d", got, want)
	}
	if total.RequestBytes != workers*each*10 || total.ResponseBytes != workers*each*20 {
		t.Errorf("bytes = %d, %d", total.RequestBytes, total.ResponseBytes)
	}
	snap := rec.Snapshot(time.UnixMilli(0))
	var sum uint64
	for _, row := range snap.Rows {
		sum += row.Calls()
	}
	if sum != workers*each {
		t.Errorf("sum over the edges = %d, want %d", sum, workers*each)
	}
	// i%16 and (i+w)%8 leave 8 entries for every caller.
	if len(snap.Rows) != 16*8 {
		t.Errorf("%d edges, want %d", len(snap.Rows), 16*8)
	}
}

func TestFullRecorderCountsInOverflow(t *testing.T) {
	rec := callgraph.NewRecorder(callgraph.Config{MaxSlots: 3, MaxMethods: 2, MaxEntries: 1, Stripes: 1})
	edges := rec.Edges(callgraph.Server, "a.A/One")
	other := rec.Edges(callgraph.Server, "a.A/Two")
	for i := range 10 {
		edges.Slot(tracing.Entry(i+1), callgraph.AtEntry).Record(callgraph.OK, 1, 0, 0)
	}
	other.Slot(1, callgraph.AtEntry).Record(callgraph.OK, 1, 0, 0)
	if got := edges.Total().Calls(); got != 10 {
		t.Errorf("sum over the edges = %d, want 10", got)
	}
	overflow := map[string]uint64{}
	for _, row := range rec.Snapshot(time.UnixMilli(0)).Rows {
		if row.Overflow() {
			overflow[row.Callee] += row.Calls()
		}
	}
	if overflow["a.A/One"] != 7 || overflow["a.A/Two"] != 1 {
		t.Errorf("overflow = %v, want 7 of One and 1 of Two", overflow)
	}

	if rec.Method("b.B/One") == callgraph.OverflowCaller || rec.Method("b.B/Two") == callgraph.OverflowCaller {
		t.Error("the first two callers have no number")
	}
	if m := rec.Method("b.B/Three"); m != callgraph.OverflowCaller {
		t.Errorf("the third caller has number %d", m)
	}
	if rec.Method("b.B/One") != rec.MethodBytes([]byte("b.B/One")) {
		t.Error("a caller has two numbers")
	}
	rec.NameEntry("one")
	rec.NameEntry("two")
	if names := rec.Snapshot(time.UnixMilli(0)).Entries; len(names) != 1 || names[0].Name != "one" {
		t.Errorf("entries = %v", names)
	}
}

func TestEntryCountsItsOwnRequests(t *testing.T) {
	rec := callgraph.NewRecorder(callgraph.Config{})
	rec.Entry("POST /posts").Record(callgraph.OK, time.Millisecond, 1, 2)
	snap := rec.Snapshot(time.UnixMilli(0))
	if len(snap.Rows) != 1 || snap.Rows[0].Key != (callgraph.Key{Side: callgraph.Server, Entry: tracing.EntryOf("POST /posts")}) {
		t.Fatalf("rows = %v", snap.Rows)
	}
	if len(snap.Entries) != 1 || snap.Entries[0].Name != "POST /posts" {
		t.Errorf("entries = %v", snap.Entries)
	}
}

func TestNamesAreCleaned(t *testing.T) {
	rec := callgraph.NewRecorder(callgraph.Config{})
	for _, name := range []string{"a\x00b", "line\nline", "\xff\xfe", "right\u202eleft", strings.Repeat("长", 500)} {
		m := rec.Method(name)
		if m != rec.Method(name) {
			t.Errorf("%q has two numbers", name)
		}
		slot := rec.Edges(callgraph.Client, "x.X/Y").Slot(1, m)
		got := slot.Key().Caller
		if len(got) > callgraph.MaxNameLen || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\n\u202e") {
			t.Errorf("%q became %q", name, got)
		}
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	rec := callgraph.NewRecorder(callgraph.Config{})
	edges := rec.Edges(callgraph.Client, "post.v1.Post/Publish")
	name := []byte("gw.v1.Gateway/Post")
	edges.Slot(7, rec.MethodBytes(name))
	if n := testing.AllocsPerRun(100, func() {
		slot := edges.Slot(7, rec.MethodBytes(name))
		slot.Attempt(callgraph.OK)
		slot.Record(callgraph.OK, time.Millisecond, 100, 200)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	rec := callgraph.NewRecorder(callgraph.Config{})
	edges := rec.Edges(callgraph.Client, "post.v1.Post/Publish")
	var callers []callgraph.Method
	for i := range 50 {
		callers = append(callers, rec.Method(fmt.Sprintf("gw.v1.Gateway/Post%d", i)))
	}
	const entry = tracing.Entry(0x9e3779b9)
	for _, c := range callers {
		edges.Slot(entry, c)
	}
	b.Run("lookup", func(b *testing.B) {
		i := 0
		for b.Loop() {
			edges.Slot(entry, callers[i&31])
			i++
		}
	})
	b.Run("caller", func(b *testing.B) {
		name := []byte("gw.v1.Gateway/Post7")
		for b.Loop() {
			rec.MethodBytes(name)
		}
	})
	b.Run("record", func(b *testing.B) {
		i := 0
		for b.Loop() {
			edges.Slot(entry, callers[i&31]).Record(callgraph.OK, time.Duration(i&0xfffff), 100, 200)
			i++
		}
	})
	b.Run("record-parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			i := 0
			for pb.Next() {
				edges.Slot(entry, callers[7]).Record(callgraph.OK, time.Duration(i&0xfffff), 100, 200)
				i++
			}
		})
	})
}
