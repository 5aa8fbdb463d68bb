// SPDX-License-Identifier: Apache-2.0

// Package tracing gives a request its identity: the entry it came in by and the
// trace it belongs to, in the form of W3C Trace Context.
package tracing

import (
	"encoding/hex"
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
	putUint64(t[:8], rand.Uint64())
	putUint64(t[8:], rand.Uint64()|1) // never the all-zero id, which the standard forbids
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

// Traceparent gives the header value of W3C Trace Context, version 00.
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

// EntryOf gives the compact name of an entry.
func EntryOf(name string) Entry {
	const offset, prime = 2166136261, 16777619 // FNV-1a, 32 bits
	h := uint32(offset)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * prime
	}
	return Entry(max(h, 1))
}
