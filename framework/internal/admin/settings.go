// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
)

// config is the page of the configuration in effect.
func (d *Desk) config(r *http.Request, q *query) (*page, error) {
	all := slices.DeleteFunc(slices.Clone(d.Config), func(s Setting) bool { return !q.finds(s.Name, s.Doc, s.Source) })
	here, g := paged(r, q, all)
	p := &page{Title: say("Configuration"), Says: say("What this server works with. Secrets are not shown."), Pager: g, Data: listOf(g, here)}
	t := &table{
		Columns: []column{{say("setting"), left}, {say("value"), prose}, {say("unit"), left}, {say("where from"), left}, {say("what it is"), prose}},
		Empty:   say("There is no such setting."),
	}
	if len(d.Config) == 0 {
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
	return p, nil
}

// logView is the level of the log as the page shows it.
type logView struct {
	Level string        `json:"level"` // debug, info, warn, error, or configured
	Says  phrase        `json:"says"`
	Logs  []string      `json:"logs"` // the levels that the server's own log holds now
	Audit []admit.Audit `json:"audit"`
}

func (d *Desk) logged(r *http.Request) *logView {
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
func (d *Desk) log(r *http.Request, _ *query) (*page, error) {
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

func (d *Desk) setLog(w http.ResponseWriter, r *http.Request) {
	changed(d, w, r, func(f url.Values) (logOrder, error) {
		return logOrder{Level: f.Get("level"), Reason: f.Get("reason")}, nil
	}, func(o logOrder) error {
		return loglevel.Process().Set(o.Level, o.Reason, r.RemoteAddr, d.Log)
	}, func() any { return d.logged(r) })
}
