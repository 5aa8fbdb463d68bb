// SPDX-License-Identifier: Apache-2.0

// Package balance picks the instance of a service that gets a call, by what each of them
// lets in, whether it answers, where it stands and how much it has to do (ADR 19). What
// carries the calls is an Endpoint of each instance; all of them share this.
package balance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-rpc/sluice/framework/discovery"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/rpc"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// An Endpoint is the connections to one instance. It must be quick, and not call the
// Balancer: it is asked while that is locked.
type Endpoint interface {
	// Up says whether a call can be sent.
	Up() bool
	// Attempt gives what is closed when an attempt to connect that runs has ended, nil if
	// none does, and why the last one has failed. With first only the first attempt of a
	// connection counts.
	Attempt(first bool) (ended <-chan struct{}, failed error)
	// Retire says that it is one of the service's instances no more: what goes on there
	// may end.
	Retire()
}

// Config is what a Balancer must know.
type Config struct {
	Campus string // where this process stands; empty if nowhere
	// Connect starts connecting to an instance and returns at once.
	Connect func(p *Peer) Endpoint
	// Behind is told the backlog of the service in ms, as calls that people wait for
	// find it. It must not block.
	Behind func(ms uint8)
	// Breaks says whether a method has a circuit breaker at each instance; nil: none has.
	Breaks func(m *rpc.Method) bool
	// Entry says that the service gives calls a priority of its own, which is not known
	// here: what an instance lets in says how good it is, and keeps no call back.
	Entry bool
}

// A Balancer knows the instances of one service. It is safe for concurrent use.
type Balancer struct {
	cfg   Config // Campus and Breaks are guarded by mu
	epoch time.Time
	ended <-chan struct{} // when no more calls are made

	mu       sync.Mutex
	peers    []*Peer              // guarded by mu
	replicas []*admission.Replica // of all peers; guarded by mu
	weighted bool                 // peers' weights differ; guarded by mu
	listed   chan struct{}        // closed when peers have been told; guarded by mu
	up       []*Peer              // of the running pick; guarded by mu
	known    []*admission.Replica // of up; guarded by mu
}

// New gives a balancer that waits to be told its instances by Follow. Calls that wait
// fail when ended is closed.
func New(cfg Config, ended <-chan struct{}) *Balancer {
	return &Balancer{cfg: cfg, epoch: time.Now(), ended: ended, listed: make(chan struct{})}
}

// Follow takes the instances that there are now, starts connecting to new ones and
// returns at once. Calls under way at one that has gone may end.
func (b *Balancer) Follow(instances []discovery.Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := make(map[string]*Peer, len(b.peers))
	for _, p := range b.peers {
		old[p.Addr] = p
	}
	b.peers, b.replicas, b.weighted = nil, nil, false
	for _, i := range instances {
		p := old[i.Addr]
		if p == nil {
			p = &Peer{Addr: i.Addr, hash: hashOf(i.Addr)}
			p.Endpoint = b.cfg.Connect(p)
		}
		delete(old, i.Addr)
		p.campus, p.weight, p.draining = i.Campus, max(i.Weight, 1), i.Draining
		b.peers, b.replicas = append(b.peers, p), append(b.replicas, &p.replica)
		b.weighted = b.weighted || p.weight != b.peers[0].weight
	}
	for _, p := range old {
		p.Endpoint.Retire()
	}
	select {
	case <-b.listed:
	default:
		close(b.listed)
	}
}

// Rules changes where this process stands, and which methods have a circuit breaker; nil:
// none has. A breaker that is open of a method that has one no more is passed by.
func (b *Balancer) Rules(campus string, breaks func(*rpc.Method) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg.Campus, b.cfg.Breaks = campus, breaks
}

// breaks says whether a method has a circuit breaker. It is called with mu held.
func (b *Balancer) breaks(m *rpc.Method) bool { return b.cfg.Breaks != nil && b.cfg.Breaks(m) }

// Refuses says whether one instance drawn at random would refuse a fresh task, as far
// as it has told; if so the task is counted as held back there.
func (b *Balancer) Refuses(p qos.Priority) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.replicas) == 0 || b.cfg.Entry {
		return false
	}
	i, admits := admission.Gate(b.now(), b.replicas, p, rand.IntN)
	if !admits {
		b.replicas[i].Hold(p, unknownMethod, rand.IntN)
	}
	return !admits
}

// unknownMethod is no method's id: the server takes such a call for one of mean cost.
const unknownMethod = admission.Method(-1)

func (b *Balancer) now() time.Duration { return time.Since(b.epoch) }

// Returned takes what an attempt has told of the instance that Pick gave. Sent says
// whether it went out at all.
func (b *Balancer) Returned(p *Peer, call *interceptor.ClientCall, sent bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.inFlight--
	p.replica.Returned()
	if call.Answered {
		p.replica.Heard(b.now(), call.Level)
		if time.Duration(call.Backlog)*time.Millisecond > admission.BacklogTarget {
			p.behind = b.now() + admission.BehindFor
		}
		if call.Backlog > 0 && call.Header.Class < qos.Background && b.cfg.Behind != nil {
			b.cfg.Behind(call.Backlog)
		}
	}
	if err == nil && !p.health.Troubled() {
		return
	}
	verdict := interceptor.SaysNothing
	if sent {
		verdict = call.VerdictOf(err, b.isBusy(p))
	}
	mayEject := (verdict == interceptor.Broken || verdict == interceptor.Lost) && b.mayEject(p) // which looks at all instances
	p.health.Returned(call, verdict, b.breaks(call.Method), mayEject, time.Now())
}

// isBusy says whether being late is no sign of being broken: the instance has told lately
// that there is too much to do, there or behind it, or there is no other to compare it with.
// It is called with mu held.
func (b *Balancer) isBusy(p *Peer) bool {
	now := b.now()
	return len(b.peers) == 1 || now < p.behind || p.replica.Level(now) < qos.LastPriority
}

var errNoInstances = errors.New("discovery knows none")

// ErrClosed is why an instance cannot be reached by a client that was closed.
var ErrClosed = errors.New("the connection has been closed by Close")

// wait returns when an instance may be up. A call that may only go elsewhere waits for
// connections that are made for the first time, and not for those that were lost.
func (b *Balancer) wait(ctx context.Context, call *interceptor.ClientCall) error {
	b.mu.Lock()
	all, listed := b.peers, b.listed
	b.mu.Unlock()
	var pending <-chan struct{}
	var lastErr error
	for _, p := range all {
		if call.Elsewhere && p.Addr == call.Avoid {
			continue
		}
		if p.Endpoint.Up() {
			return nil
		}
		ended, err := p.Endpoint.Attempt(call.Elsewhere)
		if ended != nil {
			pending = ended
		}
		if err != nil {
			lastErr = err
		}
	}
	if len(all) == 0 {
		select {
		case <-listed:
			lastErr = errNoInstances
		default:
			pending = listed
		}
	}
	switch {
	case pending == nil && call.Elsewhere:
		return interceptor.ErrNowhereElse
	case pending == nil:
		return &rpc.Error{
			Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true,
			Message: fmt.Sprintf("%s: no instance of the service can be reached: %v", call.Method.FullName(), lastErr),
		}
	}
	return b.waitFor(ctx, pending, call)
}

func (b *Balancer) waitFor(ctx context.Context, ready <-chan struct{}, call *interceptor.ClientCall) error {
	t := time.NewTimer(time.Until(call.Deadline))
	defer t.Stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			break
		}
		return &rpc.Error{
			Code: rpc.Canceled, Reason: rpc.ReasonCanceled, NotRun: true,
			Message: call.Method.FullName() + ": the caller gave up",
		}
	case <-b.ended:
		return &rpc.Error{Code: rpc.Unavailable, Reason: rpc.ReasonNoInstance, NotRun: true, Message: call.Method.FullName() + ": " + ErrClosed.Error()}
	case <-t.C:
	}
	return &rpc.Error{
		Code: rpc.DeadlineExceeded, Reason: rpc.ReasonDeadline, NotRun: true,
		Message: call.Method.FullName() + ": the deadline passed while waiting for a connection",
	}
}
