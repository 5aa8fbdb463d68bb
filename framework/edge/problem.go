// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-rpc/sluice/framework/rpc"
)

// Problem is an error as the client sees it (RFC 9457).
type Problem struct {
	// Type is the stable name of the problem, a relative URI reference.
	Type string `json:"type"`
	// Title says the same for people, and does not change from case to case.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail says what is wrong in this case and how to mend it.
	Detail string `json:"detail,omitempty"`
	// Field is the member of the request that is at fault.
	Field string `json:"field,omitempty"`
	// RetryAfterMS is how long to wait before trying again, in milliseconds.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
	// TraceID finds the request in logs and traces.
	TraceID string `json:"trace_id,omitempty"`
}

// StatusError is an error of HTTP itself, which no RPC code stands for.
type StatusError struct {
	Status int
	Type   string
	Detail string
	Field  string
}

// Error gives status and detail.
func (e *StatusError) Error() string { return strconv.Itoa(e.Status) + ": " + e.Detail }

func tooLarge(limit int64) error {
	return &StatusError{
		Status: http.StatusRequestEntityTooLarge, Type: "too-large",
		Detail: fmt.Sprintf("the body is larger than %d bytes", limit),
	}
}

// defaultRetry is what a client waits when an overloaded server did not say.
const defaultRetry = time.Second

type kind struct {
	status int
	name   string
	title  string
	hide   bool // the message may hold inner detail and is not shown
}

var kinds = map[rpc.Code]kind{
	rpc.Canceled:           {503, "canceled", "The request was given up", true},
	rpc.Unknown:            {500, "internal", "Something went wrong on our side", true},
	rpc.InvalidArgument:    {400, "invalid", "The request is not valid", false},
	rpc.DeadlineExceeded:   {504, "deadline", "The request took too long", true},
	rpc.NotFound:           {404, "not-found", "There is no such thing", false},
	rpc.AlreadyExists:      {409, "already-exists", "It exists already", false},
	rpc.PermissionDenied:   {403, "permission-denied", "You may not do this", false},
	rpc.ResourceExhausted:  {429, "rate-limited", "A limit is reached", false},
	rpc.FailedPrecondition: {409, "failed-precondition", "The state does not allow this", false},
	rpc.Aborted:            {409, "conflict", "Another request was faster", false},
	rpc.OutOfRange:         {400, "out-of-range", "The request is out of range", false},
	rpc.Unimplemented:      {501, "unimplemented", "This is not supported", false},
	rpc.Internal:           {500, "internal", "Something went wrong on our side", true},
	rpc.Unavailable:        {503, "unavailable", "The service cannot answer now", true},
	rpc.DataLoss:           {500, "internal", "Something went wrong on our side", true},
	rpc.Unauthenticated:    {401, "unauthenticated", "Please log in", false},
}

var overloaded = kind{503, "overload", "The service is busy", true}

// ProblemOf gives the problem document of an error. Only what a handler said of the
// request is shown as detail; what failed inside, and any error that is neither an
// *rpc.Error nor a *StatusError, is not.
func ProblemOf(err error) *Problem {
	if se, ok := errors.AsType[*StatusError](err); ok {
		return &Problem{Type: se.Type, Title: http.StatusText(se.Status), Status: se.Status, Detail: se.Detail, Field: se.Field}
	}
	if tl, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return ProblemOf(tooLarge(tl.Limit))
	}
	k, ok := kinds[rpc.CodeOf(err)]
	if !ok {
		k = kinds[rpc.Internal]
	}
	p := &Problem{}
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		switch e.Reason {
		case rpc.ReasonOverload:
			k = overloaded
		case rpc.ReasonNoInstance, rpc.ReasonBreaker, rpc.ReasonNetwork, rpc.ReasonShuttingDown:
			k = kinds[rpc.Unavailable]
		case rpc.ReasonDecode, rpc.ReasonPanic, rpc.ReasonUnknown, rpc.ReasonDenied:
			k = kinds[rpc.Internal] // between our own services: never the client's fault
		case rpc.ReasonHandler, rpc.ReasonDeadline, rpc.ReasonCanceled: // the code says it
		}
		p.RetryAfterMS = int64((e.Retry + time.Millisecond - 1) / time.Millisecond)
		// What a handler itself said is for the client; what the framework said of
		// its inside (addresses, method names) is not.
		if e.Reason == rpc.ReasonHandler && !k.hide {
			p.Detail = e.Message
		}
	}
	p.Type, p.Title, p.Status = k.name, k.title, k.status
	return p
}

// Write answers with the document. Retry-After is in whole seconds, rounded up,
// because RFC 9110 knows nothing finer; the document has the milliseconds.
func (p *Problem) Write(w http.ResponseWriter) {
	if p.RetryAfterMS <= 0 && (p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests) {
		p.RetryAfterMS = defaultRetry.Milliseconds()
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfterMS > 0 {
		h.Set("Retry-After", strconv.FormatInt((p.RetryAfterMS+999)/1000, 10))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers always encode
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the client may have gone; nobody else is to be told
}
