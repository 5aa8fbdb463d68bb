// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// A Budget bounds the attempts beyond the first of each call to a service to a tenth of
// the calls that are answered: the budget of Google's SRE book ("Handling Overload",
// 2016), kept as tokens of which some are saved for when an instance dies. Without it
// retries multiply the load just when there is too much. It is safe for concurrent use.
type Budget struct{ missing atomic.Int64 } // tenths of a token; the zero budget is full

const (
	retryTenths = 10 // that an attempt costs; an answered call earns one
	budgetSaved = 50 // tokens
)

// earn notes an answered call. While nothing is spent it only reads.
func (b *Budget) earn() {
	if b.missing.Load() > 0 && b.missing.Add(-1) < 0 {
		b.missing.Add(1)
	}
}

// spend takes a token for an attempt, if there is one.
func (b *Budget) spend() bool {
	if b.missing.Add(retryTenths) > budgetSaved*retryTenths {
		b.missing.Add(-retryTenths)
		return false
	}
	return true
}

// refund gives a token back: the attempt was not made.
func (b *Budget) refund() { b.missing.Add(-retryTenths) }

// ErrNowhereElse is what a transport gives for a call that may only go to another
// instance than its last one when there is none.
var ErrNowhereElse = errors.New("there is no other instance")

// drainAttempts is how often a call is made that instances refuse because they are
// shutting down. Such refusals end by themselves and cost no token.
const drainAttempts = 4

// retried makes a call again that has failed, if it may be: the instance says that it
// has not run, or the contract says that it may run more than once. It never does after
// the call's own deadline, and never without a token.
func retried(b *Budget) func(clientFunc) clientFunc {
	return func(next clientFunc) clientFunc {
		if b == nil {
			return next
		}
		return func(ctx context.Context, c *ClientCall) error {
			err := next(ctx, c)
			if err == nil {
				b.earn()
				return nil
			}
			return b.again(ctx, c, err, next)
		}
	}
}

// again is kept out of line: a call that succeeds does not have its frame.
//
//go:noinline
func (b *Budget) again(ctx context.Context, c *ClientCall, err error, next clientFunc) error {
	for drained := 1; ; {
		free, may := false, false
		switch e := errorOf(err); {
		case c.attempts == 0: // not even one was sent: there is nobody to send it to
		case c.Answered && e.Reason == rpc.ReasonHandler:
			b.earn()
		case e.NotRun && e.Reason == rpc.ReasonOverload:
			may = c.attempts == 1 // once, elsewhere: a third would find the same
			c.Elsewhere = true
		case e.NotRun && e.Reason == rpc.ReasonShuttingDown:
			drained++
			free, may = true, drained <= drainAttempts
		case e.Reason == rpc.ReasonNetwork && !c.Answered, c.Garbled: // else it is of a service that the method needs
			may = e.NotRun || repeatable(c.Method) && c.attempts < c.Method.MaxAttempts
		}
		left := time.Until(c.Deadline)
		if !may || left <= 0 || ctx.Err() != nil || !free && !b.spend() {
			return err
		}
		before := c.attempts
		c.Avoid, c.Header.Budget = c.peer, left
		again := next(ctx, c)
		switch {
		case again == nil:
			c.saved = true
			b.earn()
			return nil
		case c.attempts == before: // it did not go out: what the last one was told stands
			if !free {
				b.refund()
			}
			return err
		case errorOf(again).NotRun && !errorOf(err).NotRun:
			return err // that this attempt has not run does not say it of the one before
		}
		err = again
	}
}

// repeatable says whether the contract lets the method run more than once for one call.
func repeatable(m *rpc.Method) bool { return m.Idempotency != rpc.IdempotencyUnknown }
