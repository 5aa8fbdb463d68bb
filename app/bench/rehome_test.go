// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestParseRehome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		moves int // 0 for any
		want  string
	}{
		{"as it is", nil, len(allMoves), ""},
		{"quick", []string{"-quick"}, 5, ""},
		{"some", []string{"-only", "account of ca is killed"}, 0, ""},
		{"each region one process", []string{"-split=false"}, 0, ""},
		{"none", []string{"-only", "atlantis"}, 0, "atlantis"},
		{"an argument", []string{"sh"}, 0, `"sh"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseRehome(tt.args)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want something about %q", err, tt.want)
			}
			if err != nil {
				return
			}
			all := c.moves()
			seen := map[string]bool{}
			for _, m := range all {
				if seen[m.String()] {
					t.Errorf("%v comes twice", m)
				}
				seen[m.String()] = true
			}
			if tt.moves != 0 && len(all) != tt.moves {
				t.Errorf("%d moves, want %d", len(all), tt.moves)
			}
		})
	}
}
