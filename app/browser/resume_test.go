// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"encoding/json"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/sluice-rpc/sluice/app/cluster/clustertest"
)

// largePhoto writes a photo of noise, which no format makes small: of several parts.
func largePhoto(t *testing.T) string {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 2000, 2000))
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		img.Pix[i] = uint8(noise.Uint32())
	}
	name := filepath.Join(t.TempDir(), "large.jpg")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(f, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestUploadGoesOn: the line is lost in the middle of an upload and the page is closed.
// When the same file is chosen again, only the parts that are missing are sent.
func TestUploadGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	b := startBrowser(t, clustertest.Start(t))
	mary := b.open("resume")
	mary.register("mary", "Mary")
	mary.do("count what is sent", chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument(`window.sent = [];
			const open = XMLHttpRequest.prototype.open;
			XMLHttpRequest.prototype.open = function (method, path, ...rest) {
				this.addEventListener('load', () => window.sent.push(Number(path.split('/').pop())));
				return open.call(this, method, path, ...rest);
			};`).Do(ctx)
		return err
	}), chromedp.Reload(), chromedp.WaitVisible(test("compose")))
	sent := func() (parts []int) {
		t.Helper()
		var text string
		mary.do("read what was sent", chromedp.Evaluate(`JSON.stringify(window.sent)`, &text))
		if err := json.Unmarshal([]byte(text), &parts); err != nil {
			t.Fatal(err)
		}
		return parts
	}
	file := largePhoto(t)

	mary.do("lose the line after the first part", network.SetBlockedURLs([]string{"*/uploads/*/parts/1"}))
	mary.click(test("compose"))
	mary.choose(test("files"), file)
	mary.until(`window.sent.length === 1 && document.querySelector('.offline')`, "be told that the line is lost")
	if got := sent(); !slices.Equal(got, []int{0}) {
		t.Fatalf("parts %v were sent over a line that was lost after the first", got)
	}
	mary.picture("cut")
	b.forgive() // the browser says in its console that the line was lost
	mary.do("come back with a line", network.SetBlockedURLs(nil), chromedp.Reload(), chromedp.WaitVisible(test("compose")))
	mary.click(test("compose"))
	mary.choose(test("files"), file)
	mary.count(test("uploaded"), 1)
	got := sent()
	if len(got) == 0 || slices.Contains(got, 0) {
		t.Errorf("parts %v were sent after the reload, want those that are missing and not the first", got)
	}
	mary.write(test("text"), "It came through")
	mary.click(test("publish"))
	mary.sees("It came through")
	mary.until(`!document.querySelector('[role=feed] [role=status]')`, "see it stored")
	b.check()
}
