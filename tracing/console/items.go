// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// The bounds of the items that are kept. A process beyond them is shown, and those of
// its items that were not kept are counted.
const (
	maxSeriesEach = 20_000    // of one process
	maxSeries     = 200_000   // in all
	maxTrackBytes = 128 << 20 // of values over time, in all
	maxBounds     = 200
	maxItemText   = 300
	maxLabels     = 16
)

// itemsAnswer is what is read of a process's catalogue of items.
type itemsAnswer struct {
	families []itemFamily
	skipped  int // series beyond the bounds
}

type itemFamily struct {
	Name   string       `json:"name"`
	Group  string       `json:"group"`
	Type   string       `json:"type"`
	Unit   string       `json:"unit"`
	Help   string       `json:"help"`
	Bounds []float64    `json:"bounds"`
	Series []itemSeries `json:"series"`
}

type itemSeries struct {
	Labels map[string]string `json:"labels"`
	Value  *float64          `json:"value"`
	Count  *uint64           `json:"count"`
	Sum    *float64          `json:"sum"`
	Counts []uint64          `json:"counts"`
}

// readItems reads family by family, so that bounds hold before memory is taken.
func readItems(r io.Reader) (*itemsAnswer, error) {
	dec := json.NewDecoder(r)
	if err := expect(dec, json.Delim('{')); err != nil {
		return nil, err
	}
	a, series := &itemsAnswer{}, 0
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if name != "families" {
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				return nil, err
			}
			continue
		}
		if err := expect(dec, json.Delim('[')); err != nil {
			return nil, err
		}
		for dec.More() {
			var f itemFamily
			if err := dec.Decode(&f); err != nil {
				return nil, err
			}
			f.clean()
			if series+len(f.Series) > maxSeriesEach {
				a.skipped += len(f.Series)
				continue
			}
			series += len(f.Series)
			a.families = append(a.families, f)
		}
		if err := expect(dec, json.Delim(']')); err != nil {
			return nil, err
		}
	}
	return a, expect(dec, json.Delim('}'))
}

func expect(dec *json.Decoder, want json.Delim) error {
	switch t, err := dec.Token(); {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case t != want:
		return fmt.Errorf("%v instead of %v", t, want)
	}
	return nil
}

// clean cuts what is too long to be kept or shown.
func (f *itemFamily) clean() {
	f.Name, f.Group, f.Unit, f.Help = cut(f.Name, maxItemText), cut(f.Group, 60), cut(f.Unit, 30), cut(f.Help, maxItemText)
	if len(f.Bounds) > maxBounds || !slices.IsSorted(f.Bounds) {
		f.Bounds = nil
	}
	for i := range f.Series {
		s := &f.Series[i]
		if len(s.Labels) > maxLabels {
			s.Labels = nil
		}
		for k, v := range s.Labels {
			if len(v) > maxItemText || len(k) > maxItemText {
				delete(s.Labels, k)
				s.Labels[cut(k, maxItemText)] = cut(v, maxItemText)
			}
		}
	}
}

// labelText gives the labels as one text: the same labels, the same text.
func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s=%q", k, labels[k])
	}
	return b.String()
}

// A track is one value over time: for each round of the last hour, for each block of
// the last day. It takes memory only when the value changes for the first time: most
// items never do.
type track struct {
	since        int // sequence number of its first round
	still        float32
	fine, coarse []float32
}

// clock numbers rounds and blocks for tracks, which are rings.
type clock struct {
	rounds, blocks int // how many there were so far
	roundEnds      []time.Time
	blockEnds      []time.Time
	bytes          int // of all tracks
}

func newClock(every time.Duration) *clock {
	return &clock{
		roundEnds: make([]time.Time, max(int(KeepRounds/every), 1)),
		blockEnds: make([]time.Time, int(KeepBlocks/BlockTime)),
	}
}

// tick begins a round and reports whether it begins a block, too.
func (c *clock) tick(end time.Time) (newBlock bool) {
	if c.rounds > 0 {
		before := c.roundEnds[(c.rounds-1)%len(c.roundEnds)]
		if newBlock = !block(before).Equal(block(end)); newBlock {
			c.blockEnds[c.blocks%len(c.blockEnds)] = before
			c.blocks++
		}
	}
	c.roundEnds[c.rounds%len(c.roundEnds)] = end
	c.rounds++
	return newBlock
}

var nan = float32(math.NaN())

// add gives the value of the round that the clock is in.
func (t *track) add(c *clock, v float32) (kept bool) {
	now := c.rounds - 1
	switch {
	case t.fine != nil:
	case t.since == 0 || t.still != t.still:
		t.since, t.still = c.rounds, v // counts from 1, so that zero is none
		return true
	case v == t.still || v != v:
		return true
	default:
		need := 4 * (len(c.roundEnds) + len(c.blockEnds))
		if c.bytes+need > maxTrackBytes {
			return false
		}
		c.bytes += need
		t.fine, t.coarse = make([]float32, len(c.roundEnds)), make([]float32, len(c.blockEnds))
		for i := range t.fine {
			t.fine[i] = nan
		}
		for i := range t.coarse {
			t.coarse[i] = nan
		}
		for i := max(t.since-1, now-len(t.fine)+1); i < now; i++ {
			t.fine[i%len(t.fine)] = t.still
		}
	}
	t.fine[now%len(t.fine)] = v
	return true
}

// closeBlock sums the rounds of the block that has just ended up to their mean.
func (t *track) closeBlock(c *clock) {
	if t.fine == nil || c.blocks == 0 {
		return
	}
	begin := block(c.blockEnds[(c.blocks-1)%len(c.blockEnds)])
	sum, n := 0., 0
	for i := c.rounds - 2; i >= 0 && i > c.rounds-1-len(t.fine); i-- {
		at := i % len(t.fine)
		if !block(c.roundEnds[at]).Equal(begin) {
			break
		}
		if v := t.fine[at]; v == v {
			sum, n = sum+float64(v), n+1
		}
	}
	mean := nan
	if n > 0 {
		mean = float32(sum / float64(n))
	}
	t.coarse[(c.blocks-1)%len(t.coarse)] = mean
}

// free gives the memory back.
func (t *track) free(c *clock) {
	if t.fine != nil {
		c.bytes -= 4 * (len(t.fine) + len(t.coarse))
		t.fine, t.coarse = nil, nil
	}
}

// between gives the values at the times that the clock gives for a span.
func (t *track) between(c *clock, a axis) []*float64 {
	out := make([]*float64, 0, len(a.times))
	for _, seq := range a.blocks {
		v := t.still
		if t.coarse != nil {
			v = t.coarse[seq%len(t.coarse)]
		}
		out = append(out, finite(v))
	}
	for _, seq := range a.rounds {
		v := nan
		switch {
		case t.fine != nil:
			v = t.fine[seq%len(t.fine)]
		case t.since > 0 && seq >= t.since-1:
			v = t.still
		}
		out = append(out, finite(v))
	}
	return out
}

func finite(v float32) *float64 {
	f := float64(v)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	f = rounded(f)
	return &f
}

// An axis is the times for which tracks have values within a span.
type axis struct {
	times          []int64 // Unix seconds, ends of rounds and blocks
	blocks, rounds []int   // their numbers
}

func (c *clock) axis(want span) axis {
	var a axis
	a.times = []int64{}
	firstRound := max(c.rounds-len(c.roundEnds), 0)
	var oldest time.Time
	if c.rounds > 0 {
		oldest = c.roundEnds[firstRound%len(c.roundEnds)]
	}
	for i := max(c.blocks-len(c.blockEnds), 0); i < c.blocks; i++ {
		end := c.blockEnds[i%len(c.blockEnds)]
		if end.After(want.from) && !end.After(want.to) && end.Before(oldest) {
			a.blocks, a.times = append(a.blocks, i), append(a.times, end.Unix())
		}
	}
	for i := firstRound; i < c.rounds; i++ {
		end := c.roundEnds[i%len(c.roundEnds)]
		if end.After(want.from) && !end.After(want.to) {
			a.rounds, a.times = append(a.rounds, i), append(a.times, end.Unix())
		}
	}
	return a
}

// items are the items of one process over time.
type items struct {
	families map[string]*keptFamily
	order    []string // of families, as the process gave them
	series   int
	number   int // of items as processes count them, each bucket of a histogram one
	skipped  int // series for which there was no room
}

type keptFamily struct {
	itemFamily
	series map[string]*keptSeries
}

type keptSeries struct {
	labels map[string]string
	text   string // of the labels
	seen   int    // number of the last round that had it

	value  float64 // as the process says: of a counter since its start
	sum    float64
	count  uint64
	counts []uint64
	first  bool // there was no value before

	rate, p50, p99 track // of a gauge the value itself is in rate
}

// add takes the answer of a round that took so long. restarted says that counters
// begin anew.
func (it *items) add(c *clock, a *itemsAnswer, took time.Duration, restarted bool, total *int) {
	if it.families == nil {
		it.families = map[string]*keptFamily{}
	}
	it.skipped = a.skipped
	it.order = it.order[:0]
	for i := range a.families {
		f := &a.families[i]
		kept := it.families[f.Name]
		if kept == nil || kept.Type != f.Type {
			kept = &keptFamily{series: map[string]*keptSeries{}}
			it.families[f.Name] = kept
		}
		series := f.Series
		kept.itemFamily = *f
		kept.Series = nil
		it.order = append(it.order, f.Name)
		for j := range series {
			s := &series[j]
			text := labelText(s.Labels)
			k := kept.series[text]
			if k == nil {
				if *total >= maxSeries {
					it.skipped++
					continue
				}
				*total++
				k = &keptSeries{labels: s.Labels, text: text, first: true}
				kept.series[text] = k
			}
			k.seen = c.rounds
			if !k.take(c, f, s, took, restarted) {
				it.skipped++
			}
		}
	}
	it.forget(c, total)
}

// forget lets go of series that have not been seen for as long as rounds are kept.
func (it *items) forget(c *clock, total *int) {
	it.series, it.number = 0, 0
	for name, f := range it.families {
		for text, s := range f.series {
			if s.seen+len(c.roundEnds) < c.rounds {
				s.rate.free(c)
				s.p50.free(c)
				s.p99.free(c)
				delete(f.series, text)
				*total--
			}
		}
		it.series += len(f.series)
		each := 1
		if f.Type == "histogram" {
			each = len(f.Bounds) + 3 // the bucket without bound, sum and count
		}
		it.number += each * len(f.series)
		if len(f.series) == 0 {
			delete(it.families, name)
		}
	}
}

// closeBlock ends a block for all items.
func (it *items) closeBlock(c *clock) {
	for _, f := range it.families {
		for _, s := range f.series {
			s.rate.closeBlock(c)
			s.p50.closeBlock(c)
			s.p99.closeBlock(c)
		}
	}
}

func (k *keptSeries) take(c *clock, f *itemFamily, s *itemSeries, took time.Duration, restarted bool) (kept bool) {
	firstTime := k.first
	k.first = false
	switch {
	case s.Count != nil: // a histogram
		before, beforeCount := k.counts, k.count
		k.counts, k.count = s.Counts, *s.Count
		if s.Sum != nil {
			k.sum = *s.Sum
		}
		if restarted || len(before) != len(s.Counts) || beforeCount > k.count {
			before, beforeCount = nil, 0
		}
		if firstTime {
			return k.rate.add(c, nan)
		}
		kept = k.rate.add(c, perSecond(float64(k.count-beforeCount), took))
		lo, hi := quantiles(f.Bounds, s.Counts, before)
		if k.p50.since == 0 && lo != lo {
			return kept // nothing was ever counted
		}
		return k.p50.add(c, lo) && k.p99.add(c, hi) && kept
	case s.Value == nil || math.IsNaN(*s.Value) || math.IsInf(*s.Value, 0):
		return k.rate.add(c, nan)
	case f.Type == "counter":
		before := k.value
		k.value = *s.Value
		switch {
		case firstTime:
			return k.rate.add(c, 0)
		case restarted || before > k.value:
			before = 0
		}
		return k.rate.add(c, perSecond(k.value-before, took))
	default:
		k.value = *s.Value
		return k.rate.add(c, float32(k.value))
	}
}

func perSecond(n float64, took time.Duration) float32 {
	if took <= 0 {
		return nan
	}
	return float32(n / took.Seconds())
}

// quantiles gives median and 99th percentile of what came since before, NaN if nothing
// did.
func quantiles(bounds []float64, now, before []uint64) (p50, p99 float32) {
	if len(now) != len(bounds)+1 {
		return nan, nan
	}
	delta, total := make([]uint64, len(now)), uint64(0)
	for i, n := range now {
		if before != nil && before[i] <= n {
			n -= before[i]
		}
		delta[i] = n
		addTo(&total, n)
	}
	if total == 0 {
		return nan, nan
	}
	at := func(q float64) float32 {
		rank, below, lower := q*float64(total), 0., 0.
		for i, n := range delta {
			if i == len(bounds) {
				break
			}
			if n > 0 && below+float64(n) >= rank {
				return float32(lower + (bounds[i]-lower)*(rank-below)/float64(n))
			}
			below, lower = below+float64(n), bounds[i]
		}
		return float32(lower)
	}
	return at(.5), at(.99)
}

// sortedSeries gives the series of a family by their labels.
func sortedSeries(f *keptFamily) []*keptSeries {
	return slices.SortedFunc(maps.Values(f.series), func(a, b *keptSeries) int { return strings.Compare(a.text, b.text) })
}
