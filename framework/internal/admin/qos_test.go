// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write testdata anew")

// dashboard is the page of a door with one service.
type dashboard struct {
	t    *testing.T
	door *admit.Door
	get  *admit.Pass
	h    http.Handler
	log  strings.Builder
}

func newDashboard(t *testing.T, token string) *dashboard {
	t.Helper()
	d := &dashboard{t: t, door: admit.New(2)}
	s := d.door.NewService("post")
	d.get = s.Method("moments.v1.PostService/GetMany", &rpc.Method{Service: "moments.v1.PostService", Name: "GetMany"})
	s.Method("moments.v1.PostService/Publish", &rpc.Method{Service: "moments.v1.PostService", Name: "Publish"})
	t.Cleanup(s.Join())
	items := metrics.NewRegistry(metrics.Config{})
	items.Admission(d.door.State)
	d.h = handlerOf(t, &admin.Dashboard{Door: d.door, Items: items, Token: func() string { return token }, Log: slog.New(slog.NewTextHandler(&d.log, nil))})
	return d
}

func handlerOf(t testing.TB, d *admin.Dashboard) http.Handler {
	t.Helper()
	h, err := d.Handler(nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask sends a request as from this machine, changed as the caller likes.
func (d *dashboard) ask(method, body string, change ...func(*http.Request)) (*http.Response, string) {
	d.t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:7001/admin/qos", strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4711"
	if method == "POST" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func TestPage(t *testing.T) {
	d := newDashboard(t, "")
	d.ask("POST", `{"action":"pin","class":"browse","user":64,"reason":"drill <b>one</b>"}`)
	d.ask("POST", `{"action":"exempt","service":"post","method":"moments.v1.PostService/GetMany","reason":"needed by support"}`)

	t.Run("text", func(t *testing.T) {
		res, got := d.ask("GET", "", header("Accept", "*/*"))
		if res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("header = %v", res.Header)
		}
		for _, a := range d.door.Audited() { // the time is the one thing that changes
			got = strings.ReplaceAll(got, a.Time.UTC().Format(time.DateTime), "2026-01-02 03:04:05")
		}
		got = strings.ReplaceAll(got, fmt.Sprintf("of %d that", d.door.State().Limit), "of 16 that") // admission's own affair
		const file = "testdata/qos.txt"
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || got != string(want) {
			t.Errorf("got\n%s\nwant\n%s\n%v", got, want, err)
		}
	})
	t.Run("html", func(t *testing.T) {
		res, got := d.ask("GET", "", header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"))
		if res.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("header = %v", res.Header)
		}
		for _, want := range []string{"pinned", "browse/64", "drill &lt;b&gt;one&lt;/b&gt;", "<option>moments.v1.PostService/Publish", "color-scheme: light dark", `value="unpin"`, `value="end-exempt"`} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in the page", want)
			}
		}
		for _, bad := range []string{"<script", "style=", "<b>", "http:", "https:"} {
			if strings.Contains(got, bad) {
				t.Errorf("%q in the page", bad)
			}
		}
	})
	t.Run("json", func(t *testing.T) {
		for _, how := range []func(*http.Request){header("Accept", "application/json"), func(r *http.Request) { r.URL.RawQuery = "format=json" }} {
			_, got := d.ask("GET", "", how)
			var v struct {
				State   string
				Level   struct{ Priority int }
				Limit   int
				Classes []struct{ Class string }
				Audit   []admit.Audit
			}
			if err := json.Unmarshal([]byte(got), &v); err != nil || v.State != "pinned" || v.Level.Priority != int(qos.PriorityOf(qos.Browse, 64)) ||
				v.Limit < 2 || len(v.Classes) != 6 || len(v.Audit) != 2 || v.Audit[0].Reason != "needed by support" {
				t.Errorf("%v: %s", err, got)
			}
		}
	})
	t.Run("a format that is none", func(t *testing.T) {
		if res, _ := d.ask("GET", "", func(r *http.Request) { r.URL.RawQuery = "format=xml" }); res.StatusCode != 400 {
			t.Errorf("status = %d", res.StatusCode)
		}
	})
	t.Run("admission off", func(t *testing.T) {
		h := handlerOf(t, &admin.Dashboard{Items: metrics.NewRegistry(metrics.Config{})})
		for _, accept := range []string{"text/html", "application/json", "*/*"} {
			r := httptest.NewRequest("GET", "http://localhost/admin/qos", nil)
			r.RemoteAddr = "127.0.0.1:1"
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 200 || !strings.Contains(w.Body.String(), "off by the configuration") {
				t.Errorf("%s: %d %s", accept, w.Code, w.Body)
			}
		}
	})
}

func TestBadOverrides(t *testing.T) {
	form := header("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range []struct {
		name, body string
		status     int
		says       string
		change     func(*http.Request)
	}{
		{"no reason", `{"action":"pin","class":"browse"}`, 400, "reason is empty", nil},
		{"a blank reason", `{"action":"pin","class":"browse","reason":" \t"}`, 400, "reason is empty", nil},
		{"no reason in a form", "action=unpin", 400, "reason is empty", form},
		{"a long reason", `{"action":"unpin","reason":"` + strings.Repeat("x", 501) + `"}`, 400, "at most 500 bytes", nil},
		{"a reason of two lines", `{"action":"unpin","reason":"a\nb"}`, 400, "one line", nil},
		{"no action", `{"reason":"r"}`, 400, "want pin, unpin", nil},
		{"an unknown action", `{"action":"explode","reason":"r"}`, 400, "want pin, unpin", nil},
		{"no class", `{"action":"pin","reason":"r"}`, 400, "want critical, browse", nil},
		{"an unknown class", `{"action":"pin","class":"best","reason":"r"}`, 400, "want critical, browse", nil},
		{"a user level too high", `{"action":"pin","class":"post","user":128,"reason":"r"}`, 400, "user", nil},
		{"a negative user level", `{"action":"pin","class":"post","user":-1,"reason":"r"}`, 400, "user", nil},
		{"a user level in words", "action=pin&class=post&user=all&reason=r", 400, "user", form},
		{"an unknown service", `{"action":"off","service":"mail","reason":"r"}`, 400, "want one of post", nil},
		{"an unknown method", `{"action":"exempt","service":"post","method":"Get","reason":"r"}`, 400, "PostService/GetMany, ", nil},
		{"an unknown member", `{"action":"unpin","why":"r"}`, 400, "why", nil},
		{"two objects", `{"action":"unpin","reason":"r"}{}`, 400, "nothing after it", nil},
		{"no JSON", `action=unpin`, 400, "body", nil},
		{"an endless body", `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, 400, "body", nil},
		{"JSON as a form", `{"action":"unpin","reason":"r"}`, 415, "say Content-Type", header("Content-Type", "application/x-www-form-urlencoded")},
		{"another content type", `{"action":"unpin","reason":"r"}`, 415, "form", header("Content-Type", "text/plain")},
		{"another site, as browsers say", `{"action":"unpin","reason":"r"}`, 403, "cross-origin", header("Sec-Fetch-Site", "cross-site")},
		{"another site, as old browsers say", `{"action":"unpin","reason":"r"}`, 403, "cross-origin", header("Origin", "http://evil.example")},
		{"a form on another site", "action=unpin&reason=r", 403, "cross-origin", func(r *http.Request) { form(r); r.Header.Set("Sec-Fetch-Site", "same-site") }},
		{"another machine", `{"action":"unpin","reason":"r"}`, 403, "this machine alone", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:5" }},
		{"no address", `{"action":"unpin","reason":"r"}`, 403, "this machine alone", func(r *http.Request) { r.RemoteAddr = "@" }},
		{"a name that was made to mean this machine", `{"action":"unpin","reason":"r"}`, 403, "evil.example", func(r *http.Request) { r.Host = "evil.example:7001" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDashboard(t, "")
			d.door.Pin(qos.PriorityOf(qos.Post, 3))
			change := c.change
			if change == nil {
				change = func(*http.Request) {}
			}
			res, body := d.ask("POST", c.body, change)
			if res.StatusCode != c.status || !strings.Contains(body, c.says) {
				t.Errorf("%d %s; want %d and something about %q", res.StatusCode, body, c.status, c.says)
			}
			if p, pinned := d.door.Pinned(); !pinned || p != qos.PriorityOf(qos.Post, 3) || len(d.door.Audited()) != 0 || d.log.Len() != 0 {
				t.Error("something has changed, or has been written down")
			}
		})
	}
	t.Run("admission off", func(t *testing.T) {
		h := handlerOf(t, &admin.Dashboard{Items: metrics.NewRegistry(metrics.Config{})})
		r := httptest.NewRequest("POST", "http://localhost/admin/qos", strings.NewReader(`{"action":"unpin","reason":"r"}`))
		r.RemoteAddr = "[::1]:1"
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), "admission: on") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestToken(t *testing.T) {
	const order = `{"action":"pin","class":"post","reason":"r"}`
	far := func(r *http.Request) { r.RemoteAddr, r.Host = "192.0.2.1:5", "post.example:7001" }
	for _, c := range []struct {
		name   string
		status int
		change func(*http.Request)
	}{
		{"none", 401, func(*http.Request) {}},
		{"none, from afar", 401, far},
		{"wrong", 401, header("Authorization", "Bearer s3cre")},
		{"of another scheme", 401, header("Authorization", "Basic s3cret")},
		{"empty", 401, header("Authorization", "Bearer ")},
		{"right", 200, header("Authorization", "Bearer s3cret")},
		{"right, from afar", 200, func(r *http.Request) { far(r); r.Header.Set("Authorization", "bearer s3cret") }},
		{"right, from another site", 403, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer s3cret")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDashboard(t, "s3cret")
			res, body := d.ask("POST", order, c.change)
			if _, pinned := d.door.Pinned(); res.StatusCode != c.status || pinned != (c.status == 200) {
				t.Errorf("%d %s, pinned: %t", res.StatusCode, body, pinned)
			}
			if strings.Contains(body+d.log.String(), "s3cret") {
				t.Error("the token is told")
			}
		})
	}
	t.Run("in a form", func(t *testing.T) {
		d := newDashboard(t, "s3cret")
		values := url.Values{"action": {"pin"}, "class": {"browse"}, "user": {"7"}, "reason": {"too much"}, "token": {"s3cret"}}
		res, body := d.ask("POST", values.Encode(), header("Content-Type", "application/x-www-form-urlencoded"), header("Sec-Fetch-Site", "same-origin"))
		if p, _ := d.door.Pinned(); res.StatusCode != 303 || res.Header.Get("Location") != "/admin/qos" || p != qos.PriorityOf(qos.Browse, 7) {
			t.Errorf("%d %s, pinned at %v", res.StatusCode, body, p)
		}
		if _, page := d.ask("GET", "", header("Accept", "text/html")); !strings.Contains(page, `type="password"`) || strings.Contains(page, "s3cret") {
			t.Error("the page asks for no token, or tells it")
		}
	})
}

func TestEveryOverrideIsWrittenDown(t *testing.T) {
	d := newDashboard(t, "")
	const many = admit.MaxAudit + 50
	for i := range many {
		action := []string{"off", "on"}[i%2]
		res, body := d.ask("POST", fmt.Sprintf(`{"action":%q,"service":"post","reason":"reason %d"}`, action, i))
		if res.StatusCode != 200 {
			t.Fatal(body)
		}
		if d.get.Open() != (action == "off") {
			t.Fatalf("%s has not turned it %s", action, action)
		}
	}
	all := d.door.Audited()
	if len(all) != admit.MaxAudit {
		t.Fatalf("%d are remembered, want %d", len(all), admit.MaxAudit)
	}
	if first, last := all[0], all[len(all)-1]; first.Reason != fmt.Sprint("reason ", many-1) || last.Reason != fmt.Sprint("reason ", many-admit.MaxAudit) ||
		first.What != "turn admission on for post" || first.From != "127.0.0.1:4711" || first.Time.Before(last.Time) {
		t.Errorf("first %+v, last %+v", first, last)
	}
	if n := strings.Count(d.log.String(), "overridden by an operator"); n != many {
		t.Errorf("%d lines in the log, want %d", n, many)
	}
}
