// SPDX-License-Identifier: Apache-2.0

package tracing

import (
	"fmt"
	"strings"
	"time"
)

// Kind is the part that the recording process has in a call. The names are those of
// OpenTelemetry's span kinds; the first four have the numbers of callgraph.Side.
type Kind uint8

// The kinds.
const (
	Client   Kind = 0
	Server   Kind = 1
	Producer Kind = 2 // puts a message into a queue
	Consumer Kind = 3 // works on a message out of a queue
	Internal Kind = 4 // a job, or a part of a request that is no call
)

var kindNames = [...]string{"client", "server", "producer", "consumer", "internal"}

// String gives the name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A kind of a later version is
// Internal, which says the least.
func (k *Kind) UnmarshalText(text []byte) error {
	*k = Internal
	for i, n := range kindNames {
		if n == string(text) {
			*k = Kind(i)
		}
	}
	return nil
}

// A Record is what is kept of one call, or of one attempt of it, at one of its ends.
// Names and numbers are those of the call; a record that was given to a Tracer is
// read-only.
type Record struct {
	Seq  uint64 `json:"seq"`  // set by the Tracer: counts its records
	Kept string `json:"kept"` // set by the Tracer: "sampled", "error", "slow", or several with "+"; or "below": a call that it has made was kept

	Trace  TraceID    `json:"trace"`
	Span   SpanID     `json:"span"`
	Parent SpanID     `json:"parent,omitzero"` // zero at the root
	State  string     `json:"state,omitzero"`  // tracestate, as it came in
	Links  []Identity `json:"links,omitzero"`  // of a consumer: the producers' spans

	Kind   Kind   `json:"kind"`
	Entry  Entry  `json:"entry,omitzero"`
	Named  string `json:"entry_name,omitzero"` // set by the Tracer: Tracer.EntryName
	Method string `json:"method"`              // the callee's full name; at an HTTP entry the route, "POST /posts"
	Caller string `json:"caller,omitzero"`     // the caller's full name, if known
	Peer   string `json:"peer,omitzero"`       // address of the other end

	Start    int64         `json:"start_ns"` // Unix time in ns
	Duration time.Duration `json:"duration_ns"`

	Class   string `json:"class"`            // how it ended, in the words of the call graph: "ok", "timeout"
	Code    string `json:"code,omitzero"`    // as gRPC names it, in lower case; empty for success
	Reason  string `json:"reason,omitzero"`  // who made the error
	Message string `json:"message,omitzero"` // of the error
	Status  int    `json:"status,omitzero"`  // of an HTTP answer
	Path    string `json:"path,omitzero"`    // of an HTTP request, without its query; makes the call one of HTTP
	Scheme  string `json:"scheme,omitzero"`  // of an HTTP request; empty means "http"
	Attempt int    `json:"attempt,omitzero"` // of a client: counts from 1; 0 when nothing was sent

	RequestBytes  int64 `json:"request_bytes,omitzero"`
	ResponseBytes int64 `json:"response_bytes,omitzero"`

	Notes []Note `json:"notes,omitzero"` // what the handler has said of it
}

// Note is an attribute of a record.
type Note struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// The bounds of what a record may hold; what is longer is cut off.
const (
	maxNameLen    = 200
	maxMessageLen = 256
	maxLinks      = 32
	maxNotes      = 16
	maxNoteKey    = 64
	maxNoteValue  = 128
)

// bound cuts what comes from outside: the memory of a ring is that of its records.
// What was cut or mended is a copy, so that it does not hold on to what it was part of.
func (r *Record) bound() {
	r.Method, r.Caller, r.Peer = cut(r.Method, maxNameLen), cut(r.Caller, maxNameLen), cut(r.Peer, maxNameLen)
	r.Class, r.Code, r.Reason = cut(r.Class, maxNameLen), cut(r.Code, maxNameLen), cut(r.Reason, maxNameLen)
	r.Message, r.Path = cut(r.Message, maxMessageLen), cut(r.Path, maxMessageLen)
	r.Scheme = cut(r.Scheme, maxNoteKey)
	if len(r.State) > MaxTracestate {
		r.State = ""
	}
	r.Links = r.Links[:min(len(r.Links), maxLinks):min(len(r.Links), maxLinks)]
	r.Notes = r.Notes[:min(len(r.Notes), maxNotes):min(len(r.Notes), maxNotes)]
	for i := range r.Notes {
		r.Notes[i] = Note{Key: cut(r.Notes[i].Key, maxNoteKey), Value: cut(r.Notes[i].Value, maxNoteValue)}
	}
}

func cut(s string, n int) string {
	if len(s) > n {
		s = strings.Clone(strings.ToValidUTF8(s[:n-len("...")], "")) + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
