// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// browser is one Chromium; every person of a test has a context of his own in it,
// with his own storage.
type browser struct {
	t    *testing.T
	base string // address of the page
	ctx  context.Context

	mu       sync.Mutex // guards problems
	problems []string   // console errors and failed requests: any fails the test
}

func startBrowser(t *testing.T, base string) *browser {
	t.Helper()
	exe := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			exe = p
			break
		}
	}
	if exe == "" {
		t.Skip("no Chromium found, so the page is not tried in a browser; install it with: apt-get install --yes chromium")
	}
	home := profile(t)
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(exe), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(home),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("no-first-run", true), chromedp.Flag("lang", "en-US"),
		chromedp.WSURLReadTimeout(60*time.Second),
	)
	limit, cancelLimit := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancelLimit)
	alloc, cancelAlloc := chromedp.NewExecAllocator(limit, opts...)
	t.Cleanup(cancelAlloc)
	// The library logs protocol events that are newer than it; they are no problem of the page.
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // asks it to end, and waits until it has
	b := &browser{t: t, base: base, ctx: ctx}
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", exe, err)
	}
	return b
}

// profile is a directory for a browser, removed after it. T.TempDir removes its own once, and
// processes of Chromium write to theirs for some moments after the one that was started has ended.
func profile(t *testing.T) string {
	dir, err := os.MkdirTemp("", "browser-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Logf("the browser's directory stays: %v", err)
				return
			}
		}
	})
	return dir
}

func (b *browser) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// check fails the test if the page had any problem.
func (b *browser) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Error(p)
	}
	b.problems = nil
}

// forgive forgets the problems so far: the test has made them.
func (b *browser) forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = nil
}

// person is somebody at the page.
type person struct {
	*browser
	name string
	ctx  context.Context
}

// open shows the page to somebody with a fresh storage, as wide as a phone.
func (b *browser) open(name string) *person { return b.openAt(name, b.base, "form") }

// openAt shows a page at another address and waits for something on it.
func (b *browser) openAt(name, address, selector string) *person {
	b.t.Helper()
	var tab target.ID
	if err := chromedp.Run(b.ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		ctx = cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser)
		storage, err := target.CreateBrowserContext().Do(ctx)
		if err != nil {
			return err
		}
		// A context without a window of its own has nowhere to put a tab.
		tab, err = target.CreateTarget("about:blank").WithBrowserContextID(storage).WithNewWindow(true).Do(ctx)
		return err
	})); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(tab))
	b.t.Cleanup(cancel)
	p := &person{browser: b, name: name, ctx: ctx}
	chromedp.ListenTarget(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.problem("%s: uncaught: %s", name, ev.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.APITypeError || ev.Type == runtime.APITypeWarning {
				b.problem("%s: console.%s: %s", name, ev.Type, ev.Args[0].Value)
			}
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.LevelError || ev.Entry.Level == log.LevelWarning {
				b.problem("%s: %s: %s %s", name, ev.Entry.Source, ev.Entry.Text, ev.Entry.URL)
			}
		case *network.EventResponseReceived:
			if ev.Response.Status >= 400 {
				b.problem("%s: %d %s", name, ev.Response.Status, ev.Response.URL)
			}
		case *network.EventLoadingFailed:
			if !ev.Canceled {
				b.problem("%s: request failed: %s", name, ev.ErrorText)
			}
		}
	})
	p.do("open the page", network.Enable(), log.Enable(), runtime.Enable(), p.size(390, 844),
		// Pictures and clicks do not have to wait for things that slide in.
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}),
		chromedp.Navigate(address), chromedp.WaitVisible(selector))
	return p
}

// size is a screen: below 900 px wide it is a phone.
func (p *person) size(w, h int64) chromedp.Action {
	return emulation.SetDeviceMetricsOverride(w, h, 1, w < 900)
}

// do runs steps, in at most half a minute.
func (p *person) do(what string, actions ...chromedp.Action) {
	p.t.Helper()
	// The limit is inside of Run: the first Run's context is the tab's for good.
	err := chromedp.Run(p.ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		return chromedp.Tasks(actions).Do(ctx)
	}))
	if err != nil {
		p.picture("failed")
		p.mu.Lock()
		defer p.mu.Unlock()
		p.t.Fatalf("%s: %s: %v\n%s", p.name, what, err, strings.Join(p.problems, "\n"))
	}
}

// test names an element of the page by its data-test.
func test(name string) string { return `[data-test="` + name + `"]` }

// click waits for an element and clicks it.
func (p *person) click(selector string) {
	p.t.Helper()
	p.do("click "+selector, chromedp.WaitVisible(selector), chromedp.Click(selector, chromedp.NodeVisible))
}

// write puts text into a field as the keyboard would.
func (p *person) write(selector, text string) {
	p.t.Helper()
	p.do("write into "+selector, chromedp.WaitVisible(selector), chromedp.SendKeys(selector, text))
}

// sees waits until the page's visible text has all of want.
func (p *person) sees(want ...string) {
	p.t.Helper()
	for _, w := range want {
		p.until(fmt.Sprintf("document.body.innerText.includes(%q)", w), "see "+w)
	}
}

// until waits for a condition in the page.
func (p *person) until(js, what string) {
	p.t.Helper()
	p.do(what, chromedp.Poll(js, nil, chromedp.WithPollingTimeout(60*time.Second)))
}

// picture keeps what the page looks like in build/screenshots.
func (p *person) picture(name string) {
	p.t.Helper()
	dir := filepath.Join("..", "..", "build", "screenshots")
	var png []byte
	ctx, cancel := context.WithTimeout(p.ctx, 60*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.CaptureScreenshot(&png)); err != nil {
		p.t.Logf("screenshot %s: %v", name, err)
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, p.name+"-"+name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// call makes an API call from within the page, with its session.
func (p *person) call(method, path, body string) {
	p.t.Helper()
	var status int
	p.do(method+" "+path, chromedp.Evaluate(fmt.Sprintf(
		`fetch(%q, {method: %q, body: %q, headers: {'Content-Type': 'application/json', Authorization: 'Bearer ' + JSON.parse(localStorage.getItem('moments.session')).token}}).then((r) => r.status)`,
		path, method, body), &status, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if status >= 300 {
		p.t.Fatalf("%s %s = %d", method, path, status)
	}
}
