// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/app/topology"
	"github.com/sluice-rpc/sluice/framework/activation"
	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/qos"
)

const (
	gateways = 2

	// afterGateways is the niceness of the services, which share the processors with the
	// gateways: under overload a request must be refused while the services are busy, not
	// after. It is a third of a gateway's share. At five times the usual load half of those
	// refused waited 15 ms for a processor and wait 2 ms so (ADR 10).
	afterGateways = 5

	readyTime = 30 * time.Second // for all children to be ready at the start
)

// SplitConfig is what a Split needs.
type SplitConfig struct {
	Topology topology.Config // Gateway.Listen is the first gateway's; the services get free ports
	Source   config.Source   // where it was read; if it has a file, the children hear of regions that come and go there
	Data     *Data
	Binary   string    // the moments command
	Flags    []string  // more flags for its run command
	Stderr   io.Writer // of the children
	Log      *slog.Logger
}

// Split runs each service, and two gateways, as a process of its own, and starts
// again what dies.
type Split struct {
	cfg      SplitConfig
	log      *slog.Logger
	file     string // the configuration that all children read
	children []*child

	wasReady atomic.Bool // all children were ready once

	mu    sync.Mutex
	state State // guarded by mu
}

// NewSplit binds the addresses of the children, which get them as sockets, and writes
// their configuration. Run closes the sockets.
func NewSplit(ctx context.Context, cfg SplitConfig) (_ *Split, err error) {
	s := &Split{cfg: cfg, log: cfg.Log, file: filepath.Join(cfg.Data.Dir(), "topology.yaml")}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.state = State{
		PID: os.Getpid(), Started: time.Now().UTC(), Split: true, Region: cfg.Topology.Region.Number,
		Services: map[topology.Role]Running{},
	}
	defer func() {
		if err != nil {
			for _, c := range s.children {
				err = errors.Join(err, c.closeSockets())
			}
		}
	}()
	for _, r := range topology.Placed() {
		c := &child{name: string(r), role: r}
		s.children = append(s.children, c)
		addr, err := c.bind(ctx, string(r), "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		admin, err := c.bind(ctx, adminSocket(r), "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		c.health = "http://" + admin + "/readyz"
		*s.cfg.Topology.Service(r) = topology.Service{Listen: addr, Admin: admin, Addrs: []string{addr}}
		at := Running{Addr: addr, Admin: admin}
		if listen := cfg.Topology.Line.Addr(r); listen != "" && cfg.Topology.Abroad() {
			if at.Line, err = c.bind(ctx, lineSocket(r), listen); err != nil {
				return nil, err
			}
		}
		s.state.Services[r] = at
	}
	if err := s.addGateways(ctx); err != nil {
		return nil, err
	}
	if s.cfg.Topology.Gateway.QoSKey == "" { // a user has one level, whichever gateway he comes to
		key := make([]byte, qos.KeySize)
		_, _ = rand.Read(key) // never fails, by its documentation
		s.cfg.Topology.Gateway.QoSKey = config.Secret(hex.EncodeToString(key))
	}
	if s.cfg.Topology.Files.LinkKey == "" { // the gateways have no data directory to find it in
		key, err := cfg.Data.linkKey()
		if err != nil {
			return nil, err
		}
		s.cfg.Topology.Files.LinkKey = config.Secret(hex.EncodeToString(key[:]))
	}
	if err := writeFile(s.file, s.yaml(), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of the processes: %w", err)
	}
	return s, nil
}

func (s *Split) addGateways(ctx context.Context) error {
	cfg := s.cfg.Topology
	scheme, asked := "http://", cfg.Gateway.Listen
	if cfg.Gateway.TLSCert != "" {
		scheme = "https://"
	}
	listen := loopback(asked)
	for i := range gateways {
		c := &child{name: fmt.Sprintf("gateway %d", i+1), role: topology.Gateway, gateway: i}
		s.children = append(s.children, c)
		addr, err := c.bind(ctx, string(topology.Gateway), listen)
		if err != nil {
			return err
		}
		admin, err := c.bind(ctx, adminSocket(topology.Gateway), "127.0.0.1:0")
		if err != nil {
			return err
		}
		at := GatewayState{URL: scheme + addr, Admin: admin}
		c.args = []string{"--set", "gateway.listen=" + addr}
		if peers := cfg.Line.Addr(topology.Gateway); i == 0 && peers != "" && cfg.Abroad() {
			if at.Line, err = c.bind(ctx, lineSocket(topology.Gateway), peers); err != nil {
				return err
			}
		} else {
			c.args = append(c.args, "--set", "line.gateway=") // there is one address for it
		}
		s.state.Gateways = append(s.state.Gateways, at)
		if scheme == "http://" { // a certificate may be anybody's: then the services' health must do
			c.health = scheme + addr + "/readyz"
		}
		listen = nextPort(addr, asked)
	}
	return nil
}

// yaml gives the topology as the children read it.
func (s *Split) yaml() []byte {
	t := s.cfg.Topology
	b := fmt.Appendf(nil, "# Written by moments up --split at each start.\nregion:\n  number: %d\n  name: %q\n  clock: %v\n", t.Region.Number, t.Region.Name, t.Region.Clock)
	for _, r := range topology.Placed() {
		at := t.Service(r)
		b = fmt.Appendf(b, "%s:\n  listen: %q\n  admin: %q\n  addrs: [%q]\n", r, at.Listen, at.Admin, at.Addrs[0])
	}
	b = fmt.Appendf(b, "files:\n  blobs: %q\n  link-key: %q\n  cache-dir: %q\n  cache-size: %v\n",
		t.Files.Blobs, string(t.Files.LinkKey), t.Files.CacheDir, t.Files.CacheSize)
	b = AppendRegions(b, t)
	return fmt.Appendf(b, "gateway:\n  limits: %t\n  tls-cert: %q\n  tls-key: %q\n  admission: %s\n  qos-key: %q\n  qos-table: %q\n  access-log: %q\n",
		t.Gateway.Limits, t.Gateway.TLSCert, t.Gateway.TLSKey, t.Gateway.Admission, string(t.Gateway.QoSKey), t.Gateway.QoSTable, t.Gateway.AccessLog)
}

// nextPort gives the address of the next gateway: the next port, any free one if any
// was asked for.
func nextPort(addr, asked string) string {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if _, port, err := net.SplitHostPort(asked); err == nil && port == "0" {
		return net.JoinHostPort(host, "0")
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(host, strconv.Itoa(port+1))
}

// A child is a process that is kept running.
type child struct {
	name    string
	role    topology.Role
	gateway int // index of a gateway
	args    []string
	health  string               // URL that answers 200 when the child is ready; empty for none
	sockets []*activation.Socket // what it serves on; its own goroutine's once that runs

	stop  context.CancelFunc
	ended chan struct{} // closed when it will not be started again
}

// bind gives a child one more socket and tells its address.
func (c *child) bind(ctx context.Context, name, addr string) (string, error) {
	socket, err := activation.Listen(ctx, name, addr)
	if err != nil {
		return "", listenError(c.name, err)
	}
	c.sockets = append(c.sockets, socket)
	return socket.Addr(), nil
}

// closeSockets lets go of a child's sockets: when the child closes them too, nobody
// waits any more for an answer that does not come.
func (c *child) closeSockets() error {
	var errs []error
	for _, socket := range c.sockets {
		errs = append(errs, socket.Close())
	}
	return errors.Join(errs...)
}

// Run starts all children, calls up when they are ready, and keeps them running until
// ctx ends. Then it stops gateways first and services after. An error of up, or a
// child that does not become ready at the start, ends it too.
func (s *Split) Run(ctx context.Context, up func(context.Context, *State) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(s.children))
	for _, c := range s.children {
		var own context.Context
		own, c.stop = context.WithCancel(context.WithoutCancel(ctx))
		c.ended = make(chan struct{})
		go func() { // ended is waited for below
			defer close(c.ended)
			if err := s.keep(own, c); err != nil {
				failed <- err
			}
		}()
	}
	ready := make(chan error, 1)
	go func() { ready <- s.whenReady(ctx, up) }() // waited for below
	hearing := make(chan error, 1)
	go func() { hearing <- s.followPeers(ctx) }() // waited for below
	err := s.watch(ctx, cancel, failed, ready)
	cancel()
	err = errors.Join(err, <-hearing)
	for _, step := range stopSteps(s.children) {
		for _, c := range step {
			c.stop()
		}
		for _, c := range step {
			<-c.ended
		}
	}
	return err
}

// followPeers writes the children's configuration again, which they watch, when regions
// come or go in that of the Split, until ctx ends.
func (s *Split) followPeers(ctx context.Context) error {
	if s.cfg.Source.File == "" {
		return nil
	}
	return config.Watcher[topology.Config]{
		Defaults: topology.Default(), Source: s.cfg.Source,
		Refused: func(err error) {
			s.log.ErrorContext(ctx, "the configuration is not right: the other regions stay as they are", "err", err)
		},
		Changed: func(t topology.Config) {
			if t.Region != s.cfg.Topology.Region {
				s.log.ErrorContext(ctx, "the configuration is of another region: the other regions stay as they are", "file", s.cfg.Source.File, "region", t.Region.Name)
				return
			}
			s.cfg.Topology.Regions = t.Regions
			if err := writeFile(s.file, s.yaml(), 0o600); err != nil {
				s.log.ErrorContext(ctx, "the processes do not hear of other regions that come or go", "err", err)
			}
		},
	}.Run(ctx)
}

// watch waits until ctx ends or something goes wrong.
func (s *Split) watch(ctx context.Context, cancel context.CancelFunc, failed, ready <-chan error) error {
	select {
	case err := <-failed:
		cancel()
		return errors.Join(err, <-ready)
	case err := <-ready:
		if ctx.Err() != nil {
			return nil // what it could not do any more is nobody's concern
		}
		if err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// stopSteps gives the children in the order in which they are stopped.
func stopSteps(children []*child) [][]*child {
	steps := make([][]*child, 0, 1+len(topology.Services()))
	for _, r := range slices.Backward(topology.Roles()) {
		var step []*child
		for _, c := range children {
			if c.role == r {
				step = append(step, c)
			}
		}
		steps = append(steps, step)
	}
	return steps
}

// whenReady waits until all children are ready and then tells.
func (s *Split) whenReady(ctx context.Context, up func(context.Context, *State) error) error {
	limit, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for _, c := range s.children {
		if err := untilReady(limit, c.health); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // stopped by its owner, not by a fault
			}
			return fmt.Errorf("%s is not ready after %v: %w", c.name, readyTime, err)
		}
	}
	s.wasReady.Store(true)
	s.mu.Lock()
	state := s.state
	state.Gateways, state.Services = slices.Clone(state.Gateways), maps.Clone(state.Services)
	err := s.cfg.Data.WriteState(state)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return up(ctx, &state)
}

func untilReady(ctx context.Context, url string) error {
	if url == "" {
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := adminClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// keep runs a child until ctx ends and starts it again when it dies. Before all were
// ready once it is an error: starting again would not mend what is wrong.
func (s *Split) keep(ctx context.Context, c *child) (err error) {
	defer func() { err = errors.Join(err, c.closeSockets()) }()
	return keepRunning(ctx, s.log, c.name, s.wasReady.Load, func(ctx context.Context) error { return s.runOnce(ctx, c) })
}

// runOnce runs the process of a child until it ends; when ctx ends it is asked to.
func (s *Split) runOnce(ctx context.Context, c *child) error {
	args := append([]string{"run", string(c.role), "--config", s.file, "--data", s.cfg.Data.Dir(), "--until-stdin-ends"}, s.cfg.Flags...)
	binary, args := s.cfg.Binary, append(args, c.args...)
	if nice, err := exec.LookPath("nice"); err == nil && c.role != topology.Gateway {
		binary, args = nice, append([]string{"-n", strconv.Itoa(afterGateways), binary}, args...)
	}
	cmd := exec.Command(binary, args...) //nolint:noctx // ending it is asked for through its input
	cmd.Stderr = s.cfg.Stderr
	if err := activation.Pass(cmd, c.sockets...); err != nil {
		return err
	}
	return runProcess(ctx, c.name, cmd, func(pid int) { s.note(c, pid) }, c.closeSockets)
}

// note keeps the process number of a child in the state, for who looks.
func (s *Split) note(c *child, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var known bool
	if c.role == topology.Gateway {
		known = s.state.Gateways[c.gateway].PID != 0
		s.state.Gateways[c.gateway].PID = pid
	} else {
		at := s.state.Services[c.role]
		known = at.PID != 0
		at.PID = pid
		s.state.Services[c.role] = at
	}
	if known { // started again: the state was written before
		if err := s.cfg.Data.WriteState(s.state); err != nil {
			s.log.Error("the state is not up to date", "err", err)
		}
	}
}
