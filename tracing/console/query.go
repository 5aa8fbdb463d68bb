// SPDX-License-Identifier: Apache-2.0

package console

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
)

// maxTrend is how many points a trend has at most.
const maxTrend = 60

// numbers are the counts of something in a stretch of time, as the API gives them.
type numbers struct {
	Calls         uint64            `json:"calls"`
	Rate          float64           `json:"rate"` // a second
	Failed        uint64            `json:"failed"`
	FailedShare   float64           `json:"failed_share"`
	Results       map[string]uint64 `json:"results"`
	Mean          float64           `json:"mean_ms"`
	P50           float64           `json:"p50_ms"`
	P90           float64           `json:"p90_ms"`
	P99           float64           `json:"p99_ms"`
	RequestBytes  uint64            `json:"request_bytes"`
	ResponseBytes uint64            `json:"response_bytes"`
}

func numbersOf(s *callgraph.Stats, length time.Duration) numbers {
	n := numbers{
		Calls: s.Calls(), Failed: s.Failed(), Results: map[string]uint64{},
		Mean: ms(s.Mean()), P50: ms(s.Latency.Quantile(.5)), P90: ms(s.Latency.Quantile(.9)), P99: ms(s.Latency.Quantile(.99)),
		RequestBytes: s.RequestBytes, ResponseBytes: s.ResponseBytes,
	}
	for class, count := range s.Results {
		if count > 0 {
			n.Results[callgraph.Class(class).String()] = count
		}
	}
	if length > 0 {
		n.Rate = rounded(float64(n.Calls) / length.Seconds())
	}
	if n.Calls > 0 {
		n.FailedShare = rounded(float64(n.Failed) / float64(n.Calls))
	}
	return n
}

func ms(d time.Duration) float64 { return rounded(float64(d) / 1e6) }

// rounded keeps six digits: the others say nothing.
func rounded(f float64) float64 {
	if f == 0 || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	scale := math.Pow(10, 5-math.Floor(math.Log10(math.Abs(f))))
	if r := math.Round(f*scale) / scale; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return f
}

// trend is how something went over time: one value for each time, null where there
// was nothing.
type trend struct {
	Rate   []float64  `json:"rate"`
	Failed []float64  `json:"failed"` // a second
	P99    []*float64 `json:"p99_ms"`
}

func (t *trend) add(at, points int, s *callgraph.Stats, length time.Duration) {
	if t.Rate == nil {
		t.Rate, t.Failed, t.P99 = make([]float64, points), make([]float64, points), make([]*float64, points)
	}
	n := numbersOf(s, length)
	t.Rate[at] = n.Rate
	if length > 0 {
		t.Failed[at] = rounded(float64(n.Failed) / length.Seconds())
	}
	if n.Calls > 0 {
		p99 := n.P99
		t.P99[at] = &p99
	}
}

// points cuts rounds into at most maxTrend groups of about the same length.
func points(rounds []*round) [][]*round {
	each := (len(rounds) + maxTrend - 1) / maxTrend
	var out [][]*round
	for len(rounds) > 0 {
		n := min(each, len(rounds))
		out = append(out, rounds[:n])
		rounds = rounds[n:]
	}
	return out
}

func ends(groups [][]*round) []int64 {
	out := make([]int64, len(groups))
	for i, g := range groups {
		out[i] = g[len(g)-1].to.Unix()
	}
	return out
}

// periodView says what time an answer is about.
type periodView struct {
	From    float64 `json:"from"` // Unix seconds
	To      float64 `json:"to"`
	Seconds float64 `json:"seconds"` // that were really covered
}

func viewOf(s span, covered time.Duration) periodView {
	return periodView{From: unix(s.from), To: unix(s.to), Seconds: covered.Seconds()}
}

func unix(t time.Time) float64 {
	if t.Unix() < 0 { // before the first round
		return 0
	}
	return float64(t.UnixMilli()) / 1e3
}

// entryView is a line of the page of entries.
type entryView struct {
	Name  string `json:"name"`
	ID    string `json:"id"`
	Named bool   `json:"named"`
	numbers
	Mark  *markView `json:"mark,omitempty"`
	Trend trend     `json:"trend"`
}

type markView struct {
	Severity uint8  `json:"severity"`
	Text     string `json:"text"`
}

type entriesView struct {
	Period  periodView  `json:"period"`
	Times   []int64     `json:"times"` // of trends
	Entries []entryView `json:"entries"`
}

// entryStats gives what each entry has served: of one that does not count its own
// requests, as a call that was made outside of any, what it has called.
func entryStats(doors sums) map[tracing.Entry]callgraph.Stats {
	type sides struct{ own, client, server *callgraph.Stats }
	all := map[tracing.Entry]*sides{}
	for k, t := range doors {
		v := k.Value()
		s := all[v.Entry]
		if s == nil {
			s = &sides{}
			all[v.Entry] = s
		}
		into := &s.server
		switch {
		case v.Callee == "":
			into = &s.own
		case v.Side == callgraph.Client || v.Side == callgraph.Producer:
			into = &s.client
		}
		stats := t.stats()
		if *into != nil {
			stats = stats.Plus(**into)
		}
		*into = &stats
	}
	out := make(map[tracing.Entry]callgraph.Stats, len(all))
	for e, s := range all {
		out[e] = *cmp.Or(s.own, s.client, s.server)
	}
	return out
}

func (c *Console) entries(want span) (*entriesView, error) {
	rounds, got, err := c.graphs.between(want)
	if err != nil {
		return nil, err
	}
	doors := sums{}
	marks := map[string]callgraph.Mark{}
	for _, r := range rounds {
		doors.addDoors(&r.packed)
		maps.Copy(marks, r.marks)
	}
	length := covered(rounds)
	byEntry := map[tracing.Entry]*entryView{}
	for e, s := range entryStats(doors) {
		name, named := c.graphs.names[e]
		if !named {
			name = c.graphs.entryName(e)
		}
		v := &entryView{Name: name, ID: e.String(), Named: named, numbers: numbersOf(&s, length)}
		if m, ok := marks[name]; ok {
			v.Mark = &markView{m.Severity, m.Text}
		} else if m, ok := marks[serviceOf(name)]; ok {
			v.Mark = &markView{m.Severity, m.Text}
		}
		byEntry[e] = v
	}
	groups := points(rounds)
	for i, g := range groups {
		doors, length := sums{}, covered(g)
		for _, r := range g {
			doors.addDoors(&r.packed)
		}
		stats := entryStats(doors)
		for e, v := range byEntry {
			s := stats[e]
			v.Trend.add(i, len(groups), &s, length)
		}
	}
	out := &entriesView{Period: viewOf(got, length), Times: ends(groups), Entries: make([]entryView, 0, len(byEntry))}
	for _, v := range byEntry {
		out.Entries = append(out.Entries, *v)
	}
	slices.SortFunc(out.Entries, func(a, b entryView) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

// graphQuery asks for a graph.
type graphQuery struct {
	entry  string // empty for all
	want   span
	base   *span // to compare with
	filter callgraph.Filter
}

var errNoBase = errors.New("the period to compare with")

func (c *Console) graph(q graphQuery) (*callgraph.Graph, periodView, *periodView, error) {
	g, got, err := c.oneGraph(q.entry, q.want)
	if err != nil {
		return nil, got, nil, err
	}
	paths, sampled := c.criticalPaths(q.entry, q.want)
	g = g.WithCritical(paths...)
	g.Unfair = len(paths) > 0 && !sampled
	var baseGot *periodView
	if q.base != nil {
		base, p, err := c.oneGraph(q.entry, *q.base)
		if err != nil {
			return nil, got, nil, fmt.Errorf("%w: %w", errNoBase, err)
		}
		g, baseGot = callgraph.Compare(g, base), &p
	}
	return g.Filter(q.filter), got, baseGot, nil
}

func (c *Console) oneGraph(name string, want span) (*callgraph.Graph, periodView, error) {
	rounds, got, err := c.graphs.between(want)
	if err != nil {
		return nil, periodView{}, err
	}
	length := covered(rounds)
	view := viewOf(got, length)
	if name == "" {
		return callgraph.Build(c.graphs.period(rounds, nil), length), view, nil
	}
	e, err := c.graphs.entry(name)
	if err != nil {
		return nil, view, err
	}
	return callgraph.Build(c.graphs.period(rounds, &e), length, e), view, nil
}

// serviceView is a line of the page of services.
type serviceView struct {
	Name    string `json:"name"`
	Methods int    `json:"methods"`
	numbers
	Mark      *markView `json:"mark,omitempty"`
	Processes []string  `json:"processes"`
	Trend     trend     `json:"trend"`
}

type servicesView struct {
	Period   periodView    `json:"period"`
	Times    []int64       `json:"times"`
	Services []serviceView `json:"services"`
}

// served adds up what is known of callees: as they have counted themselves or, of
// those that nobody pulls, as their callers have.
func served(all sums, group func(method string) string) map[string]callgraph.Stats {
	server, client := map[string]callgraph.Stats{}, map[string]callgraph.Stats{}
	for k, t := range all {
		v := k.Value()
		if v.Callee == "" {
			continue
		}
		into := server
		if v.Side == callgraph.Client || v.Side == callgraph.Producer {
			into = client
		}
		into[v.Callee] = into[v.Callee].Plus(t.stats())
	}
	for method, s := range client {
		if _, known := server[method]; !known {
			server[method] = s
		}
	}
	out := map[string]callgraph.Stats{}
	for method, s := range server {
		if name := group(method); name != "" {
			out[name] = out[name].Plus(s)
		}
	}
	return out
}

func (c *Console) services(want span) (*servicesView, error) {
	rounds, got, err := c.graphs.between(want)
	if err != nil {
		return nil, err
	}
	all, marks := sums{}, map[string]callgraph.Mark{}
	for _, r := range rounds {
		all.add(&r.packed, nil)
		maps.Copy(marks, r.marks)
	}
	length := covered(rounds)
	methods := map[string]map[string]bool{}
	for k := range all {
		if callee := k.Value().Callee; callee != "" {
			name := serviceOf(callee)
			if methods[name] == nil {
				methods[name] = map[string]bool{}
			}
			methods[name][callee] = true
		}
	}
	byName := map[string]*serviceView{}
	for name, s := range served(all, serviceOf) {
		v := &serviceView{Name: name, Methods: len(methods[name]), numbers: numbersOf(&s, length), Processes: c.serving(name)}
		if m, ok := marks[name]; ok {
			v.Mark = &markView{m.Severity, m.Text}
		}
		byName[name] = v
	}
	groups := points(rounds)
	for i, g := range groups {
		part, length := sums{}, covered(g)
		for _, r := range g {
			part.add(&r.packed, nil)
		}
		stats := served(part, serviceOf)
		for name, v := range byName {
			s := stats[name]
			v.Trend.add(i, len(groups), &s, length)
		}
	}
	out := &servicesView{Period: viewOf(got, length), Times: ends(groups), Services: []serviceView{}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out.Services = append(out.Services, *byName[name])
	}
	return out, nil
}

// serving gives the processes that serve a service.
func (c *Console) serving(service string) []string {
	out := []string{}
	for _, p := range c.procs {
		if p.sameAs == nil && slices.Contains(p.services, service) {
			out = append(out, p.target.name())
		}
	}
	return out
}

// methodView is a line of the page of one service.
type methodView struct {
	Name string `json:"name"` // without the service
	Full string `json:"full"`
	numbers
	Callers []string `json:"callers"`
	Callees []string `json:"callees"`
	Trend   trend    `json:"trend"`
}

type serviceDetail struct {
	Period    periodView   `json:"period"`
	Times     []int64      `json:"times"`
	Name      string       `json:"name"`
	Mark      *markView    `json:"mark,omitempty"`
	Processes []string     `json:"processes"`
	Methods   []methodView `json:"methods"`
}

// maxNeighbours is how many callers and callees of a method are told.
const maxNeighbours = 50

func (c *Console) service(name string, want span) (*serviceDetail, error) {
	rounds, got, err := c.graphs.between(want)
	if err != nil {
		return nil, err
	}
	ours := func(method string) string {
		if serviceOf(method) == name {
			return method
		}
		return ""
	}
	all := sums{}
	wanted := func(k callgraph.Key) bool { return ours(k.Callee) != "" || ours(k.Caller) != "" }
	out := &serviceDetail{Name: name, Processes: c.serving(name), Methods: []methodView{}}
	for _, r := range rounds {
		all.add(&r.packed, wanted)
		if m, ok := r.marks[name]; ok {
			out.Mark = &markView{m.Severity, m.Text}
		}
	}
	length := covered(rounds)
	out.Period = viewOf(got, length)
	callers, callees := map[string]map[string]bool{}, map[string]map[string]bool{}
	note := func(into map[string]map[string]bool, at, name string) {
		if into[at] == nil {
			into[at] = map[string]bool{}
		}
		into[at][name] = true
	}
	for k := range all {
		v := k.Value()
		caller := v.Caller
		if caller == "" {
			caller = c.graphs.entryName(v.Entry)
		}
		if ours(v.Callee) != "" {
			note(callers, v.Callee, caller)
		}
		if ours(v.Caller) != "" {
			note(callees, v.Caller, v.Callee)
		}
	}
	byName := map[string]*methodView{}
	for method, s := range served(all, ours) {
		byName[method] = &methodView{
			Name: strings.TrimPrefix(method, name+"/"), Full: method, numbers: numbersOf(&s, length),
			Callers: firstNames(callers[method]), Callees: firstNames(callees[method]),
		}
	}
	groups := points(rounds)
	for i, g := range groups {
		part, length := sums{}, covered(g)
		for _, r := range g {
			part.add(&r.packed, wanted)
		}
		stats := served(part, ours)
		for method, v := range byName {
			s := stats[method]
			v.Trend.add(i, len(groups), &s, length)
		}
	}
	out.Times = ends(groups)
	for _, method := range slices.Sorted(maps.Keys(byName)) {
		out.Methods = append(out.Methods, *byName[method])
	}
	return out, nil
}

func firstNames(set map[string]bool) []string {
	out := slices.Sorted(maps.Keys(set))
	if out == nil {
		out = []string{}
	}
	return out[:min(len(out), maxNeighbours)]
}

// processView is a line of the page of processes.
type processView struct {
	Name     string   `json:"name"`
	Addr     string   `json:"addr"`
	State    string   `json:"state"` // ok, failing, new, same
	SameAs   string   `json:"same_as,omitempty"`
	Error    string   `json:"error,omitempty"`
	Note     string   `json:"note,omitempty"`
	Service  string   `json:"service,omitempty"` // as the process calls itself
	Instance string   `json:"instance,omitempty"`
	Started  float64  `json:"started,omitempty"` // Unix seconds, by its own clock
	PulledAt float64  `json:"pulled_at,omitempty"`
	PullMS   float64  `json:"pull_ms"`
	SkewMS   float64  `json:"skew_ms"` // its clock against ours
	Restarts int      `json:"restarts"`
	Lies     int      `json:"lies"` // answers that were not believed
	Lost     int      `json:"lost_records"`
	Items    int      `json:"items"`
	NotKept  int      `json:"items_not_kept"`
	Services []string `json:"services"`
	QoS      string   `json:"qos"`
	Severity uint8    `json:"severity"`
}

func (p *proc) view() processView {
	v := processView{
		Name: p.target.name(), Addr: p.target.Addr, State: "ok", Error: p.err, Note: p.note, PullMS: ms(p.slow),
		Restarts: p.restarts, Lies: p.lies, Lost: p.lost, Items: p.items.number, NotKept: p.items.skipped,
		Services: append([]string{}, p.services...),
	}
	now := p.qos.now()
	v.QoS, v.Severity = now.State, now.Severity
	if p.last != nil {
		v.Service, v.Instance = p.last.Process.Service, p.last.Process.Instance
		v.Started = rounded9(float64(min(p.last.Process.Epoch, 1<<62)) / 1e9)
		v.PulledAt, v.SkewMS = unix(p.pulledAt), ms(p.skew())
	}
	switch {
	case p.failed:
		v.State = "failing"
	case p.sameAs != nil:
		v.State, v.SameAs = "same", p.sameAs.target.name()
	case p.last == nil:
		v.State = "new"
	}
	return v
}

func rounded9(f float64) float64 { return math.Round(f*1e3) / 1e3 }
