// SPDX-License-Identifier: Apache-2.0

package loglevel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/tracing"
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

// TestRequest: a line says for which request it was written, once, wherever groups are.
func TestRequest(t *testing.T) {
	var c loglevel.Control
	var out bytes.Buffer
	plain := slog.New(c.Handler(slog.NewTextHandler(&out, nil)))
	process.Tracer().Sampler("POST /posts") // its name is known
	call := &rpc.Call{Header: rpc.Header{Trace: tracing.TraceID{1}, Entry: tracing.EntryOf("POST /posts")}}
	ctx := rpc.WithCall(t.Context(), call)
	const trace, entry = "trace=01000000000000000000000000000000", `entry="POST /posts"`
	for _, row := range []struct {
		name string
		log  *slog.Logger
		ctx  context.Context
		args []any
		want string
	}{
		{"of nobody", plain, t.Context(), []any{"a", 1}, "a=1"},
		{"of a request", plain, ctx, []any{"a", 1}, trace + " " + entry + " a=1"},
		{"of one that no entry has", plain, rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Trace: tracing.TraceID{1}}}), nil, trace},
		{"of one without a trace", plain, rpc.WithCall(t.Context(), &rpc.Call{}), nil, ""},
		{"says it itself", plain, ctx, []any{"entry", "e", "trace", "t"}, "entry=e trace=t"},
		{"says half of it", plain, ctx, []any{"trace", "t"}, entry + " trace=t"},
		{"with attributes", plain.With("x", 0), ctx, []any{"a", 1}, "x=0 " + trace + " " + entry + " a=1"},
		{"in groups", plain.With("x", 0).WithGroup("g").With("y", 1).WithGroup("").WithGroup("h"), ctx, []any{"a", 1}, "x=0 " + trace + " " + entry + " g.y=1 g.h.a=1"},
		{"in groups of nobody", plain.WithGroup("g").With("y", 1), t.Context(), []any{"a", 1}, "g.y=1 g.a=1"},
	} {
		out.Reset()
		row.log.InfoContext(row.ctx, "said", row.args...)
		if _, got, _ := strings.Cut(out.String(), "msg=said"); strings.TrimSpace(got) != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// TestHandler holds the handler to what slog asks of one.
func TestHandler(t *testing.T) {
	var c loglevel.Control
	for name, ctx := range map[string]context.Context{"of nobody": t.Context(), "of a request": rpc.WithCall(t.Context(), &rpc.Call{Header: rpc.Header{Trace: tracing.TraceID{1}}})} {
		var out bytes.Buffer
		slogtest.Run(t, func(*testing.T) slog.Handler {
			out.Reset()
			return with{c.Handler(slog.NewJSONHandler(&out, nil)), ctx}
		}, func(t *testing.T) map[string]any {
			said := map[string]any{}
			if err := json.Unmarshal(out.Bytes(), &said); err != nil {
				t.Fatal(name, err)
			}
			delete(said, "trace")
			return said
		})
	}
}

// with gives each line a context.
type with struct {
	slog.Handler
	ctx context.Context // slogtest has none to give
}

func (w with) Handle(_ context.Context, r slog.Record) error { return w.Handler.Handle(w.ctx, r) }
func (w with) WithAttrs(a []slog.Attr) slog.Handler          { return with{w.Handler.WithAttrs(a), w.ctx} }

func (w with) WithGroup(name string) slog.Handler { return with{w.Handler.WithGroup(name), w.ctx} }
