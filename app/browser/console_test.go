// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/framework/edge"
	"github.com/sluice-rpc/sluice/tracing"
	"github.com/sluice-rpc/sluice/tracing/callgraph"
	"github.com/sluice-rpc/sluice/tracing/console"
)

// runConsole serves a console of some admin ports until the test ends.
func runConsole(t *testing.T, every time.Duration, targets ...console.Target) string {
	t.Helper()
	c, err := console.New(console.Config{Targets: console.Static(targets...), Every: every, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return c.Serve(ctx, lis) })
	return "http://" + lis.Addr().String()
}

// background runs something until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("end: %v", err)
		}
	})
}

// adminPort serves the admin pages of the test's own process, which runs all of Moments.
func adminPort(t *testing.T) console.Target {
	t.Helper()
	var lc net.ListenConfig
	lis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entry := edge.New(edge.Config{Log: slog.New(slog.DiscardHandler)})
	background(t, func(ctx context.Context) error { return entry.ServeAdmin(ctx, lis, nil) })
	return console.Target{Name: "moments", Addr: lis.Addr().String()}
}

// screen is a size and a scheme of colours.
func (p *person) screen(w, h int64, scheme string) {
	p.t.Helper()
	p.do("change the screen", p.size(w, h), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}))
}

// goTo shows a page of the console by its address and waits for what it is about.
func (p *person) goTo(page, selector string) {
	p.t.Helper()
	p.do("go to "+page, chromedp.Evaluate(fmt.Sprintf("location.hash = %q", page), nil), chromedp.WaitVisible(selector))
}

// fits fails when the page is wider than the screen.
func (p *person) fits(what string) {
	p.t.Helper()
	var over int
	p.do("measure", chromedp.Evaluate("document.documentElement.scrollWidth - innerWidth", &over))
	if over > 0 {
		p.t.Errorf("%s: %s is %d px wider than the screen", p.name, what, over)
	}
}

// TestConsole clicks through the console while people use Moments.
func TestConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	b := startBrowser(t, clustertest.Start(t))
	view := runConsole(t, time.Second, adminPort(t))
	mary := b.open("mary")
	mary.register("mary", "Mary")
	for i := range 5 {
		mary.post(fmt.Sprintf("Post number %d", i))
		mary.do("look again", chromedp.Reload(), chromedp.WaitVisible(test("compose")))
	}
	b.check()

	c := b.openAt("console", view, test("nav-entries"))
	c.screen(1440, 950, "light")
	c.sees("POST /posts", "GET /timeline")
	c.write(test("search"), "post /posts")
	c.until(`document.querySelectorAll('[data-test=entries] tbody tr').length === 1`, "find an entry")
	c.picture("entries")
	c.click(`[data-test=entries] tbody a`)

	// The graph: details, tables, keys, search, filters.
	c.do("see the graph", chromedp.WaitVisible(`[data-node="method:moments.v1.PostService/Publish"]`))
	c.until(`document.querySelectorAll('[data-test=edges] tbody tr').length >= 2`, "the table says the same")
	c.do("choose a method", chromedp.Click(`[data-node="method:moments.v1.PostService/Publish"]`), chromedp.WaitVisible(test("details")))
	c.sees("moments.v1.PostService", "Per request")
	c.picture("graph")
	c.do("close it by the keyboard", chromedp.KeyEvent(kb.Escape), chromedp.WaitNotPresent(test("details")))
	c.do("move by the keyboard", chromedp.Focus(`[data-node="method:moments.v1.PostService/Publish"]`), chromedp.KeyEvent(kb.ArrowLeft))
	c.until(`document.activeElement.dataset.node.startsWith('entry:')`, "arrive at the entry")
	c.do("open by the keyboard", chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(test("details")))
	c.do("search by the keyboard", chromedp.KeyEvent("/"))
	c.until(`document.activeElement.matches('[data-test=search]')`, "be in the search")
	c.do("write", chromedp.KeyEvent("publish"))
	c.until(`document.querySelectorAll('.node.hit').length === 1`, "find a node")
	c.do("hide", chromedp.SetValue(test("hops"), "1"), chromedp.Evaluate(`document.querySelector('[data-test=hops]').dispatchEvent(new Event('change', {bubbles: true}))`, nil))
	c.until(`location.hash.includes('hops=1')`, "the address says so")

	// Two periods on one picture.
	c.goTo("#/compare?entry=POST+%2Fposts&last=5m&ago=5m", test("ago"))
	c.goTo("#/compare?entry=POST+%2Fposts&last=5m&ago=1s", test("picture"))
	for _, show := range []string{"Now", "Before", "Change"} {
		c.do("show "+show, chromedp.Click(fmt.Sprintf(`//*[@data-test='show']//button[text()='%s']`, show), chromedp.BySearch))
	}
	c.picture("compare")

	// Traces: a list, filters, one of them.
	c.goTo("#/traces", `[data-test=traces] tbody a`)
	c.picture("traces")
	c.do("only slow ones", chromedp.SendKeys(test("min"), "999999"), chromedp.WaitVisible(test("empty")))
	c.goTo("#/traces?entry=POST+%2Fposts", `[data-test=traces] tbody a`)
	c.do("open one", chromedp.Click(`[data-test=traces] tbody a`), chromedp.WaitVisible(test("waterfall")), chromedp.Click(`.span-name`), chromedp.WaitVisible(`tr.more dl`))
	c.picture("trace")
	var one string // its address
	c.do("remember it", chromedp.Evaluate(`location.hash.slice(2)`, &one))

	// Services, methods, processes, items, a chart.
	c.goTo("#/services", `[data-test=services] tbody a`)
	c.do("see the process", chromedp.WaitVisible(`[data-test=processes] tbody a`))
	c.picture("services")
	c.goTo("#/services?name=moments.v1.PostService", `[data-test=methods] tbody a`)
	c.do("see the chart", chromedp.WaitVisible(`.chart canvas`))
	c.goTo("#/services?process=moments", `[data-test=items] tbody button`)
	c.do("choose an item", chromedp.Click(`[data-test=items] tbody button`), chromedp.WaitVisible(test("item-chart")))
	c.do("as a table", chromedp.Click(`//*[@data-test='chart-table']//button[2]`, chromedp.BySearch), chromedp.WaitVisible(`[data-test=item-chart] table`))
	c.picture("items")

	c.goTo("#/qos", test("strips"))
	c.until(`document.querySelectorAll('[data-test=qos] tbody tr').length >= 1`, "the table says the same")
	c.picture("qos")

	// Each page in both languages, light and dark, on a desk and on a phone.
	for _, language := range []struct{ name, says string }{{"zh", "过载保护"}, {"en", "QoS"}} {
		c.click(test("language"))
		c.sees(language.says)
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1440, 390} {
				c.screen(width, 900, scheme)
				for _, page := range []string{"entries", "graph?entry=POST+%2Fposts", "compare?entry=POST+%2Fposts&last=5m&ago=1s", "traces", one, "services", "services?name=moments.v1.PostService", "services?process=moments", "qos"} {
					c.goTo("#/"+page, "main h1")
					c.until(`!document.querySelector('.loading')`, "be loaded")
					c.fits(page)
					c.sees(language.says) // the current page or not, its name is in sight
					name := strings.NewReplacer(one, "trace", "?entry=POST+%2Fposts&last=5m&ago=1s", "", "?entry=POST+%2Fposts", "", "?name=moments.v1.PostService", "-one", "?process=moments", "-items").Replace(page)
					c.picture(fmt.Sprintf("%s-%s-%s-%d", name, language.name, scheme, width))
				}
			}
		}
	}
	c.click(test("theme"))
	c.click(test("live"))
	b.check()
}

// TestConsoleOfALargeSystem: a thousand edges and names that want to do harm.
func TestConsoleOfALargeSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	const hostile = `<img src=x onerror="window.harmed=1">"'&</text><script>window.harmed=1</script>`
	recorder := callgraph.NewRecorder(callgraph.Config{Process: callgraph.Process{Service: hostile, Epoch: uint64(time.Now().UnixNano())}})
	entry := recorder.Entry(hostile)
	method := func(i int) string { return fmt.Sprintf("big.v1.Service%d/Method%d", i%20, i) }
	tick := func() {
		entry.Record(callgraph.OK, time.Millisecond, 1, 1)
		e := tracing.EntryOf(hostile)
		recorder.Edges(callgraph.Server, method(0)).Slot(e, callgraph.AtEntry).Record(callgraph.OK, time.Millisecond, 1, 1)
		recorder.Edges(callgraph.Server, hostile+"/"+hostile).Slot(e, recorder.Method(method(1))).Record(callgraph.Panic, time.Millisecond, 1, 1)
		for i := range 1200 {
			recorder.Edges(callgraph.Server, method(1+i%300)).Slot(e, recorder.Method(method((i*7)%(1+i%300)))).Record(callgraph.OK, time.Duration(1+i)*time.Microsecond, 1, 1)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/admin/graph" {
			http.NotFound(w, r)
			return
		}
		tick()
		body, err := recorder.Snapshot(time.Now(), callgraph.NodeMark{Node: "big.v1.Service3", Mark: callgraph.Mark{Severity: 3, Text: hostile}}).MarshalJSON()
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(srv.Close)
	b := startBrowser(t, "about:blank")
	view := runConsole(t, 3*time.Second, console.Target{Name: hostile, Addr: strings.TrimPrefix(srv.URL, "http://")})
	c := b.openAt("large", view, `[data-test=entries] tbody a`)
	c.screen(1440, 950, "dark")
	const drawn = `document.querySelectorAll('[data-node]').length > 250 && document.querySelectorAll('.edge').length >= 1000`
	c.do("say when it is drawn", chromedp.Evaluate(`window.asked = performance.now(); new MutationObserver((_, o) => {
		if (!(`+drawn+`)) return;
		o.disconnect();
		requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn = performance.now() - window.asked; }));
	}).observe(document.body, {childList: true, subtree: true})`, nil))
	c.click(`[data-test=entries] tbody a`)
	c.until(drawn+` && window.drawn > 0`, "see all of the graph")
	var took float64
	var edges int
	c.do("read how long it took", chromedp.Evaluate(`window.drawn`, &took), chromedp.Evaluate(`document.querySelectorAll('.edge').length`, &edges))
	t.Logf("%d edges were on the screen %.0f ms after the click, fetching and layout included", edges, took)
	c.do("choose a method", chromedp.Evaluate(`document.querySelectorAll('[data-node]')[5].dispatchEvent(new MouseEvent('click', {bubbles: true}))`, nil), chromedp.WaitVisible(test("details")))
	c.picture("graph")
	for _, page := range []string{"services", "qos", "traces", "compare?last=5m&ago=3s"} {
		c.goTo("#/"+page, "main h1")
		c.until(`!document.querySelector('.loading')`, "be loaded")
	}
	c.screen(390, 844, "light")
	c.goTo("#/graph", test("picture"))
	c.fits("graph")
	var harmed bool
	c.do("look for harm", chromedp.Evaluate("window.harmed === 1 || document.querySelectorAll('main img, main script').length > 0", &harmed))
	if harmed {
		t.Error("a name has become part of the page")
	}
	b.check()
}
