// SPDX-License-Identifier: Apache-2.0

package gateway

import "strings"

// deviceOf shortens a User-Agent to what a person recognises, such as "Chrome on
// Android". It is empty for none. What it does not know it gives by its product's
// name. Nothing depends on it: anybody may say anything.
func deviceOf(agent string) string {
	agent = strings.ToValidUTF8(agent, "")
	var browser, system string
	for _, b := range browsers {
		if strings.Contains(agent, b.mark) {
			browser = b.name
			break
		}
	}
	for _, s := range systems {
		if strings.Contains(agent, s.mark) {
			system = s.name
			break
		}
	}
	if browser == "" {
		browser, _, _ = strings.Cut(agent, "/") // a product comes first (RFC 9110, section 10.1.5)
		browser, _, _ = strings.Cut(strings.TrimSpace(browser), " ")
		browser = printable(browser)
	}
	if system == "" || browser == "" {
		return browser + system
	}
	return browser + " on " + system
}

// maxProduct is the most bytes of a product's name that are kept.
const maxProduct = 40

// printable keeps the visible ASCII characters of s, not too many.
func printable(s string) string {
	kept := make([]byte, 0, maxProduct)
	for i := range len(s) {
		if c := s[i]; c > ' ' && c <= '~' && len(kept) < maxProduct {
			kept = append(kept, c)
		}
	}
	return string(kept)
}

type mark struct{ mark, name string }

// Browsers name those whose pages they want to get: the most particular comes first.
var browsers = []mark{
	{"MicroMessenger/", "WeChat"},
	{"Edg", "Edge"},
	{"OPR/", "Opera"},
	{"SamsungBrowser/", "Samsung Internet"},
	{"Firefox/", "Firefox"},
	{"FxiOS/", "Firefox"},
	{"CriOS/", "Chrome"},
	{"Chrome/", "Chrome"},
	{"Safari/", "Safari"},
}

var systems = []mark{
	{"iPhone", "iPhone"},
	{"iPad", "iPad"},
	{"Android", "Android"},
	{"HarmonyOS", "HarmonyOS"},
	{"Windows", "Windows"},
	{"CrOS", "ChromeOS"},
	{"Mac OS X", "Mac"},
	{"Linux", "Linux"},
}
