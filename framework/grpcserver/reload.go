// SPDX-License-Identifier: Apache-2.0

package grpcserver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
)

// whose is the word before our settings and their changes.
const whose = "gRPC"

var _ transport.Configured = (*Server)(nil)

// live are the settings, by their names in the file, that Reload can change: those that
// this package keeps. The others are in the hands of grpc-go, which takes them once.
var live = []string{"max_connections", "max_in_flight"}

// Reload takes another configuration while the listener serves, and gives what is
// different. Only max_connections and max_in_flight change without a restart: they count
// for the next connection and call, and what is open stays. If anything else is different,
// or wrong, nothing changes and the error says what. TLS and Key, which only code can give,
// are not looked at. What happened is in the log and on /admin/config. It is safe for
// concurrent use.
//
// framework.Watch follows the settings of the server and of clients alone; those of the
// listener are followed by a config.Watcher whose Changed calls Reload.
func (s *Server) Reload(cfg Config) ([]config.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes, err := s.reload(cfg)
	if s.told != nil {
		s.told(whose, changes, err)
	}
	return changes, err
}

// reload is called with mu held.
func (s *Server) reload(cfg Config) ([]config.Change, error) {
	if s.err != nil {
		return nil, s.err
	}
	cfg.TLS = nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	changes, err := config.Diff(s.inEffect(), cfg)
	if err != nil {
		return nil, err
	}
	var fixed []string
	for _, c := range changes {
		if !slices.Contains(live, c.Name) {
			fixed = append(fixed, c.Name)
		}
	}
	if len(fixed) > 0 {
		return nil, fmt.Errorf("%s: %s: cannot change without a restart", whose, strings.Join(fixed, ", "))
	}
	s.limit(&cfg)
	return changes, nil
}

func (s *Server) limit(cfg *Config) {
	s.maxConnections.Store(int64(cfg.MaxConnections))
	s.maxInFlight.Store(int64(cfg.MaxInFlight))
}

func (s *Server) inEffect() Config {
	cfg := s.cfg
	cfg.MaxConnections, cfg.MaxInFlight = int(s.maxConnections.Load()), int(s.maxInFlight.Load())
	return cfg
}

// Settings implements the server's side of framework.WithTransport.
func (s *Server) Settings() (of string, now, standard []config.Setting) {
	now, err := config.Describe(s.inEffect(), "")
	if err != nil {
		return whose, nil, nil // the struct is one that can be described
	}
	standard, err = config.Describe(DefaultConfig(), "")
	if err != nil {
		return whose, nil, nil
	}
	return whose, now, standard
}
