// SPDX-License-Identifier: Apache-2.0

// Package loglevel changes, while a process runs, from which level on it logs, and says of
// each line for which request it was written.
package loglevel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// A Control decides from which level on the loggers made with it log. The zero Control
// leaves that to each of them. It is safe for concurrent use.
type Control struct {
	level atomic.Pointer[slog.Level] // nil: each logger's own

	mu    sync.Mutex
	audit []admit.Audit // the latest MaxAudit, oldest first; guarded by mu
}

var ofProcess Control

// Process gives the Control of this process.
func Process() *Control { return &ofProcess }

// Handler gives a handler that logs to h what the Control says, and, while it says
// nothing, what h would log. A line that comes with the context of a request gets its
// trace and its entry, outside of all groups.
func (c *Control) Handler(h slog.Handler) slog.Handler {
	if ours, ok := h.(*handler); ok && ours.control == c {
		return h
	}
	return &handler{to: h, control: c, outside: h}
}

type handler struct {
	to      slog.Handler
	control *Control

	outside slog.Handler                      // to, before its first group
	inside  []func(slog.Handler) slog.Handler // what makes to of it
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(ctx context.Context, l slog.Level) bool {
	if level := h.control.level.Load(); level != nil {
		return l >= *level
	}
	return h.to.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	whose := request(ctx, &r)
	if len(whose) == 0 {
		return h.to.Handle(ctx, r)
	}
	to := h.outside.WithAttrs(whose)
	for _, step := range h.inside {
		to = step(to)
	}
	return to.Handle(ctx, r)
}

// request says for which request a line is written, as far as it does not say so itself.
func request(ctx context.Context, r *slog.Record) []slog.Attr {
	call := rpc.CallFrom(ctx)
	if call == nil || call.Trace.IsZero() {
		return nil
	}
	var said [2]bool
	r.Attrs(func(a slog.Attr) bool {
		said[0], said[1] = said[0] || a.Key == "trace", said[1] || a.Key == "entry"
		return true
	})
	var attrs []slog.Attr
	if !said[0] {
		attrs = append(attrs, slog.String("trace", call.Trace.String()))
	}
	if !said[1] && call.Entry != 0 {
		attrs = append(attrs, slog.String("entry", process.Tracer().EntryName(call.Entry)))
	}
	return attrs
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	to := h.to.WithAttrs(attrs)
	if len(h.inside) == 0 {
		return &handler{to: to, control: h.control, outside: to}
	}
	return h.within(to, func(at slog.Handler) slog.Handler { return at.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.within(h.to.WithGroup(name), func(at slog.Handler) slog.Handler { return at.WithGroup(name) })
}

func (h *handler) within(to slog.Handler, step func(slog.Handler) slog.Handler) *handler {
	inside := append(slices.Clip(h.inside), step)
	return &handler{to: to, control: h.control, outside: h.outside, inside: inside}
}

// Level gives the level that an operator has set, if one has.
func (c *Control) Level() (level slog.Level, set bool) {
	if l := c.level.Load(); l != nil {
		return *l, true
	}
	return 0, false
}

// Configured is the name of no level: that of each logger.
const Configured = "configured"

// Names are what Set takes, besides numbers as slog has them ("info+2").
func Names() []string { return []string{"debug", "info", "warn", "error", Configured} }

// Set does what an operator asks for, writes it to the log and remembers it. An error
// means that nothing has changed; it says how to mend the request.
func (c *Control) Set(name, reason, from string, log *slog.Logger) error {
	reason = strings.TrimSpace(reason)
	switch {
	case reason == "":
		return errors.New("reason is empty: say why, for those who read it later")
	case len(reason) > admit.MaxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl):
		return fmt.Errorf("reason: want one line of text, at most %d bytes", admit.MaxReason)
	}
	var level slog.Level
	if name != Configured {
		if err := level.UnmarshalText([]byte(name)); err != nil {
			if len(name) > 100 {
				name = name[:100]
			}
			return fmt.Errorf("level: %q is none: want %s", name, strings.Join(Names(), ", "))
		}
	}
	c.mu.Lock() // one at a time: what is remembered is in the order in which it was done
	defer c.mu.Unlock()
	a := admit.Audit{Time: time.Now().UTC(), From: from, What: "log from " + strings.ToLower(level.String()), Reason: reason}
	c.level.Store(&level)
	if name == Configured {
		a.What = "log as configured"
		c.level.Store(nil)
	}
	if len(c.audit) == admit.MaxAudit {
		c.audit = slices.Delete(c.audit, 0, 1)
	}
	c.audit = append(c.audit, a)
	log.Warn("log level changed by an operator", slog.String("what", a.What), slog.String("from", from), slog.String("reason", a.Reason))
	return nil
}

// Audited gives the changes that are remembered, the latest first.
func (c *Control) Audited() []admit.Audit {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(c.audit)
	slices.Reverse(all)
	return all
}
