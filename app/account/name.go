// SPDX-License-Identifier: Apache-2.0

package account

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/sluice-rpc/sluice/app/once"
	"github.com/sluice-rpc/sluice/app/problem"
)

// Lengths in Unicode code points after normalisation.
const (
	minName, maxName         = 2, 32
	maxDisplayName           = 64
	minPassword, maxPassword = 8, 128
	maxDevice                = 100
)

// plain refuses what no text of ours may hold.
func plain(field, s string) error {
	if !utf8.ValidString(s) {
		return problem.Invalid(field, "not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return problem.Invalid(field, "holds a NUL")
	}
	return nil
}

// cleanName gives the name in NFC, as it is shown.
func cleanName(s string) (string, error) {
	if err := plain("name", s); err != nil {
		return "", err
	}
	s = norm.NFC.String(s)
	if n := utf8.RuneCountInString(s); n < minName || n > maxName {
		return "", problem.Invalid("name", "has %d characters, want %d to %d", n, minName, maxName)
	}
	for i, r := range s {
		switch {
		case unicode.IsLetter(r), unicode.Is(unicode.Nd, r):
		case i > 0 && (r == '_' || r == '-' || r == '.' || unicode.IsMark(r)):
		default:
			return "", problem.Invalid("name", "%q is not allowed at byte %d: use letters and digits, and after the first also '_', '-' and '.'", r, i)
		}
	}
	return s, nil
}

// foldName gives what names are compared by. Compatibility forms are folded too,
// so that full-width letters do not make a second "alice".
func foldName(s string) string {
	return norm.NFKC.String(cases.Fold().String(norm.NFKC.String(s)))
}

// cleanDisplayName gives the name to show in NFC, without outer spaces.
func cleanDisplayName(s string) (string, error) {
	return cleanLabel("display_name", s, maxDisplayName)
}

// cleanLabel gives a short text that is shown beside others in NFC, without outer
// spaces.
func cleanLabel(field, s string, most int) (string, error) {
	if err := plain(field, s); err != nil {
		return "", err
	}
	s = norm.NFC.String(strings.TrimSpace(s))
	if n := utf8.RuneCountInString(s); n < 1 || n > most {
		return "", problem.Invalid(field, "has %d characters, want 1 to %d", n, most)
	}
	for i, r := range s {
		// Characters that turn the direction of text could make a name look like
		// another one; the joiners among the format characters build emoji and scripts.
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return "", problem.Invalid(field, "%U at byte %d is not allowed", r, i)
		}
	}
	return s, nil
}

// cleanPassword gives the password in NFC, so that it is the same from every
// keyboard (RFC 8265, section 4.2).
func cleanPassword(s string) (string, error) {
	const field = "password"
	if err := plain(field, s); err != nil {
		return "", err
	}
	s = norm.NFC.String(s)
	if n := utf8.RuneCountInString(s); n < minPassword || n > maxPassword {
		return "", problem.Invalid(field, "has %d characters, want %d to %d", n, minPassword, maxPassword)
	}
	return s, nil
}

func checkKey(key string) error {
	if err := once.CheckKey(key); err != nil {
		return err
	}
	return plain("idempotency_key", key)
}
