// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/callgraph/draw"
)

// The bounds of what may be asked for.
const (
	maxQueryBytes = 4 << 10
	maxHops       = 100
	defaultLast   = 5 * time.Minute
	maxFound      = 500
	defaultFound  = 50
	maxItemsFound = 2_000
	answersAtOnce = 16
)

// Handler gives the page and its API; API.md beside this package describes it.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	busy := make(chan struct{}, answersAtOnce)
	api := func(path string, answer func(*asked) (any, error)) {
		mux.HandleFunc("GET /api/"+path, func(w http.ResponseWriter, r *http.Request) {
			select {
			case busy <- struct{}{}:
				defer func() { <-busy }()
			case <-r.Context().Done():
				return
			}
			c.answer(w, r, answer)
		})
	}
	api("status", c.askStatus)
	api("entries", c.askEntries)
	api("graph", c.askGraph)
	api("traces", c.askTraces)
	api("trace", c.askTrace)
	api("services", c.askServices)
	api("service", c.askService)
	api("items", c.askItems)
	api("series", c.askSeries)
	api("qos", c.askQoS)
	mux.HandleFunc("GET /api/", func(w http.ResponseWriter, r *http.Request) {
		sendError(w, r, http.StatusNotFound, fmt.Errorf("%s is no part of the API", r.URL.Path))
	})
	addPage(mux)
	return c.guard(mux)
}

// guard lets in who names this machine by an address or as localhost.
func (c *Console) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && host != "localhost" && !c.cfg.AnyHost {
			sendError(w, r, http.StatusForbidden, fmt.Errorf("the console is asked for by address or as localhost, not as %q; start it with --any-host to allow names", cut(r.Host, 100)))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// asked is a request to the API, and what was wrong with it so far.
type asked struct {
	console *Console
	values  url.Values
	err     error
	raw     []byte // an answer that is no JSON of ours
	media   string
}

func (c *Console) answer(w http.ResponseWriter, r *http.Request, answer func(*asked) (any, error)) {
	if len(r.URL.RawQuery) > maxQueryBytes {
		sendError(w, r, http.StatusRequestURITooLong, fmt.Errorf("the query is longer than %d bytes", maxQueryBytes))
		return
	}
	q := &asked{console: c}
	var err error
	if q.values, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		sendError(w, r, http.StatusBadRequest, fmt.Errorf("the query cannot be read: %w", err))
		return
	}
	c.mu.RLock()
	at, key := c.last, r.URL.Path+"?"+r.URL.RawQuery
	if kept, ok := c.answers.get(at, key); ok {
		c.mu.RUnlock()
		send(w, r, http.StatusOK, "application/json", kept)
		return
	}
	v, err := answer(q)
	c.mu.RUnlock()
	switch {
	case q.err != nil:
		sendError(w, r, http.StatusBadRequest, q.err)
	case errors.Is(err, errNotFound), errors.Is(err, errNothingKept):
		sendError(w, r, http.StatusNotFound, err)
	case errors.Is(err, draw.ErrTooLarge):
		sendError(w, r, http.StatusUnprocessableEntity, err)
	case err != nil:
		sendError(w, r, http.StatusBadRequest, err)
	case q.raw != nil:
		if strings.HasPrefix(q.media, "image/svg") { // alone it may not run anything either
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
		}
		send(w, r, http.StatusOK, q.media, q.raw)
	default:
		body, err := json.Marshal(v)
		if err != nil {
			sendError(w, r, http.StatusInternalServerError, err)
			return
		}
		body = append(body, '\n')
		c.answers.keep(at, key, body)
		send(w, r, http.StatusOK, "application/json", body)
	}
}

// answers keeps what was answered since the last round: pages ask the same again more
// often than anything changes.
type answers struct {
	mu     sync.Mutex // guards what follows
	at     time.Time  // end of the round that the answers are of
	bodies map[string][]byte
	bytes  int
}

// maxAnswerBytes is how much memory answers may take.
const maxAnswerBytes = 16 << 20

func (a *answers) get(at time.Time, key string) ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.Equal(at) {
		return nil, false
	}
	body, ok := a.bodies[key]
	return body, ok
}

func (a *answers) keep(at time.Time, key string, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	size := len(key) + len(body)
	if at.IsZero() || at.Before(a.at) || strings.HasPrefix(key, "/api/status") { // which changes within a round, too
		return
	}
	if !a.at.Equal(at) || a.bytes+size > maxAnswerBytes {
		a.at, a.bodies, a.bytes = at, map[string][]byte{}, 0
	}
	if _, known := a.bodies[key]; !known && size <= maxAnswerBytes/4 {
		a.bodies[key] = body
		a.bytes += size
	}
}

var errNotFound = errors.New("not found")

func sendError(w http.ResponseWriter, r *http.Request, status int, err error) {
	body, _ := json.Marshal(map[string]string{"error": err.Error()})
	send(w, r, status, "application/json", append(body, '\n'))
}

func send(w http.ResponseWriter, r *http.Request, status int, media string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("Vary", "Accept-Encoding")
	if len(body) > 2<<10 && acceptsGzip(r) {
		var z bytes.Buffer
		zip, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed) // a level that is one
		_, _ = zip.Write(body)                            // a buffer takes everything
		_ = zip.Close()
		h.Set("Content-Encoding", "gzip")
		body = z.Bytes()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// acceptsGzip reads Accept-Encoding as far as is needed: gzip named and not forbidden.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(name) == "gzip" {
			q = strings.ReplaceAll(q, " ", "")
			return q != "q=0" && !strings.HasPrefix(q, "q=0.0")
		}
	}
	return false
}

func (q *asked) fail(name, format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
	}
}

func (q *asked) text(name string) string { return q.values.Get(name) }

func (q *asked) number(name string, fallback, least, most float64) float64 {
	text := q.text(name)
	if text == "" {
		return fallback
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < least || f > most {
		q.fail(name, "%q: want a number from %v to %v", cut(text, 50), least, most)
		return fallback
	}
	return f
}

// span reads a stretch of time: PREFIXlast=5m, or PREFIXfrom and PREFIXto in Unix
// seconds. It is nil when nothing is named.
func (q *asked) span(prefix string) *span {
	last, from, to := q.text(prefix+"last"), q.text(prefix+"from"), q.text(prefix+"to")
	now := q.console.last
	switch {
	case last != "":
		d, err := time.ParseDuration(last)
		if err != nil || d <= 0 || d > KeepBlocks {
			q.fail(prefix+"last", "%q: want a time such as 5m, at most %v", cut(last, 50), KeepBlocks)
		}
		return &span{now.Add(-d), now}
	case from != "" || to != "":
		const far = 1 << 40
		s := span{
			time.UnixMilli(int64(1e3 * q.number(prefix+"from", 0, 0, far))),
			time.UnixMilli(int64(1e3 * q.number(prefix+"to", unix(now), 0, far))),
		}
		if !s.from.Before(s.to) {
			q.fail(prefix+"from", "want a time before %sto", prefix)
		}
		return &s
	}
	return nil
}

func (q *asked) period() span {
	if s := q.span(""); s != nil {
		return *s
	}
	return span{q.console.last.Add(-defaultLast), q.console.last}
}

type statusView struct {
	Now        float64       `json:"now"`   // end of the last round, Unix seconds; 0 before the first
	Began      float64       `json:"began"` // of the first
	EverySec   float64       `json:"every_seconds"`
	Trouble    string        `json:"trouble,omitempty"`
	Processes  []processView `json:"processes"`
	Rounds     int           `json:"rounds"`
	Blocks     int           `json:"blocks"`
	OldestFine float64       `json:"oldest_round,omitempty"`
	Oldest     float64       `json:"oldest,omitempty"`
	Early      bool          `json:"dropped_early"` // graphs went before their time: no memory
	Memory     struct {
		Graphs     int `json:"graphs_bytes"`
		GraphsMost int `json:"graphs_bytes_max"`
		Items      int `json:"items_bytes"`
		Series     int `json:"series"`
		Traces     int `json:"traces_bytes"`
	} `json:"memory"`
	Traces     int            `json:"traces"`
	TracesGone uint64         `json:"traces_gone"`
	Limits     map[string]int `json:"limits"`
}

func (c *Console) askStatus(*asked) (any, error) {
	v := &statusView{
		EverySec: c.cfg.Every.Seconds(), Trouble: c.trouble, Processes: []processView{},
		Rounds: len(c.graphs.rounds), Blocks: len(c.graphs.blocks), Early: c.graphs.early,
		Traces: len(c.traces.order), TracesGone: c.traces.gone,
		Limits: map[string]int{
			"targets": MaxTargets, "rows": maxRows, "graph_bytes": maxGraphBytes, "items_bytes": maxItemsBytes, "rpcz_bytes": maxRPCZBytes,
			"pull_ms": int(c.cfg.PullTime.Milliseconds()), "pulls_at_once": pullsAtOnce, "series_of_a_process": maxSeriesEach, "series": maxSeries,
			"traces": maxTraces, "spans_of_a_trace": maxTraceSpans, "traces_found": maxFound, "items_found": maxItemsFound, "trend_points": maxTrend,
		},
	}
	if !c.last.IsZero() {
		v.Now, v.Began = unix(c.last), unix(c.began)
	}
	if len(c.graphs.rounds) > 0 {
		v.OldestFine = unix(c.graphs.rounds[0].from)
		v.Oldest = v.OldestFine
		if len(c.graphs.blocks) > 0 {
			v.Oldest = unix(c.graphs.blocks[0].from)
		}
	}
	v.Memory.Graphs, v.Memory.GraphsMost = c.graphs.bytes, c.cfg.GraphBytes
	v.Memory.Items, v.Memory.Series, v.Memory.Traces = c.clock.bytes, c.series, c.traces.bytes
	for _, p := range c.procs {
		v.Processes = append(v.Processes, p.view())
	}
	return v, nil
}

func (c *Console) askEntries(q *asked) (any, error) {
	want := q.period()
	v, err := c.entries(want)
	if errors.Is(err, errNothingKept) {
		return &entriesView{Period: viewOf(want, 0), Times: []int64{}, Entries: []entryView{}}, nil
	}
	return v, err
}

// graphView is a graph and what it is about.
type graphView struct {
	Entry  string          `json:"entry"`
	Period periodView      `json:"period"`
	Base   *periodView     `json:"base,omitempty"`
	Found  []int           `json:"found"` // indices of the nodes that search has found
	Graph  json.RawMessage `json:"graph,omitempty"`
	// Missing says that nothing is kept: of the "period", or of the "base" to compare
	// with. There is no graph then.
	Missing string `json:"missing,omitempty"`
}

func (c *Console) askGraph(q *asked) (any, error) {
	query := graphQuery{
		entry: q.text("entry"), want: q.period(), base: q.span("base_"),
		filter: callgraph.Filter{
			MinShare: q.number("min_share", 0, 0, 1), MaxHops: int(q.number("hops", 0, 0, maxHops)), Around: q.text("around"),
		},
	}
	labels := true
	switch q.text("labels") {
	case "", "1", "true":
	case "0", "false":
		labels = false
	default:
		q.fail("labels", "want 1 or 0")
	}
	if ago := q.text("base_ago"); ago != "" && query.base == nil {
		d, err := time.ParseDuration(ago)
		if err != nil || d <= 0 || d > KeepBlocks {
			q.fail("base_ago", "%q: want a time such as 1h, at most %v", cut(ago, 50), KeepBlocks)
		}
		query.base = &span{query.want.from.Add(-d), query.want.to.Add(-d)}
	}
	format := q.text("format")
	if q.err != nil {
		return nil, q.err
	}
	g, period, base, err := c.graph(query)
	if errors.Is(err, errNothingKept) && (format == "" || format == "json") {
		missing := "period"
		if errors.Is(err, errNoBase) {
			missing = "base"
		}
		return &graphView{Entry: query.entry, Period: viewOf(query.want, 0), Found: []int{}, Missing: missing}, nil
	}
	if err != nil {
		return nil, err
	}
	q.media = "text/plain; charset=utf-8"
	switch format {
	case "", "json":
		body, err := draw.JSON(g, labels)
		if err != nil {
			return nil, err
		}
		found := g.Search(q.text("search"))
		if found == nil {
			found = []int{}
		}
		return &graphView{Entry: query.entry, Period: period, Base: base, Found: found, Graph: body}, nil
	case "svg":
		q.media = "image/svg+xml"
		q.raw, err = draw.SVG(g, labels)
	case "dot":
		q.raw = draw.DOT(g)
	case "mermaid":
		q.raw = draw.Mermaid(g)
	case "text":
		q.raw = draw.Text(g)
	default:
		q.fail("format", "%q: want json, svg, dot, mermaid or text", cut(format, 50))
	}
	return nil, err
}

func (c *Console) askServices(q *asked) (any, error) {
	want := q.period()
	v, err := c.services(want)
	if errors.Is(err, errNothingKept) {
		return &servicesView{Period: viewOf(want, 0), Times: []int64{}, Services: []serviceView{}}, nil
	}
	return v, err
}

func (c *Console) askService(q *asked) (any, error) {
	want := q.period()
	if q.text("name") == "" {
		return nil, errors.New("name: say which service")
	}
	v, err := c.service(q.text("name"), want)
	if err == nil && len(v.Methods) == 0 && len(v.Processes) == 0 {
		err = fmt.Errorf("service %q: %w in this time", q.text("name"), errNotFound)
	}
	return v, err
}

func (c *Console) proc(name string) (*proc, error) {
	for _, p := range c.procs {
		if p.target.name() == name {
			for p.sameAs != nil {
				p = p.sameAs
			}
			return p, nil
		}
	}
	return nil, fmt.Errorf("process %q: %w", name, errNotFound)
}

type qosView struct {
	Period    periodView    `json:"period"`
	Processes []qosLineView `json:"processes"`
}

type qosLineView struct {
	Process  string      `json:"process"`
	Services []string    `json:"services"`
	Says     string      `json:"says"`
	Now      qosSample   `json:"now"`
	Samples  []qosSample `json:"samples"`
}

func (c *Console) askQoS(q *asked) (any, error) {
	want := q.period()
	v := &qosView{Period: viewOf(want, want.length()), Processes: []qosLineView{}}
	for _, p := range c.procs {
		if p.sameAs != nil {
			continue
		}
		line := qosLineView{Process: p.target.name(), Services: append([]string{}, p.services...), Now: p.qos.now(), Samples: p.qos.between(want)}
		if p.qos.last != nil {
			line.Says = cut(p.qos.last.Says, maxItemText)
		}
		v.Processes = append(v.Processes, line)
	}
	return v, nil
}
