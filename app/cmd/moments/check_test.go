// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const sound = `{"op":"add","session":"s","user":"u","post":"p","text":"x","id":"a","start":1,"end":2}
{"op":"read","session":"s","user":"u","post":"p","start":3,"end":4,"comments":[{"id":"a","text":"x"}]}
`
	dir := t.TempDir()
	for name, c := range map[string]struct {
		content, want string
		code          int
	}{
		"sound":     {sound, "no violation", 0},
		"broken":    {strings.Replace(sound, `[{"id":"a","text":"x"}]`, "[]", 1), "own-writes", 1},
		"no object": {"add", "line 1", 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if code := run([]string{"check", file}, &out, &out); code != c.code || !strings.Contains(out.String(), c.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, c.code, c.want, &out)
			}
		})
	}
	var out strings.Builder
	if code := run([]string{"check"}, &out, &out); code != 2 {
		t.Errorf("without a file: exit code %d\n%s", code, &out)
	}
}
