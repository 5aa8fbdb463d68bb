// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
	"github.com/sluice-rpc/sluice/app/ocean"
	"github.com/sluice-rpc/sluice/app/ocean/emulator"
	"github.com/sluice-rpc/sluice/app/topology"
)

// startOcean runs regions, their lines, and the page of both. What it gives has the page
// show one more, which it does not show at first, or not.
func startOcean(t *testing.T) (url string, another func(there bool)) {
	t.Helper()
	sea := clustertest.StartRegions(t, "sh", "hk", "ca", "sg")
	cfg := ocean.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	for _, r := range sea.Regions {
		admins := map[string]string{}
		for _, role := range topology.Joined() {
			admins[string(role)] = r.Admins[role]
		}
		cfg.Regions = append(cfg.Regions, ocean.Region{Name: r.Name, URL: r.URL, Admins: func() (map[string]string, error) { return admins, nil }})
	}
	for _, l := range sea.Lines {
		if err := l.Set(emulator.Both, func(is *emulator.Setting) { is.Delay = 30 * time.Millisecond }); err != nil {
			t.Fatal(err)
		}
		cfg.Lines = append(cfg.Lines, ocean.Line{A: l.A, B: l.B, Line: l.Line})
	}
	regions, lines := cfg.Regions, cfg.Lines
	three := slices.DeleteFunc(slices.Clone(lines), func(l ocean.Line) bool { return l.B == "sg" })
	cfg.Regions, cfg.Lines = regions[:3], three
	page := ocean.New(cfg)
	server := httptest.NewServer(page.Handler())
	t.Cleanup(server.Close)
	background(t, page.Run)
	return server.URL, func(there bool) {
		if there {
			page.SetSea(regions, lines)
		} else {
			page.SetSea(regions[:3], three)
		}
	}
}

// column is where the comments of a region are.
func column(region string) string { return fmt.Sprintf(`[data-region="%s"]`, region) }

// says has the person of a region comment, by the keyboard.
func (p *person) says(region, text string) {
	p.t.Helper()
	p.do("say "+text, chromedp.SendKeys(column(region)+" input", text+kb.Enter))
	p.shows(region, text)
}

// shows waits until a region shows a comment.
func (p *person) shows(region, text string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`[...document.querySelectorAll('%s li')].some((li) => li.innerText.includes(%q))`, column(region), text), region+" to show "+text)
}

// lineIs waits until the picture shows a line cut or whole.
func (p *person) lineIs(name string, cut bool) {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.querySelector('[data-line="%s"]').getAttribute('aria-pressed') === '%t'`, name, cut), "see the line change")
}

// waits asks the page's server for how many records wait in a region for another one.
func (p *person) waits(from, to, condition, what string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`fetch('/api/state').then((r) => r.json()).then((s) => s.regions.find((r) => r.name === %q).queues.find((q) => q.to === %q).depth %s)`, from, to, condition), what)
}

// TestOcean is the talk's picture: a line is cut, Kate asks in Canada, Wang answers in
// Shanghai, and Hong Kong, to which the question cannot come, must not show the answer
// first. Every change of its column is looked at, by the page itself.
func TestOcean(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	url, another := startOcean(t)
	b := startBrowser(t, url)
	p := b.openAt("ocean", b.base, `[data-line="hk-ca"]`)
	p.do("use a desktop", p.size(1280, 900))
	p.until(`['sh', 'hk', 'ca'].every((r) => { const i = document.querySelector('[data-region="' + r + '"] input'); return i && !i.disabled; })`, "see the scene set")
	p.says("sh", "Here it rises over the Bund")
	p.shows("hk", "Here it rises over the Bund")
	p.shows("ca", "Here it rises over the Bund")
	p.do("look at every change of Hong Kong's column", chromedp.Evaluate(`(() => {
		window.seen = [];
		const list = document.querySelector('[data-region="hk"] ol');
		const look = () => window.seen.push([...list.children].map((li) => [li.dataset.id, li.dataset.replyTo || '', li.innerText]));
		new MutationObserver(look).observe(list, { childList: true, subtree: true, characterData: true });
		look();
	})()`, nil))

	p.do("cut the line by a click", chromedp.Click(`[data-line="hk-ca"] .handle`, chromedp.NodeVisible))
	p.lineIs("hk-ca", true)
	p.says("ca", "Is it full where you are?")
	p.shows("sh", "Is it full where you are?")
	p.do("answer it", chromedp.Evaluate(`[...document.querySelectorAll('[data-region="sh"] li')].find((li) => li.innerText.includes('Is it full')).querySelector('button').click()`, nil))
	p.says("sh", "As round as a coin")
	p.shows("ca", "As round as a coin")
	p.waits("sh", "hk", "=== 0", "have Hong Kong hold the answer")
	p.waits("ca", "hk", "> 0", "have the question wait for the line")
	p.picture("cut")
	p.do("heal the line by a click", chromedp.Click(`[data-line="hk-ca"] .handle`, chromedp.NodeVisible))
	p.lineIs("hk-ca", false)
	p.shows("hk", "As round as a coin")

	// The keyboard does it, too.
	press := func(key, how string, cut bool) {
		p.do(how+" by the keyboard", chromedp.Focus(`[data-line="sh-hk"]`, chromedp.ByQuery), chromedp.KeyEvent(key))
		p.lineIs("sh-hk", cut)
	}
	press(kb.Enter, "cut", true)
	p.says("sh", "Good night")
	press(" ", "heal", false)
	p.shows("hk", "Good night")

	var seen [][][3]string
	p.do("read what Hong Kong has shown", chromedp.Evaluate(`window.seen`, &seen))
	replies := 0
	for _, list := range seen {
		for i, c := range list {
			at := slices.IndexFunc(list, func(o [3]string) bool { return o[0] == c[1] })
			if c[1] != "" {
				replies++
			}
			if c[1] != "" && (at < 0 || at >= i) {
				b, _ := json.Marshal(list)
				t.Fatalf("Hong Kong showed a reply before what it answers: %s", b)
			}
		}
	}
	if replies == 0 {
		t.Error("Hong Kong's column was not looked at")
	}
	var moves int
	p.do("look for what moves", chromedp.Evaluate(`document.getAnimations().length`, &moves))
	if moves != 0 {
		t.Errorf("%d things move for somebody who asked for less motion", moves)
	}
	p.looks()
	p.sees4(another)
	b.check()
}

// sees4 has a region join the picture and leave it, while it is looked at and without a
// reload.
func (p *person) sees4(another func(there bool)) {
	p.t.Helper()
	const is = `document.querySelectorAll('.place').length === %d && document.querySelectorAll('[data-line]').length === %d && document.querySelectorAll('[data-region]').length === %[1]d`
	p.do("stay", chromedp.Evaluate(`window.stayed = true`, nil))
	for range 2 {
		another(true)
		p.until(fmt.Sprintf(is, 4, 6), "see a region join")
		p.shows("sg", "As round as a coin") // what was said before
		p.until(`!document.querySelector('[data-region="sg"] input').disabled && /visit|来访/.test(document.querySelector('[data-region="sg"] h3').innerText)`, "see a visitor there")
		p.picture("four")
		another(false)
		p.until(fmt.Sprintf(is, 3, 3), "see it leave")
	}
	another(true)
	p.until(fmt.Sprintf(is, 4, 6), "see it join again")
	p.says("sg", "I have come late")
	p.shows("hk", "I have come late")
	p.until(`window.stayed`, "see the same page")
}

// looks takes pictures of the page as it can look, with a line cut, and has each looked at.
func (p *person) looks() {
	p.t.Helper()
	p.do("cut a line", chromedp.Focus(`[data-line="hk-ca"]`, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	p.lineIs("hk-ca", true)
	p.says("ca", "I am still here")
	p.waits("ca", "hk", "> 0", "have a comment wait")
	for _, screen := range []struct {
		name string
		w, h int64
	}{{"phone", 390, 844}, {"desktop", 1280, 900}} {
		p.do("look on a "+screen.name, p.size(screen.w, screen.h))
		for _, lang := range []string{"en", "zh-CN"} {
			p.do("speak "+lang, chromedp.Evaluate(fmt.Sprintf(`document.documentElement.lang === %q || document.getElementById('language').click()`, lang), nil))
			for _, theme := range []string{"light", "dark"} {
				p.do("choose "+theme, chromedp.Evaluate(fmt.Sprintf(`document.documentElement.dataset.theme === %q || document.getElementById('theme').click(); scrollTo(0, 0); document.activeElement.blur()`, theme), nil))
				var wide int
				p.do("measure", chromedp.Evaluate(`document.documentElement.scrollWidth - innerWidth`, &wide))
				if wide > 0 {
					p.t.Errorf("on a %s in %s the page is %d px too wide", screen.name, lang, wide)
				}
				what := screen.name + "-" + lang + "-" + theme
				if lang == "en" { // the other has the same colours and names
					p.accessible(what)
				}
				p.whole(what)
			}
		}
	}
}

// whole keeps a picture of the whole page, below what fits the screen, too.
func (p *person) whole(name string) {
	p.t.Helper()
	var h, w int64
	p.do("measure the page", chromedp.Evaluate(`document.documentElement.scrollHeight`, &h), chromedp.Evaluate(`innerWidth`, &w))
	p.do("see all of it", p.size(w, h))
	p.picture(name)
}
