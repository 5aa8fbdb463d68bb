// SPDX-License-Identifier: Apache-2.0

package console

import (
	"strings"
	"testing"
	"time"
)

func FuzzItems(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"families":[]}`, `{"time_ms":1,"families":[{"name":"a_total","type":"counter","unit":"1","series":[{"labels":{"x":"y"},"value":3}]}]}`,
		`{"families":[{"name":"h","type":"histogram","bounds":[1,2],"series":[{"count":3,"sum":4.5,"counts":[1,1,1]}]}]}`, `{"families":[{"series":[{"value":null}]}]}`, `[]`, `{"families":{}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := readItems(strings.NewReader(s))
		if err != nil {
			return
		}
		c := newClock(10 * time.Second)
		it, total := items{}, 0
		for range 3 {
			c.tick(began.Add(time.Duration(c.rounds+1) * 10 * time.Second))
			it.add(c, a, 10*time.Second, false, &total)
		}
		if it.series > maxSeriesEach || total != it.series {
			t.Errorf("%d series, %d in all", it.series, total)
		}
	})
}

func FuzzRecords(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"records":null,"next":5,"lost":1}`, `{"records":[{"trace":"0102030405060708090a0b0c0d0e0f10","span":"0102030405060708","kind":"server","method":"a/b","start_ns":1,"duration_ns":-5,"notes":[{"key":"k","value":"v"}]}]}`,
		`{"records":[{"trace":"x"}]}`, `{"records":{}}`, `null`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := readRecords(strings.NewReader(s))
		if err != nil {
			return
		}
		kept := newTraces()
		kept.add("p", a.Records)
		kept.add("p", a.Records)
		for _, one := range kept.order {
			if records, _ := one.ordered(); len(records) != len(one.records) || one.root() == nil {
				t.Errorf("%d of %d records", len(records), len(one.records))
			}
			_ = one.spans()
		}
	})
}
