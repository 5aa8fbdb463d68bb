// SPDX-License-Identifier: Apache-2.0

// Package tracing gives a request its identity, decides at the entry whether it is
// traced, and keeps what is worth looking at later.
//
// Every request has the ids of W3C Trace Context, traced or not, so that what
// different processes keep of it can be put together. Whether it is traced is decided
// once, by the [Sampler] of its entry, and travels with it as one bit. A call that is
// not traced costs [Method.Keep], a few nanoseconds: there is no span, not even one
// that records nothing. A call that is traced, has failed, or was unusually slow
// becomes a [Record] when it has ended, and goes to the rings of its [Tracer], which
// the admin pages show, and to an [Exporter], if there is one.
//
// The package does not know OpenTelemetry: package otlp exports through its SDK, and
// is linked by whoever wants that.
package tracing

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
)

// TraceID identifies one request over all services (W3C Trace Context, 16 bytes).
// The zero value means none.
type TraceID [16]byte

// SpanID identifies one call within a trace (W3C Trace Context, 8 bytes). The
// zero value means none.
type SpanID [8]byte

// NewTraceID draws a trace id. It is unique, not secret.
func NewTraceID() TraceID {
	var t TraceID
	// Never the all-zero id, which the standard forbids. Its level 2 wants the last
	// seven bytes to be chance alone.
	putUint64(t[:8], rand.Uint64()|1)
	putUint64(t[8:], rand.Uint64())
	return t
}

// NewSpanID draws a span id. It is unique within its trace, not secret.
func NewSpanID() SpanID {
	var s SpanID
	putUint64(s[:], rand.Uint64()|1)
	return s
}

func putUint64(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (56 - 8*i))
	}
}

// IsZero reports whether t is no trace id.
func (t TraceID) IsZero() bool { return t == TraceID{} }

// String gives the 32 lower-case hex digits of the standard.
func (t TraceID) String() string { return hex.EncodeToString(t[:]) }

// IsZero reports whether s is no span id.
func (s SpanID) IsZero() bool { return s == SpanID{} }

// String gives the 16 lower-case hex digits of the standard.
func (s SpanID) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler: the hex digits, or nothing for no id.
func (t TraceID) MarshalText() ([]byte, error) {
	if t.IsZero() {
		return nil, nil
	}
	return hex.AppendEncode(nil, t[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *TraceID) UnmarshalText(text []byte) error { return unmarshalID(t[:], text) }

// MarshalText implements encoding.TextMarshaler: the hex digits, or nothing for no id.
func (s SpanID) MarshalText() ([]byte, error) {
	if s.IsZero() {
		return nil, nil
	}
	return hex.AppendEncode(nil, s[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *SpanID) UnmarshalText(text []byte) error { return unmarshalID(s[:], text) }

func unmarshalID(id, text []byte) error {
	if len(text) == 0 {
		clear(id)
		return nil
	}
	if len(text) != 2*len(id) || !decodeHex(id, string(text)) {
		clear(id)
		return fmt.Errorf("tracing: an id of %d bytes is %d lower-case hex digits, not %.40q", len(id), 2*len(id), text)
	}
	return nil
}

// Identity is a span as others refer to it: a parent, or the span that something
// was caused by.
type Identity struct {
	Trace   TraceID `json:"trace"`
	Span    SpanID  `json:"span"`
	Sampled bool    `json:"sampled,omitzero"`
}

// Traceparent gives the header value of W3C Trace Context, version 00. Of its flags
// only "sampled" is ever set, as level 1 of the standard asks of who knows no other.
func Traceparent(t TraceID, s SpanID, sampled bool) string {
	b := make([]byte, 55)
	copy(b, "00-")
	hex.Encode(b[3:35], t[:])
	b[35] = '-'
	hex.Encode(b[36:52], s[:])
	b[52], b[53], b[54] = '-', '0', '0'
	if sampled {
		b[54] = '1'
	}
	return string(b)
}

// ParseTraceparent reads a header value of W3C Trace Context. It accepts later
// versions as the standard asks (the first 55 characters count) and reports false
// for anything malformed, which the caller treats as if there were no header.
func ParseTraceparent(v string) (t TraceID, s SpanID, sampled, ok bool) {
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' ||
		v[:2] == "ff" || (v[:2] == "00" && len(v) != 55) || (len(v) > 55 && v[55] != '-') {
		return TraceID{}, SpanID{}, false, false
	}
	var version, flags [1]byte
	if !decodeHex(version[:], v[:2]) || !decodeHex(t[:], v[3:35]) || !decodeHex(s[:], v[36:52]) ||
		!decodeHex(flags[:], v[53:55]) || t.IsZero() || s.IsZero() {
		return TraceID{}, SpanID{}, false, false
	}
	return t, s, flags[0]&1 != 0, true
}

// decodeHex is strict where encoding/hex is not: the standard allows lower case only.
func decodeHex(dst []byte, src string) bool {
	for i := range dst {
		hi, lo := hexDigit(src[2*i]), hexDigit(src[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// Entry is the compact name of the door a request came in by, for example
// "POST /posts": the FNV-1a hash of that name. Zero means none.
type Entry uint32

// String gives the number as eight hex digits: the name is known where the entry is.
func (e Entry) String() string { return fmt.Sprintf("%08x", uint32(e)) }

// EntryOf gives the compact name of an entry.
func EntryOf(name string) Entry {
	const offset, prime = 2166136261, 16777619 // FNV-1a, 32 bits
	h := uint32(offset)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * prime
	}
	return Entry(max(h, 1))
}
