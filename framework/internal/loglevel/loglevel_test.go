// SPDX-License-Identifier: Apache-2.0

package loglevel_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
)

func TestControl(t *testing.T) {
	var c loglevel.Control
	var out, audit bytes.Buffer
	to := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})
	log := slog.New(c.Handler(c.Handler(to))).With("a", 1).WithGroup("g")
	say := func() string {
		out.Reset()
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(t.Context(), l, "said")
		}
		return strings.Join(strings.Fields(strings.NewReplacer("level=", "", "msg=said", "", "a=1", "").Replace(cutTime(out.String()))), " ")
	}
	auditor := slog.New(slog.NewTextHandler(&audit, nil))
	for _, step := range []struct{ set, want string }{
		{"", "WARN ERROR"},
		{"debug", "DEBUG INFO WARN ERROR"},
		{"ERROR", "ERROR"},
		{"info+1", "WARN ERROR"},
		{"loud", "WARN ERROR"}, // refused
		{loglevel.Configured, "WARN ERROR"},
	} {
		if step.set != "" {
			if err := c.Set(step.set, "a drill", "127.0.0.1:1", auditor); (err != nil) != (step.set == "loud") {
				t.Errorf("%s: %v", step.set, err)
			}
		}
		if got := say(); got != step.want {
			t.Errorf("after %q: %s, want %s", step.set, got, step.want)
		}
	}
	if all := c.Audited(); len(all) != 4 || all[0].What != "log as configured" || all[3].What != "log from debug" || all[3].Reason != "a drill" {
		t.Errorf("%+v", all)
	}
	if n := strings.Count(audit.String(), "log level changed by an operator"); n != 4 {
		t.Errorf("%d lines about it, want 4", n)
	}
	for _, reason := range []string{"", " \t", "two\nlines", strings.Repeat("x", admit.MaxReason+1)} {
		if err := c.Set("info", reason, "", auditor); err == nil {
			t.Errorf("reason %.20q was taken", reason)
		}
	}
	for range admit.MaxAudit + 5 {
		if err := c.Set("info", "again", "", auditor); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.Audited()); n != admit.MaxAudit {
		t.Errorf("%d are remembered, want %d", n, admit.MaxAudit)
	}
}

// cutTime leaves out what slog says first in each line.
func cutTime(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(line, " ")
		b.WriteString(rest)
	}
	return b.String()
}
