// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-rpc/sluice/framework/metrics"
)

// items is the page of all items with their values.
func (d *Dashboard) items(r *http.Request, q *query) (*page, error) {
	type item struct {
		family *metrics.Family
		series *metrics.Series
		labels string
	}
	snap := d.read(r.Context())
	var all []item
	for i := range snap.Families {
		f := &snap.Families[i]
		for j := range f.Series {
			one := item{f, &f.Series[j], labelText(f.Series[j].Labels)}
			if q.finds(f.Prom, f.Name, f.Help, one.labels) {
				all = append(all, one)
			}
		}
	}
	here, g := paged(r, q, all)
	p := &page{
		Title: say("Items"), Pager: g,
		Says: say("%s items, histogram buckets included, of %s names.", grouped(uint64(snap.Items())), grouped(uint64(len(snap.Families)))),
	}
	t := &table{
		Columns: []column{{say("item"), left}, {say("labels"), left}, {Name: say("value")}, {say("unit"), left}, {say("what it says"), prose}},
		Empty:   say("There is no such item."),
	}
	last := ""
	for _, one := range here {
		name, about := cell{Text: one.family.Prom, Code: true}, cell{Text: one.family.Help}
		if one.family.Prom == last { // said in a row above
			about = cell{}
			name.Mark = soft
		}
		last = one.family.Prom
		value := cell{Text: number64(one.series.Value)}
		if one.family.Kind == metrics.KindHistogram {
			value.Text = say("%s, in all %s", grouped(one.series.Count()), number64(one.series.Sum))
		}
		t.Rows = append(t.Rows, []cell{name, {Text: one.labels, Code: true}, value, {Text: string(one.family.Unit)}, about})
	}
	p.Parts = []part{{Table: t}}
	return p, nil
}

// catalogued writes JSON and text, which are the registry's own: the catalogue that
// files and programs are made from.
func (d *Dashboard) catalogued(w http.ResponseWriter, r *http.Request, q *query) bool {
	if q.Format == "html" {
		return false
	}
	metrics.CatalogueHandler(d.read).ServeHTTP(w, r)
	return true
}

func labelText(labels []metrics.Label) string {
	words := make([]string, len(labels))
	for i, l := range labels {
		words[i] = l.Name + "=" + strconv.Quote(l.Value)
	}
	return strings.Join(words, " ")
}

func number64(v float64) string {
	if v >= 0 && v < 1e15 && v == float64(uint64(v)) {
		return grouped(uint64(v))
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}
