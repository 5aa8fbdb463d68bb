// SPDX-License-Identifier: Apache-2.0

package grpcclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/sluice-rpc/sluice/framework/internal/balance"
	"github.com/sluice-rpc/sluice/framework/internal/grpcwire"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
)

// instance is the connections to one instance. A name with several addresses is one, whose
// connections take turns among them.
type instance struct {
	links   []*link
	next    atomic.Uint32
	retired chan struct{} // closed when it is one of the service's instances no more
}

var _ balance.Endpoint = (*instance)(nil)

// connect starts connecting to an instance.
func (c *client) connect(p *balance.Peer) balance.Endpoint {
	i := &instance{retired: make(chan struct{})}
	for range c.cfg.Load().Connections {
		l := &link{client: c, addr: p.Addr, changed: make(chan struct{}), idle: make(chan struct{}, 1)}
		i.links = append(i.links, l)
		l.open()
		c.done.Go(func() { l.run(c.ctx, i.retired) })
	}
	return i
}

// link gives a connection that calls can be sent on, nil if there is none.
func (i *instance) link() *link {
	start := int(i.next.Add(1))
	for k := range i.links {
		if l := i.links[(start+k)%len(i.links)]; l.isUp() {
			return l
		}
	}
	return nil
}

// Up implements balance.Endpoint.
func (i *instance) Up() bool {
	for _, l := range i.links {
		if l.isUp() {
			return true
		}
	}
	return false
}

// Attempt implements balance.Endpoint.
func (i *instance) Attempt(first bool) (ended <-chan struct{}, failed error) {
	for _, l := range i.links {
		switch wait, tried, err := l.state(); {
		case wait == over:
			return wait, nil
		case err != nil:
			failed = err
		case !first || !tried:
			ended = wait
		}
	}
	return ended, failed
}

// Retire implements balance.Endpoint.
func (i *instance) Retire() { close(i.retired) }

// link is one connection of grpc-go, which makes it anew whenever it is lost.
type link struct {
	client *client
	addr   string
	grpc   *grpc.ClientConn // nil if it could not be made
	calls  atomic.Int64     // that are on it
	made   atomic.Uint64    // calls since it was opened
	idle   chan struct{}    // pinged when calls falls to zero

	mu      sync.Mutex
	changed chan struct{}  // closed when the state has; guarded by mu
	tried   bool           // an attempt to connect has ended; guarded by mu
	err     error          // of the last attempt to connect; guarded by mu
	now     *grpcwire.Conn // the latest connection; guarded by mu
}

func (l *link) open() {
	cfg := l.client.cfg.Load()
	scheme := "dns:///"
	if host, _, _ := net.SplitHostPort(l.addr); net.ParseIP(host) != nil {
		scheme = "passthrough:///"
	}
	var err error
	l.grpc, err = grpc.NewClient(scheme+l.addr,
		grpc.WithTransportCredentials(secured{link: l}),
		grpc.WithContextDialer(l.dial),
		grpc.WithStatsHandler(sizes{}),
		grpc.WithDisableRetry(), // ours have a budget, and know what has run
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithIdleTimeout(0), // a connection is there before it is needed
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: .2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: cfg.ConnectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: l.client.own.Keepalive, Timeout: l.client.own.Keepalive / 3}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(grpcwire.Codec)),
	)
	if err != nil {
		l.failed(err) // an address that cannot be one
	}
}

// isUp says whether a call can be sent.
func (l *link) isUp() bool { return l.grpc != nil && l.grpc.GetState() == connectivity.Ready }

// over is closed: there is nothing to wait for.
var over = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// state gives what to wait for, or why there is nothing to wait for.
func (l *link) state() (changed <-chan struct{}, tried bool, failed error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grpc == nil {
		return nil, true, l.err
	}
	switch l.grpc.GetState() { // whatever comes next closes changed
	case connectivity.Ready: // since it was asked whether it is
		return over, true, nil
	case connectivity.TransientFailure:
		if failed = l.err; failed == nil {
			failed = errors.New("the connection was lost")
		}
	case connectivity.Shutdown:
		failed = balance.ErrClosed
	default:
	}
	return l.changed, l.tried, failed
}

// run keeps the connection up until the client is closed, or the instance is none of the
// service's any more and its last calls have been answered.
func (l *link) run(ctx context.Context, retired <-chan struct{}) {
	if l.grpc == nil {
		return
	}
	leaves, leave := context.WithCancel(ctx)
	defer leave()
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			now := l.grpc.GetState()
			if now == connectivity.Idle {
				l.grpc.Connect()
			}
			l.note(now)
			if !l.grpc.WaitForStateChange(leaves, now) {
				return
			}
		}
	})
	select {
	case <-ctx.Done():
	case <-retired:
		l.rest(ctx)
	}
	leave()
	watch.Wait()
	_ = l.grpc.Close()
	l.note(connectivity.Shutdown) // who waits looks again
}

// retiresWithin is how long a connection of no more use waits for its last answers.
const retiresWithin = 30 * time.Second

func (l *link) rest(ctx context.Context) {
	limit := time.NewTimer(retiresWithin)
	defer limit.Stop()
	for l.calls.Load() > 0 {
		select {
		case <-l.idle:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// begin and end bound the time that a call is on the connection.
func (l *link) begin() {
	l.calls.Add(1)
	l.made.Add(1)
}

func (l *link) end() {
	if l.calls.Add(-1) == 0 {
		select {
		case l.idle <- struct{}{}:
		default:
		}
	}
}

// note lets those go on who wait for the state to change.
func (l *link) note(now connectivity.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now == connectivity.Ready || now == connectivity.TransientFailure {
		l.tried = true
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// failed notes why an attempt to connect has come to nothing.
func (l *link) failed(err error) {
	l.client.cfg.Load().Items.ConnectFailed.Inc()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// dial makes a connection, which is counted.
func (l *link) dial(ctx context.Context, addr string) (net.Conn, error) {
	cfg := l.client.cfg.Load()
	began := time.Now()
	raw, err := (&net.Dialer{Timeout: cfg.ConnectTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		err = fmt.Errorf("connect: %w", err)
		l.failed(err)
		return nil, err
	}
	if to, ok := raw.RemoteAddr().(*net.TCPAddr); ok && cfg.TLS == nil && l.client.own.TLS == nil && !cfg.Plaintext && !to.IP.IsLoopback() {
		err = fmt.Errorf("%s is another machine, and calls would go there in the clear: configure TLS, or say plaintext: anywhere", addr)
		l.failed(err)
		return nil, errors.Join(err, raw.Close())
	}
	c := &grpcwire.Conn{Conn: raw, Items: &cfg.Items.Traffic, Since: began}
	cfg.Items.Connected.Inc()
	cfg.Items.ConnectTime.RecordTime(time.Since(began))
	l.mu.Lock()
	l.now, l.err = c, nil
	l.mu.Unlock()
	return c, nil
}

// describe fills in what the connection is.
func (l *link) describe(one *peers.Connection) {
	_, _, one.Err = l.state()
	one.Calls, one.Waiting = l.made.Load(), int(l.calls.Load())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil && one.Err == nil {
		one.Local, one.Since = l.now.LocalAddr().String(), l.now.Since
		one.Received, one.Sent = l.now.Received.Load(), l.now.Sent.Load()
	}
}

// secured does the handshakes of a link. Certificates may change: each has its own
// configuration.
type secured struct {
	link *link
}

func (s secured) config() *tls.Config {
	switch cfg := s.link.client.cfg.Load(); {
	case cfg.TLS != nil:
		return cfg.TLS()
	case s.link.client.own.TLS != nil:
		return s.link.client.own.TLS.Clone()
	}
	return nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (s secured) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg := s.config()
	if cfg == nil {
		return insecure.NewCredentials().ClientHandshake(ctx, authority, raw)
	}
	ready, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, raw)
	if err != nil {
		s.link.failed(fmt.Errorf("TLS handshake: %w", err))
	}
	return ready, info, err
}

// ServerHandshake implements credentials.TransportCredentials: there is none here.
func (s secured) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.Join(errors.New("grpcclient: it accepts no connections"), raw.Close())
}

// Info implements credentials.TransportCredentials.
func (s secured) Info() credentials.ProtocolInfo {
	if s.config() == nil {
		return insecure.NewCredentials().Info()
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (s secured) Clone() credentials.TransportCredentials { return s }

// OverrideServerName implements credentials.TransportCredentials. It does nothing: the
// name is that of the address, or the configuration's.
func (s secured) OverrideServerName(string) error { return nil }
