// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Health is what a client knows of how well one instance answers: a breaker for each
// method that has failed there of late, and how many calls of all methods have failed in
// a row. While all is well there is nothing in it, and it costs a comparison a call. The
// zero value is well; it is not safe for concurrent use.
type Health struct {
	breakers  map[*rpc.Method]*gobreaker.TwoStepCircuitBreaker[struct{}]
	failed    int       // in a row
	ejections int       // in a row
	until     time.Time // the end of an ejection; zero if there is none
	trial     bool      // the ejection has ended, and one call finds out whether all is well
	lost      time.Time // when an attempt was last found lost that counted
}

const (
	// A breaker opens after so many failures in a row, or when so large a share of no
	// fewer calls has failed since the first failure, within so long.
	breakAfter    = 5
	breakShare    = .5
	breakLeast    = 20
	breakInterval = 10 * time.Second
	// It lets one call try after so long.
	breakOpen = 2 * time.Second

	// An instance is ejected after so many failures in a row, whatever the methods, for
	// a second at first and twice as long each time it fails its trial.
	ejectAfter = 5
	ejectFirst = time.Second
	ejectLast  = 30 * time.Second
)

var (
	errBroken  = errors.New("broken")
	errNothing = errors.New("says nothing")
)

// A Verdict is what the end of an attempt says of the instance.
type Verdict uint8

// The verdicts.
const (
	SaysNothing  Verdict = iota // it was refused, or given up
	Well                        // it was answered, if only with an error of the method
	MethodBroken                // the handler panicked
	Broken                      // the instance did not answer, or not in our language
	Lost                        // its connection was lost under the attempt: Broken, but once for all of them
)

// VerdictOf judges an attempt that went out. Busy says that the instance has told that
// it has too much to do: it is then not broken because it is late.
func (c *ClientCall) VerdictOf(err error, busy bool) Verdict {
	e := errorOf(err)
	if e == nil {
		return Well
	}
	switch e.Reason {
	case rpc.ReasonNetwork, rpc.ReasonDeadline:
		switch {
		case c.Answered: // it passes on what a service has done that its method needs
			return SaysNothing
		case e.Reason == rpc.ReasonNetwork:
			return Lost
		// A call that came with little time left says nothing of who did not answer it.
		case !busy && !e.NotRun && time.Since(c.attemptBegan) >= c.Method.CallTimeout()/2:
			return Broken
		}
		return SaysNothing
	case rpc.ReasonPanic:
		return MethodBroken
	case rpc.ReasonDecode:
		switch {
		case c.Garbled:
			return Broken
		case c.Answered: // it does not understand us, or its answer would be too long
			return Well
		}
		return SaysNothing // our own message could not be sent
	case rpc.ReasonHandler, rpc.ReasonUnknown, rpc.ReasonDenied:
		return Well
	default: // overload and draining are no faults, and giving up is the caller's
		return SaysNothing
	}
}

// Troubled says whether there is anything to look at.
func (h *Health) Troubled() bool { return h.failed > 0 || len(h.breakers) > 0 || !h.until.IsZero() }

// Ejected says whether the instance is to be left out, unless all are.
func (h *Health) Ejected(now time.Time) bool {
	return !h.until.IsZero() && (h.trial || now.Before(h.until))
}

// Breaks says whether the breaker of the method is open.
func (h *Health) Breaks(m *rpc.Method) bool {
	b := h.breakers[m]
	if b == nil {
		return false
	}
	counts := b.Counts()
	switch b.State() {
	case gobreaker.StateOpen:
		return true
	case gobreaker.StateHalfOpen: // one call at a time tries
		return counts.Requests-counts.TotalExclusions > 0
	default:
		return false
	}
}

// Sent notes that a call goes to the instance.
func (h *Health) Sent(c *ClientCall, now time.Time) {
	if !h.until.IsZero() && !now.Before(h.until) {
		h.trial = true
	}
	if b := h.breakers[c.Method]; b != nil && b.State() == gobreaker.StateHalfOpen {
		c.settle, _ = b.Allow()
	}
}

// Returned notes how the call has ended. Breaker says whether its method has one, and
// mayEject whether the instance may be left out if it fails.
func (h *Health) Returned(c *ClientCall, v Verdict, breaker, mayEject bool, now time.Time) {
	if v == Well && !h.Troubled() {
		return
	}
	// All that was under way when a connection went, or a process with several, is one
	// failure: else one worker that dies under five calls would close a whole instance.
	if v == Lost {
		if v = SaysNothing; !c.attemptBegan.Before(h.lost) {
			v, h.lost = Broken, now
		}
	}
	h.count(c, v, breaker)
	switch v {
	case Well:
		h.failed, h.ejections, h.trial, h.until = 0, 0, false, time.Time{}
	case Broken:
		h.failed++
		if (h.failed >= ejectAfter || h.trial) && mayEject && !now.Before(h.until) {
			h.until = now.Add(min(ejectFirst<<min(h.ejections, 8), ejectLast))
			h.ejections++
		}
		h.trial = false
	default:
		h.trial = false
	}
}

// Alive notes that the instance was silent and answers again.
func (h *Health) Alive() { h.failed, h.trial, h.until = 0, false, time.Time{} }

func (h *Health) count(c *ClientCall, v Verdict, on bool) {
	outcome := errNothing
	switch v {
	case Well:
		outcome = nil
	case MethodBroken, Broken:
		outcome = errBroken
	default:
	}
	if c.settle != nil {
		c.settle(outcome)
		c.settle = nil
		return
	}
	b := h.breakers[c.Method]
	if b == nil {
		if outcome != errBroken || !on { //nolint:errorlint // our own, never wrapped
			return
		}
		b = newBreaker(c.Method.FullName())
		if h.breakers == nil {
			h.breakers = map[*rpc.Method]*gobreaker.TwoStepCircuitBreaker[struct{}]{}
		}
		h.breakers[c.Method] = b
	}
	if b.State() != gobreaker.StateClosed {
		return // it went out before
	}
	if done, err := b.Allow(); err == nil {
		done(outcome)
	}
	if outcome == nil && b.Counts().TotalFailures == 0 { // the interval is over
		delete(h.breakers, c.Method)
	}
}

func newBreaker(name string) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: name, Interval: breakInterval, Timeout: breakOpen,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			return n.ConsecutiveFailures >= breakAfter ||
				n.Requests >= breakLeast && float64(n.TotalFailures) >= breakShare*float64(n.Requests)
		},
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNothing) },
	})
}

// BreakerError says that no instance is left to which the method's breaker lets a call.
func BreakerError(m *rpc.Method) error {
	return &rpc.Error{
		Code: rpc.Unavailable, Reason: rpc.ReasonBreaker, NotRun: true, Retry: breakOpen,
		Message: m.FullName() + ": the circuit breaker is open at every instance: the last calls of it were not answered",
	}
}
