// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Snapshot is all items of a process at one instant. It belongs to who took it. Each
// number is exact when it is read; numbers that belong together, such as a method's
// results and its histogram, agree when nothing is being recorded.
type Snapshot struct {
	Time     time.Time
	Began    time.Time // since when the counters count
	Families []Family  // by name
}

// Family is all series of one name.
type Family struct {
	Desc
	Kind   Kind
	Prom   string    // name as Prometheus shows it
	Bounds []float64 // of a histogram, +Inf left out; shared: not to be changed
	Series []Series  // by labels
}

// Series is one label set with its value.
type Series struct {
	Labels []Label  // by name; shared: not to be changed
	Value  float64  // of a counter or a gauge
	Counts []uint64 // of a histogram: values in each bucket, +Inf's last
	Sum    float64  // of a histogram: of all values, in the unit

	text string // the labels as Prometheus writes them
}

// Count is how many values a histogram has counted.
func (s *Series) Count() uint64 {
	n := uint64(0)
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Items is how many items a family has.
func (f *Family) Items() int { return len(f.Series) * itemsOf(f.Kind, len(f.Bounds)) }

// Group is what the family is about, by the beginning of its name: "rpc.server",
// "sluice.admission", "go", "process" or what a service calls itself.
func (f *Family) Group() string {
	first, rest, _ := strings.Cut(f.Name, ".")
	if first != "rpc" && first != "sluice" {
		return first
	}
	second, _, _ := strings.Cut(rest, ".")
	return first + "." + second
}

// Items is how many items there are, histogram buckets included.
func (s *Snapshot) Items() int {
	n := 0
	for i := range s.Families {
		n += s.Families[i].Items()
	}
	return n
}

// Find gives the series of a family, by the family's name in either form and by
// labels in any order; nil if there is none.
func (s *Snapshot) Find(name string, labels ...Label) *Series {
	labels = slices.Clone(labels)
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	for i := range s.Families {
		f := &s.Families[i]
		if f.Name != name && f.Prom != name {
			continue
		}
		for j := range f.Series {
			if slices.Equal(f.Series[j].Labels, labels) {
				return &f.Series[j]
			}
		}
	}
	return nil
}

// Snapshot reads all items.
func (r *Registry) Snapshot() *Snapshot {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.mu.Lock()
	prepare := r.prepare
	families := make([]*family, 0, len(r.families))
	for _, f := range r.families {
		if !f.sorted {
			f.series = slices.Clone(f.series) // the last snapshot may still read the old one
			slices.SortFunc(f.series, func(a, b *series) int { return strings.Compare(a.text, b.text) })
			f.sorted = true
		}
		families = append(families, f)
	}
	slices.SortFunc(families, func(a, b *family) int { return strings.Compare(a.name, b.name) })
	snap := &Snapshot{Began: r.began, Families: make([]Family, len(families))}
	all := make([][]*series, len(families))
	for i, f := range families {
		all[i] = f.series
		snap.Families[i] = Family{Desc: f.desc, Kind: f.kind, Prom: f.shown, Bounds: f.bounds}
	}
	r.mu.Unlock()

	// Outside the lock: what is read may be the user's code.
	for _, p := range prepare {
		r.guard(p)
	}
	snap.Time = time.Now()
	for i := range snap.Families {
		f := &snap.Families[i]
		f.Series = make([]Series, len(all[i]))
		for j, s := range all[i] {
			f.Series[j] = r.read(s, len(f.Bounds))
		}
	}
	return snap
}

func (r *Registry) read(s *series, bounds int) Series {
	out := Series{Labels: s.labels, text: s.text}
	if s.hist != nil {
		out.Counts = make([]uint64, bounds+1)
		r.guard(func() { out.Sum = s.hist(out.Counts) })
		return out
	}
	out.Value = math.NaN()
	r.guard(func() { out.Value = s.value() })
	return out
}

// guard runs what may be the user's code: a panic there costs one item, not the page.
func (r *Registry) guard(f func()) {
	defer func() {
		if recover() != nil {
			r.failures.Inc()
		}
	}()
	f()
}
