// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"math"
	"strings"
)

// itemView is an item of a process.
type itemView struct {
	Name   string   `json:"name"`
	Labels string   `json:"labels"`
	Value  *float64 `json:"value"` // of a histogram its count
	Rate   *float64 `json:"rate"`  // of a counter or histogram, in the last round
	P50    *float64 `json:"p50,omitempty"`
	P99    *float64 `json:"p99,omitempty"`
}

type familyView struct {
	Name   string     `json:"name"`
	Group  string     `json:"group"`
	Type   string     `json:"type"`
	Unit   string     `json:"unit"`
	Help   string     `json:"help"`
	Series int        `json:"series"` // all of them; items are those that were asked for
	Items  []itemView `json:"items"`
}

type itemsView struct {
	Process  string       `json:"process"`
	Groups   []groupView  `json:"groups"`
	Families []familyView `json:"families"`
	All      int          `json:"all"` // that match; at most items_found are given
	NotKept  int          `json:"not_kept"`
}

type groupView struct {
	Name  string `json:"name"`
	Items int    `json:"items"`
}

// askItems lists items with their values now: of a group, or with a text in name,
// labels or help; changed=1 leaves out what is zero.
func (c *Console) askItems(q *asked) (any, error) {
	p, err := c.proc(q.text("process"))
	if err != nil {
		return nil, err
	}
	group, text, moving := q.text("group"), strings.ToLower(q.text("text")), q.text("changed") == "1"
	v := &itemsView{Process: p.target.name(), Families: []familyView{}, Groups: []groupView{}, NotKept: p.items.skipped}
	at := map[string]int{}
	given := 0
	for _, name := range p.items.order {
		f := p.items.families[name]
		if f == nil {
			continue
		}
		if _, known := at[f.Group]; !known {
			at[f.Group] = len(v.Groups)
			v.Groups = append(v.Groups, groupView{Name: f.Group})
		}
		v.Groups[at[f.Group]].Items += len(f.series)
		if group != "" && f.Group != group {
			continue
		}
		family := familyView{Name: f.Name, Group: f.Group, Type: f.Type, Unit: f.Unit, Help: f.Help, Series: len(f.series), Items: []itemView{}}
		whole := strings.Contains(strings.ToLower(f.Name+" "+f.Help), text)
		for _, s := range sortedSeries(f) {
			if !whole && !strings.Contains(strings.ToLower(s.text), text) {
				continue
			}
			value := s.value
			if f.Type == "histogram" {
				value = float64(s.count)
			}
			if moving && value == 0 {
				continue
			}
			if v.All++; given >= maxItemsFound {
				continue
			}
			given++
			family.Items = append(family.Items, c.item(f, s, value))
		}
		if len(family.Items) > 0 {
			v.Families = append(v.Families, family)
		}
	}
	return v, nil
}

// item gives an item with its value now, and what the last round says of it.
func (c *Console) item(f *keptFamily, s *keptSeries, value float64) itemView {
	now := axis{times: []int64{0}, rounds: []int{c.clock.rounds - 1}}
	last := func(t *track) *float64 {
		if t.since == 0 {
			return nil
		}
		return t.between(c.clock, now)[0]
	}
	one := itemView{Name: f.Name, Labels: s.text}
	if !math.IsNaN(value) && !math.IsInf(value, 0) {
		one.Value = &value
	}
	if f.Type != "gauge" {
		one.Rate = last(&s.rate)
	}
	if f.Type == "histogram" {
		one.P50, one.P99 = last(&s.p50), last(&s.p99)
	}
	return one
}

// seriesView is items over time.
type seriesView struct {
	Process string     `json:"process"`
	Name    string     `json:"name"`
	Type    string     `json:"type"`
	Unit    string     `json:"unit"`
	Help    string     `json:"help"`
	Times   []int64    `json:"times"`
	Lines   []lineView `json:"lines"`
	All     int        `json:"all"` // series that match; at most 20 are given
}

type lineView struct {
	Labels string     `json:"labels"`
	What   string     `json:"what"` // value of a gauge, rate a second of a counter or histogram, p50, p99
	Values []*float64 `json:"values"`
}

// maxLines is how many series a chart has at most.
const maxLines = 20

func (c *Console) askSeries(q *asked) (any, error) {
	p, err := c.proc(q.text("process"))
	if err != nil {
		return nil, err
	}
	f := p.items.families[q.text("name")]
	if f == nil {
		return nil, fmt.Errorf("item %q of process %q: %w", cut(q.text("name"), 200), p.target.name(), errNotFound)
	}
	_, one := q.values["labels"]
	labels := q.text("labels")
	a := c.clock.axis(q.period())
	v := &seriesView{Process: p.target.name(), Name: f.Name, Type: f.Type, Unit: f.Unit, Help: f.Help, Times: a.times, Lines: []lineView{}}
	for _, s := range sortedSeries(f) {
		if one && s.text != labels {
			continue
		}
		if v.All++; v.All > maxLines {
			continue
		}
		what := "value"
		if f.Type != "gauge" {
			what = "rate"
		}
		v.Lines = append(v.Lines, lineView{s.text, what, s.rate.between(c.clock, a)})
		if f.Type == "histogram" {
			v.Lines = append(v.Lines, lineView{s.text, "p50", s.p50.between(c.clock, a)}, lineView{s.text, "p99", s.p99.between(c.clock, a)})
		}
	}
	return v, nil
}
