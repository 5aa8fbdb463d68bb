// SPDX-License-Identifier: Apache-2.0

package gateway_test

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
	"github.com/chromedp/chromedp/kb"
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
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(exe), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("no-first-run", true), chromedp.Flag("lang", "en-US"),
		chromedp.WSURLReadTimeout(60*time.Second),
	)
	limit, cancelLimit := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancelLimit)
	alloc, cancelAlloc := chromedp.NewExecAllocator(limit, opts...)
	t.Cleanup(cancelAlloc)
	// The library logs protocol events that are newer than it; they are no problem of the page.
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	b := &browser{t: t, base: base, ctx: ctx}
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", exe, err)
	}
	return b
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

// person is somebody at the page.
type person struct {
	*browser
	name string
	ctx  context.Context
}

// open shows the page to somebody with a fresh storage, as wide as a phone.
func (b *browser) open(name string) *person {
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
		chromedp.Navigate(b.base), chromedp.WaitVisible(`form`))
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
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
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
	p.do(what, chromedp.Poll(js, nil, chromedp.WithPollingTimeout(20*time.Second)))
}

// soon asks for what is new until a friend's post has come.
func (p *person) soon(want string) {
	p.t.Helper()
	eventually(p.t, want, func() bool {
		p.click(test("refresh"))
		var here bool
		p.do("look for "+want, chromedp.Evaluate(fmt.Sprintf("document.body.innerText.includes(%q)", want), &here))
		return here
	})
}

// picture keeps what the page looks like in build/screenshots.
func (p *person) picture(name string) {
	p.t.Helper()
	dir := filepath.Join("..", "..", "build", "screenshots")
	var png []byte
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
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

// register makes an account through the page.
func (p *person) register(name, shown string) {
	p.t.Helper()
	p.click(test("switch"))
	p.write(`input[name=name]`, name)
	p.write(`input[name=password]`, "correct horse")
	p.write(`input[name=display_name]`, shown)
	p.click(test("submit"))
	p.do("get in", chromedp.WaitVisible(test("compose")))
}

// post writes a post through the page.
func (p *person) post(text string) {
	p.t.Helper()
	p.click(test("compose"))
	p.write(test("text"), text)
	p.click(test("publish"))
	p.sees(text)
}

// post with a text, as a selector's beginning.
func (p *person) on(text, then string) {
	p.t.Helper()
	// The post is marked, so that plain selectors find what is inside of it.
	p.until(fmt.Sprintf(`(() => {
		document.querySelectorAll('[data-chosen]').forEach((e) => delete e.dataset.chosen);
		const e = [...document.querySelectorAll('[data-test=post]')].find((e) => e.querySelector('.text').innerText === %q);
		if (!e) return false;
		e.dataset.chosen = '1';
		return true;
	})()`, text), "find the post "+text)
	p.click(`[data-chosen] ` + then)
}

func TestPageInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	b := startBrowser(t, startSystem(t))
	mary, li := b.open("mary"), b.open("li")
	mary.picture("login")
	mary.register("mary", "Mary")
	mary.picture("empty")
	li.register("lilei", "李雷")

	// Mary asks Li to be friends; Li accepts.
	mary.click(test("tab-friends"))
	mary.write(`input[type=search]`, "nobody-here")
	mary.click(test("search"))
	mary.do("find nobody", chromedp.WaitVisible(test("nobody")))
	mary.do("clear", chromedp.Evaluate(`document.querySelector('input[type=search]').value = ''`, nil))
	mary.write(`input[type=search]`, "lilei")
	mary.click(test("search"))
	mary.click(test("add"))
	mary.do("see that it is sent", chromedp.WaitVisible(test("requested")))
	mary.picture("friends")
	li.do("load anew", chromedp.Reload())
	li.click(test("tab-friends"))
	li.do("see the request", chromedp.WaitVisible(test("accept")))
	li.picture("request")
	li.click(test("accept"))
	li.sees("Mary")

	// Mary posts; Li sees it, likes it, comments; Mary replies.
	mary.click(test("tab-feed"))
	mary.click(test("compose"))
	mary.write(test("text"), "First light over the harbour. 早上好 ☀️")
	mary.picture("compose")
	mary.click(test("publish"))
	mary.sees("First light over the harbour. 早上好 ☀️")
	mary.post("Who is in for a walk on Sunday?\nI know a path along the river.")
	li.click(test("tab-feed"))
	li.soon("Who is in for a walk on Sunday?")
	li.on("First light over the harbour. 早上好 ☀️", test("dots"))
	li.do("see the menu", chromedp.WaitVisible(test("like")))
	li.picture("menu")
	li.click(test("like"))
	li.do("see the like", chromedp.WaitVisible(`.likes`))
	li.on("First light over the harbour. 早上好 ☀️", test("dots"))
	li.click(test("comment-button"))
	li.write(`.reply textarea`, "真好看！在哪里拍的？")
	li.click(test("send"))
	li.sees("真好看！在哪里拍的？")

	mary.do("load anew", chromedp.Reload())
	mary.sees("真好看！在哪里拍的？", "李雷")
	mary.click(`.said[role=button]`)
	mary.write(`.reply textarea`, "At the old pier, just after six.")
	mary.click(test("send"))
	mary.sees("At the old pier, just after six.")
	mary.on("First light over the harbour. 早上好 ☀️", test("dots"))
	mary.click(test("like"))
	mary.until(`document.querySelectorAll('.likes .name').length === 2`, "see two likes")

	// An attempt at markup stays text.
	mary.post(`<img src=x onerror="document.title='broken'"> & <b>bold</b>`)
	mary.until(`document.title === 'Moments' && !document.querySelector('.text img')`, "see that text stays text")
	mary.on(`<img src=x onerror="document.title='broken'"> & <b>bold</b>`, test("delete-post"))
	mary.picture("ask")
	mary.click(test("confirm"))
	mary.until(`!document.body.innerText.includes('onerror')`, "see the post gone")

	b.check()

	// Languages, themes, widths.
	for _, width := range []int64{390, 1440} {
		mary.do("change width", mary.size(width, 900))
		for _, theme := range []string{"light", "dark"} {
			mary.do("theme", chromedp.Evaluate(fmt.Sprintf(`localStorage.setItem('moments.theme', %q)`, theme), nil), chromedp.Reload())
			mary.sees("At the old pier")
			mary.picture(fmt.Sprintf("feed-%d-%s-en", width, theme))
		}
	}
	mary.click(`nav ` + test("lang"))
	mary.sees("朋友圈")
	mary.until(`document.documentElement.lang === 'zh-CN'`, "see the language")
	mary.do("load anew", chromedp.Reload())
	mary.sees("朋友圈", "At the old pier")
	mary.picture("feed-1440-dark-zh")
	mary.click(`nav ` + test("theme"))
	mary.until(`document.documentElement.dataset.theme === 'light'`, "see the light theme")
	mary.picture("feed-1440-light-zh")
	mary.do("change width", mary.size(390, 844))
	mary.picture("feed-390-light-zh")
	// More than a page, by scrolling.
	for i := range 14 {
		mary.call("POST", "/posts", fmt.Sprintf(`{"text":"Day %d of the long walk"}`, i+1))
	}
	li.soon("Day 14 of the long walk")
	li.do("load anew", chromedp.Reload())
	li.sees("Day 14 of the long walk")
	for range 3 {
		li.do("scroll", chromedp.Evaluate(`scrollTo(0, document.body.scrollHeight)`, nil))
	}
	li.sees("Day 1 of the long walk", "No more posts")
	li.picture("end")

	// By keys alone: the menu opens, Escape gives the focus back, Enter likes.
	li.do("go up", chromedp.Evaluate(`scrollTo(0, 0); document.querySelector('.dots').focus()`, nil), chromedp.KeyEvent(kb.Enter))
	li.until(`document.activeElement.dataset.test === 'like'`, "have the focus in the menu")
	li.do("close the menu", chromedp.KeyEvent(kb.Escape))
	li.until(`document.activeElement.dataset.test === 'dots'`, "have the focus back")
	li.do("open the menu", chromedp.KeyEvent(kb.Enter))
	li.until(`document.activeElement.dataset.test === 'like'`, "have the focus in the menu again")
	li.do("like by keys", chromedp.KeyEvent(kb.Enter))
	const liked = `!!document.querySelector('[data-test=post]').querySelector('.likes')`
	li.until(liked, "see the like")

	// Without a line a like is shown at once, and taken back with a notice.
	li.do("cut the line", chromedp.Evaluate(`window.line = window.fetch; window.fetch = () => Promise.reject(new TypeError('cut')); 0`, nil))
	li.click(test("dots"))
	li.click(test("like"))
	li.sees("You are offline", "No connection")
	li.until(liked, "see the like again")
	li.picture("offline")
	li.do("mend the line", chromedp.Evaluate(`window.fetch = window.line; 0`, nil))
	li.click(test("refresh"))
	li.until(`!document.querySelector('.offline')`, "see the notice gone")

	// Mary's album, from her name.
	li.click(`[data-test=post] .name`)
	li.until(`location.hash.startsWith('#/u/') && document.querySelector('.feed[aria-label=Mary] [data-test=post]')`, "see the album")
	li.picture("album")
	b.check()

	mary.click(test("tab-me"))
	mary.picture("me-390-light-zh")
	mary.click(test("log-out"))
	mary.sees("登录")
	mary.picture("login-390-light-zh")
	mary.do("load anew", chromedp.Reload(), chromedp.WaitVisible(test("submit")))
	b.check()
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
