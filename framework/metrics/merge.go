// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
)

// Merge gives the items of several processes of one program as those of one. Counters and
// histograms are sums. Of gauges in seconds, in percent and of ratios it is the largest,
// of what the list below names the largest or the least, and of all others the sum. It
// shares memory with its arguments, of which nil ones are none.
func Merge(all ...*Snapshot) *Snapshot {
	out := &Snapshot{}
	at := map[string]int{}         // families by name
	series := map[string]*Series{} // by name and labels
	for _, s := range all {
		if s == nil {
			continue
		}
		if s.Time.After(out.Time) {
			out.Time = s.Time
		}
		if out.Began.IsZero() || s.Began.Before(out.Began) {
			out.Began = s.Began
		}
		for i := range s.Families {
			f := &s.Families[i]
			if _, ok := at[f.Name]; !ok {
				at[f.Name] = len(out.Families)
				out.Families = append(out.Families, Family{Desc: f.Desc, Kind: f.Kind, Prom: f.Prom, Bounds: f.Bounds})
			}
			for j := range f.Series {
				one := f.Series[j]
				one.text = labelText(one.Labels) // one from another process has none
				key := f.Name + "{" + one.text
				if sum := series[key]; sum != nil {
					sum.add(f, &one)
					continue
				}
				one.Counts = slices.Clone(one.Counts)
				series[key] = &one
			}
		}
	}
	for key, s := range series {
		name, _, _ := strings.Cut(key, "{")
		f := &out.Families[at[name]]
		f.Series = append(f.Series, *s)
	}
	for i := range out.Families {
		slices.SortFunc(out.Families[i].Series, func(a, b Series) int { return strings.Compare(a.text, b.text) })
	}
	slices.SortFunc(out.Families, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *Series) add(f *Family, o *Series) {
	s.Sum += o.Sum
	for i := range min(len(s.Counts), len(o.Counts)) {
		s.Counts[i] += o.Counts[i]
	}
	if f.Kind == KindGauge {
		s.Value = mergeOf(f)(s.Value, o.Value)
	} else {
		s.Value += o.Value
	}
}

func largest(a, b float64) float64 { return max(a, b) }
func least(a, b float64) float64   { return min(a, b) }
func sum(a, b float64) float64     { return a + b }

// merges are the gauges whose unit does not say what those of several processes are
// together.
var merges = map[string]func(a, b float64) float64{
	"go.gc.limiter.last_cycle":       largest,
	"go.memory.limit":                largest,
	"go.stack.starting_size":         largest,
	"process.file_descriptors.limit": largest,
	"process.start_time":             least,
	"sluice.admission.level":         least,
	"sluice.admission.level.class":   least,
	"sluice.admission.level.user":    least,
	"sluice.build":                   largest,
	"sluice.graph.edges_room":        least,
}

func mergeOf(f *Family) func(a, b float64) float64 {
	switch by := merges[f.Name]; {
	case by != nil:
		return by
	case f.Unit == Seconds, f.Unit == Percent, f.Unit == Ratio, strings.HasSuffix(f.Name, ".largest"):
		return largest
	}
	return sum
}

// Counted gives a snapshot without its gauges: what stays true of a process that has
// ended.
func (s *Snapshot) Counted() *Snapshot {
	out := &Snapshot{Time: s.Time, Began: s.Began}
	for i := range s.Families {
		if s.Families[i].Kind != KindGauge {
			out.Families = append(out.Families, s.Families[i])
		}
	}
	return out
}
