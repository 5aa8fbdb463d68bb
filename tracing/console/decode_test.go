// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
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

func FuzzQoS(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"state":"open"} {}`, `{"limit":1e400}`,
		`{"state":"overloaded","says":"callers wait","level":{"class":"browse","user":17},"limit":64,"running":64,"waiting":3,"capacity":1200.5,"demand":2400,"delay_ms":12.5,"classes":[{"class":"browse","admitted":10,"refused":2,"evicted":1,"late":1,"expired":1,"suppressed":5}]}`,
		`{"state":"unheard of","level":{"class":"` + strings.Repeat("\u00e9", 41) + `"},"limit":-1,"delay_ms":-1e308,"classes":[{"admitted":18446744073709551615},{"admitted":1,"refused":18446744073709551615,"late":1}]}`,
	} {
		f.Add(s, `{"state":"busy","level":{"class":"everyone","user":127},"classes":[{"admitted":11}]}`)
	}
	f.Fuzz(func(t *testing.T, before, now string) {
		first, err := readQoS(strings.NewReader(before))
		if err != nil {
			return
		}
		second, err := readQoS(strings.NewReader(now))
		if err != nil {
			return
		}
		var h qosHistory
		want := span{began, began}
		for _, a := range []*qosAnswer{first, second, nil, first} {
			want.to = want.to.Add(BlockTime)
			h.add(want.to.Add(-BlockTime), want.to, a)
		}
		samples := h.between(want)
		if len(samples) == 0 {
			t.Error("nothing is kept")
		}
		for _, s := range samples {
			if len(s.Level) > 44 || s.Severity > callgraph.MaxSeverity || severities[s.State] != s.Severity {
				t.Errorf("%+v", s)
			}
		}
		if _, err := json.Marshal(qosLineView{Now: h.now(), Samples: samples, Says: cut(h.last.Says, maxItemText)}); err != nil {
			t.Error(err)
		}
	})
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"127.0.0.1:7001", "post=:7001", "https://[::1]:7001/", "a=http://b:1", "http://u:p@h:1", "h:1/x", "[::1%25lo]:1", " n = h:1 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s)
		if err != nil {
			return
		}
		const page = "/admin/items"
		u, err := url.Parse(target.url(page))
		if err != nil || u.Path != page || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Port() == "" || u.Hostname() == "" {
			t.Errorf("%q is asked at %q, %v", s, target.url(page), err)
		}
		if again, err := ParseTarget(target.Name + "=" + target.Addr); target.Name != "" && (err != nil || again != target) {
			t.Errorf("%q became %+v, then %+v, %v", s, target, again, err)
		}
	})
}
