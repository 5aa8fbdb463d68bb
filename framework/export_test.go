// SPDX-License-Identifier: Apache-2.0

package framework

import "time"

// DefaultServerConfig gives the configuration of a server that was given no more.
func DefaultServerConfig(service string) (ServerConfig, error) {
	return ServerConfig{Service: service}.withDefaults()
}

// DefaultClientConfig gives the configuration of a client that was given no more.
func DefaultClientConfig(service, addr string) (ClientConfig, error) {
	return ClientConfig{Service: service, Addrs: []string{addr}}.withDefaults(false)
}

// Sweep has a server that runs look for idle connections as if it were now.
func Sweep(s *Server, now time.Time) {
	<-s.reloads.began
	s.reloads.calls.Sweep(now)
}
