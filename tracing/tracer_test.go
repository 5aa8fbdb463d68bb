// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/tracing"
)

func newTracer(t testing.TB, c tracing.Config) *tracing.Tracer {
	t.Helper()
	tr, err := tracing.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestReservoir proves the law of the reservoir at any rate: however requests come, in
// any stretch of time no more are traced than its rate and one second's tokens allow,
// and all are that come more slowly than that.
func TestReservoir(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.SampledFrom([]float64{0.1, 0.5, 1, 2, 3, 10, 100}).Draw(t, "per second")
		gaps := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 300).Draw(t, "gaps in ms")
		tr, err := tracing.New(tracing.Config{Rate: tracing.Rate{PerSecond: perSecond}})
		if err != nil {
			t.Fatal(err)
		}
		s := tr.Sampler("GET /")
		now := time.Now()
		var traced []time.Time
		for _, gap := range gaps {
			now = now.Add(time.Duration(gap) * time.Millisecond)
			if s.Sample(now, false) {
				traced = append(traced, now)
			} else if n := len(traced); n == 0 || now.Sub(traced[n-1]).Seconds() > 1/perSecond+1e-6 {
				t.Fatalf("the reservoir was full and gave nothing")
			}
		}
		for i := range traced {
			for j := i; j < len(traced); j++ {
				window := traced[j].Sub(traced[i]).Seconds()
				if most := perSecond*window + max(perSecond, 1) + 1e-6; float64(j-i+1) > most {
					t.Fatalf("%d traced within %.3f s at %v a second", j-i+1, window, perSecond)
				}
			}
		}
	})
}

func TestReservoirInRealTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracer(t, tracing.Config{Rate: tracing.Rate{PerSecond: 2}})
		s := tr.Sampler("POST /posts")
		var mu sync.Mutex
		traced := 0
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				for range 1000 { // 500 a second for ten seconds, by five
					if s.Sample(time.Now(), false) {
						mu.Lock()
						traced++
						mu.Unlock()
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		if traced < 20 || traced > 22 {
			t.Errorf("%d traced in ten seconds at two a second", traced)
		}
		if got := tr.Stats().Sampled; got != uint64(traced) {
			t.Errorf("counted %d of %d", got, traced)
		}
	})
}

func TestRatio(t *testing.T) {
	for _, ratio := range []float64{0, 0.01, 0.3, 1} {
		t.Run(fmt.Sprint(ratio), func(t *testing.T) {
			tr := newTracer(t, tracing.Config{Rate: tracing.Rate{PerSecond: 1e-9, Ratio: ratio}})
			s := tr.Sampler("GET /timeline")
			const n = 100_000
			now := time.Now()
			traced := 0
			for range n {
				if s.Sample(now, false) {
					traced++
				}
			}
			traced -= 1 - int(ratio) // the reservoir's first, which the ratio would not have had
			// Five standard deviations: wrong once in two million runs.
			if off := math.Abs(float64(traced) - ratio*n); off > 5*math.Sqrt(ratio*(1-ratio)*n)+1 {
				t.Errorf("%d of %d traced", traced, n)
			}
		})
	}
}

func TestRates(t *testing.T) {
	tr := newTracer(t, tracing.Config{
		Rate:  tracing.Rate{Off: true},
		Rates: map[string]tracing.Rate{"POST /posts": {Ratio: 1}},
	})
	now := time.Now()
	off, on := tr.Sampler("GET /"), tr.Sampler("POST /posts")
	if off.Sample(now, false) || !on.Sample(now, false) {
		t.Error("the rates of entries are mixed up")
	}
	if !off.Sample(now, true) || tr.Stats().Forced != 1 {
		t.Error("a forced trace was not made, or not counted")
	}
	if tr.Sampler("GET /") != off {
		t.Error("an entry has two samplers")
	}
	if err := tr.SetRates(tracing.Rate{Ratio: 1}, map[string]tracing.Rate{"POST /posts": {Off: true}}); err != nil {
		t.Fatal(err)
	}
	if !off.Sample(now, false) || on.Sample(now, false) {
		t.Error("new rates are not heeded")
	}
	for name, r := range map[string]tracing.Rate{
		"ratio above one": {Ratio: 1.1}, "negative ratio": {Ratio: -1}, "no number": {Ratio: math.NaN()},
		"negative": {PerSecond: -1}, "endless": {PerSecond: math.Inf(1)},
	} {
		if err := tr.SetRates(tracing.Rate{}, map[string]tracing.Rate{"x": r}); err == nil || !strings.Contains(err.Error(), `"x"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tracing.New(tracing.Config{Rate: tracing.Rate{Ratio: 2}}); err == nil {
		t.Error("a Tracer with a wrong rate")
	}
	if !off.Sample(now, false) {
		t.Error("rates that were refused have changed something")
	}
}

func TestManyNamesShare(t *testing.T) {
	tr := newTracer(t, tracing.Config{})
	samplers, methods := map[*tracing.Sampler]bool{}, map[*tracing.Method]bool{}
	for i := range 5000 {
		samplers[tr.Sampler(fmt.Sprint(i))] = true
		methods[tr.Method(tracing.Server, fmt.Sprint(i))] = true
	}
	if len(samplers) != 1025 || len(methods) != 2049 {
		t.Errorf("%d samplers and %d methods", len(samplers), len(methods))
	}
}

// TestNotTraced is what almost every call costs.
func TestNotTraced(t *testing.T) {
	tr := newTracer(t, tracing.Config{Rate: tracing.Rate{PerSecond: 1e-9, Ratio: 1e-9}})
	s, m := tr.Sampler("GET /"), tr.Method(tracing.Server, "hello.v1.Greeter/Greet")
	now := time.Now()
	s.Sample(now, false)
	m.Keep(&tracing.Ended{Took: time.Millisecond, At: now})
	if n := testing.AllocsPerRun(1000, func() {
		s.Sample(now, false)
		if m.Keep(&tracing.Ended{Took: 100 * time.Nanosecond, At: now, Span: tracing.NewSpanID()}) != 0 {
			t.Fatal("kept")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		m.Keep(&tracing.Ended{Class: 5, Took: time.Second, At: now}) // beyond the limit
		m.Keep(&tracing.Ended{Took: time.Second, At: now})
	}); n != 0 {
		t.Errorf("%v allocations to keep nothing of a failure", n)
	}
}

// TestSlow proves that about one call in a hundred is slow, whatever the scale, and
// that the threshold follows when the scale changes.
func TestSlow(t *testing.T) {
	tr := newTracer(t, tracing.Config{KeepPerSecond: 1e6, SlowFloor: time.Nanosecond})
	m := tr.Method(tracing.Server, "a.B/C")
	n := 0
	now := time.Now()
	// Latencies are evenly spread from scale to 2*scale: the 99th percentile is 1.99.
	call := func(scale time.Duration) bool {
		n = (n + 7919) % 10007
		now = now.Add(10 * time.Microsecond)
		c := tracing.Ended{Took: scale + scale*time.Duration(n)/10007, At: now, Span: tracing.NewSpanID()}
		return m.Keep(&c)&tracing.KeepSlow != 0
	}
	for _, scale := range []time.Duration{time.Millisecond, time.Second, 10 * time.Microsecond} {
		for range 60_000 {
			call(scale)
		}
		slow := 0
		for range 100_000 {
			if call(scale) {
				slow++
			}
		}
		if slow < 300 || slow > 2500 {
			t.Errorf("%d of 100,000 calls of %v are slow", slow, scale)
		}
		if at := tr.Methods()[0].Slow; at < scale*17/10 || at > scale*23/10 {
			t.Errorf("calls of %v to %v: slow is what takes longer than %v", scale, 2*scale, at)
		}
	}
}

// TestSlowIsForeseen: a server tells its caller, before a call has ended, what it will
// then say itself.
func TestSlowIsForeseen(t *testing.T) {
	tr, err := tracing.New(tracing.Config{SlowFloor: 5 * time.Millisecond, KeepPerSecond: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	m := tr.Method(tracing.Server, "a.B/C")
	if m.Slow(time.Hour) {
		t.Error("the first call is slow: there is nothing to compare it with")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	slow := 0
	for range 20_000 {
		took := time.Duration(rng.ExpFloat64() * float64(2*time.Millisecond))
		foreseen := m.Slow(took)
		kept := m.Keep(&tracing.Ended{Took: took, At: time.Now(), Span: tracing.NewSpanID()})&tracing.KeepSlow != 0
		if foreseen != kept {
			t.Fatalf("%v: foreseen %v, kept %v", took, foreseen, kept)
		}
		if kept {
			slow++
		}
	}
	if slow == 0 {
		t.Error("none was slow")
	}
}

func TestSlowFloor(t *testing.T) {
	tr := newTracer(t, tracing.Config{SlowFloor: time.Hour})
	m := tr.Method(tracing.Client, "a.B/C")
	for i := range 100 {
		if k := m.Keep(&tracing.Ended{Took: time.Duration(i) * time.Second, At: time.Now()}); k != 0 {
			t.Fatalf("kept for %q below the floor", k)
		}
	}
}

func TestErrorsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracer(t, tracing.Config{KeepPerSecond: 4, MaxRecords: 64})
		m := tr.Method(tracing.Server, "a.B/C")
		fail := func(class uint8, code string) {
			if k := m.Keep(&tracing.Ended{Class: class, Took: time.Millisecond, At: time.Now()}); k != 0 {
				m.Add(k, tracing.Record{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Class: fmt.Sprint(class), Code: code})
			}
		}
		for i := range 1000 { // a storm of one class does not hide another
			fail(4, fmt.Sprint(i))
		}
		fail(1, "not_found")
		kept := tr.Methods()[0]
		if len(kept.Errors) != 5 || kept.Limited != 996 || tr.Stats().Limited != 996 {
			t.Fatalf("%d kept, %d limited", len(kept.Errors), kept.Limited)
		}
		if e := kept.Errors[0]; e.Code != "not_found" || e.Kept != "error" || e.Kind != tracing.Server || e.Method != "a.B/C" {
			t.Errorf("newest is %+v", e)
		}
		for range 100 {
			time.Sleep(time.Second)
			fail(4, "later")
		}
		if kept := tr.Methods()[0]; len(kept.Errors) != 9 || kept.Errors[0].Code != "later" || kept.Errors[8].Code != "not_found" {
			t.Errorf("%d kept: not eight of one class and the one of the other", len(kept.Errors))
		}
	})
}

// TestBelow: a call below which one was kept is kept, within limits, and for no other
// reason than that.
func TestBelow(t *testing.T) {
	tracer := newTracer(t, tracing.Config{KeepPerSecond: 3})
	m := tracer.Method(tracing.Server, "a.B/C")
	now := time.Now()
	kept := 0
	for range 10 {
		switch k := m.Keep(&tracing.Ended{Took: time.Microsecond, At: now, Below: true}); k {
		case tracing.KeepBelow:
			kept++
		case 0:
		default:
			t.Errorf("kept for %v", k)
		}
	}
	if kept != 3 {
		t.Errorf("%d of 10 were kept in a moment, want 3", kept)
	}
	if k := m.Keep(&tracing.Ended{Class: 4, Took: time.Microsecond, At: now, Below: true}); k.String() != "error" {
		t.Errorf("a failure is kept for %v", k)
	}
	if k := m.Keep(&tracing.Ended{Sampled: true, Took: time.Microsecond, At: now, Below: true}); k.String() != "sampled" {
		t.Errorf("a traced call is kept for %v", k)
	}
	if tracing.KeepBelow.String() != "below" {
		t.Error(tracing.KeepBelow)
	}
}

func TestSlowestAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracer(t, tracing.Config{KeepPerSecond: 1})
		m := tr.Method(tracing.Server, "a.B/C")
		call := func(d time.Duration) {
			if k := m.Keep(&tracing.Ended{Took: d, At: time.Now(), Span: tracing.NewSpanID()}); k != 0 {
				m.Add(k, tracing.Record{Duration: d})
			}
		}
		// The limit does not stop one that is slower than all that are shown.
		for i := range 1000 {
			for range 300 {
				call(2 * time.Millisecond)
			}
			call(time.Duration(i+10) * time.Second)
		}
		shown := tr.Methods()[0].Slowest
		if len(shown) != 8 || shown[0].Duration != 1009*time.Second || shown[7].Duration != 1002*time.Second {
			t.Fatalf("%d shown", len(shown))
		}
		time.Sleep(time.Minute + time.Second)
		call(time.Hour)
		if shown := tr.Methods()[0].Slowest; len(shown) != 9 || shown[0].Duration != time.Hour {
			t.Errorf("%d shown after a minute", len(shown))
		}
		time.Sleep(10 * time.Minute)
		call(2 * time.Hour)
		if shown := tr.Methods()[0].Slowest; len(shown) != 1 {
			t.Errorf("%d shown after ten minutes", len(shown))
		}
	})
}

func TestRecordsAreBounded(t *testing.T) {
	tr := newTracer(t, tracing.Config{MaxRecords: 10})
	m := tr.Method(tracing.Client, strings.Repeat("m", 10_000))
	long := strings.Repeat("界", 10_000) + "\xff"
	m.Add(tracing.KeepSampled, tracing.Record{
		Message: long, Caller: long, Peer: long, Path: long, State: long, Code: "a\xffb",
		Links: make([]tracing.Identity, 1000), Notes: make([]tracing.Note, 1000),
	})
	records, _, _ := tr.Since(0, 10)
	text, err := json.Marshal(records[0])
	if err != nil || len(text) > 8<<10 {
		t.Errorf("a record of %d bytes: %v", len(text), err)
	}
	if r := records[0]; r.Code != "a\uFFFDb" || len(r.Message) > 256 || !strings.HasSuffix(r.Message, "界...") || len(r.Method) > 200 {
		t.Errorf("got %.300q", r.Message)
	}
}

func TestSince(t *testing.T) {
	tr := newTracer(t, tracing.Config{MaxRecords: 10})
	m := tr.Method(tracing.Internal, "job")
	add := func(n int) {
		for range n {
			m.Add(tracing.KeepSampled, tracing.Record{})
		}
	}
	check := func(seq uint64, limit int, first, count, next, lost uint64) {
		t.Helper()
		records, gotNext, gotLost := tr.Since(seq, limit)
		if uint64(len(records)) != count || gotNext != next || gotLost != lost || (count > 0 && records[0].Seq != first) {
			t.Errorf("since %d: %d records, next %d, lost %d", seq, len(records), gotNext, gotLost)
		}
	}
	check(0, 5, 0, 0, 0, 0)
	add(3)
	check(0, 5, 1, 3, 3, 0)
	check(0, 2, 1, 2, 2, 0)
	check(2, 5, 3, 1, 3, 0)
	check(3, 5, 0, 0, 3, 0)
	add(20)
	check(3, 100, 14, 10, 23, 10)
	check(20, 100, 21, 3, 23, 0)
	check(99, 100, 14, 10, 23, 13) // a number of a former life
	check(0, -1, 0, 0, 13, 13)
}

func TestRecordIsJSON(t *testing.T) {
	r := tracing.Record{
		Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Parent: tracing.NewSpanID(), Kind: tracing.Consumer,
		Links: []tracing.Identity{{Trace: tracing.NewTraceID(), Span: tracing.NewSpanID(), Sampled: true}},
		Entry: 7, Method: "a.B/C", Start: 1, Duration: 2, Notes: []tracing.Note{{Key: "k", Value: "v"}},
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back tracing.Record
	if err := json.Unmarshal(text, &back); err != nil || fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("%s became %+v: %v", text, back, err)
	}
	for _, bad := range []string{`{"trace":"xyz"}`, `{"span":"0123"}`, `{"span":"0123456789ABCDEF"}`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
	var k tracing.Kind
	if err := k.UnmarshalText([]byte("of next year")); err != nil || k != tracing.Internal || tracing.Kind(77).String() != "kind_77" {
		t.Errorf("an unknown kind is %v: %v", k, err)
	}
}

func TestNotes(t *testing.T) {
	var n tracing.Notes
	if n.All() != nil {
		t.Error("notes that nobody made")
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { n.Set(fmt.Sprint(i), "x") })
	}
	wg.Wait()
	first := n.All()[0].Key
	n.Set(first, strings.Repeat("y", 1000))
	if all := n.All(); len(all) != 16 || len(all[0].Value) != 128 {
		t.Errorf("%d notes, the first %q", len(all), all[0])
	}
}

func TestEntryName(t *testing.T) {
	tr := newTracer(t, tracing.Config{})
	tr.Sampler("POST /posts")
	for want, e := range map[string]tracing.Entry{"POST /posts": tracing.EntryOf("POST /posts"), "0000002a": 42, "": 0} {
		if got := tr.EntryName(e); got != want {
			t.Errorf("entry %v is %q", e, got)
		}
	}
}

func BenchmarkNotTraced(b *testing.B) {
	tr := newTracer(b, tracing.Config{})
	s, m := tr.Sampler("GET /"), tr.Method(tracing.Server, "hello.v1.Greeter/Greet")
	now, span := time.Now(), tracing.NewSpanID()
	b.Run("sample", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Sample(now, false)
		}
	})
	b.Run("keep", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Keep(&tracing.Ended{Took: 100 * time.Nanosecond, At: now, Span: span})
		}
	})
	b.Run("limited error", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Keep(&tracing.Ended{Class: 5, Took: 100 * time.Nanosecond, At: now, Span: span})
		}
	})
	b.Run("add", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Add(tracing.KeepSampled, tracing.Record{Class: "ok"})
		}
	})
}
