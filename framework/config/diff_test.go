// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
)

func TestDiff(t *testing.T) {
	type rule struct {
		Who string        `config:"who"`
		Key config.Secret `config:"key"`
	}
	type inner struct {
		Wait time.Duration `config:"wait"`
	}
	type all struct {
		Name  string         `config:"name"`
		Key   config.Secret  `config:"key"`
		Names []string       `config:"names"`
		Rules []rule         `config:"rules"`
		Sizes map[string]int `config:"sizes"`
		Inner inner          `config:"inner"`
		Other int            // is no setting
	}
	before := all{Name: "a", Key: "old", Names: []string{"x"}, Rules: []rule{{"me", "s3cret"}}, Inner: inner{time.Second}, Other: 1}
	for name, c := range map[string]struct {
		change func(*all)
		want   []string
	}{
		"nothing":           {func(*all) {}, nil},
		"what is no field":  {func(a *all) { a.Other = 2 }, nil},
		"empty for missing": {func(a *all) { a.Sizes = map[string]int{} }, nil},
		"several":           {func(a *all) { a.Name, a.Inner.Wait = "b", time.Minute }, []string{`name: "a" -> "b"`, `inner.wait: "1s" -> "1m0s"`}},
		"a list":            {func(a *all) { a.Names = nil }, []string{`names: "x" -> ""`}},
		"a secret":          {func(a *all) { a.Key = "new" }, []string{`key: "(hidden)" -> "(hidden)"`}},
		"a list of structs": {func(a *all) { a.Rules = []rule{{"you", "s3cret"}} }, []string{`rules: "[{who: me, key: (hidden)}]" -> "[{who: you, key: (hidden)}]"`}},
		"a map":             {func(a *all) { a.Sizes = map[string]int{"b": 2, "a": 1} }, []string{`sizes: "" -> "{a: 1, b: 2}"`}},
	} {
		t.Run(name, func(t *testing.T) {
			after := before
			c.change(&after)
			changes, err := config.Diff(before, after)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				got = append(got, c.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if _, err := config.Diff(1, 2); err == nil {
		t.Error("numbers have no settings")
	}
}
