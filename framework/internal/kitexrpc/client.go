// SPDX-License-Identifier: Apache-2.0

package kitexrpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/metrics"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// ClientConfig is what the transport of a client needs.
type ClientConfig struct {
	Service        string // as pages show it
	Addrs          []string
	Connections    int // to each address
	MaxFrameBytes  int
	ConnectTimeout time.Duration
	Items          *metrics.ClientTransport // of the connections; nil counts nothing
}

// Client makes calls to the instances of one service.
type Client struct {
	cfg   ClientConfig
	epoch time.Time
	peers []*peer

	mu       sync.Mutex
	replicas []*admission.Replica // of all peers; guarded by mu
	up       []*peer              // of the running pick; guarded by mu
	known    []*admission.Replica // of up; guarded by mu
	retries  float64              // tokens for second attempts; guarded by mu

	stop  context.CancelFunc
	leave func() // what shows its connections
	done  sync.WaitGroup
}

// A refused call may be made again elsewhere once, but no more than a tenth of all:
// the budget of Google's SRE book ("Handling Overload", 2016), kept as tokens of which
// a few may be saved.
const (
	retryShare = .1
	retrySaved = 10
)

// maxPick is how many instances a pick looks at, from one drawn by chance.
const maxPick = 16

// Dial starts connecting to every address and returns at once.
func Dial(cfg ClientConfig) *Client {
	if cfg.Items == nil {
		cfg.Items = &metrics.ClientTransport{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{cfg: cfg, epoch: time.Now(), stop: cancel, retries: retrySaved}
	for _, addr := range cfg.Addrs {
		p := &peer{addr: addr}
		for range cfg.Connections {
			l := &link{addr: addr, cfg: &c.cfg, attempt: make(chan struct{})}
			p.links = append(p.links, l)
			c.done.Go(func() { l.run(ctx) })
		}
		c.peers, c.replicas = append(c.peers, p), append(c.replicas, &p.replica)
	}
	c.leave = joinAlive(&alive.clients, c)
	return c
}

// Close closes all connections. Calls in flight fail with Unavailable.
func (c *Client) Close() {
	c.leave()
	c.stop()
	c.done.Wait()
}

// Refuses says whether one instance drawn at random would refuse a fresh task, as far
// as it has told; if so the task is counted as held back there.
func (c *Client) Refuses(p qos.Priority) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, admits := admission.Gate(c.now(), c.replicas, p, rand.IntN)
	if !admits {
		c.replicas[i].Hold(p, unknownMethod, rand.IntN)
	}
	return !admits
}

// unknownMethod is no method's id: the server takes such a call for one of mean cost.
const unknownMethod = admission.Method(-1)

func (c *Client) now() time.Duration { return time.Since(c.epoch) }

// Call makes one call and waits for its answer. A connection that was closed before
// anything was sent on it costs the call nothing but another pick. A call that an
// instance had no room for is made at another one, once, within a budget.
func (c *Client) Call(ctx context.Context, call *interceptor.ClientCall) error {
	var refusedBy *peer
	for {
		p, conn, report, err := c.pick(ctx, call, refusedBy)
		if err != nil {
			return err
		}
		call.Answered = false
		call.Attempt(p.addr)
		err = conn.call(ctx, call, report)
		again := c.returned(p, call, err, refusedBy != nil)
		if err != errNotSent { //nolint:errorlint // our own sentinel, never wrapped
			call.Attempted(err)
		}
		switch {
		case err == errNotSent: //nolint:errorlint // our own sentinel, never wrapped
			conn.stopUsing()
		case again:
			refusedBy = p
			call.Header.Budget = time.Until(call.Deadline)
			if call.Header.Budget <= 0 {
				return err
			}
		default:
			return err
		}
	}
}

// returned takes what an attempt has told of its instance, and says whether to try
// once more elsewhere.
func (c *Client) returned(p *peer, call *interceptor.ClientCall, err error, second bool) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.replica.Returned()
	if call.Answered {
		p.replica.Heard(c.now(), call.Level)
	}
	if err == nil {
		c.retries = min(retrySaved, c.retries+retryShare)
		return false
	}
	if second || len(c.peers) == 1 || c.retries < 1 || !isOverload(err) {
		return false
	}
	c.retries--
	return true
}

func isOverload(err error) bool {
	e, ok := err.(*rpc.Error) //nolint:errorlint // it comes from the wire as it is
	return ok && e.Reason == rpc.ReasonOverload && e.NotRun
}

// peer is one instance.
type peer struct {
	addr    string
	links   []*link
	next    atomic.Uint32
	replica admission.Replica // guarded by Client.mu
}

// conn gives a connection that is up, nil if none is.
func (p *peer) conn() *clientConn {
	start := int(p.next.Add(1))
	for i := range p.links {
		if c := p.links[(start+i)%len(p.links)].conn.Load(); c != nil {
			return c
		}
	}
	return nil
}

// pick gives a connection to an instance by level and load, see admission.Pick, and
// what to report to it; an error if the level of all of them refuses the call. While
// connections are being made it waits for them, at most for the deadline; when every
// attempt has failed it gives up at once. Not is an instance to leave out.
func (c *Client) pick(ctx context.Context, call *interceptor.ClientCall, not *peer) (*peer, *clientConn, admission.Report, error) {
	for {
		p, conn, report, ok := c.pickUp(call, not)
		switch {
		case !ok:
			return nil, nil, report, admit.Overloaded
		case conn != nil:
			return p, conn, report, nil
		case not != nil:
			return nil, nil, report, admit.Overloaded // there is no other one
		}
		if err := c.wait(ctx, call); err != nil {
			return nil, nil, report, err
		}
	}
}

// pickUp picks among those that are up. It gives no connection if none is, and not ok
// if none of them admits the call.
func (c *Client) pickUp(call *interceptor.ClientCall, not *peer) (*peer, *clientConn, admission.Report, bool) {
	priority, ticket := qos.PriorityOf(call.Header.Class, call.Header.UserLevel), qos.Ticket(call.Header.Ticket)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.known = c.up[:0], c.known[:0]
	start := 0
	if len(c.peers) > 1 {
		start = rand.IntN(len(c.peers))
	}
	for i := range c.peers {
		p := c.peers[(start+i)%len(c.peers)]
		if p == not || !p.isUp() {
			continue
		}
		c.up, c.known = append(c.up, p), append(c.known, &p.replica)
		if len(c.up) == maxPick {
			break
		}
	}
	if len(c.up) == 0 {
		return nil, nil, admission.Report{}, true
	}
	i, admits := admission.Pick(c.now(), c.known, priority, ticket, rand.IntN)
	p := c.up[i]
	if !admits {
		p.replica.Hold(priority, admission.Method(admit.MethodID(call.Method)), rand.IntN)
		return nil, nil, admission.Report{}, false
	}
	conn := p.conn()
	if conn == nil { // lost a moment ago
		return nil, nil, admission.Report{}, true
	}
	return p, conn, p.replica.Sent(), true
}

func (p *peer) isUp() bool {
	for _, l := range p.links {
		if l.conn.Load() != nil {
			return true
		}
	}
	return false
}

// wait returns when an instance may be up.
func (c *Client) wait(ctx context.Context, call *interceptor.ClientCall) error {
	var pending <-chan struct{}
	var lastErr error
	for _, p := range c.peers {
		if p.isUp() {
			return nil
		}
		for _, l := range p.links {
			wait, err := l.state()
			if err == nil {
				pending = wait
			} else {
				lastErr = err
			}
		}
	}
	if pending == nil {
		return &rpc.Error{
			Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true,
			Message: fmt.Sprintf("%s: no instance of the service can be reached: %v", call.Method.FullName(), lastErr),
		}
	}
	return waitFor(ctx, pending, call)
}

func waitFor(ctx context.Context, ready <-chan struct{}, call *interceptor.ClientCall) error {
	t := time.NewTimer(time.Until(call.Deadline))
	defer t.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return contextError(ctx, call, true)
	case <-t.C:
		return deadlineError(call, "waiting for a connection", true)
	}
}
