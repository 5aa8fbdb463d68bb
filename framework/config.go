// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/rpc"
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
	// Mode is how calls are served: "coroutine", a goroutine for each; "thread", a fixed
	// number of threads of the operating system, for handlers that block in C code; or
	// "process", a number of processes, for handlers that may crash. See docs/serving.md.
	// Default coroutine.
	Mode string `config:"mode" doc:"how calls are served: coroutine, thread or process"`
	// Threads is how many calls the mode thread serves at once, 1 to 10,000. Default 64.
	Threads int `config:"threads" unit:"threads" doc:"how many calls the mode thread serves at once; 0 for 64"`
	// ThreadQueue is how many calls may wait for a thread; what comes beyond is refused at
	// once. How long they wait admission knows. Default 1,024.
	ThreadQueue int `config:"thread_queue" unit:"calls" doc:"how many may wait for a thread; 0 for 1,024"`
	// Workers is how many processes the mode process serves with, 1 to 256. Limits count for
	// each of them. Default one for each core.
	Workers int `config:"workers" unit:"processes" doc:"how many the mode process serves with; 0 for one for each core"`
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
	// IdleTimeout is how long a connection may bring nothing, 15 s to 8,760 h, a year: one
	// whose calls are all answered, and over which nobody asks whether the server is there,
	// is then left by its client or, if that does not, closed within about a minute. Our
	// clients lose no call by it and connect again. Default 10 min.
	IdleTimeout time.Duration `config:"idle_timeout" doc:"how long a connection may bring nothing before it is closed"`
	// DrainTimeout is the longest a stop waits for the calls being served. Default 15 s.
	DrainTimeout time.Duration `config:"drain_timeout" doc:"longest a stop waits for the calls being served"`
	// TLS is how the server proves who it is, and whom it believes. Default none.
	TLS TLS `config:"tls"`
	// Plaintext is "loopback" or "anywhere": where calls may come without TLS. An Addr that
	// other machines reach needs TLS or "anywhere". Default loopback.
	Plaintext string `config:"plaintext" doc:"loopback or anywhere: where calls may come without TLS"`
	// Allow says who may call what. With one rule or more nothing else is allowed. It needs
	// TLS. Default none: whoever is connected may call everything.
	Allow []Allow `config:"allow" doc:"who may call what; with one rule nothing else is allowed"`
}

// ClientConfig is what operators set of a client. The zero value of a field means
// its default.
type ClientConfig struct {
	// Service is the name of the called service, as its servers give it. Required.
	Service string `config:"service" doc:"name of the called service"`
	// Addrs are the host:port of the instances. Without a host it means loopback.
	// Required, unless WithDiscovery says where to find them.
	Addrs []string `config:"addrs" doc:"host:port of the instances"`
	// Connections is the number of connections to each instance, 1 to 64. Default 4.
	Connections int `config:"connections" unit:"connections" doc:"how many to each instance"`
	// Timeout caps every call, attempts included; contract and context may ask for
	// less. Default none.
	Timeout time.Duration `config:"timeout" doc:"caps every call, attempts included; 0 for no cap"`
	// ConnectTimeout is the longest an attempt to connect may take. Default 1 s.
	ConnectTimeout time.Duration `config:"connect_timeout" doc:"longest an attempt to connect may take"`
	// ReadTimeout is the longest a server may take to send the rest of an answer it has
	// begun: then the connection is given up. Default 10 s.
	ReadTimeout time.Duration `config:"read_timeout" doc:"longest a server may take to send the rest of an answer"`
	// MaxFrameBytes is the longest message either way, 1 KiB to 1 GiB. Default 16 MiB.
	MaxFrameBytes int `config:"max_frame_bytes" unit:"bytes" doc:"longest message either way"`
	// Campus is where this process stands. Calls go to instances of the same campus while
	// enough of them are well. Default none: all are equally near.
	Campus string `config:"campus" doc:"where this process stands: instances there are preferred"`
	// Retries is "on" or "off": whether a call is made again that an instance has refused
	// or, where its contract has max_attempts, that was lost; within a tenth of all calls.
	// Default on.
	Retries string `config:"retries" doc:"on or off: whether calls are made again, within a tenth of all"`
	// NoBreaker are the methods, as package.Service/Method or * for all, that have no
	// circuit breaker. Default none: all have one at each instance.
	NoBreaker []string `config:"no_breaker" doc:"methods without a circuit breaker, as package.Service/Method; * for all"`
	// Hedge are the methods, as package.Service/Method or * for all, of whose calls a
	// second attempt goes to another instance when the first takes longer than 95 of 100
	// do. Only those that their contract lets run twice (idempotency_level and
	// max_attempts) ever do. Default none. Needs Retries.
	Hedge []string `config:"hedge" doc:"methods whose late calls are made elsewhere, too, as package.Service/Method; * for all"`
	// TLS is how the client proves who it is, and whom it believes. Default none.
	TLS TLS `config:"tls"`
	// Plaintext is "loopback" or "anywhere": where calls may go without TLS. Default
	// loopback: an instance on another machine is not called in the clear.
	Plaintext string `config:"plaintext" doc:"loopback or anywhere: where calls may go without TLS"`
}

// The values of ServerConfig.Admission and ClientConfig.Retries.
const (
	On  = "on"
	Off = "off"
)

// The values of ServerConfig.Mode.
const (
	ModeCoroutine = "coroutine"
	ModeThread    = "thread"
	ModeProcess   = "process"
)

const (
	defaultMaxFrameBytes  = 16 << 20
	defaultMaxConnections = 10_000
	defaultMaxInFlight    = 1_000_000
	defaultReadTimeout    = 10 * time.Second
	defaultIdleTimeout    = 10 * time.Minute
	leastIdleTimeout      = 15 * time.Second // clients ask every 10 to 11 s whether a server is there
	defaultDrainTimeout   = 15 * time.Second
	defaultThreads        = 64
	defaultThreadQueue    = 1024
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
	number(&v, "IdleTimeout", &c.IdleTimeout, defaultIdleTimeout, leastIdleTimeout, 365*24*time.Hour)
	if c.Admission == "" {
		c.Admission = On
	}
	if c.Admission != On && c.Admission != Off {
		v.add("Admission %q: it must be %q or %q", c.Admission, On, Off)
	}
	number(&v, "DrainTimeout", &c.DrainTimeout, defaultDrainTimeout, time.Millisecond, time.Hour)
	v.mode(&c)
	c.TLS.check(&v)
	v.plaintext(&c.Plaintext, &c.TLS)
	allowList(c.Allow).check(&v, &c.TLS)
	return c, v.error("framework.ServerConfig")
}

func (c ClientConfig) withDefaults(discovered bool) (ClientConfig, error) {
	var v validator
	v.name("Service", c.Service)
	switch {
	case len(c.Addrs) == 0 && !discovered:
		v.add("Addrs is empty: give at least one host:port")
	case len(c.Addrs) > 0 && discovered:
		v.add("Addrs and WithDiscovery are both given: leave one out")
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
	number(&v, "ReadTimeout", &c.ReadTimeout, defaultReadTimeout, time.Millisecond, time.Hour)
	number(&v, "MaxFrameBytes", &c.MaxFrameBytes, defaultMaxFrameBytes, 1<<10, 1<<30)
	if c.Retries == "" {
		c.Retries = On
	}
	if c.Retries != On && c.Retries != Off {
		v.add("Retries %q: it must be %q or %q", c.Retries, On, Off)
	}
	if c.Retries == Off && len(c.Hedge) > 0 {
		v.add("Hedge is given but Retries is off: a hedge is an attempt more; leave Hedge out or set Retries to %q", On)
	}
	v.methods("NoBreaker", c.NoBreaker)
	v.methods("Hedge", c.Hedge)
	c.TLS.check(&v)
	v.plaintext(&c.Plaintext, &c.TLS)
	if c.TLS.on() && len(c.TLS.Peers) == 0 {
		c.TLS.Peers = []string{"*/" + c.Service}
	}
	return c, v.error("framework.ClientConfig")
}

// mode checks how calls are served, and that nothing is asked of a mode that is not on.
func (v *validator) mode(c *ServerConfig) {
	switch c.Mode {
	case "":
		c.Mode = ModeCoroutine
	case ModeCoroutine, ModeThread, ModeProcess:
	default:
		v.add("Mode %q: it must be %q, %q or %q", c.Mode, ModeCoroutine, ModeThread, ModeProcess)
		return
	}
	if c.Mode == ModeThread {
		number(v, "Threads", &c.Threads, defaultThreads, 1, 10_000)
		number(v, "ThreadQueue", &c.ThreadQueue, defaultThreadQueue, 1, 1<<20)
	} else if c.Threads != 0 || c.ThreadQueue != 0 {
		v.add("Threads or ThreadQueue is given but Mode is %q: leave them out or set Mode to %q", c.Mode, ModeThread)
	}
	if c.Mode == ModeProcess {
		number(v, "Workers", &c.Workers, cores(), 1, 256)
	} else if c.Workers != 0 {
		v.add("Workers is given but Mode is %q: leave it out or set Mode to %q", c.Mode, ModeProcess)
	}
}

// cores is how many there are for this process, as it was before anything changed that.
var cores = sync.OnceValue(func() int { return min(runtime.NumCPU(), runtime.GOMAXPROCS(0), 256) })

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

// methods looks whether names are those of methods, which are not known before they are
// called.
func (v *validator) methods(field string, names []string) {
	for i, name := range names {
		if service, method, ok := strings.Cut(name, "/"); name != allMethods && (!ok || service == "" || method == "" || strings.Contains(method, "/")) {
			v.add("%s[%d] %q: give package.Service/Method, or * for all", field, i, name)
		}
	}
}

const allMethods = "*"

// named says whether a list of methods holds m.
func named(list []string, m *rpc.Method) bool {
	for _, name := range list {
		if name == allMethods || len(name) == len(m.Service)+1+len(m.Name) && strings.HasPrefix(name, m.Service) && strings.HasSuffix(name, m.Name) {
			return true
		}
	}
	return false
}

func number[T int | time.Duration](v *validator, field string, value *T, def, lo, hi T) {
	if *value == 0 {
		*value = def
	}
	if *value < lo || *value > hi {
		v.add("%s is %v: it must be %v to %v", field, *value, lo, hi)
	}
}
