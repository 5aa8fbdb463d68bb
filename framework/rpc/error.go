// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Code says what kind of failure an error is. Names and values are gRPC's
// (https://grpc.io/docs/guides/status-codes/). There is no constant for zero:
// success is a nil error.
type Code uint32

// The codes.
const (
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

var codeNames = [...]string{
	"ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found",
	"already_exists", "permission_denied", "resource_exhausted", "failed_precondition", "aborted",
	"out_of_range", "unimplemented", "internal", "unavailable", "data_loss", "unauthenticated",
}

// String gives gRPC's name of the code in lower case.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code_%d", uint32(c))
}

// Reason says who made the error. The framework alone sets it: metrics, breaker
// and retry read the reason and never the code, so that a handler's own
// ResourceExhausted is not taken for overload.
type Reason uint8

// The reasons.
const (
	ReasonHandler      Reason = 0  // the method's own answer
	ReasonOverload     Reason = 1  // the server let the call not in; the method has not run
	ReasonDeadline     Reason = 2  // the call's time ran out
	ReasonNoInstance   Reason = 3  // no instance to call; the method has not run
	ReasonBreaker      Reason = 4  // the circuit breaker is open; the method has not run
	ReasonNetwork      Reason = 5  // the connection failed
	ReasonCanceled     Reason = 6  // the caller gave up
	ReasonUnknown      Reason = 7  // the server has no such method; nothing has run
	ReasonDecode       Reason = 8  // a message could not be encoded or decoded
	ReasonPanic        Reason = 9  // the handler panicked
	ReasonShuttingDown Reason = 10 // the instance is draining; the method has not run
	ReasonDenied       Reason = 11 // the caller's identity may not call the method, which has not run
)

var reasonNames = [...]string{
	"handler", "overload", "deadline", "no_instance", "breaker", "network", "canceled",
	"unknown_method", "decode", "panic", "shutting_down", "denied",
}

// String gives the name of the reason as metrics show it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Error is the one error that a call returns.
type Error struct {
	Code    Code
	Message string
	Reason  Reason
	// Retry is how long to wait before trying again; zero means that nobody said.
	Retry time.Duration
	// NotRun is set by the framework when the method has certainly not run, so
	// that even a call that is not idempotent may be made again.
	NotRun bool
	// Details are typed particulars, for example of google.rpc.
	Details []*anypb.Any
	// cause is the local error behind a framework error; it never crosses the wire.
	cause error
}

// Error gives code and message.
func (e *Error) Error() string { return e.Code.String() + ": " + e.Message }

// Unwrap gives the local cause, if any.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, context.DeadlineExceeded) and context.Canceled hold for
// the errors of the framework that mean the same.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Canceled
	}
	return false
}

// Errorf makes an error as a handler returns it. The message is shown to callers:
// it says what is wrong and how to mend it, and holds no secret. A %w operand is
// kept as the local cause.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// WithDetails gives err, as an *Error, with typed details added. An error that is
// none becomes one of code Unknown. A nil err stays nil.
func WithDetails(err error, details ...proto.Message) error {
	if err == nil {
		return nil
	}
	e := &Error{Code: CodeOf(err), Message: err.Error(), cause: err}
	if old, ok := errors.AsType[*Error](err); ok {
		c := *old
		c.Details = slices.Clone(old.Details)
		e = &c
	}
	for _, d := range details {
		packed, packErr := anypb.New(d)
		if packErr != nil {
			continue // a detail is an aid: the error itself must get through
		}
		e.Details = append(e.Details, packed)
	}
	return e
}

// Detail fills into the first detail of its type that err carries, and reports
// whether there was one.
func Detail(err error, into proto.Message) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	for _, d := range e.Details {
		if d.MessageIs(into) {
			return d.UnmarshalTo(into) == nil
		}
	}
	return false
}

// CodeOf gives the code of an error: zero for nil, the code of an *Error, Canceled
// and DeadlineExceeded for the errors of package context, else Unknown.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

// ReasonOf gives the reason of an error, ReasonHandler if it is not an *Error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ReasonHandler
}
