// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for _, step := range []struct {
		args string
		code int
		want string // in what it says
	}{
		{"certs issue sh", 1, "certs init"},
		{"certs show", 1, "certs init"},
		{"certs init", 0, "Next: moments certs issue"},
		{"certs init", 1, "exists already"},
		{"certs issue", 2, "at least 1"},
		{"certs issue SH", 2, "lower-case"},
		{"certs issue sh authority", 2, "another one"},
		{"certs issue sh --days 31", 1, "at most"},
		{"certs issue sh ca", 0, "good for 30 days"},
		{"certs issue ca", 1, "exists already"},
		{"certs show", 0, "30.0"},
		{"certs show now", 2, "unknown command"},
		{"certs sow", 2, "unknown command"},
		{"certs", 0, "Available Commands"},
	} {
		t.Run(step.args, func(t *testing.T) {
			code, stdout, stderr := moments(t, append(strings.Fields(step.args), "--dir", dir)...)
			if code != step.code || !strings.Contains(stdout+stderr, step.want) {
				t.Errorf("exit %d, want %d with %q: %s%s", code, step.code, step.want, stdout, stderr)
			}
		})
	}
}
