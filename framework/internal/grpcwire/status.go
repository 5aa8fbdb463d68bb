// SPDX-License-Identifier: Apache-2.0

// Package grpcwire is what both ends of gRPC share: how our errors become statuses and
// back, and how messages pass grpc-go as the bytes they are.
package grpcwire

import (
	"context"
	"errors"
	"strconv"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Domain is that of the google.rpc.ErrorInfo in which the framework tells what gRPC has
// no place for: who made an error, and whether the method has run.
const Domain = "github.com/sluice-rpc/sluice"

const (
	notRunKey = "not_run"
	reasonKey = "reason"
)

// maxMessage bounds the text of a status in bytes. It travels in a header, of which
// clients take 8 KiB to 16 MiB, and non-ASCII there takes three times its length.
const maxMessage = 2 << 10

// maxDetails bounds the encoded details of a status in bytes: they travel in the same
// headers.
const maxDetails = 4 << 10

// StatusOf gives an error as a gRPC status. Typed details stay as they are. An error that
// is not just a handler's answer carries one more, a google.rpc.ErrorInfo of Domain; and
// when there is a time after which to try again, a google.rpc.RetryInfo follows. Details
// beyond what a header may hold are left out, from the first that does not fit.
func StatusOf(e *rpc.Error) *status.Status {
	code := e.Code
	if code == 0 || code > rpc.Unauthenticated {
		code = rpc.Unknown // zero would read as success
	}
	s := &spb.Status{Code: int32(code), Message: text(e.Message)}
	room := maxDetails
	for _, d := range e.Details {
		if d == nil {
			continue
		}
		if room -= len(d.GetTypeUrl()) + len(d.GetValue()) + 16; room < 0 {
			break
		}
		s.Details = append(s.Details, d)
	}
	plain := code != rpc.DeadlineExceeded && code != rpc.Canceled // of which readers think that nobody has said them
	if e.Reason == rpc.ReasonHandler && plain && !e.NotRun && e.Retry <= 0 {
		return status.FromProto(s)
	}
	info := &errdetails.ErrorInfo{
		Reason: e.Reason.String(), Domain: Domain,
		Metadata: map[string]string{reasonKey: strconv.Itoa(int(e.Reason))},
	}
	if e.NotRun {
		info.Metadata[notRunKey] = "true"
	}
	if packed, err := anypb.New(info); err == nil {
		s.Details = append(s.Details, packed)
	}
	if e.Retry > 0 {
		if packed, err := anypb.New(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.Retry)}); err == nil {
			s.Details = append(s.Details, packed)
		}
	}
	return status.FromProto(s)
}

// text gives what of a message goes into a status.
func text(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// ErrorOf gives the error that a status was, or, if it is not of our making, what it
// means: never nil. A status OK, which no error has, becomes Internal.
func ErrorOf(s *status.Status) *rpc.Error {
	e := &rpc.Error{Code: rpc.Code(s.Code()), Message: s.Message()}
	switch {
	case e.Code == 0:
		e.Code = rpc.Internal
	case e.Code > rpc.Unauthenticated:
		e.Code = rpc.Unknown
	}
	details := s.Proto().GetDetails()
	for i, d := range details {
		if ours(e, d) {
			details = readRetry(e, append(details[:i:i], details[i+1:]...), i)
			e.Details = details
			return e
		}
	}
	e.Details = details
	switch e.Code { // what every implementation means by them
	case rpc.DeadlineExceeded:
		e.Reason = rpc.ReasonDeadline
	case rpc.Canceled:
		e.Reason = rpc.ReasonCanceled
	}
	for _, d := range details {
		if retry := (&errdetails.RetryInfo{}); d.MessageIs(retry) && d.UnmarshalTo(retry) == nil {
			e.Retry = max(0, retry.GetRetryDelay().AsDuration())
		}
	}
	return e
}

// ours reads a detail that the framework has added.
func ours(e *rpc.Error, d *anypb.Any) bool {
	info := &errdetails.ErrorInfo{}
	if !d.MessageIs(info) || d.UnmarshalTo(info) != nil || info.GetDomain() != Domain {
		return false
	}
	if n, err := strconv.ParseUint(info.GetMetadata()[reasonKey], 10, 8); err == nil {
		e.Reason = rpc.Reason(n)
	}
	e.NotRun = info.GetMetadata()[notRunKey] == "true"
	return true
}

// readRetry reads and takes out the detail that may stand behind ours.
func readRetry(e *rpc.Error, details []*anypb.Any, at int) []*anypb.Any {
	if at >= len(details) {
		return details
	}
	retry := &errdetails.RetryInfo{}
	if !details[at].MessageIs(retry) || details[at].UnmarshalTo(retry) != nil {
		return details
	}
	e.Retry = max(0, retry.GetRetryDelay().AsDuration())
	return append(details[:at:at], details[at+1:]...)
}

// Received gives an error of receiving or sending on a stream as ours. What stands in
// the way of a message is no answer of a handler.
func Received(err error) *rpc.Error {
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		return e
	}
	e := &rpc.Error{Code: rpc.CodeOf(err), Message: err.Error()}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		e.Code, e.Message = rpc.Code(s.Code()), s.Message()
	}
	switch {
	case e.Code == rpc.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		e.Reason = rpc.ReasonDeadline
	case e.Code == rpc.Canceled:
		e.Reason = rpc.ReasonCanceled
	case e.Code == rpc.Unavailable:
		e.Code, e.Reason = rpc.Canceled, rpc.ReasonCanceled // the connection has gone, and the caller with it
	default:
		e.Reason = rpc.ReasonDecode
	}
	return e
}
