// SPDX-License-Identifier: Apache-2.0

package cursor_test

import (
	"testing"

	"github.com/sluice-rpc/sluice/app/cursor"
	"github.com/sluice-rpc/sluice/app/id"
)

func TestRoundTrip(t *testing.T) {
	owner, at := id.User{1, 2}, id.Post{3, 4, 15: 9}
	text := cursor.Make('h', owner, at)
	if got, err := cursor.Parse('h', owner, text); err != nil || got != at {
		t.Fatalf("Parse(%q) = %v, %v; want %v", text, got, err, at)
	}
	for name, bad := range map[string]func() (id.Post, error){
		"another kind":  func() (id.Post, error) { return cursor.Parse('a', owner, text) },
		"another owner": func() (id.Post, error) { return cursor.Parse('h', id.User{1, 3}, text) },
		"cut":           func() (id.Post, error) { return cursor.Parse('h', owner, text[:20]) },
		"longer":        func() (id.Post, error) { return cursor.Parse('h', owner, text+"A") },
		"line break":    func() (id.Post, error) { return cursor.Parse('h', owner, text[:27]+"\n") },
		"empty":         func() (id.Post, error) { return cursor.Parse('h', owner, "") },
	} {
		if _, err := bad(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(cursor.Make('h', id.User{1}, id.Post{2}))
	f.Add("AQAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		at, err := cursor.Parse('h', id.User{1}, text)
		if err == nil && cursor.Make('h', id.User{1}, at) != text {
			t.Fatalf("%q is accepted but not what Make gives", text)
		}
	})
}
