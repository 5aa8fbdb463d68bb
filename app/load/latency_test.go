// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-rpc/sluice/app/load"
)

func itoa(i int) string { return strconv.Itoa(i) }

func TestLatencyQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 300).Draw(t, "durations")
		cut := rapid.IntRange(0, len(durations)).Draw(t, "cut")
		var l, m load.Latency
		for _, d := range durations[:cut] {
			l.Record(time.Duration(d))
		}
		for _, d := range durations[cut:] {
			m.Record(time.Duration(d))
		}
		l.Merge(&m)
		slices.Sort(durations)
		if l.Count() != uint64(len(durations)) || l.Max() != time.Duration(durations[len(durations)-1]) {
			t.Fatalf("count %d max %v", l.Count(), l.Max())
		}
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			rank := min(int(q*float64(len(durations))), len(durations)-1)
			want, got := durations[rank], int64(l.Quantile(q))
			if got < want || float64(got) > float64(want)*1.01+1 {
				t.Fatalf("quantile %v = %d, want %d to 1 %% above", q, got, want)
			}
		}
	})
}

func TestLatencyEdges(t *testing.T) {
	var l load.Latency
	if l.Quantile(0.99) != 0 {
		t.Error("an empty recorder has a quantile")
	}
	l.Record(-time.Second)
	l.Record(1<<63 - 1)
	if got := l.Quantile(1); got != 1<<63-1 {
		t.Errorf("largest = %v", got)
	}
	if got := l.Quantile(0); got != 0 {
		t.Errorf("smallest = %v", got)
	}
}
