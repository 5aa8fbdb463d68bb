// SPDX-License-Identifier: Apache-2.0

// Package text checks what people write before it is kept.
package text

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Clean gives s in Unicode's composed form (NFC) and checks that it has at most
// limit code points in that form, is valid UTF-8 and holds no NUL. An empty s is
// fine. The error says what is wrong in words for the user.
func Clean(s string, limit int) (string, error) {
	if len(s) > limit*4*utf8.UTFMax {
		// Four code points at most become one in NFC (UAX #15, expansion factors of
		// NFD), so that many bytes are too long without a closer look.
		return "", fmt.Errorf("longer than %d characters", limit)
	}
	if !utf8.ValidString(s) {
		return "", errors.New("not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("holds a NUL character")
	}
	s = norm.NFC.String(s)
	if n := utf8.RuneCountInString(s); n > limit {
		return "", fmt.Errorf("has %d characters, at most %d", n, limit)
	}
	return s, nil
}

// Blank reports whether s shows nothing: only white space, controls and characters
// of no width.
func Blank(s string) bool {
	for _, r := range s {
		if !unicode.IsSpace(r) && !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return false
		}
	}
	return true
}
