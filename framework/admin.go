// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/loglevel"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
)

// dashboard gives the pages of the admin port. They show the whole process, whatever else
// runs in it.
func (s *Server) dashboard(state *admin.State) *admin.Dashboard {
	d := admin.ForProcess()
	d.Service, d.State, d.Log = s.cfg.Service, state, s.opts.log
	d.Token = func() string {
		now, _ := s.reloads.current()
		return string(now.AdminToken)
	}
	d.Config = func() ([]admin.Setting, []admin.Reload) {
		now, history := s.reloads.current()
		all, others := told("", settingsOf(now), s.opts.settings)
		for _, t := range s.opts.transports {
			if c, ok := t.(transport.Configured); ok {
				whose, now, standard := c.Settings()
				var of []admin.Setting
				of, others = told(whose+": ", beside("", now, standard), others)
				all = append(all, of...)
			}
		}
		for i := range others {
			all = append(all, admin.SettingOf(others[i]))
		}
		called, more := openConns.describe()
		history = append(history, more...)
		slices.SortStableFunc(history, func(a, b admin.Reload) int { return b.Time.Compare(a.Time) })
		return append(all, called...), history
	}
	d.Callable, d.Call = s.callable, s.try
	if s.admission != nil {
		d.Door = s.admission.Door()
	}
	return d
}

// told looks for the settings of a server, or of a listener, among those of a program: if
// they are there they get the program's names and places where they were found, and show
// what is in effect, which the program's do not after a Reload. Others are those of the
// program without them. If they are not there their names begin with whose.
func told(whose string, own []admin.Setting, program []config.InEffect) (all []admin.Setting, others []config.InEffect) {
	for i := range program {
		under := program[i:]
		if !same(own, under) {
			continue
		}
		for k := range own {
			own[k].Name = under[k].Name
			switch {
			case own[k].Value == under[k].Value:
				own[k].Source = under[k].Where
			case own[k].Source == given:
				own[k].Source = "reload"
			}
		}
		return own, slices.Concat(program[:i], under[len(own):])
	}
	for k := range own {
		own[k].Name = whose + own[k].Name
	}
	return own, program
}

// same says whether a program's settings begin with those of a server, or of a listener,
// which is known by its first: the name, or the address.
func same(own []admin.Setting, program []config.InEffect) bool {
	if len(own) == 0 || len(program) < len(own) || program[0].Value != own[0].Value && program[0].Value != "" {
		return false // of another one
	}
	prefix, is := strings.CutSuffix(program[0].Name, own[0].Name)
	for k := range own {
		is = is && program[k].Name == prefix+own[k].Name
	}
	return is
}

// settingsOf says of each setting what it is and whether somebody has given it.
func settingsOf(cfg ServerConfig) []admin.Setting {
	standard, err := ServerConfig{Service: cfg.Service}.withDefaults()
	if err != nil {
		return nil // not of a server that runs
	}
	return compared("", cfg, standard)
}

// settingsOfClient is settingsOf for a connection.
func settingsOfClient(cfg ClientConfig) []admin.Setting {
	standard, err := ClientConfig{Service: cfg.Service}.withDefaults(true)
	if err != nil {
		return nil // not of a connection that was made
	}
	return compared("client "+cfg.Service+": ", cfg, standard)
}

func compared[T any](whose string, cfg, standard T) []admin.Setting {
	now, err := config.Describe(cfg, "")
	if err != nil {
		return nil // the struct is one that can be described
	}
	defaults, err := config.Describe(standard, "")
	if err != nil {
		return nil
	}
	return beside(whose, now, defaults)
}

// given is where a setting comes from that is not as it would be by itself.
const given = "given"

// beside gives settings, of which each is what it is without being given, or not.
func beside(whose string, now, defaults []config.Setting) []admin.Setting {
	all := make([]admin.Setting, len(now))
	for i, s := range now {
		all[i] = admin.Setting{Name: whose + s.Name, Value: s.Default, Source: given, Unit: s.Unit, Doc: s.Doc}
		if s.Default == defaults[i].Default && s.Name != "service" {
			all[i].Source = "default"
		}
	}
	return all
}

// LogHandler gives a handler that logs to h what h would log, unless an operator has set
// another level on the page /admin/log. A line that is written with the context of a call,
// a request or a job (slog.InfoContext) gets the trace and the entry of that, unless it has
// them. The log of a Server has all this already; a program puts it around the handlers of
// its other loggers, at best that of slog.Default.
func LogHandler(h slog.Handler) slog.Handler { return loglevel.Process().Handler(h) }
