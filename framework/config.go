// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
)

// ServerConfig is what operators set of a server. The zero value of a field means
// its default.
type ServerConfig struct {
	// Service is the name of the service as clients, metrics and pages show it:
	// lower-case letters, digits and hyphens, at most 63. Required.
	Service string `config:"service" doc:"name of the service as clients, metrics and pages show it"`
	// Addr is the host:port to serve calls on. Without a host it means loopback:
	// 0.0.0.0 must be written. Default "127.0.0.1:0", a free port.
	Addr string `config:"addr" doc:"host:port to serve calls on; without a host it means loopback"`
	// Admin is the host:port of the admin pages, loopback unless a host is given.
	// Default none.
	Admin string `config:"admin" doc:"host:port of the admin pages; empty for none"`
	// AdminToken must come with what changes the process through its admin pages, and with
	// every look at them from another machine. Without one they are for this machine
	// alone. /metrics, /livez and /readyz are for everybody who reaches the port.
	AdminToken config.Secret `config:"admin_token" doc:"what changes, and looks from other machines, at the admin pages must come with; without one they are for this machine alone"`
	// MaxFrameBytes is the longest message either way, 1 KiB to 1 GiB. Default 16 MiB.
	MaxFrameBytes int `config:"max_frame_bytes" unit:"bytes" doc:"longest message either way"`
	// MaxConnections is how many connections may be open at once. Default 10,000.
	MaxConnections int `config:"max_connections" unit:"connections" doc:"how many may be open at once"`
	// Admission is "on" or "off": whether an overloaded process picks, by priority, the
	// calls that it can still serve, and refuses the others at once. It is found out,
	// nothing is to be set. Default on.
	Admission string `config:"admission" doc:"on or off: whether an overloaded process refuses what matters least"`
	// MaxInFlight is how many calls may be served at once; what comes beyond is
	// refused at once. Default 1,000,000: admission finds the useful limit, this one
	// bounds memory.
	MaxInFlight int `config:"max_in_flight" unit:"calls" doc:"how many may be served at once"`
	// ReadTimeout is the longest a peer may take to send the rest of a frame it has
	// begun. Default 10 s.
	ReadTimeout time.Duration `config:"read_timeout" doc:"longest a peer may take to send the rest of a frame"`
	// DrainTimeout is the longest a stop waits for the calls being served. Default 15 s.
	DrainTimeout time.Duration `config:"drain_timeout" doc:"longest a stop waits for the calls being served"`
}

// ClientConfig is what operators set of a client. The zero value of a field means
// its default.
type ClientConfig struct {
	// Service is the name of the called service, as its servers give it. Required.
	Service string `config:"service" doc:"name of the called service"`
	// Addrs are the host:port of the instances. Without a host it means loopback.
	// Required.
	Addrs []string `config:"addrs" doc:"host:port of the instances"`
	// Connections is the number of connections to each instance, 1 to 64. Default 4.
	Connections int `config:"connections" unit:"connections" doc:"how many to each instance"`
	// Timeout caps every call, attempts included; contract and context may ask for
	// less. Default none.
	Timeout time.Duration `config:"timeout" doc:"caps every call, attempts included; 0 for no cap"`
	// ConnectTimeout is the longest an attempt to connect may take. Default 1 s.
	ConnectTimeout time.Duration `config:"connect_timeout" doc:"longest an attempt to connect may take"`
	// MaxFrameBytes is the longest message either way, 1 KiB to 1 GiB. Default 16 MiB.
	MaxFrameBytes int `config:"max_frame_bytes" unit:"bytes" doc:"longest message either way"`
}

// The values of ServerConfig.Admission.
const (
	AdmissionOn  = "on"
	AdmissionOff = "off"
)

const (
	defaultMaxFrameBytes  = 16 << 20
	defaultMaxConnections = 10_000
	defaultMaxInFlight    = 1_000_000
	defaultReadTimeout    = 10 * time.Second
	defaultDrainTimeout   = 15 * time.Second
	defaultConnections    = 4
	defaultConnectTimeout = time.Second
)

// withDefaults gives the configuration with every field set, or an error that
// names every field that is wrong.
func (c ServerConfig) withDefaults() (ServerConfig, error) {
	var v validator
	v.name("Service", c.Service)
	v.addr("Addr", &c.Addr, "127.0.0.1:0")
	if c.Admin != "" {
		v.addr("Admin", &c.Admin, "")
	}
	number(&v, "MaxFrameBytes", &c.MaxFrameBytes, defaultMaxFrameBytes, 1<<10, 1<<30)
	number(&v, "MaxConnections", &c.MaxConnections, defaultMaxConnections, 1, 1<<24)
	number(&v, "MaxInFlight", &c.MaxInFlight, defaultMaxInFlight, 1, 1<<24)
	number(&v, "ReadTimeout", &c.ReadTimeout, defaultReadTimeout, time.Millisecond, time.Hour)
	if c.Admission == "" {
		c.Admission = AdmissionOn
	}
	if c.Admission != AdmissionOn && c.Admission != AdmissionOff {
		v.add("Admission %q: it must be %q or %q", c.Admission, AdmissionOn, AdmissionOff)
	}
	number(&v, "DrainTimeout", &c.DrainTimeout, defaultDrainTimeout, time.Millisecond, time.Hour)
	return c, v.error("framework.ServerConfig")
}

func (c ClientConfig) withDefaults() (ClientConfig, error) {
	var v validator
	v.name("Service", c.Service)
	if len(c.Addrs) == 0 {
		v.add("Addrs is empty: give at least one host:port")
	}
	c.Addrs = append([]string(nil), c.Addrs...)
	for i := range c.Addrs {
		v.addr(fmt.Sprintf("Addrs[%d]", i), &c.Addrs[i], "")
		if _, port, err := net.SplitHostPort(c.Addrs[i]); err == nil && port == "0" {
			v.add("Addrs[%d]: port 0 cannot be called: give the port the server listens on", i)
		}
	}
	number(&v, "Connections", &c.Connections, defaultConnections, 1, 64)
	if c.Timeout < 0 {
		v.add("Timeout is %v: it must not be negative; 0 means no cap", c.Timeout)
	}
	number(&v, "ConnectTimeout", &c.ConnectTimeout, defaultConnectTimeout, time.Millisecond, time.Minute)
	number(&v, "MaxFrameBytes", &c.MaxFrameBytes, defaultMaxFrameBytes, 1<<10, 1<<30)
	return c, v.error("framework.ClientConfig")
}

// validator collects everything that is wrong, so that one run shows it all.
type validator struct{ errs []error }

func (v *validator) add(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

func (v *validator) error(what string) error {
	if len(v.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", what, errors.Join(v.errs...))
}

var serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (v *validator) name(field, name string) {
	switch {
	case name == "":
		v.add("%s is empty: give the name of the service", field)
	case !serviceName.MatchString(name):
		v.add("%s %q: use at most 63 lower-case letters, digits and inner hyphens", field, name)
	}
}

// addr sets the default and turns an address without a host into a loopback one.
func (v *validator) addr(field string, addr *string, def string) {
	if *addr == "" {
		if def == "" {
			v.add("%s is empty: give a host:port", field)
		}
		*addr = def
		return
	}
	host, port, err := net.SplitHostPort(*addr)
	if err != nil {
		v.add("%s %q is not host:port: %v", field, *addr, err)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.add("%s %q: the port must be a number from 0 to 65535", field, *addr)
		return
	}
	if host == "" {
		host = "127.0.0.1"
	}
	*addr = net.JoinHostPort(host, port)
}

func number[T int | time.Duration](v *validator, field string, value *T, def, lo, hi T) {
	if *value == 0 {
		*value = def
	}
	if *value < lo || *value > hi {
		v.add("%s is %v: it must be %v to %v", field, *value, lo, hi)
	}
}
