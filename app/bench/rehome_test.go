// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
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

// TestAuditFindings: an audit that found something is told from one that could not be done, or did not end.
func TestAuditFindings(t *testing.T) {
	failed := errors.New("exit status 1")
	for _, tt := range []struct {
		name, out string
		err       error
		want      []string
		broken    bool
	}{
		{"clean", "people 3\nclean, in 2s\n", nil, nil, false},
		{"found", "people 3\n  difference: a\n  difference: b c\nmoments: 2 differences\n", failed, []string{"a", "b c"}, false},
		{"not done", "moments: no running Moments\n", failed, nil, true},
		{"killed", "people 3\n", nil, nil, true},
	} {
		got, err := auditFindings([]byte(tt.out), tt.err)
		if !slices.Equal(got, tt.want) || (err != nil) != tt.broken {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}
