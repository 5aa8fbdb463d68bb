// SPDX-License-Identifier: Apache-2.0

package text_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/sluice-rpc/sluice/app/text"
)

func TestClean(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		limit          int
		ok             bool
	}{
		{"empty", "", "", 5, true},
		{"plain", "hello", "hello", 5, true},
		{"one too many", "hello!", "", 5, false},
		{"composed before counting", strings.Repeat("e\u0301", 5), "ééééé", 5, true},
		{"code points, not bytes", "朋友圈技术", "朋友圈技术", 5, true},
		{"bad bytes", "a\xffb", "", 5, false},
		{"surrogate", "\xed\xa0\x80", "", 5, false},
		{"NUL", "a\x00b", "", 5, false},
		{"far too long", strings.Repeat("x", 1000), "", 5, false},
		{"line breaks stay", "a\nb", "a\nb", 5, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := text.Clean(tc.in, tc.limit)
			if (err == nil) != tc.ok || got != tc.want {
				t.Errorf("Clean(%q, %d) = %q, %v; want %q, ok %v", tc.in, tc.limit, got, err, tc.want, tc.ok)
			}
		})
	}
}

func TestBlank(t *testing.T) {
	for s, want := range map[string]bool{"": true, " \t\n": true, "\u3000\u200b\u2060\ufeff": true, "\u202e": true, "a": false, " 友 ": false, "❤\ufe0f": false} {
		if got := text.Blank(s); got != want {
			t.Errorf("Blank(%q) = %v, want %v", s, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "e\u0301", "\u0958", "\U0001d160", "a\x00", "\xff"} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 1 + (limit%2000+2000)%2000
		got, err := text.Clean(s, limit)
		if err != nil {
			if utf8.ValidString(s) && !strings.Contains(s, "\x00") && utf8.RuneCountInString(norm.NFC.String(s)) <= limit {
				t.Fatalf("Clean(%q, %d): %v; want it accepted", s, limit, err)
			}
			return
		}
		if again, err := text.Clean(got, limit); err != nil || again != got {
			t.Fatalf("Clean is not idempotent: %q, then %q, %v", got, again, err)
		}
	})
}
