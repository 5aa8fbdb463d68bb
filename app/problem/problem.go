// SPDX-License-Identifier: Apache-2.0

// Package problem makes the errors of Moments that people get to see: a code, a
// message and the stable type that programs read.
package problem

import (
	"context"
	"errors"

	"github.com/sluice-rpc/sluice/app/id"
	"github.com/sluice-rpc/sluice/app/kv"
	"github.com/sluice-rpc/sluice/framework/rpc"
	momentsv1 "github.com/sluice-rpc/sluice/idl/moments/v1"
)

// New makes an error of a stable type, about a field of the request or "".
func New(code rpc.Code, kind, field, format string, args ...any) error {
	return rpc.WithDetails(rpc.Errorf(code, format, args...), &momentsv1.Problem{Type: kind, Field: field})
}

// Invalid says that a field of the request breaks its rule.
func Invalid(field, format string, args ...any) error {
	return New(rpc.InvalidArgument, "invalid", field, field+": "+format, args...)
}

// NotFound says that there is no such thing, or that the viewer may not see it: the
// two must not be told apart, so its message never says more than what.
func NotFound(what string) error {
	return New(rpc.NotFound, "not-found", "", "no such %s", what)
}

// KeyReused says that an idempotency key came with another request before.
func KeyReused() error {
	return New(rpc.FailedPrecondition, "idempotency-conflict", "idempotency_key",
		"the idempotency key was used for another request; take a new key")
}

// Store gives the error of a call whose store failed: what may be tried again is
// Unavailable, the rest Internal. Doing says what failed and is not shown to users.
// An error that is made for users already stays as it is, and so does none.
func Store(doing string, err error) error {
	_, shown := errors.AsType[*rpc.Error](err)
	switch {
	case err == nil, shown, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, kv.ErrQuota):
		return rpc.Errorf(rpc.ResourceExhausted, "the store is full")
	case errors.Is(err, kv.ErrUnknown):
		return rpc.Errorf(rpc.Unavailable, "the store did not say whether it has written; try again, with the same idempotency key")
	case errors.Is(err, kv.ErrUnavailable), errors.Is(err, kv.ErrConflict):
		return rpc.Errorf(rpc.Unavailable, "the store cannot answer now; try again")
	}
	return &storeError{doing: doing, err: err}
}

// storeError is no *rpc.Error, so the framework hides its detail from users.
type storeError struct {
	doing string
	err   error
}

func (e *storeError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// User reads a user's id out of a field of a request.
func User(field, v string) (id.User, error) {
	u, err := id.ParseUser(v)
	if err != nil {
		return u, Invalid(field, "%v", err)
	}
	return u, nil
}

// PageLimit reads the field limit of a request for a page: 0 asks for the standard.
func PageLimit(asked uint32, standard, most int) (int, error) {
	switch {
	case asked == 0:
		return standard, nil
	case asked > uint32(most):
		return 0, Invalid("limit", "is %d, want 1 to %d, or 0 for %d", asked, most, standard)
	}
	return int(asked), nil
}
