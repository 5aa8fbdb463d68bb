// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestWords finds all that the pages say in this package's source, and its Chinese.
func TestWords(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	said := map[string]bool{}
	for _, file := range append(files, "page.html") {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bsay[( ]("(?:[^"\\\n]|\\.)*")`).FindAllSubmatch(text, -1) {
			english, err := strconv.Unquote(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			said[english] = true
			if words[english] == "" {
				t.Errorf("%s: no Chinese for %q", file, english)
			}
		}
	}
	if len(said) < 200 {
		t.Errorf("only %d phrases were found: the search is broken", len(said))
	}
	verb := regexp.MustCompile(`%[.0-9]*[a-z]`)
	for english, zh := range words {
		if !said[english] {
			t.Errorf("nobody says %q", english)
		}
		if a, b := verb.FindAllString(english, -1), verb.FindAllString(zh, -1); !slices.Equal(a, b) {
			t.Errorf("%q has %v, its Chinese %v", english, a, b)
		}
	}
}
