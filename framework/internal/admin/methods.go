// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// The ends of a method, in the order in which they are shown.
const (
	sideEntry  = "entry"  // an HTTP route
	sideServed = "served" // by this process
	sideCalled = "called" // by this process
)

var sides = []string{sideEntry, sideServed, sideCalled}

type methodKey struct{ side, name, callee string }

// A tally is what the items say of one method at one of its ends, since the process
// started.
type tally struct {
	methodKey
	calls, inFlight, request, response, attempts uint64
	results                                      map[string]uint64
	bounds                                       []float64
	took                                         []uint64 // calls that were served, by bucket
}

// tallied reads the items of all methods.
func tallied(snap *metrics.Snapshot) map[methodKey]*tally {
	all := map[methodKey]*tally{}
	for i := range snap.Families {
		f := &snap.Families[i]
		var side string
		word, ok := strings.CutPrefix(f.Name, "sluice.server.")
		switch {
		case ok, f.Name == "rpc.server.call.duration":
			side = sideServed
		default:
			if word, ok = strings.CutPrefix(f.Name, "sluice.client."); ok || f.Name == "rpc.client.call.duration" {
				side = sideCalled
			} else if word, ok = strings.CutPrefix(f.Name, "sluice.entry."); ok || f.Name == "http.server.request.duration" {
				side = sideEntry
			} else {
				continue
			}
		}
		if !ok {
			word = "took"
		}
		for j := range f.Series {
			s := &f.Series[j]
			key := methodKey{side: side, name: labelOf(s, "rpc.method"), callee: labelOf(s, "callee")}
			if side == sideEntry {
				key.name = strings.TrimSpace(labelOf(s, "http.request.method") + " " + labelOf(s, "http.route"))
			}
			if key.name == "" {
				continue
			}
			t := all[key]
			if t == nil {
				t = &tally{methodKey: key, results: map[string]uint64{}}
				all[key] = t
			}
			t.add(word, f, s)
		}
	}
	return all
}

func (t *tally) add(word string, f *metrics.Family, s *metrics.Series) {
	n := uint64(max(0, s.Value))
	switch word {
	case "calls", "requests":
		t.calls += n
	case "in_flight":
		t.inFlight += n
	case "request":
		t.request += n
	case "response":
		t.response += n
	case "attempts":
		t.attempts += n
	case "results":
		t.results[labelOf(s, "result")] += n
	case "took":
		if labelOf(s, "outcome") == "served" {
			t.bounds, t.took = f.Bounds, s.Counts
		}
	}
}

func labelOf(s *metrics.Series, name string) string {
	for _, l := range s.Labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

// rates remembers what the items said a while ago, so that a page can say how much there
// is now and not only since the start. Looking at a page is what moves it on: no
// goroutine counts for nobody.
type rates struct {
	mu           sync.Mutex
	older, newer moment // guarded by mu
}

type moment struct {
	at  time.Time
	all map[methodKey]*tally
}

// minWindow is the time in which a rate means something.
const minWindow = 10 * time.Second

// since notes what the items say now, and gives what they said at least a while ago; a
// zero moment is the start of the process.
func (r *rates) since(now moment) moment {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.at.Sub(r.newer.at) >= minWindow {
		r.older, r.newer = r.newer, now
	}
	return r.older
}

// methodView is a method as the page shows it.
type methodView struct {
	Side     string  `json:"side"` // entry, served or called
	Method   string  `json:"method"`
	Callee   string  `json:"callee,omitzero"` // the service called, as the configuration names it
	Rate     float64 `json:"rate"`            // calls a second within the window
	InFlight uint64  `json:"in_flight"`
	Calls    uint64  `json:"calls"`
	P50      float64 `json:"p50_seconds"` // of calls served within the window
	P99      float64 `json:"p99_seconds"`
	Attempts uint64  `json:"attempts,omitzero"`

	Results       map[string]uint64 `json:"results"`
	RequestBytes  uint64            `json:"request_bytes"`
	ResponseBytes uint64            `json:"response_bytes"`
	Contract      *contractView     `json:"contract,omitzero"`
}

type contractView struct {
	Class       string  `json:"class"`
	Timeout     float64 `json:"timeout_seconds"`
	Idempotency string  `json:"idempotency"`
	MaxAttempts int     `json:"max_attempts"`
}

// repeatable says of a method whether a call of it may be made again.
func repeatable(i rpc.Idempotency) string {
	switch i {
	case rpc.NoSideEffects:
		return "no_side_effects"
	case rpc.Idempotent:
		return "idempotent"
	default:
		return "unknown"
	}
}

// failed gives how many calls did not end well.
func (v *methodView) failed() uint64 {
	var n uint64
	for result, count := range v.Results {
		if result != "ok" {
			n += count
		}
	}
	return n
}

func (v *methodView) see(t, before *tally, window time.Duration) {
	calls, took := t.calls, t.took
	if before != nil && calls >= before.calls && len(took) == len(before.took) {
		calls -= before.calls
		took = slices.Clone(took)
		for i, n := range before.took {
			took[i] -= min(n, took[i])
		}
	}
	if window > 0 {
		v.Rate = float64(calls) / window.Seconds()
	}
	v.P50, v.P99 = quantile(t.bounds, took, .5), quantile(t.bounds, took, .99)
}

// methodViews gives all methods, and the time that rates and latencies are of.
func (d *Dashboard) methodViews(ctx context.Context) ([]methodView, time.Duration) {
	snap := d.read(ctx)
	now := moment{at: snap.Time, all: tallied(snap)}
	base := d.rates.since(now)
	window := snap.Time.Sub(snap.Began)
	if !base.at.IsZero() {
		window = snap.Time.Sub(base.at)
	}
	contracts := d.Contracts()
	views := make([]methodView, 0, len(now.all))
	for key, t := range now.all {
		v := methodView{
			Side: key.side, Method: key.name, Callee: key.callee, InFlight: t.inFlight, Calls: t.calls, Attempts: t.attempts,
			Results: t.results, RequestBytes: t.request, ResponseBytes: t.response,
		}
		v.see(t, base.all[key], window)
		if m := contracts[key.name]; m != nil && key.side != sideEntry {
			v.Contract = &contractView{
				Class: m.Class.String(), Timeout: m.CallTimeout().Seconds(), Idempotency: repeatable(m.Idempotency), MaxAttempts: max(1, m.MaxAttempts),
			}
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b methodView) int {
		return cmp.Or(
			cmp.Compare(slices.Index(sides, a.Side), slices.Index(sides, b.Side)),
			strings.Compare(a.Method, b.Method), strings.Compare(a.Callee, b.Callee))
	})
	return views, window
}

// methods is the page of what is served and called.
func (d *Dashboard) methods(r *http.Request, q *query) (*page, error) {
	all, window := d.methodViews(r.Context())
	if name := q.get("method"); name != "" {
		return d.oneMethod(q, all, window, name)
	}
	all = slices.DeleteFunc(all, func(v methodView) bool { return !q.finds(v.Method, v.Callee, v.Side) })
	here, g := paged(r, q, all)
	p := &page{
		Title: say("Methods"), Pager: g,
		Says: say("Rates and latencies are of the last %s; all else since the process started.", spell(window)),
		Data: struct {
			Window float64 `json:"window_seconds"`
			list[methodView]
		}{window.Seconds(), listOf(g, here)},
	}
	titles := map[string]phrase{sideEntry: say("Entries of this process"), sideServed: say("Served here"), sideCalled: say("Called from here")}
	for _, side := range sides {
		t := &table{Columns: []column{
			{say("method"), left},
			{Name: say("per second")},
			{Name: say("in flight")},
			{Name: say("p50")},
			{Name: say("p99")},
			{Name: say("calls")},
			{Name: say("failed")},
			{say("failures"), prose},
		}}
		if side != sideEntry {
			t.Columns = append(t.Columns, column{say("class"), left}, column{Name: say("timeout")}, column{say("idempotency"), left}, column{Name: say("attempts")})
		}
		for i := range here {
			if v := &here[i]; v.Side == side {
				t.Rows = append(t.Rows, v.row(q))
			}
		}
		if len(t.Rows) > 0 {
			p.Parts = append(p.Parts, part{Title: titles[side], Table: t})
		}
	}
	if len(p.Parts) == 0 {
		p.Parts = []part{{Table: &table{Empty: say("There is no such method.")}}}
	}
	return p, nil
}

func (v *methodView) row(q *query) []cell {
	row := []cell{
		{Text: v.Method, Href: q.link("/admin/methods", "method", v.Method)},
		rate(v.Rate), count(v.InFlight), took(seconds(v.P50)), took(seconds(v.P99)), count(v.Calls), share(v.failed(), v.Calls),
		{Text: v.failures()},
	}
	if v.Side == sideEntry {
		return row
	}
	if v.Contract == nil {
		return append(row, none, none, none, none)
	}
	return append(row, cell{Text: v.Contract.Class}, took(seconds(v.Contract.Timeout)), cell{Text: v.Contract.Idempotency}, count(uint64(v.Contract.MaxAttempts)))
}

// failures says how calls failed, the most frequent way first.
func (v *methodView) failures() string {
	var ways []string
	for result, n := range v.Results {
		if result != "ok" && n > 0 {
			ways = append(ways, result)
		}
	}
	slices.SortFunc(ways, func(a, b string) int {
		return cmp.Or(cmp.Compare(v.Results[b], v.Results[a]), strings.Compare(a, b))
	})
	for i, way := range ways {
		ways[i] = way + " " + grouped(v.Results[way])
	}
	return strings.Join(ways, ", ")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// oneMethod is the page of one method, at all of its ends.
func (d *Dashboard) oneMethod(q *query, all []methodView, window time.Duration, name string) (*page, error) {
	all = slices.DeleteFunc(all, func(v methodView) bool { return v.Method != name })
	if len(all) == 0 {
		return nil, fail(http.StatusNotFound, "method %q: this process neither serves nor calls it", cut(name))
	}
	p := &page{
		Title: say("%s", name), Back: q.link("/admin/methods"), Data: all,
		Says: say("Rates and latencies are of the last %s; all else since the process started.", spell(window)),
	}
	for i := range all {
		v := &all[i]
		title := map[string]phrase{sideEntry: say("Entry of this process"), sideServed: say("Served here"), sideCalled: say("Called from here, of %s", v.Callee)}[v.Side]
		facts := part{Title: title, Facts: []fact{
			{say("per second"), rate(v.Rate)},
			{say("in flight"), count(v.InFlight)},
			{say("p50"), took(seconds(v.P50))},
			{say("p99"), took(seconds(v.P99))},
			{say("calls"), count(v.Calls)},
		}}
		if v.Side == sideCalled {
			facts.Facts = append(facts.Facts, fact{say("attempts sent"), count(v.Attempts)})
		}
		facts.Facts = append(facts.Facts, fact{say("request bytes"), size(v.RequestBytes)}, fact{say("response bytes"), size(v.ResponseBytes)})
		if c := v.Contract; c != nil {
			facts.Facts = append(facts.Facts,
				fact{say("class"), cell{Text: c.Class}}, fact{say("timeout"), took(seconds(c.Timeout))},
				fact{say("idempotency"), cell{Text: c.Idempotency}}, fact{say("attempts at most"), count(uint64(c.MaxAttempts))})
		}
		p.Parts = append(p.Parts, facts, v.resultTable())
	}
	p.Parts = append(p.Parts, part{Facts: []fact{
		{say("see also"), cell{Text: say("its errors and slow calls"), Href: q.link("/admin/rpcz", "method", name)}},
	}})
	return p, nil
}

func (v *methodView) resultTable() part {
	t := &table{Columns: []column{{say("result"), left}, {Name: say("calls")}, {say("share"), left}}}
	var ended uint64
	for _, n := range v.Results {
		ended += n
	}
	results := make([]string, 0, len(v.Results))
	for result := range v.Results {
		results = append(results, result)
	}
	slices.SortFunc(results, func(a, b string) int {
		return cmp.Or(cmp.Compare(v.Results[b], v.Results[a]), strings.Compare(a, b))
	})
	for _, result := range results {
		n := v.Results[result]
		c := none
		if ended > 0 && n > 0 {
			c = cell{Text: share(n, ended).Text, Bar: &bar{Length: int(1000 * n / ended), Mark: bad}}
			if result == "ok" {
				c.Bar.Mark = good
			}
		}
		t.Rows = append(t.Rows, []cell{{Text: result}, count(n), c})
	}
	return part{Table: t}
}
