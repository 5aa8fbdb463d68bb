// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/qos/admission"
	"github.com/sluice-rpc/sluice/tracing"
)

// calls registers all that is measured of calls, of one method each.
func calls(r *metrics.Registry) {
	r.Admission(func() admission.State { return admission.State{} })
	r.ServerMethod(greet)
	r.ServerTransport()
	r.ClientMethod("hello", greet)
	r.ClientTransport("hello")
	r.Route("GET", "/greetings/{name}")
}

// everything is a registry with all of the framework's own items.
func everything(t testing.TB) *metrics.Registry {
	t.Helper()
	r := metrics.NewRegistry(metrics.Config{})
	r.Process()
	r.Tracing(func() tracing.Stats { return tracing.Stats{} })
	r.CallGraph(func() (used, room int) { return 0, 0 }, func() int { return 0 })
	calls(r)
	r.ServerStream(greet).Received()
	r.ClientStream("hello", greet).Sent()
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

// Prometheus' own linter, the one behind promtool check metrics, has no objection.
func TestLint(t *testing.T) {
	problems, err := promlint.New(bytes.NewReader(everything(t).Snapshot().AppendText(nil, metrics.PromText))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Prometheus' own parser reads what was recorded.
func TestParse(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	shop(r)
	snap := r.Snapshot()
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(bytes.NewReader(snap.AppendText(nil, metrics.PromText)))
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(snap.Families) {
		t.Fatalf("parsed %d families of %d", len(families), len(snap.Families))
	}
	for _, want := range snap.Families {
		got := families[want.Prom]
		if got.GetHelp() != want.Help || len(got.Metric) != len(want.Series) || !strings.EqualFold(got.GetType().String(), want.Kind.String()) {
			t.Errorf("%s: parsed %v", want.Prom, got)
			continue
		}
		for i, m := range got.Metric {
			s := &want.Series[i]
			for j, l := range m.Label {
				if l.GetValue() != s.Labels[j].Value {
					t.Errorf("%s: label %q, want %q", want.Prom, l.GetValue(), s.Labels[j].Value)
				}
			}
			if h := m.Histogram; h != nil && (h.GetSampleCount() != s.Count() || h.GetSampleSum() != s.Sum || len(h.Bucket) != len(s.Counts)) {
				t.Errorf("%s: parsed %v, want %+v", want.Prom, h, s)
			}
		}
	}
}

// openMetricsLine is the grammar of OpenMetrics 1.0 as far as we use it.
var openMetricsLine = regexp.MustCompile(`^(# (HELP|TYPE|UNIT) [a-z][a-z0-9_]* .+|# EOF|[a-z][a-z0-9_]*(\{[a-z_][a-z0-9_]*="([^"\\\n]|\\["\\n])*"(,[a-z_][a-z0-9_]*="([^"\\\n]|\\["\\n])*")*\})? (NaN|[+-]?Inf|-?[0-9.]+(e[+-][0-9]+)?))$`)

func TestOpenMetricsGrammar(t *testing.T) {
	r := everything(t)
	shop(r)
	text := string(r.Snapshot().AppendText(nil, metrics.OpenMetrics))
	for line := range strings.Lines(text) {
		if !openMetricsLine.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("no line of OpenMetrics: %q", line)
		}
	}
	if !strings.HasSuffix(text, "\n# EOF\n") || strings.Count(text, "# EOF") != 1 {
		t.Error("the text must end in # EOF, once")
	}
}

func FuzzLabels(f *testing.F) {
	f.Add("web", "a.b", "Help.")
	f.Add(`\"`+"\n", "channel", `a \ " b`)
	f.Add("\xff\x00\r\u2028", "le", "\n")
	f.Add(strings.Repeat("é", 400), "a__b", strings.Repeat("x", 400))
	f.Fuzz(func(t *testing.T, value, name, help string) {
		r := metrics.NewRegistry(metrics.Config{})
		r.Counter(metrics.Desc{Name: "shop.x", Help: help, Unit: "{x}"}, metrics.Label{Name: name, Value: value})
		r.Histogram(desc("shop.y", metrics.Bytes), []float64{1}, metrics.Label{Name: "fixed", Value: value}).Record(1)
		snap := r.Snapshot()
		text := snap.AppendText(nil, metrics.PromText)
		var parser expfmt.TextParser
		families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if len(families) != len(snap.Families) {
			t.Fatalf("parsed %d families of %d in %q", len(families), len(snap.Families), text)
		}
		got := families["shop_y_bytes"].Metric[0].Label[0].GetValue()
		if utf8.ValidString(value) && len(value) <= 200 && !strings.ContainsFunc(value, func(r rune) bool { return r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) }) && got != value {
			t.Fatalf("value %q became %q", value, got)
		}
		for line := range strings.Lines(string(snap.AppendText(nil, metrics.OpenMetrics))) {
			if !openMetricsLine.MatchString(strings.TrimSuffix(line, "\n")) {
				t.Fatalf("no line of OpenMetrics: %q", line)
			}
		}
		if b, err := json.Marshal(snap); err != nil || !utf8.Valid(b) {
			t.Fatalf("%v: %q", err, b)
		}
	})
}

func get(t *testing.T, h http.Handler, method, target, accept string) (*http.Response, string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	req.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	res := rec.Result()
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestHandler(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	shop(r)
	const text, open = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"
	for name, c := range map[string]struct{ method, accept, mediaType string }{
		"nothing":          {"GET", "", text},
		"anything":         {"GET", "*/*", text},
		"Prometheus 2.42":  {"GET", "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", open},
		"Prometheus 3":     {"GET", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1", open},
		"without version":  {"GET", "application/openmetrics-text", open},
		"another version":  {"GET", "application/openmetrics-text;version=2.0.0", text},
		"prefers the text": {"GET", "application/openmetrics-text;q=0.1,text/plain", text},
		"refuses it":       {"GET", "application/openmetrics-text;q=0", text},
		"broken":           {"GET", ";;;q=x,application/openmetrics-text;q=x", text},
		"head":             {"HEAD", "", text},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := get(t, r.Handler(), c.method, "/metrics", c.accept)
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != c.mediaType {
				t.Errorf("got %d, %s", res.StatusCode, res.Header.Get("Content-Type"))
			}
			if (c.method == "HEAD") != (body == "") || strings.HasSuffix(body, "# EOF\n") != (c.mediaType == open) {
				t.Errorf("got %q", body)
			}
		})
	}
	for _, h := range []http.Handler{r.Handler(), r.CatalogueHandler()} {
		if res, _ := get(t, h, "POST", "/", ""); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST: got %d", res.StatusCode)
		}
	}
}

func TestCatalogue(t *testing.T) {
	r := metrics.NewRegistry(metrics.Config{})
	shop(r)
	res, body := get(t, r.CatalogueHandler(), "GET", "/admin/items", "")
	if res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %s", res.Header.Get("Content-Type"))
	}
	var got struct {
		Items    int
		BeganMs  int64 `json:"began_ms"`
		Families []struct {
			Name, Type, Unit, Help, Group string
			Items                         int
			Bounds                        []float64
			Series                        []struct {
				Labels map[string]string
				Value  *float64
				Count  *uint64
				Sum    *float64
				Counts []uint64
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	items := 0
	for _, f := range got.Families {
		items += f.Items
		switch f.Name {
		case "shop_broken_percent":
			if f.Series[0].Value != nil {
				t.Error("what is not a number must have no value")
			}
		case "shop_wait_seconds":
			if s := f.Series[0]; f.Group != "shop" || len(f.Bounds) != 3 || len(s.Counts) != 4 || *s.Count != 7 || s.Labels["shop_till"] != "1" {
				t.Errorf("got %+v", f)
			}
		case "sluice_metrics_items":
			if f.Group != "sluice.metrics" || *f.Series[0].Value != float64(got.Items) {
				t.Errorf("got %+v", f)
			}
		}
	}
	if items != got.Items || items != r.Items() || got.BeganMs == 0 {
		t.Errorf("%d items listed, %d said, %d registered", items, got.Items, r.Items())
	}
	if _, text := get(t, r.CatalogueHandler(), "GET", "/admin/items?format=text", ""); !strings.HasSuffix(text, " items\n") {
		t.Errorf("got %q", text)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	r := everything(b)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Snapshot().AppendText(buf[:0], metrics.PromText)
	}
}
