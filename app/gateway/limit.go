// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"net/http"
	"runtime"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-rpc/sluice/framework/edge"
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

// newPasswordLimits are for what hashes a password, 20 ms of a core, from one place: a
// school at nine logs in with no more, and a flood is no load.
func newPasswordLimits() *limits { return newLimits(5, 10, "trying passwords") }

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

// hashes reports whether a method has a password hashed.
func hashes(m *rpc.Method) bool {
	switch m {
	case momentsv1.AccountServiceLogInMethod, momentsv1.AccountServiceRegisterMethod,
		momentsv1.AccountServiceChangePasswordMethod, momentsv1.AccountServiceDeleteAccountMethod:
		return true
	}
	return false
}

// hashQueue is how many requests may wait for their password to be hashed: 64 take the
// account service 2 s with one worker, which one does wait for a log-in.
const hashQueue = 64

// newBulkhead makes what requests wait at until a password of theirs may be hashed. A
// log-in ranks above all that people read and costs a hundred times as much: without a
// bulkhead a flood from many places, none of which tries too often, is demand of the first
// class, and admission refuses three readers in four. There is as much room as the account service
// has workers by default, so that little waits there, where its queue is inside of admission.
func newBulkhead() *edge.Bulkhead {
	return edge.NewBulkhead(runtime.GOMAXPROCS(0)/2, hashQueue, rpc.WithDetails(
		&rpc.Error{
			Code: rpc.ResourceExhausted, NotRun: true, Retry: 2 * time.Second,
			Message: "too many people are logging in or registering; try again in a few seconds",
		},
		&momentsv1.Problem{Type: "busy"}))
}

// limit gives the limit of a route. It is asked before admission with the user that
// is known without a call, and else after the user has been asked for: a flood of one
// user is answered before it costs anything, and one that begins costs one call.
//
// Where nobody is logged in the place that a request comes from stands for the user: those
// who guess passwords would otherwise crowd out the readers, who rank below them.
func (g *Gateway) limit(rt route) edge.Limit {
	a := rt.access
	if g.writes == nil {
		return nil
	}
	if a == open {
		l := g.requests
		if hashes(rt.method) {
			l = g.passwords
		}
		return func(r *http.Request, _ string) error { return l.take("at "+edge.Place(r), time.Now()) }
	}
	return func(_ *http.Request, user string) error {
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
