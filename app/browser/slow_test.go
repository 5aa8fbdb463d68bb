// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
)

// TestSlowLine: with 400 ms to the server and back, what one does is shown before the
// server has answered. The order of events says so, not a clock. Pulling the list down
// brings what is new, and the album shows one month alone.
func TestSlowLine(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	b := startBrowser(t, clustertest.Start(t))
	mary := b.open("slow")
	mary.register("mary", "Mary")
	mary.post("A first one")
	mary.until(`!document.querySelector('[role=feed] [role=status]')`, "see it stored")
	mary.do("make the line slow", network.EmulateNetworkConditions(false, 400, -1, -1), chromedp.Evaluate(`(() => {
		window.events = [];
		const line = window.fetch;
		window.fetch = async (path, init) => {
			const write = init && init.method !== 'GET' && !path.endsWith('/seen');
			const res = await line(path, init);
			if (write) window.events.push('answered');
			return res;
		};
		window.shows = (selector) => new MutationObserver((_, o) => {
			if (!document.querySelector(selector)) return;
			o.disconnect();
			window.events.push('shown');
		}).observe(document.body, { childList: true, subtree: true });
	})()`, nil))
	for _, act := range []struct {
		name, shown string
		do          func()
	}{
		{"a like", ".likes", func() {
			mary.click(test("dots"))
			mary.click(test("like"))
		}},
		{"a comment", ".said", func() {
			mary.click(test("dots"))
			mary.click(test("comment-button"))
			mary.write(`.reply textarea`, "At once")
			mary.click(test("send"))
		}},
		{"a post", `[role=feed] [role=status]`, func() {
			mary.click(test("compose"))
			mary.write(test("text"), "And a second")
			mary.click(test("publish"))
		}},
	} {
		mary.do("look for "+act.name, chromedp.Evaluate(fmt.Sprintf(`window.events = []; window.shows(%q); 0`, act.shown), nil))
		act.do()
		mary.until(`window.events.includes('answered')`, "have an answer to "+act.name)
		var first string
		mary.do("read what came first", chromedp.Evaluate(`window.events[0]`, &first))
		if first != "shown" {
			t.Errorf("%s: %s before it is shown", act.name, first)
		}
	}

	// Somebody posts elsewhere; the list is pulled down.
	mary.do("have a fast line again", network.EmulateNetworkConditions(false, 0, -1, -1))
	mary.call("POST", "/posts", `{"text":"From another device"}`)
	mary.do("pull the list down", chromedp.Evaluate(`(() => {
		scrollTo(0, 0);
		const touch = (type, y) => {
			const t = new Touch({ identifier: 1, target: document.body, clientX: 100, clientY: y });
			document.body.dispatchEvent(new TouchEvent(type, { touches: type === 'touchend' ? [] : [t], changedTouches: [t], bubbles: true, cancelable: true }));
		};
		touch('touchstart', 100);
		touch('touchmove', 200);
		setTimeout(() => { touch('touchmove', 400); setTimeout(() => touch('touchend', 400), 100); }, 100);
	})()`, nil))
	mary.sees("From another device")

	// The album, this month and one before anything was posted.
	mary.visit("#/u/"+mary.id(), test("day"))
	month := func(m string) {
		mary.do("choose "+m, chromedp.Evaluate(fmt.Sprintf(`(() => { const e = document.querySelector('[data-test=month]'); e.value = %q; e.dispatchEvent(new Event('change', { bubbles: true })); })()`, m), nil))
	}
	month("2024-01")
	mary.until(`!document.querySelector('[data-test=day]') && document.querySelector('.album .empty')`, "see an empty month")
	mary.picture("month-empty")
	month(time.Now().UTC().Format("2006-01"))
	mary.count(test("day"), 3)
	mary.picture("month")
	b.check()
}
