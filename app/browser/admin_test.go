// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/framework/rpctest"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// counter answers one method, and says no to another.
type counter struct {
	momentsv1.UnimplementedNotifyServiceServer
}

func (counter) CountUnread(_ context.Context, req *momentsv1.CountUnreadRequest) (*momentsv1.CountUnreadResponse, error) {
	if req.UserId == "" {
		return nil, rpc.Errorf(rpc.InvalidArgument, "user_id is empty: whose notices?")
	}
	return &momentsv1.CountUnreadResponse{Unread: 7}, nil
}

// TestTryForm calls a method by the form on its server's admin page, with the keyboard
// alone, and looks at the form in both languages, light and dark, on a desk and a phone.
func TestTryForm(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	srv := rpctest.Serve(t, func(r rpc.Registrar) { momentsv1.RegisterNotifyServiceServer(r, counter{}) })
	at := "http://" + srv.AdminAddr() + "/admin/call"
	css := chromedp.ByQuery // the usual search finds a word in the style, too
	b := startBrowser(t, at)
	p := b.openAt("try", at+"?lang=en", "main table tbody")
	p.screen(1440, 950, "light")
	p.do("open a method", chromedp.Click(`//td//a[contains(., "CountUnread")]`, chromedp.BySearch), chromedp.WaitVisible("textarea", css))
	p.until(`document.activeElement.matches('textarea')`, "be in the request")
	p.sees("CountUnreadRequest", "userId", "Deadline, ms")
	p.accessible("the form")

	tab := chromedp.KeyEvent(kb.Tab)
	p.do("call with the request as it is", tab, tab, tab, chromedp.KeyEvent("a look"), tab, chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(".bad", css))
	p.sees("invalid_argument", "whose notices?")
	p.do("call with a user", chromedp.SetValue("textarea", `{"userId": "<b>mary</b>"}`, css), chromedp.Focus("textarea", css),
		tab, tab, tab, tab, chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("h1 .good", css))
	p.sees(`"unread": 7`)
	p.until(`document.querySelector('textarea').value === '{"userId": "<b>mary</b>"}' && document.querySelector('[name=reason]').value === 'a look'`, "what was sent is still there")
	p.accessible("the answer")
	p.do("see the trace", chromedp.Click(`dd a[href*="/admin/rpcz"]`, css), chromedp.WaitVisible("main table", css))
	p.sees("/admin/call", "moments.v1.NotifyService/CountUnread")
	b.check()
	p.do("send what is no request", chromedp.Navigate(at+"?method=moments.v1.NotifyService%2FCountUnread&lang=en"), chromedp.WaitVisible("textarea", css),
		chromedp.SetValue("textarea", "{", css), chromedp.SetValue("[name=reason]", "a look", css), chromedp.Submit("textarea", css), chromedp.WaitVisible("h1 .bad", css))
	p.sees("not called", "request is no moments.v1.CountUnreadRequest")
	b.forgive() // the status of that page

	for _, language := range []struct{ name, says string }{{"zh", "请求的字段"}, {"en", "Fields of the request"}} {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1440, 390} {
				p.screen(width, 900, scheme)
				name := fmt.Sprintf("%s-%s-%d", language.name, scheme, width)
				p.do("list", chromedp.Navigate(at+"?lang="+language.name), chromedp.WaitVisible("main table", css))
				p.fits("the list")
				p.picture("list-" + name)
				p.do("open a method", chromedp.Navigate(at+"?method=moments.v1.NotifyService%2FCountUnread&lang="+language.name), chromedp.WaitVisible("textarea", css))
				p.fits("the form")
				p.sees(language.says)
				p.picture("form-" + name)
				p.do("call", chromedp.SetValue("textarea", `{"userId": "mary"}`, css), chromedp.SetValue("[name=reason]", "a look", css), chromedp.Submit("textarea", css), chromedp.WaitVisible("h1 .good", css))
				p.fits("the answer")
				p.sees(language.says) // in the language as before
				p.picture("answer-" + name)
			}
		}
	}
	p.accessible("the answer in the dark, on a phone")
	b.check()
}
