// SPDX-License-Identifier: Apache-2.0

package framework_test

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework/internal/testpb"
	"github.com/sluice-rpc/sluice/framework/rpctest"
)

// TestTry calls methods over the admin page.
func TestTry(t *testing.T) {
	srv := rpctest.Serve(t, testpb.NewServer().Register)
	at := "http://" + srv.AdminAddr() + "/admin/call"
	echo, act := testpb.EchoEchoMethod.FullName(), testpb.EchoActMethod.FullName()
	if page := get(t, at); !strings.Contains(page, echo) {
		t.Errorf("the page does not name %s:\n%s", echo, page)
	}
	for name, c := range map[string]struct {
		body, media string
		status      int
		says        string
	}{
		"a call":           {`{"method":"` + echo + `","request":{"id":"7","name":"x"},"reason":"test"}`, "application/json", 200, `"name": "x"`},
		"without fields":   {`{"method":"` + echo + `","reason":"test"}`, "application/json", 200, `"took_ms"`},
		"the method's no":  {`{"method":"` + act + `","request":{"act":"error"},"reason":"test"}`, "application/json", 200, `"code": "not_found"`},
		"no such method":   {`{"method":"a.B/C","reason":"test"}`, "application/json", 400, "no method"},
		"no such field":    {`{"method":"` + echo + `","request":{"nam":1},"reason":"test"}`, "application/json", 400, "nam"},
		"no reason":        {`{"method":"` + echo + `"}`, "application/json", 400, "reason"},
		"a class":          {`{"method":"` + act + `","request":{"act":"header"},"class":"background","reason":"test"}`, "application/json", 200, `"name": "background"`},
		"no such class":    {`{"method":"` + echo + `","class":"best","reason":"test"}`, "application/json", 400, "is no class"},
		"a deadline":       {`{"method":"` + act + `","request":{"act":"block"},"timeout_ms":1,"reason":"test"}`, "application/json", 200, `"code": "deadline_exceeded"`},
		"no deadline":      {`{"method":"` + echo + `","timeout_ms":-1,"reason":"test"}`, "application/json", 400, "want 1 to 10000"},
		"a form":           {"request=%7B%7D&reason=test", "application/x-www-form-urlencoded", 400, "no method"},
		"of another site":  {`{"method":"` + echo + `","reason":"test"}`, "application/json; site", 403, "cross-origin"},
		"broken JSON":      {`{"method"`, "application/json", 400, "body"},
		"an unknown field": {`{"methods":"x","reason":"test"}`, "application/json", 400, "methods"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			media, foreign := strings.CutSuffix(c.media, "; site")
			req.Header.Set("Content-Type", media)
			if foreign {
				req.Header.Set("Sec-Fetch-Site", "cross-site")
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != c.status || !strings.Contains(string(body), c.says) {
				t.Errorf("got %d %s; want %d and something about %q", res.StatusCode, body, c.status, c.says)
			}
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestTryForm fills the form of a method in, and follows the link to the trace.
func TestTryForm(t *testing.T) {
	srv := rpctest.Serve(t, testpb.NewServer().Register)
	at := "http://" + srv.AdminAddr() + "/admin/call?format=html&method=" + url.QueryEscape(testpb.EchoEchoMethod.FullName())
	page := get(t, at)
	for _, want := range []string{"<textarea", "&#34;name&#34;: &#34;&#34;", "<code>data</code>", "<code>bytes</code>", "sluice.test.v1.EchoRequest"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in the form:\n%s", want, page)
		}
	}
	res, err := http.PostForm(at, url.Values{"request": {`{"name": "<Mary>"}`}, "reason": {"test"}, "timeout_ms": {"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), "&#34;name&#34;: &#34;&lt;Mary&gt;&#34;") {
		t.Fatalf("%v %d %s", err, res.StatusCode, body)
	}
	trace := regexp.MustCompile(`/admin/rpcz\?trace=[0-9a-f]{32}`).FindString(string(body))
	if trace == "" {
		t.Fatalf("no link to the trace:\n%s", body)
	}
	// The job, the client's side of the call and the server's.
	if kept := get(t, "http://"+srv.AdminAddr()+trace+"&format=text"); strings.Count(kept, testpb.EchoEchoMethod.FullName()) < 2 || !strings.Contains(kept, "/admin/call") {
		t.Errorf("the trace:\n%s", kept)
	}
	http.DefaultClient.CloseIdleConnections()
}
