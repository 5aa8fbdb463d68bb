// SPDX-License-Identifier: Apache-2.0

package callgraph_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run go test -update and look at the change\ngot:\n%s", path, got)
	}
}

func TestBucketsHoldTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64().Draw(t, "latency"))
		if rapid.Bool().Draw(t, "at a bound") {
			d = callgraph.BucketBound(rapid.IntRange(0, callgraph.NumBuckets-1).Draw(t, "bucket"))
		}
		i := callgraph.BucketOf(d)
		if d > callgraph.BucketBound(i) {
			t.Fatalf("%v is above bucket %d, which ends at %v", d, i, callgraph.BucketBound(i))
		}
		if i > 0 && d <= callgraph.BucketBound(i-1) {
			t.Fatalf("%v belongs into a bucket before %d, which begins after %v", d, i, callgraph.BucketBound(i-1))
		}
	})
}

func TestQuantileStaysInItsBucket(t *testing.T) {
	rec := callgraph.NewRecorder(callgraph.Config{})
	slot := rec.Edges(callgraph.Client, "a.A/One").Slot(1, callgraph.AtEntry)
	for i := range 1000 {
		slot.Record(callgraph.OK, time.Duration(i+1)*time.Millisecond, 0, 0)
	}
	h := slot.Stats().Latency
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 1} {
		got, want := h.Quantile(q), time.Duration(q*1000)*time.Millisecond
		if lo, hi := want*3/4-time.Millisecond, want*5/4+2*time.Millisecond; got < lo || got > hi {
			t.Errorf("quantile %v = %v, want about %v", q, got, want)
		}
	}
	if got := (callgraph.Histogram{}).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
	slot = rec.Edges(callgraph.Client, "a.A/Two").Slot(1, callgraph.AtEntry)
	slot.Record(callgraph.OK, time.Hour, 0, 0)
	if got := slot.Stats().Latency.Quantile(0.5); got < 50*time.Second || got > time.Hour {
		t.Errorf("quantile of an hour = %v", got)
	}
}

// drawPeriod draws what a process may have counted: few names, so that they meet.
func drawPeriod(t *rapid.T, name string) callgraph.Period {
	method := rapid.SampledFrom([]string{"", "a.A/One", "a.A/Two", "b.B/One", "c.C/One", callgraph.UnknownCallerName})
	row := rapid.Custom(func(t *rapid.T) callgraph.Row {
		r := callgraph.Row{Key: callgraph.Key{
			Side:   callgraph.Side(rapid.IntRange(0, 3).Draw(t, "side")),
			Entry:  tracing.Entry(rapid.Uint32Range(0, 2).Draw(t, "entry")),
			Caller: method.Draw(t, "caller"),
			Callee: method.Draw(t, "callee"),
		}}
		count := rapid.Uint64Range(0, 5)
		r.Results[rapid.IntRange(0, 15).Draw(t, "class")] = count.Draw(t, "results")
		r.Attempts[rapid.IntRange(0, 15).Draw(t, "class of attempts")] = count.Draw(t, "attempts")
		r.Nanos, r.RequestBytes, r.ResponseBytes = count.Draw(t, "ns"), count.Draw(t, "request"), count.Draw(t, "response")
		r.Latency = callgraph.Histogram{First: rapid.IntRange(0, 100).Draw(t, "first"), Counts: rapid.SliceOfN(count, 0, 4).Draw(t, "counts")}
		return r
	})
	mark := rapid.Custom(func(t *rapid.T) callgraph.NodeMark {
		return callgraph.NodeMark{Node: method.Draw(t, "node"), Mark: callgraph.Mark{
			Severity: uint8(rapid.IntRange(0, 3).Draw(t, "severity")), Text: rapid.SampledFrom([]string{"full", "empty"}).Draw(t, "text"),
		}}
	})
	return callgraph.Merge(callgraph.Period{
		Entries: []callgraph.EntryName{{ID: 1, Name: rapid.SampledFrom([]string{"GET /a", "GET /b"}).Draw(t, "name")}},
		Marks:   rapid.SliceOfN(mark, 0, 3).Draw(t, name+" marks"),
		Rows:    rapid.SliceOfN(row, 0, 12).Draw(t, name),
	})
}

func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawPeriod(t, "a"), drawPeriod(t, "b"), drawPeriod(t, "c")
		same(t, "order", callgraph.Merge(a, b), callgraph.Merge(b, a))
		same(t, "grouping", callgraph.Merge(callgraph.Merge(a, b), c), callgraph.Merge(a, callgraph.Merge(b, c)))
		same(t, "all at once", callgraph.Merge(a, b, c), callgraph.Merge(callgraph.Merge(a, b), c))
		same(t, "nothing", callgraph.Merge(a, callgraph.Period{}), a)
	})
}

func TestWindowLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Two processes, each with two snapshots; what comes in between is added.
		a, b, da, db := drawPeriod(t, "a"), drawPeriod(t, "b"), drawPeriod(t, "a later"), drawPeriod(t, "b later")
		wa, ca := callgraph.Window(snapshot("a", 1, a), snapshot("a", 1, callgraph.Merge(a, da)))
		wb, cb := callgraph.Window(snapshot("b", 1, b), snapshot("b", 1, callgraph.Merge(b, db)))
		if ca != callgraph.Continuous || cb != callgraph.Continuous {
			t.Fatalf("continuity %v, %v", ca, cb)
		}
		if !reflect.DeepEqual(wa.Rows, da.Rows) {
			t.Fatalf("the window has\n%v\nwant\n%v", wa.Rows, da.Rows)
		}
		// The difference of the merged is the merge of the differences.
		all, c := callgraph.Window(snapshot("all", 1, callgraph.Merge(a, b)), snapshot("all", 1, callgraph.Merge(a, da, b, db)))
		if c != callgraph.Continuous || !reflect.DeepEqual(all.Rows, callgraph.Merge(wa, wb).Rows) {
			t.Fatal("merging and taking the difference do not commute")
		}

		// A restart: all that the new process has, though its counters are lower.
		w, c := callgraph.Window(snapshot("a", 1, callgraph.Merge(a, da)), snapshot("a", 2, a))
		if c != callgraph.Restarted || !reflect.DeepEqual(w.Rows, a.Rows) {
			t.Fatalf("after a restart: continuity %v, rows %v", c, w.Rows)
		}
		// A process that goes back: never below zero, and it is told.
		w, c = callgraph.Window(snapshot("a", 1, callgraph.Merge(a, da)), snapshot("a", 1, a))
		if len(w.Rows) != 0 || (c == callgraph.Regressed) != (len(da.Rows) > 0) {
			t.Fatalf("a process that goes back: continuity %v, rows %v", c, w.Rows)
		}
		if w, c := callgraph.Window(nil, snapshot("a", 1, a)); c != callgraph.Continuous || !reflect.DeepEqual(w, a) {
			t.Fatalf("the first snapshot: continuity %v, rows %v", c, w.Rows)
		}
	})
}

func same(t *rapid.T, law string, a, b callgraph.Period) {
	t.Helper()
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("%s matters:\n%v\n%v", law, a, b)
	}
}

func snapshot(instance string, epoch uint64, p callgraph.Period) *callgraph.Snapshot {
	return &callgraph.Snapshot{
		Process: callgraph.Process{Service: "test", Instance: instance, Epoch: epoch},
		Time:    time.UnixMilli(int64(epoch) * 1000), Period: p,
	}
}

func TestCheck(t *testing.T) {
	counts := func(pairs ...uint64) (c [callgraph.NumClasses]uint64) {
		for i := 0; i < len(pairs); i += 2 {
			c[pairs[i]] = pairs[i+1]
		}
		return c
	}
	ok, timeout, noInstance := uint64(callgraph.OK), uint64(callgraph.Timeout), uint64(callgraph.NoInstance)
	tests := []struct {
		name             string
		attempts, served [callgraph.NumClasses]uint64
		lost             int64
		ok               bool
	}{
		{"nothing", counts(), counts(), 0, true},
		{"all answered", counts(ok, 10), counts(ok, 10), 0, true},
		{"some not delivered", counts(ok, 10, noInstance, 3), counts(ok, 10), 0, true},
		{"timed out and served", counts(ok, 10, timeout, 3), counts(ok, 13), 0, true},
		{"timed out and lost", counts(ok, 10, timeout, 3), counts(ok, 11), 2, true},
		{"more lost than timed out", counts(ok, 10, timeout, 3), counts(ok, 9), 4, false},
		{"a client that does not count", counts(ok, 10), counts(ok, 12), -2, false},
		{"absurd counts", counts(ok, 1<<63, timeout, 1<<63), counts(ok, 1), 1<<61 - 1, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := callgraph.CheckEdge(callgraph.Stats{Attempts: test.attempts}, callgraph.Stats{Results: test.served})
			if c.Lost != test.lost || c.OK() != test.ok {
				t.Errorf("lost %d, ok %t; want %d, %t", c.Lost, c.OK(), test.lost, test.ok)
			}
		})
	}
}

// exampleSnapshot is what a process may have counted, with names as they come.
func exampleSnapshot() *callgraph.Snapshot {
	rec := callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Service: "gateway", Instance: "127.0.0.1:7000", Epoch: 1_700_000_000_000_000_000}})
	entry := rec.NameEntry("POST /posts")
	rec.Entry("POST /posts").Record(callgraph.OK, 3*time.Millisecond, 100, 10)
	publish := rec.Edges(callgraph.Client, "post.v1.Post/Publish").Slot(entry, callgraph.AtEntry)
	for i := range 9 {
		publish.Attempt(callgraph.OK)
		publish.Record(callgraph.OK, time.Duration(i+1)*time.Millisecond, 100, 10)
	}
	publish.Attempt(callgraph.NoInstance)
	publish.Record(callgraph.NoInstance, time.Microsecond, 0, 0)
	hostile := rec.Method(`"><script>alert(1)</script>`)
	rec.Edges(callgraph.Server, "post.v1.Post/Publish").Slot(0, hostile).Record(callgraph.Overloaded, 0, 5, 0)
	return rec.Snapshot(time.UnixMilli(1_700_000_001_000), callgraph.NodeMark{Node: "post.v1.Post", Mark: callgraph.Mark{Severity: 2, Text: "overloaded, level 12"}})
}

func TestSnapshotJSON(t *testing.T) {
	snap := exampleSnapshot()
	text, err := json.MarshalIndent(snap, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot.json", append(text, '\n'))
	back, err := callgraph.ReadSnapshot(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(snap, back) {
		t.Errorf("read back\n%+v\nwant\n%+v", back, snap)
	}
}

func TestReadSnapshotRefuses(t *testing.T) {
	row := `{"side":"client","entry":"00000001","caller":"","callee":"a.A/B","results":{"ok":1},"latency":{"first":0,"counts":[1]}}`
	tests := []struct {
		name, text string
		tooLarge   bool
	}{
		{"nothing", "", false},
		{"no object", "[]", false},
		{"another page", "<!DOCTYPE html><html></html>", false},
		{"no version", "{}", false},
		{"cut short", `{"version":1,"rows":[` + row, false},
		{"something after it", `{"version":1} {}`, false},
		{"unknown side", `{"version":1,"rows":[{"side":"left"}]}`, false},
		{"entry that is a number", `{"version":1,"rows":[{"entry":1}]}`, false},
		{"negative count", `{"version":1,"rows":[{"results":{"ok":-1}}]}`, false},
		{"absurd count", `{"version":1,"rows":[{"results":{"ok":9223372036854775808}}]}`, false},
		{"absurd bytes", `{"version":1,"rows":[{"request_bytes":9223372036854775808}]}`, false},
		{"bucket below the first", `{"version":1,"rows":[{"latency":{"first":-1,"counts":[1]}}]}`, false},
		{"bucket above the last", `{"version":1,"rows":[{"latency":{"first":104,"counts":[1]}}]}`, false},
		{"first bucket near the largest number", `{"version":1,"rows":[{"latency":{"first":9223372036854775807,"counts":[1]}}]}`, false},
		{"deep", `{"version":1,"x":` + strings.Repeat("[", 100_000), false},
		{"many rows", `{"version":1,"rows":[` + strings.Repeat("{},", callgraph.MaxRows) + `{}]}`, true},
		{"many classes", `{"version":1,"rows":[{"results":{` + strings.Repeat(`"ok":1,`, 1000) + `"ok":1}}]}`, true},
		{"many buckets", `{"version":1,"rows":[{"latency":{"first":0,"counts":[` + strings.Repeat("0,", 5000) + `0]}}]}`, true},
		{"many fields", `{"version":1,` + strings.Repeat(`"x":1,`, 5000) + `"x":1}`, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := callgraph.ReadSnapshot(strings.NewReader(test.text))
			if err == nil {
				t.Fatal("no error")
			}
			if errors.Is(err, callgraph.ErrTooLarge) != test.tooLarge {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("100 MB", func(t *testing.T) {
		read := &countingReader{r: io.MultiReader(strings.NewReader(`{"version":1,"x":"`), &endless{left: 100 << 20})}
		_, err := callgraph.ReadSnapshot(read)
		if !errors.Is(err, callgraph.ErrTooLarge) {
			t.Errorf("error %v", err)
		}
		if read.n > callgraph.MaxSnapshotBytes+1 {
			t.Errorf("%d bytes were read", read.n)
		}
	})
}

func TestReadSnapshotTakesOtherVersions(t *testing.T) {
	s, err := callgraph.ReadSnapshot(strings.NewReader(`{"version":7,"new":{"a":[1,2,{}]},"entries":null,"rows":[
		{"side":"server","entry":"0000000a","callee":"a.A/B","results":{"ok":1,"melted":2},"new":1},
		{"side":"server","entry":"0000000a","callee":"a.A/B","results":{"ok":3}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 1 || s.Rows[0].Results[callgraph.OK] != 4 || s.Rows[0].Results[callgraph.Other] != 2 {
		t.Errorf("rows = %+v", s.Rows)
	}
}

type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	for i := range n {
		p[i] = 'a'
	}
	e.left -= n
	return int(n), nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func FuzzReadSnapshot(f *testing.F) {
	text, err := json.Marshal(exampleSnapshot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"rows":[{"side":"link","latency":{"first":103,"counts":[1]}}],"marks":[{"node":"\u0000","severity":255}]}`))
	f.Add([]byte(`{"version":1,"rows":[{"latency":{"counts":[0]}}]}`)) // buckets in which nothing is
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := callgraph.ReadSnapshot(bytes.NewReader(text))
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("a snapshot that was read cannot be written: %v", err)
		}
		back, err := callgraph.ReadSnapshot(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		if !reflect.DeepEqual(s, back) {
			t.Fatalf("read\n%+v\nand back\n%+v", s, back)
		}
	})
}

func ExampleRecorder() {
	rec := callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Service: "post", Instance: "127.0.0.1:7000", Epoch: 1}})
	edges := rec.Edges(callgraph.Server, "post.v1.Post/Publish") // once, when the method is registered

	// With each call: entry and caller came with it.
	slot := edges.Slot(tracing.EntryOf("POST /posts"), rec.Method("gateway.v1.Gateway/Post"))
	slot.Record(callgraph.OK, 3*time.Millisecond, 512, 16)

	for _, row := range rec.Snapshot(time.Now()).Rows {
		fmt.Println(row.Caller, "->", row.Callee, row.Calls(), row.Mean())
	}
	// Output: gateway.v1.Gateway/Post -> post.v1.Post/Publish 1 3ms
}
