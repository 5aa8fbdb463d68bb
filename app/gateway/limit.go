// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// maxLimiters bounds the memory of the limits: 2 generations of 65,536 users. With
// more users writing within the time in which a burst refills, the idlest start
// anew, which is in their favour.
const maxLimiters = 64 << 10

// limits lets every user do something so often and no oftener.
type limits struct {
	every rate.Limit
	burst int
	doing string // what the user does, for the answer

	mu    sync.Mutex // guards users
	users *generations[string, *rate.Limiter]
}

func newLimits(every rate.Limit, burst int, doing string) *limits {
	// A limiter that was idle until its burst is full again equals a new one.
	refill := time.Duration(float64(burst) / float64(every) * float64(time.Second))
	return &limits{every: every, burst: burst, doing: doing, users: newGenerations[string, *rate.Limiter](maxLimiters, refill)}
}

// newWriteLimits are for what stays: people write slowly, scripts do not.
func newWriteLimits(perMinute, burst int) *limits {
	return newLimits(rate.Limit(float64(cmp.Or(perMinute, 30))/60), cmp.Or(burst, 20), "writing")
}

// newRequestLimits are for everything. No person, nor a page on its behalf, comes near
// them: they keep one user's runaway script from the others' capacity.
func newRequestLimits(perSecond, burst int) *limits {
	return newLimits(rate.Limit(cmp.Or(perSecond, 50)), cmp.Or(burst, 200), "asking")
}

// take uses up one turn of the user, or says when there will be one.
func (l *limits) take(user string, now time.Time) error {
	l.mu.Lock()
	lim, ok := l.users.get(user, now)
	if !ok {
		lim = rate.NewLimiter(l.every, l.burst)
		l.users.put(user, lim, now)
	}
	l.mu.Unlock()
	r := lim.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return rpc.WithDetails(
		&rpc.Error{Code: rpc.ResourceExhausted, Message: "you are " + l.doing + " faster than is allowed; wait a moment", Retry: wait},
		&momentsv1.Problem{Type: "rate-limited"})
}

// limit gives the limit of a route. It is asked before admission with the user that
// is known without a call, and else after the user has been asked for: a flood of one
// user is answered before it costs anything, and one that begins costs one call.
func (g *Gateway) limit(a access) func(user string) error {
	if g.writes == nil || a == open {
		return nil
	}
	return func(user string) error {
		if user == "" {
			return nil
		}
		now := time.Now()
		if err := g.requests.take(user, now); err != nil || a != writer {
			return err
		}
		return g.writes.take(user, now)
	}
}
