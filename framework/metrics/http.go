// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Handler serves all items as Prometheus scrapes them: OpenMetrics to who asks for
// it, the older text to all others.
func (r *Registry) Handler() http.Handler { return Handler(r.now) }

// Handler is Registry.Handler for items that come from elsewhere.
func Handler(read func(context.Context) *Snapshot) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !reading(w, req) {
			return
		}
		format := PromText
		if acceptsOpenMetrics(req.Header.Values("Accept")) {
			format = OpenMetrics
		}
		w.Header().Set("Vary", "Accept")
		send(w, req, format.ContentType(), read(req.Context()).AppendText(nil, format))
	})
}

func (r *Registry) now(context.Context) *Snapshot { return r.Snapshot() }

// CatalogueHandler serves the catalogue of all items with their current values, as
// JSON; with ?format=text what there is, without values.
func (r *Registry) CatalogueHandler() http.Handler { return CatalogueHandler(r.now) }

// CatalogueHandler is Registry.CatalogueHandler for items that come from elsewhere.
func CatalogueHandler(read func(context.Context) *Snapshot) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !reading(w, req) {
			return
		}
		snap := read(req.Context())
		if req.URL.Query().Get("format") == "text" {
			send(w, req, "text/plain; charset=utf-8", snap.AppendCatalogue(nil))
			return
		}
		body, err := json.Marshal(snap)
		if err != nil {
			http.Error(w, "the catalogue cannot be written: "+err.Error(), http.StatusInternalServerError)
			return
		}
		send(w, req, "application/json", body)
	})
}

// reading refuses all but reads.
func reading(w http.ResponseWriter, req *http.Request) bool {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "items are read with GET", http.StatusMethodNotAllowed)
	return false
}

func send(w http.ResponseWriter, req *http.Request, mediaType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if req.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone
	}
}

// acceptsOpenMetrics says whether a client prefers OpenMetrics 1.0 to the older text.
func acceptsOpenMetrics(accept []string) bool {
	open, text := 0., 0.
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil {
				continue
			}
		}
		switch media {
		case "application/openmetrics-text":
			if v := params["version"]; v == "" || v == "1.0.0" {
				open = max(open, q)
			}
		case "text/plain":
			text = max(text, q)
		}
	}
	return open > 0 && open >= text
}

type jsonSnapshot struct {
	Time     int64        `json:"time_ms"`
	Began    int64        `json:"began_ms"`
	Items    int          `json:"items"`
	Families []jsonFamily `json:"families"`
}

type jsonFamily struct {
	Name   string       `json:"name"` // as Prometheus shows it
	OTel   string       `json:"otel_name"`
	Group  string       `json:"group"`
	Type   string       `json:"type"`
	Unit   Unit         `json:"unit"`
	Help   string       `json:"help"`
	Items  int          `json:"items"`
	Bounds []float64    `json:"bounds,omitempty"`
	Series []jsonSeries `json:"series"`
}

type jsonSeries struct {
	Labels map[string]string `json:"labels,omitempty"`
	Value  *float64          `json:"value,omitempty"` // left out when it is not a number
	Count  *uint64           `json:"count,omitempty"`
	Sum    *float64          `json:"sum,omitempty"`
	Counts []uint64          `json:"counts,omitempty"` // of each bucket, +Inf's last
}

// MarshalJSON gives the catalogue of the admin pages.
func (s *Snapshot) MarshalJSON() ([]byte, error) {
	out := jsonSnapshot{Time: s.Time.UnixMilli(), Began: s.Began.UnixMilli(), Items: s.Items(), Families: make([]jsonFamily, len(s.Families))}
	for i := range s.Families {
		f := &s.Families[i]
		jf := jsonFamily{
			Name: f.Prom, OTel: f.Name, Group: f.Group(), Type: f.Kind.String(), Unit: f.Unit, Help: f.Help,
			Items: f.Items(), Bounds: f.Bounds, Series: make([]jsonSeries, len(f.Series)),
		}
		for j := range f.Series {
			jf.Series[j] = f.Series[j].json(f.Kind)
		}
		out.Families[i] = jf
	}
	return json.Marshal(out)
}

func (s *Series) json(k Kind) jsonSeries {
	var out jsonSeries
	if len(s.Labels) > 0 {
		out.Labels = make(map[string]string, len(s.Labels))
		for _, l := range s.Labels {
			out.Labels[promLabel(l.Name)] = l.Value
		}
	}
	if k == KindHistogram {
		count := s.Count()
		out.Count, out.Sum, out.Counts = &count, finite(s.Sum), s.Counts
		return out
	}
	out.Value = finite(s.Value)
	return out
}

// finite gives nil for what JSON cannot carry.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// AppendCatalogue appends what items there are, without their values: the same text
// for the same build, so that a file of it shows what a change adds or takes away.
func (s *Snapshot) AppendCatalogue(b []byte) []byte {
	for i := range s.Families {
		f := &s.Families[i]
		b = fmt.Appendf(b, "%s %v %s items=%d\n  %s\n", f.Prom, f.Kind, f.Unit, f.Items(), f.Help)
		for j := range f.Series {
			if text := f.Series[j].text; text != "" {
				b = append(b, "  {"+text+"}\n"...)
			}
		}
	}
	return fmt.Appendf(b, "%d items\n", s.Items())
}
