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

// writeLimits lets every user write so often and no oftener.
type writeLimits struct {
	every rate.Limit
	burst int

	mu    sync.Mutex // guards users
	users *generations[string, *rate.Limiter]
}

func newWriteLimits(perMinute, burst int) *writeLimits {
	perMinute, burst = cmp.Or(perMinute, 30), cmp.Or(burst, 20)
	// A limiter that was idle until its burst is full again equals a new one.
	refill := time.Duration(burst) * time.Minute / time.Duration(perMinute)
	return &writeLimits{
		every: rate.Limit(float64(perMinute) / 60), burst: burst,
		users: newGenerations[string, *rate.Limiter](maxLimiters, refill),
	}
}

// take uses up one write of the user, or says when there will be one.
func (l *writeLimits) take(user string, now time.Time) error {
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
		&rpc.Error{Code: rpc.ResourceExhausted, Message: "you are writing faster than is allowed; wait a moment", Retry: wait},
		&momentsv1.Problem{Type: "rate-limited"})
}
