// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
)

// soon asks for what is new until a friend's post has come.
func (p *person) soon(want string) {
	p.t.Helper()
	here := false
	for end := time.Now().Add(20 * time.Second); !here; {
		if time.Now().After(end) {
			p.t.Fatalf("%s has not come to %s in 20 s", want, p.name)
		}
		p.click(test("refresh"))
		p.do("look for "+want, chromedp.Evaluate(fmt.Sprintf("document.body.innerText.includes(%q)", want), &here))
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
	// The post is marked, so that plain selectors find what is inside of it. One that is on
	// its way, and has no time yet, is another element than when it has arrived.
	p.until(fmt.Sprintf(`(() => {
		document.querySelectorAll('[data-chosen]').forEach((e) => delete e.dataset.chosen);
		const e = [...document.querySelectorAll('[data-test=post]')].find((e) => e.querySelector('time') && e.querySelector('.text').innerText === %q);
		if (!e) return false;
		e.dataset.chosen = '1';
		return true;
	})()`, text), "find the post "+text)
	p.click(`[data-chosen] ` + then)
}

func TestMoments(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	b := startBrowser(t, clustertest.Start(t))
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
	mary.until(`!document.title.includes('broken') && !document.querySelector('.text img')`, "see that text stays text")
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
	li.until(`location.hash.startsWith('#/u/') && document.querySelector('.album[aria-label=Mary] [data-test=day]')`, "see the album")
	li.picture("album")
	b.check()

	mary.click(test("tab-me"))
	mary.picture("me-390-light-zh")
	mary.click(test("log-out"))
	mary.sees("登录")
	mary.picture("login-390-light-zh")
	mary.do("load anew", chromedp.Reload(), chromedp.WaitVisible(test("submit")))
	b.forgive() // what was under way as the session ended was refused
	mary.do("load anew again", chromedp.Reload(), chromedp.WaitVisible(test("submit")))
	b.check()
}
