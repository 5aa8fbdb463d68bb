// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math"
	"slices"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/framework/internal/peers"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

// A Peer is one instance.
type Peer struct {
	Addr     string
	Endpoint Endpoint

	hash uint64 // of Addr

	// Guarded by Balancer.mu.
	campus   string
	weight   int
	draining bool
	silent   bool // it has not answered a ping
	inFlight int
	replica  admission.Replica
	behind   time.Duration // until when it is held to be behind with its work
	health   interceptor.Health
}

// isWell says whether the instance is to get calls while there are others. It is called
// with Balancer.mu held.
func (p *Peer) isWell(now time.Time) bool { return p.out(now) == "" }

// out is why the instance is to get no calls, empty if it is well. It is called with
// Balancer.mu held.
func (p *Peer) out(now time.Time) peers.Out {
	switch {
	case p.draining:
		return peers.Draining
	case p.silent:
		return peers.Silent
	case p.health.Ejected(now):
		return peers.Ejected
	}
	return ""
}

// Peers gives the instances that there are now.
func (b *Balancer) Peers() []*Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.peers)
}

// StateOf gives what an instance lets in, and why it gets no calls.
func (b *Balancer) StateOf(p *Peer) (level qos.Priority, out peers.Out) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.replica.Level(b.now()), p.out(time.Now())
}

// Owes says whether an instance has calls to answer, or has been silent when it was asked
// whether it is there.
func (b *Balancer) Owes(p *Peer) (calls, silent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.inFlight > 0, p.silent
}

// Silent notes that an instance does not say whether it is there.
func (b *Balancer) Silent(p *Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.silent = true
}

// Alive notes that an instance is there, and what it lets in.
func (b *Balancer) Alive(p *Peer, level qos.Priority) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.replica.Heard(b.now(), level)
	if p.silent {
		p.silent = false
		p.health.Alive()
	}
}

// keySeed is the same in all processes: all of them send a key to the same instance.
const keySeed = 0x9e3779b97f4a7c15

// KeyOf gives the key of calls that belong together; it is never zero.
func KeyOf(s string) uint64 { return max(hashOf(s), 1) }

func hashOf(s string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// score is the rendezvous score of a key here: -weight / ln(u), with u from 0 to 1 drawn
// by hash.
func (p *Peer) score(key uint64) float64 {
	x := (key ^ p.hash) * keySeed // the finalizer of splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return -float64(p.weight) / math.Log((float64(x>>11)+.5)/(1<<53))
}
