// SPDX-License-Identifier: Apache-2.0

package draw

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain replaces what no format can show: broken UTF-8, controls, and what turns
// the direction of text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

var xmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

// xmlText escapes text for an element or a quoted attribute of XML or HTML.
func xmlText(s string) string { return xmlEscapes.Replace(plain(s)) }

var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;")

// dotString writes lines as one quoted string of DOT. A backslash is doubled, for \N,
// \G and their like would be replaced by names; Graphviz also reads entities of HTML.
func dotString(lines ...string) string {
	escaped := make([]string, len(lines))
	for i, l := range lines {
		escaped[i] = dotEscapes.Replace(plain(l))
	}
	return `"` + strings.Join(escaped, `\n`) + `"`
}

// mermaidString writes lines as one quoted string of Mermaid, whose strings may hold
// HTML, Markdown and entities: what is not surely harmless becomes an entity.
func mermaidString(lines ...string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, line := range lines {
		if i > 0 {
			b.WriteString("<br>")
		}
		for _, r := range plain(line) {
			if r > 0x7f || unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(" ./-:,()%", r) {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, "#%d;", r)
			}
		}
	}
	b.WriteByte('"')
	return b.String()
}
