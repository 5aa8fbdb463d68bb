// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/sluice-rpc/sluice/framework/internal/admit"
	"github.com/sluice-rpc/sluice/framework/internal/interceptor"
	"github.com/sluice-rpc/sluice/qos"
	"github.com/sluice-rpc/sluice/qos/admission"
)

const (
	// maxPick is how many instances a pick looks at, from one drawn by chance.
	maxPick = 16
	// spillAt: the own campus gets every call while 1 of 1.4 of its instances are well,
	// and its share of them below that, the over-provisioning of Envoy's locality
	// weighted load balancing.
	spillAt = 1.4
)

// Pick gives the instance that gets the call, and what to report to it; an error if the
// level or the breaker of all of them refuses the call. While connections are being made
// it waits for them, at most for the deadline; when every attempt has failed it gives up
// at once. Returned must follow.
func (b *Balancer) Pick(ctx context.Context, call *interceptor.ClientCall) (*Peer, admission.Report, error) {
	for {
		p, report, err := b.pickUp(call)
		if err != nil || p != nil {
			return p, report, err
		}
		if err := b.wait(ctx, call); err != nil {
			return nil, report, err
		}
	}
}

// pickUp picks among those that are up; it gives none if none is.
//
// Level comes first, see admission.Pick, among those that are well and stand in the own
// campus; if none of these admits the call, among all that are well; and if none is well,
// among all that are up: a client that takes every instance for broken is more likely
// wrong than right.
func (b *Balancer) pickUp(call *interceptor.ClientCall) (*Peer, admission.Report, error) {
	priority, ticket := b.priorityOf(call), qos.Ticket(call.Header.Ticket)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	var refused *Peer // whose level refuses the call
	for from := b.begin(); from <= fromAnywhere && (refused == nil || from == fromWell); from++ {
		broken := b.collect(call, from)
		if len(b.up) == 0 {
			if from == fromAnywhere && broken {
				return nil, admission.Report{}, interceptor.BreakerError(call.Method)
			}
			continue
		}
		p, admits := b.choose(call, now, priority, ticket)
		if !admits && (!b.cfg.Entry || from == fromCampus) {
			refused = p
			continue
		}
		return p, b.sent(p, call), nil
	}
	if refused != nil {
		refused.replica.Hold(priority, admission.Method(admit.MethodID(call.Method)), rand.IntN)
		return nil, admission.Report{}, admit.Overloaded
	}
	return nil, admission.Report{}, nil
}

// priorityOf gives the priority that the service will see in a call. An entry gives one of
// its own: the class of the contract, and a user that is not known here.
func (b *Balancer) priorityOf(call *interceptor.ClientCall) qos.Priority {
	if b.cfg.Entry {
		return qos.PriorityOf(call.Method.Class, 0)
	}
	return qos.PriorityOf(call.Header.Class, call.Header.UserLevel)
}

// sent notes that a call goes to an instance. It is called with mu held.
func (b *Balancer) sent(p *Peer, call *interceptor.ClientCall) admission.Report {
	p.inFlight++
	if p.health.Troubled() {
		p.health.Sent(call, time.Now())
	}
	return p.replica.Sent()
}

// Whom a pick looks at, nearest first.
const (
	fromCampus   = iota // who is well and stands in our campus
	fromWell            // who is well
	fromAnywhere        // who is up
)

// begin says from where on to look. It is called with mu held.
func (b *Balancer) begin() int {
	if b.cfg.Campus == "" {
		return fromWell
	}
	here, well := 0, 0
	now := time.Now()
	for _, p := range b.peers {
		if p.campus == b.cfg.Campus {
			here++
			if p.Endpoint.Up() && p.isWell(now) {
				well++
			}
		}
	}
	if well == 0 || float64(well)*spillAt < float64(here)*rand.Float64() {
		return fromWell
	}
	return fromCampus
}

// collect puts those into b.up that may get the call, beginning at one drawn by chance.
// It says whether a breaker has kept one out. It is called with mu held.
func (b *Balancer) collect(call *interceptor.ClientCall, from int) (broken bool) {
	b.up, b.known = b.up[:0], b.known[:0]
	n := len(b.peers)
	if n == 0 {
		return false
	}
	start := 0
	if n > 1 {
		start = rand.IntN(n)
	}
	var now time.Time
	var avoided *Peer
	for i := range b.peers {
		p := b.peers[(start+i)%n]
		if from == fromCampus && p.campus != b.cfg.Campus || !p.Endpoint.Up() {
			continue
		}
		if p.health.Troubled() {
			if now.IsZero() {
				now = time.Now()
			}
			if p.health.Breaks(call.Method) && b.breaks(call.Method) {
				broken = true
				continue
			}
		}
		if from != fromAnywhere && !p.isWell(now) {
			continue
		}
		if p.Addr == call.Avoid {
			avoided = p
			continue
		}
		b.up, b.known = append(b.up, p), append(b.known, &p.replica)
		if len(b.up) == maxPick && call.Key == 0 {
			break
		}
	}
	if len(b.up) == 0 && avoided != nil && from == fromAnywhere && !call.Elsewhere {
		b.up, b.known = append(b.up, avoided), append(b.known, &avoided.replica)
	}
	return broken
}

// choose picks one of b.up, and says whether its level admits the call.
func (b *Balancer) choose(call *interceptor.ClientCall, now time.Duration, priority qos.Priority, ticket qos.Ticket) (*Peer, bool) {
	switch {
	case call.Key != 0:
		return b.byKey(call.Key, now, priority, ticket)
	case b.weighted && len(b.up) > 1:
		if p := b.byWeight(now, priority); p.replica.Admits(now, priority, ticket) {
			return p, true
		}
	}
	i, admits := admission.Pick(now, b.known, priority, ticket, rand.IntN)
	return b.up[i], admits
}

// byKey picks the instance that a key belongs to: the one of the highest score of all,
// rendezvous hashing (Thaler and Ravishankar, 1998) with weights. When an instance comes
// or goes only its own keys move. If its level refuses the call, the next one gets it.
func (b *Balancer) byKey(key uint64, now time.Duration, priority qos.Priority, ticket qos.Ticket) (*Peer, bool) {
	best, bestAdmits, bestScore := b.up[0], false, math.Inf(-1)
	for _, p := range b.up {
		admits := p.replica.Admits(now, priority, ticket)
		if bestAdmits && !admits {
			continue
		}
		if s := p.score(key); admits && !bestAdmits || s > bestScore {
			best, bestAdmits, bestScore = p, admits, s
		}
	}
	return best, bestAdmits
}

// byWeight draws two instances by their weights and gives the one with the better level
// or else with fewer of our calls in flight for its weight.
func (b *Balancer) byWeight(now time.Duration, priority qos.Priority) *Peer {
	total := 0
	for _, p := range b.up {
		total += p.weight
	}
	i := b.draw(total, -1)
	j := b.draw(total-b.up[i].weight, i)
	x, y := b.up[i], b.up[j]
	if min(priority, x.replica.Level(now)) != min(priority, y.replica.Level(now)) {
		pair := []*admission.Replica{&x.replica, &y.replica}
		if k, _ := admission.Pick(now, pair, priority, 1, rand.IntN); k == 1 {
			return y
		}
		return x
	}
	if y.inFlight*x.weight < x.inFlight*y.weight {
		return y
	}
	return x
}

// draw gives the index in b.up of one drawn by weight, of all but one.
func (b *Balancer) draw(total, but int) int {
	n := rand.IntN(total)
	for i, p := range b.up {
		if i == but {
			continue
		}
		if n -= p.weight; n < 0 {
			return i
		}
	}
	return 0
}

// mayEject says whether one more instance may be left out beside those that are: at most
// half of all, since when more fail it is something else that fails. It is called with mu
// held.
func (b *Balancer) mayEject(not *Peer) bool {
	out := 1
	now := time.Now()
	for _, p := range b.peers {
		if p != not && !p.isWell(now) {
			out++
		}
	}
	return 2*out <= len(b.peers)
}
