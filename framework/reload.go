// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/kitexrpc"
)

// reloads is the configuration of a server that runs, and how it has changed.
type reloads struct {
	mu      sync.Mutex
	now     ServerConfig     // with defaults; guarded by mu
	history []admin.Reload   // the latest first; guarded by mu
	running bool             // guarded by mu
	calls   *kitexrpc.Server // nil in who only supervises; guarded by mu
	began   chan struct{}    // closed when the server runs
}

// keptReloads is how many are shown.
const keptReloads = 20

// live are the settings, by their names in the file, that Reload can change.
var live = []string{
	"admin_token", "max_frame_bytes", "max_connections", "max_in_flight", "read_timeout", "idle_timeout",
	"tls.ca", "tls.cert", "tls.key", "tls.trust_domain", "tls.peers", "allow",
}

// Reload takes another configuration while the server runs, and gives what is different.
// All of it is checked first: if anything is wrong, or needs a restart, or a file of TLS
// cannot be read, nothing changes and the error says why. Limits and rules count from the
// next frame and connection on; connections that are open stay, even beyond a lower limit.
// Without a restart these change: admin_token, max_frame_bytes, max_connections,
// max_in_flight, read_timeout, idle_timeout, what is below tls, and allow. What happened is in the log and
// on /admin/config. It is safe for concurrent use.
func (s *Server) Reload(cfg ServerConfig) ([]config.Change, error) {
	s.reloads.mu.Lock()
	defer s.reloads.mu.Unlock()
	changes, take, err := s.prepare(cfg)
	if err == nil {
		take()
	}
	s.note(changes, err)
	return changes, err
}

// prepare checks a configuration and gives what takes it. It is called with reloads.mu
// held.
func (s *Server) prepare(cfg ServerConfig) (changes []config.Change, take func(), err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, nil, err
	}
	runs := s.reloads.running
	if !runs {
		s.reloads.now = s.cfg
	}
	changes, err = config.Diff(s.reloads.now, cfg)
	switch {
	case err != nil || len(changes) == 0:
		return nil, func() {}, err
	case !runs:
		return nil, nil, errors.New("the server does not run yet")
	}
	fixed := notAmong(live, changes)
	if s.reloads.now.TLS.on() != cfg.TLS.on() {
		fixed = append(fixed, "tls, on or off")
	}
	if s.reloads.now.AdminToken != "" && cfg.AdminToken == "" {
		fixed = append(fixed, "admin_token, to none")
	}
	if len(fixed) > 0 {
		return nil, nil, fmt.Errorf("%s: cannot change without a restart", strings.Join(fixed, ", "))
	}
	if unknown := allowList(cfg.Allow).unknown(s.has); len(unknown) > 0 {
		return nil, nil, fmt.Errorf("allow: this server has no method %s", strings.Join(unknown, ", "))
	}
	files := s.secured.Load()
	if cfg.TLS.on() {
		if files, err = cfg.TLS.open(s.opts.log, cfg.TLS.peersOfServer()); err != nil {
			return nil, nil, err
		}
	}
	return changes, func() {
		s.secured.Store(files)
		for service, methods := range s.byName {
			for name, m := range methods {
				m.Allow(allowList(cfg.Allow).callersOf(service, name))
			}
		}
		if s.reloads.calls != nil {
			s.reloads.calls.Limit(limitsOf(&cfg))
		}
		s.reloads.now = cfg
	}, nil
}

// notAmong gives the names of changes that are not in a list.
func notAmong(list []string, changes []config.Change) (names []string) {
	for _, c := range changes {
		if !slices.Contains(list, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

func limitsOf(cfg *ServerConfig) kitexrpc.Limits {
	return kitexrpc.Limits{
		MaxFrameBytes: cfg.MaxFrameBytes, MaxConnections: cfg.MaxConnections, MaxInFlight: cfg.MaxInFlight, ReadTimeout: cfg.ReadTimeout, IdleTimeout: cfg.IdleTimeout,
	}
}

// note is called with reloads.mu held.
func (s *Server) note(changes []config.Change, err error) {
	s.reloads.history = noted(s.reloads.history, s.opts.log, "", changes, err)
}

// noteOf is note for a listener of another protocol.
func (s *Server) noteOf(whose string, changes []config.Change, err error) {
	s.reloads.mu.Lock()
	defer s.reloads.mu.Unlock()
	s.reloads.history = noted(s.reloads.history, s.opts.log, whose, changes, err)
}

// noted tells the log what became of a configuration, and puts that before the history.
// Nothing different is nothing to tell. Whose it is stands before the changes.
func noted(history []admin.Reload, log *slog.Logger, whose string, changes []config.Change, err error) []admin.Reload {
	told := admin.Reload{Time: time.Now()}
	switch {
	case err != nil:
		told.Refused = err.Error()
		log.Error("configuration refused, the one before goes on", slog.Any("err", err))
	case len(changes) == 0:
		return history
	default:
		if whose != "" {
			whose += ": "
		}
		for _, c := range changes {
			told.Changes = append(told.Changes, whose+c.String())
		}
		log.Info("configuration changed", slog.Any("changes", told.Changes))
	}
	history = slices.Insert(history, 0, told)
	return history[:min(len(history), keptReloads)]
}

// runs begins to serve with the first configuration. A Reload meanwhile waits for it.
func (r *reloads) runs(cfg ServerConfig, serve func() (*kitexrpc.Server, error)) (*kitexrpc.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls, err := serve()
	if err == nil {
		r.now, r.calls, r.running = cfg, calls, true
		close(r.began)
	}
	return calls, err
}

// supervises begins without serving: the workers follow the configuration as this process
// does.
func (r *reloads) supervises(cfg ServerConfig) {
	_, _ = r.runs(cfg, func() (*kitexrpc.Server, error) { return nil, nil })
}

// current gives the configuration in effect, and its history.
func (r *reloads) current() (ServerConfig, []admin.Reload) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now, slices.Clone(r.history)
}
