// SPDX-License-Identifier: Apache-2.0

package framework

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-rpc/sluice/framework/config"
	"github.com/sluice-rpc/sluice/framework/internal/admin"
	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/process"
	"github.com/sluice-rpc/sluice/framework/internal/transport"
	"github.com/sluice-rpc/sluice/framework/rpc"
)

// dialed is the configuration of a connection that Dial has made, and how it has changed.
type dialed struct {
	discovered bool // WithDiscovery says where the instances are
	log        *slog.Logger
	client     transport.Client
	protocol   string                   // that connections speak; empty for the framework's own
	list       interceptor.ClientConfig // what of it no configuration says
	budget     *interceptor.Budget
	secured    atomic.Pointer[secured] // nil without TLS

	mu      sync.Mutex
	now     ClientConfig   // with defaults; guarded by mu
	history []admin.Reload // the latest first; guarded by mu
	closed  bool           // guarded by mu
}

// liveOfClient are the settings, by their names in the file, that Conn.Reload can change.
var liveOfClient = []string{
	"addrs", "timeout", "connect_timeout", "read_timeout", "max_frame_bytes", "campus", "retries", "no_breaker", "hedge",
	"tls.ca", "tls.cert", "tls.key", "tls.trust_domain", "tls.peers",
}

// Reload takes another configuration of the connection while calls are made, and gives
// what is different. All of it is checked first: if anything is wrong, or needs a new
// connection, nothing changes and the error says why. Calls under way end as they have
// begun. The next call takes timeout, retries, no_breaker, hedge, campus, max_frame_bytes
// and addrs; the next connection to an instance takes connect_timeout, read_timeout and
// what is below tls. What happened is in the log and on /admin/config. It is safe for
// concurrent use.
func (c *Conn) Reload(cfg ClientConfig) ([]config.Change, error) {
	if c.dialed == nil {
		return nil, errors.New("framework: a connection within the process has no configuration")
	}
	c.dialed.mu.Lock()
	defer c.dialed.mu.Unlock()
	changes, take, err := c.prepare(cfg)
	if err == nil {
		take()
	}
	c.dialed.note(changes, err)
	return changes, err
}

// prepare checks a configuration and gives what takes it. It is called with dialed.mu
// held.
func (c *Conn) prepare(cfg ClientConfig) (changes []config.Change, take func(), err error) {
	d := c.dialed
	if cfg, err = cfg.withDefaults(d.discovered); err != nil {
		return nil, nil, fmt.Errorf("client %s: %w", d.now.Service, err)
	}
	if changes, err = config.Diff(d.now, cfg); err != nil || len(changes) == 0 {
		return nil, func() {}, err
	}
	if d.closed {
		return nil, nil, fmt.Errorf("client %s: the connection is closed", d.now.Service)
	}
	fixed := notAmong(liveOfClient, changes)
	if d.now.TLS.on() != cfg.TLS.on() {
		fixed = append(fixed, "tls, on or off")
	}
	if len(fixed) > 0 {
		return nil, nil, fmt.Errorf("client %s: %s: cannot change without a restart", d.now.Service, strings.Join(fixed, ", "))
	}
	files := d.secured.Load()
	if cfg.TLS.on() {
		if files, err = cfg.TLS.open(d.log, cfg.TLS.Peers); err != nil {
			return nil, nil, fmt.Errorf("client %s: %w", d.now.Service, err)
		}
	}
	return changes, func() {
		d.secured.Store(files)
		d.client.Change(d.transport(cfg))
		if !d.discovered && !slices.Equal(d.now.Addrs, cfg.Addrs) {
			d.client.Follow(instancesAt(cfg.Addrs))
		}
		send := d.steps(cfg)
		c.send.Store(&send)
		streams := d.stepsOfStreams(cfg)
		c.streams.Store(&streams)
		d.now = cfg
	}, nil
}

// transport gives what the connections are configured with.
func (d *dialed) transport(cfg ClientConfig) transport.ClientConfig {
	t := transport.ClientConfig{
		Service: cfg.Service, Campus: cfg.Campus, Items: process.Items().ClientTransport(cfg.Service),
		Plaintext:   cfg.Plaintext == PlaintextAnywhere,
		Connections: cfg.Connections, MaxFrameBytes: cfg.MaxFrameBytes, ConnectTimeout: cfg.ConnectTimeout, ReadTimeout: cfg.ReadTimeout,
		Behind: admit.Process().Behind, Breaks: func(m *rpc.Method) bool { return !named(cfg.NoBreaker, m) },
	}
	if cfg.TLS.on() {
		t.TLS = func() *tls.Config {
			now := d.secured.Load()
			credentials := now.credentials
			if d.protocol != "" {
				credentials = credentials.Speaking(d.protocol)
			}
			return credentials.Client(&now.peers)
		}
	}
	return t
}

// steps gives what a call goes through. A hedge learns anew how long calls take.
func (d *dialed) steps(cfg ClientConfig) interceptor.Transport {
	list := d.list
	list.Limit = cfg.Timeout
	if cfg.Retries == On {
		list.Budget = d.budget
	}
	if len(cfg.Hedge) > 0 {
		list.Hedges = func(m *rpc.Method) bool { return named(cfg.Hedge, m) }
	}
	return interceptor.Client(list, func(ctx context.Context, c *interceptor.ClientCall) error {
		c.Response = c.Method.NewResponse()
		return d.client.Call(ctx, c)
	})
}

// stepsOfStreams gives what a stream goes through: it is never made again. It is nil if
// none is carried.
func (d *dialed) stepsOfStreams(cfg ClientConfig) interceptor.Transport {
	carrier, ok := d.client.(transport.Streamer)
	if !ok {
		return nil
	}
	list := d.list
	list.Limit = cfg.Timeout
	return interceptor.Client(list, carrier.Carry)
}

func (d *dialed) close() {
	d.mu.Lock()
	d.closed = true // no Reload follows instances any more
	d.mu.Unlock()
	d.client.Close()
}

// note is called with mu held.
func (d *dialed) note(changes []config.Change, err error) {
	d.history = noted(d.history, d.log, "client "+d.now.Service, changes, err)
}

// openConns are the connections of this process that are open, for its admin pages.
var openConns connections

type connections struct {
	mu  sync.Mutex
	all map[*Conn]struct{} // guarded by mu
}

func (l *connections) join(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[*Conn]struct{}{}
	}
	l.all[c] = struct{}{}
}

func (l *connections) leave(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, c)
}

// describe gives the settings of all connections, by service, and how they have changed.
func (l *connections) describe() (all []admin.Setting, history []admin.Reload) {
	l.mu.Lock()
	open := make([]*dialed, 0, len(l.all))
	for c := range l.all {
		open = append(open, c.dialed)
	}
	l.mu.Unlock()
	configs := make([]ClientConfig, len(open))
	for i, d := range open {
		d.mu.Lock()
		configs[i] = d.now
		history = append(history, d.history...)
		d.mu.Unlock()
	}
	slices.SortFunc(configs, func(a, b ClientConfig) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), slices.Compare(a.Addrs, b.Addrs))
	})
	for _, cfg := range configs {
		all = append(all, settingsOfClient(cfg)...)
	}
	return all, history
}
