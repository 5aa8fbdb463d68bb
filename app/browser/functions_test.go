// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
)

// axe is axe-core 4.10.3 as published (MPL-2.0, see LICENSE beside it).
//
//go:embed testdata/axe-core-4.10.3/axe.min.js
var axe string

// accessible fails the test if axe-core finds something serious in what is shown.
func (p *person) accessible(what string) {
	p.t.Helper()
	var found string
	p.do("look for what shuts people out of "+what, chromedp.Evaluate(axe+";0", nil), chromedp.Evaluate(`axe.run({resultTypes: ['violations']}).then((r) =>
		JSON.stringify(r.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => v.id + ': ' + v.nodes[0].html + ' ' + v.nodes[0].failureSummary)))`,
		&found, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }))
	var all []string
	if err := json.Unmarshal([]byte(found), &all); err != nil {
		p.t.Fatal(err)
	}
	for _, v := range all {
		p.t.Errorf("%s: %s: %s", p.name, what, v)
	}
}

// photo writes a JPEG that nobody has uploaded before.
func photo(t *testing.T, dir string, n, w, h int) string {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.Set(x, y, color.RGBA{R: uint8(40*n + x*120/w), G: uint8(90 + y*120/h), B: uint8(200 - 20*n), A: 255})
		}
	}
	name := filepath.Join(dir, fmt.Sprintf("photo-%d.jpg", n))
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(f, img, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// choose gives files to a field that opens the system's dialog.
func (p *person) choose(selector string, files ...string) {
	p.t.Helper()
	p.do("choose files", chromedp.WaitReady(selector), chromedp.SetUploadFiles(selector, files))
}

// visit goes to a part of the page and waits for something there.
func (p *person) visit(hash, selector string) {
	p.t.Helper()
	p.do("visit "+hash, chromedp.Evaluate(fmt.Sprintf(`location.hash = %q; 0`, hash), nil), chromedp.WaitVisible(selector))
}

// id gives the own user's id.
func (p *person) id() (id string) {
	p.t.Helper()
	p.do("read the own id", chromedp.Evaluate(`JSON.parse(localStorage.getItem('moments.session')).user.id`, &id))
	return id
}

func (p *person) count(selector string, n int) {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.querySelectorAll(%q).length === %d`, selector, n), fmt.Sprintf("count %d of %s", n, selector))
}

// TestFunctions tries every function of the page, on a phone and on a desktop, and wants
// no error in the console and no serious finding of axe-core.
func TestFunctions(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	for _, screen := range []struct {
		name string
		w, h int64
		lang string
		dark bool
	}{
		{"phone", 390, 844, "zh-CN", false},
		{"desktop", 1280, 860, "en", true},
	} {
		t.Run(screen.name, func(t *testing.T) {
			b := startBrowser(t, clustertest.Start(t))
			mary, li := b.open("mary-"+screen.name), b.open("li-"+screen.name)
			theme := "light"
			if screen.dark {
				theme = "dark"
			}
			for _, p := range []*person{mary, li} {
				p.do("choose", p.size(screen.w, screen.h), chromedp.Evaluate(fmt.Sprintf(
					`localStorage.setItem('moments.lang', %q); localStorage.setItem('moments.theme', %q)`, screen.lang, theme), nil), chromedp.Reload(), chromedp.WaitVisible(`form`))
			}
			mary.accessible("the log-in")
			mary.register("mary", "Mary")
			li.register("lilei", "李雷")
			functions(t, mary, li)
			b.check()
		})
	}
}

func functions(t *testing.T, mary, li *person) {
	dir := t.TempDir()

	// Friends: the request comes by itself.
	mary.call("POST", "/friend-requests", fmt.Sprintf(`{"user":%q}`, li.id()))
	li.visit("#/friends", test("accept"))
	li.accessible("the friends")
	li.click(test("accept"))
	li.until(`!document.querySelector('[data-test=accept]')`, "see the request gone")
	// Both are told of it, and read it.
	for _, p := range []*person{mary, li} {
		p.until(`(document.querySelector('[data-test=tab-notices] .badge') || {}).textContent === '1'`, "be told of the friendship")
		p.visit("#/notices", test("notice"))
		p.until(`!document.querySelector('[data-test=tab-notices] .badge')`, "have it read")
		p.picture("friendship")
	}
	mary.visit("#/", test("compose"))
	mary.do("load anew", chromedp.Reload(), chromedp.WaitVisible(test("compose")))

	// Four photos with a place, a link to remind, for one tag's people.
	mary.visit("#/me/tags", test("new-tag"))
	mary.click(test("new-tag"))
	mary.write(test("tag-name"), "Climbers")
	mary.click(test("check"))
	mary.accessible("a tag")
	mary.click(test("save-tag"))
	mary.sees("Climbers")
	mary.visit("#/", test("compose"))
	mary.click(test("compose"))
	mary.choose(test("files"), photo(t, dir, 1, 900, 600), photo(t, dir, 2, 600, 900), photo(t, dir, 3, 800, 800), photo(t, dir, 4, 640, 480))
	mary.write(test("text"), "On the ridge at last")
	mary.write(test("place"), "黄山")
	mary.count(test("uploaded"), 4)
	mary.accessible("the composer")
	mary.picture("composer")
	mary.click(test("visibility"))
	mary.click(test("audience-allow"))
	mary.click(test("chip"))
	mary.accessible("who can see it")
	mary.picture("who")
	mary.click(test("done"))
	mary.click(test("remind"))
	mary.click(test("check"))
	mary.click(test("done"))
	mary.click(test("publish"))
	mary.sees("On the ridge at last", "黄山")
	mary.until(`!document.querySelector('[role=feed] [role=status]')`, "see it stored")
	mary.picture("posted")

	// Li sees it, with its photos, by the red dot; swipes and turns through them.
	li.visit("#/", test("compose"))
	li.soon("On the ridge at last")
	li.until(`[...document.querySelectorAll('[data-test=photo] img')].length === 4 && [...document.querySelectorAll('[data-test=photo] img')].every((i) => i.complete && i.naturalWidth > 0)`, "see four photos")
	li.accessible("the feed")
	li.picture("feed")
	li.click(test("photo"))
	li.do("see the photo", chromedp.WaitVisible(test("lightbox")))
	li.until(`document.querySelector('.stage img:not(.coming)') && document.querySelector('.stage img:not(.coming)').naturalWidth > 0`, "see it sharp")
	li.do("turn by key", chromedp.KeyEvent(kb.ArrowRight))
	li.until(`document.querySelector('.count').textContent.startsWith('2')`, "see the second")
	li.do("swipe", chromedp.Evaluate(`(() => { const d = document.querySelector('.lightbox'); const e = (type, x) => d.dispatchEvent(new PointerEvent(type, { clientX: x, clientY: 300, isPrimary: true, bubbles: true }));
		e('pointerdown', 300); e('pointermove', 120); setTimeout(() => e('pointerup', 120), 50); })()`, nil))
	li.until(`document.querySelector('.count').textContent.startsWith('3')`, "see the third")
	li.accessible("a photo")
	li.picture("lightbox")
	li.do("close by key", chromedp.KeyEvent(kb.Escape))
	li.until(`!document.querySelector('.lightbox') && document.activeElement.dataset.test === 'photo'`, "have the focus back where it was")

	// A like and a comment reach Mary's notices while she looks elsewhere.
	mary.visit("#/friends", test("person"))
	li.click(test("dots"))
	li.click(test("like"))
	li.click(test("dots"))
	li.click(test("comment-button"))
	li.write(`.reply textarea`, "好美！")
	li.click(test("send"))
	li.sees("好美！")
	mary.until(`(document.querySelector('[data-test=tab-notices] .badge') || {}).textContent === '2'`, "be told of two notices")
	mary.click(test("tab-notices"))
	mary.count(test("notice"), 3)
	mary.sees("好美！")
	mary.accessible("the notices")
	mary.picture("notices")
	mary.until(`!document.querySelector('[data-test=tab-notices] .badge')`, "see them read")
	mary.do("go to the post", chromedp.Click(test("notice")+` a`), chromedp.WaitVisible(`.detail `+test("post")))
	mary.accessible("a post")
	mary.picture("detail")
	mary.do("reply", chromedp.Click(`.detail .said[role=button]`))
	mary.write(`.detail .reply textarea`, "下次一起来")
	mary.do("send", chromedp.Click(`.detail `+test("send")))
	mary.sees("下次一起来")
	mary.until(`!document.querySelector('.detail .pending')`, "see it stored")
	li.until(`!!document.querySelector('[data-test=tab-notices] .badge')`, "be told of the reply")

	// For oneself alone and back: Li's page knows nothing of it.
	mary.visit("#/", test("compose"))
	mary.post("A note to everybody")
	li.soon("A note to everybody")
	mary.click(test("audience"))
	mary.until(`document.querySelector('[data-test=audience]').getAttribute('aria-label').match(/^(Only me|私密)/)`, "see it private")

	// Li's own album by month, with a cover of his.
	li.visit("#/u/"+li.id(), test("change-cover"))
	li.choose(test("cover_media_id"), photo(t, dir, 5, 1200, 800))
	li.until(`document.querySelector('.album .backdrop') && document.querySelector('.album .backdrop').naturalWidth > 0`, "see the cover")
	li.visit("#/u/"+mary.id(), test("day"))
	li.until(`document.querySelector('.amonth h2')`, "see the month")
	li.accessible("the album")
	li.picture("album")
	li.click(test("about"))
	li.do("see the settings", chromedp.WaitVisible(test("hide_theirs")))
	li.accessible("settings about a friend")
	li.click(test("hide_theirs"))
	li.picture("about")
	li.until(`document.querySelector('[data-test=hide_theirs]').checked`, "see it set")
	li.click(test("close-about"))
	li.visit("#/", test("compose"))
	li.until(`!document.body.innerText.includes('On the ridge at last')`, "see her posts hidden")

	// Settings, sessions, password, profile.
	mary.visit("#/me/privacy", test("strangers"))
	mary.click(test("window-3_days"))
	mary.click(test("strangers"))
	mary.accessible("privacy")
	mary.picture("privacy")
	mary.do("load anew", chromedp.Reload(), chromedp.WaitVisible(test("strangers")))
	mary.until(`document.querySelector('[data-test=window-3_days]').checked && document.querySelector('[data-test=strangers]').checked`, "see them kept")
	mary.visit("#/me/profile", `input[name=display_name]`)
	mary.choose(test("avatar_media_id"), photo(t, dir, 6, 400, 400))
	mary.until(`document.querySelector('.portrait img.avatar') && document.querySelector('.portrait img.avatar').naturalWidth > 0`, "see the picture")
	mary.accessible("the profile")
	mary.visit("#/me/sessions", test("session"))
	mary.accessible("the sessions")
	mary.picture("sessions")
	mary.visit("#/me/password", `input[name=old]`)
	mary.accessible("the password")
	mary.write(`input[name=old]`, "correct horse")
	mary.write(`input[name=new]`, "battery staple")
	mary.click(test("change-password"))
	mary.do("be back", chromedp.WaitVisible(test("log-out")))
	mary.accessible("one's own page")
	mary.picture("me")

	// A post that cannot be sent comes back as it was written.
	mary.visit("#/", test("compose"))
	mary.do("cut the line", chromedp.Evaluate(`window.line = window.fetch; window.fetch = () => Promise.reject(new TypeError('cut')); 0`, nil))
	mary.click(test("compose"))
	mary.write(test("text"), "Sent twice, stored once")
	mary.click(test("publish"))
	mary.until(`document.querySelector('[data-test=text]') && document.querySelector('[data-test=text]').value === 'Sent twice, stored once' && !document.querySelector('[role=feed] [role=status]')`, "have the words back")
	mary.do("mend the line", chromedp.Evaluate(`window.fetch = window.line; 0`, nil))
	mary.click(test("publish"))
	mary.sees("Sent twice, stored once")

	// The end of an account.
	li.visit("#/me/leave", test("delete-account"))
	li.accessible("the end")
	li.picture("leave")
	li.write(`input[name=password]`, "correct horse")
	li.click(test("delete-account"))
	li.do("be out", chromedp.WaitVisible(test("submit")))
	li.picture("gone")
}

// TestFirstPaint tells how soon the first post is seen on a slow machine, and how heavy
// the page is. It is a figure for people: a busy machine fails no test.
func TestFirstPaint(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	b := startBrowser(t, clustertest.Start(t))
	mary := b.open("paint")
	mary.register("mary", "Mary")
	for i := range 10 {
		mary.call("POST", "/posts", fmt.Sprintf(`{"text":"Post %d"}`, i))
	}
	mary.do("forget what is kept", chromedp.Evaluate(`localStorage.removeItem('moments.feed')`, nil),
		network.SetCacheDisabled(true), emulation.SetCPUThrottlingRate(4))
	mary.do("look for the first post", chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument(`new MutationObserver((_, o) => {
			if (!document.querySelector('[data-test=post]')) return;
			o.disconnect();
			requestAnimationFrame(() => setTimeout(() => { window.firstPost = performance.now(); }));
		}).observe(document, {childList: true, subtree: true})`).Do(ctx)
		return err
	}))
	// From elsewhere, as people come: ending the page before is not the new one's time.
	mary.do("load anew", chromedp.Navigate(mary.base+"/assets/icon.svg"), chromedp.Navigate(mary.base), chromedp.WaitVisible(test("post")), chromedp.Poll(`window.firstPost > 0`, nil))
	var paint struct {
		First float64 `json:"first"`
		Post  float64 `json:"post"`
		Bytes float64 `json:"bytes"`
		Asked int     `json:"asked"` // how often for the first page
		Taken bool    `json:"taken"` // what first.js had asked for
	}
	mary.do("measure", chromedp.Evaluate(`({post: window.firstPost, taken: window.momentsFirst === null, asked: performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/timeline?limit=10')).length, first: performance.getEntriesByName('first-contentful-paint')[0].startTime,
		bytes: performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation')).filter((e) => e.name.includes('/assets/') || e.name.endsWith('/')).reduce((n, e) => n + e.transferSize, 0)})`, &paint))
	t.Logf("with 4x CPU throttling: first paint after %.0f ms, first post after %.0f ms; %.0f bytes; the first page asked for %d times", paint.First, paint.Post, paint.Bytes, paint.Asked)
	if paint.Asked == 0 || !paint.Taken {
		t.Errorf("%+v: the page did not take what first.js had asked for", paint)
	}
	if paint.Bytes > 150<<10 {
		t.Errorf("the page weighs %.0f bytes, want at most 150 KiB", paint.Bytes)
	}
	b.check()
}
