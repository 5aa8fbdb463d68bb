// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
)

// config is the page of the configuration in effect.
func (d *Dashboard) config(r *http.Request, q *query) (*page, error) {
	var known []Setting
	var history []Reload
	if d.Config != nil {
		known, history = d.Config()
	}
	all := slices.DeleteFunc(slices.Clone(known), func(s Setting) bool { return !q.finds(s.Name, s.Doc, s.Source) })
	here, g := paged(r, q, all)
	p := &page{Title: say("Configuration"), Says: say("What this server works with. Secrets are not shown."), Pager: g, Data: configView{listOf(g, here), history}}
	t := &table{
		Columns: []column{{say("setting"), left}, {say("value"), prose}, {say("unit"), left}, {say("where from"), left}, {say("what it is"), prose}},
		Empty:   say("There is no such setting."),
	}
	if len(known) == 0 {
		t.Empty = say("This process has told its pages of no configuration.")
	}
	for _, s := range here {
		value, source := cell{Text: s.Value, Code: true}, cell{Text: s.Source}
		if s.Value == "" {
			value = none
		}
		if s.Source == "default" {
			source = cell{Text: say("default"), Mark: soft}
		}
		t.Rows = append(t.Rows, []cell{{Text: s.Name, Code: true}, value, {Text: s.Unit}, source, {Text: s.Doc}})
	}
	p.Parts = []part{{Table: t}}
	if len(history) > 0 {
		p.Parts = append([]part{reloaded(history)}, p.Parts...)
	}
	return p, nil
}

// configView is the page as programs read it.
type configView struct {
	list[Setting]
	Reloads []Reload `json:"reloads,omitempty"`
}

// reloaded shows what became of other configurations.
func reloaded(history []Reload) part {
	t := &table{Columns: []column{{say("time"), left}, {say("what became of it"), left}, {say("what"), prose}}}
	for _, r := range history {
		became, what := cell{Text: say("taken"), Mark: good}, strings.Join(r.Changes, "; ")
		if r.Refused != "" {
			became, what = cell{Text: say("refused"), Mark: bad}, strings.ReplaceAll(r.Refused, "\n", "; ")
		}
		t.Rows = append(t.Rows, []cell{{Text: r.Time.UTC().Format(time.DateTime) + "Z"}, became, {Text: what, Code: true}})
	}
	return part{Title: say("Read again since the start, the latest first"), Table: t}
}

// logView is the level of the log as the page shows it.
type logView struct {
	Level string        `json:"level"` // debug, info, warn, error, or configured
	Says  phrase        `json:"says"`
	Logs  []string      `json:"logs"` // the levels that the server's own log holds now
	Audit []admit.Audit `json:"audit"`
}

func (d *Dashboard) logged(r *http.Request) *logView {
	c := loglevel.Process()
	v := &logView{Level: loglevel.Configured, Says: say("Each log has the level that it was made with."), Logs: []string{}, Audit: c.Audited()}
	if level, set := c.Level(); set {
		v.Level = strings.ToLower(level.String())
		v.Says = say("An operator has set the level: it holds until it is set again, or the process ends.")
	}
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if d.Log != nil && d.Log.Enabled(r.Context(), level) {
			v.Logs = append(v.Logs, strings.ToLower(level.String()))
		}
	}
	return v
}

// log is the page on which operators see and set what is logged.
func (d *Dashboard) log(r *http.Request, _ *query) (*page, error) {
	v := d.logged(r)
	p := &page{Title: say("Log level"), State: say("%s", v.Level), Says: v.Says, Data: v, Mark: good}
	if v.Level == loglevel.Configured {
		p.State = say("as configured")
	} else {
		p.Mark = warn
	}
	p.Parts = []part{{
		Facts: []fact{{say("the log of this server holds"), cell{Text: strings.Join(v.Logs, ", ")}}},
		Forms: []form{{Label: say("Log from"), Select: &choice{Name: "level", Value: v.Level, Options: loglevel.Names()}, Button: say("Set")}},
	}}
	if len(v.Audit) > 0 {
		p.Parts = append(p.Parts, audited(v.Audit))
	}
	return p, nil
}

// logOrder is the request for another level.
type logOrder struct {
	Level  string `json:"level"`
	Reason string `json:"reason"`
}

func (d *Dashboard) setLog(w http.ResponseWriter, r *http.Request) {
	changed(d, w, r, func(f url.Values) (logOrder, error) {
		return logOrder{Level: f.Get("level"), Reason: f.Get("reason")}, nil
	}, func(ctx context.Context, o logOrder) error {
		if err := loglevel.Process().Set(o.Level, o.Reason, r.RemoteAddr, d.Log); err != nil || d.Workers == nil {
			return err
		}
		return d.Workers.order(ctx, workerOrder{Level: o.Level, Reason: o.Reason, From: r.RemoteAddr})
	}, func(context.Context) any { return d.logged(r) })
}
