// SPDX-License-Identifier: Apache-2.0

package cursor_test

import (
	"strings"
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

func TestLongRoundTrip(t *testing.T) {
	owner := id.User{1, 2}
	for _, place := range []string{"", "n", "name of somebody, \x00\xff"} {
		text := cursor.MakeLong('u', owner, []byte(place))
		if got, err := cursor.ParseLong('u', owner, text); err != nil || string(got) != place {
			t.Fatalf("ParseLong(%q) = %q, %v; want %q", text, got, err, place)
		}
		for name, bad := range map[string]func() ([]byte, error){
			"another kind":  func() ([]byte, error) { return cursor.ParseLong('a', owner, text) },
			"another owner": func() ([]byte, error) { return cursor.ParseLong('u', id.User{1, 3}, text) },
			"cut":           func() ([]byte, error) { return cursor.ParseLong('u', owner, text[:len(text)-1]) },
			"longer":        func() ([]byte, error) { return cursor.ParseLong('u', owner, text+"A") },
			"line break":    func() ([]byte, error) { return cursor.ParseLong('u', owner, text+"\n") },
			"empty":         func() ([]byte, error) { return cursor.ParseLong('u', owner, "") },
			"huge":          func() ([]byte, error) { return cursor.ParseLong('u', owner, strings.Repeat("A", 1<<20)) },
		} {
			if _, err := bad(); err == nil {
				t.Errorf("%q, %s: accepted", place, name)
			}
		}
	}
}

func FuzzParseLong(f *testing.F) {
	f.Add(cursor.MakeLong('u', id.User{1}, []byte("name")))
	f.Add("AQAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		place, err := cursor.ParseLong('u', id.User{1}, text)
		if err == nil && cursor.MakeLong('u', id.User{1}, place) != text {
			t.Fatalf("%q is accepted but not what MakeLong gives", text)
		}
	})
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
